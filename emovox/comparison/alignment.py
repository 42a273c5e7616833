"""Common rows of two datasets, side by side."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.dataset import schema
from emovox.dataset.json_schemas import tables_of
from emovox.dataset.reader import load
from emovox.errors import InputError

KEYS = ("track_id", "frame_index", "timestamp_ms")  # columns that are not compared
HEADER = ("name", "version", "schema_version", "emotions", "values", "step_ms", "teacher")
NO_SCORE = -1  # in place of null; detectors give scores from 0 to 1
BLOCK_ROWS = 2**16  # of all columns in memory as float64
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
