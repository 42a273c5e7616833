"""Files that claim more than they hold, are no files, or hold text that controls a terminal."""

import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from validation_fixtures import (
    OUTPUTS,
    TRAIN,
    edit_manifest,
    edit_text,
    path_of,
    read_manifest,
    write_valid,
)

from emovox import matfile
from emovox.cli import main
from emovox.corpus.track_table import read_table
from emovox.corpus.voxceleb import read_boxes, read_names
from emovox.dataset import schema
from emovox.dataset.card import front_matter
from emovox.dataset.json_schemas import faults
from emovox.dataset.reader import load
from emovox.dataset.store import open_table, read_array, read_frames, read_rows
from emovox.dataset.takedown import read_list
from emovox.errors import EmovoxError, InputError, TrackError
from emovox.files import parse_json, read_text, sha256_file
from emovox.ids import TrackKey, printable, printable_text
from emovox.limits import MAX_DOCUMENT, MAX_NESTING

HOSTILE = "a\x1b[2J\x9b2J\u202e\u2028\x7f\r\n::error::x ##[error]y"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture
def dataset(tmp_path: Path, valid: Path) -> Path:
    for path in valid.rglob("*"):
        if path.is_file():
            target = tmp_path / "dataset" / path.relative_to(valid)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "dataset"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def commands(root: Path) -> list[tuple[object, ...]]:
    page = root.parent / "page.html"
    return [
        ("diff", root, root),
        ("card", root),
        ("report", root, "--out", page),
        *(("validate", root, "--format", form) for form in ("text", "json", "junit", "github")),
        ("release", root, "--version", "2.0.0", "--out", root.parent / "release"),
    ]


def read_all(root: Path) -> None:
    for container in ("parquet", "hdf5"):
        for track in load(root, container):
            assert np.isfinite(track.logits).all()


# Documents


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**5, "nested"),
        ("[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1), "nested"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        (r'{"a": "\ud800"}', "surrogates"),
        (r'{"\udfff": 1}', "surrogates"),
        ("9" * 5000, "digits"),
    ],
)
def test_json_that_would_break_its_readers_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_json_of_any_kind_is_read() -> None:
    nested = "[" * MAX_NESTING + "]" * MAX_NESTING
    for text in (nested, "1", '"\\ud83d\\ude00"', '{"a": [1.5, null]}'):
        assert parse_json(text) == json.loads(text)


def test_a_document_has_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(MAX_DOCUMENT + 1)
    with pytest.raises(ValueError, match="more than"):
        read_text(path)
    with pytest.raises(InputError, match="more than"):
        read_list(path)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "alias"),
        ("a: " + "[" * 60 + "]" * 60, "nested"),
        ("a: " + "[" * 20_000, "nested|YAML"),
        ("a: " + "x" * 70_000, "characters"),
        ("a: !!timestamp x", "YAML"),
        ("a: !!bool x", "YAML"),
        ("a: 2001-99-99", "month"),
        ("a: !!python/object:os.system x", "YAML"),
    ],
)
def test_front_matter_that_would_break_its_readers_is_refused(body: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        front_matter(f"---\n{body}\n---\n")


def test_a_schema_is_checked_in_little_time() -> None:
    found = faults("manifest", {"files": [{"path": "a" * 10_000 + "!"}]})
    assert any(line.startswith("files.0.path") for line in found)
    assert len(faults("manifest", {"values": [{}, 1] * 100_000})) <= 1000
    assert len(faults("manifest", {"emotions": [1] * 10_000})) <= 1000


BAD_VALUES: list[Any] = [
    *(None, True, -1, 1.5, 240.0, 10**30, "x", [], {}, [None], HOSTILE, "\ud800"),
    *("../x", "/etc/passwd", ["a"] * 65),
]


def _positions(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, inner in items:
        inner_at = (*at, key)
        found += _positions(inner, inner_at) if isinstance(inner, dict | list) else [inner_at]
    return found


def test_every_mutated_manifest_is_refused_or_read(valid: Path, dataset: Path) -> None:
    manifest, tried = read_manifest(valid), 0
    for position in _positions(manifest):
        for value in BAD_VALUES:
            changed = json.loads(json.dumps(manifest))
            inner = changed
            for key in position[:-1]:
                inner = inner[key]
            inner[position[-1]] = value
            (dataset / schema.MANIFEST).write_text(json.dumps(changed))
            tried += 1
            try:
                found = load(dataset)
                assert str(found).isprintable() and len(found) >= 0
                if tried % 7 == 0:
                    read_all(dataset)
            except InputError as error:
                assert CONTROL.search(str(error)) is None
    assert tried > 300


def test_totals_do_not_make_arrays(dataset: Path) -> None:
    def claim(manifest: dict[str, Any]) -> None:
        manifest["totals"]["by_split"][TRAIN]["frames"] = 10**15

    edit_manifest(dataset, claim)
    with pytest.raises(InputError):
        read_all(dataset)


def _edit_tracks(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = root / path_of("tracks", TRAIN)
    table = pq.read_table(path)
    pq.write_table(change(table).cast(table.schema), path)


def _set(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def apply(table: pa.Table) -> pa.Table:
        values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
        return table.set_column(table.column_names.index(name), table.schema.field(name), values)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        _set("row_offset", lambda rows: [row + 7 for row in rows]),
        _set("row_offset", lambda rows: [-(2**62)] * len(rows)),
        _set("track_id", lambda ids: [ids[1], ids[0], *ids[2:]]),
        _set("n_frames", lambda rows: [2**31 - 1] * len(rows)),
        lambda table: table.slice(1),
        lambda table: table.append_column("track_id", table["track_id"]),
    ],
    ids=["shifted", "negative", "swapped", "counts", "first missing", "column twice"],
)
@pytest.mark.parametrize("own_hash", [False, True])
def test_tracks_of_other_frames_are_refused(dataset: Path, change: Any, own_hash: bool) -> None:
    """Even if the author of the dataset made the hashes fit."""
    path = path_of("tracks", TRAIN)
    table = pq.read_table(dataset / path)
    pq.write_table(change(table), dataset / path)
    if own_hash and change(table).column_names == table.column_names:
        from emovox.dataset.store import ContentHash

        content = ContentHash(load(dataset).columns.tracks)
        content.update(change(table).cast(load(dataset).columns.tracks))

        def fit(manifest: dict[str, Any]) -> None:
            entry = next(file for file in manifest["files"] if file["path"] == path)
            entry["content_sha256"] = content.hexdigest()

        edit_manifest(dataset, fit)
    with pytest.raises(InputError, match=r"emovox validate|cannot read"):
        read_all(dataset)


# Tables


def write_table(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


def repeated(text: str, num: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(num, np.int32)), pa.array([text]))


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"path": repeated("x" * 10**6, 10**5), "label": repeated("a", 10**5)}),
        pa.table({"path": np.zeros(2 * 10**7, np.int64), "label": repeated("", 2 * 10**7)}),
    ],
    ids=["dictionary", "rows"],
)
def test_a_table_that_expands_is_refused(tmp_path: Path, table: pa.Table) -> None:
    path = write_table(tmp_path / "t.parquet", table, row_group_size=10**8)
    assert path.stat().st_size < 10**7
    with pytest.raises(InputError, match="claims"):
        read_table(path, ("path", "label"))
    with pytest.raises(ValueError, match="claims"):
        read_rows(path)


def test_a_table_has_the_rows_of_its_groups(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", pa.table({"a": ["x"] * 10}))
    assert read_rows(path).equals(pa.table({"a": ["x"] * 10}))


@pytest.mark.parametrize("text", [b"path," * 10**6, b"path,label\n\xff,\n"])
def test_a_csv_of_absurd_lines_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(InputError):
        read_table(tmp_path / "t.csv", ("path", "label"))


def test_arrays_of_hdf5_hold_what_they_claim(tmp_path: Path, dataset: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("rows", (10**12,), "i4", chunks=(1024,))
        file.create_dataset("chunk", data=np.zeros(3, "i4"), maxshape=(None,), chunks=(10**8,))
        for name in ("rows", "chunk"):
            with pytest.raises(ValueError, match=r"claims|chunks"):
                read_array(file, name)
    with h5py.File(dataset / schema.hdf5_file(TRAIN), "r+") as file:
        file["tracks/n_frames"][:] = 2**31 - 1
    with pytest.raises(InputError, match="numbers of frames"):
        list(read_frames(dataset, TRAIN, "hdf5", OUTPUTS))
    assert run("validate", dataset).exit_code == 1


# MAT files


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(kind: int, dims: tuple[int, ...], body: bytes) -> bytes:
    flags, sizes = struct.pack("<II", kind, 0), struct.pack(f"<{len(dims)}i", *dims)
    content = element(6, flags) + element(5, sizes) + element(1, b"net") + body
    return struct.pack("<II", 14, len(content)) + content


def mat(variable: bytes, *, packed: bool = False) -> bytes:
    if packed:
        data = zlib.compress(variable, 9)
        variable = struct.pack("<II", 15, len(data)) + data
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + variable


HUGE = 2**31 - 1
NO_FIELDS = element(5, struct.pack("<i", 32)) + element(1, b"")


def nested(depth: int) -> bytes:
    inner = matrix(6, (1, 1), element(9, bytes(8)))
    for _ in range(depth):
        inner = matrix(1, (1, 1), inner)
    return inner


@pytest.mark.parametrize(
    "content",
    [
        mat(matrix(2, (HUGE, HUGE), NO_FIELDS)),
        mat(matrix(1, (HUGE, 2), b"")),
        mat(matrix(6, (HUGE, HUGE), element(9, b""))),
        mat(matrix(6, (-1, -5), element(9, bytes(40)))),
        mat(matrix(6, (2,) * 3000, element(9, bytes(8)))),
        mat(matrix(4, (HUGE, 1), element(16, b"a"))),
        mat(matrix(6, (4 * 10**7, 4), element(1, bytes(10**7))), packed=True),
        mat(matrix(1, (10**6, 1), struct.pack("<II", 14, 0) * 10**6), packed=True),
        mat(nested(2000)),
    ],
    ids=["no fields", "cells", "numbers", "negative", "dims", "rows", "array", "nodes", "depth"],
)
def test_values_of_a_mat_file_hold_what_they_claim(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged MAT 5 file"):
        matfile.read(path)


@pytest.mark.parametrize("kind", ["shape", "empty", "copies", "cycle"])
def test_values_of_mat_7_hold_what_they_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(matfile, "MAX_MAT_CONTENT", 2**26)
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        if kind == "shape":
            file.create_dataset("net", (10**7, 10**6), "f8", chunks=(100, 100))
        elif kind == "empty":
            file.create_dataset("net", data=np.array([2**40, 2**40], "u8")).attrs[
                "MATLAB_empty"
            ] = 1
        elif kind == "cycle":
            cell = file.create_dataset("net", (2,), h5py.ref_dtype)
            cell[:] = [cell.ref] * 2
        else:  # 10 ** 9 of them
            value = file.create_dataset("#refs#/a", data=np.zeros(3))
            for name in [*(f"#refs#/{k}" for k in range(8)), "net"]:
                references, value = (
                    [value.ref] * 10,
                    file.create_dataset(name, (10,), h5py.ref_dtype),
                )
                value[:] = references
    with pytest.raises(InputError, match=r"damaged MAT 7\.3 file"):
        matfile.read(path)


# FIFOs, sockets and devices


@pytest.mark.parametrize("place", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_nothing_waits_for_a_fifo_or_a_device(
    tmp_path: Path, dataset: Path, place: Callable[[Path], object]
) -> None:
    other = tmp_path / "other"
    place(other)
    for read in (sha256_file, read_list, read_names, read_text, matfile.read, open_table):
        with pytest.raises((EmovoxError, OSError)):
            read(other)
    with pytest.raises(TrackError):
        read_boxes(other, "a.txt")
    with pytest.raises(InputError):
        read_table(other, ())
    names = [*map(schema.table_file, ("frames", "tracks"), [TRAIN] * 2), schema.hdf5_file(TRAIN)]
    for name in (*names, schema.CARD, schema.PROVENANCE, schema.CHECKSUMS, schema.MANIFEST):
        content = (dataset / name).read_bytes()
        (dataset / name).unlink()
        place(dataset / name)
        assert run("validate", dataset).exit_code in (1, 2)
        assert run("diff", dataset, dataset).exit_code in (1, 2)
        assert run("card", dataset, "--check").exit_code in (0, 2)
        (dataset / name).unlink()
        (dataset / name).write_bytes(content)


# Text


def test_text_is_made_safe() -> None:
    assert printable("a\x1b\n\u202e\udcff") == r"a\x1b\x0a\u202e\udcff"
    assert printable("Zoë 日本 👍🏽\u200d") == "Zoë 日本 👍🏽\u200d"
    assert printable_text("a\n  ::error::x\tb") == "a\n  \\u003a:error::x\tb"
    assert printable_text("::x", has_commands=True) == "::x"
    record = json.dumps({"a": HOSTILE})
    assert json.loads(printable_text(record)) == {"a": HOSTILE}
    assert "##[" not in printable_text(record) and "\x7f" not in printable_text(record)


def test_long_names_are_refused() -> None:
    TrackKey("a" * 4096, "b", 1).check()
    with pytest.raises(TrackError, match="4096"):
        TrackKey("a" * 4097, "b", 1).check()


def _check_output(result: Result) -> None:
    text = result.stdout + result.stderr
    assert not CONTROL.search(text.replace("\t", "")), text
    assert "::error::x" not in [line.strip() for line in text.splitlines()] and "##[" not in text


@pytest.mark.parametrize("key", ["name", "version", "created"])
def test_texts_of_a_manifest_control_nothing(dataset: Path, key: str) -> None:
    edit_manifest(dataset, lambda manifest: manifest.update({key: HOSTILE}))
    for command in commands(dataset):
        result = run(*command)
        assert result.exit_code in (1, 2)
        _check_output(result)


def test_texts_of_other_documents_control_nothing(dataset: Path) -> None:
    hostile = json.dumps(HOSTILE)[1:-1]
    edit_text(dataset, schema.PROVENANCE, lambda t: t.replace("Made by a test.", hostile))
    edit_text(dataset, schema.CARD, lambda t: t.replace("pretty_name:", f'"{hostile}": x\n#'))
    edit_text(dataset, schema.CHECKSUMS, lambda t: t + f"{HOSTILE}\n")
    for command in commands(dataset):
        _check_output(run(*command))
    _check_output(run("card", dataset, "--check"))


def test_ids_of_tracks_control_nothing(tmp_path: Path, dataset: Path) -> None:
    _edit_tracks(dataset, _set("track_id", lambda ids: [HOSTILE, *ids[1:]]))
    (dataset / HOSTILE.replace("/", "")).write_text("x")
    for command in commands(dataset):
        _check_output(run(*command))


def test_names_of_files_control_nothing(tmp_path: Path) -> None:
    for command in (("validate",), ("card",), ("import-mat",), ("probe", "egemaps")):
        options = ("--out", tmp_path / "out") if command[0] == "import-mat" else ()
        result = run(*command, tmp_path / HOSTILE.replace("\x00", ""), *options)
        assert result.exit_code == 2
        _check_output(result)
