"""Parquet, HDF5 and the content hash."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emovox.dataset import schema
from emovox.dataset.store import ContentHash, create_table, read_hdf5_frames, write_hdf5
from emovox.emotions import PUBLISHED
from emovox.files import replace_file, sha256_file


def frames_table(counts: list[int], seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = [f"id{i:05d}/vidé o/00001" for i, n in enumerate(counts) for _ in range(n)]
    indices = np.concatenate([np.arange(n) for n in counts]).astype(np.int16)
    logits = rng.normal(size=(8, len(ids))).astype(np.float32)
    columns = [pa.array(ids), pa.array(indices), pa.array(indices.astype(np.int32) * 240)]
    return pa.Table.from_arrays([*columns, *map(pa.array, logits)], schema=schema.EIGHT.frames)


def tracks_table(counts: list[int], split: str) -> pa.Table:
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows = [
        {
            "track_id": f"id{i:05d}/vidé o/00001",
            "identity_id": f"id{i:05d}",
            "video_id": "vidé o",
            "track_num": 1,
            "split": split,
            "source": [None, f"mp4/é/{i}.mp4"][i % 2],
            "start_ms": None,
            "end_ms": 240 * n,
            "sound_offset_ms": [None, -21.3][i % 2],
            "n_frames": n,
            "n_expected": n,
            "duration_ms": None,
            "row_offset": int(start),
            "label": "neutral",
            "majority": "fear",
            **dict.fromkeys(schema.EIGHT.maxima, 0.0),
        }
        for i, (n, start) in enumerate(zip(counts, starts, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=schema.EIGHT.tracks)


def embeddings_table(rows: int, size: int = 3) -> pa.Table:
    values = np.random.default_rng(0).normal(size=rows * size).astype(np.float16)
    columns = schema.EIGHT.of("embeddings", size)
    embedding = pa.FixedSizeListArray.from_arrays(
        pa.array(values), type=columns.field("embedding").type
    )
    index = pa.array(range(rows), pa.int32())
    return pa.Table.from_arrays([pa.array(["a/v/00001"] * rows), index, embedding], schema=columns)


def write(root: Path, table: str, rows: pa.Table, pieces: int = 1) -> Path:
    with create_table(root, table, "test", PUBLISHED, "train") as file:
        for part in np.array_split(np.arange(rows.num_rows), pieces):
            file.write(rows.slice(int(part[0]) if len(part) else 0, len(part)))
    return root / schema.table_file(table, "train")


def table_content_sha256(table: pa.Table) -> str:
    content = ContentHash(table.schema)
    content.update(table)
    return content.hexdigest()


def naive_hash(table: pa.Table) -> str:
    """Content hash by its definition, value by value."""
    lines = b""
    for field in table.schema:
        lengths, mask, values = b"", b"", b""
        for value in table[field.name].to_pylist():
            if field.nullable:
                mask += bytes([value is None])
            if field.type == pa.string():
                text = (value or "").encode()
                lengths += len(text).to_bytes(4, "little")
                values += text
            elif pa.types.is_fixed_size_list(field.type):
                values += np.array(value, "<f2").tobytes()
            else:
                kind = "float32" if field.type == pa.float32() else str(field.type)
                number = np.array([value or 0], kind)
                values += number.astype(number.dtype.newbyteorder("<")).tobytes()
        digests = (hashlib.sha256(part).hexdigest() for part in (lengths, mask, values))
        lines += f"{field.name}:{field.type}:{':'.join(digests)}\n".encode()
    return hashlib.sha256(lines).hexdigest()


def test_content_hash_follows_its_definition() -> None:
    assert table_content_sha256(frames_table([3, 1])) == naive_hash(frames_table([3, 1]))
    tracks = tracks_table([3, 1], "train")
    assert table_content_sha256(tracks) == naive_hash(tracks)
    embeddings = embeddings_table(5)
    assert table_content_sha256(embeddings) == naive_hash(embeddings)
    assert table_content_sha256(embeddings.slice(2)) == naive_hash(embeddings.slice(2))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6))
def test_content_hash_does_not_depend_on_chunks(cuts: list[int]) -> None:
    table = frames_table([17, 1, 22])
    content = ContentHash(schema.EIGHT.frames)
    edges = [0, *sorted(cuts), table.num_rows]
    for start, stop in itertools.pairwise(edges):
        content.update(table.slice(start, stop - start))
    assert content.hexdigest() == table_content_sha256(table)


def test_content_hash_depends_on_every_value() -> None:
    table = tracks_table([3, 1], "train")
    whole = table_content_sha256(table)
    changed = set()
    for name in table.column_names:
        values = table[name].to_pylist()
        is_text = table.schema.field(name).type == pa.string()
        values[1] = f"{values[1]}x" if is_text else (values[1] or 0) + 1
        column = pa.array(values, table.schema.field(name).type)
        index = table.column_names.index(name)
        changed.add(
            table_content_sha256(table.set_column(index, schema.EIGHT.tracks[index], column))
        )
    assert len(changed) == len(table.column_names)
    assert whole not in changed


def test_content_hash_depends_on_string_boundaries() -> None:
    one, other = (
        pa.table({"s": pa.array(s)}, schema=pa.schema([pa.field("s", pa.string(), False)]))
        for s in (["ab", "c"], ["a", "bc"])
    )
    assert table_content_sha256(one) != table_content_sha256(other)


def test_content_hash_of_null_differs_from_zero() -> None:
    kind = pa.schema([pa.field("n", pa.int32())])
    nothing, zero = (pa.table({"n": pa.array([v], pa.int32())}, schema=kind) for v in (None, 0))
    assert table_content_sha256(nothing) != table_content_sha256(zero)


def test_parquet_has_the_settings_of_the_contract(tmp_path: Path) -> None:
    counts = [2000] * 150
    path = write(tmp_path, "frames", frames_table(counts), pieces=7)
    file = pq.ParquetFile(path)
    meta = file.metadata
    sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
    assert sizes == [131_072, 131_072, 300_000 - 2 * 131_072]
    for i in range(meta.num_columns):
        column = meta.row_group(0).column(i)
        assert column.compression == "ZSTD"
        assert column.has_dictionary_page == (column.path_in_schema == "track_id")
        assert column.has_offset_index and column.has_column_index
    assert file.schema_arrow.equals(schema.EIGHT.frames)
    assert all(not field.nullable for field in file.schema_arrow)
    keys = {key.decode() for key in meta.metadata}
    assert {k for k in keys if k.startswith("emovox.")} == set(
        schema.file_metadata("d", "train", PUBLISHED, "")
    )
    assert "pandas" not in keys
    digest = table_content_sha256(frames_table(counts))
    assert meta.metadata[b"emovox.content_sha256"].decode() == digest


def test_a_damaged_page_is_detected(tmp_path: Path) -> None:
    path = write(tmp_path, "frames", frames_table([5000]))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(OSError, match=r"(?i)crc|checksum|zstd|corrupt"):
        pq.read_table(path, page_checksum_verification=True)


def test_pieces_do_not_change_the_file(tmp_path: Path) -> None:
    table = frames_table([100, 7])
    one, many = (write(tmp_path / str(n), "frames", table, n) for n in (1, 5))
    assert sha256_file(one) == sha256_file(many)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        create_table(tmp_path, "frames", "d", PUBLISHED, "train") as file,
    ):
        file.write(frames_table([3]))
        raise RuntimeError
    assert list((tmp_path / "frames").iterdir()) == []


def test_an_empty_table_can_be_written(tmp_path: Path) -> None:
    with create_table(tmp_path, "dropped", "d", PUBLISHED) as file:
        pass
    assert file.written["rows"] == 0
    assert pq.read_table(tmp_path / "dropped.parquet").schema.equals(schema.DROPPED)


def test_hdf5_has_the_same_values(tmp_path: Path) -> None:
    import h5py

    counts = [70_000, 1, 90_000]
    frames = frames_table(counts)
    write(tmp_path, "frames", frames)
    write(tmp_path, "tracks", tracks_table(counts, "train"))
    written = write_hdf5(tmp_path, "train", PUBLISHED)
    path = tmp_path / written["path"]
    content = ContentHash(schema.EIGHT.frames)
    for part in read_hdf5_frames(path, PUBLISHED, rows=50_000):
        content.update(part)
    assert content.hexdigest() == written["content_sha256"] == table_content_sha256(frames)
    with h5py.File(path) as file:
        logits = file["frames/logits"]
        assert logits.shape == (160_001, 8) and logits.chunks == (1024, 8)
        assert (logits.compression, logits.compression_opts) == ("gzip", 4)
        assert logits.shuffle and logits.fletcher32
        assert file["tracks/offset"][:].tolist() == [0, 70_000, 70_001]
        assert file["tracks/n_frames"][:].tolist() == counts
        assert file["tracks/track_id"].asstr()[1] == "id00001/vidé o/00001"
        expected = np.stack([frames[name].to_numpy() for name in schema.EIGHT.logits], axis=1)
        np.testing.assert_array_equal(logits[:], expected)
        assert file.attrs["emovox.content_sha256"] == written["content_sha256"]


def test_replace_file_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ValueError, match="no"), replace_file(path) as temporary:
        temporary.write_text("half")
        raise ValueError("no")
    assert path.read_text() == "old"
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
