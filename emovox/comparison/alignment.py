"""Rows of two datasets side by side, one row group of each at a time."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.dataset import schema
from emovox.dataset.json_schemas import listed_hash
from emovox.dataset.reader import load
from emovox.dataset.store import open_table, reading
from emovox.errors import InputError

KEYS = ("track_id", "frame_index", "timestamp_ms")  # columns that are not compared
HEADER = ("name", "version", "schema_version", "emotions", "values", "step_ms", "teacher")
NO_SCORE = -1  # in place of null; detectors give scores from 0 to 1
INVALID = "run `emovox validate` for details"


class Side:
    """One of the two datasets, with the tables of tracks of all its splits, concatenated.

    `split`, `offset` and `count`, `[T]`, are the split, the first row and the number of rows of
    each track; `files` has the entries of the manifest's `files`, by path.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.dataset = path, load(path)
        tables = [self.dataset.tracks[split] for split in self.dataset.splits]
        empty = self.dataset.columns.tracks.empty_table()
        self.tracks = pa.concat_tables([empty, *tables]).combine_chunks()
        sizes = [table.num_rows for table in tables]
        self.split = np.repeat(np.array(self.dataset.splits, str), sizes)
        self.ids = self.tracks["track_id"]
        if len(self.ids.unique()) != len(self.ids):
            raise InputError(f"{path}: a track_id occurs more than once; {INVALID}")
        self.offset, self.count = (self.tracks[c].to_numpy() for c in ("row_offset", "n_frames"))
        self.files = {file["path"]: file for file in self.dataset.manifest["files"]}

    @property
    def header(self) -> dict[str, Any]:
        """Description from the manifest, with the number of tracks and frames."""
        manifest = {key: self.dataset.manifest.get(key) for key in HEADER}
        return manifest | {"tracks": len(self.ids), "frames": int(self.count.sum())}

    def has(self, table: str) -> bool:
        """Return True if the dataset has a table."""
        return any(schema.table_file(table, split) in self.files for split in schema.SPLITS)

    def content(self, table: str, split: str) -> str | None:
        """Return the content hash of a split's table from the manifest."""
        return listed_hash(self.dataset.manifest, schema.table_file(table, split))


class Rows:
    """Grid points and values of one split's table; caches the row groups of the last read.

    Raises:
        InputError: the columns differ from the contract, or the runs of equal track_id are not the
            tracks of `tracks`.
    """

    def __init__(self, side: Side, table: str, split: str) -> None:
        self._path = side.path / schema.table_file(table, split)
        with reading(self._path):
            self._file = open_table(self._path)
        found = self._file.schema_arrow
        wanted = side.dataset.columns.of(table, schema.embedding_size(found))
        self._columns = ["frame_index", *(name for name in wanted.names if name not in KEYS)]
        if found.names != wanted.names or found.types[1:] != wanted.types[1:]:
            raise InputError(f"{self._path}: columns differ from the contract; {INVALID}")
        groups = range(self._file.num_row_groups)
        self._starts = np.cumsum([0, *(self._file.metadata.row_group(g).num_rows for g in groups)])
        self._group = lru_cache(maxsize=2)(self._values)
        with reading(self._path):
            column = self._file.read(["track_id"])["track_id"].unify_dictionaries()
        column, tracks = column.combine_chunks(), np.flatnonzero(side.split == split)
        starts = np.flatnonzero(np.diff(column.indices.to_numpy(), prepend=-1))
        same = np.array_equal(starts, side.offset[tracks])
        same &= np.array_equal(np.diff(starts, append=len(column)), side.count[tracks])
        ids = side.ids.take(pa.array(tracks)).to_pylist()
        if not same or column.take(pa.array(starts)).to_pylist() != ids:
            raise InputError(f"{self._path}: rows differ from the table tracks; {INVALID}")

    def read(self, offsets: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the rows of some tracks, concatenated: `[1 + columns, n]`, grid points first."""
        start, stop = int(offsets.min()), int((offsets + counts).max())
        first = int(np.searchsorted(self._starts, start, "right")) - 1
        last = int(np.searchsorted(self._starts, stop, "left"))
        groups = [self._group(group) for group in range(first, last)]
        ends = counts.cumsum()
        places = np.repeat(offsets - self._starts[first] - ends + counts, counts)
        places += np.arange(ends[-1])
        return np.take(np.concatenate(groups, axis=1) if groups[1:] else groups[0], places, axis=1)

    def _values(self, group: int) -> np.ndarray:
        with reading(self._path):
            rows = self._file.read_row_group(group, self._columns)
        nulls = any(rows[name].null_count for name in self._columns if name != "score")
        columns = [
            pc.list_flatten(column).to_numpy().reshape(rows.num_rows, -1).T
            if pa.types.is_fixed_size_list(column.type)
            else pc.fill_null(column, NO_SCORE).to_numpy()[None]
            for column in rows.columns
        ]
        values = np.concatenate(columns)
        if nulls or not np.isfinite(values).all():
            raise InputError(f"{self._path}: a value is null or not finite; {INVALID}")
        return values


@dataclass(frozen=True)
class Block:
    """Rows of some common tracks."""

    tracks: np.ndarray  # [T], indices among the common tracks
    owner: np.ndarray  # [n], position in `tracks` of each common row
    frame_index: np.ndarray  # [n], grid point of each common row in OLD
    old: np.ndarray  # [columns, n], values of the common rows
    new: np.ndarray
    added: np.ndarray  # [2, m], track index and grid point of rows in one dataset only
    removed: np.ndarray


class Pair:
    """Two datasets and their common tracks."""

    def __init__(self, old: Side, new: Side) -> None:
        self.old, self.new = old, new
        found = pc.index_in(old.ids, value_set=new.ids)
        # Rows of the common tracks in the tables of tracks, in OLD's order.
        self.in_old = np.flatnonzero(found.is_valid().to_numpy())
        self.in_new = found.drop_null().to_numpy().astype(int)
        self._rows = cache(Rows)

    def __len__(self) -> int:
        return len(self.in_old)

    def ids(self, numbers: Any) -> list[str]:
        """Return the ids of common tracks, by their index among them."""
        return self.old.ids.take(pa.array(self.in_old[numbers], pa.int64())).to_pylist()

    def blocks(self, table: str) -> Iterator[Block]:
        """Yield the rows of all common tracks, one row group of each dataset at a time."""
        splits = self.old.split[self.in_old], self.new.split[self.in_new]
        offsets = self.old.offset[self.in_old], self.new.offset[self.in_new]
        groups = np.stack(offsets) // schema.ROW_GROUP_ROWS
        for a, b in itertools.product(schema.SPLITS, repeat=2):
            chosen = np.flatnonzero((splits[0] == a) & (splits[1] == b))
            if len(chosen):
                old, new = self._rows(self.old, table, a), self._rows(self.new, table, b)
                content = self.old.content(table, a)
                if a == b and content is not None and content == self.new.content(table, a):
                    new = old
                # A block ends wherever a row group of either dataset begins.
                turns = np.flatnonzero(np.diff(groups[:, chosen]).any(axis=0))
                for tracks in np.split(chosen, turns + 1):
                    yield self._align(tracks, old, new)

    def _align(self, tracks: np.ndarray, old_rows: Rows, new_rows: Rows) -> Block:
        old_keys, old = _read(self.old, old_rows, self.in_old[tracks])
        new_keys, new = _read(self.new, new_rows, self.in_new[tracks])
        added = removed = np.zeros((2, 0), int)
        if not np.array_equal(old_keys, new_keys):
            both = np.isin(old_keys, new_keys, True), np.isin(new_keys, old_keys, True)
            removed, added = (
                np.stack([tracks[keys[~shared] >> 32], values[0, ~shared].astype(int)])
                for shared, keys, values in zip(both, (old_keys, new_keys), (old, new), strict=True)
            )
            old_keys, old, new = old_keys[both[0]], old[:, both[0]], new[:, both[1]]
        return Block(tracks, old_keys >> 32, old[0], old[1:], new[1:], added, removed)


def _read(side: Side, rows: Rows, tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys int `[n]` and values `[1 + columns, n]` of the rows of some tracks.

    A key is the position in `tracks`, shifted by 32 bits, plus the time in milliseconds.
    """
    counts = side.count[tracks]
    values = rows.read(side.offset[tracks], counts)
    owner = np.repeat(np.arange(len(tracks)), counts)
    keys = (owner << 32) + values[0].astype(int) * side.dataset.manifest["step_ms"]
    if (np.diff(keys) <= 0).any():
        track_id = side.ids[int(tracks[owner[1:][np.diff(keys) <= 0][0]])]
        raise InputError(f"{side.path}: frames of {track_id} are not sorted; {INVALID}")
    return keys, values
