"""MATLAB files as plain Python: MAT level 5 (zlib or not) and MAT 7.3, which is HDF5.

Structs become dicts, struct arrays lists of dicts, cells lists, characters strings; numbers stay
arrays of MATLAB's own shape and type, whichever container they came in. And the networks that
MatConvNet saves in such files.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emovox.errors import InputError

MAT5_MAGIC = b"MATLAB 5.0 MAT-file"
MAT73_MAGIC = b"MATLAB 7.3 MAT-file"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Classes of numbers that are not doubles -> their types.
NUMBER_TYPES = {"single": "float32", "logical": "bool"} | {
    f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def read(path: Path) -> dict[str, Any]:
    """Read every variable of a MAT file.

    Raises:
        InputError: the file is missing, cut short, or no MAT file.
    """
    kind = mat_version(path)
    try:
        return _read_mat5(path) if kind == "5" else _read_mat73(path)
    except InputError:
        raise
    except Exception as error:  # scipy and h5py raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: damaged MAT {kind} file ({reason})") from error


def mat_version(path: Path) -> str:
    """`5` or `7.3`, by looking at the file.

    Raises:
        InputError: it is missing or neither of the two.
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if head.startswith(MAT5_MAGIC):
        return "5"
    # MATLAB puts a block of text before the HDF5 file; other programs may not.
    if head.startswith((MAT73_MAGIC, HDF5_MAGIC)):
        return "7.3"
    raise InputError(f"{path}: expected a MAT file of level 5 or 7.3; it starts with {head!r}")


def _read_mat5(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    # MATLAB stores whole doubles in fewer bytes; mat_dtype makes them doubles again.
    content = loadmat(path, mat_dtype=True, squeeze_me=False, chars_as_strings=True)
    return {k: _plain(v) for k, v in content.items() if not k.startswith("__")}


def _plain(value: Any) -> Any:
    """scipy's arrays of records and of objects as dicts and lists."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names is not None:
        records = [
            {name: _plain(record[name]) for name in value.dtype.names}
            for record in value.ravel(order="F")
        ]
        return records[0] if len(records) == 1 else records
    if value.dtype == object:
        return [_plain(item) for item in value.ravel(order="F")]
    if value.dtype.kind == "U":
        rows = [str(row) for row in value.ravel()]
        return rows if len(rows) > 1 else "".join(rows)
    return value


def _read_mat73(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        return {k: _plain73(v, file) for k, v in file.items() if not k.startswith("#")}


def _plain73(node: Any, file: Any) -> Any:
    import h5py

    if isinstance(node, h5py.Group):
        fields = {name: _plain73(child, file) for name, child in node.items()}
        refers = [
            isinstance(child, h5py.Dataset)
            and child.dtype == h5py.ref_dtype
            and "MATLAB_class" not in child.attrs
            for child in node.values()
        ]
        if refers and all(refers):  # a struct array: each field is an array of references
            return [
                dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)
            ]
        return fields
    kind = _class_of(node)
    if node.attrs.get("MATLAB_empty", 0):
        if kind in ("char", "cell", "struct"):
            return "" if kind == "char" else []
        return np.zeros(node[()].astype(int), NUMBER_TYPES.get(kind, "float64"))
    if node.dtype == h5py.ref_dtype:
        return [_plain73(file[reference], file) for reference in node[()].T.ravel(order="F")]
    values = node[()].T
    if kind == "char":
        rows = ["".join(map(chr, row)) for row in values]
        return rows if len(rows) > 1 else "".join(rows)
    return values.astype(bool) if kind == "logical" else values


def _class_of(node: Any) -> str:
    kind = node.attrs.get("MATLAB_class", b"")
    return kind.decode() if isinstance(kind, bytes) else str(kind)


@dataclass(frozen=True)
class Layer:
    """One layer with weights of a MatConvNet DagNN.

    Attributes:
        name: with `_` where the file has `/`.
        type: such as `dagnn.Conv`.
        weights: in MatConvNet's order and layout: filters `[height, width, in, out]` and biases of
            a convolution; scale, shift and moments `[channels, 2]` (mean, deviation) of a batch
            normalisation.
    """

    name: str
    type: str
    weights: tuple[np.ndarray, ...]


def read_dagnn(path: Path) -> list[Layer]:
    """Read the layers with weights of a network saved by MatConvNet's `dagnn.DagNN.saveobj`.

    Raises:
        InputError: no MAT file, or no such network in it.
    """
    content = read(path)
    net = content.get("net", content)
    try:
        values = {p["name"]: np.asarray(p["value"]) for p in _records(net["params"])}
        layers = [(x["name"], x["type"], _names(x["params"])) for x in _records(net["layers"])]
        return [
            Layer(name.replace("/", "_"), kind, tuple(values[p] for p in parameters))
            for name, kind, parameters in layers
            if parameters
        ]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        found = ", ".join(content) or "nothing"
        raise InputError(
            f"{path}: expected a MatConvNet DagNN with layers and params; found the variables "
            f"{found} ({type(error).__name__}: {error})"
        ) from error


def _records(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [value]


def _names(value: Any) -> list[str]:
    """The parameter names of a layer: a cell of strings, one string, or an empty array."""
    if isinstance(value, str):
        return [value] if value else []
    return list(value) if isinstance(value, list) else []
