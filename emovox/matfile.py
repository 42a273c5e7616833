"""MATLAB files: as a stream of nodes, or whole as plain Python values.

A node is a value in the file: numbers, characters, a cell or a struct. Cells and structs give
their parts in turn; what is not read is skipped without being made into Python objects. MAT level 5
(compressed or not, either byte order) is parsed here, because what reads it elsewhere holds all of
it at once; MAT 7.3 is HDF5 and read through h5py.

Format: MathWorks, "MAT-File Format", level 5.
"""

import contextlib
import math
import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emovox.errors import InputError

MAT5_MAGIC = b"MATLAB 5.0 MAT-file"
MAT73_MAGIC = b"MATLAB 7.3 MAT-file"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HEADER_BYTES = 128  # of MAT 5: text, version, byte order
SEPARATOR = b"\0" * 8  # between the cells of MAT 7.3, when they are searched
PIECE = 1 << 20  # bytes inflated or skipped at a time

# Data types of MAT 5 elements.
MI_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
MI_NUMBERS |= {12: "i8", 13: "u8"}
MI_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
MI_MATRIX, MI_COMPRESSED = 14, 15
# Classes of MAT 5 arrays.
MX_CELL, MX_STRUCT, MX_CHAR = 1, 2, 4
MX_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
MX_NUMBERS |= {14: "i8", 15: "u8"}
KINDS = dict.fromkeys(MX_NUMBERS, "number")
KINDS |= {MX_CELL: "cell", MX_STRUCT: "struct", MX_CHAR: "char"}
# Classes of numbers in MAT 7.3 that are not doubles -> their types.
MAT73_NUMBERS = {"single": "f4", "logical": "?"} | {
    f"{sign}int{8 * size}": f"{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)
}
LOGICAL_FLAG, COMPLEX_FLAG = 0x02, 0x08


# What damaged bytes make of parsing.
DAMAGE = (
    *(zlib.error, struct.error, OSError, ArithmeticError, AttributeError, LookupError),
    *(MemoryError, RuntimeError, TypeError, ValueError),
)


class Node(ABC):
    """One value of a MAT file, to be read before the next one is asked for.

    Attributes:
        kind: `number`, `char`, `cell`, `struct`, or `other` for what has no plain form.
        dims: MATLAB's size, such as `(1, 153486)`.
    """

    kind: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @abstractmethod
    def array(self) -> np.ndarray:
        """The values of a `number`, in MATLAB's shape."""

    @abstractmethod
    def rows(self) -> list[str]:
        """The rows of a `char`."""

    def text(self) -> str:
        """The characters of a `char`, row after row."""
        return "".join(self.rows())

    @abstractmethod
    def cells(self) -> "Iterator[Node]":
        """The parts of a `cell`, column by column."""

    @abstractmethod
    def fields(self) -> "Iterator[tuple[str, Node]]":
        """Name and value of the fields of a `struct`, element after element."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The field names of a `struct`."""

    @abstractmethod
    def raw(self) -> Iterator[bytes]:
        """What is left of the node as pieces of bytes, to be searched."""

    def plain(self) -> Any:
        """The whole node as Python values: arrays, strings, lists for cells, dicts for structs."""
        if self.kind == "number":
            return self.array()
        if self.kind == "char":
            rows = self.rows()
            return rows if len(rows) > 1 else "".join(rows)
        if self.kind == "cell":
            return [cell.plain() for cell in self.cells()]
        if self.kind == "struct":
            names = self.names()
            values = [value.plain() for _, value in self.fields()]
            step = len(names)
            records = [
                dict(zip(names, values[i : i + step], strict=True))
                for i in range(0, step * self.size, step or 1)
            ]
            return records[0] if len(records) == 1 else records
        return None


@contextlib.contextmanager
def open_mat(path: Path) -> Iterator[Iterator[tuple[str, Node]]]:
    """Open a MAT file and give its variables in turn, each as a name and a node.

    Raises:
        InputError: the file is missing, cut short, or no MAT file; also while it is read.
    """
    version = mat_version(path)
    try:
        if version == "5":
            with path.open("rb") as file:
                yield _variables5(file)
        else:
            import h5py

            with h5py.File(path) as file:
                nodes = ((k, _Node73(v, file)) for k, v in file.items() if not k.startswith("#"))
                yield nodes
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: damaged MAT {version} file ({reason})") from error


def read(path: Path) -> dict[str, Any]:
    """Read every variable of a MAT file.

    Structs become dicts, struct arrays lists of dicts, cells lists, characters strings (lists of
    strings where there are several rows); numbers stay arrays of MATLAB's own shape and type,
    whichever container they came in.

    Raises:
        InputError: the file is missing, cut short, or no MAT file.
    """
    with open_mat(path) as variables:
        return {name: node.plain() for name, node in variables}


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


class _Stream:
    """Bytes in order, from a file or from a compressed element of it."""

    def __init__(self, file: BinaryIO, num_bytes: int, order: str, inflate: bool) -> None:
        self.order = order
        self._file, self._left = file, num_bytes
        self._inflater = zlib.decompressobj() if inflate else None
        self._buffer, self._start = b"", 0
        self.position = 0

    def read(self, count: int) -> bytes:
        """The next `count` bytes; ValueError where there are fewer."""
        while len(self._buffer) - self._start < count:
            self._fill(count)
        start = self._start
        self._start = start + count
        self.position += count
        return self._buffer[start : start + count]

    def skip(self, count: int) -> None:
        for _ in self.pieces(count):
            pass

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes, in pieces."""
        while count > 0:
            if self._start == len(self._buffer):
                self._fill(1)
            piece = self._buffer[self._start : self._start + count]
            self._start += len(piece)
            self.position += len(piece)
            count -= len(piece)
            yield piece

    def _fill(self, count: int) -> None:
        rest = self._buffer[self._start :]
        wanted = max(PIECE, count - len(rest))
        if self._inflater is None:
            more = self._file.read(min(wanted, self._left))
            self._left -= len(more)
        else:
            more = self._inflate(wanted)
        if not more:
            raise ValueError("the file ends too early")
        self._buffer, self._start = rest + more, 0

    def _inflate(self, wanted: int) -> bytes:
        inflater = self._inflater
        assert inflater is not None
        while True:
            packed = inflater.unconsumed_tail
            if not packed and not inflater.eof:
                packed = self._file.read(min(PIECE, self._left))
                self._left -= len(packed)
            more = inflater.decompress(packed, wanted)
            if more or inflater.eof or not packed:
                return more

    def finish(self) -> None:
        """Take in what follows the last byte of a compressed element: its checksum."""
        if self._inflater is not None:
            self._inflate(PIECE)  # raises where the checksum is another

    def tag(self) -> tuple[int, int, bytes | None]:
        """Type and size of the next element, and its data if they are inside the tag."""
        head = self.read(8)
        kind, count = struct.unpack(self.order + "II", head)
        if kind >> 16:  # up to four bytes, in the tag itself
            return kind & 0xFFFF, kind >> 16, head[4 : 4 + (kind >> 16)]
        return kind, count, None

    def element(self) -> tuple[int, bytes]:
        """Type and data of the next element, and past its padding."""
        kind, count, data = self.tag()
        if data is None:
            data = self.read(count)
            self.read(-count % 8)
        return kind, data


def _variables5(file: BinaryIO) -> Iterator[tuple[str, Node]]:
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise ValueError("the file ends inside its header")
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128], "")
    if not order:
        raise ValueError(f"the byte order mark is {header[126:128]!r}")
    size = os.fstat(file.fileno()).st_size
    while head := file.read(8):
        kind, count = struct.unpack(order + "II", head)
        end = file.tell() + count
        if end > size:
            raise ValueError("the file ends too early")
        stream = _Stream(file, count, order, inflate=kind == MI_COMPRESSED)
        if kind == MI_COMPRESSED:
            kind, count, _ = stream.tag()
        if kind == MI_MATRIX:
            node = _Node5(stream, count)
            yield node.name, node
            node.check()
        file.seek(end)


class _Node5(Node):
    def __init__(self, stream: _Stream, num_bytes: int) -> None:
        self._stream = stream
        self._end = stream.position + num_bytes
        self.name = ""
        self.dims = (0, 0)
        self.kind, self._class, self._flags = "number", 6, 0
        if num_bytes:
            self._read_header()

    def _read_header(self) -> None:
        stream = self._stream
        _, flags = stream.element()
        word = struct.unpack(stream.order + "I", flags[:4])[0]
        self._class, self._flags = word & 0xFF, word >> 8 & 0xFF
        self.kind = KINDS.get(self._class, "other")
        if self.kind != "other":
            _, dims = stream.element()
            self.dims = struct.unpack(f"{stream.order}{len(dims) // 4}i", dims)
            _, name = stream.element()
            self.name = name.decode("latin-1")

    def skip(self) -> None:
        """Go to the end of the node, wherever in it the stream is."""
        self._stream.skip(self._end - self._stream.position)

    def check(self) -> None:
        """Compare the checksum of a variable that was read to its end."""
        if self._stream.position == self._end:
            self._stream.finish()

    def array(self) -> np.ndarray:
        if not self.size:
            self.skip()
            logical = self._flags & LOGICAL_FLAG
            return np.empty(self.dims, bool if logical else MX_NUMBERS[self._class])
        kind, data = self._stream.element()
        values = np.frombuffer(data, self._stream.order + MI_NUMBERS[kind])
        if self._flags & COMPLEX_FLAG:
            _, imaginary = self._stream.element()
            values = values + 1j * np.frombuffer(imaginary, values.dtype)
        elif self._flags & LOGICAL_FLAG:
            values = values.astype(bool)
        else:
            values = values.astype(MX_NUMBERS[self._class])
        return values.reshape(self.dims, order="F")

    def rows(self) -> list[str]:
        if not self.size:
            self.skip()
            return []
        kind, data = self._stream.element()
        encoding = MI_TEXT[kind]
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._stream.order == "<" else "-be"
        letters = data.decode(encoding)
        return [letters[i :: self.dims[0]] for i in range(self.dims[0])]

    def cells(self) -> Iterator[Node]:
        for _ in range(self.size):
            _, count, _ = self._stream.tag()
            node = _Node5(self._stream, count)
            yield node
            node.skip()

    def names(self) -> tuple[str, ...]:
        if not hasattr(self, "_names"):
            _, length = self._stream.element()
            width = struct.unpack(self._stream.order + "i", length)[0]
            _, data = self._stream.element()
            parts = [data[i : i + width] for i in range(0, len(data), width or 1)]
            self._names = tuple(p.split(b"\0")[0].decode("latin-1") for p in parts)
        return self._names

    def fields(self) -> Iterator[tuple[str, Node]]:
        names = self.names()
        for _ in range(self.size):
            yield from zip(names, self._elements(len(names)), strict=True)

    def _elements(self, count: int) -> Iterator[Node]:
        for _ in range(count):
            _, num_bytes, _ = self._stream.tag()
            node = _Node5(self._stream, num_bytes)
            yield node
            node.skip()

    def raw(self) -> Iterator[bytes]:
        yield from self._stream.pieces(self._end - self._stream.position)


class _Node73(Node):
    def __init__(self, item: Any, file: Any) -> None:
        import h5py

        self._item, self._file = item, file
        mark = item.attrs.get("MATLAB_class", b"")
        mark = mark.decode() if isinstance(mark, bytes) else str(mark)
        if isinstance(item, h5py.Group):
            self.kind = "struct"
            self.dims = (self._num_records(), 1)
            return
        references = item.dtype == h5py.ref_dtype
        kinds = {"char": "char", "cell": "cell", "struct": "struct"}
        self.kind = kinds.get(mark, "cell" if references else "number")
        self._type = MAT73_NUMBERS.get(mark, "f8")
        self._is_empty = bool(item.attrs.get("MATLAB_empty", 0))
        dims = item[()] if self._is_empty else reversed(item.shape)
        self.dims = tuple(map(int, dims))

    def _num_records(self) -> int:
        """Elements of a struct array, whose fields are arrays of references; 1 for one struct."""
        import h5py

        children = list(self._item.values())
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

    def cells(self) -> Iterator[Node]:
        if self.size:
            for reference in self._item[()].ravel():
                yield _Node73(self._file[reference], self._file)

    def names(self) -> tuple[str, ...]:
        import h5py

        return tuple(self._item) if isinstance(self._item, h5py.Group) else ()

    def fields(self) -> Iterator[tuple[str, Node]]:
        for i in range(self.size):
            for name in self.names():
                child = self._item[name]
                if self._is_array:
                    child = self._file[child[()].ravel()[i]]
                yield name, _Node73(child, self._file)

    def raw(self) -> Iterator[bytes]:
        pieces: list[bytes] = []
        for node in self.cells():
            assert isinstance(node, _Node73)
            pieces += [node._item[()].tobytes(), SEPARATOR]
            if len(pieces) >= PIECE // 64:
                yield b"".join(pieces)
                pieces = []
        yield b"".join(pieces)
