"""A dataset as one self-contained HTML page: no network, no other files."""

import base64
import contextlib
import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emovox import charts
from emovox.charts import PER_STYLE, colours_of, percent
from emovox.config import read_config
from emovox.dataset import card_text, schema
from emovox.dataset.json_schemas import read_document
from emovox.dataset.reader import load
from emovox.errors import InputError
from emovox.files import write_text
from emovox.packages import explained
from emovox.reporting import page_charts
from emovox.reporting.aggregates import aggregate, logit_edges
from emovox.reporting.paper_figures import write_figures
from emovox.reporting.report_config import NUM_TRACKS, NUM_TRACKS_WITH_MEDIA, ReportConfig
from emovox.reporting.run_results import Report, read_results
from emovox.reporting.track_sample import LEVELS, RULE, choose, pack, traces_of

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
    return environment.get_template("report.html").render(
        style=Markup(style), script=Markup(script), policy=Markup(policy), **_context(report)
    )


def _context(report: Report) -> dict[str, Any]:
    found, windows = report.aggregates, report.results.windows
    traces = {n: traces_of(each, report.dataset, report.tracks) for n, each in windows.items()}
    track_data = {
        "emotions": list(found.emotions),
        "students": traces,
        "step": report.dataset.step,
        "levels": LEVELS,
        "tracks": [pack(track, found.emotions) for track in report.tracks],
    }
    return vars(report) | {
        "emotions": found.emotions,
        "charts": page_charts,
        "rule": RULE,
        "track_data": track_data,
        "media_data": [*map(dataclasses.asdict, report.media or ())],
        "synthetic": card_text.limits(report.provenance) is card_text.SYNTHETIC,
        "statement": card_text.summary(report.dataset.manifest, report.provenance).replace("`", ""),
        "limits": card_text.limits(report.provenance),
        "has_faces": any(report.dataset.path.glob(schema.table_file("faces", "*"))),
    }


def _digest(text: str) -> str:
    """Return the name of an inline script or style in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
