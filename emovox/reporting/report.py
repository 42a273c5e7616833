"""A dataset as one self-contained HTML page, or as the paper's figures and tables.

The page needs no network and no other files. Figures are PNG, SVG and CSV: Figure 2 is a track,
Figure 4 the dominant emotions, Figure 5 the student's ROC curves; Table 2 is the teacher on
FERPlus, Table 3 the splits, Table 5 the probes.
"""

import base64
import contextlib
import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emovox import charts
from emovox.charts import PER_STYLE, colours_of, line_style, percent
from emovox.config import read_config
from emovox.dataset import card, schema
from emovox.dataset.json_schemas import read_document
from emovox.dataset.reader import load
from emovox.errors import InputError
from emovox.files import write_text
from emovox.packages import explained
from emovox.reporting import page_charts
from emovox.reporting.aggregates import aggregate, logit_edges
from emovox.reporting.report_config import NUM_TRACKS, NUM_TRACKS_WITH_MEDIA, ReportConfig
from emovox.reporting.run_results import Report, read_results
from emovox.reporting.track_sample import LEVELS, RULE, choose, pack, traces_of
from emovox.scores import CLASS_SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = list[list[Any]]

# The page fetches nothing, and runs no script but its own.
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; "
    "media-src data:; base-uri 'none'; form-action 'none'"
)


def report(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    config: ReportConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Report:
    """Show a dataset as a web page, or as the paper's figures and tables.

    Args:
        dataset: folder of the dataset.
        out: HTML file to write; None to write no page.
        config: options of the report, or a recipe with them.
        options: fields of `ReportConfig`, which override `config`.

    Raises:
        ConfigError: an option is not valid.
        InputError: a folder is missing or of another kind, or a table is damaged.
        MissingPackageError: `media` is set, and the extra `build` is not installed.

    Example:
        >>> report("emovox-demo/dataset", "report.html", tracks=5)  # of `emovox demo`
        <Report on emovox-demo 0.1.0: 96 tracks, 1,996 frames; 5 tracks shown>
    """
    config = read_config(ReportConfig, config, options)
    if config.media:
        with explained("--media"):  # before minutes of counting
            from emovox.reporting.track_media import collect_media
    data, other = load(dataset), load(config.compare) if config.compare else None
    results = read_results(config.student)
    edges = logit_edges([data, *([other] if other else [])])
    provenance: dict[str, Any] = {"origin": ""}
    with contextlib.suppress(InputError):  # missing or damaged
        provenance |= read_document(data.path, schema.PROVENANCE)
    usual = NUM_TRACKS_WITH_MEDIA if config.media else NUM_TRACKS
    tracks = choose(data, usual if config.tracks is None else config.tracks)
    counts, compared = aggregate(data, edges), aggregate(other, edges) if other else None
    media = collect_media(data, tracks, config.media) if config.media else None
    found, written = Report(data, provenance, counts, compared, results, tracks, media), []
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(out), render(found))
        written.append(f"{out}: {Path(out).stat().st_size / 1e6:.1f} MB")
    if config.figures is not None:
        written += write_figures(found, config.figures)
    return dataclasses.replace(found, written=tuple(written))


def render(report: Report) -> str:
    """Return the page as HTML; the same report gives the same bytes."""
    blocks: Any = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=PackageLoader("emovox.reporting"), autoescape=True, **blocks)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}  # of `tojson`
    environment.filters |= {"cell": page_charts.cell, "commas": "{:,}".format, "percent": percent}
    emotions = report.aggregates.emotions
    colours = {"light": colours_of(emotions), "dark": colours_of(emotions, dark=True)}
    style_sheet = environment.get_template("report.css")
    style = style_sheet.render(colours, per_style=PER_STYLE, charts=charts)
    script = environment.get_template("report.js").render()
    policy = POLICY.format(script=_digest(script), style=_digest(style))
    windows = report.results.windows
    traces = {n: traces_of(each, report.dataset, report.tracks) for n, each in windows.items()}
    track_data = {
        "emotions": list(emotions),
        "students": traces,
        "step": report.dataset.step,
        "levels": LEVELS,
        "tracks": [pack(track, emotions) for track in report.tracks],
    }
    context = vars(report) | {
        "emotions": emotions,
        "class_scores": CLASS_SCORES,
        "charts": page_charts,
        "rule": RULE,
        "track_data": track_data,
        "media_data": [*map(dataclasses.asdict, report.media or ())],
        "synthetic": card.limits(report.provenance) == card.SYNTHETIC,
        "statement": card.summary(report.dataset.manifest, report.provenance).replace("`", ""),
        "limits": card.limits(report.provenance),
        "has_faces": any(report.dataset.path.glob(schema.table_file("faces", "*"))),
    }
    return environment.get_template("report.html").render(
        context, style=Markup(style), script=Markup(script), policy=Markup(policy)
    )


def _digest(text: str) -> str:
    """Return the name of an inline script or style in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def write_figures(report: Report, folder: Path) -> list[str]:
    """Write figures and tables; return a line for each, with its files or why there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    results = report.results
    return [
        _figure_2(report, folder),
        _figure_4(report, folder),
        *_figure_5(report, folder),
        _write(folder, "table-2", teachers_table(results.teachers), "no teacher was evaluated"),
        _write(folder, "table-3", splits_table(report)),
        _write(folder, "table-5", probes_table(results.probes), "no probe was given"),
    ]


def teachers_table(teachers: Sequence[Mapping[str, Any]]) -> Table:
    """Return Table 2, accuracies on FERPlus; empty if no teacher was evaluated on its test part."""
    measured = [t for t in teachers if t["part"] == "private_test"]
    rows: Table = [[t["name"], round(t["accuracy"], 2)] for t in measured]
    return [["method", "accuracy_percent"], *rows] if rows else []


def splits_table(report: Report) -> Table:
    """Return Table 3, with a column for each split."""
    splits = report.aggregates.splits
    return [
        ["", *(split.split for split in splits)],
        ["speaking_face_tracks", *(split.num_tracks for split in splits)],
        ["identities", *(split.num_identities for split in splits)],
        ["videos", *(split.num_videos for split in splits)],
        ["frames", *(split.num_frames for split in splits)],
    ]


def probes_table(probes: Sequence[Mapping[str, Any]]) -> Table:
    """Return Table 5: a row for each method; accuracy, deviation and chance for each corpus."""
    header = ["method", "classifier", "folds", "source"]
    methods: dict[tuple[str, ...], list[Any]] = {}
    for place, probe in enumerate(probes):
        header += [f"{probe['corpus']}_{word}" for word in ("accuracy", "deviation", "chance")]
        for row in probe["rows"]:
            if row["what"] != "chance":
                names = ("what", "classifier", "folds", "source")
                key = tuple(str(row.get(name) or "") for name in names)
                cells = methods.setdefault(key, [""] * 3 * len(probes))
                known = [row.get(name) for name in ("accuracy", "accuracy_deviation")]
                texts = ["" if each is None else f"{100 * each:.1f}" for each in known]
                chance = round(100 / max(probe["num_classes"], 1), 1)
                cells[3 * place : 3 * place + 3] = *texts, chance
    return [header, *([*key, *cells] for key, cells in methods.items())] if probes else []


def _figure_2(report: Report, folder: Path) -> str:
    """Draw a track over time: its logits and the dominant emotion."""
    if not report.tracks:
        return _write(folder, "figure-2", [], "no track was chosen")
    changes = [np.count_nonzero(np.diff(t.logits.argmax(axis=1))) for t in report.tracks]
    track = report.tracks[int(np.argmax(changes))]
    step, dominant = report.dataset.step, track.logits.argmax(axis=1)
    emotions = report.dataset.emotions
    colours = colours_of(emotions)
    times = track.frame_index * step
    lines = np.full((track.frame_index[-1] + 1, len(emotions)), np.nan)  # a line ends at a gap
    lines[track.frame_index] = track.logits
    with charts.new_figure(7.5, 3.9) as figure:
        logits, strip = figure.subplots(2, 1, height_ratios=[4, 0.35])
        for k, emotion in enumerate(emotions):
            style = {"color": colours[k], "label": emotion, "marker": "o", "markersize": 2}
            logits.plot(np.arange(len(lines)) * step, lines[:, k], line_style(k), **style)
        logits.set(ylabel="logit", xticklabels=[])
        logits.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        strip.bar(times, 1, step, align="edge", color=[colours[k] for k in dominant])
        strip.set(yticks=[], ylim=(0, 1), xlabel="seconds")
        for axes in (logits, strip):
            axes.set_xlim(0, max(track.duration or 0, times[-1] + step))
        figure.suptitle(f"{track.track_id} ({track.split})", fontsize=10)
        numbers: Table = [["frame_index", "time_s", *emotions, "dominant"]]
        for index, row, k in zip(track.frame_index.tolist(), track.logits, dominant, strict=True):
            values = (f"{value:.4f}" for value in row)
            numbers.append([index, round(index * step, 3), *values, emotions[k]])
        return _write(folder, "figure-2", numbers, figure=figure)


def _figure_4(report: Report, folder: Path) -> str:
    chart = page_charts.emotions_figure(report.aggregates, report.compared)
    with charts.new_figure(6, chart.height) as figure:
        chart.draw(figure.subplots())
        rows = [[*row] for row in (chart.header, *chart.rows)]
        return _write(folder, "figure-4", rows, figure=figure)


def _figure_5(report: Report, folder: Path) -> list[str]:
    """Draw the ROC curves and confusions of the student, with a panel for each split."""
    student = report.results.student
    splits = student["splits"] if student else ()
    known = [(split, split.confusion) for split in splits if split.confusion is not None]
    if not known:
        why = "no student was given" if student is None else "its predictions.parquet is missing"
        return [_write(folder, "figure-5", [], why)]
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
                for pair in zip(*curve, strict=True):
                    rates.append([split.split, emotion, *(f"{rate:.5f}" for rate in pair)])
            for emotion, row in zip(emotions, counted.tolist(), strict=True):
                counts.append([split.split, emotion, *row])
        return [
            _write(folder, "figure-5", rates, figure=roc),
            _write(folder, "figure-5-confusion", counts, figure=confusions),
        ]


def _write(
    folder: Path, name: str, rows: Table, missing: str = "", figure: "Figure | None" = None
) -> str:
    """Write rows as CSV, and their figure as PNG and SVG; return a line about the files."""
    if not rows:
        return f"{name:<19}not written: {missing}"
    if figure:
        for form in ("png", "svg"):
            charts.save(figure, folder / f"{name}.{form}")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(folder / f"{name}.csv", text.getvalue())
    return f"{name:<19}{name}{'.png, .svg, .csv' if figure else '.csv'}"
