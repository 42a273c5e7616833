"""How well logits agree with the votes of annotators: numbers, and a picture of the confusions."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS
from emovox.files import replace_file

CALIBRATION_BINS = 15  # of equal width, as in Guo et al. (2017)


@dataclass(frozen=True)
class Scores:
    """What logits reach on labelled faces.

    Attributes:
        accuracy: share of faces whose largest logit is the first maximum of the votes.
        mean_class_accuracy: mean of `recall` over the emotions that occur.
        cross_entropy: mean cross-entropy to the distribution of votes, in nats.
        kl_divergence: of the prediction from the votes, in nats: cross-entropy less the votes' own
            entropy.
        calibration_error: expected calibration error of the largest probability, 15 equal bins.
        recall: accuracy per emotion of the label; NaN for an emotion that never occurs.
        counts: faces per emotion of the label.
        confusion: faces by label (rows) and prediction (columns).
    """

    accuracy: float
    mean_class_accuracy: float
    cross_entropy: float
    kl_divergence: float
    calibration_error: float
    recall: tuple[float, ...]
    counts: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values with the emotions' names; None for the recall of one that never occurs."""
        recall = [None if math.isnan(value) else value for value in self.recall]
        return asdict(self) | {
            "recall": dict(zip(EMOTIONS, recall, strict=True)),
            "counts": dict(zip(EMOTIONS, self.counts, strict=True)),
            "emotions": list(EMOTIONS),
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[N, 8]` of logits `[N, 8]`, in the same float type."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def score(logits: np.ndarray, targets: np.ndarray) -> Scores:
    """Compare logits `[N, 8]` with vote distributions `[N, 8]`."""
    logits, targets = logits.astype(np.float64), targets.astype(np.float64)
    labels, predicted = targets.argmax(axis=1), logits.argmax(axis=1)
    confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    counts = confusion.sum(axis=1)
    recall = [confusion[k, k] / counts[k] if counts[k] else math.nan for k in range(len(EMOTIONS))]
    log_probs = np.log(np.maximum(softmax(logits), np.finfo(np.float64).tiny))
    cross_entropy = float(-(targets * log_probs).sum(axis=1).mean())
    entropy = float(-(targets * np.log(np.where(targets > 0, targets, 1))).sum(axis=1).mean())
    return Scores(
        accuracy=float((predicted == labels).mean()),
        mean_class_accuracy=float(np.nanmean(recall)),
        cross_entropy=cross_entropy,
        kl_divergence=cross_entropy - entropy,
        calibration_error=_calibration_error(softmax(logits).max(axis=1), predicted == labels),
        recall=tuple(map(float, recall)),
        counts=tuple(map(int, counts)),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
    )


def _calibration_error(confidence: np.ndarray, hits: np.ndarray) -> float:
    """Mean over faces of |accuracy - mean confidence| of the bin that a face falls into."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, confidence - hits, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(hits))


def draw_confusion(scores: Scores, title: str, path: Path) -> None:
    """Write the confusion matrix as a PNG: rows in percent of the label's faces, with counts."""
    draw_matrix(np.array(scores.confusion), EMOTIONS, "faces", title, path)


def draw_matrix(
    confusion: np.ndarray, classes: Sequence[str], items: str, title: str, path: Path
) -> None:
    """Write a confusion matrix as a PNG: rows in percent of the label's items, with counts.

    Args:
        confusion: counts by label (rows) and prediction (columns), int `[C, C]`.
        classes: names of the rows and columns.
        items: what is counted, in the plural.
        title: above the figure.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    counts = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(counts, 1)
    side = max(5, len(classes))  # inches
    figure = Figure(figsize=(side, side - 1), layout="constrained", dpi=120)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        axes.text(
            column,
            row,
            f"{100 * shares[row, column]:.1f}\n({count})" if counts[row, 0] else "-",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 0.5 else "black",
        )
    labels = [f"{name} ({n})" for name, n in zip(classes, counts[:, 0], strict=True)]
    axes.set_xticks(range(len(classes)), classes, rotation=35, ha="right")
    axes.set_yticks(range(len(classes)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel(f"label ({items})")
    axes.set_title(f"{title}\n% of the label's {items} (count)", fontsize=10)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png")
