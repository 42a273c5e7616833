"""Checks of downloaded files: kind and completeness, as far as their structure shows.

A server may send an error page with status 200, or close the connection early without an error.
"""

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emovox.errors import InputError
from emovox.files import kind_of_file
from emovox.matfile import mat_version

MAT5_HEADER = 128  # bytes; the last two give the byte order
MAT5_TAG = 8
MAT5_TYPES = range(1, 19)
MAT5_COMPRESSED = 15  # the only type whose data is not padded to 8 bytes

# The first bytes of torch.save before PyTorch 1.6: a pickle of its magic number.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class Form:
    """A kind of file: words for it, and a function that describes the fault of a file."""

    words: str
    fault: Callable[[Path], str | None]


def find_fault(path: Path, form: str) -> str | None:
    """Return what a file is instead of a complete one of its form, in words; None if it is one."""
    return FORMS[form].fault(path)


def _text_fault(path: Path) -> str | None:
    kind = kind_of_file(path)
    return None if kind == "text" else kind


def _pth_fault(path: Path) -> str | None:
    with path.open("rb") as file:
        if file.read(len(LEGACY_TORCH)) == LEGACY_TORCH:
            return None
    kind = kind_of_file(path)
    if kind != "a zip archive":
        return kind
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a truncated or damaged zip archive"
    return None if any(n.endswith("data.pkl") for n in names) else "a zip archive without weights"


def _mat_fault(path: Path) -> str | None:
    try:
        version = mat_version(path)
    except InputError:
        return kind_of_file(path)
    return _mat5_fault(path) if version == "5" else _mat73_fault(path)


def _mat5_fault(path: Path) -> str | None:
    """Walk from tag to tag: each gives its length, and the last must end with the file."""
    size, position = path.stat().st_size, MAT5_HEADER
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(MAT5_HEADER)[-2:])
        if size < MAT5_HEADER + MAT5_TAG:
            return "a MAT 5 file that ends before its first variable"
        if order is None:
            return "a damaged MAT 5 file (no byte order in its header)"
        while position + MAT5_TAG <= size:
            file.seek(position)
            step = _mat5_element(*struct.unpack(f"{order}II", file.read(MAT5_TAG)))
            if step is None:
                return f"a damaged MAT 5 file (no variable at byte {position})"
            position += step
    if position != size:
        return f"a truncated MAT 5 file ({size} bytes, within a variable)"
    return None


def _mat5_element(first: int, second: int) -> int | None:
    """Return the length in bytes of an element with its tag; None if the tag is not valid."""
    if first >> 16:  # a small element: type, length and up to 4 bytes of data share the tag
        return MAT5_TAG if first & 0xFFFF in MAT5_TYPES and first >> 16 <= 4 else None
    if first not in MAT5_TYPES:
        return None
    padding = 0 if first == MAT5_COMPRESSED else -second % 8
    return MAT5_TAG + second + padding


def _mat73_fault(path: Path) -> str | None:
    """Open the file: HDF5 stores its length, and does not open a shorter file."""
    import h5py

    try:
        with h5py.File(path):
            return None
    except OSError as error:
        reason = " ".join(str(error).split())
        return f"a truncated or damaged MAT 7.3 file ({reason})"


FORMS = {
    "mat": Form("a whole MAT file", _mat_fault),
    "pth": Form("a complete file of PyTorch weights", _pth_fault),
    "text": Form("text", _text_fault),
}
