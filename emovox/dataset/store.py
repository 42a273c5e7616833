"""Write and read the tables of a dataset as Parquet and HDF5, by streaming; content hashes."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.errors import InputError, first_line
from emovox.files import replace_file, sha256_file

TRACKS_PER_WRITE = 16_384  # to HDF5: h5py keeps several copies of each string
MAX_PENDING = 32  # pieces; a slice keeps the whole table that it is part of in memory
# Errors that reading a damaged table raises.
DAMAGED = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError)

FileEntry = dict[str, Any]  # an entry of `files` in the manifest


class ContentHash:
    """SHA-256 over the values of a table, column by column.

    It does not depend on container, compression, row groups and chunks: the same rows from Parquet,
    HDF5 or MAT give the same digest. Numbers are hashed as little-endian bytes, strings as their
    lengths and, separately, their UTF-8 bytes, nulls as a mask over zeros.
    """

    def __init__(self, table_schema: pa.Schema) -> None:
        self.schema = table_schema
        self._values = [hashlib.sha256() for _ in table_schema]
        self._shapes = [hashlib.sha256() for _ in table_schema]  # lengths or null masks

    def update(self, table: pa.Table) -> None:
        """Add rows; the columns must be those of the schema, in its order."""
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
    """Return the concatenated UTF-8 bytes of the strings of an array without nulls."""
    _, offsets, data = array.buffers()
    if data is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]


class ParquetTable:
    """Stream of rows into an open Parquet file of the contract, see `create_table`.

    Attributes:
        num_rows: rows written so far.
        written: manifest entry of the file, once it is complete.
    """

    written: FileEntry

    def __init__(self, writer: pq.ParquetWriter, columns: pa.Schema) -> None:
        self._writer, self._columns = writer, columns
        self._content = ContentHash(columns)
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self.num_rows = 0

    def write(self, rows: pa.Table) -> None:
        """Append rows of the table's schema."""
        rows = rows.cast(self._columns)
        self._content.update(rows)
        self.num_rows += rows.num_rows
        self._pending.append(rows)
        self._num_pending += rows.num_rows
        if len(self._pending) == MAX_PENDING:
            self._pending = [pa.concat_tables(self._pending).combine_chunks()]
        while self._num_pending >= schema.ROW_GROUP_ROWS:
            self._write_row_group(schema.ROW_GROUP_ROWS)

    def finish(self) -> str:
        """Write the last rows; return the content hash of all."""
        if self._num_pending or not self.num_rows:
            self._pending.append(self._columns.empty_table())
            self._write_row_group(max(self._num_pending, 1))
        return self._content.hexdigest()

    def _write_row_group(self, num_rows: int) -> None:
        pending = pa.concat_tables(self._pending).combine_chunks()
        self._writer.write_table(pending.slice(0, num_rows), row_group_size=num_rows)
        self._pending = [pending.slice(num_rows)]
        self._num_pending = pending.num_rows - num_rows


@contextlib.contextmanager
def create_table(root: Path, table: str, dataset: str, split: str = "") -> Iterator[ParquetTable]:
    """Yield a stream into a table's file, which appears on a clean exit.

    Args:
        root: folder of the dataset.
        table: name of the table.
        dataset: name of the dataset.
        split: split of the rows; none for `dropped`.
    """
    columns, name = schema.SCHEMAS[table], schema.table_file(table, split)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = schema.PARQUET_OPTIONS
    with (
        replace_file(root / name) as temporary,
        pq.ParquetWriter(temporary, columns, **options) as writer,
    ):
        stream = ParquetTable(writer, columns)
        yield stream
        digest = stream.finish()
        writer.add_key_value_metadata(schema.file_metadata(dataset, split, digest))
    stream.written = describe_file(root, name, stream.num_rows, digest)


def describe_file(
    root: Path, name: str, rows: int | None = None, content_sha256: str | None = None
) -> FileEntry:
    """Return the manifest entry of a finished file; documents have no rows and content hash."""
    path = root / name
    return {
        "path": name,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "rows": rows,
        "content_sha256": content_sha256,
    }


def logits_of(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    """Return the logits float32 `[n, 8]` of rows of `frames`."""
    return np.stack([rows[name].to_numpy() for name in schema.LOGITS], axis=1)


def write_hdf5(root: Path, split: str) -> FileEntry:
    """Copy the Parquet files `frames` and `tracks` of a split into its HDF5 file, by batches.

    Args:
        root: folder of the dataset.
        split: a split with rows.
    """
    import h5py

    frames, tracks = (
        pq.ParquetFile(root / schema.table_file(table, split), pre_buffer=False)
        for table in ("frames", "tracks")
    )
    metadata = {k.decode(): v.decode() for k, v in frames.metadata.metadata.items()}
    num_rows, num_tracks = frames.metadata.num_rows, tracks.metadata.num_rows
    name = schema.hdf5_file(split)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    with replace_file(root / name) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        frame_arrays = {
            "logits": file.create_dataset(
                "frames/logits",
                (num_rows, len(schema.LOGITS)),
                np.float32,
                maxshape=(None, len(schema.LOGITS)),  # lets a short file keep the chunk's shape
                chunks=schema.HDF5_CHUNK,
                **schema.HDF5_FILTERS,
            )
        }
        for path, column in schema.HDF5_FRAMES.items():
            kind = str(schema.COLUMNS[column][0])
            frame_arrays[column] = file.create_dataset(
                path, num_rows, kind, chunks=True, **schema.HDF5_FILTERS
            )
        _fill(frame_arrays, frames.iter_batches(schema.ROW_GROUP_ROWS))
        track_arrays = {}
        for path, column in schema.HDF5_TRACKS.items():
            kind = str(schema.COLUMNS[column][0])
            dtype = h5py.string_dtype("utf-8") if kind == "string" else kind
            track_arrays[column] = file.create_dataset(path, num_tracks, dtype)
        _fill(track_arrays, tracks.iter_batches(TRACKS_PER_WRITE, columns=list(track_arrays)))
        file.attrs.update({k: v for k, v in metadata.items() if k.startswith("emovox.")})
    return describe_file(root, name, num_rows, metadata["emovox.content_sha256"])


def _fill(arrays: Mapping[str, Any], batches: Iterable[pa.RecordBatch]) -> None:
    """Copy the columns of all batches into HDF5 arrays; `logits` stands for all logit columns."""
    start = 0
    for batch in batches:
        stop = start + batch.num_rows
        for column, array in arrays.items():
            if column == "logits":
                array[start:stop] = logits_of(batch)
            else:
                array[start:stop] = batch[column].to_numpy(zero_copy_only=False)
        start = stop


def read_hdf5_frames(path: Path, rows: int = schema.ROW_GROUP_ROWS) -> Iterator[pa.Table]:
    """Yield the frames of an HDF5 file as tables of the `frames` schema, `rows` rows at a time."""
    import h5py

    with h5py.File(path, "r") as file:
        ids = file["tracks/track_id"].asstr()[:]
        track_of_row = np.repeat(np.arange(len(ids)), file["tracks/n_frames"][:])
        names = pa.array(ids, pa.string())
        for start in range(0, len(track_of_row), rows):
            part = slice(start, start + rows)
            arrays = [
                names.take(pa.array(track_of_row[part])),
                pa.array(file["frames/frame_index"][part]),
                pa.array(file["frames/timestamp_ms"][part]),
                *map(pa.array, np.ascontiguousarray(file["frames/logits"][part].T)),
            ]
            yield pa.Table.from_arrays(arrays, schema=schema.FRAMES)


def read_pieces(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file in pieces; page checksums are verified."""
    file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True, pre_buffer=False)
    for batch in file.iter_batches(schema.ROW_GROUP_ROWS):
        yield pa.Table.from_batches([batch])


def read_frames(root: Path, split: str, container: str) -> Iterator[pa.Table]:
    """Yield the frames of a split in pieces, from its `parquet` or `hdf5` file.

    Raises:
        InputError: the file is missing or damaged.
    """
    is_hdf5 = container == "hdf5"
    path = root / (schema.hdf5_file(split) if is_hdf5 else schema.table_file("frames", split))
    try:
        for piece in read_hdf5_frames(path) if is_hdf5 else read_pieces(path):
            yield piece.cast(schema.FRAMES)
    except (*DAMAGED, pa.ArrowException) as error:
        kind = "HDF5" if is_hdf5 else "Parquet"
        raise InputError(f"{path}: cannot read as {kind} frames: {first_line(error)}") from error


def read_table(root: str | os.PathLike[str], table: str, split: str) -> pa.Table:
    """Return one table of one split; empty if the split has no rows."""
    path = Path(root) / schema.table_file(table, split)
    return pq.read_table(path) if path.exists() else schema.SCHEMAS[table].empty_table()
