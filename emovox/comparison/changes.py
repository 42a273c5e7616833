"""Differences between two datasets: as data, as JSON, as text and as a DataFrame."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
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
        return "\n\n".join([self._heads(), self._changes(), *self._logits(), self._version()])

    def _heads(self) -> str:
        lines = []
        for title, side in (("old", self.old), ("new", self.new)):
            counts = f"{side['tracks']:,} tracks, {side['frames']:,} frames"
            lines.append(f"{title:<10}{side['name']} {side['version']}: {counts}")
        for key in self.header:
            if key not in ("name", "version"):
                lines.append(_item(key, f"{_plain(self.old[key])} -> {_plain(self.new[key])}"))
        return "\n".join(lines)

    def _changes(self) -> str:
        lines, table = [], ""
        for change in self.changes:
            if not change.count and change.change != "in both":
                continue
            title, table = "" if change.table == table else change.table, change.table
            lines.append(f"{title:<10}{change.count:>9,} {change.change}")
            lines += [f"{'':<22}{row}" for row in change.rows[:NUM_EXAMPLES]]
            if (rest := len(change.rows) - NUM_EXAMPLES) > 0:
                lines.append(f"{'':<22}and {rest:,} more, listed by --format json")
        return "\n".join(lines)

    def _logits(self) -> Iterator[str]:
        frames, emotions = self.frames, self.old["emotions"]
        if frames.argmax_flips:
            yield _matrix("argmax of frames", frames.argmax, emotions)
        if frames.largest is not None:
            rows = [[name, *entry.values()] for name, entry in frames.outputs.items()]
            terms, means, largest = np.array([row[1:] for row in rows[: len(emotions)]], float).T
            rows.insert(len(emotions), ["all logits", terms.sum(), means.mean(), largest.max()])
            yield _table(["outputs", "KL term", "mean change", "largest change"], rows)
            where = "{output} {old:.4f} -> {new:.4f} in frame {frame_index} of {track_id}"
            yield _item("largest", where.format(**frames.largest))
            head = ["worst tracks", "mean KL", "frames", "changed", "argmax flips"]
            yield _table([*head, "largest change"], [[*t.values()] for t in frames.worst_tracks])

    def _version(self) -> str:
        bump = self.bump
        verdict = {True: "is enough", False: "is too low", None: "is not of the form 1.2.3"}
        required = f", at least {bump.at_least}: {self.new['version']} {verdict[bump.enough]}"
        lines = [_item("version", bump.level + (required if bump.at_least else ""))]
        lines += [_item("", f"- {reason}", indent=2) for reason in bump.reasons]
        for title, (level, rule) in zip(("rule", "", "", ""), RULE.items(), strict=True):
            lines.append(_item(title, f"{level + ':':<7}{rule}", indent=7))
        return "\n".join(lines)


def _item(title: str, text: str, indent: int = 0) -> str:
    wrap = partial(textwrap.fill, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    return wrap(text, initial_indent=f"{title:<9} ", subsequent_indent=" " * (10 + indent))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(str(part)[:20] for part in value.values() if part)
    return str(value)


def _table(head: list[str], rows: list[list[Any]]) -> str:
    """Return an aligned table; the first column is flush left, the others flush right."""
    lines = [head, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
    return "\n".join(
        line[0].ljust(widths[0]) + "".join(map(str.rjust, line[1:], widths[1:])) for line in lines
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{round(value, 6) + 0.0:.6f}"  # + 0.0 turns -0 into 0
    return f"{value:,}" if isinstance(value, int) else value or ""


def _matrix(title: str, counts: list[list[int]], emotions: Sequence[str]) -> str:
    rows = [[name, *(n or "." for n in row)] for name, row in zip(emotions, counts, strict=True)]
    return f"{title} (rows: old, columns: new)\n{_table(['', *emotions], rows)}"
