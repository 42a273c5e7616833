"""The differences between two datasets as data, as JSON and as text."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS

RULE = {
    "major": "a track is removed or moved, a frame is removed, a common value differs, or the "
    "step, teacher, emotions or schema version does",
    "minor": "tracks, frames or a table are added, all common rows are equal",
    "patch": "only documents or containers differ",
    "none": "every file is equal",
}
NUM_EXAMPLES = 5  # of each list, in the text
WIDTH = 96  # characters


@dataclass(frozen=True)
class TrackChanges:
    """Differences between the tables `tracks`.

    Attributes:
        common: tracks that both have.
        added, removed: their ids.
        moved: ids, and the split in OLD and in NEW.
        other_frames: ids of common tracks, and the grid points added (numbers of NEW) and removed
            (numbers of OLD).
        values: number of common tracks by column whose value differs.
        labels: int `[8, 8]`, common tracks by label in OLD and in NEW.
        label_flips: ids, and the label in OLD and in NEW.
    """

    common: int
    added: list[str]
    removed: list[str]
    moved: list[dict[str, str]]
    other_frames: list[dict[str, Any]]
    values: dict[str, int]
    labels: list[list[int]]
    label_flips: list[dict[str, str]]


@dataclass(frozen=True)
class FrameChanges:
    """Differences between the tables `frames`. Means are over common frames, null without any.

    Attributes:
        common: frames that both have; `changed`: of these, with another logit; `argmax_flips`: of
            these, with another largest one.
        added, removed: including those of added and removed tracks, unlike the two
            `..._in_common_tracks`.
        argmax: int `[8, 8]`, common frames by largest logit in OLD and in NEW.
        divergence: mean KL(softmax(old) || softmax(new)), nats.
        emotions: for each emotion its term of the divergence, and mean absolute and largest change
            of its logit.
        largest: where the largest change of a logit is.
        worst_tracks: by mean KL, the worst first.
    """

    common: int
    changed: int
    argmax_flips: int
    added: int
    removed: int
    added_in_common_tracks: int
    removed_in_common_tracks: int
    argmax: list[list[int]]
    divergence: float | None
    emotions: dict[str, dict[str, float | None]]
    largest: dict[str, Any] | None
    worst_tracks: list[dict[str, Any]]


@dataclass(frozen=True)
class Bump:
    """Which part of the version has to grow.

    Attributes:
        level: a key of `RULE`.
        reasons: what asks for it.
        at_least: the lowest version that NEW may have; None if OLD's is not of the form 1.2.3.
        enough: whether NEW's is that high; None if either is of another form.
    """

    level: str
    reasons: list[str]
    at_least: str | None
    enough: bool | None


@dataclass(frozen=True)
class Difference:
    """All differences between two datasets.

    Attributes:
        old, new: what their manifests say of them.
        header: what of that differs.
        tracks, frames: differences of the rows.
        faces_changed: common rows of `faces` that differ; None unless both have the table.
        files: paths of files that differ, or that one does not have.
        bump: the version bump that it all means.
    """

    old: dict[str, Any]
    new: dict[str, Any]
    header: list[str]
    tracks: TrackChanges
    frames: FrameChanges
    faces_changed: int | None
    files: list[str]
    bump: Bump

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rule": RULE}

    def json(self) -> str:
        """Everything, as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def text(self) -> str:
        """What a person wants to know, in lines of at most about 96 characters."""
        parts = [self._heads(), self._counts(), *self._logits(), self._verdict()]
        return "\n\n".join(parts)

    def _heads(self) -> str:
        lines = []
        for title, side in (("old", self.old), ("new", self.new)):
            counts = f"{side['tracks']:,} tracks, {side['frames']:,} frames"
            lines.append(f"{title:<10}{side['name']} {side['version']}: {counts}")
        for key in self.header:
            if key not in ("name", "version"):
                lines.append(_item(key, f"{_plain(self.old[key])} -> {_plain(self.new[key])}"))
        return "\n".join(lines)

    def _counts(self) -> str:
        tracks, frames = self.tracks, self.frames
        moved = [f"{m['track_id']} {m['old']} -> {m['new']}" for m in tracks.moved]
        other = [
            f"{o['track_id']} +{len(o['added'])} -{len(o['removed'])}" for o in tracks.other_frames
        ]
        lines = [
            f"tracks    {tracks.common:,} in both, {len(tracks.added):,} added, "
            f"{len(tracks.removed):,} removed, {len(moved):,} moved between splits",
            *_examples("added", tracks.added),
            *_examples("removed", tracks.removed),
            *_examples("moved", moved),
            f"frames    {frames.common:,} in both, {frames.added:,} added, "
            f"{frames.removed:,} removed",
            f"          {frames.added_in_common_tracks:,} added and "
            f"{frames.removed_in_common_tracks:,} removed in {len(other):,} tracks of both",
            *_examples("tracks", other),
            f"          {frames.changed:,} of those in both with other logits, "
            f"{frames.argmax_flips:,} with another argmax",
        ]
        if self.faces_changed is not None:
            lines.append(f"faces     {self.faces_changed:,} of the rows in both differ")
        if tracks.values:
            counts = (f"{name} {count:,}" for name, count in tracks.values.items())
            lines.append(_item("values", f"of tracks in both, by column: {', '.join(counts)}"))
        return "\n".join(lines)

    def _logits(self) -> Iterator[str]:
        if self.frames.argmax_flips:
            yield _matrix("argmax, in frames (down: old, across: new)", self.frames.argmax)
        if self.tracks.label_flips:
            yield _matrix("label, in tracks (down: old, across: new)", self.tracks.labels)
        if self.frames.largest is not None:
            yield _divergence(self.frames)
            yield _largest(self.frames.largest)
            yield _worst(self.frames.worst_tracks)

    def _verdict(self) -> str:
        bump = self.bump
        verdict = {True: "is enough", False: "is too low", None: "is not of that form"}
        asked = f", at least {bump.at_least}: {self.new['version']} {verdict[bump.enough]}"
        lines = [_item("version", bump.level + (asked if bump.at_least else ""))]
        lines += [_item("", f"- {reason}", indent=2) for reason in bump.reasons]
        for title, (level, rule) in zip(("rule", "", "", ""), RULE.items(), strict=True):
            lines.append(_item(title, f"{level + ':':<7}{rule}", indent=7))
        return "\n".join(lines)


def _item(title: str, text: str, indent: int = 0) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"{title:<9} ",
        subsequent_indent=" " * (10 + indent),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _examples(title: str, items: list[str]) -> list[str]:
    lines = [f"{'':<10}{title:<9}{item}" for item in items[:NUM_EXAMPLES]]
    if rest := len(items) - len(lines):
        lines.append(f"{'':<10}{title:<9}and {rest:,} more, which --format json lists")
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(str(part)[:20] for part in value.values() if part)
    return str(value)


def _matrix(title: str, counts: list[list[int]]) -> str:
    lines = [title, " " * 10 + "".join(f"{emotion:>10}" for emotion in EMOTIONS)]
    for emotion, row in zip(EMOTIONS, counts, strict=True):
        cells = (f"{count:,}" if count else "." for count in row)
        lines.append(f"{emotion:<10}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def _divergence(frames: FrameChanges) -> str:
    rows = {name: list(entry.values()) for name, entry in frames.emotions.items()}
    terms, means, largest = np.array(list(rows.values()), float).T
    rows["all"] = [terms.sum(), means.mean(), largest.max()]
    lines = [f"{'logits':<10}{'KL term':>14}{'mean change':>14}{'largest':>14}"]
    for name, values in rows.items():
        lines.append(f"{name:<10}" + "".join(f"{_decimal(value):>14}" for value in values))
    return "\n".join(lines)


def _decimal(value: float | None) -> str:
    return f"{round(value or 0, 6) + 0.0:.6f}"  # + 0.0 makes -0 a plain 0


def _largest(where: Mapping[str, Any]) -> str:
    change = where["new"] - where["old"]
    text = (
        f"{where['emotion']} {where['old']:.4f} -> {where['new']:.4f} ({change:+.4f}) in frame "
        f"{where['frame_index']} of {where['track_id']}"
    )
    return _item("largest", text)


def _worst(tracks: list[dict[str, Any]]) -> str:
    titles = f"{'mean KL':>14}{'largest':>12}{'frames':>8}{'changed':>9}{'flips':>7}  track"
    lines = [f"{'worst':<10}{titles}"]
    for t in tracks:
        numbers = f"{_decimal(t['divergence']):>24}{t['largest_change']:>12.4f}{t['frames']:>8,}"
        lines.append(f"{numbers}{t['changed']:>9,}{t['argmax_flips']:>7,}  {t['track_id']}")
    return "\n".join(lines)
