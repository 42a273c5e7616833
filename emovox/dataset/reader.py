"""Read any dataset of the contract: tables as Arrow, logits of any track at once.

Parquet and HDF5 are packed for storage, not for picking one track of a hundred thousand. The first
look into a split unpacks its logits once into the cache, named by their content hash; from then on
they are memory-mapped, so that worker processes share them.
"""

import importlib.util
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.mmap_cache import Arrays, frames_of, open_arrays
from emovox.dataset.names import POOLS, TIMINGS
from emovox.dataset.takedown import Kept, cut, cut_tracks, find_kept, own_list, read_list
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, InputError, MissingPackageError

CONTAINERS = ("parquet", "hdf5")
LEGACY_FPS, LEGACY_STEP = 25, 6  # video frames per second, and per grid point
ROUNDING = 1e-6  # of a grid step; a window's edge this close to a grid point lies on it


@dataclass(frozen=True)
class TrackLogits:
    """One track and its logits.

    Attributes:
        track_id, identity_id, video_id, split, label: as in the table `tracks`.
        logits: float32 `[n, 8]` in the order of `EMOTIONS`; memory-mapped, read-only.
        frame_index: int16 `[n]`, grid points.
        times: float64 `[n]`, seconds from the start of the track.
    """

    track_id: str
    identity_id: str
    video_id: str
    split: str
    label: str
    logits: np.ndarray
    frame_index: np.ndarray
    times: np.ndarray


def load(
    path: str | Path, container: str = "parquet", takedown: str | Path | None = None
) -> "Dataset":
    """Open a dataset: one built here, imported, or downloaded.

    Args:
        path: its folder.
        container: `parquet`, or `hdf5` to read frames from the HDF5 files of a dataset that has
            them. The answers are the same.
        takedown: list of identities, by the SHA-256 of their ids, that the dataset is to be read
            without. A takedown.txt in its folder counts in any case.

    Raises:
        ConfigError: unknown container.
        InputError: `path` is no dataset of this version of the contract, or a list cannot be read.

    Example:
        >>> dataset = load("emovox-demo/dataset")  # of `emovox demo`
        >>> len(dataset), dataset.splits, dataset.step
        (96, ('train', 'heard_val', 'unheard_val'), 0.24)
        >>> track = next(iter(dataset))
        >>> track.track_id, track.logits.shape, track.times[:3].tolist()
        ('demo00/scene00x00/00001', (20, 8), [0.0, 0.24, 0.48])
    """
    return Dataset(Path(path), container, read_list(Path(takedown)) if takedown else ())


class Dataset:
    """A dataset on disk. Opening it reads the manifest alone; tables follow when asked for.

    Iterating yields a `TrackLogits` per track, split after split; `len` is the number of tracks.
    Pickles as its path. Identities of a takedown list are nowhere to be found, as if it had been
    made without them; opening then reads the tables `tracks` to see whom that concerns.

    Attributes:
        path: folder.
        container: where frames are read from.
        takedown: hashes of the identities that are hidden, wherever they were listed.
        manifest: content of manifest.json; its totals count what is hidden, too.
        name, version: of the dataset.
        step: seconds between grid points.
        splits: those that have rows.
    """

    def __init__(
        self, path: Path, container: str = "parquet", takedown: Collection[str] = ()
    ) -> None:
        if container not in CONTAINERS:
            raise ConfigError(f"container {container!r} is not one of {', '.join(CONTAINERS)}")
        self.path, self.container = Path(path), container
        self.manifest = _read_manifest(self.path)
        self.name, self.version = str(self.manifest["name"]), str(self.manifest["version"])
        self.step = self.manifest["step_ms"] / 1000
        by_split = self.manifest["totals"]["by_split"]
        self.splits = tuple(split for split in schema.SPLITS if split in by_split)
        self.takedown = own_list(self.path).union(takedown)
        self._kept = self._find_kept() if self.takedown else {}
        self.splits = tuple(s for s in self.splits if s not in self._kept or self._kept[s].tracks)

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.path, self.container, self.takedown)

    def __repr__(self) -> str:
        num_hidden = sum(kept.num_frames for kept in self._kept.values())
        return (
            f"<Dataset {self.name} {self.version}: {len(self):,} tracks, "
            f"{self.manifest['totals']['frames'] - num_hidden:,} frames, "
            f"{', '.join(self.splits) or 'empty'}>"
        )

    def __len__(self) -> int:
        num_hidden = sum(kept.num_tracks for kept in self._kept.values())
        return int(self.manifest["totals"]["tracks"]) - num_hidden

    def __iter__(self) -> Iterator[TrackLogits]:
        for split in self.splits:
            for row in range(self.tracks[split].num_rows):
                yield self._track(split, row)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._rows

    def __getitem__(self, track_id: str) -> TrackLogits:
        return self._track(*self._find(track_id))

    @cached_property
    def tracks(self) -> Mapping[str, pa.Table]:
        """The table `tracks` of each split."""
        return _Tables(self, "tracks")

    @cached_property
    def frames(self) -> Mapping[str, pa.Table]:
        """The table `frames` of each split."""
        return _Tables(self, "frames")

    def logits(self, track_id: str) -> np.ndarray:
        """Logits float32 `[n, 8]` of a track; memory-mapped, read-only.

        Raises:
            KeyError: no such track.
        """
        split, row = self._find(track_id)
        return self._unpacked[split].logits[self._span(split, row)]

    def frame_index(self, track_id: str) -> np.ndarray:
        """Grid points int16 `[n]` of a track's rows; KeyError for no such track."""
        split, row = self._find(track_id)
        return self._unpacked[split].frame_index[self._span(split, row)]

    def times(self, track_id: str) -> np.ndarray:
        """Seconds float64 `[n]` of a track's rows, from its start; KeyError for no such track."""
        return self.frame_index(track_id) * self.step

    def target(
        self,
        track_id: str,
        start: float = 0.0,
        end: float = math.inf,
        pool: str = "max",
        timing: str = "grid",
    ) -> np.ndarray:
        """Pool the logits of a stretch of a track into one target, float32 `[8]`.

        Args:
            track_id: of the track.
            start: seconds from the start of the track; what lies before it counts as 0.
            end: seconds, after `start`; beyond the last row means up to it.
            pool: `max` of each emotion (paper, section 3.2), `mean`, or `peak`: the row that holds
                the largest single logit.
            timing: `grid`: row k covers [step k, step (k + 1)), and every row that meets the
                stretch counts. `legacy`: the rows from that of `start` to that of `end`, by the
                mapping of the reference code, which is one video frame late. A stretch without
                rows takes the nearest one.

        Raises:
            KeyError: no such track.
            ConfigError: an unknown pool or timing, or `end` not after `start`.

        Example:
            >>> dataset = load("emovox-demo/dataset")
            >>> target = dataset.target("demo00/scene00x00/00001", 0.0, 0.48)
            >>> rows = dataset.logits("demo00/scene00x00/00001")[:2]  # at 0 and 0.24 s
            >>> np.array_equal(target, rows.max(axis=0))
            True
        """
        if pool not in POOLS:
            raise ConfigError(f"pool {pool!r} is not one of {', '.join(POOLS)}")
        if timing not in TIMINGS:
            raise ConfigError(f"timing {timing!r} is not one of {', '.join(TIMINGS)}")
        if not end > start:
            raise ConfigError(f"a stretch from {start} to {end} s is empty")
        logits = self.logits(track_id)
        if timing == "legacy" and self.manifest["step_ms"] != schema.STEP_MS:
            raise ConfigError(
                f"timing legacy knows steps of {schema.STEP_MS} ms only; {self.path} has "
                f"{self.manifest['step_ms']}"
            )
        if timing == "legacy":
            rows = _legacy_rows(start, end, len(logits))
        else:
            rows = _grid_rows(start / self.step, end / self.step, self.frame_index(track_id))
        chosen = logits[rows]
        if pool == "peak":
            return np.array(chosen[chosen.max(axis=1).argmax()])
        return np.asarray(chosen.max(axis=0) if pool == "max" else chosen.mean(axis=0))

    def to_pandas(self, table: str = "frames", split: str | None = None) -> Any:
        """One table as a pandas DataFrame, of one split or of all; needs pandas.

        Raises:
            ConfigError: no such table or split.
            MissingPackageError: pandas is not installed.
        """
        if table not in ("frames", "tracks"):
            raise ConfigError(f"table {table!r} is not one of frames, tracks")
        tables: Mapping[str, pa.Table] = getattr(self, table)
        chosen = [tables[s] for s in (self.splits if split is None else (split,))]
        if importlib.util.find_spec("pandas") is None:
            raise MissingPackageError("to_pandas: pandas is not installed; run: pip install pandas")
        return pa.concat_tables([schema.SCHEMAS[table].empty_table(), *chosen]).to_pandas()

    def to_numpy(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """All logits float32 `[N, 8]` and grid points int16 `[N]` of a split; read-only.

        Memory-mapped, unless a takedown list makes them other than the stored ones. A track's rows
        begin at its `row_offset` in the table `tracks`.

        Raises:
            ConfigError: no such split.
        """
        unpacked = self._unpacked[split]
        if split not in self._kept:
            return unpacked.logits, unpacked.frame_index
        return self._kept[split].rows(unpacked.logits), self._kept[split].rows(unpacked.frame_index)

    def check_split(self, split: str) -> None:
        """Raise ConfigError for a split that has no rows here."""
        if split not in self.splits:
            raise ConfigError(
                f"{self.path}: no split {split!r}; there are {', '.join(self.splits)}"
            )

    def _find(self, track_id: str) -> tuple[str, int]:
        try:
            return self._rows[track_id]
        except KeyError:
            raise KeyError(f"{self.path}: no track {track_id!r}") from None

    @cached_property
    def _rows(self) -> dict[str, tuple[str, int]]:
        """Split and row in its `tracks` of every track."""
        return {
            track_id: (split, row)
            for split in self.splits
            for row, track_id in enumerate(self.tracks[split]["track_id"].to_pylist())
        }

    @cached_property
    def _bounds(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each split, where its tracks begin and end in the stored rows: int64 `[T]` each."""
        bounds = {split: (kept.starts, kept.ends) for split, kept in self._kept.items()}
        for split in self.splits:
            if split not in bounds:
                starts = self.tracks[split]["row_offset"].to_numpy()
                bounds[split] = starts, np.append(starts[1:], self._num_stored(split))
        return bounds

    def _span(self, split: str, row: int) -> slice:
        starts, ends = self._bounds[split]
        return slice(starts[row], ends[row])

    def _num_stored(self, split: str) -> int:
        return int(self.manifest["totals"]["by_split"][split]["frames"])

    def _find_kept(self) -> dict[str, Kept]:
        """What the takedown list leaves of the splits that it touches."""
        stored = _Tables(self, "tracks")
        found = {
            split: find_kept(stored.load(split), self._num_stored(split), self.takedown)
            for split in self.splits
        }
        return {split: kept for split, kept in found.items() if kept}

    @cached_property
    def _unpacked(self) -> "_Unpacked":
        return _Unpacked(self)

    def _track(self, split: str, row: int) -> TrackLogits:
        table, span = self.tracks[split], self._span(split, row)
        frame_index = self._unpacked[split].frame_index[span]
        names = ("track_id", "identity_id", "video_id", "split", "label")
        return TrackLogits(
            **{name: table[name][row].as_py() for name in names},
            logits=self._unpacked[split].logits[span],
            frame_index=frame_index,
            times=frame_index * self.step,
        )


class _Tables(Mapping[str, pa.Table]):
    """One table of every split, read when it is first asked for."""

    def __init__(self, dataset: Dataset, table: str) -> None:
        self._dataset, self._table = dataset, table
        self._read: dict[str, pa.Table] = {}

    def __getitem__(self, split: str) -> pa.Table:
        self._dataset.check_split(split)
        if split not in self._read:
            self._read[split] = self._cut(split, self.load(split))
        return self._read[split]

    def _cut(self, split: str, stored: pa.Table) -> pa.Table:
        kept = self._dataset._kept.get(split)
        if kept is None:
            return stored
        if self._table == "tracks":
            return pa.concat_tables(cut_tracks([stored], kept.tracks))
        return pa.concat_tables(cut([stored], kept.frames))

    def load(self, split: str) -> pa.Table:
        """The table as it is stored."""
        path, columns = self._dataset.path, schema.SCHEMAS[self._table]
        if self._table == "frames" and self._dataset.container == "hdf5":
            return pa.concat_tables(frames_of(path, split, "hdf5"))
        try:
            file = path / schema.table_file(self._table, split)
            table = pq.read_table(file, memory_map=True, page_checksum_verification=True)
            table = table.select(columns.names).cast(columns)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{path}: {self._table} of {split}: {_one_line(error)}") from error
        return table.replace_schema_metadata(None)

    def __contains__(self, split: object) -> bool:
        return split in self._dataset.splits

    def __iter__(self) -> Iterator[str]:
        return iter(self._dataset.splits)

    def __len__(self) -> int:
        return len(self._dataset.splits)


class _Unpacked:
    """Memory-mapped logits and grid points of every split."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._open: dict[str, Arrays] = {}

    def __getitem__(self, split: str) -> Arrays:
        dataset = self._dataset
        dataset.check_split(split)
        if split not in self._open:
            self._open[split] = open_arrays(
                dataset.path, split, dataset.container, dataset.manifest
            )
        return self._open[split]


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / schema.MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version, emotions = manifest["schema_version"], manifest["emotions"]
        _ = manifest["name"], manifest["version"], manifest["step_ms"], manifest["files"]
        _ = manifest["totals"]["by_split"], manifest["totals"]["tracks"]
    except OSError as error:
        what = "is no dataset" if path.is_dir() else "no such folder"
        raise InputError(f"{path}: {what}: {schema.MANIFEST}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is no manifest of a dataset ({_one_line(error)})") from error
    if version != schema.SCHEMA_VERSION:
        raise InputError(
            f"{file}: version {version} of the contract; this emovox reads {schema.SCHEMA_VERSION}"
        )
    if emotions != list(EMOTIONS):
        raise InputError(f"{file}: emotions are {emotions}, expected {list(EMOTIONS)}")
    return manifest


def _grid_rows(first: float, last: float, frame_index: np.ndarray) -> slice:
    """Rows that meet a stretch given in grid steps; the nearest row if there are none."""
    low = math.floor(max(first + ROUNDING, 0))
    high = math.inf if math.isinf(last) else math.ceil(last - ROUNDING)
    start, stop = (int(np.searchsorted(frame_index, bound)) for bound in (low, high))
    if start < stop:
        return slice(start, stop)
    middle = (low + (low if math.isinf(high) else max(high - 1, 0))) / 2
    nearest = int(np.abs(frame_index - min(middle, int(frame_index[-1]))).argmin())
    return slice(nearest, nearest + 1)


def _legacy_rows(start: float, end: float, num_rows: int) -> slice:
    """The reference code's rows for a stretch in seconds, kept inside the track."""

    def row(time: float) -> int:
        if time == math.inf:
            return num_rows - 1
        frame = max(LEGACY_FPS * time - 1, 0)
        return min(math.floor(frame / LEGACY_STEP), num_rows - 1)

    return slice(row(start), row(end) + 1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
