"""Compare two versions of a dataset, and find the version bump that the differences require.

`changes.RULE` is the rule, semantic versioning for data: a major bump if readers may get other
values. Documents and containers are card, provenance, compression, HDF5 and `dropped`.

`row_offset` and `n_frames` follow from other rows and are not compared; the maxima and `n_expected`
are compared only for tracks with the same frames. A teacher whose checksum was unknown and is now
known counts as the same teacher. Datasets of another schema version, or with other emotions or
values than each other, are refused: their rows cannot be compared.

Frames are aligned by track_id and grid point (`frame_index`, or the time `step_ms * frame_index` if
the steps differ), even if the track changed its split. Both files are sorted and are read in
parallel, one row group at a time. If both manifests give the same content hash for the frames of a
split, only OLD's are read. Sizes and SHA-256 of all files are checked first.
"""

import itertools
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.comparison.alignment import HEADER, INVALID, Block, Pair, Side
from emovox.comparison.changes import RULE, Bump, Change, Difference, FrameChanges, TrackChanges
from emovox.dataset import schema
from emovox.dataset.json_schemas import changed_files, read_manifest
from emovox.dataset.names import parse_version
from emovox.errors import CheckError, InputError
from emovox.scores import confusion_matrix

NUM_WORST = 20  # tracks
NOT_COMPARED = ("track_id", "split", "row_offset", "n_frames")  # columns of `tracks`


def diff(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Difference:
    """Compare two datasets.

    Holds both tables of tracks and a few row groups of frames in memory.

    Args:
        old: folder of the earlier dataset.
        new: folder of the later dataset.

    Raises:
        InputError: a folder is not a dataset of this contract version, or its tables contradict
            each other.
        CheckError: files of a dataset differ from its manifest; the message lists them.

    Example:
        >>> found = diff("emovox-demo/dataset", "emovox-demo/dataset")
        >>> found.bump.level, found.tracks.common, found.frames.changed
        ('none', 96, 0)
    """
    paths = Path(old), Path(new)
    if changed := [f"{p / file}" for p in paths for file in changed_files(p, read_manifest(p))]:
        raise CheckError(
            f"not compared: {', '.join(changed)}: differ from {schema.MANIFEST}; "
            "run `emovox validate` for details"
        )
    pair = Pair(*map(Side, paths))
    one, other = (side.dataset.outputs for side in (pair.old, pair.new))
    if one != other:
        names = [", ".join((*outputs.emotions, *outputs.values)) for outputs in (one, other)]
        shown = f"{old} has emotions and values {names[0]}; {new} has {names[1]}"
        raise InputError(f"{shown}: cannot be compared")
    totals = _FrameTotals(pair)
    for block in pair.blocks("frames"):
        totals.add(block)
    hashes = [{(p, f.get("sha256")) for p, f in s.files.items()} for s in (pair.old, pair.new)]
    found = Difference(
        old=pair.old.header,
        new=pair.new.header,
        header=[key for key in HEADER if pair.old.header[key] != pair.new.header[key]],
        tracks=_track_changes(pair, totals),
        frames=totals.changes(),
        faces_changed=_count_changed(pair, "faces"),
        embeddings_changed=_count_changed(pair, "embeddings"),
        files=sorted({path for path, _ in hashes[0] ^ hashes[1]}),
        bump=Bump("none", [], None, None),  # it depends on the rest
    )
    return replace(found, bump=find_bump(pair, found))


class _FrameTotals:
    """Sums over the common frames, block by block."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        outputs = pair.old.dataset.outputs
        self._emotions, self._names = outputs.emotions, (*outputs.emotions, *outputs.values)
        self.argmax = np.zeros((len(self._emotions), len(self._emotions)), int)
        self.terms = np.zeros(len(self._emotions))
        self.absolute, self.largest = np.zeros((2, len(self._names)))
        self.where: dict[str, Any] | None = None  # the largest change so far
        self.common, self.changed, self.flips = np.zeros((3, len(pair)), int)  # by track
        self.divergence, self.track_largest = np.zeros((2, len(pair)))
        # Added and removed grid points by track
        self.other: defaultdict[int, tuple[list[int], ...]] = defaultdict(lambda: ([], []))

    def add(self, block: Block) -> None:
        for place, points in enumerate((block.added, block.removed)):
            for track, index in points.T.tolist():
                self.other[track][place].append(index)
        changed, num = (block.old != block.new).any(axis=0), len(self._emotions)
        old, new = (values[:num].argmax(axis=0) for values in (block.old, block.new))
        self.argmax += confusion_matrix(old, new, num)
        chosen = (self.common, ...), (self.changed, changed), (self.flips, old != new)
        for counts, rows in chosen:
            counts[block.tracks] += np.bincount(block.owner[rows], minlength=len(block.tracks))
        if changed.any():
            self._add_changed(block, changed)

    def _add_changed(self, block: Block, changed: np.ndarray) -> None:
        old, new = block.old[:, changed].astype(float), block.new[:, changed].astype(float)
        owner, change = block.owner[changed], np.abs(new - old)
        num = len(self._emotions)
        terms = _kl_terms(old[:num], new[:num])
        self.terms += terms.sum(axis=1)
        self.absolute += change.sum(axis=1)
        largest = change.max(axis=0)
        np.maximum.at(self.track_largest, block.tracks[owner], largest)
        self.divergence[block.tracks] += np.bincount(owner, terms.sum(axis=0), len(block.tracks))
        if largest.max() > self.largest.max():
            row = int(largest.argmax())
            output = int(change[:, row].argmax())
            self.where = {
                "track_id": self._pair.ids([block.tracks[owner[row]]])[0],
                "frame_index": int(block.frame_index[changed][row]),
                "output": self._names[output],
                "old": float(old[output, row]),
                "new": float(new[output, row]),
            }
        self.largest = np.maximum(self.largest, change.max(axis=1))

    def other_frames(self) -> list[dict[str, Any]]:
        """Return the common tracks with other frames, with the added and removed grid points."""
        tracks = zip(self._pair.ids([*self.other]), self.other.values(), strict=True)
        found = [{"track_id": i, "added": a, "removed": r} for i, (a, r) in tracks]
        return sorted(found, key=lambda track: track["track_id"])

    def changes(self) -> FrameChanges:
        pair, common = self._pair, int(self.common.sum())
        added, removed = (sum(len(points[k]) for points in self.other.values()) for k in (0, 1))
        terms, means = ((sums / max(common, 1)).tolist() for sums in (self.terms, self.absolute))
        # A value has no term of the divergence.
        rows = itertools.zip_longest(terms, means, self.largest.tolist())
        keys = ("divergence", "mean_change", "largest_change")
        by_output = [dict(zip(keys, row if common else [None] * 3, strict=True)) for row in rows]
        return FrameChanges(
            common=common,
            changed=int(self.changed.sum()),
            argmax_flips=int(self.flips.sum()),
            added=int(pair.new.count.sum()) - common,
            removed=int(pair.old.count.sum()) - common,
            added_in_common_tracks=added,
            removed_in_common_tracks=removed,
            argmax=self.argmax.tolist(),
            divergence=float((self.terms / common).sum()) if common else None,
            outputs=dict(zip(self._names, by_output, strict=True)),
            largest=self.where,
            worst_tracks=self._worst(),
        )

    def _worst(self) -> list[dict[str, Any]]:
        tracks = np.flatnonzero(self.changed)
        divergence = self.divergence[tracks] / self.common[tracks]
        order = np.lexsort((-self.track_largest[tracks], -divergence))[:NUM_WORST]
        worst = tracks[order]
        table = {
            "track_id": self._pair.ids(worst),
            "divergence": divergence[order],
            "frames": self.common[worst],
            "changed": self.changed[worst],
            "argmax_flips": self.flips[worst],
            "largest_change": self.track_largest[worst],
        }
        return pa.table(table).to_pylist()


def _kl_terms(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the terms of KL(softmax(old) || softmax(new)) of logits `[E, n]`, by emotion."""
    old, new = (x - x.max(axis=0) for x in (old, new))
    old, new = (x - np.log(np.exp(x).sum(axis=0)) for x in (old, new))
    return np.exp(old) * (old - new)


def _track_changes(pair: Pair, totals: _FrameTotals) -> TrackChanges:
    sides, columns = (pair.old, pair.new), pair.old.dataset.columns
    old, new = pair.old.tracks.take(pair.in_old), pair.new.tracks.take(pair.in_new)
    emotions = columns.outputs.emotions
    labels = []
    for side, tracks in ((pair.old, old), (pair.new, new)):
        numbers = pc.index_in(tracks["label"], value_set=pa.array(emotions))
        if numbers.null_count:
            known = ", ".join(emotions)
            raise InputError(f"{side.path}: a label is not one of {known}; {INVALID}")
        labels.append(numbers.to_numpy().astype(int))
    compared = [name for name in old.column_names if name not in NOT_COMPARED]
    values = {column: _differs(old, new, column) for column in compared}
    # These may differ if the frames of a track do.
    for column in ("n_expected", "majority", *columns.maxima, *columns.means):
        values[column][[*totals.other]] = False
    removed, added = (
        sorted(one.ids.filter(pc.invert(pc.is_in(one.ids, value_set=other.ids))).to_pylist())
        for one, other in (sides, sides[::-1])
    )
    return TrackChanges(
        common=len(pair),
        added=added,
        removed=removed,
        moved=_flips(old, new, "split"),
        other_frames=totals.other_frames(),
        values={column: int(differs.sum()) for column, differs in values.items() if differs.any()},
        labels=confusion_matrix(labels[0], labels[1], len(emotions)).tolist(),
        label_flips=_flips(old, new, "label"),
    )


def _differs(old: pa.Table, new: pa.Table, column: str) -> np.ndarray:
    """Return True for rows whose value in a column differs, bool `[T]`; null equals null."""
    one, other = old[column], new[column]
    nulls = pc.not_equal(pc.is_null(one), pc.is_null(other))
    return pc.coalesce(pc.not_equal(one, other), nulls).to_numpy()


def _flips(old: pa.Table, new: pa.Table, column: str) -> list[dict[str, str]]:
    """Return the tracks whose value in a column differs, with both values."""
    values = {"track_id": old["track_id"], "old": old[column], "new": new[column]}
    differs = pa.array(_differs(old, new, column))
    return pa.table(values).filter(differs).sort_by("track_id").to_pylist()


def _count_changed(pair: Pair, table: str) -> int | None:
    if not (pair.old.has(table) and pair.new.has(table)):
        return None
    rows = ((block.old, block.new) for block in pair.blocks(table))  # embeddings differ in length
    return sum(int((a != b).any(0).sum()) if len(a) == len(b) else a.shape[1] for a, b in rows)


def find_bump(pair: Pair, difference: Difference) -> Bump:
    """Return the lowest bump that the differences allow, with its reasons."""
    old, new, files = difference.old, difference.new, difference.files
    has = {table: (pair.old.has(table), pair.new.has(table)) for table in schema.TABLES}
    major = ["step_ms differs"] if old["step_ms"] != new["step_ms"] else []
    major += ["teacher differs"] if _other_teacher(old["teacher"], new["teacher"]) else []
    major += [f"table {table} removed" for table in has if has[table] == (True, False)]
    major += _counted(difference.changes, "major")
    minor = [f"table {table} added" for table in has if has[table] == (False, True)]
    minor += _counted(difference.changes, "minor")
    if not major and not minor:
        major = _unseen(pair)
    patch = [f"{key} differs" for key in ("name", "teacher") if old[key] != new[key]]
    patch += [f"files that differ: {', '.join(files)}"] if files else []
    found = dict(zip(RULE, (major, minor, patch, []), strict=True))
    level = next((level for level, reasons in found.items() if reasons), "none")
    reasons = found[level]
    before, after = (parse_version(str(side["version"])) for side in (old, new))
    if before is None:
        return Bump(level, reasons, None, None)
    place = [*RULE].index(level)  # none: after the last number
    higher = [number + 1 for number in before[place : place + 1]]
    least = (*before[:place], *higher, *(0,) * (2 - place))
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
