"""MAT files of both versions: 5 as scipy writes it, 7.3 in the layout of MATLAB."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from oracles import oracle

from emovox import matfile
from emovox.errors import InputError
from emovox.files import kind_of_file

scipy_io = oracle("scipy.io")

# Type of numpy -> class of MATLAB, where the names differ.
CLASSES = {"float64": "double", "float32": "single", "bool": "logical", "object": "cell"}


class Hdf5Writer:
    """Writer of the files of MATLAB's `save -v7.3`, for the values that `savemat` accepts."""

    def __init__(self, path: Path, variables: dict[str, Any]) -> None:
        with h5py.File(path, "w", userblock_size=512) as self.file:
            self.num_references = 0
            for name, value in variables.items():
                self.put(self.file, name, value)
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 ."
        with path.open("rb+") as head:
            head.write(text.ljust(124) + b"\x00\x02IM")

    def put(self, parent: Any, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            node = parent.create_group(name)
            node.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, inner in value.items():
                self.put(node, field, inner)
            return node
        array = _codes(value) if _is_text(value) else np.atleast_2d(value)
        fields = array.dtype.names or ()
        kind = CLASSES.get(str(array.dtype), str(array.dtype))
        kind = "char" if _is_text(value) else "struct" if fields else kind
        if array.size == 0:
            node = parent.create_dataset(name, data=np.array(array.shape, np.uint64))
            node.attrs["MATLAB_empty"] = np.uint8(1)
        elif kind == "struct" and array.size == 1:
            return self.put(parent, name, dict(zip(fields, array.item(), strict=True)))
        elif kind == "struct":
            node = parent.create_group(name)
            for field in fields:  # these have no MATLAB_class
                node.create_dataset(field, data=self.references(array[field]))
        elif kind == "cell":
            node = parent.create_dataset(name, data=self.references(array))
        else:
            stored = array.astype(np.uint8) if kind == "logical" else array
            node = parent.create_dataset(name, data=stored.T)
        node.attrs["MATLAB_class"] = np.bytes_(kind)
        return node

    def references(self, values: np.ndarray) -> np.ndarray:
        shelf = self.file.require_group("#refs#")
        found = np.empty(values.T.shape, h5py.ref_dtype)
        for place, value in np.ndenumerate(values.T):
            self.num_references += 1
            found[place] = self.put(shelf, f"r{self.num_references}", value).ref
        return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or getattr(value, "dtype", np.dtype("f4")).kind == "U"


def _codes(text: Any) -> np.ndarray:
    """Return the UTF-16 codes of one row per string; shorter strings are padded with blanks."""
    rows = np.atleast_1d(text).tolist()
    width = max(map(len, rows))
    codes = [np.frombuffer(row.ljust(width).encode("utf-16-le"), np.uint16) for row in rows]
    return np.stack(codes) if width else np.empty((0, 0), np.uint16)


WRITERS: dict[str, Callable[[Path, dict[str, Any]], object]] = {
    "5": lambda path, variables: scipy_io.savemat(path, variables),
    "5-zlib": lambda path, variables: scipy_io.savemat(path, variables, do_compression=True),
    "7.3": Hdf5Writer,
}
containers = pytest.mark.parametrize("container", WRITERS)


def write(path: Path, container: str, variables: dict[str, Any]) -> Path:
    WRITERS[container](path, variables)
    return path


def cell(*items: Any) -> np.ndarray:
    array = np.empty((1, len(items)), object)
    array[0, :] = items
    return array


def structs(*records: dict[str, Any]) -> np.ndarray:
    array = np.empty((1, len(records)), [(name, object) for name in records[0]])
    for i, record in enumerate(records):
        array[0, i] = tuple(record.values())
    return array


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected), (found, expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_same(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


ONE = np.array([[1.0]])
TWO = np.array([[2.0]])
GRID = np.arange(6.0).reshape(2, 3)
NOTHING = np.empty((0, 0))

# Stored values, and the values that are read.
VALUES: dict[str, tuple[Any, Any]] = {
    "doubles": (GRID, GRID),
    "scalar": (2.5, np.array([[2.5]])),
    "singles": (GRID.astype(np.float32), GRID.astype(np.float32)),
    "integers": (GRID.astype(np.int32), GRID.astype(np.int32)),
    "bytes": (GRID.astype(np.uint8), GRID.astype(np.uint8)),
    "logicals": (GRID > 2, GRID > 2),
    "column": (GRID.reshape(6, 1), GRID.reshape(6, 1)),
    "filters": (np.arange(120.0).reshape(2, 3, 4, 5), np.arange(120.0).reshape(2, 3, 4, 5)),
    "text": ("conv1/7x7_s2", "conv1/7x7_s2"),
    "one-character": ("a", "a"),
    "blanks": (" a b ", " a b "),
    "accents": ("Zoé 人", "Zoé 人"),
    "rows-of-text": (np.array(["one", "three"]), ["one  ", "three"]),
    "cell": (cell("a", GRID, cell("b")), ["a", GRID, ["b"]]),
    "cell-of-one": (cell("a"), ["a"]),
    "cell-column": (cell("a", "b", "c").T, ["a", "b", "c"]),
    "cell-grid": (np.array([["a", "b"], ["c", "d"]], object), ["a", "c", "b", "d"]),
    "struct": ({"a": GRID, "b": "text"}, {"a": GRID, "b": "text"}),
    "nested": ({"a": {"b": {"c": "deep"}, "d": ONE}}, {"a": {"b": {"c": "deep"}, "d": ONE}}),
    "struct-of-cells": ({"a": cell("x"), "b": cell("y", ONE)}, {"a": ["x"], "b": ["y", ONE]}),
    "structs": (
        structs({"a": ONE, "b": "x"}, {"a": TWO, "b": cell("y", "z")}),
        [{"a": ONE, "b": "x"}, {"a": TWO, "b": ["y", "z"]}],
    ),
    "one-field": (structs({"a": ONE}, {"a": "x"}), [{"a": ONE}, {"a": "x"}]),
    "structs-of-one": (structs({"a": ONE, "b": "x"}), {"a": ONE, "b": "x"}),
    "structs-in-structs": (
        structs({"a": structs({"b": ONE}, {"b": TWO})}, {"a": {"b": GRID}}),
        [{"a": [{"b": ONE}, {"b": TWO}]}, {"a": {"b": GRID}}],
    ),
    "no-doubles": (NOTHING, NOTHING),
    "no-singles": (np.empty((0, 8), np.float32), np.empty((0, 8), np.float32)),
    "no-text": ("", ""),
    "no-cells": (np.empty((0, 0), object), []),
    "no-structs": (structs({"a": ONE})[:, :0], []),
    "empties": (
        structs({"a": "", "b": NOTHING}, {"a": cell(NOTHING, ""), "b": np.empty((0, 0), object)}),
        [{"a": "", "b": NOTHING}, {"a": [NOTHING, ""], "b": []}],
    ),
}


@containers
@pytest.mark.parametrize("name", VALUES)
def test_values_do_not_depend_on_the_container(tmp_path: Path, container: str, name: str) -> None:
    stored, plain = VALUES[name]
    path = write(tmp_path / "file.mat", container, {"x": stored, "other": "text"})
    assert matfile.VERSIONS[kind_of_file(path)] == container.removesuffix("-zlib")
    assert_same(matfile.read(path), {"x": plain, "other": "text"})


def test_integral_doubles_that_matlab_stores_in_fewer_bytes(tmp_path: Path) -> None:
    """MATLAB stores integral doubles as bytes where they fit; they are read as doubles."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    uint8, int32, uint32, matrix, double = 2, 5, 6, 14, 6
    array = [
        element(uint32, struct.pack("<II", double, 0)),
        element(int32, struct.pack("<ii", 1, 3)),
        element(1, b"x"),
        element(uint8, bytes([1, 2, 250])),
    ]
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "file.mat").write_bytes(head + element(matrix, b"".join(array)))
    assert_same(matfile.read(tmp_path / "file.mat"), {"x": np.array([[1.0, 2.0, 250.0]])})


def test_unset_cells_of_mat_73_are_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "file.mat", "7.3", {"x": cell("a", NOTHING)})
    with h5py.File(path, "r+") as file:
        file["#refs#/r2"].attrs["MATLAB_class"] = np.bytes_("canonical empty")
    assert_same(matfile.read(path), {"x": ["a", NOTHING]})


def test_hdf5_without_the_block_of_matlab(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.mat", "w") as file:
        file["x"] = GRID.T
    assert_same(matfile.read(tmp_path / "file.mat"), {"x": GRID})


def refusal(path: Path, reader: Callable[[Path], object] = matfile.read) -> str:
    """Return the message of a refused file: one line with its path."""
    with pytest.raises(InputError) as error:
        reader(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


@containers
def test_a_truncated_file_is_refused(tmp_path: Path, container: str) -> None:
    values = {"a": np.random.default_rng(0).normal(size=50), "b": cell("x", "y")}
    whole = write(tmp_path / "whole.mat", container, {"x": values}).read_bytes()
    cut = tmp_path / "cut.mat"
    for size in (*range(0, 128, 7), *range(129, len(whole), len(whole) // 40), len(whole) - 1):
        cut.write_bytes(whole[:size])
        message = refusal(cut)
        assert size < 20 or f"damaged MAT {container.removesuffix('-zlib')} file" in message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>\n<html>\n<body>Not Found", "an HTML page"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\0" * 1000, "a file of unknown kind"),
        (b"MATLAB 5", "text"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "file.mat"
    path.write_bytes(content)
    assert f"expected a MAT file of level 5 or 7.3; found {kind}" in refusal(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.mat")
    assert "Is a directory" in refusal(tmp_path)


def param(name: str, value: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "learningRate": 1.0}


def read_dagnn(path: Path) -> Any:
    """Read a network; skips in the core installation."""
    pytest.importorskip("torch", reason="the extra `build` is not installed")
    from emovox import checkpoints

    return checkpoints.read_dagnn(path)


def layer(name: str, kind: str, params: Any) -> dict[str, Any]:
    block = {"size": GRID, "hasBias": True, "opts": cell("cuDNN")}
    ends = {"inputs": cell("data"), "outputs": cell(name)}
    return {"name": name, "type": kind, **ends, "params": params, "block": block}


NO_PARAMS = np.empty((0, 0), object)
FILTERS = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
BIASES = np.arange(4, dtype=np.float32).reshape(4, 1)
MOMENTS = np.arange(8, dtype=np.float32).reshape(4, 2)
NETWORK = {
    "vars": structs({"name": "data"}, {"name": "conv1/7x7"}),
    # Not in the order of the layers, and one without a layer.
    "params": structs(
        param("shift", BIASES),
        param("moments", MOMENTS),
        param("unused", GRID),
        param("w1", FILTERS),
        param("b1", BIASES + 1),
        param("scale", BIASES + 2),
        param("w2", FILTERS + 1),
    ),
    "layers": structs(
        layer("conv1/7x7", "dagnn.Conv", cell("w1", "b1")),
        layer("conv1/7x7/bn", "dagnn.BatchNorm", cell("scale", "shift", "moments")),
        layer("relu1", "dagnn.ReLU", NO_PARAMS),
        layer("conv2", "dagnn.Conv", cell("w2")),
        layer("conv3", "dagnn.Conv", "w2"),
        layer("pool", "dagnn.Pooling", NOTHING),
    ),
    "meta": {"normalization": {"imageSize": GRID, "averageImage": NOTHING}},
}


@containers
@pytest.mark.parametrize("nested", [False, True])
def test_a_network(tmp_path: Path, container: str, nested: bool) -> None:
    path = write(tmp_path / "net.mat", container, {"net": NETWORK} if nested else NETWORK)
    layers = read_dagnn(path)
    assert [(x.name, x.type) for x in layers] == [
        ("conv1_7x7", "dagnn.Conv"),
        ("conv1_7x7_bn", "dagnn.BatchNorm"),
        ("conv2", "dagnn.Conv"),
        ("conv3", "dagnn.Conv"),
    ]
    expected = [
        [FILTERS, BIASES + 1],
        [BIASES + 2, BIASES, MOMENTS],
        [FILTERS + 1],
        [FILTERS + 1],
    ]
    assert_same([list(x.weights) for x in layers], expected)


@containers
def test_a_network_of_one_layer(tmp_path: Path, container: str) -> None:
    network = {
        "params": structs(param("w", FILTERS)),
        "layers": structs(layer("only", "dagnn.Conv", cell("w"))),
    }
    (only,) = read_dagnn(write(tmp_path / "net.mat", container, network))
    assert only.name == "only"
    assert_same(list(only.weights), [FILTERS])


@containers
def test_a_simple_network(tmp_path: Path, container: str) -> None:
    conv = {"type": "conv", "name": "conv1", "weights": cell(FILTERS, BIASES)}
    network = {"net": {"layers": cell(conv, {"type": "relu", "name": "relu1"})}}
    (only,) = read_dagnn(write(tmp_path / "net.mat", container, network))
    assert (only.name, only.type) == ("conv1", "dagnn.Conv")
    assert_same(list(only.weights), [FILTERS, BIASES])


NO_NETWORKS: dict[str, dict[str, Any]] = {
    "numbers": {"logits": GRID, "net": GRID},
    "text": {"net": "resnet"},
    "list": {"net": structs({"layers": ONE}, {"layers": TWO})},
    "without-params": {"layers": NETWORK["layers"]},
    "simple-without-weights": {"net": {"layers": cell({"type": "relu", "name": "relu1"})}},
    "unknown-param": {**NETWORK, "params": structs(param("w1", FILTERS))},
    "nameless": {**NETWORK, "layers": structs(layer("", "", cell("w1")) | {"name": ONE})},
    "bare-layers": {**NETWORK, "layers": cell("conv1", "relu1")},
}


@containers
@pytest.mark.parametrize("name", NO_NETWORKS)
def test_other_content_is_not_a_network(tmp_path: Path, container: str, name: str) -> None:
    content = NO_NETWORKS[name]
    message = refusal(write(tmp_path / "net.mat", container, content), read_dagnn)
    assert "expected a MatConvNet DagNN with layers and params" in message
    assert all(variable in message for variable in content)
