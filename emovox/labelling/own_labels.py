"""Datasets of a user's own labels and values, for which no teacher ran."""

import contextlib
import hashlib
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.config import check_options, option, read_config
from emovox.corpus.splits import audit, auto_split
from emovox.dataset import schema
from emovox.dataset.names import parse_version
from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Chunk, Dropped, TrackRow
from emovox.dataset.store import embedding_array
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import Outputs, in_order
from emovox.errors import (
    CheckError,
    ConfigError,
    InputError,
    TrackError,
    first_line,
    without_secrets,
)
from emovox.files import check_vacant, new_folder
from emovox.ids import TrackKey, is_below, parse_track_id, printable
from emovox.media.grid import num_points
from emovox.packages import software

CHUNK_TRACKS = 4096
LABEL_LOGIT = 6.0  # of the labelled emotion; the others get 0
_refused = partial(TrackError, "labels")  # a track whose labels or times are wrong
ORIGIN = "Labels and values given by the maker of the dataset; no teacher was run on faces."


@dataclass(frozen=True)
class WriteConfig:
    """Options of `emovox.write_dataset`.

    Attributes:
        name: Name of the dataset.
        version: Version of the dataset.
        emotions: Names of the emotions, in order; none: the names that are found.
        values: Names of the values, in order; none: the names that are found.
        step_ms: Milliseconds between grid points.
        label_logit: Logit of the labelled emotion; the others get 0.
        teacher: Name of the source of the labels, for the manifest.
        origin: Sentence on the source of the labels, for the card.
        hdf5: Write HDF5 files in addition to Parquet.
        synthetic: Mark the dataset as synthetic in its card.
    """

    name: str = "labels"
    version: str = "1.0.0"
    emotions: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    step_ms: int = option(schema.STEP_MS, least=1, most=60_000)
    label_logit: float = option(LABEL_LOGIT, least=1e-3, most=100)
    teacher: str = "labels"
    origin: str = ORIGIN
    hdf5: bool = False
    synthetic: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("name", "version", "teacher", "origin"):
            object.__setattr__(self, name, without_secrets(getattr(self, name)))
        if parse_version(self.version) is None:
            raise ConfigError(f"version {self.version!r} is not of the form 1.0.0")


def write_dataset(
    out: str | os.PathLike[str],
    tracks: Any,
    frames: Any = None,
    config: WriteConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Dataset:
    """Write labels and values of one's own as a dataset of the contract, and open it.

    Tables are DataFrames, Arrow tables or mappings of columns. Logits come from columns
    `logit_<emotion>`, or from a column `label`. Emotions that are not given are those of the
    logits, or the labels that occur: the published ones in their order, then others by name. Tracks
    that cannot be used become rows of `dropped`; a warning counts them, another one names columns
    that are not read.

    Args:
        out: folder of the dataset, new or empty. It appears when it is complete.
        tracks: one row per track: `track_id` as `<identity>/<video>/<number>`. Optional: `split`
            (by default `auto`), `label`, `value_<name>`, `duration_ms`, `n_expected`, and the
            interval of the media file as `source`, `start_ms`, `end_ms`, `sound_offset_ms`.
        frames: one row per grid point: `track_id`, and `frame_index` or `timestamp_ms`. Optional:
            logits or a `label`, `value_<name>`, all columns of the table `faces`, and `embedding`,
            a list of numbers. Without it, each grid point of a track gets the label and values of
            the track; a track of unknown duration gets one row.
        config: options, or path or name of a recipe.
        **options: fields of `WriteConfig`, which override `config`.

    Raises:
        ConfigError: an option or a name is not valid.
        InputError: `out` is not empty, or a table lacks a column or has values of another type.
        CheckError: no track can be used, or the split leaks.

    Example:
        >>> tracks = {"track_id": ["ann/talk/1", "bob/talk/1"], "label": ["happiness", "anger"]}
        >>> dataset = write_dataset("own", tracks, name="own", emotions=("happiness", "anger"))
        >>> dataset["ann/talk/00001"].logits.tolist(), dataset["ann/talk/00001"].label
        ([[6.0, 0.0]], 'happiness')
    """
    config, out = read_config(WriteConfig, config, options), Path(out)
    check_vacant(out)
    given, points = _arrow(tracks, "tracks"), None if frames is None else _arrow(frames, "frames")
    labels = _Labels(given, points, config)
    dropped, first = labels.dropped, ""
    if dropped:
        first = f"; the first: {dropped[0].track_id}: {dropped[0].message}"
    if not any(labels.tracks.values()):
        raise CheckError(f"tracks: no usable track{first}")
    teacher = {"name": printable(config.teacher), "sha256": None}
    info = DatasetInfo(
        name=printable(config.name),
        version=printable(config.version),
        step_ms=config.step_ms,
        teacher=teacher,
        provenance={
            **software("numpy", "pyarrow", "h5py"),
            "origin": config.origin,
            "config": asdict(config) | asdict(labels.outputs),
            "teacher": teacher,
            "source_fingerprint": labels.fingerprint(),
        },
        tables=tuple(labels.tables),
        outputs=labels.outputs,
    )
    with new_folder(out.resolve(), "writing") as building:
        write_chunks(building, labels.chunks(), dropped, info, hdf5=config.hdf5)
    if labels.unread:
        warnings.warn(f"columns that are not read: {', '.join(labels.unread)}", stacklevel=2)
    if dropped:
        why = f"{len(dropped):,} of {len(given):,} tracks are in dropped.parquet{first}"
        warnings.warn(f"{out}: {why}", stacklevel=2)
    return load(out)


def _arrow(data: Any, what: str) -> pa.Table:
    """Return a table that the caller gave as Arrow; integer column names become text."""
    try:
        table = pa.table(dict(data) if isinstance(data, Mapping) else data)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{what}: not a table ({first_line(error)})") from error
    if "track_id" not in table.column_names:
        raise InputError(f"{what}: the column track_id is missing")
    return table


class _Labels:
    """Usable tracks with their labels, and the dropped ones."""

    def __init__(self, given: pa.Table, frames: pa.Table | None, config: WriteConfig) -> None:
        self._frames, self._step = frames, config.step_ms
        labelled = given if frames is None else frames
        # Names of the tables that the dataset gets; numbers per embedding, 0 without embeddings.
        self.tables, self.embedding_size = _find_tables(frames)
        values = config.values or _names(labelled, "value_")
        self.outputs = Outputs.of(config.emotions or _find_emotions(labelled), values)
        self._columns = schema.columns(self.outputs)
        self._labelled = labelled
        self._output = _read_outputs(labelled, self._columns, config.label_logit)
        known = {*self._columns.frames.names, *self._columns.tracks.names, *schema.FACES.names}
        self.unread = [  # their names may be mistakes
            printable(name)
            for name in given.column_names + (frames.column_names if frames is not None else [])
            if name not in known and name != "embedding"
        ]
        if frames is None:
            owner, self._index = np.arange(len(given)), np.zeros(len(given), np.int64)
        else:
            owner, self._index = _find_owners(frames, given), _read_index(frames, self._step)
        self._order = np.lexsort((self._index, owner))
        bounds = np.searchsorted(owner[self._order], np.arange(len(given) + 1))
        self._rows: dict[str, np.ndarray] = {}  # labelled rows of each track, by grid point
        # Sorted rows of `tracks`, by split.
        self.tracks: dict[str, list[TrackRow]] = {split: [] for split in schema.SPLITS}
        self.dropped: list[Dropped] = []
        self._find_tracks(given.to_pylist(), bounds)

    def _find_tracks(self, given: list[dict[str, Any]], bounds: np.ndarray) -> None:
        places: dict[TrackKey, int] = {}
        usable: list[tuple[TrackRow, str | None]] = []
        for place, row in enumerate(given):
            name, split = str(row["track_id"]), row.get("split") or None
            try:
                if (key := parse_track_id(name)) is None:
                    message = "track_id is not <identity>/<video>/<number>"
                    raise TrackError("plan", "BadName", message)
                key.check()
                if (first := places.setdefault(key, place)) != place:
                    message = f"row {first} has the same track_id and comes first"
                    raise TrackError("plan", "DuplicateTrack", message)
                name = key.track_id
                self._rows[name] = self._order[bounds[place] : bounds[place + 1]]
                track = self._track(key, row)
                if split not in (None, *schema.SPLITS):
                    message = f"split {split!r} is not one of {', '.join(schema.SPLITS)}"
                    raise TrackError("split", "NoSplit", message)
                usable.append((track, split))
            except TrackError as error:
                source = str(row.get("source") or "")
                self.dropped.append(Dropped.of(name, source if is_below(source) else "", error))
        auto = auto_split(places)
        assigned = {track.track_id: split or auto[track.track_id] for track, split in usable}
        audit((track.key for track, _ in usable), assigned)
        for track, _ in sorted(usable, key=lambda pair: pair[0].track_id):
            self.tracks[assigned[track.track_id]].append(track)

    def _track(self, key: TrackKey, row: Mapping[str, Any]) -> TrackRow:
        rows = self._rows[key.track_id]
        if not len(rows):
            raise _refused("NoFrames", "frames has no row of it")
        if len(bad := np.argwhere(~np.isfinite(self._output[rows]))):
            raise _refused("BadLabel", self._fault(int(rows[bad[0, 0]]), bad[0, 1]))
        index, most = self._index[rows], schema.max_frame_index(self._step)
        if index[0] < 0 or index[-1] > most or (np.diff(index) == 0).any():
            raise _refused("BadIndex", f"a frame_index is negative, above {most:,} or occurs twice")
        times = ("duration_ms", "start_ms", "end_ms", "n_expected")
        duration, start, end, expected = (_whole(row, name) for name in times)
        if start is not None and end is not None and duration is None:
            duration = end - start
        if (duration is not None and duration < 0) or (start is None) != (end is None):
            raise _refused("BadTime", "start_ms and end_ms hold no time, or one of them is missing")
        if duration is not None and (last := int(index[-1]) * self._step) > duration:
            raise _refused("BadTime", f"its frame at {last} ms is past its end at {duration} ms")
        if expected is None:
            known = 1 if duration is None else num_points(duration, self._step)
            expected = max(int(index[-1]) + 1, known)
        count = expected if self._frames is None else len(rows)
        source = row.get("source") and printable(without_secrets(str(row["source"])))
        if source and not is_below(source):
            raise _refused("BadSource", "source is not a path below a folder")
        offset = _number(row, "sound_offset_ms")
        return TrackRow(key, count, expected, duration, source, start, end, offset)

    def _fault(self, row: int, column: int) -> str:
        """Return what is wrong with an output of a labelled row."""
        name = self._columns.frames.names[3 + column]
        if name not in self._labelled.column_names:
            return f"label {self._labelled['label'][row].as_py()!r} is not one of the emotions"
        return f"{name} is {self._labelled[name][row].as_py()!r}, not a finite number"

    def fingerprint(self) -> str:
        whole = hashlib.sha256()
        for part in (self._output, self._index, self._order):
            whole.update(part.tobytes())
        for track_id in sorted(self._rows):
            whole.update(f"{track_id}\n".encode())
        return whole.hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        for split, of_split in self.tracks.items():
            for start in range(0, len(of_split), CHUNK_TRACKS):
                tracks = of_split[start : start + CHUNK_TRACKS]
                rows = np.concatenate([self._rows[track.track_id] for track in tracks])
                index = self._index[rows]
                if self._frames is None:
                    rows = rows.repeat([track.n_frames for track in tracks])
                    index = np.concatenate([np.arange(track.n_frames) for track in tracks])
                table = frame_table(tracks, index, self._output[rows], self._step, self._columns)
                yield Chunk(split, tracks, self._with_others(table, rows))

    def _with_others(self, table: pa.Table, rows: np.ndarray) -> pa.Table:
        if self._frames is None:
            return table
        for field in list(schema.FACES)[2:] if "faces" in self.tables else []:
            column = self._frames[field.name].take(pa.array(rows))
            table = table.append_column(field, column.cast(field.type))
        if "embeddings" in self.tables:
            field = self._columns.of("embeddings", self.embedding_size).field("embedding")
            column = self._frames["embedding"].take(pa.array(rows))
            numbers = pc.list_flatten(column).to_numpy().reshape(len(rows), -1)
            table = table.append_column(field, embedding_array(numbers))
        return table


def frame_table(
    tracks: list[TrackRow], index: np.ndarray, rows: np.ndarray, step: int, columns: schema.Columns
) -> pa.Table:
    """Return the rows of `frames` of some tracks, one after the other.

    `index` has the `frame_index` of every row, `rows` its logits and values, float32 `[n, E + V]`;
    `step` is in milliseconds.
    """
    ids = pa.array([track.track_id for track in tracks], pa.string())
    track_of_row = np.repeat(np.arange(len(tracks)), [track.n_frames for track in tracks])
    found = [ids.take(pa.array(track_of_row)), index, index * step]
    found += [*np.ascontiguousarray(rows.T)]
    arrays = [pa.array(c, f.type) for c, f in zip(found, columns.frames, strict=True)]
    return pa.Table.from_arrays(arrays, schema=columns.frames)


def _names(table: pa.Table, prefix: str) -> list[str]:
    return [n.removeprefix(prefix) for n in table.column_names if n.startswith(prefix)]


def _find_tables(frames: pa.Table | None) -> tuple[list[str], int]:
    """Return the names of the tables that can be written, and the size of the embeddings."""
    tables, size = ["frames", "tracks"], 0
    if frames is None:
        return tables, size
    names = set(frames.column_names)
    if not {"frame_index", "timestamp_ms"} & names:
        raise InputError("frames: a column frame_index or timestamp_ms is missing")
    if names.issuperset(schema.FACES.names[2:]):
        tables.append("faces")
    if "embedding" in names:
        tables.append("embeddings")
        try:
            sizes = pc.unique(pc.list_value_length(frames["embedding"])).to_pylist()
        except pa.ArrowException as error:
            raise InputError("frames: embedding is not a column of lists") from error
        if len(sizes) != 1 or not sizes[0]:
            raise InputError(f"frames: embeddings have the sizes {sizes}; use one size for all")
        size = int(sizes[0])
    return tables, size


def _find_emotions(table: pa.Table) -> list[str]:
    if names := _names(table, "logit_"):
        return names
    if "label" not in table.column_names:
        raise InputError("labels: neither columns logit_<emotion> nor a column label found")
    return in_order(str(label) for label in table["label"].unique().to_pylist() if label)


def _read_outputs(table: pa.Table, columns: schema.Columns, label_logit: float) -> np.ndarray:
    """Return the logits and values of all rows, float32 `[n, E + V]`; NaN where missing."""
    names, labels = columns.values, []
    if _names(table, "logit_"):
        names = columns.logits + names
        if "label" in table.column_names:
            raise InputError("labels: both label and logit_<emotion> found; remove one of them")
    else:
        emotions = columns.outputs.emotions
        codes = pc.index_in(table["label"].cast(pa.string()), pa.array(emotions)).to_numpy()
        logits = label_logit * (codes[:, None] == np.arange(len(emotions)))
        labels = [*np.where(np.isfinite(codes), logits.T, np.nan)]
    if missing := [name for name in names if name not in table.column_names]:
        raise InputError(f"labels: the column {missing[0]} is missing")
    numbers = [*labels, *(_numbers(table, name) for name in names)]
    return np.stack(numbers, axis=1, dtype=np.float32, casting="same_kind")


def _find_owners(frames: pa.Table, tracks: pa.Table) -> np.ndarray:
    """Return the row in `tracks` of each row of `frames`; of equal tracks, the first."""
    ids = tracks["track_id"].to_pylist()
    places = {track_id: place for place, track_id in reversed([*enumerate(ids)])}
    owners = [places.get(track_id, -1) for track_id in frames["track_id"].to_pylist()]
    if -1 in owners:
        unknown = frames["track_id"][owners.index(-1)].as_py()
        raise InputError(f"frames: track_id {printable(str(unknown))!r} is not in tracks")
    return np.array(owners)


def _read_index(frames: pa.Table, step_ms: int) -> np.ndarray:
    name = "frame_index" if "frame_index" in frames.column_names else "timestamp_ms"
    numbers = _numbers(frames, name)
    if not (np.isfinite(numbers) & (numbers == np.round(numbers)) & (abs(numbers) < 2**53)).all():
        raise InputError(f"frames: {name} holds a number that is missing or not whole")
    index = numbers.astype(np.int64)
    if name == "frame_index":
        return index
    if len(off := index[index % step_ms != 0]):
        raise InputError(f"frames: timestamp_ms {off[0]} is not a multiple of {step_ms}")
    return index // step_ms


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    try:
        return table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise InputError(f"labels: the column {name} holds no numbers") from error


def _number(row: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a track; None if it is missing, for which pandas writes NaN."""
    value = row.get(name)
    if value is None or value != value:
        return None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if math.isfinite(number := float(value)):
            return number
    raise _refused("BadTime", f"{name} is {str(value)[:40]!r}")


def _whole(row: Mapping[str, Any], name: str) -> int | None:
    if (value := _number(row, name)) is None:
        return None
    if not 0 <= value <= schema.max_frame_index(1) or value != round(value):
        raise _refused("BadTime", f"{name} is {value:g}, not a whole number or too large")
    return int(value)
