"""Figures and tables of a student for the page: curves, areas, confusions, losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS
from emovox.reporting import svg
from emovox.reporting.charts import Figure, Row, shown
from emovox.reporting.results import ProbeResult, SplitResult

HEAT_LEVELS = 10  # of the shading of a confusion matrix
LOSSES = {"train_loss": "one", "heard_val_loss": "two", "unheard_val_loss": "three"}


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix: tracks, percent of its row, and level of shading."""

    count: int
    share: float
    level: int


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix as rows of (label, tracks, cells); rows without tracks have no cells."""

    split: str
    agreement: float
    rows: Sequence[tuple[str, int, Sequence[Cell]]]


def roc_figure(found: SplitResult) -> Figure:
    """ROC curves of a student on one split (paper, Figure 5)."""
    plot = svg.Plot((0, 1), (0, 1), 360)
    ticks = (0, 0.25, 0.5, 0.75, 1)
    plot.across(ticks, lambda tick: f"{tick:g}")
    plot.upright(ticks, lambda tick: f"{tick:g}", grid=False)
    plot.curve([(0, 0), (1, 1)], "line equal")
    entries = []
    for k, emotion in enumerate(EMOTIONS):
        if curve := found.curves.get(emotion):
            plot.curve(zip(curve.false_rate, curve.true_rate, strict=True), f"line s{k}", emotion)
            area = found.areas.get(emotion)
            entries.append((f"line s{k}", emotion, shown(area.value if area else None)))
    plot.key(entries, plot.end - 172, plot.bottom - 16 * len(entries), 162)
    rows = [_area_row(name, found) for name in found.areas]
    alt = f"ROC curves on {found.split}; areas: " + "; ".join(
        f"{row[0]} {row[1]}" for row in rows if row[1] != "-"
    )
    caption = (
        f"True against false positive rate of {found.num_tracks:,} tracks of "
        f"{found.num_identities:,} identities, with the areas under the curves."
    )
    header = ("emotion", "AUC", "95 % interval", "positives")
    picture = plot.drawing("false positive rate", alt)
    return Figure(f"roc-{found.split}", found.split, caption, picture, header, rows)


def confusion_of(found: SplitResult) -> Confusion | None:
    """Confusion of the teacher's labels with the student's; None where it is not known."""
    if found.confusion is None:
        return None
    rows = []
    for emotion, counts in zip(EMOTIONS, found.confusion, strict=True):
        total = int(counts.sum())
        shares = counts / max(total, 1)
        cells = [
            Cell(int(count), 100 * float(share), round(float(share) * HEAT_LEVELS))
            for count, share in zip(counts, shares, strict=True)
        ]
        rows.append((emotion, total, cells if total else []))
    agreement = float(np.trace(found.confusion) / max(found.confusion.sum(), 1))
    return Confusion(found.split, 100 * agreement, rows)


def losses_figure(training: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss of each epoch of a training."""
    lines = {
        name: [(i + 1, record[name]) for i, record in enumerate(training) if _is_loss(record, name)]
        for name in LOSSES
    }
    values = [value for points in lines.values() for _, value in points] or [0.0, 1.0]
    margin = 0.06 * (max(values) - min(values) or 1.0)
    last = max(len(training), 2)
    plot = svg.Plot((1 - 0.02 * last, last), (min(values) - margin, max(values) + margin), 250)
    plot.across(svg.nice_ticks(*plot.y_range, 6), lambda tick: f"{tick:g}")
    plot.upright(svg.whole_ticks(1, last, 6), lambda tick: f"{tick:g}", grid=False)
    entries = []
    for name, kind in LOSSES.items():
        if lines[name]:
            plot.curve(lines[name], f"line {kind}", name)
            entries.append((f"line {kind}", name.removesuffix("_loss"), ""))
    plot.key(entries, plot.end - 130, plot.top + 18, 0)
    rows = [
        (str(i + 1), *(shown(record.get(name), 4) for name in LOSSES))
        for i, record in enumerate(training)
    ]
    alt = f"Losses of {len(training)} epochs; the last: " + ", ".join(
        f"{name.removesuffix('_loss')} {points[-1][1]:.3f}"
        for name, points in lines.items()
        if points
    )
    caption = "Mean loss of a segment in each epoch."
    header = ("epoch", *(name.removesuffix("_loss") for name in LOSSES))
    return Figure("losses", "Training", caption, plot.drawing("epoch", alt), header, rows)


def probe_rows(probe: ProbeResult) -> list[Row]:
    """Rows of a probe's table: what, classifier, folds, accuracy, recall, source."""
    return [
        (
            str(row["what"]),
            str(row.get("classifier") or ""),
            str(row.get("folds") or ""),
            spread(row.get("accuracy"), row.get("accuracy_deviation")),
            spread(row.get("unweighted_average_recall"), row.get("recall_deviation")),
            str(row.get("source", "")),
        )
        for row in probe.rows
    ]


def spread(mean: float | None, deviation: float | None) -> str:
    """Mean and deviation in percent; empty where there is none."""
    if mean is None:
        return ""
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _is_loss(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get(name), int | float)


def _area_row(name: str, found: SplitResult) -> Row:
    area = found.areas[name]
    interval = "-" if area.low is None else f"{area.low:.3f} to {shown(area.high)}"
    count = f"{found.positives[name]:,}" if name in found.positives else ""
    return name, shown(area.value), interval, count
