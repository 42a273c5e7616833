"""Agreement of logits with the votes of annotators."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS, PUBLISHED, Outputs
from emovox.scores import calibration_error, confusion_matrix, softmax


@dataclass(frozen=True)
class Scores:
    """Scores of logits on labelled faces."""

    accuracy: float  # share of faces whose largest logit is the first maximum of the votes
    mean_class_accuracy: float  # mean of `recall` over the emotions that occur
    cross_entropy: float  # mean cross-entropy to the distribution of votes, in nats
    kl_divergence: float  # KL(votes || prediction), nats: cross-entropy minus the votes' entropy
    calibration_error: float  # expected calibration error of the largest probability, 15 equal bins
    calibration_error_fitted: float  # the same for logits divided by the teacher's temperature
    recall: tuple[float, ...]  # accuracy per emotion of the label; NaN for one that never occurs
    counts: tuple[int, ...]  # faces per emotion of the label
    confusion: tuple[tuple[int, ...], ...]  # faces by label (rows) and prediction (columns)
    emotions: tuple[str, ...] = EMOTIONS  # in the order of `recall`, `counts` and `confusion`
    rmse: Mapping[str, float] = field(default_factory=dict)  # by value, of faces where it is known

    def as_json(self) -> dict[str, Any]:
        """Return plain values by emotion; the recall of an emotion that never occurs is None."""
        recall = [None if math.isnan(value) else value for value in self.recall]
        return asdict(self) | {
            "recall": dict(zip(self.emotions, recall, strict=True)),
            "counts": dict(zip(self.emotions, self.counts, strict=True)),
            "emotions": list(self.emotions),
        }


def score(
    logits: np.ndarray, targets: np.ndarray, outputs: Outputs = PUBLISHED, temperature: float = 1.0
) -> Scores:
    """Compare logits, then values, `[N, E + V]` with distributions of votes, then values.

    `temperature` divides the logits for `calibration_error_fitted`.
    """
    logits, targets = logits.astype(np.float64), targets.astype(np.float64)
    num = len(outputs.emotions)
    known = np.ma.masked_invalid(targets[:, num:])
    errors = np.sqrt(((logits[:, num:] - known) ** 2).mean(axis=0)).tolist()  # None if unknown
    rmse = {n: e for n, e in zip(outputs.values, errors, strict=True) if e is not None}
    logits, targets = logits[:, :num], targets[:, :num]
    labels, predicted = targets.argmax(axis=1), logits.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, targets.shape[1])
    counts = confusion.sum(axis=1)
    recall = np.where(counts, confusion.diagonal() / np.maximum(counts, 1), np.nan)
    probabilities = softmax(logits)
    log_probs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    cross_entropy = float(-(targets * log_probs).sum(axis=1).mean())
    entropy = float(-(targets * np.log(np.where(targets > 0, targets, 1))).sum(axis=1).mean())
    return Scores(
        accuracy=float((predicted == labels).mean()),
        mean_class_accuracy=float(np.nanmean(recall)),
        cross_entropy=cross_entropy,
        kl_divergence=cross_entropy - entropy,
        calibration_error=calibration_error(probabilities, labels),
        calibration_error_fitted=calibration_error(softmax(logits / temperature), labels),
        recall=tuple(recall.tolist()),
        counts=tuple(counts.tolist()),
        confusion=tuple(map(tuple, confusion.tolist())),
        emotions=outputs.emotions,
        rmse=rmse,
    )
