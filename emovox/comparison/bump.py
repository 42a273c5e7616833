"""Version bump that the differences between two datasets require."""

from collections.abc import Mapping
from typing import Any

from emovox.comparison.alignment import INVALID, Pair
from emovox.comparison.changes import Bump, Change
from emovox.dataset import schema
from emovox.dataset.names import parse_version


def find_bump(pair: Pair, changes: list[Change], files: list[str]) -> Bump:
    """Return the lowest bump that the differences allow, with its reasons."""
    old, new = pair.old.header, pair.new.header
    has = {table: (pair.old.has(table), pair.new.has(table)) for table in schema.TABLES}
    major = ["step_ms differs"] if old["step_ms"] != new["step_ms"] else []
    major += ["teacher differs"] if _other_teacher(old["teacher"], new["teacher"]) else []
    major += [f"table {table} removed" for table in has if has[table] == (True, False)]
    major += _counted(changes, "major")
    minor = [f"table {table} added" for table in has if has[table] == (False, True)]
    minor += _counted(changes, "minor")
    if not major and not minor:
        major = _unseen(pair)
    patch = [f"{key} differs" for key in ("name", "teacher") if old[key] != new[key]]
    patch += [f"files that differ: {', '.join(files)}"] if files else []
    found = {"major": major, "minor": minor, "patch": patch, "none": []}
    level = next((level for level, reasons in found.items() if reasons), "none")
    reasons = found[level]
    before, after = (parse_version(str(side["version"])) for side in (old, new))
    if before is None:
        return Bump(level, reasons, None, None)
    least = _next(before, level)
    enough = None if after is None else after >= least
    return Bump(level, reasons, ".".join(map(str, least)), enough)


def _other_teacher(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Return True for another name or checksum; an unknown checksum equals any."""
    known = [(teacher or {}).get("sha256") for teacher in (old, new)]
    names = [(teacher or {}).get("name") for teacher in (old, new)]
    return names[0] != names[1] or (all(known) and known[0] != known[1])


def _counted(changes: list[Change], level: str) -> list[str]:
    found: dict[str, list[str]] = {}
    for change in changes:
        if change.bump == level and change.count:
            found.setdefault(change.table, []).append(f"{change.count:,} {change.change}")
    return [f"{table}: {', '.join(counts)}" for table, counts in found.items()]


def _unseen(pair: Pair) -> list[str]:
    """Return a reason if content hashes differ although the compared columns are equal."""
    tables = [
        schema.table_file(table, split)
        for table in schema.TABLES
        for split in schema.SPLITS
        if all(known := [side.content(table, split) for side in (pair.old, pair.new)])
        and known[0] != known[1]
    ]
    found = f"content hashes differ, but no compared column: {', '.join(tables)}; {INVALID}"
    return [found] if tables else []


def _next(version: tuple[int, ...], level: str) -> tuple[int, ...]:
    if level == "none":
        return version
    place = ("major", "minor", "patch").index(level)
    return (*version[:place], version[place] + 1, *(0,) * (2 - place))
