"""Losses between the logits of a teacher and a student."""

import torch
import torch.nn.functional as F

from emovox.student.student_config import StudentTrainConfig


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, config: StudentTrainConfig
) -> torch.Tensor:
    """Return the loss of each segment, `[B]`, from logits `[B, E]` (paper, section 3.2).

    As in the paper, cross-entropy has no factor T squared; euclidean and huber are summed over the
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
