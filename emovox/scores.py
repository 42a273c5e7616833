"""Scores of a classifier: softmax, ROC curves and areas, confusion matrices, intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

CURVE_POINTS = 160  # most points of a ROC curve; a chart cannot show more


@dataclass(frozen=True)
class Interval:
    """A score and its confidence interval; NaN where a value is unknown."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def from_json(cls, values: Mapping[str, float | None]) -> "Interval":
        """Read what `as_json` returned."""
        return cls(**{name: math.nan if v is None else float(v) for name, v in values.items()})

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_json(self) -> dict[str, float | None]:
        """Return the values by name, None in place of NaN."""
        return {name: None if math.isnan(v) else v for name, v in asdict(self).items()}


@dataclass(frozen=True)
class Curve:
    """A ROC curve: false and true positive rates, float64 `[P]` each, from 0 to 1."""

    false_rate: np.ndarray
    true_rate: np.ndarray


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities `[N, E]` of logits `[N, E]`, in the same float type."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def roc_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve for several weightings of the same examples.

    The area is the probability that a positive example has a higher score than a negative one,
    with ties counted half.

    Args:
        positive: bool `[N]`.
        scores: float `[N]`.
        weights: float `[R, N]`, the count of each example in each of R rounds.

    Returns:
        float64 `[R]`; NaN for a round without a positive or without a negative example.
    """
    order = np.argsort(scores, kind="stable")
    _, groups = np.unique(scores[order], return_index=True)  # start of each run of ties
    weights = np.asarray(weights, np.float64)[:, order]
    hits = np.add.reduceat(weights * positive[order], groups, axis=1)
    misses = np.add.reduceat(weights * ~positive[order], groups, axis=1)
    below = misses.cumsum(axis=1) - misses
    with np.errstate(invalid="ignore"):
        area = (hits * (below + misses / 2)).sum(axis=1)
        return np.asarray(area / (hits.sum(axis=1) * misses.sum(axis=1)))


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> Curve:
    """Return the ROC curve of scores `[N]` in at most `CURVE_POINTS` points; a tie is one step."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.append(0, positive[order].cumsum()[last])
    misses = np.append(0, (~positive[order]).cumsum()[last])
    false_rate, true_rate = misses / max(misses[-1], 1), hits / max(hits[-1], 1)
    if len(false_rate) > CURVE_POINTS:
        # Both rates rise, so equal steps of their sum are even along the curve.
        way = false_rate + true_rate
        places = np.linspace(0, way[-1], CURVE_POINTS)
        false_rate = np.interp(places, way, false_rate)
        true_rate = places - false_rate
    return Curve(false_rate, true_rate)


def emotion_curves(
    labels: np.ndarray, scores: np.ndarray, emotions: Sequence[str]
) -> dict[str, Curve]:
    """Return the ROC curve of each emotion against the rest; none if no or every example has it.

    `labels` are numbers of the emotions, int `[N]`; `scores` float `[N, E]`.
    """
    return {
        emotion: roc_curve(labels == k, scores[:, k])
        for k, emotion in enumerate(emotions)
        if 0 < (labels == k).sum() < len(labels)
    }


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num: int) -> np.ndarray:
    """Count examples by label (rows) and prediction, numbers below `num`: int64 `[num, num]`."""
    return np.bincount(num * labels + predicted, minlength=num * num).reshape(num, num)
