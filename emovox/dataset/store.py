"""Write and read the dataset's tables: Parquet and HDF5 by streaming, and the content hash."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.files import replace_file, sha256_file

HDF5_TRACKS = 16_384  # written at a time: h5py holds strings many times over
MAX_PENDING = 32  # pieces; a slice keeps all of the table alive that it was cut from


@dataclass(frozen=True)
class WrittenFile:
    """One entry of `files` in the manifest."""

    path: str
    bytes: int
    sha256: str
    rows: int
    content_sha256: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ContentHash:
    """SHA-256 over the values of a table, column by column.

    Independent of container, compression, row groups and how the rows were chunked: the same rows
    from Parquet, HDF5 or MAT give the same digest. Numbers count as little-endian bytes; strings
    as their lengths and, apart from those, their UTF-8 bytes; nulls as a mask over zeros.
    """

    def __init__(self, table_schema: pa.Schema) -> None:
        self.schema = table_schema
        self._values = [hashlib.sha256() for _ in table_schema]
        self._shapes = [hashlib.sha256() for _ in table_schema]  # lengths or null masks

    def update(self, table: pa.Table) -> None:
        """Take in further rows; columns must be those of the schema, in its order."""
        import pyarrow.compute as pc  # takes longer to import than a dataset to open

        for i, field in enumerate(self.schema):
            for chunk in table.column(i).chunks:
                if pa.types.is_string(field.type):
                    self._shapes[i].update(_numbers(pc.binary_length(chunk)).data)
                    self._values[i].update(_characters(chunk))
                else:
                    if field.nullable:
                        nulls = chunk.is_null().cast(pa.uint8())
                        self._shapes[i].update(_numbers(nulls).data)
                        chunk = chunk.fill_null(0)
                    self._values[i].update(_numbers(chunk).data)

    def hexdigest(self) -> str:
        whole = hashlib.sha256()
        for field, shape, values in zip(self.schema, self._shapes, self._values, strict=True):
            line = f"{field.name}:{field.type}:{shape.hexdigest()}:{values.hexdigest()}\n"
            whole.update(line.encode())
        return whole.hexdigest()


def _numbers(array: pa.Array) -> np.ndarray:
    values = array.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def _characters(array: pa.Array) -> memoryview:
    """The UTF-8 bytes of all strings of an array without nulls, end to end."""
    _, offsets, data = array.buffers()
    if data is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]


def table_content_sha256(table: pa.Table) -> str:
    """Content hash of a table that is in memory."""
    content = ContentHash(table.schema)
    content.update(table)
    return content.hexdigest()


class ParquetTable:
    """Streams rows into one Parquet file of the contract; the file appears on a clean exit.

    Use as a context manager; `written` describes the file afterwards.
    """

    def __init__(self, root: Path, name: str, table: str, dataset: str, split: str) -> None:
        self._root, self._name = root, name
        self._schema = schema.SCHEMAS[table]
        self._dataset, self._split = dataset, split
        self._content = ContentHash(self._schema)
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self.num_rows = 0
        self.written: WrittenFile | None = None

    def __enter__(self) -> "ParquetTable":
        path = self._root / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._replacement = replace_file(path)
        self._temporary = self._replacement.__enter__()
        self._writer = pq.ParquetWriter(
            self._temporary,
            self._schema,
            **schema.PARQUET_OPTIONS,  # type: ignore[arg-type]
        )
        return self

    def write(self, rows: pa.Table) -> None:
        """Append rows of the table's schema."""
        rows = rows.cast(self._schema)
        self._content.update(rows)
        self.num_rows += rows.num_rows
        self._pending.append(rows)
        self._num_pending += rows.num_rows
        if len(self._pending) == MAX_PENDING:
            self._pending = [pa.concat_tables(self._pending).combine_chunks()]
        while self._num_pending >= schema.ROW_GROUP_ROWS:
            self._write_row_group(schema.ROW_GROUP_ROWS)

    def _write_row_group(self, num_rows: int) -> None:
        pending = pa.concat_tables(self._pending).combine_chunks()
        self._writer.write_table(pending.slice(0, num_rows), row_group_size=num_rows)
        self._pending = [pending.slice(num_rows)]
        self._num_pending = pending.num_rows - num_rows

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            if self._num_pending or not self.num_rows:
                self._pending = self._pending or [self._schema.empty_table()]
                self._write_row_group(max(self._num_pending, 1))
            digest = self._content.hexdigest()
            self._writer.add_key_value_metadata(
                schema.file_metadata(self._dataset, self._split, digest)
            )
        self._writer.close()
        self._replacement.__exit__(kind, error, trace)
        if kind is None:
            self.written = describe_file(self._root, self._name, self.num_rows, digest)


def describe_file(root: Path, name: str, rows: int, content_sha256: str) -> WrittenFile:
    """Size and hash of a finished file, as the manifest lists it."""
    path = root / name
    return WrittenFile(name, path.stat().st_size, sha256_file(path), rows, content_sha256)


def write_hdf5(root: Path, name: str, frames: Path, tracks: Path, dataset: str) -> WrittenFile:
    """Copy one split's Parquet tables into the contract's HDF5 form, row group by row group.

    Args:
        root: dataset folder; `name` is the file to write below it.
        frames: the split's Parquet file of frames, sorted; `tracks`: that of its tracks.
    """
    import h5py

    frames_file, tracks_file = (pq.ParquetFile(f, pre_buffer=False) for f in (frames, tracks))
    metadata = {k.decode(): v.decode() for k, v in frames_file.metadata.metadata.items()}
    num_rows = frames_file.metadata.num_rows
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
    with replace_file(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        logits = file.create_dataset(
            "frames/logits",
            (num_rows, len(schema.LOGITS)),
            np.float32,
            maxshape=(None, len(schema.LOGITS)),  # lets a short file keep the chunk's shape
            chunks=schema.HDF5_CHUNK,
            **packed,
        )
        columns = {
            column: file.create_dataset(
                f"frames/{column}",
                (num_rows,),
                pa.array([], schema.FRAMES.field(column).type).to_numpy().dtype,
                chunks=True,
                **packed,
            )
            for column in ("frame_index", "timestamp_ms")
        }
        start = 0
        for batch in frames_file.iter_batches(schema.ROW_GROUP_ROWS):
            stop = start + batch.num_rows
            logits[start:stop] = np.stack([batch[c].to_numpy() for c in schema.LOGITS], axis=1)
            for column, target in columns.items():
                target[start:stop] = batch[column].to_numpy()
            start = stop
        sources = {"track_id": "track_id", "offset": "row_offset", "n_frames": "n_frames"}
        types = {"track_id": h5py.string_dtype("utf-8"), "offset": np.int64, "n_frames": np.int32}
        num_tracks = tracks_file.metadata.num_rows
        by_name = {n: file.create_dataset(f"tracks/{n}", num_tracks, t) for n, t in types.items()}
        start = 0
        for batch in tracks_file.iter_batches(HDF5_TRACKS, columns=list(sources.values())):
            stop = start + batch.num_rows
            for column, track_values in by_name.items():
                track_values[start:stop] = batch[sources[column]].to_numpy(zero_copy_only=False)
            start = stop
        file.attrs.update({k: v for k, v in metadata.items() if k.startswith("emovox.")})
    return describe_file(root, name, num_rows, metadata["emovox.content_sha256"])


def read_hdf5_frames(path: Path, rows: int = schema.ROW_GROUP_ROWS) -> Iterator[pa.Table]:
    """Yield the frames of an HDF5 file as tables of the `frames` schema."""
    import h5py

    with h5py.File(path, "r") as file:
        ids = file["tracks/track_id"].asstr()[:]
        track_of_row = np.repeat(np.arange(len(ids)), file["tracks/n_frames"][:])
        names = pa.array(ids, pa.string())
        for start in range(0, len(track_of_row), rows):
            part = slice(start, start + rows)
            logits = file["frames/logits"][part]
            arrays = [
                names.take(pa.array(track_of_row[part])),
                pa.array(file["frames/frame_index"][part]),
                pa.array(file["frames/timestamp_ms"][part]),
                *(pa.array(np.ascontiguousarray(column)) for column in logits.T),
            ]
            yield pa.Table.from_arrays(arrays, schema=schema.FRAMES)


def read_table(root: Path, table: str, split: str) -> pa.Table:
    """Read one table of one split; empty where the split has no rows."""
    path = Path(root) / schema.table_file(table, split)
    if not path.exists():
        return schema.SCHEMAS[table].empty_table()
    return pq.read_table(path)
