"""MATLAB files, read node by node or whole as Python values.

A node is one value of the file: numbers, characters, a cell or a struct. Cells and structs yield
their nodes one after the other; a node that is not read is skipped without creating Python objects.
MAT level 5 (compressed or not, either byte order) is parsed here, because other readers hold the
whole file in memory; MAT 7.3 is HDF5 and read through h5py.

Format: MathWorks, "MAT-File Format", level 5.
"""

import contextlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emovox.errors import InputError, first_line
from emovox.files import check_expansion, check_storage, kind_of_file, members
from emovox.limits import MAT_NODE, MAX_CELLS, MAX_MAT_ARRAY, MAX_MAT_CONTENT

# Version of a file, by its kind. MATLAB writes a block of text before HDF5; other programs may not.
VERSIONS = {"a MAT 5 file": "5", "a MAT 7.3 file": "7.3", "an HDF5 file": "7.3"}
HEADER_BYTES = 128  # of MAT 5: text, version, byte order
TAG_BYTES = 8  # of a MAT 5 element: type and size
SEPARATOR = b"\0" * 8  # between the cells of MAT 7.3 in `raw`
PIECE = 1 << 20  # bytes inflated or skipped at a time

# Data types of MAT 5 elements.
MI_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
MI_NUMBERS |= {12: "i8", 13: "u8"}
MI_TEXT = {1: "latin-1", 2: "latin-1", 16: "utf-8"}
MI_TEXT |= {4: "utf-16-{}", 17: "utf-16-{}", 18: "utf-32-{}"}  # with the byte order, le or be
MI_MATRIX, MI_COMPRESSED = 14, 15
MI_TYPES = range(1, 19)
# Classes of MAT 5 arrays.
MX_CELL, MX_STRUCT, MX_CHAR, MX_DOUBLE = 1, 2, 4, 6
MX_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
MX_NUMBERS |= {14: "i8", 15: "u8"}
KINDS = dict.fromkeys(MX_NUMBERS, "number")
KINDS |= {MX_CELL: "cell", MX_STRUCT: "struct", MX_CHAR: "char"}
# Number classes of MAT 7.3 other than double -> numpy type.
MAT73_NUMBERS = {"single": "f4", "logical": "?"} | {
    f"{sign}int{8 * size}": f"{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)
}
MAX_DIMS = 32  # of an array of numpy
LOGICAL_FLAG, COMPLEX_FLAG = 0x02, 0x08


# Exceptions that damaged bytes cause in the parsers.
DAMAGE = (
    *(zlib.error, struct.error, OSError, ArithmeticError, AttributeError, LookupError),
    *(MemoryError, RuntimeError, TypeError, ValueError),
)


@contextlib.contextmanager
def open_mat(path: Path) -> "Iterator[Iterator[tuple[str, Node]]]":
    """Open a MAT file and yield its variables in order, each as a name and a node.

    A variable that is not read costs no more than its header, so that iterating over all of them
    checks that the file is complete.

    Raises:
        InputError: the file is missing, damaged, truncated or not a MAT file; also while reading.
    """
    if (kind := kind_of_file(path)) not in VERSIONS:
        raise InputError(f"{path}: expected a MAT file of level 5 or 7.3; found {kind}")
    version = VERSIONS[kind]
    try:
        if version == "5":
            with path.open("rb") as file:
                yield _variables5(file)
        else:
            import h5py

            with h5py.File(path, locking=False) as file:
                yield ((k, _Node73(v, file)) for k, v in members(file) if not k.startswith("#"))
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged MAT {version} file ({first_line(error)})") from error


def read(path: Path) -> dict[str, Any]:
    """Read every variable of a MAT file.

    Structs become dicts, struct arrays lists of dicts, cells lists, characters strings (lists of
    strings where there are several rows); numbers stay arrays of MATLAB's own shape and type,
    in both versions.

    Raises:
        InputError: the file is missing, damaged or not a MAT file.
    """
    budget = [MAX_MAT_CONTENT]
    with open_mat(path) as variables:
        return {name: _plain(node, budget) for name, node in variables}


def _plain(node: "Node", budget: list[int]) -> Any:
    """Return a node as Python values; ValueError if they are larger than the rest of `budget`."""
    budget[0] -= MAT_NODE + (8 * node.size if node.kind in ("number", "char") else 0)
    if budget[0] < 0:
        raise ValueError("has too many values")
    match node.kind:
        case "number":
            return node.array()
        case "char":
            rows = node.rows()
            return rows if len(rows) > 1 else "".join(rows)
        case "cell":
            return [_plain(cell, budget) for cell in node.cells()]
        case "struct":
            records = [{name: _plain(x, budget) for name, x in each} for each in node.records()]
            return records[0] if len(records) == 1 else records
    return None


class _Inflated(io.RawIOBase):
    """The bytes of one compressed element."""

    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self._file, self._left = file, num_bytes
        self._inflater = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = self._file.read(min(PIECE, self._left))
                self._left -= len(packed)
            data = self._inflater.decompress(packed, len(buffer))
            if data or not packed:
                buffer[: len(data)] = data
                return len(data)


class _Stream:
    """Bytes of one top-level element in order, and the elements inside it."""

    def __init__(self, file: BinaryIO, num_bytes: int, order: str, inflate: bool) -> None:
        self.order = order
        self.position = 0
        self._size = math.inf if inflate else num_bytes
        self.file = io.BufferedReader(_Inflated(file, num_bytes), PIECE) if inflate else file

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes; ValueError if there are fewer."""
        self.position += count
        data = self.file.read(count) if self.position <= self._size else b""
        if len(data) < count:
            raise ValueError("truncated inside a variable")
        return data

    def tag(self) -> tuple[int, int, bytes | None]:
        return _parse_tag(self.read(TAG_BYTES), self.order)

    def element(self, limit: int = PIECE) -> tuple[int, bytes]:
        """Return the type and the data of the next element, and skip its padding."""
        kind, count, data = self.tag()
        if count > limit:
            raise ValueError(f"an element claims {count:,} bytes")
        if data is None:
            data = self.read(count)
            self.read(-count % 8)
        return kind, data


def _parse_tag(tag: bytes, order: str) -> tuple[int, int, bytes | None]:
    """Return type and size of an element, and its data if they are inside the tag."""
    kind, count = struct.unpack(order + "II", tag)
    if kind >> 16:
        kind, count = kind & 0xFFFF, kind >> 16
        return kind, count, tag[4 : 4 + count]
    return kind, count, None


def _variables5(file: BinaryIO) -> "Iterator[tuple[str, _Node5]]":
    """Yield the variables of a MAT 5 file; ValueError unless the last one ends with the file."""
    header = file.read(HEADER_BYTES)
    size = os.fstat(file.fileno()).st_size
    if size < HEADER_BYTES + TAG_BYTES:
        raise ValueError("truncated before its first variable")
    order = {b"IM": "<", b"MI": ">"}.get(header[126:], "")
    if not order:
        raise ValueError(f"the byte order mark is {header[126:]!r}")
    truncated = ValueError(f"truncated at {size} bytes, inside a variable")
    end = HEADER_BYTES
    while end < size:
        start = end
        file.seek(start)
        if size - start < TAG_BYTES:
            raise truncated
        kind, count, data = _parse_tag(file.read(TAG_BYTES), order)
        if kind not in MI_TYPES or (data is not None and count > len(data)):
            raise ValueError(f"no variable starts at byte {start}")
        is_packed = kind == MI_COMPRESSED  # the only type without padding to 8 bytes
        end += TAG_BYTES
        if data is None:
            end += count + (0 if is_packed else -count % 8)
        if end > size:
            raise truncated
        if data is not None or kind not in (MI_MATRIX, MI_COMPRESSED):
            continue
        stream = _Stream(file, count, order, is_packed)
        if is_packed:
            kind, count, _ = stream.tag()
        if kind == MI_MATRIX:
            node = _Node5(stream, count)
            yield node.name, node
            if stream.position == node.end:
                stream.file.read(1)  # zlib.error if the checksum that follows differs


class _Node5:
    """One value of a MAT 5 file, to be read before the next one is requested.

    Attributes:
        kind: `number`, `char`, `cell`, `struct`, or `other` for a class without a plain form.
        dims: MATLAB's size, such as `(1, 153486)`; `size` is the number of elements.
    """

    def __init__(self, stream: _Stream, num_bytes: int) -> None:
        self._stream = stream
        self.end = stream.position + num_bytes
        self.name = ""
        self.dims: tuple[int, ...] = (0, 0)
        self._class, self._flags = MX_DOUBLE, 0
        if num_bytes:
            _, flags = stream.element()
            word = struct.unpack(stream.order + "I", flags[:4])[0]
            self._class, self._flags = word & 0xFF, word >> 8 & 0xFF
        self.kind = KINDS.get(self._class, "other")
        if num_bytes and self.kind != "other":
            _, dims = stream.element()
            self.dims = struct.unpack(f"{stream.order}{len(dims) // 4}i", dims)
            if len(self.dims) > MAX_DIMS or min(self.dims, default=0) < 0:
                raise ValueError(f"a value claims {len(self.dims)} dimensions")
            _, name = stream.element()
            self.name = name.decode("latin-1")
        self.size = math.prod(self.dims)

    def array(self) -> np.ndarray:
        """Return the values of a `number`, in MATLAB's shape."""
        dtype = "?" if self._flags & LOGICAL_FLAG else MX_NUMBERS[self._class]
        if not self.size:
            return np.empty(self.dims, dtype)
        if self.size * np.dtype(dtype).itemsize > MAX_MAT_ARRAY:
            raise ValueError(f"an array claims {self.size:,} numbers")
        stored, data = self._stream.element(8 * self.size)
        values = np.frombuffer(data, self._stream.order + MI_NUMBERS[stored])
        if self._flags & COMPLEX_FLAG:
            _, imaginary = self._stream.element(8 * self.size)
            values = values + 1j * np.frombuffer(imaginary, values.dtype)
        else:
            values = values.astype(dtype)
        return values.reshape(self.dims, order="F")

    def rows(self) -> list[str]:
        """Return the rows of a `char`."""
        if not self.size:
            return []
        stored, data = self._stream.element()
        letters = data.decode(MI_TEXT[stored].format("le" if self._stream.order == "<" else "be"))
        if self.dims[0] > len(letters):
            raise ValueError(f"text of {len(letters)} characters claims {self.dims[0]:,} rows")
        return [letters[i :: self.dims[0]] for i in range(self.dims[0])]

    def cells(self) -> "Iterator[_Node5]":
        """Yield the elements of a `cell`, column by column."""
        if self.size > MAX_CELLS:
            raise ValueError(f"a cell array claims {self.size:,} cells")
        return self._nodes(self.size)

    def records(self) -> "Iterator[Iterator[tuple[str, _Node5]]]":
        """Yield the elements of a `struct`, each as the names and values of its fields."""
        _, length = self._stream.element()
        width = struct.unpack(self._stream.order + "i", length)[0]
        _, data = self._stream.element()
        starts = range(0, len(data), width or 1)
        names = [data[i : i + width].split(b"\0")[0].decode("latin-1") for i in starts]
        if not names and self.size > 1:
            raise ValueError(f"a struct without fields claims {self.size:,} elements")
        for _ in range(self.size):
            yield zip(names, self._nodes(len(names)), strict=True)

    def raw(self) -> Iterator[bytes]:
        """Yield the unread rest of the node as pieces of bytes, to be searched."""
        while (left := self.end - self._stream.position) > 0:
            yield self._stream.read(min(left, PIECE))

    def _nodes(self, count: int) -> "Iterator[_Node5]":
        """Yield the next `count` nodes, skipping what is left of each before the next."""
        for _ in range(count):
            _, num_bytes, _ = self._stream.tag()
            node = _Node5(self._stream, num_bytes)
            yield node
            for _ in node.raw():
                pass


class _Node73:
    """One value of a MAT 7.3 file, a group or a dataset of HDF5; used like `_Node5`."""

    def __init__(self, item: Any, file: Any) -> None:
        import h5py

        check_storage(item.name, item)
        self._item, self._file = item, file
        mark = item.attrs.get("MATLAB_class", b"")
        mark = mark.decode() if isinstance(mark, bytes) else str(mark)
        if isinstance(item, h5py.Group):
            self.kind, self.size = "struct", self._num_records()
            self.dims: tuple[int, ...] = (self.size, 1)
            return
        self.kind = "cell" if item.dtype == h5py.ref_dtype else "number"
        if mark in ("char", "cell", "struct"):
            self.kind = mark
        self._type = MAT73_NUMBERS.get(mark, "f8")
        self._is_empty = bool(item.attrs.get("MATLAB_empty", 0))
        dims = item[()] if self._is_empty else reversed(item.shape)
        self.dims = tuple(map(int, dims))
        self.size = math.prod(self.dims)
        check_expansion(item.size * item.dtype.itemsize, item.id.get_storage_size())
        if self._is_empty and (self.size or min(self.dims, default=0) < 0):
            raise ValueError(f"an empty value claims {self.size:,} elements")

    def _num_records(self) -> int:
        """Elements of a struct array, whose fields are arrays of references; 1 for one struct."""
        import h5py

        children = [child for _, child in members(self._item)]
        self._is_array = bool(children) and all(
            isinstance(child, h5py.Dataset)
            and child.dtype == h5py.ref_dtype
            and "MATLAB_class" not in child.attrs
            for child in children
        )
        return children[0].size if self._is_array else 1

    def array(self) -> np.ndarray:
        if self._is_empty:
            return np.empty(self.dims, self._type)
        values = self._item[()].T
        return values.astype(bool) if self._type == "?" else values

    def rows(self) -> list[str]:
        return ["".join(map(chr, row)) for row in self._item[()].T] if self.size else []

    def cells(self) -> "Iterator[_Node73]":
        if self.size:
            for reference in self._item[()].ravel():
                yield _Node73(self._file[reference], self._file)

    def records(self) -> "Iterator[Iterator[tuple[str, _Node73]]]":
        return map(self._fields, range(self.size))

    def _fields(self, i: int) -> "Iterator[tuple[str, _Node73]]":
        for name, child in members(self._item):
            if self._is_array:
                child = self._file[child[()].ravel()[i]]
            yield name, _Node73(child, self._file)

    def raw(self) -> Iterator[bytes]:
        for node in self.cells():
            yield node._item[()].tobytes() + SEPARATOR


Node = _Node5 | _Node73
