"""Figures of a student as PNG: ROC curves and counts of emotions (paper, Figures 4 and 5)."""

from pathlib import Path

import numpy as np

from emovox.charts import chart_file, draw_counts, draw_roc
from emovox.scores import emotion_curves
from emovox.student.student_scores import SplitScores


def write_figures(
    folder: Path, title: str, labels: np.ndarray, scores: np.ndarray, found: SplitScores
) -> None:
    """Write `roc-<split>.png` and `labels-<split>.png`: the teacher's labels and the student's.

    Args:
        folder: existing folder of the figures.
        title: above each figure.
        labels: numbers of the teacher's emotions, int `[N]`.
        scores: of the student, float `[N, E]`.
        found: the areas of the same tracks.
    """
    emotions = list(found.positives)
    with chart_file(folder / f"roc-{found.split}.png", title, 6, 6) as axes:
        draw_roc(axes, emotion_curves(labels, scores, emotions), found.auc, found.positives)
    with chart_file(folder / f"labels-{found.split}.png", title, 6, 5) as axes:
        counts = [np.bincount(k, minlength=len(emotions)) for k in (labels, scores.argmax(axis=1))]
        series = [("teacher", counts[0]), ("student", counts[1])]
        draw_counts(axes, emotions, series, "tracks")
