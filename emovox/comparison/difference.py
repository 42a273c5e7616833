"""Compare two versions of a dataset, and find the version bump that the differences require.

`changes.RULE` is the rule, semantic versioning for data: a major bump if readers may get other
values. Documents and containers are card, provenance, compression, HDF5 and `dropped`.

`row_offset` and `n_frames` follow from other rows and are not compared; the maxima and `n_expected`
are compared only for tracks with the same frames. A teacher whose checksum was unknown and is now
known counts as the same teacher. Datasets of another schema version, or with other emotions or
values than each other, are refused: their rows cannot be compared.

Frames are aligned by track_id and grid point (`frame_index`, or the time `step_ms * frame_index` if
the steps differ), even if the track changed its split. The positions of all frames are in memory,
and the values of one split of each dataset. Sizes and SHA-256 of all files are checked first.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.comparison.changes import RULE, Bump, Change, Difference, FrameChanges, TrackChanges
from emovox.dataset import schema
from emovox.dataset.json_schemas import changed_files, read_manifest, tables_of
from emovox.dataset.names import parse_version
from emovox.dataset.reader import load
from emovox.errors import CheckError, InputError
from emovox.scores import confusion_matrix

KEYS = ("track_id", "frame_index", "timestamp_ms")  # columns that are not compared
HEADER = ("name", "version", "schema_version", "emotions", "values", "step_ms", "teacher")
NO_SCORE = -1  # in place of null; detectors give scores from 0 to 1
BLOCK_ROWS = 2**16  # of all columns in memory as float64
INVALID = "run `emovox validate` for details"
NUM_WORST = 20  # tracks
COUNTS = ("frames", "changed", "argmax_flips")
# Numbers of a track, with their types.
BY_TRACK = [("divergence", float), *((name, int) for name in COUNTS), ("largest_change", float)]
NOT_COMPARED = ("track_id", "split", "row_offset", "n_frames")  # columns of `tracks`


def diff(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Difference:
    """Compare two datasets.

    Holds both tables of tracks, the positions of all frames and a split of each in memory.

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
    hashes = [{(p, f.get("sha256")) for p, f in s.files.items()} for s in (pair.old, pair.new)]
    found = Difference(
        old=pair.old.header,
        new=pair.new.header,
        header=[key for key in HEADER if pair.old.header[key] != pair.new.header[key]],
        tracks=_track_changes(pair, totals.other),
        frames=totals.changes(),
        faces_changed=_count_changed(pair, "faces"),
        embeddings_changed=_count_changed(pair, "embeddings"),
        files=sorted({path for path, _ in hashes[0] ^ hashes[1]}),
        bump=Bump("none", [], None, None),  # it depends on the rest
    )
    return replace(found, bump=find_bump(pair, found))


class Side:
    """One of the two datasets; `tracks` has the tables of tracks of all its splits, in order."""

    def __init__(self, path: Path) -> None:
        self.path, self.dataset = path, load(path)
        self.manifest = self.dataset.manifest
        tables = [self.dataset.tracks[split] for split in self.dataset.splits]
        self.tracks = pa.concat_tables([self.dataset.columns.tracks.empty_table(), *tables])
        self.ids = self.tracks["track_id"].combine_chunks()
        if len(self.ids.unique()) != len(self.ids):
            raise InputError(f"{path}: a track_id occurs more than once; {INVALID}")
        # Description from the manifest, with the number of tracks and frames.
        self.header: dict[str, Any] = {key: self.manifest.get(key) for key in HEADER}
        num_frames = int(self.tracks["n_frames"].to_numpy().sum())
        self.header |= {"tracks": len(self.ids), "frames": num_frames}
        self.files = {file["path"]: file for file in self.manifest["files"]}
        self.tables = tables_of(self.manifest)

    def keys(self, split: str, ids: pa.Array) -> np.ndarray:
        """Return a key of each row of a split, int64 `[n]`; InputError if a grid point is wrong.

        It is the place of the track in `ids`, and in the last 32 bits the time in ms.
        """
        tracks, index = self.dataset.tracks[split], self.dataset.to_numpy(split)[1].astype(int)
        step_ms = self.manifest["step_ms"]
        numbers = pc.index_in(tracks["track_id"], value_set=ids).to_numpy().astype(int)
        keys = (np.repeat(numbers, tracks["n_frames"].to_numpy()) << 32) + index * step_ms
        too_large = index.max(initial=0) > schema.max_frame_index(step_ms)
        if too_large or index.min(initial=0) < 0 or (np.diff(np.sort(keys)) == 0).any():
            fact = "a frame_index is not unique, negative or too large"
            raise InputError(f"{self.path}: {split}: {fact}; {INVALID}")
        return keys

    def values(self, table: str, split: str) -> np.ndarray:
        """Return the compared values of a table, `[n, columns]`; InputError if one is wrong."""
        values, index = self.dataset.to_numpy(split)  # memory-mapped
        if table != "frames" or self.dataset.values:
            rows = self.dataset.read_table(table, split)
            if not np.array_equal(rows["frame_index"].to_numpy(), index):
                raise InputError(f"{self.path}: rows of {table} and frames differ; {INVALID}")
            columns = [
                pc.list_flatten(rows[name]).to_numpy().reshape(len(rows), -1)
                if table == "embeddings"
                else pc.fill_null(rows[name], NO_SCORE).to_numpy()
                for name in rows.column_names
                if name not in KEYS
            ]
            values = np.column_stack(columns)
        if not np.isfinite(values.sum(dtype=float)):  # finite only if all terms are
            raise InputError(f"{self.path}: a value of {table} is not finite; {INVALID}")
        return values


class Pair:
    """Two datasets.

    Attributes:
        ids: ids of all tracks: OLD's, in its order, then those that only NEW has. The place of an
            id is the number of the track.
        is_common: tracks of both datasets, bool `[T]`.
        matches: of each split of OLD and each of NEW their names, the keys of common rows, and the
            places of these rows in OLD and in NEW.
        others: keys of the other rows of OLD, and of NEW.
    """

    def __init__(self, old: Side, new: Side) -> None:
        self.old, self.new = old, new
        self.ids = pa.concat_arrays([old.ids, new.ids]).unique()
        shared = [pc.is_in(self.ids, value_set=side.ids) for side in (old, new)]
        self.is_common = pc.and_(*shared).to_numpy(zero_copy_only=False)
        keys = [{s: each.keys(s, self.ids) for s in each.dataset.splits} for each in (old, new)]
        self.matches = [
            (one, other, *np.intersect1d(a, b, assume_unique=True, return_indices=True))
            for (one, a), (other, b) in itertools.product(*(each.items() for each in keys))
        ]
        common = np.concatenate([np.empty(0, int), *(match[2] for match in self.matches)])
        whole = (np.concatenate([np.empty(0, int), *each.values()]) for each in keys)
        self.others = [np.setdiff1d(each, common, assume_unique=True) for each in whole]

    def common_rows(self, table: str) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield keys `[n]` of common rows and their values in OLD and in NEW, `[columns, n]`."""
        for one, other, keys, *places in self.matches:
            if len(keys):
                old, new = self.old.values(table, one), self.new.values(table, other)
                for k in range(0, len(keys), BLOCK_ROWS):
                    in_old, in_new = (each[k : k + BLOCK_ROWS] for each in places)
                    yield keys[k : k + BLOCK_ROWS], old[in_old].T, new[in_new].T


class _FrameTotals:
    """Sums over the common frames, by output and by number of the track."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        outputs = pair.old.dataset.outputs
        self._num, self._names = len(outputs.emotions), (*outputs.emotions, *outputs.values)
        self.argmax = np.zeros((self._num, self._num), int)
        self.terms = np.zeros(self._num)
        self.absolute, self.largest = np.zeros((2, len(self._names)))
        self.where: dict[str, Any] | None = None  # the largest change
        self.tracks = np.zeros(len(pair.ids), BY_TRACK)
        for block in pair.common_rows("frames"):
            self._add(*block)
        self.tracks["divergence"] /= np.maximum(self.tracks["frames"], 1)  # means from here on
        # Common tracks whose grid points differ, by id.
        self.other: dict[str, dict[str, Any]] = {}
        sides = zip(("removed", "added"), (pair.old, pair.new), pair.others, strict=True)
        for change, side, keys in sides:
            keys = keys[pair.is_common[keys >> 32]]
            ids = pair.ids.take(pa.array(keys >> 32)).to_pylist()
            for track_id, index in zip(ids, _grid_points(keys, side), strict=True):
                start = {"track_id": track_id, "added": [], "removed": []}
                self.other.setdefault(track_id, start)[change].append(index)

    def _add(self, keys: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
        old_top, new_top = (values[: self._num].argmax(axis=0) for values in (old, new))
        self.argmax += confusion_matrix(old_top, new_top, self._num)
        np.add.at(self.tracks["frames"], keys >> 32, 1)
        np.add.at(self.tracks["argmax_flips"], keys[old_top != new_top] >> 32, 1)
        if not (changed := (old != new).any(axis=0)).any():
            return
        keys, old, new = keys[changed], old[:, changed].astype(float), new[:, changed].astype(float)
        tracks, change = keys >> 32, np.abs(new - old)
        terms, largest = _kl_terms(old[: self._num], new[: self._num]), change.max(axis=0)
        self.terms += terms.sum(axis=1)
        self.absolute += change.sum(axis=1)
        np.add.at(self.tracks["changed"], tracks, 1)
        np.add.at(self.tracks["divergence"], tracks, terms.sum(axis=0))
        np.maximum.at(self.tracks["largest_change"], tracks, largest)
        if largest.max() > self.largest.max():
            row = int(largest.argmax())
            output = int(change[:, row].argmax())
            self.where = {
                "track_id": self._pair.ids[int(tracks[row])].as_py(),
                "frame_index": _grid_points(keys[[row]], self._pair.old)[0],
                "output": self._names[output],
                "old": float(old[output, row]),
                "new": float(new[output, row]),
            }
        self.largest = np.maximum(self.largest, change.max(axis=1))

    def changes(self) -> FrameChanges:
        tracks, common = self.tracks, int(self.argmax.sum())
        terms, means = ((sums / max(common, 1)).tolist() for sums in (self.terms, self.absolute))
        # A value has no term of the divergence.
        rows = itertools.zip_longest(terms, means, self.largest.tolist())
        keys = ("divergence", "mean_change", "largest_change")
        by_output = [dict(zip(keys, row if common else [None] * 3, strict=True)) for row in rows]
        changed = np.flatnonzero(tracks["changed"])
        order = np.lexsort([-tracks[key][changed] for key in ("largest_change", "divergence")])
        worst = changed[order[:NUM_WORST]]
        columns = {"track_id": self._pair.ids.take(pa.array(worst))}
        columns |= {name: pa.array(tracks[name][worst]) for name, _ in BY_TRACK}
        return FrameChanges(
            common=common,
            changed=int(tracks["changed"].sum()),
            argmax_flips=common - int(self.argmax.trace()),
            added=self._pair.new.header["frames"] - common,
            removed=self._pair.old.header["frames"] - common,
            argmax=self.argmax.tolist(),
            divergence=float((self.terms / common).sum()) if common else None,
            outputs=dict(zip(self._names, by_output, strict=True)),
            largest=self.where,
            worst_tracks=pa.table(columns).to_pylist(),
        )


def _grid_points(keys: np.ndarray, side: Side) -> list[int]:
    return ((keys & 0xFFFFFFFF) // side.manifest["step_ms"]).tolist()


def _kl_terms(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the terms of KL(softmax(old) || softmax(new)) of logits `[E, n]`, by emotion."""
    old, new = (x - x.max(axis=0) for x in (old, new))
    old, new = (x - np.log(np.exp(x).sum(axis=0)) for x in (old, new))
    return np.exp(old) * (old - new)


def _track_changes(pair: Pair, other: dict[str, dict[str, Any]]) -> TrackChanges:
    columns, common = pair.old.dataset.columns, pair.ids.filter(pa.array(pair.is_common))
    old, new = (
        side.tracks.take(pc.index_in(common, value_set=side.ids)) for side in (pair.old, pair.new)
    )
    splits = {"track_id": old["track_id"], "old": old["split"], "new": new["split"]}
    moved = pa.array(_differs(old, new, "split"))
    values = {n: _differs(old, new, n) for n in old.column_names if n not in NOT_COMPARED}
    # These may differ if the frames of a track do.
    is_other = pc.is_in(common, pa.array(other, pa.string())).to_numpy(zero_copy_only=False)
    for name in ("n_expected", "majority", *columns.maxima, *columns.means):
        values[name] &= ~is_other
    ids = [set(side.ids.to_pylist()) for side in (pair.old, pair.new)]
    return TrackChanges(
        common=len(common),
        added=sorted(ids[1] - ids[0]),
        removed=sorted(ids[0] - ids[1]),
        moved=pa.table(splits).filter(moved).sort_by("track_id").to_pylist(),
        other_frames=[other[track_id] for track_id in sorted(other)],
        values={name: int(differs.sum()) for name, differs in values.items() if differs.any()},
    )


def _differs(old: pa.Table, new: pa.Table, column: str) -> np.ndarray:
    """Return True for rows whose value in a column differs, bool `[T]`; null equals null."""
    one, other = old[column], new[column]
    nulls = pc.not_equal(pc.is_null(one), pc.is_null(other))
    return pc.coalesce(pc.not_equal(one, other), nulls).to_numpy()


def _count_changed(pair: Pair, table: str) -> int | None:
    if not (table in pair.old.tables and table in pair.new.tables):
        return None
    rows = pair.common_rows(table)  # embeddings may differ in length
    return sum(int((a != b).any(0).sum()) if len(a) == len(b) else a.shape[1] for _, a, b in rows)


def find_bump(pair: Pair, difference: Difference) -> Bump:
    """Return the lowest bump that the differences allow, with its reasons."""
    old, new, files = difference.old, difference.new, difference.files
    major = ["step_ms differs"] if old["step_ms"] != new["step_ms"] else []
    major += ["teacher differs"] if _other_teacher(old["teacher"], new["teacher"]) else []
    major += [f"table {table} removed" for table in pair.old.tables if table not in pair.new.tables]
    major += _counted(difference.changes, "major")
    minor = [f"table {table} added" for table in pair.new.tables if table not in pair.old.tables]
    minor += _counted(difference.changes, "minor")
    patch = [f"{key} differs" for key in ("name", "teacher") if old[key] != new[key]]
    patch += [f"files that differ: {', '.join(files)}"] if files else []
    found = dict(zip(RULE, (major, minor, patch, []), strict=True))
    level = next((level for level, reasons in found.items() if reasons), "none")
    reasons = found[level]
    before, after = (parse_version(str(side["version"])) for side in (old, new))
    if before is None:
        return Bump(level, reasons, None, None)
    place = [*RULE].index(level)
    least = before if level == "none" else (*before[:place], before[place] + 1, 0, 0)[:3]
    enough = None if after is None else after >= least
    return Bump(level, reasons, ".".join(map(str, least)), enough)


def _other_teacher(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Return True for another name or checksum; an unknown checksum equals any."""
    known = [(teacher or {}).get("sha256") for teacher in (old, new)]
    names = [(teacher or {}).get("name") for teacher in (old, new)]
    return names[0] != names[1] or (all(known) and known[0] != known[1])


def _counted(changes: list[Change], level: str) -> list[str]:
    found = (change for change in changes if change.bump == level and change.count)
    tables = itertools.groupby(found, lambda change: change.table)
    return [f"{t}: {', '.join(f'{c.count:,} {c.change}' for c in some)}" for t, some in tables]
