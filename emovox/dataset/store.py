"""Write and read the tables of a dataset as Parquet and HDF5, by streaming; content hashes."""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.emotions import Outputs
from emovox.errors import FULL, InputError, first_line
from emovox.files import check_expansion, open_hdf5, regular, replace_file, sha256_file
from emovox.limits import MAX_CHUNK, MAX_ROW_GROUP, MAX_ROW_GROUP_ROWS, MAX_TEXT

TRACKS_PER_WRITE = 16_384  # to HDF5: h5py keeps several copies of each string
MAX_PENDING = 32  # pieces; a slice keeps the whole table that it is part of in memory
TEXTS_PER_READ = 64  # from HDF5
# Errors that reading a damaged table raises.
DAMAGED = (
    *(OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, MemoryError),
    pa.ArrowException,
)

FileEntry = dict[str, Any]  # an entry of `files` in the manifest


@contextlib.contextmanager
def reading(
    path: Path | str, content: str = "", failure: type[Exception] = InputError
) -> Iterator[None]:
    """Turn errors of reading a damaged file into a `failure`; `content` is what it holds."""
    try:
        yield
    except DAMAGED as error:
        if getattr(error, "errno", None) in FULL:
            raise  # of what is written meanwhile
        raise failure(f"{path}: cannot read{content}: {first_line(error)}") from error


class ContentHash:
    """SHA-256 over the values of a table, column by column.

    It does not depend on container, compression, row groups and chunks: the same rows from Parquet,
    HDF5 or MAT give the same digest. Numbers are hashed as little-endian bytes, strings as their
    lengths and, separately, their UTF-8 bytes, nulls as a mask over zeros, lists of one size as
    their numbers.
    """

    def __init__(self, table_schema: pa.Schema) -> None:
        self.schema = table_schema
        self._values = [hashlib.sha256() for _ in table_schema]
        self._lengths = [hashlib.sha256() for _ in table_schema]  # of strings
        self._masks = [hashlib.sha256() for _ in table_schema]  # of nulls

    def update(self, table: pa.Table) -> None:
        """Add rows; the columns must be those of the schema, in its order."""
        import pyarrow.compute as pc  # takes longer to import than a dataset to open

        for i, field in enumerate(self.schema):
            for chunk in table.column(i).chunks:
                is_text = pa.types.is_string(field.type)
                if field.nullable:
                    self._masks[i].update(_numbers(chunk.is_null().cast(pa.uint8())).data)
                    chunk = chunk.fill_null("" if is_text else 0)
                if is_text:
                    self._lengths[i].update(_numbers(pc.binary_length(chunk)).data)
                    self._values[i].update(_characters(chunk))
                else:
                    if pa.types.is_fixed_size_list(field.type):
                        chunk = chunk.flatten()
                    self._values[i].update(_numbers(chunk).data)

    def hexdigest(self) -> str:
        whole = hashlib.sha256()
        parts = zip(self.schema, self._lengths, self._masks, self._values, strict=True)
        for field, *hashes in parts:
            digests = ":".join(part.hexdigest() for part in hashes)
            whole.update(f"{field.name}:{field.type}:{digests}\n".encode())
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
    """Stream of rows into an open Parquet file of the contract, see `create_table`."""

    written: FileEntry  # entry of the manifest, once the file is complete

    def __init__(self, writer: pq.ParquetWriter, columns: pa.Schema) -> None:
        self._writer, self._columns = writer, columns
        self.names: list[str] = columns.names
        self._content = ContentHash(columns)
        self._pending = columns.empty_table()
        self.num_rows = 0  # written so far

    def write(self, rows: pa.Table) -> None:
        """Append rows of the table's schema."""
        rows = rows.cast(self._columns)
        self._content.update(rows)
        self.num_rows += rows.num_rows
        self._pending = pa.concat_tables([self._pending, rows])
        if self._pending.column(0).num_chunks > MAX_PENDING:
            self._pending = self._pending.combine_chunks()
        while self._pending.num_rows >= schema.ROW_GROUP_ROWS:
            self._write_row_group(schema.ROW_GROUP_ROWS)

    def finish(self) -> str:
        """Write the last rows; return the content hash of all."""
        if self._pending.num_rows or not self.num_rows:
            self._write_row_group(max(self._pending.num_rows, 1))
        return self._content.hexdigest()

    def _write_row_group(self, num_rows: int) -> None:
        pending = self._pending.combine_chunks()
        self._writer.write_table(pending.slice(0, num_rows), row_group_size=num_rows)
        self._pending = pending.slice(num_rows)


@contextlib.contextmanager
def create_table(
    root: Path, table: str, dataset: str, outputs: Outputs, split: str = "", embedding_size: int = 0
) -> Iterator[ParquetTable]:
    """Yield a stream into a table's file below `root`, which appears on a clean exit."""
    name = schema.table_file(table, split)
    columns = schema.columns(outputs).of(table, embedding_size)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    # Only the stored Arrow schema says that lists have one size.
    options: dict[str, Any] = schema.PARQUET_OPTIONS | {"store_schema": table == "embeddings"}
    with (
        replace_file(root / name) as temporary,
        pq.ParquetWriter(temporary, columns, **options) as writer,
    ):
        stream = ParquetTable(writer, columns)
        yield stream
        digest = stream.finish()
        writer.add_key_value_metadata(schema.file_metadata(dataset, split, outputs, digest))
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


def embedding_array(embeddings: np.ndarray) -> pa.FixedSizeListArray:
    """Return embeddings `[N, D]` as a column of the table; InputError for numbers above float16."""
    with np.errstate(over="ignore"):
        numbers = embeddings.astype(np.float16)
    if not np.isfinite(numbers).all():
        raise InputError(f"embeddings: a number exceeds {np.finfo(np.float16).max:g}; scale them")
    kind = schema.EIGHT.of("embeddings", embeddings.shape[1]).field("embedding").type
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), type=kind)


def matrix_of(rows: pa.Table | pa.RecordBatch, names: Sequence[str]) -> np.ndarray:
    """Return columns of rows as float32 `[n, len(names)]`."""
    columns = [rows[name].to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((rows.num_rows, 0), np.float32)


def write_hdf5(root: Path, split: str, outputs: Outputs) -> FileEntry:
    """Copy the Parquet files `frames` and `tracks` of a split into its HDF5 file, by batches."""
    frames, tracks = (
        pq.ParquetFile(root / schema.table_file(table, split), pre_buffer=False)
        for table in ("frames", "tracks")
    )
    metadata = {k.decode(): v.decode() for k, v in frames.metadata.metadata.items()}
    num_rows, num_tracks = frames.metadata.num_rows, tracks.metadata.num_rows
    matrices = matrices_of(outputs)
    name = schema.hdf5_file(split)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    with replace_file(root / name) as temporary, open_hdf5(temporary, "w", libver="v110") as file:
        for path, names in matrices.items():
            file.create_dataset(
                path,
                (num_rows, len(names)),
                np.float32,
                maxshape=(None, len(names)),  # lets a short file keep the chunk's shape
                chunks=(schema.HDF5_CHUNK_ROWS, len(names)),
                **schema.HDF5_FILTERS,
            )
        for path, column in schema.HDF5_FRAMES.items():
            kind = _hdf5_type(column)
            file.create_dataset(path, num_rows, kind, chunks=True, **schema.HDF5_FILTERS)
        _fill(file, {**matrices, **schema.HDF5_FRAMES}, frames.iter_batches(schema.ROW_GROUP_ROWS))
        for path, column in schema.HDF5_TRACKS.items():
            file.create_dataset(path, num_tracks, _hdf5_type(column))
        batches = tracks.iter_batches(TRACKS_PER_WRITE, columns=[*schema.HDF5_TRACKS.values()])
        _fill(file, schema.HDF5_TRACKS, batches)
        file.attrs.update({k: v for k, v in metadata.items() if k.startswith("emovox.")})
    return describe_file(root, name, num_rows, metadata["emovox.content_sha256"])


def matrices_of(outputs: Outputs) -> dict[str, tuple[str, ...]]:
    """Return the columns of each two-dimensional array of an HDF5 file."""
    columns = schema.columns(outputs)
    values = {"frames/values": columns.values} if columns.values else {}
    return {"frames/logits": columns.logits} | values


def _hdf5_type(column: str) -> Any:
    import h5py

    kind = schema.COLUMNS[column]["type"]
    return h5py.string_dtype("utf-8") if kind == "string" else kind


def _fill(
    file: Any, arrays: Mapping[str, str | Sequence[str]], batches: Iterable[pa.RecordBatch]
) -> None:
    """Copy all batches into HDF5 arrays: a column each, or several into a matrix."""
    start = 0
    for batch in batches:
        stop = start + batch.num_rows
        for path, names in arrays.items():
            if isinstance(names, str):
                file[path][start:stop] = batch[names].to_numpy(zero_copy_only=False)
            else:
                file[path][start:stop] = matrix_of(batch, names)
        start = stop


def _array(file: Any, path: str) -> Any:
    """Return an array of an HDF5 file; ValueError if it claims more than it can store."""
    array = file[path]
    check_expansion(array.size * array.dtype.itemsize, array.id.get_storage_size())
    if math.prod(array.chunks or (0,)) * array.dtype.itemsize > MAX_CHUNK:
        raise ValueError(f"/{path} has chunks of over {MAX_CHUNK:,} bytes")
    return array


def read_array(file: Any, path: str) -> np.ndarray:
    """Return the values of an array of an HDF5 file, with strings as objects."""
    array = _array(file, path)
    if array.dtype.kind != "O":
        values: np.ndarray = array[:]
        return values
    texts: list[str] = []
    for start in range(0, len(array), TEXTS_PER_READ):  # many may be the same long one
        texts += array.asstr()[start : start + TEXTS_PER_READ].tolist()
        if max(map(len, texts[start:])) > MAX_TEXT:
            raise ValueError(f"/{path} has a text of over {MAX_TEXT:,} bytes")
    return np.array(texts, object)


def read_hdf5_frames(
    path: Path, outputs: Outputs, rows: int = schema.ROW_GROUP_ROWS
) -> Iterator[pa.Table]:
    """Yield the frames of an HDF5 file as tables of the contract, `rows` rows at a time."""
    with open_hdf5(path) as file:
        ids, counts = read_array(file, "tracks/track_id"), read_array(file, "tracks/n_frames")
        for path_inside in (*matrices_of(outputs), *schema.HDF5_FRAMES):
            if len(_array(file, path_inside)) != counts.sum() or counts.min(initial=0) < 0:
                raise ValueError("the numbers of frames are not those of the tracks")
        track_of_row = np.repeat(np.arange(len(ids)), counts)
        names = pa.array(ids, pa.string())
        for start in range(0, len(track_of_row), rows):
            part = slice(start, start + rows)
            arrays = [
                names.take(pa.array(track_of_row[part])),
                *(pa.array(file[array][part]) for array in schema.HDF5_FRAMES),
            ]
            for array in matrices_of(outputs):
                arrays += map(pa.array, np.ascontiguousarray(file[array][part].T))
            yield pa.Table.from_arrays(arrays, schema=schema.columns(outputs).frames)


def open_table(path: Path, *, memory_map: bool = True) -> pq.ParquetFile:
    """Open a Parquet file of a dataset, with verified page checksums and texts as dictionaries.

    OSError, ArrowException or ValueError if it is damaged or claims more than a table may have.
    """
    columns = pq.read_schema(regular(path))
    options: dict[str, Any] = {"memory_map": memory_map, "page_checksum_verification": True}
    texts = [field.name for field in columns if pa.types.is_string(field.type)]
    file = pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False, **options)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    sizes = [max(g.total_byte_size, 4 * g.num_rows * g.num_columns) for g in groups]
    check_expansion(sum(sizes), path)
    if sum(group.num_rows for group in groups) != file.metadata.num_rows:
        raise ValueError("the number of rows is not that of its row groups")
    for group, size in zip(groups, sizes, strict=True):
        if not 0 <= group.num_rows <= MAX_ROW_GROUP_ROWS or size > MAX_ROW_GROUP:
            raise ValueError(f"a row group claims {group.num_rows:,} rows and {size:,} bytes")
    return file


def plain_texts(table: pa.Table, stored: int = 0) -> pa.Table:
    """Return a table, from a file of `stored` bytes, with plain texts in place of dictionaries."""
    import pyarrow.compute as pc

    for i, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            lengths = (pc.take(pc.binary_length(c.dictionary), c.indices) for c in column.chunks)
            check_expansion(sum(pc.sum(length).as_py() or 0 for length in lengths), stored)
            field = table.field(i).with_type(pa.string())
            table = table.set_column(i, field, column.cast(pa.string()))
    return table


def read_pieces(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file in pieces; page checksums are verified."""
    for batch in open_table(path).iter_batches(schema.ROW_GROUP_ROWS):
        yield plain_texts(pa.Table.from_batches([batch]))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a Parquet file, of some columns or all; see `open_table`."""
    return plain_texts(open_table(path).read(columns), path.stat().st_size)


def frames_file(root: Path, split: str, container: str) -> Path:
    """Return the file of the frames of a split."""
    is_hdf5 = container == "hdf5"
    return root / (schema.hdf5_file(split) if is_hdf5 else schema.table_file("frames", split))


def read_frames(root: Path, split: str, container: str, outputs: Outputs) -> Iterator[pa.Table]:
    """Yield a split's frames in pieces, from `parquet` or `hdf5`; InputError if it is damaged."""
    is_hdf5, path = container == "hdf5", frames_file(root, split, container)
    with reading(path, f" as {'HDF5' if is_hdf5 else 'Parquet'} frames"):
        for piece in read_hdf5_frames(path, outputs) if is_hdf5 else read_pieces(path):
            yield piece.cast(schema.columns(outputs).frames)
