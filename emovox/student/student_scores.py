"""Scores of a student: ROC AUC with bootstrap intervals, recall, F1 and calibration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emovox import scores as metrics
from emovox.emotions import EMOTIONS
from emovox.scores import Interval

# The paper's mean excludes the rare emotions (section 5.2). It is NaN where one has no name.
PAPER_EMOTIONS = EMOTIONS[:5]
MEAN_PAPER, MEAN_ALL = "mean of the paper's five", "mean of all that occur"
ROUNDS = 1000  # of the bootstrap
CONFIDENCE = 0.95
CHUNK = 100  # bootstrap rounds in memory at a time
# Fewer make intervals of 95 % hold less often: measured 0.09 with one positive, 0.77 with 3 and
# 0.93 with 10; 0.90 with 10 identities, 0.94 from 40 on.
MIN_POSITIVES, MIN_IDENTITIES = 10, 40


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
        name: _interval(column[0], column[1:], enough and name not in rare)
        for name, column in columns.items()
    }
    sizes = len(labels), len(names), dict(zip(emotions, present.tolist(), strict=True))
    known = not np.isnan(temperature)
    fitted = metrics.softmax(log_scores(scores) / temperature) if known else None
    others = metrics.class_scores(labels, scores, fitted)
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
    return _interval(value, np.array(samples), reliable)


def log_scores(scores: np.ndarray) -> np.ndarray:
    """Return logits float64 `[N, E]` of probabilities; a probability of 0 counts as the least."""
    return np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))


def _aucs(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    columns = [metrics.roc_auc(labels == k, column, weights) for k, column in enumerate(scores.T)]
    return np.stack(columns, axis=1)


def _mean(areas: np.ndarray) -> np.ndarray:
    """Return the mean of each row without its NaNs; NaN for a row of NaNs."""
    known = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, areas, 0).sum(axis=1) / known.sum(axis=1))


def _interval(value: float, samples: np.ndarray, reliable: bool) -> Interval:
    samples = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(samples):
        return Interval(float(value), np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), reliable)
