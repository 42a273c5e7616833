"""Datasets of a user's own labels and values, for which no teacher ran."""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.config import check_options, option, read_config
from emovox.corpus.splits import auto_split
from emovox.dataset import schema
from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Chunk, Dropped, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS, Outputs
from emovox.errors import CheckError, InputError, TrackError, first_line
from emovox.files import check_vacant, new_folder
from emovox.ids import TrackKey, parse_track_id, printable
from emovox.media.grid import num_points
from emovox.packages import software

CHUNK_TRACKS = 4096
LABEL_LOGIT = 6.0  # of the labelled emotion; the others get 0
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


def write_dataset(
    out: str | os.PathLike[str],
    tracks: Any,
    frames: Any = None,
    config: WriteConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Dataset:
    """Write labels and values of one's own as a dataset of the contract, and open it.

    Tables are DataFrames, Arrow tables or mappings of columns; other columns are ignored. Logits
    come from columns `logit_<emotion>`, or from a column `label`. Emotions that are not given are
    those of the logits, or the labels that occur: the published ones in their order, then others by
    name. Tracks that cannot be used become rows of `dropped`.

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
        CheckError: no track can be used.

    Example:
        >>> tracks = {"track_id": ["ann/talk/1", "bob/talk/1"], "label": ["happiness", "anger"]}
        >>> dataset = write_dataset("own", tracks, name="own", emotions=("happiness", "anger"))
        >>> dataset["ann/talk/00001"].logits.tolist(), dataset["ann/talk/00001"].label
        ([[6.0, 0.0]], 'happiness')
    """
    config, out = read_config(WriteConfig, config, options), Path(out)
    check_vacant(out)
    rows = _Rows(_arrow(tracks, "tracks"), None if frames is None else _arrow(frames, "frames"))
    found = _Labels(rows, config)
    if not found.tracks:
        first = f"; the first: {found.dropped[0].message}" if found.dropped else ""
        raise CheckError(f"tracks: no usable track{first}")
    teacher = {"name": printable(config.teacher), "sha256": None}
    options = {**asdict(config), "emotions": found.outputs.emotions, "values": found.outputs.values}
    info = DatasetInfo(
        name=printable(config.name),
        version=printable(config.version),
        step_ms=config.step_ms,
        teacher=teacher,
        provenance={
            **software("numpy", "pyarrow", "h5py"),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "origin": config.origin,
            "config": options,
            "teacher": teacher,
            "source_fingerprint": found.fingerprint(),
        },
        tables=tuple(rows.tables),
        outputs=found.outputs,
        embedding_size=rows.embedding_size,
    )
    with new_folder(out.resolve(), "writing") as building:
        write_chunks(building, found.chunks(), found.dropped, info, hdf5=config.hdf5)
    return load(out)


def _arrow(data: Any, what: str) -> pa.Table:
    """Return a table that the caller gave as Arrow; integer column names become text."""
    try:
        if isinstance(data, Mapping):
            return pa.table(dict(data))
        if hasattr(data, "to_parquet") and hasattr(data, "index"):  # a DataFrame of pandas
            return pa.Table.from_pandas(data, preserve_index=False)
        return pa.table(data)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{what}: not a table ({first_line(error)})") from error


class _Rows:
    """The given tables, with one row per grid point in `frames`.

    Attributes:
        tracks, frames: the tables; `frames` is None where labels are per track.
        tables: names of the tables that the dataset gets.
        embedding_size: numbers per embedding; 0 without embeddings.
    """

    def __init__(self, tracks: pa.Table, frames: pa.Table | None) -> None:
        self.tracks, self.frames = tracks, frames
        for what, table in (("tracks", tracks), ("frames", frames)):
            if table is not None and "track_id" not in table.column_names:
                raise InputError(f"{what}: the column track_id is missing")
        names = [] if frames is None else frames.column_names
        if frames is not None and not {"frame_index", "timestamp_ms"} & {*names}:
            raise InputError("frames: a column frame_index or timestamp_ms is missing")
        self.tables = ["frames", "tracks"]
        if set(schema.FACES.names[2:]) <= {*names}:
            self.tables.append("faces")
        self.embedding_size = 0
        if frames is not None and "embedding" in names:
            self.tables.append("embeddings")
            self.embedding_size = _list_size(frames["embedding"])

    @property
    def labelled(self) -> pa.Table:
        """The table with the labels."""
        return self.tracks if self.frames is None else self.frames

    def names(self, prefix: str) -> list[str]:
        """Return the names behind a prefix, in the order of the columns."""
        columns = self.labelled.column_names
        return [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]


def _list_size(column: pa.ChunkedArray) -> int:
    try:
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    except pa.ArrowException as error:
        raise InputError("frames: embedding is not a column of lists") from error
    if len(lengths) != 1 or not lengths[0]:
        raise InputError(f"frames: embeddings have the sizes {lengths}; use one size for all")
    return int(lengths[0])


class _Labels:
    """Usable tracks, sorted, with their rows, and the dropped ones.

    Attributes:
        outputs: names of the emotions and values.
        tracks: rows of `tracks` by split, in order.
        dropped: the other tracks, with the reason.
    """

    def __init__(self, rows: _Rows, config: WriteConfig) -> None:
        self._rows, self._config = rows, config
        self.outputs = Outputs.of(
            config.emotions or self._find_emotions(),
            config.values or rows.names("value_"),
        )
        self._columns = schema.columns(self.outputs)
        self.dropped: list[Dropped] = []
        self._output = self._read_outputs()
        given = rows.tracks.to_pylist()
        self._place: dict[str, int] = {}  # row in `tracks` of each usable id
        for place, row in enumerate(given):
            self._add(place, row)
        self._find_rows()
        self.tracks: dict[str, list[TrackRow]] = {}
        keys = {i: parse_track_id(i) for i in self._place}
        auto = auto_split(key for key in keys.values() if key)
        for track_id in sorted(self._place):
            row = given[self._place[track_id]]
            try:
                split = row.get("split") or auto[track_id]
                track = self._track(keys[track_id], row)
                if split not in schema.SPLITS:
                    message = f"split {split!r} is not one of {', '.join(schema.SPLITS)}"
                    raise TrackError("split", "NoSplit", message)
            except TrackError as error:
                self.dropped.append(Dropped.of(track_id, str(row.get("source") or ""), error))
            else:
                self.tracks.setdefault(split, []).append(track)

    def _find_emotions(self) -> list[str]:
        if names := self._rows.names("logit_"):
            return names
        if "label" not in self._rows.labelled.column_names:
            raise InputError("labels: neither columns logit_<emotion> nor a column label found")
        found = {str(label) for label in self._rows.labelled["label"].unique().to_pylist() if label}
        return [e for e in EMOTIONS if e in found] + sorted(found.difference(EMOTIONS))

    def _read_outputs(self) -> np.ndarray:
        """Return logits and values of the labelled rows, float32 `[n, E + V]`; NaN if missing."""
        table, emotions = self._rows.labelled, self.outputs.emotions
        if self._rows.names("logit_"):
            logits = _matrix(table, self._columns.logits)
        else:
            codes = pc.index_in(table["label"].cast(pa.string()), pa.array(emotions)).to_numpy()
            logits = np.zeros((table.num_rows, len(emotions)), np.float32)
            known = np.isfinite(codes)
            logits[known, codes[known].astype(int)] = self._config.label_logit
            logits[~known] = np.nan
        values = _matrix(table, self._columns.values)
        return np.concatenate([logits, values], axis=1)

    def _add(self, place: int, row: Mapping[str, Any]) -> None:
        """Note the place of a usable track, or drop it."""
        name = str(row["track_id"])
        key = parse_track_id(name)
        try:
            if key is None:
                message = "track_id is not <identity>/<video>/<number>"
                raise TrackError("plan", "BadName", message)
            key.check()
            if self._place.setdefault(key.track_id, place) != place:
                message = f"row {self._place[key.track_id]} has the same track_id and comes first"
                raise TrackError("plan", "DuplicateTrack", message)
        except TrackError as error:
            self.dropped.append(Dropped.of(name, str(row.get("source") or ""), error))

    def _find_rows(self) -> None:
        """Sort the labelled rows by track and grid point; `_bounds` has those of each track."""
        table, step = self._rows.labelled, self._config.step_ms
        ids = {i: n for n, i in enumerate(self._rows.tracks["track_id"].to_pylist())}
        if self._rows.frames is None:
            self._index = np.zeros(table.num_rows, np.int64)
            self._order = np.arange(table.num_rows)
            self._starts, self._ends = self._order, self._order + 1
            return
        codes = [ids.get(i, -1) for i in table["track_id"].to_pylist()]
        if -1 in codes:
            unknown = table["track_id"][codes.index(-1)].as_py()
            raise InputError(f"frames: track_id {printable(str(unknown))!r} is not in tracks")
        if "frame_index" in table.column_names:
            self._index = _integers(table, "frame_index")
        else:
            times = _integers(table, "timestamp_ms")
            self._index = times // step
            if len(off := np.flatnonzero(times % step)):
                time_ms = times[off[0]]
                raise InputError(f"frames: timestamp_ms {time_ms} is not a multiple of {step}")
        track = np.array(codes)
        self._order = np.lexsort((self._index, track))
        numbers = np.arange(len(ids) and max(ids.values()) + 1)
        self._starts = np.searchsorted(track[self._order], numbers)
        self._ends = np.searchsorted(track[self._order], numbers, "right")

    def _track(self, key: TrackKey | None, row: Mapping[str, Any]) -> TrackRow:
        """Return the row of a track; TrackError if its rows are missing or not valid."""
        assert key is not None
        place = self._place[key.track_id]
        rows = self._order[self._starts[place] : self._ends[place]]
        if not len(rows):
            raise TrackError("labels", "NoFrames", "frames has no row of it")
        if not np.isfinite(self._output[rows]).all():
            message = "a label is not one of the emotions, or a number is missing or not finite"
            raise TrackError("labels", "BadLabel", message)
        index = self._index[rows]
        most = schema.max_frame_index(self._config.step_ms)
        if index[0] < 0 or index[-1] > most or (np.diff(index) == 0).any():
            message = f"a frame_index is negative, above {most:,} or occurs twice"
            raise TrackError("labels", "BadIndex", message)
        interval = [_whole(row, name) for name in ("duration_ms", "start_ms", "end_ms")]
        duration, start, end = interval
        if start is not None and end is not None and duration is None:
            duration = end - start
        if (duration is not None and duration < 0) or (start is None) != (end is None):
            message = "start_ms and end_ms hold no time, or one of them is missing"
            raise TrackError("labels", "BadTime", message)
        expected = _whole(row, "n_expected")
        if expected is None:
            known = 1 if duration is None else num_points(duration, self._config.step_ms)
            expected = max(int(index[-1]) + 1, known)
        count = expected if self._rows.frames is None else len(rows)
        offset = row.get("sound_offset_ms")
        source = row.get("source")
        source = None if source is None else printable(str(source))
        return TrackRow(key, count, expected, duration, source, start, end, offset)

    def fingerprint(self) -> str:
        """Return a hash of all labels and values."""
        whole = hashlib.sha256(self._output.tobytes())
        for part in (self._index, self._order):
            whole.update(part.tobytes())
        for track_id in sorted(self._place):
            whole.update(f"{track_id}\n".encode())
        return whole.hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows of all tracks, sorted within each split."""
        for split in schema.SPLITS:
            tracks = self.tracks.get(split, [])
            for start in range(0, len(tracks), CHUNK_TRACKS):
                yield self._chunk(split, tracks[start : start + CHUNK_TRACKS])

    def _chunk(self, split: str, tracks: list[TrackRow]) -> Chunk:
        counts = [track.n_frames for track in tracks]
        places = [self._place[track.track_id] for track in tracks]
        if self._rows.frames is None:
            rows = np.repeat(places, counts)
            index = np.concatenate([np.arange(count) for count in counts])
        else:
            parts = [self._order[self._starts[p] : self._ends[p]] for p in places]
            rows = np.concatenate(parts)
            index = self._index[rows]
        ids = pa.array([track.track_id for track in tracks], pa.string())
        columns: list[Any] = [
            ids.take(pa.array(np.repeat(np.arange(len(tracks)), counts))),
            index,
            index * self._config.step_ms,
            *np.ascontiguousarray(self._output[rows].T),
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, self._columns.frames, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=self._columns.frames)
        return Chunk(split, tracks, self._with_others(table, rows))

    def _with_others(self, table: pa.Table, rows: np.ndarray) -> pa.Table:
        """Append the columns of faces and embeddings."""
        frames, tables = self._rows.frames, self._rows.tables
        if "faces" in tables:
            assert frames is not None
            for field in list(schema.FACES)[2:]:
                column = frames[field.name].take(pa.array(rows))
                table = table.append_column(field, column.cast(field.type))
        if "embeddings" in tables:
            assert frames is not None
            size = self._rows.embedding_size
            field = self._columns.of("embeddings", size).field("embedding")
            numbers = pc.list_flatten(frames["embedding"].take(pa.array(rows))).to_numpy()
            array = pa.array(numbers.astype(np.float16))
            table = table.append_column(
                field, pa.FixedSizeListArray.from_arrays(array, type=field.type)
            )
        return table


def _matrix(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return columns as float32 `[n, len(names)]`; null becomes NaN."""
    if missing := [name for name in names if name not in table.column_names]:
        raise InputError(f"labels: the column {missing[0]} is missing")
    columns = [_numbers(table, name).astype(np.float32) for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((table.num_rows, 0), np.float32)


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    try:
        return table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise InputError(f"labels: the column {name} holds no numbers") from error


def _integers(table: pa.Table, name: str) -> np.ndarray:
    numbers = _numbers(table, name)
    if not (np.isfinite(numbers) & (numbers == np.round(numbers)) & (abs(numbers) < 2**53)).all():
        raise InputError(f"frames: {name} holds a number that is missing or not whole")
    return numbers.astype(np.int64)


def _whole(row: Mapping[str, Any], name: str) -> int | None:
    """Return a number of a track as an integer; None if it is missing."""
    value = row.get(name)
    if value is None or value != value:  # NaN, with which pandas marks missing numbers
        return None
    try:
        number = round(float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise TrackError("labels", "BadTime", f"{name} is {str(value)[:40]!r}") from error
    if not 0 <= number <= schema.max_frame_index(1):
        raise TrackError("labels", "BadTime", f"{name} is {number}")
    return number
