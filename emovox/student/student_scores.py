"""ROC AUC of a student, one emotion against the rest, with intervals over identities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS

# The paper's mean leaves out the emotions that hardly occur (section 5.2).
PAPER_EMOTIONS = EMOTIONS[:5]
MEAN_PAPER, MEAN_ALL = "mean of the paper's five", "mean of all that occur"
ROUNDS = 1000  # of the bootstrap
CONFIDENCE = 0.95
CHUNK = 100  # rounds at a time; bounds memory


@dataclass(frozen=True)
class Interval:
    """A figure and where 95 % of the bootstrap samples lie; NaN where there is none."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """Plain values; None for NaN."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(value) else value for name, value in values.items()}


@dataclass(frozen=True)
class SplitScores:
    """How well a student tells emotions apart on one split.

    Attributes:
        split: its name.
        num_tracks, num_identities: scored.
        positives: tracks whose label an emotion is, by emotion.
        auc: of each emotion, and the two means.
        samples: bootstrap samples of the paper's mean, float64 `[rounds]`.
    """

    split: str
    num_tracks: int
    num_identities: int
    positives: Mapping[str, int]
    auc: Mapping[str, Interval]
    samples: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "tracks": self.num_tracks,
            "identities": self.num_identities,
            "positives": dict(self.positives),
            "auc": {name: interval.as_json() for name, interval in self.auc.items()},
        }


def roc_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for several weightings of the same examples.

    The probability that a positive example has a higher score than a negative one, ties counting
    half.

    Args:
        positive: bool `[N]`.
        scores: float `[N]`.
        weights: float `[R, N]`, how often each example counts in each of R rounds.

    Returns:
        float64 `[R]`; NaN where a round has no positive or no negative example.
    """
    order = np.argsort(scores, kind="stable")
    _, groups = np.unique(scores[order], return_index=True)  # where each run of ties begins
    weights = np.asarray(weights, np.float64)[:, order]
    hits = np.add.reduceat(weights * positive[order], groups, axis=1)
    misses = np.add.reduceat(weights * ~positive[order], groups, axis=1)
    below = misses.cumsum(axis=1) - misses
    with np.errstate(invalid="ignore"):
        area = (hits * (below + misses / 2)).sum(axis=1)
        return np.asarray(area / (hits.sum(axis=1) * misses.sum(axis=1)))


def score_split(
    split: str,
    labels: np.ndarray,
    scores: np.ndarray,
    identities: np.ndarray,
    seed: int = 0,
    absent: float = np.nan,
) -> SplitScores:
    """AUC of every emotion with bootstrap intervals: whole identities are drawn, with replacement.

    Args:
        split: name.
        labels: numbers of the emotions, int `[N]`.
        scores: of the student, float `[N, 8]`.
        identities: of the tracks, `[N]`.
        seed: of the bootstrap.
        absent: the AUC of an emotion that no track has. NaN leaves it out of the means; the
            reference code has 0.
    """
    names, numbers = np.unique(identities, return_inverse=True)
    present = np.bincount(labels, minlength=len(EMOTIONS))
    generator = np.random.default_rng([seed, *split.encode()])  # splits are drawn independently
    parts = [_areas(labels, scores, np.ones((1, len(labels))), absent)]
    for start in range(0, ROUNDS, CHUNK):
        drawn = generator.integers(len(names), size=(min(CHUNK, ROUNDS - start), len(names)))
        counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        parts.append(_areas(labels, scores, counts[:, numbers], absent))
    areas = np.concatenate(parts)  # [1 + ROUNDS, 8], the first row of the tracks as they are
    five = _mean(areas[:, : len(PAPER_EMOTIONS)])
    columns = dict(zip(EMOTIONS, areas.T, strict=True))
    columns |= {MEAN_PAPER: five, MEAN_ALL: _mean(areas)}
    return SplitScores(
        split,
        len(labels),
        len(names),
        dict(zip(EMOTIONS, present.tolist(), strict=True)),
        {name: _interval(column[0], column[1:]) for name, column in columns.items()},
        five[1:],
    )


def difference(heard: SplitScores, unheard: SplitScores) -> Interval:
    """Paper's mean on heard minus unheard identities: what knowing a voice is worth.

    A student that tells people apart rather than emotions has it clearly above 0.
    """
    value = heard.auc[MEAN_PAPER].value - unheard.auc[MEAN_PAPER].value
    return _interval(value, heard.samples - unheard.samples)


def _areas(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, absent: float
) -> np.ndarray:
    areas = np.stack(
        [roc_auc(labels == k, scores[:, k], weights) for k in range(len(EMOTIONS))], axis=1
    )
    return np.where(np.isnan(areas), absent, areas)


def _mean(areas: np.ndarray) -> np.ndarray:
    """Mean of each row over what is not NaN; NaN for a row of nothing else."""
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
