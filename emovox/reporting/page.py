"""A dataset as one self-contained HTML page: no network, no other files."""

import base64
import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emovox import charts
from emovox.charts import PER_STYLE, colours_of, percent
from emovox.config import read_config
from emovox.dataset import card_text, schema
from emovox.files import write_text
from emovox.reporting import page_charts
from emovox.reporting.aggregates import Aggregates
from emovox.reporting.paper_figures import probe_rows, splits_table, write_figures
from emovox.reporting.report_config import ReportConfig
from emovox.reporting.run_results import Report, collect
from emovox.reporting.track_sample import LEVELS, RULE, pack

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
    found, written = collect(dataset, config), []
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
    environment.filters |= {"cell": page_charts.cell, "commas": "{:,}".format}
    environment.filters |= {"percent": percent, "duration": _length}
    emotions = report.aggregates.emotions
    colours = {"light": colours_of(emotions), "dark": colours_of(emotions, dark=True)}
    style_sheet = environment.get_template("report.css")
    style = style_sheet.render(colours, per_style=PER_STYLE, charts=charts)
    script = environment.get_template("report.js").render()
    policy = POLICY.format(script=_digest(script), style=_digest(style))
    return environment.get_template("report.html").render(
        style=Markup(style), script=Markup(script), policy=Markup(policy), **_context(report)
    )


def _context(report: Report) -> dict[str, Any]:
    found = report.aggregates
    track_data = {
        "emotions": list(found.emotions),
        "step": report.dataset.step,
        "levels": LEVELS,
        "media": report.media is not None,
        "tracks": [pack(track, found.emotions) for track in report.tracks],
    }
    return vars(report) | {
        "emotions": found.emotions,
        "value_rows": _value_rows(found),
        "split_rows": _split_rows(report),
        "frames_by_split": [(s.split, *s.frames) for s in found.splits],
        "labels_by_split": [(s.split, *s.labels) for s in found.splits],
        "figures": page_charts.dataset_figures(found, report.compared),
        "charts": page_charts,
        "probe_rows": probe_rows,
        "rule": RULE,
        "track_data": track_data,
        "media_data": [{"sound": m.sound, "pictures": m.pictures} for m in report.media or ()],
        "notice": _notice(report),
        "statement": card_text.summary(report.dataset.manifest, report.provenance).replace("`", ""),
        "limits": card_text.limits(report.provenance),
        "has_faces": any(report.dataset.path.glob(schema.table_file("faces", "*"))),
    }


def _split_rows(report: Report) -> list[Sequence[Any]]:
    """Return the rows of the table of splits: name, and a cell for each split (paper, Table 3)."""
    splits = report.aggregates.splits
    durations = ["not given" if s.seconds is None else _length(s.seconds) for s in splits]
    per_track = [f"{s.num_frames / s.num_tracks:.1f}" if s.num_tracks else "-" for s in splits]
    coverage = [percent(s.num_frames / s.num_expected) if s.num_expected else "-" for s in splits]
    return [
        *([name.replace("_", " "), *cells] for name, *cells in splits_table(report)[1:]),
        ("frames per track", *per_track),
        ("coverage", *coverage),
        *([("duration", *durations)] if any(s.seconds is not None for s in splits) else []),
    ]


def _value_rows(found: Aggregates) -> list[Sequence[Any]]:
    """Return the rows of the table of values: name, then mean and deviation for each split."""
    splits = [split for split in found.splits if split.num_frames]
    return [
        (name, *(f"{split.values[k, 0]:z.3f} ± {split.values[k, 1]:.3f}" for split in splits))
        for k, name in enumerate(found.value_names)
    ]


def _notice(report: Report) -> dict[str, Any] | None:
    """Return the numbers of the notice about faces and sound; None for a page without them."""
    if report.media is None:
        return None
    problems = Counter(problem for media in report.media for problem in media.problems)
    return {
        "synthetic": card_text.limits(report.provenance) is card_text.SYNTHETIC,
        "sounds": sum(media.sound is not None for media in report.media),
        "pictures": sum(len(media.pictures) for media in report.media),
        "people": len({track.identity_id for track in report.tracks}),
        "problems": sorted(problems.items(), key=lambda item: (-item[1], item[0])),
    }


def _length(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds else "-"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _digest(text: str) -> str:
    """Return the name of an inline script or style in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
