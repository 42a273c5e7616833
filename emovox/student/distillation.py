"""Losses between a teacher's logits and a student's."""

import torch
import torch.nn.functional as F

from emovox.student.student_config import StudentTrainConfig


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, config: StudentTrainConfig
) -> torch.Tensor:
    """The loss of each segment, `[B]`, of logits `[B, 8]` (paper, section 3.2).

    Cross-entropy has no factor of T squared, as in the paper; euclidean and huber add up over the
    emotions.
    """
    if config.loss == "cross-entropy":
        softened = (teacher / config.temperature).softmax(dim=1)
        return F.cross_entropy(student / config.temperature, softened, reduction="none")
    if config.loss == "hard-label":
        return F.cross_entropy(student, teacher.argmax(dim=1), reduction="none")
    if config.loss == "euclidean":
        return 0.5 * (student - teacher).square().sum(dim=1)
    return F.huber_loss(student, teacher, reduction="none").sum(dim=1)
