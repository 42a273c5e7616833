"""Read any dataset of the contract: tables as Arrow, logits of single tracks at once.

Parquet and HDF5 do not give fast access to one track of a hundred thousand. The first access to a
split unpacks its logits into the cache, under their content hash; from then on they are
memory-mapped, so that worker processes share them.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.json_schemas import listed_hash, outputs_of, read_manifest
from emovox.dataset.mmap_cache import Arrays, hash_names, open_arrays
from emovox.dataset.names import POOLS, TIMINGS
from emovox.dataset.store import ContentHash, open_table, read_frames, read_rows, reading
from emovox.dataset.takedown import SplitView, own_list, read_list, view_without
from emovox.dataset.targets import grid_rows, legacy_rows, pool_rows
from emovox.errors import ConfigError, InputError, check_choice
from emovox.ids import parse_track_id
from emovox.packages import explained

CONTAINERS = ("parquet", "hdf5")

T = TypeVar("T")


@dataclass(frozen=True)
class TrackLogits:
    """One track and its logits."""

    # As in the table `tracks`
    track_id: str
    identity_id: str
    video_id: str
    split: str
    label: str
    # Float32 `[n, E]` in the order of the dataset's emotions; memory-mapped, read-only
    logits: np.ndarray
    # Float32 `[n, V]` in the order of the dataset's values; memory-mapped, read-only
    values: np.ndarray
    frame_index: np.ndarray  # int32 `[n]`, grid points
    times: np.ndarray  # float64 `[n]`, seconds from the start of the track

    def __repr__(self) -> str:
        counted = f"{len(self.times)} frames"
        return f"<TrackLogits {self.track_id}: {counted}, {self.split}, {self.label}>"


def load(
    path: str | os.PathLike[str],
    container: str = "parquet",
    takedown: str | os.PathLike[str] | None = None,
) -> "Dataset":
    """Open a dataset that was built, imported or downloaded.

    Args:
        path: folder of the dataset.
        container: `parquet`, or `hdf5` to read the frames from HDF5 files, if the dataset has them.
            The results are the same.
        takedown: list of identities to hide, by the SHA-256 of their ids. A takedown.txt in the
            folder is always applied.

    Raises:
        ConfigError: `container` is unknown.
        InputError: `path` is not a dataset of this version of the contract, or a list is
            unreadable.

    Example:
        >>> dataset = load("emovox-demo/dataset")  # of `emovox demo`
        >>> len(dataset), dataset.splits, dataset.step
        (96, ('train', 'heard_val', 'unheard_val'), 0.24)
        >>> track = next(iter(dataset))
        >>> track.track_id, track.logits.shape, track.times[:3].tolist()
        ('demo00/scene00x00/00001', (20, 8), [0.0, 0.24, 0.48])
    """
    return Dataset(path, container, () if takedown is None else read_list(takedown))


class Dataset:
    """A dataset on disk. Opening it reads the manifest only; tables are read when they are used.

    Iteration yields a `TrackLogits` per track, split by split; `len` is the number of tracks.
    Pickles as its path. Identities of a takedown list are hidden everywhere, as if the dataset had
    been made without them; opening then reads the tables `tracks` too.

    Attributes:
        path: folder.
        container: source of the frames, `parquet` or `hdf5`.
        takedown: hashes of the hidden identities, of all lists.
        manifest: content of manifest.json; its totals include hidden identities.
        name, version: of the dataset.
        outputs: names of its emotions and values.
        emotions, values: names of the logits and of the values, in order; often no values.
        columns: names and types of the columns of its tables.
        step: seconds between grid points.
        splits: splits with rows.
        tracks, frames: the tables `tracks` and `frames` of each split; read on first use.
    """

    tracks: Mapping[str, pa.Table]
    frames: Mapping[str, pa.Table]

    def __init__(
        self,
        path: str | os.PathLike[str],
        container: str = "parquet",
        takedown: Collection[str] = (),
    ) -> None:
        check_choice("container", container, CONTAINERS)
        self.path, self.container = Path(path), container
        self.manifest = read_manifest(self.path)
        self.name, self.version = str(self.manifest["name"]), str(self.manifest["version"])
        self.outputs = outputs_of(self.manifest)
        self.emotions, self.values = self.outputs.emotions, self.outputs.values
        self.columns = schema.columns(self.outputs)
        self.step = self.manifest["step_ms"] / 1000
        by_split = self.manifest["totals"]["by_split"]
        self.splits = tuple(split for split in schema.SPLITS if split in by_split)
        self.takedown = own_list(self.path).union(takedown)
        self._views: dict[str, SplitView] = {}
        if self.takedown:
            self._hide()
        self.tracks = _BySplit(self, partial(self.read_table, "tracks"))
        self.frames = _BySplit(self, partial(self.read_table, "frames"))
        self._arrays = _BySplit(self, self._open_arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.path, self.container, self.takedown)

    def __repr__(self) -> str:
        num_hidden = sum(view.num_hidden_frames for view in self._views.values())
        return (
            f"<Dataset {self.name} {self.version}: {len(self):,} tracks, "
            f"{self.manifest['totals']['frames'] - num_hidden:,} frames, "
            f"{', '.join(self.splits) or 'empty'}>"
        )

    def __len__(self) -> int:
        num_hidden = sum(view.num_hidden_tracks for view in self._views.values())
        return int(self.manifest["totals"]["tracks"]) - num_hidden

    def __iter__(self) -> Iterator[TrackLogits]:
        for split in self.splits:
            for row in range(self.tracks[split].num_rows):
                yield self._track(split, row)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._rows

    def __getitem__(self, track_id: str) -> TrackLogits:
        return self._track(*self.find(track_id))

    def logits(self, track_id: str) -> np.ndarray:
        """Return a track's logits, float32 `[n, E]`, read-only; KeyError for an unknown track."""
        split, row = self.find(track_id)
        return self._arrays[split].outputs[self._span(split, row), : len(self.emotions)]

    def frame_index(self, track_id: str) -> np.ndarray:
        """Return the grid points of a track's rows, int32 `[n]`; KeyError for an unknown track."""
        split, row = self.find(track_id)
        return self._arrays[split].frame_index[self._span(split, row)]

    def times(self, track_id: str) -> np.ndarray:
        """Return the times of a track's rows in seconds, float64 `[n]`; KeyError if unknown."""
        return self.frame_index(track_id) * self.step

    def source(self, track_id: str) -> tuple[str | None, int | None, int | None]:
        """Return the columns source, start_ms and end_ms of a track; KeyError if unknown."""
        split, row = self.find(track_id)
        names = ("source", "start_ms", "end_ms")
        source, start, end = (self.tracks[split][name][row].as_py() for name in names)
        return source, start, end

    def target(
        self,
        track_id: str,
        start: float = 0.0,
        end: float = math.inf,
        pool: str = "max",
        timing: str = "grid",
    ) -> np.ndarray:
        """Pool the logits of a window of a track into one target, float32 `[E]`.

        Args:
            track_id: the track.
            start: seconds from the start of the track; a negative start means 0.
            end: seconds, after `start`; an end after the last row means the last row.
            pool: `max` of each emotion (paper, section 3.2), `mean`, or `peak`: the row with the
                largest single logit.
            timing: `grid`: row k covers [step k, step (k + 1)), and all rows that overlap the
                window count; if none does, the nearest. `legacy`: all rows from that of `start` to
                that of `end`, by the mapping of the reference code, which is one video frame late.

        Raises:
            KeyError: the track is unknown.
            ConfigError: `pool` or `timing` is unknown, `end` is not after `start`, or `timing` does
                not fit the step of the dataset.

        Example:
            >>> dataset = load("emovox-demo/dataset")
            >>> target = dataset.target("demo00/scene00x00/00001", 0.0, 0.48)
            >>> rows = dataset.logits("demo00/scene00x00/00001")[:2]  # at 0 and 0.24 s
            >>> np.array_equal(target, rows.max(axis=0))
            True
        """
        if timing == "legacy" and self.manifest["step_ms"] != schema.STEP_MS:
            raise ConfigError(
                f"timing 'legacy' requires a step of {schema.STEP_MS} ms; {self.path} has "
                f"{self.manifest['step_ms']} ms"
            )
        logits, index = self.logits(track_id), self.frame_index(track_id)
        check_choice("pool", pool, POOLS)
        check_choice("timing", timing, TIMINGS)
        if not end > start:
            raise ConfigError(f"window from {start} to {end} s: empty; pass an end after the start")
        if timing == "legacy":
            return pool_rows(logits[legacy_rows(start, end, len(logits))], pool)
        return pool_rows(logits[grid_rows(start / self.step, end / self.step, index)], pool)

    def to_pandas(self, table: str = "frames", split: str | None = None) -> Any:
        """Return the table `frames` or `tracks` as a pandas DataFrame, of one split or of all.

        Raises:
            ConfigError: the table or the split is unknown.
            MissingPackageError: pandas is not installed.
        """
        check_choice("table", table, ("frames", "tracks"))
        tables: Mapping[str, pa.Table] = getattr(self, table)
        chosen = [tables[s] for s in (self.splits if split is None else (split,))]
        with explained("to_pandas"):
            import pandas  # noqa: F401  pyarrow imports it and does not name its extra
        return pa.concat_tables([self.columns.of(table).empty_table(), *chosen]).to_pandas()

    def to_numpy(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits float32 `[N, E]` and grid points int32 `[N]` of a split; read-only.

        They are memory-mapped, unless a takedown list hides some of the stored rows. The rows of a
        track start at its `row_offset` in the table `tracks`.

        Raises:
            ConfigError: the split is unknown.
        """
        arrays = self._arrays[split]
        logits, index = arrays.outputs[:, : len(self.emotions)], arrays.frame_index
        if view := self._views.get(split):
            logits, index = logits[view.frames], index[view.frames]
            logits.setflags(write=False)
            index.setflags(write=False)
        return logits, index

    def embeddings(self, split: str) -> np.ndarray | None:
        """Return the teacher's embeddings of a split, float16 `[N, D]`; None if it has none.

        The rows are those of `to_numpy`. ConfigError if the split is unknown.
        """
        self.check_split(split)
        name = schema.table_file("embeddings", split)
        if all(file["path"] != name for file in self.manifest["files"]):
            return None
        column = self.read_table("embeddings", split)["embedding"].combine_chunks()
        return column.flatten().to_numpy().reshape(len(column), -1)

    def read_table(self, table: str, split: str) -> pa.Table:
        """Return a table of a split, such as `faces`; InputError if it is missing or damaged."""
        if table == "frames" and self.container == "hdf5":
            stored = pa.concat_tables(read_frames(self.path, split, "hdf5", self.outputs))
        else:
            stored = self._read(table, split)
        view = self._views.get(split)
        return stored if view is None else pa.concat_tables(view.select(table, [stored]))

    def check_split(self, split: str) -> None:
        """Raise ConfigError if a split has no rows."""
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise ConfigError(f"{self.path}: split {split!r} not found; pass one of {known}")

    def find(self, track_id: str) -> tuple[str, int]:
        """Return split and row of a track in the tables `tracks`; KeyError for an unknown track.

        Its number may have fewer digits: `ann/talk/1` is `ann/talk/00001`.
        """
        key = None if track_id in self._rows else parse_track_id(str(track_id))
        try:
            return self._rows[key.track_id if key else track_id]
        except KeyError:
            raise KeyError(f"{self.path}: track {track_id!r} not found") from None

    @cached_property
    def _rows(self) -> dict[str, tuple[str, int]]:
        return {
            track_id: (split, row)
            for split in self.splits
            for row, track_id in enumerate(self.tracks[split]["track_id"].to_pylist())
        }

    def _span(self, split: str, row: int) -> slice:
        """Return the stored rows of a track."""
        stored = self._views.get(split) or self._arrays[split]
        return slice(stored.starts[row], stored.ends[row])

    def _hide(self) -> None:
        """Find the views that hide the listed identities; drop splits without remaining tracks."""
        for split in self.splits:
            num_frames = self.manifest["totals"]["by_split"][split]["frames"]
            if view := view_without(self._read("tracks", split), num_frames, self.takedown):
                self._views[split] = view
        views = self._views
        self.splits = tuple(s for s in self.splits if s not in views or views[s].tracks.any())

    def _read(self, table: str, split: str) -> pa.Table:
        """Return a Parquet table as it is stored, hidden identities included."""
        name, size = schema.table_file(table, split), 0
        with reading(self.path / name, f" {table} of {split}"):
            if table == "embeddings":
                size = open_table(self.path / name).schema_arrow.field("embedding").type.list_size
            columns = self.columns.of(table, size)
            stored = read_rows(self.path / name, columns.names).cast(columns)
        if table != "frames":  # open_arrays checks those
            content = ContentHash(columns)
            content.update(stored)
            if content.hexdigest() != listed_hash(self.manifest, name):
                raise InputError(
                    f"{self.path}: {name} differs from {schema.MANIFEST}; "
                    f"run: emovox validate {self.path}"
                )
        return stored.replace_schema_metadata(None)

    def _open_arrays(self, split: str) -> Arrays:
        """Return the arrays of a split, after a check that its tracks belong to these rows."""
        arrays = open_arrays(self.path, split, self.container, self.manifest)
        # With hidden identities, the stored table has more rows than `self.tracks`.
        tracks = self._read("tracks", split) if split in self._views else self.tracks[split]
        starts, counts = (tracks[c].to_numpy() for c in ("row_offset", "n_frames"))
        if not (
            np.array_equal(starts, arrays.starts)
            and np.array_equal(starts + counts, arrays.ends)
            and np.array_equal(hash_names(tracks["track_id"].to_pylist()), arrays.names)
        ):
            raise InputError(
                f"{self.path}: the tracks of {split} do not belong to its frames; "
                f"run: emovox validate {self.path}"
            )
        return arrays

    def _track(self, split: str, row: int) -> TrackLogits:
        table, span, arrays = self.tracks[split], self._span(split, row), self._arrays[split]
        num = len(self.emotions)
        names = ("track_id", "identity_id", "video_id", "split", "label")
        return TrackLogits(
            **{name: table[name][row].as_py() for name in names},
            logits=arrays.outputs[span, :num],
            values=arrays.outputs[span, num:],
            frame_index=arrays.frame_index[span],
            times=arrays.frame_index[span] * self.step,
        )


class _BySplit(Mapping[str, T], Generic[T]):
    """A value for each split of a dataset, made on first use."""

    def __init__(self, dataset: Dataset, make: Callable[[str], T]) -> None:
        self._dataset, self._make = dataset, make
        self._made: dict[str, T] = {}

    def __getitem__(self, split: str) -> T:
        self._dataset.check_split(split)
        if split not in self._made:
            self._made[split] = self._make(split)
        return self._made[split]

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{split!r}: ...' for split in self)}}}"

    def __contains__(self, split: object) -> bool:
        return split in self._dataset.splits

    def __iter__(self) -> Iterator[str]:
        return iter(self._dataset.splits)

    def __len__(self) -> int:
        return len(self._dataset.splits)
