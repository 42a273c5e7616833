"""ROC AUC of a student, each emotion against the rest, with bootstrap intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS
from emovox.scores import Interval, roc_auc

# The paper's mean excludes the rare emotions (section 5.2). It is NaN where one has no name.
PAPER_EMOTIONS = EMOTIONS[:5]
MEAN_PAPER, MEAN_ALL = "mean of the paper's five", "mean of all that occur"
ROUNDS = 1000  # of the bootstrap
CONFIDENCE = 0.95
CHUNK = 100  # bootstrap rounds in memory at a time


@dataclass(frozen=True)
class SplitScores:
    """Scores of a student on one split."""

    split: str  # name of the split
    num_tracks: int  # number of scored tracks
    num_identities: int  # number of their identities
    positives: Mapping[str, int]  # tracks per emotion of the label, for all emotions in order
    auc: Mapping[str, Interval]  # of each emotion, and the two means
    samples: np.ndarray  # bootstrap samples of the mean `main_mean(positives)`, float64 `[rounds]`

    def as_json(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return {
            "tracks": self.num_tracks,
            "identities": self.num_identities,
            "positives": dict(self.positives),
            "auc": {name: interval.as_json() for name, interval in self.auc.items()},
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
) -> SplitScores:
    """Return the AUC of every emotion with bootstrap intervals.

    The bootstrap draws whole identities `[N]`, with replacement. Labels are numbers of the
    emotions, int `[N]`; scores are of the student, float `[N, E]`. `absent` is the AUC of an
    emotion that no track has: NaN excludes it from the means; the reference code uses 0.
    """
    names, numbers = np.unique(identities, return_inverse=True)
    present = np.bincount(labels, minlength=len(emotions))
    generator = np.random.default_rng([seed, *split.encode()])  # independent between splits
    parts = [_aucs(labels, scores, np.ones((1, len(labels))), absent)]
    for start in range(0, ROUNDS, CHUNK):
        drawn = generator.integers(len(names), size=(min(CHUNK, ROUNDS - start), len(names)))
        counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        parts.append(_aucs(labels, scores, counts[:, numbers], absent))
    areas = np.concatenate(parts)  # [1 + ROUNDS, E]; the first row is of the tracks themselves
    columns = dict(zip(emotions, areas.T, strict=True))
    five = np.full(len(areas), np.nan)
    if main_mean(emotions) == MEAN_PAPER:
        five = _mean(np.stack([columns[name] for name in PAPER_EMOTIONS], axis=1))
    columns |= {MEAN_PAPER: five, MEAN_ALL: _mean(areas)}
    return SplitScores(
        split,
        len(labels),
        len(names),
        dict(zip(emotions, present.tolist(), strict=True)),
        {name: _interval(column[0], column[1:]) for name, column in columns.items()},
        columns[main_mean(emotions)][1:],
    )


def difference(heard: SplitScores, unheard: SplitScores) -> Interval:
    """Return the mean AUC (`main_mean`) on heard minus that on unheard identities.

    It is clearly above 0 for a student that recognises people instead of emotions.
    """
    mean = main_mean(heard.positives)
    value = heard.auc[mean].value - unheard.auc[mean].value
    return _interval(value, heard.samples - unheard.samples)


def _aucs(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, absent: float) -> np.ndarray:
    columns = [roc_auc(labels == k, column, weights) for k, column in enumerate(scores.T)]
    areas = np.stack(columns, axis=1)
    return np.where(np.isnan(areas), absent, areas)


def _mean(areas: np.ndarray) -> np.ndarray:
    """Return the mean of each row without its NaNs; NaN for a row of NaNs."""
    known = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, areas, 0).sum(axis=1) / known.sum(axis=1))


def _interval(value: float, samples: np.ndarray) -> Interval:
    samples = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(samples):
        return Interval(float(value), np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
