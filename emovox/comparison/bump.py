"""Which version bump the differences between two datasets mean."""

import re
from collections.abc import Mapping
from typing import Any

from emovox.comparison.alignment import INVALID, Pair
from emovox.comparison.changes import Bump, FrameChanges, TrackChanges
from emovox.dataset import schema


def find_bump(
    pair: Pair, tracks: TrackChanges, frames: FrameChanges, faces: int | None, files: list[str]
) -> Bump:
    level, reasons = "major", _major(pair, tracks, frames, faces)
    if not reasons:
        level, reasons = "minor", _minor(pair, tracks, frames)
    if not reasons and (hidden := _hidden(pair)):
        level, reasons = "major", [f"content differs in what is not compared: {hidden}; {INVALID}"]
    if not reasons:
        level, reasons = "patch", _patch(pair, files)
    if not reasons:
        level = "none"
    versions = [_numbers(side.header["version"]) for side in (pair.old, pair.new)]
    if versions[0] is None:
        return Bump(level, reasons, None, None)
    least = _next(versions[0], level)
    enough = None if versions[1] is None else versions[1] >= least
    return Bump(level, reasons, ".".join(map(str, least)), enough)


def _major(pair: Pair, tracks: TrackChanges, frames: FrameChanges, faces: int | None) -> list[str]:
    old, new = pair.old.header, pair.new.header
    reasons = [
        f"{key} differs"
        for key in ("schema_version", "emotions", "step_ms")
        if old[key] != new[key]
    ]
    if _other_teacher(old["teacher"] or {}, new["teacher"] or {}):
        reasons.append("teacher differs")
    if pair.old.has("faces") and not pair.new.has("faces"):
        reasons.append("table faces removed")
    counts = {
        "tracks removed": len(tracks.removed),
        "tracks moved between splits": len(tracks.moved),
        "frames removed": frames.removed,
        "frames with other logits": frames.changed,
        "rows of faces that differ": faces or 0,
    }
    if tracks.values:
        reasons.append(f"columns of tracks that differ: {', '.join(tracks.values)}")
    return reasons + _counted(counts)


def _other_teacher(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    known = [teacher.get("sha256") for teacher in (old, new)]
    return old.get("name") != new.get("name") or (all(known) and known[0] != known[1])


def _minor(pair: Pair, tracks: TrackChanges, frames: FrameChanges) -> list[str]:
    added = ["table faces added"] if pair.new.has("faces") and not pair.old.has("faces") else []
    return added + _counted({"tracks added": len(tracks.added), "frames added": frames.added})


def _patch(pair: Pair, files: list[str]) -> list[str]:
    old, new = pair.old.header, pair.new.header
    reasons = [f"{key} differs" for key in ("name", "teacher") if old[key] != new[key]]
    return reasons + ([f"files that differ: {', '.join(files)}"] if files else [])


def _hidden(pair: Pair) -> str:
    """Tables whose content hashes differ; asked for where no difference was found."""
    return ", ".join(
        schema.table_file(table, name)
        for table in schema.TABLES
        for split, name in enumerate(schema.SPLITS)
        if all(known := [side.content(table, split) for side in (pair.old, pair.new)])
        and known[0] != known[1]
    )


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [f"{what}: {count:,}" for what, count in counts.items() if count]


def _numbers(version: str) -> tuple[int, ...] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", str(version))
    return tuple(map(int, match.groups())) if match else None


def _next(version: tuple[int, ...], level: str) -> tuple[int, ...]:
    major, minor, patch = version
    after = {"major": (major + 1, 0, 0), "minor": (major, minor + 1, 0), "none": version}
    return after.get(level, (major, minor, patch + 1))
