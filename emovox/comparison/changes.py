"""Differences between two datasets: as data, as JSON, as text and as a DataFrame."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from emovox.packages import DataFrame, data_frame

RULE = {
    "major": "a track, a frame or a table is removed, a track is moved, a common value differs, or "
    "the step or the teacher differs",
    "minor": "tracks, frames or a table are added, and all common rows are equal",
    "patch": "only documents or containers differ",
    "none": "every file is equal",
}
NUM_EXAMPLES = 5  # per kind of change, in the text
WIDTH = 96  # characters


@dataclass(frozen=True)
class TrackChanges:
    """Differences between the tables `tracks`."""

    common: int  # number of tracks in both datasets
    # Ids of the others
    added: list[str]
    removed: list[str]
    moved: list[dict[str, str]]  # id, and split in OLD and in NEW
    # Id of each common track whose grid points differ, with the added ones (as numbers of NEW) and
    # the removed ones (as numbers of OLD)
    other_frames: list[dict[str, Any]]
    values: dict[str, int]  # number of common tracks whose value differs, by column


@dataclass(frozen=True)
class FrameChanges:
    """Differences between the tables `frames`. Means are over common frames; null without any."""

    common: int  # number of frames in both datasets
    changed: int  # common frames with a logit or a value that differs
    argmax_flips: int  # common frames whose largest logit is that of another emotion
    # Number of the other frames, including those of added and removed tracks
    added: int
    removed: int
    argmax: list[list[int]]  # int `[E, E]`, common frames by argmax in OLD and in NEW
    divergence: float | None  # mean KL(softmax(old) || softmax(new)), nats
    # For each emotion its term of the divergence, and for each emotion and value the mean absolute
    # and the largest change
    outputs: dict[str, dict[str, float | None]]
    largest: dict[str, Any] | None  # position and values of the output with the largest change
    worst_tracks: list[dict[str, Any]]  # tracks with the highest mean KL, in descending order


@dataclass(frozen=True)
class Change:
    """One kind of change."""

    table: str  # table that changed, or `files`
    change: str  # description
    count: int  # number of rows or files
    bump: str = "none"  # version bump that a single one requires; a key of `RULE`
    rows: Sequence[str] = ()  # ids of the rows or paths of the files, if they are known


@dataclass(frozen=True)
class Bump:
    """The version bump that the differences require."""

    level: str  # a key of `RULE`
    reasons: list[str]  # differences that require it
    at_least: str | None  # lowest version that NEW may have; None if OLD's is not of the form 1.2.3
    enough: bool | None  # True if NEW's version is at least that; None if either has another form


@dataclass(frozen=True, repr=False)
class Difference:
    """All differences between two datasets."""

    # Description of each dataset, from its manifest
    old: dict[str, Any]
    new: dict[str, Any]
    header: list[str]  # keys of the description that differ
    # Differences between the rows
    tracks: TrackChanges
    frames: FrameChanges
    # Number of common rows of the table that differ; None unless both datasets have it
    faces_changed: int | None
    embeddings_changed: int | None
    files: list[str]  # paths of files that differ or exist in one dataset only
    bump: Bump  # the version bump that the differences require

    def __repr__(self) -> str:
        old, new = (f"{side['name']} {side['version']}" for side in (self.old, self.new))
        frames = self.frames
        return (
            f"<Difference {old} -> {new}: {self.bump.level}; "
            f"tracks +{len(self.tracks.added):,} -{len(self.tracks.removed):,}, "
            f"frames +{frames.added:,} -{frames.removed:,}, "
            f"{frames.changed:,} of {frames.common:,} common frames changed>"
        )

    @property
    def changes(self) -> list[Change]:
        """Number of rows by kind of change."""
        tracks, frames, files = self.tracks, self.frames, self.files
        moved = [f"{t['track_id']} {t['old']} -> {t['new']}" for t in tracks.moved]
        other = [
            f"{t['track_id']} +{len(t['added'])} -{len(t['removed'])}" for t in tracks.other_frames
        ]
        return [
            Change("tracks", "in both", tracks.common),
            Change("tracks", "added", len(tracks.added), "minor", tracks.added),
            Change("tracks", "removed", len(tracks.removed), "major", tracks.removed),
            Change("tracks", "moved between splits", len(moved), "major", moved),
            *(
                Change("tracks", f"with another {column}", count, "major")
                for column, count in tracks.values.items()
            ),
            Change("tracks", "with frames added or removed", len(other), rows=other),
            Change("frames", "in both", frames.common),
            Change("frames", "added", frames.added, "minor"),
            Change("frames", "removed", frames.removed, "major"),
            Change("frames", "with other logits or values", frames.changed, "major"),
            Change("frames", "with another argmax", frames.argmax_flips),
            Change("faces", "with other values", self.faces_changed or 0, "major"),
            Change("embeddings", "with other values", self.embeddings_changed or 0, "major"),
            Change("files", "that differ", len(files), "patch", files),
        ]

    def to_pandas(self) -> DataFrame:
        """Return `changes`, with the first of `rows` alone; MissingPackageError without pandas."""
        rows = [asdict(change) for change in self.changes]
        return data_frame([r | {"first_example": next(iter(r.pop("rows")), None)} for r in rows])

    def as_dict(self) -> dict[str, Any]:
        """Return all differences as plain data."""
        return {**asdict(self), "rule": RULE}

    def json(self) -> str:
        """Return all differences as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def text(self) -> str:
        """Return a summary for the terminal, about 96 characters wide."""
        from jinja2 import Environment, PackageLoader  # slow to import

        blocks: Any = {"trim_blocks": True, "lstrip_blocks": True}
        environment = Environment(loader=PackageLoader("emovox.comparison"), **blocks)
        environment.filters |= {"commas": "{:,}".format, "item": _item}
        frames, emotions = self.frames, self.old["emotions"]
        counts = ([name, *row] for name, row in zip(emotions, frames.argmax, strict=True))
        outputs = [[name, *entry.values()] for name, entry in frames.outputs.items()]
        if frames.largest:
            terms, means, most = np.array([row[1:] for row in outputs[: len(emotions)]], float).T
            outputs.insert(len(emotions), ["all logits", terms.sum(), means.mean(), most.max()])
        heads = ["worst tracks", "mean KL", "frames", "changed", "argmax flips", "largest change"]
        text = environment.get_template("difference.txt").render(
            vars(self),
            changes=self.changes,
            rule=RULE,
            num_examples=NUM_EXAMPLES,
            table=_table,
            matrix=[["", *emotions], *([cell or "." for cell in row] for row in counts)],
            outputs=[["outputs", "KL term", "mean change", "largest change"], *outputs],
            worst_tracks=[heads, *([*track.values()] for track in frames.worst_tracks)],
        )
        return text.rstrip()


def _item(title: str, text: str, indent: int = 0) -> str:
    wrap = partial(textwrap.fill, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    return wrap(text, initial_indent=f"{title:<9} ", subsequent_indent=" " * (10 + indent))


def _table(rows: list[list[Any]]) -> str:
    """Return an aligned table; the first column is flush left, the others flush right."""
    lines = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
    return "\n".join(
        line[0].ljust(widths[0]) + "".join(map(str.rjust, line[1:], widths[1:])) for line in lines
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{round(value, 6) + 0.0:.6f}"  # + 0.0 turns -0 into 0
    return f"{value:,}" if isinstance(value, int) else value or ""
