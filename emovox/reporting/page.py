"""A dataset as one page that needs nothing else: no network, no folder beside it."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emovox.dataset import card_text, schema
from emovox.dataset.reader import Dataset, load
from emovox.emotions import COLOURS, COLOURS_ON_DARK, EMOTIONS
from emovox.errors import ConfigError
from emovox.files import write_text
from emovox.packages import explained
from emovox.reporting import charts, student_charts
from emovox.reporting.aggregates import Aggregates, SplitCounts, aggregate, logit_edges
from emovox.reporting.results import Results, read_results
from emovox.reporting.sample import LEVELS, RULE, Shown, choose, pack

if TYPE_CHECKING:
    from emovox.reporting.frame_media import Media

NUM_TRACKS, NUM_TRACKS_WITH_MEDIA = 300, 40
MAX_TRACKS = 2000  # keeps a page without media below 5 MB
# Nothing is fetched from anywhere, and no script runs but the page's own.
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; "
    "media-src data:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class ReportConfig:
    """What a report is made of.

    Attributes:
        dataset: folder of the contract.
        compare: another one, laid over its distributions.
        media: folder of the corpus; faces and sound of the tracks shown are put in.
        runs: folders that trainings, evaluations and probes left.
        num_tracks: tracks shown one by one; None for 300, or 40 with media.
    """

    dataset: Path
    compare: Path | None = None
    media: Path | None = None
    runs: tuple[Path, ...] = ()
    num_tracks: int | None = None

    def __post_init__(self) -> None:
        if self.num_tracks is not None and not 0 <= self.num_tracks <= MAX_TRACKS:
            raise ConfigError(f"--tracks must lie between 0 and {MAX_TRACKS}")

    @property
    def most_tracks(self) -> int:
        if self.num_tracks is not None:
            return self.num_tracks
        return NUM_TRACKS_WITH_MEDIA if self.media else NUM_TRACKS


@dataclass(frozen=True)
class Report:
    """All that is shown.

    Attributes:
        media: of each of `tracks`; None where none was asked for.
    """

    dataset: Dataset
    provenance: Mapping[str, Any]
    found: Aggregates
    other: Aggregates | None
    results: Results
    tracks: Sequence[Shown]
    media: "Sequence[Media] | None"


def collect(config: ReportConfig) -> Report:
    """Count, choose and read all that a report shows.

    Raises:
        InputError: a folder is not what it should be, or a table is damaged.
        MissingPackageError: with `media`, without the extra `build`.
    """
    if config.media:
        with explained("--media"):  # before minutes are spent on counting
            from emovox.reporting.frame_media import collect_media
    dataset = load(config.dataset)
    compared = load(config.compare) if config.compare else None
    results = read_results(config.runs)
    edges = logit_edges([dataset, *([compared] if compared else [])])
    tracks = choose(dataset, config.most_tracks)
    return Report(
        dataset,
        _provenance(dataset),
        aggregate(dataset, edges),
        aggregate(compared, edges) if compared else None,
        results,
        tracks,
        collect_media(dataset, tracks, config.media) if config.media else None,
    )


def write_page(report: Report, out: Path) -> None:
    """Write the page, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render(report))


def render(report: Report) -> str:
    """The page as HTML; the same report gives the same bytes."""
    environment = Environment(
        loader=PackageLoader("emovox.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("report.css").render(light=COLOURS, dark=COLOURS_ON_DARK)
    script = environment.get_template("report.js").render()
    policy = POLICY.format(script=_digest(script), style=_digest(style))
    return environment.get_template("report.html").render(
        style=Markup(style),
        script=Markup(script),
        policy=Markup(policy),
        **_context(report),
    )


def as_script_json(content: Any) -> Markup:
    """JSON for the inside of a script element, which no text in it can end."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _context(report: Report) -> dict[str, Any]:
    found, other = report.found, report.other
    return {
        "dataset": report.dataset,
        "found": found,
        "other": other,
        "emotions": EMOTIONS,
        "facts": _facts(report),
        "split_rows": _split_rows(found.splits),
        "empty_splits": [s.split for s in found.splits if not s.num_tracks],
        "figures": _figures(found, other),
        "results": report.results,
        "student": _student_context(report),
        "tracks": report.tracks,
        "rule": RULE,
        "track_data": as_script_json(_track_data(report)),
        "media_data": [as_script_json(m.pack()) for m in report.media or ()],
        "media": _media_context(report),
        "provenance": report.provenance,
        "statement": card_text.summary(report.dataset.manifest, report.provenance).replace("`", ""),
        "limits": card_text.limits(report.provenance),
        "has_faces": _has_faces(report.dataset),
    }


def _facts(report: Report) -> list[tuple[str, str]]:
    splits = report.found.splits
    seconds = report.found.num_frames * report.dataset.step
    facts = [
        (f"{report.found.num_frames:,}", "frames"),
        (f"{report.found.num_tracks:,}", "tracks"),
        (f"{report.found.identities.num_groups:,}", "identities"),
        (f"{report.found.videos.num_groups:,}", "videos"),
        (_length(seconds), "of frames"),
    ]
    expected = sum(split.num_expected for split in splits)
    if expected:
        facts.append((charts.percent(report.found.num_frames / expected), "coverage"))
    return facts


def _split_rows(splits: Sequence[SplitCounts]) -> list[tuple[str, list[str]]]:
    """Rows of the table of splits, which has a column for each split (paper, Table 3)."""

    def row(name: str, values: Sequence[int]) -> tuple[str, list[str]]:
        return name, [f"{value:,}" for value in values]

    known = [split.seconds is not None for split in splits]
    durations = [_length(s.seconds) if s.seconds is not None else "not given" for s in splits]
    per_track = [f"{s.num_frames / s.num_tracks:.1f}" if s.num_tracks else "-" for s in splits]
    coverage = [
        charts.percent(s.num_frames / s.num_expected) if s.num_expected else "-" for s in splits
    ]
    return [
        row("speaking face-tracks", [s.num_tracks for s in splits]),
        row("identities", [s.num_identities for s in splits]),
        row("videos", [s.num_videos for s in splits]),
        row("frames", [s.num_frames for s in splits]),
        ("frames per track", per_track),
        ("coverage", coverage),
        *([("duration", durations)] if any(known) else []),
    ]


def _figures(found: Aggregates, other: Aggregates | None) -> dict[str, charts.Figure]:
    name = f"{other.name} {other.version}" if other else ""
    figures = [
        charts.emotions_figure(found, other),
        charts.logits_figure(found.logits, other.logits if other else None, name),
        charts.coverage_figure(found.coverage),
        charts.skew_figure(found.identities, found.videos),
        charts.people_figure(found.identities, found.videos),
    ]
    return {figure.key: figure for figure in figures}


def _student_context(report: Report) -> dict[str, Any]:
    results, dataset = report.results, report.dataset
    splits = results.student.splits if results.student else ()
    return {
        "rocs": [student_charts.roc_figure(split) for split in splits],
        "confusions": [c for split in splits if (c := student_charts.confusion_of(split))],
        "has_curves": any(split.curves for split in splits),
        "losses": student_charts.losses_figure(results.training) if results.training else None,
        "probes": [(probe, student_charts.probe_rows(probe)) for probe in results.probes],
        "elsewhere": bool(
            results.student and results.student.dataset != f"{dataset.name} {dataset.version}"
        ),
    }


def _track_data(report: Report) -> dict[str, Any]:
    return {
        "emotions": list(EMOTIONS),
        "step": report.dataset.step,
        "levels": LEVELS,
        "media": report.media is not None,
        "tracks": [pack(track) for track in report.tracks],
    }


def _media_context(report: Report) -> dict[str, Any] | None:
    """What the notice about faces and sound says; None where there are none."""
    if report.media is None:
        return None
    problems: dict[str, int] = {}
    for media in report.media:
        for problem in media.problems:
            problems[problem] = problems.get(problem, 0) + 1
    return {
        "synthetic": card_text.limits(report.provenance) is card_text.SYNTHETIC,
        "sounds": sum(media.sound is not None for media in report.media),
        "pictures": sum(len(media.pictures) for media in report.media),
        "people": len({track.identity_id for track in report.tracks}),
        "problems": sorted(problems.items(), key=lambda item: (-item[1], item[0])),
    }


def _provenance(dataset: Dataset) -> Mapping[str, Any]:
    """Content of provenance.json; nearly nothing where it is missing or damaged."""
    try:
        found = json.loads((dataset.path / schema.PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    return {"origin": "", **found} if isinstance(found, dict) else {"origin": ""}


def _has_faces(dataset: Dataset) -> bool:
    files = (dataset.path / schema.table_file("faces", split) for split in dataset.splits)
    return any(file.is_file() for file in files)


def _length(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds else "-"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _digest(text: str) -> str:
    """What a content security policy calls an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
