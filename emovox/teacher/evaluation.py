"""How well a teacher's logits agree with the votes of FERPlus."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emovox.emotions import EMOTIONS
from emovox.teacher import Teacher, ferplus


@dataclass(frozen=True)
class Scores:
    """What a teacher reaches on one part of FERPlus.

    Attributes:
        accuracy: share of faces whose largest logit is the first maximum of the votes.
        cross_entropy: mean cross-entropy to the distribution of votes, in nats.
        recall: accuracy per emotion of the label; NaN for an emotion that never occurs.
        counts: faces per emotion of the label.
    """

    accuracy: float
    cross_entropy: float
    recall: tuple[float, ...]
    counts: tuple[int, ...]

    def summary(self) -> str:
        """The figures as lines of text."""
        lines = [
            f"faces          {sum(self.counts):,}",
            f"accuracy       {100 * self.accuracy:.2f} %",
            f"cross-entropy  {self.cross_entropy:.4f} nats",
        ]
        for emotion, recall, count in zip(EMOTIONS, self.recall, self.counts, strict=True):
            lines.append(f"  {emotion:<13}{100 * recall:6.2f} % of {count:,}")
        return "\n".join(lines)


def score(logits: np.ndarray, targets: np.ndarray) -> Scores:
    """Compare logits `[N, 8]` with vote distributions `[N, 8]`."""
    labels = targets.argmax(axis=1)
    hits = logits.argmax(axis=1) == labels
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    recall = [
        float(hits[labels == k].mean()) if (labels == k).any() else math.nan for k in range(8)
    ]
    return Scores(
        accuracy=float(hits.mean()),
        cross_entropy=float(-(targets * log_probs).sum(axis=1).mean()),
        recall=tuple(recall),
        counts=tuple(int((labels == k).sum()) for k in range(len(EMOTIONS))),
    )


def evaluate(teacher: Teacher, data: str | Path, part: str) -> Scores:
    """Run a teacher on the faces of one part of FERPlus, resized to its input where they differ.

    Raises:
        InputError: `data` is not FERPlus.
    """
    faces = ferplus.read(data, part)
    size = (teacher.input_size, teacher.input_size)
    images = faces.images
    if size != images.shape[1:]:
        resized = [cv2.resize(face, size, interpolation=cv2.INTER_LINEAR) for face in images]
        images = np.stack(resized)
    logits = [
        teacher(np.repeat(images[i : i + 512, :, :, None], 3, axis=3))
        for i in range(0, len(images), 512)
    ]
    return score(np.concatenate(logits), faces.targets)
