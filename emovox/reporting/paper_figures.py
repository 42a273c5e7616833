"""The paper's figures and tables of a dataset, as PNG, SVG and CSV files.

Figure 2 is a track, Figure 4 the dominant emotions, Figure 5 the student's ROC curves; Table 2 is
the teacher on FERPlus, Table 3 the splits, Table 5 the probes.
"""

import base64
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emovox import charts
from emovox.colours import colours_of, line_style
from emovox.files import write_text
from emovox.reporting.aggregates import as_shares, dominant_of
from emovox.reporting.page_charts import emotions_figure
from emovox.reporting.paper_tables import Table, probes_table, splits_table, teachers_table
from emovox.reporting.report_data import Report
from emovox.reporting.track_sample import ReportTrack

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figures(report: Report, folder: Path) -> list[str]:
    """Write the figures and tables that the report has data for.

    Returns:
        A line for each of them: the files, or the reason why there are none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _figure_2(report, folder),
        _figure_4(report, folder),
        *_figure_5(report, folder),
        _table(folder, "table-2", teachers_table(report), "no evaluation of a teacher on FERPlus"),
        _table(folder, "table-3", splits_table(report), ""),
        _table(folder, "table-5", probes_table(report.results.probes), "no probe was given"),
    ]


def _figure_2(report: Report, folder: Path) -> str:
    """Draw a track over time: faces if the report has media, logits, the dominant emotion."""
    if not report.tracks:
        return _line("figure-2", "not written: no track was chosen")
    track = max(report.tracks, key=_num_changes)
    pictures = _read_faces(report, track)
    step, dominant = report.dataset.step, dominant_of(track.logits)
    emotions = report.dataset.emotions
    colours = colours_of(emotions)
    times = track.frame_index * step
    ratios = [*([1.3] if pictures else []), 4, 0.35]
    with charts.new_figure(7.5, 5.2 if pictures else 3.9) as figure:
        *faces, logits, strip = figure.subplots(len(ratios), 1, height_ratios=ratios)
        for axes in faces:
            _draw_faces(axes, pictures, step)
        for k, emotion in enumerate(emotions):
            line = track.logits[:, k]
            logits.plot(times, line, line_style(k), color=colours[k], label=emotion)
        logits.set(ylabel="logit", xticklabels=[])
        logits.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        known = dominant >= 0
        strip.bar(times[known], 1, step, align="edge", color=[colours[k] for k in dominant[known]])
        strip.set(yticks=[], ylim=(0, 1), xlabel="seconds")
        for axes in (logits, strip):
            axes.set_xlim(0, times[-1] + step)
        figure.suptitle(f"{track.track_id} ({track.split})", fontsize=10)
        numbers: Table = [["frame_index", "time_s", *emotions, "dominant"]]
        for index, row, k in zip(track.frame_index.tolist(), track.logits, dominant, strict=True):
            values = (f"{value:.4f}" for value in row)
            numbers.append([index, round(index * step, 3), *values, emotions[k] if k >= 0 else ""])
        return _save(figure, folder, "figure-2", numbers)


def _figure_4(report: Report, folder: Path) -> str:
    """Draw the frames by dominant emotion."""
    chart = emotions_figure(report.aggregates, report.compared)
    emotions = [row[0] for row in chart.rows]
    numbers: Table = [["emotion"], *([emotion] for emotion in emotions)]
    for found in filter(None, (report.aggregates, report.compared)):
        counts = found.frames_of(emotions)
        numbers[0] += [f"frames, {found.title}", f"share, {found.title}"]
        for row, count, share in zip(numbers[1:], counts, as_shares(counts), strict=True):
            row += ["", ""] if count is None else [count, round(float(share), 6)]
    with charts.new_figure(6, chart.height) as figure:
        chart.draw(figure.subplots())
        return _save(figure, folder, "figure-4", numbers)


def _figure_5(report: Report, folder: Path) -> list[str]:
    """Draw the ROC curves and confusions of the student, with a panel for each split."""
    student = report.results.student
    splits = student.splits if student else ()
    known = [(split, split.confusion) for split in splits if split.confusion is not None]
    if not known:
        why = "no student was given" if student is None else "its predictions.parquet is missing"
        return [_line("figure-5", f"not written: {why}")]
    rates: Table = [["split", "emotion", "false_positive_rate", "true_positive_rate"]]
    emotions = list(known[0][0].positives)
    counts: Table = [["split", "teacher", *(f"student_{emotion}" for emotion in emotions)]]
    width = 5 * len(known)
    with charts.new_figure(width, 5) as roc, charts.new_figure(width, 4.8) as confusions:
        panels = roc.subplots(1, len(known), squeeze=False)[0]
        matrices = confusions.subplots(1, len(known), squeeze=False)[0]
        for axes, matrix, (split, counted) in zip(panels, matrices, known, strict=True):
            charts.draw_roc(axes, split.curves, split.areas, split.positives)
            axes.set_title(split.split)
            charts.draw_confusion(matrix, counted, emotions, "teacher (tracks)", "student")
            matrix.set_title(f"{split.split}, % of the teacher's (count)")
            for emotion, curve in split.curves.items():
                for pair in zip(curve.false_rate, curve.true_rate, strict=True):
                    rates.append([split.split, emotion, *(f"{rate:.5f}" for rate in pair)])
            for emotion, row in zip(emotions, counted.tolist(), strict=True):
                counts.append([split.split, emotion, *row])
        return [
            _save(roc, folder, "figure-5", rates),
            _save(confusions, folder, "figure-5-confusion", counts),
        ]


def _table(folder: Path, name: str, rows: Table, missing: str) -> str:
    if not rows:
        return _line(name, f"not written: {missing}")
    write_text(folder / f"{name}.csv", _as_csv(rows))
    return _line(name, f"{name}.csv")


def _save(figure: "Figure", folder: Path, name: str, numbers: Table) -> str:
    """Write a figure as PNG and SVG, and its numbers as CSV."""
    for form in ("png", "svg"):
        charts.save(figure, folder / f"{name}.{form}")
    write_text(folder / f"{name}.csv", _as_csv(numbers))
    return _line(name, f"{name}.png, .svg, .csv")


def _line(name: str, text: str) -> str:
    return f"{name:<19}{text}"


def _read_faces(report: Report, track: ReportTrack) -> list[tuple[int, np.ndarray]]:
    """Return frame index and picture uint8 `[S, S, 3]` of the faces of a track, in order."""
    if report.media is None:
        return []
    from matplotlib.image import imread

    pictures = report.media[list(report.tracks).index(track)].pictures
    files = (
        (k, io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for k, uri in pictures.items()
    )
    return [(index, imread(file, format="jpeg")) for index, file in sorted(files)]


def _num_changes(track: ReportTrack) -> int:
    """Return how often the dominant emotion of a track changes."""
    return int(np.count_nonzero(np.diff(dominant_of(track.logits))))


def _draw_faces(axes: Any, pictures: list[tuple[int, np.ndarray]], step: float) -> None:
    """Draw faces side by side, each with its time."""
    for place, (index, picture) in enumerate(pictures):
        axes.imshow(picture, extent=(place + 0.04, place + 0.96, 0, 0.92))
        axes.text(place + 0.5, -0.16, f"{index * step:.2f} s", ha="center", fontsize=7)
    axes.set(xlim=(0, len(pictures)), ylim=(-0.25, 1), aspect="equal")
    axes.axis("off")


def _as_csv(rows: Table) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
