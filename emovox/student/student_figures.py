"""Figures of a student: ROC curves and histograms of emotions, as PNG (paper, Figures 4 and 5)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emovox.emotions import COLOURS, EMOTIONS
from emovox.files import replace_file


def draw_roc(labels: np.ndarray, scores: np.ndarray, title: str, path: Path) -> None:
    """Curve of each emotion against the rest.

    Args:
        labels: numbers of the emotions, int `[N]`.
        scores: float `[N, 8]`.
        title: above the figure.
        path: of the PNG.
    """
    from sklearn.metrics import auc, roc_curve

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle=":")
        for k, emotion in enumerate(EMOTIONS):
            positive = labels == k
            if not 0 < positive.sum() < len(labels):
                continue
            false_rate, true_rate, _ = roc_curve(positive, scores[:, k])
            label = f"{emotion} {auc(false_rate, true_rate):.2f} ({positive.sum():,})"
            axes.plot(false_rate, true_rate, color=COLOURS[emotion], linewidth=1.6, label=label)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        if len(axes.lines) > 1:
            axes.legend(loc="lower right", fontsize=8, frameon=False, title="AUC (positives)")

    _draw(draw, title, path, (6, 6))


def draw_labels(labels: np.ndarray, scores: np.ndarray, title: str, path: Path) -> None:
    """How often each emotion is the teacher's and the student's largest, on a log axis."""
    counts = [np.bincount(x, minlength=len(EMOTIONS)) for x in (labels, scores.argmax(axis=1))]

    def draw(axes: Any) -> None:
        places = np.arange(len(EMOTIONS))
        for offset, (name, colour), count in zip(
            (-0.2, 0.2), (("teacher", "#3366cc"), ("student", "#e0a100")), counts, strict=True
        ):
            bars = axes.bar(places + offset, count, 0.38, color=colour, label=name)
            axes.bar_label(bars, [f"{n:,}" for n in count], fontsize=7, padding=2)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.set_xticks(places, EMOTIONS, rotation=30, ha="right")
        axes.set_ylabel("tracks")
        axes.legend(frameon=False, fontsize=8)

    _draw(draw, title, path, (7, 4.5))


def _draw(draw: Callable[[Any], None], title: str, path: Path, size: tuple[float, float]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    with replace_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))  # type: ignore[no-untyped-call]
