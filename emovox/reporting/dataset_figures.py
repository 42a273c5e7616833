"""The paper's figures and tables of a dataset: PNG, SVG and CSV, ready to be put into a text.

Figure 2 is a track, Figure 4 the dominant emotions, Figure 5 the student's curves; Table 2 the
teacher on FERPlus, Table 3 the splits, Table 5 the probes. What there is no data for is said.
"""

import base64
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emovox.emotions import COLOURS, EMOTIONS
from emovox.files import replace_file, write_text
from emovox.reporting.aggregates import as_shares, dominant_of
from emovox.reporting.page import Report
from emovox.reporting.page_tables import Table, probes_table, splits_table, teachers_table
from emovox.reporting.sample import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160


def write_figures(report: Report, folder: Path) -> list[str]:
    """Write all that the report has data for; a line for each file, or for what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *_figure_2(report, folder),
        *_figure_4(report, folder),
        *_figure_5(report, folder),
        *_table(folder, "table-2", teachers_table(report), "no evaluation of a teacher on FERPlus"),
        *_table(folder, "table-3", splits_table(report), ""),
        *_table(folder, "table-5", probes_table(report.results.probes), "no probe was given"),
    ]


def _figure_2(report: Report, folder: Path) -> list[str]:
    """A track over time: its faces where there are any, eight logits, the dominant emotion."""
    if not report.tracks:
        return [f"{'figure-2':<19}not written: no track was chosen"]
    track = max(report.tracks, key=_num_changes)
    pictures = _faces_of(report, track)
    figure = _new_figure(7.5, 5.2 if pictures else 3.9)
    ratios = [*([1.3] if pictures else []), 4, 0.35]
    grid = figure.add_gridspec(len(ratios), 1, height_ratios=ratios)
    times = track.frame_index * report.dataset.step
    span = (0.0, float(times[-1]) + report.dataset.step)
    if pictures:
        _draw_faces(figure.add_subplot(grid[0]), pictures, report.dataset.step)
    axes = figure.add_subplot(grid[-2])
    for k, emotion in enumerate(EMOTIONS):
        style = "--" if k > 4 else "-"
        axes.plot(times, track.logits[:, k], style, color=COLOURS[emotion], label=emotion)
    axes.set(ylabel="logit", xlim=span, xticklabels=[])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _draw_strip(figure.add_subplot(grid[-1]), track, report.dataset.step, span)
    figure.suptitle(f"{track.track_id} ({track.split})", fontsize=10, parse_math=False)
    numbers: Table = [["frame_index", "time_s", *EMOTIONS, "dominant"]]
    for index, row, k in zip(
        track.frame_index, track.logits, dominant_of(track.logits), strict=True
    ):
        name = EMOTIONS[k] if k >= 0 else ""
        time = round(float(index) * report.dataset.step, 3)
        numbers.append([int(index), time, *(f"{value:.4f}" for value in row), name])
    return _save(figure, folder, "figure-2", numbers)


def _figure_4(report: Report, folder: Path) -> list[str]:
    """Frames by dominant emotion on a log axis; two datasets as shares."""
    both = [a for a in (report.found, report.other) if a]
    figure = _new_figure(7, 3.8)
    axes = figure.add_subplot()
    places, width = np.arange(len(EMOTIONS)), 0.8 / len(both)
    for place, found in enumerate(both):
        values = found.frames if len(both) == 1 else 100 * as_shares(found.frames)
        bars = axes.bar(
            places + (place - (len(both) - 1) / 2) * width,
            values,
            width * 0.94,
            color=list(COLOURS.values()) if not place else "white",
            edgecolor=list(COLOURS.values()),
            linewidth=1.4,
            hatch="" if not place else "////",
            label=f"{found.name} {found.version}",
        )
        shown = [f"{v:,}" if len(both) == 1 else f"{v:.2g}" for v in values.tolist()]
        axes.bar_label(bars, shown, fontsize=7, padding=2)
    if report.found.num_frames:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5 if len(both) == 1 else None)
    axes.set_xticks(places, EMOTIONS)
    axes.set_ylabel("frames" if len(both) == 1 else "% of frames")
    axes.spines[["top", "right"]].set_visible(False)
    if len(both) > 1:
        legend = axes.legend(frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)
    names = [f"{a.name} {a.version}" for a in both]
    numbers: Table = [["emotion", *(w for n in names for w in (f"frames, {n}", f"share, {n}"))]]
    for k, emotion in enumerate(EMOTIONS):
        pairs = ((int(a.frames[k]), round(float(as_shares(a.frames)[k]), 6)) for a in both)
        numbers.append([emotion, *(value for pair in pairs for value in pair)])
    return _save(figure, folder, "figure-4", numbers)


def _figure_5(report: Report, folder: Path) -> list[str]:
    """ROC curves and confusions of the student, a panel for each split."""
    student = report.results.student
    splits = [split for split in student.splits if split.confusion is not None] if student else []
    if not splits:
        why = "no student was given" if student is None else "its predictions.parquet is missing"
        return [f"{'figure-5':<19}not written: {why}"]
    curves, confusions = _new_figure(4.6 * len(splits), 4.7), _new_figure(4.8 * len(splits), 4.8)
    rates: Table = [["split", "emotion", "false_positive_rate", "true_positive_rate"]]
    counts: Table = [["split", "teacher", *(f"student_{emotion}" for emotion in EMOTIONS)]]
    for place, split in enumerate(splits, start=1):
        axes = curves.add_subplot(1, len(splits), place)
        axes.plot([0, 1], [0, 1], ":", color="#999999", linewidth=1)
        for k, emotion in enumerate(EMOTIONS):
            if curve := split.curves.get(emotion):
                area = split.areas[emotion].value if emotion in split.areas else None
                label = emotion if area is None else f"{emotion} {area:.2f}"
                style = "--" if k > 4 else "-"
                axes.plot(
                    curve.false_rate, curve.true_rate, style, color=COLOURS[emotion], label=label
                )
                for pair in zip(curve.false_rate, curve.true_rate, strict=True):
                    rates.append([split.split, emotion, *(f"{rate:.5f}" for rate in pair)])
        axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        axes.set_title(split.split, fontsize=10, parse_math=False)
        if split.curves:
            axes.legend(loc="lower right", frameon=False, fontsize=8)
        assert split.confusion is not None
        _draw_confusion(confusions.add_subplot(1, len(splits), place), split.confusion, split.split)
        counts += [
            [split.split, e, *row]
            for e, row in zip(EMOTIONS, split.confusion.tolist(), strict=True)
        ]
    return [
        *_save(curves, folder, "figure-5", rates),
        *_save(confusions, folder, "figure-5-confusion", counts),
    ]


def _table(folder: Path, name: str, rows: Table, missing: str) -> list[str]:
    if not rows:
        return [f"{name:<19}not written: {missing}"]
    write_text(folder / f"{name}.csv", _as_csv(rows))
    return [f"{name:<19}{name}.csv"]


def _save(figure: "Figure", folder: Path, name: str, numbers: Table) -> list[str]:
    """Write a figure as PNG and SVG, and its numbers as CSV."""
    import matplotlib as mpl

    # Without a date and with names from a fixed salt, the same data gives the same file.
    with mpl.rc_context({"svg.hashsalt": "emovox"}):
        for form, metadata in (("png", None), ("svg", {"Date": None})):
            with replace_file(folder / f"{name}.{form}") as temporary:
                figure.savefig(temporary, format=form, dpi=DPI, metadata=metadata)
    write_text(folder / f"{name}.csv", _as_csv(numbers))
    return [f"{name:<19}{name}.png, .svg, .csv"]


def _new_figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _faces_of(report: Report, track: Shown) -> list[tuple[int, np.ndarray]]:
    """Frame index and picture uint8 `[S, S, 3]` of the faces of a track, in order."""
    if report.media is None:
        return []
    import cv2  # there with the extra `build`, which media need anyway

    found = report.media[list(report.tracks).index(track)].pictures
    pictures = []
    for index, uri in sorted(found.items()):
        data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
        pictures.append((index, np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))))
    return pictures


def _num_changes(track: Shown) -> int:
    """How often the dominant emotion of a track changes."""
    return int(np.count_nonzero(np.diff(dominant_of(track.logits))))


def _draw_faces(axes: Any, pictures: list[tuple[int, np.ndarray]], step: float) -> None:
    """Faces side by side, each with its time."""
    for place, (index, picture) in enumerate(pictures):
        axes.imshow(picture, extent=(place + 0.04, place + 0.96, 0, 0.92))
        axes.text(place + 0.5, -0.16, f"{index * step:.2f} s", ha="center", fontsize=7)
    axes.set(xlim=(0, len(pictures)), ylim=(-0.25, 1), aspect="equal")
    axes.axis("off")


def _draw_strip(axes: Any, track: Shown, step: float, span: tuple[float, float]) -> None:
    """The dominant emotion of each grid point as a coloured stretch."""
    for index, k in zip(track.frame_index, dominant_of(track.logits), strict=True):
        if k >= 0:
            axes.axvspan(index * step, (index + 1) * step, color=COLOURS[EMOTIONS[k]], linewidth=0)
    axes.set(xlim=span, yticks=[], xlabel="seconds")
    axes.spines[:].set_visible(False)


def _draw_confusion(axes: Any, confusion: np.ndarray, title: str) -> None:
    counts = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(counts, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if counts[row, 0]:
            colour = "white" if share > 0.5 else "black"
            axes.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=40, ha="right", fontsize=8)
    names = [f"{e} ({n:,})" for e, n in zip(EMOTIONS, counts[:, 0].tolist(), strict=True)]
    axes.set_yticks(range(len(EMOTIONS)), names, fontsize=8)
    axes.set(xlabel="student", ylabel="teacher (tracks)")
    axes.set_title(f"{title}, % of the teacher's", fontsize=10, parse_math=False)


def _as_csv(rows: Table) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
