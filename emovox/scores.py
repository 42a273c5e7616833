"""Scores of a classifier: softmax, ROC curves and areas, confusion matrices, intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

CURVE_POINTS = 160  # most points of a ROC curve; a chart cannot show more
CALIBRATION_BINS = 15  # of equal width, as in Guo et al. (2017)
TEMPERATURES = 0.05, 20.0  # bounds of a fitted temperature
# Scores of `class_scores` -> their labels.
CLASS_SCORES = {
    "accuracy": "accuracy",
    "uar": "UAR",
    "macro_f1": "macro F1",
    "calibration_error": "calibration error",
    "calibration_error_fitted": "calibration error, fitted temperature",
}


@dataclass(frozen=True)
class Interval:
    """A score and its confidence interval; NaN where a value is unknown."""

    value: float
    low: float = math.nan
    high: float = math.nan
    reliable: bool = True  # False: too few examples for the stated confidence; marked with `?`

    @classmethod
    def from_json(cls, values: Mapping[str, float | None]) -> "Interval":
        """Read what `as_json` returned."""
        known = {name: math.nan if v is None else float(v) for name, v in values.items()}
        reliable = bool(known.pop("reliable", True))
        return cls(**known, reliable=reliable)

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        mark = "" if self.reliable else "?"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]{mark}"

    def as_json(self) -> dict[str, float | None]:
        """Return the values by name, None in place of NaN; `reliable` only where it is false."""
        values = {name: None if math.isnan(v) else v for name, v in asdict(self).items()}
        if self.reliable:
            del values["reliable"]
        return values


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


def recall_and_f1(confusion: np.ndarray) -> tuple[float, float]:
    """Return mean recall (UAR) and mean F1 of the classes that occur; confusion int `[E, E]`."""
    counts, hits = confusion.sum(axis=1), confusion.diagonal()
    occurs = counts > 0
    f1 = 2 * hits[occurs] / (counts + confusion.sum(axis=0))[occurs]
    return float((hits[occurs] / counts[occurs]).mean()), float(f1.mean())


def class_scores(
    labels: np.ndarray, probabilities: np.ndarray, fitted: np.ndarray | None = None
) -> tuple[dict[str, float], np.ndarray]:
    """Return the scores of `CLASS_SCORES` and the confusion matrix int64 `[E, E]`.

    Labels are int `[N]`; probabilities `[N, E]`, and those with a fitted temperature if known.
    """
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])
    accuracy, (recall, f1) = float(confusion.trace() / len(labels)), recall_and_f1(confusion)
    errors = (
        math.nan if p is None else calibration_error(p, labels) for p in (probabilities, fitted)
    )
    return dict(zip(CLASS_SCORES, (accuracy, recall, f1, *errors), strict=True)), confusion


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error of the largest probability, over 15 equal bins.

    This is the mean over examples of |accuracy - mean confidence| of the bin of each. Probabilities
    are `[N, E]`, labels int `[N]`.
    """
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, confidence - hits, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(hits))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the divisor of logits `[N, E]` with the lowest cross-entropy to labels `[N]`.

    See Guo et al. (2017). Needs scipy, of the extra `build`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels].mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return math.exp(found.x)
