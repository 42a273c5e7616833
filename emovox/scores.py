"""Scores of a classifier: ROC curves and areas, recall, F1, calibration, bootstrap intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS

CURVE_POINTS = 160  # most points of a ROC curve; a chart cannot show more
CALIBRATION_BINS = 15  # of equal width, as in Guo et al. (2017)
TEMPERATURES = 0.05, 20.0  # bounds of a fitted temperature
# The paper's mean excludes the rare emotions (section 5.2). It is NaN where one has no name.
PAPER_EMOTIONS = EMOTIONS[:5]
MEAN_PAPER, MEAN_ALL = "mean of the paper's five", "mean of all that occur"
ROUNDS = 1000  # of the bootstrap
CONFIDENCE = 0.95
CHUNK = 100  # bootstrap rounds in memory at a time
# Fewer make intervals of 95 % hold less often: measured 0.09 with one positive, 0.77 with 3 and
# 0.93 with 10; 0.90 with 10 identities, 0.94 from 40 on.
MIN_POSITIVES, MIN_IDENTITIES = 10, 40
# A ROC curve: false and true positive rates, float64 `[P]` each, from 0 to 1.
Curve = tuple[np.ndarray, np.ndarray]
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
    return false_rate, true_rate


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
    return float(np.abs(np.bincount(bins, confidence - hits, CALIBRATION_BINS)).sum() / len(hits))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the divisor of logits `[N, E]` with the lowest cross-entropy to labels `[N]`.

    See Guo et al. (2017). Needs scipy, of the extra `build`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels].mean())

    return math.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x)


@dataclass(frozen=True)
class SplitScores:
    """Scores of a student on one split."""

    split: str  # name of the split
    num_tracks: int  # number of scored tracks
    num_identities: int  # number of their identities
    positives: Mapping[str, int]  # tracks per emotion of the label, for all emotions in order
    auc: Mapping[str, Interval]  # of each emotion, and the two means
    samples: np.ndarray  # bootstrap samples of the mean `main_mean(positives)`, float64 `[rounds]`
    areas: np.ndarray  # bootstrap samples of the AUC of each emotion, float64 `[rounds, E]`
    # Scores by name: accuracy, unweighted average recall (UAR), macro F1, and the expected
    # calibration error, as it is and with a fitted temperature; NaN where unknown
    others: Mapping[str, float]
    confusion: np.ndarray  # int64 `[E, E]`, tracks by label of the teacher (rows) and the student

    def as_json(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return {
            "tracks": self.num_tracks,
            "identities": self.num_identities,
            "positives": dict(self.positives),
            "auc": {name: interval.as_json() for name, interval in self.auc.items()},
            **{name: Interval(value).as_json()["value"] for name, value in self.others.items()},
            "confusion": self.confusion.tolist(),
        }


def main_mean(emotions: Iterable[str]) -> str:
    """Return the name of the mean to compare: of the paper's five if the dataset has all five."""
    return MEAN_PAPER if set(PAPER_EMOTIONS) <= set(emotions) else MEAN_ALL


def score_split(
    split: str,
    labels: np.ndarray,
    scores: np.ndarray,
    identities: np.ndarray,
    emotions: Sequence[str],
    seed: int = 0,
    absent: float = np.nan,
    temperature: float = np.nan,
) -> SplitScores:
    """Return the AUC of every emotion with bootstrap intervals, and other scores.

    The bootstrap draws whole identities `[N]`, with replacement; an emotion that a round does not
    draw is left out of that round. Labels are numbers of the emotions, int `[N]`; scores are the
    probabilities of the student, float `[N, E]`. `absent` is the AUC of an emotion that no track
    has: NaN excludes it from the means; the reference code uses 0. `temperature` divides the logits
    for the second calibration error.
    """
    names, numbers = np.unique(identities, return_inverse=True)
    present = np.bincount(labels, minlength=len(emotions))
    generator = np.random.default_rng([seed, *split.encode()])  # independent between splits
    parts = [_aucs(labels, scores, np.ones((1, len(labels))))]
    for start in range(0, ROUNDS, CHUNK):
        drawn = generator.integers(len(names), size=(min(CHUNK, ROUNDS - start), len(names)))
        counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        parts.append(_aucs(labels, scores, counts[:, numbers]))
    areas = np.concatenate(parts)  # [1 + ROUNDS, E]; the first row is of the tracks themselves
    areas[:, np.isnan(areas[0])] = absent
    columns = dict(zip(emotions, areas.T, strict=True))
    five = np.full(len(areas), np.nan)
    if main_mean(emotions) == MEAN_PAPER:
        five = _mean(np.stack([columns[name] for name in PAPER_EMOTIONS], axis=1))
    columns |= {MEAN_PAPER: five, MEAN_ALL: _mean(areas)}
    rarer = np.minimum(present, len(labels) - present)  # examples of the rarer side
    rare = [n for n, k in zip(emotions, rarer, strict=True) if 0 < k < MIN_POSITIVES]
    rare += [MEAN_ALL] * bool(rare) + [MEAN_PAPER] * any(n in PAPER_EMOTIONS for n in rare)
    enough = len(names) >= MIN_IDENTITIES
    auc = {
        name: interval(column[0], column[1:], enough and name not in rare)
        for name, column in columns.items()
    }
    sizes = len(labels), len(names), dict(zip(emotions, present.tolist(), strict=True))
    known = not np.isnan(temperature)
    fitted = softmax(log_scores(scores) / temperature) if known else None
    others = class_scores(labels, scores, fitted)
    return SplitScores(split, *sizes, auc, columns[main_mean(emotions)][1:], areas[1:], *others)


def common_emotions(*splits: SplitScores) -> tuple[str, ...]:
    """Return the emotions of `main_mean` that some tracks, and not all, have in every split."""
    emotions = tuple(splits[0].positives)
    counted = PAPER_EMOTIONS if main_mean(emotions) == MEAN_PAPER else emotions
    return tuple(n for n in counted if all(0 < s.positives[n] < s.num_tracks for s in splits))


def difference(heard: SplitScores, unheard: SplitScores) -> Interval:
    """Return the mean AUC on heard minus that on unheard identities.

    The mean is over `common_emotions`, and in a round of the bootstrap over those of them that it
    draws in both splits. It is clearly above 0 for a student that recognises people instead of
    emotions.
    """
    names = common_emotions(heard, unheard)
    chosen = [tuple(heard.positives).index(name) for name in names]
    points = [heard.auc[name].value - unheard.auc[name].value for name in names]
    gaps = np.vstack([points, (heard.areas - unheard.areas)[:, chosen]])
    value, *samples = _mean(gaps)
    reliable = all(s.auc[name].reliable for s in (heard, unheard) for name in names)
    return interval(value, np.array(samples), reliable)


def log_scores(scores: np.ndarray) -> np.ndarray:
    """Return logits float64 `[N, E]` of probabilities; a probability of 0 counts as the least."""
    return np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))


def _aucs(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    columns = [roc_auc(labels == k, column, weights) for k, column in enumerate(scores.T)]
    return np.stack(columns, axis=1)


def _mean(areas: np.ndarray) -> np.ndarray:
    """Return the mean of each row without its NaNs; NaN for a row of NaNs."""
    known = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, areas, 0).sum(axis=1) / known.sum(axis=1))


def interval(value: float, samples: np.ndarray, reliable: bool) -> Interval:
    """Return a score with the interval of its bootstrap samples; NaNs among them do not count."""
    samples = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(samples):
        return Interval(float(value), np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), reliable)
