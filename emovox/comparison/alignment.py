"""Common rows of two datasets, side by side, one row group of each at a time."""

import itertools
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.dataset import schema
from emovox.dataset.json_schemas import tables_of
from emovox.dataset.reader import load
from emovox.dataset.store import open_table, reading
from emovox.errors import InputError

KEYS = ("track_id", "frame_index", "timestamp_ms")  # columns that are not compared
HEADER = ("name", "version", "schema_version", "emotions", "values", "step_ms", "teacher")
NO_SCORE = -1  # in place of null; detectors give scores from 0 to 1
INVALID = "run `emovox validate` for details"


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


class Part:
    """A table of one split; InputError if its rows contradict the table of tracks.

    Attributes:
        keys: of all rows, int64 `[n]`: the place of the track in `ids`, and in the last 32 bits the
            time in ms.
        is_common: rows of both datasets, bool `[n]`; `common_rows` finds them.
        starts: first row of each row group, and the number of rows.
    """

    def __init__(self, side: Side, table: str, split: str, ids: pa.Array) -> None:
        path, tracks = schema.table_file(table, split), side.dataset.tracks[split]
        self._path = side.path / path
        with reading(self._path):
            self._file = open_table(self._path)
        found = self._file.schema_arrow
        wanted = side.dataset.columns.of(table, schema.embedding_size(found))
        if found.names != wanted.names or found.types[1:] != wanted.types[1:]:
            raise InputError(f"{self._path}: columns differ from the contract; {INVALID}")
        self._columns = [name for name in wanted.names if name not in KEYS]
        with reading(self._path):
            rows = self._file.read(["track_id", "frame_index"])
        groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
        self.starts = np.cumsum([0, *(group.num_rows for group in groups)])
        owners = rows["track_id"].unify_dictionaries().combine_chunks()
        starts = np.flatnonzero(np.diff(owners.indices.to_numpy(), prepend=-1))
        counts = np.diff(starts, append=len(owners))
        runs = {"track_id": owners.take(pa.array(starts)), "row_offset": starts, "n_frames": counts}
        if any(tracks[name].to_pylist() != values.tolist() for name, values in runs.items()):
            raise InputError(f"{self._path}: rows differ from the table tracks; {INVALID}")
        step_ms = side.manifest["step_ms"]
        index = rows["frame_index"].fill_null(-1).to_numpy().astype(int)
        steps = np.diff(index, prepend=-1)
        steps[starts] = index[starts] + 1
        if (steps <= 0).any() or index.max(initial=0) > schema.max_frame_index(step_ms):
            raise InputError(f"{self._path}: frame_index is not sorted or too large; {INVALID}")
        numbers = pc.index_in(tracks["track_id"], value_set=ids).to_numpy().astype(int)
        self.keys = (np.repeat(numbers, counts) << 32) + index * step_ms
        self.is_common = np.zeros(len(index), bool)
        self._read = lru_cache(maxsize=1)(self._read_group)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the values `[columns, n]` of rows of one row group; InputError if one is wrong."""
        group = int(np.searchsorted(self.starts, rows[0], "right")) - 1
        return np.take(self._read(group), rows - self.starts[group], axis=1)

    def _read_group(self, group: int) -> np.ndarray:
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


class Pair:
    """Two datasets.

    Attributes:
        ids: ids of all tracks: OLD's, in its order, then those that only NEW has. The place of an
            id is the number of the track.
        is_common: tracks of both datasets, bool `[T]`.
    """

    def __init__(self, old: Side, new: Side) -> None:
        self.old, self.new = old, new
        self.ids = pa.concat_arrays([old.ids, new.ids]).unique()
        shared = [pc.is_in(self.ids, value_set=side.ids) for side in (old, new)]
        self.is_common = pc.and_(*shared).to_numpy(zero_copy_only=False)

    def parts(self, table: str) -> list[list[Part]]:
        """Return the parts of a table in OLD and in NEW."""
        return [
            [Part(side, table, split, self.ids) for split in side.dataset.splits]
            for side in (self.old, self.new)
        ]


def common_rows(old: list[Part], new: list[Part]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the keys of common rows, `[n]`, and their values in OLD and in NEW, `[columns, n]`.

    The rows of a block are from one row group of each dataset.
    """
    for one, other in itertools.product(old, new):
        keys = np.append(one.keys, -1)  # of a row behind the last; no row has this key
        for start, end in itertools.pairwise(other.starts):
            rows = start + np.flatnonzero(~other.is_common[start:end])
            places = np.searchsorted(one.keys, other.keys[rows])
            found = keys[places] == other.keys[rows]
            pairs = np.stack([places[found], rows[found]])
            one.is_common[pairs[0]] = other.is_common[pairs[1]] = True
            groups = np.searchsorted(one.starts, pairs[0], "right")
            for block in np.split(pairs, np.flatnonzero(np.diff(groups)) + 1, axis=1):
                if block.size:
                    yield one.keys[block[0]], one.take(block[0]), other.take(block[1])
