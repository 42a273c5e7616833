"""Whether a file is what its name says, and whole, as far as its outside shows.

A server may answer with an error page and status 200, or close the connection early without a word.
"""

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emovox.errors import InputError
from emovox.files import kind_of_file
from emovox.matfile import mat_version

MAT5_HEADER = 128  # bytes; the last two tell the byte order
MAT5_TAG = 8
MAT5_TYPES = range(1, 19)
MAT5_COMPRESSED = 15  # the only type whose data is not padded to 8 bytes

# The first bytes of torch.save before PyTorch 1.6: a pickle of its magic number.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class Form:
    """A kind of file: what to call it, and a function that says what is wrong with one."""

    words: str
    fault: Callable[[Path], str | None]


def find_fault(path: Path, form: str) -> str | None:
    """What a file is instead of a whole one of its form, in words; None if it looks whole."""
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
        return "a zip archive that is cut short or damaged"
    return None if any(n.endswith("data.pkl") for n in names) else "a zip archive of something else"


def _mat_fault(path: Path) -> str | None:
    try:
        version = mat_version(path)
    except InputError:
        return kind_of_file(path)
    return _mat5_fault(path) if version == "5" else _mat73_fault(path)


def _mat5_fault(path: Path) -> str | None:
    """Walk from tag to tag: each tells its length, and the last must end with the file."""
    size, position = path.stat().st_size, MAT5_HEADER
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(MAT5_HEADER)[-2:])
        if size < MAT5_HEADER + MAT5_TAG:
            return "a MAT 5 file that ends before its first variable"
        if order is None:
            return "a damaged MAT 5 file (its header tells no byte order)"
        while position + MAT5_TAG <= size:
            file.seek(position)
            step = _mat5_element(*struct.unpack(f"{order}II", file.read(MAT5_TAG)))
            if step is None:
                return f"a damaged MAT 5 file (byte {position} begins no variable)"
            position += step
    if position != size:
        return f"a MAT 5 file that is cut short (at {size} bytes, within a variable)"
    return None


def _mat5_element(first: int, second: int) -> int | None:
    """Length in bytes of an element, with its tag; None if the tag is none."""
    if first >> 16:  # a small element: type, length and up to 4 bytes of data share the tag
        return MAT5_TAG if first & 0xFFFF in MAT5_TYPES and first >> 16 <= 4 else None
    if first not in MAT5_TYPES:
        return None
    padding = 0 if first == MAT5_COMPRESSED else -second % 8
    return MAT5_TAG + second + padding


def _mat73_fault(path: Path) -> str | None:
    """HDF5 knows where it ends, and does not open when it is shorter."""
    import h5py

    try:
        with h5py.File(path):
            return None
    except OSError as error:
        reason = " ".join(str(error).split())
        return f"a MAT 7.3 file that is cut short or damaged ({reason})"


FORMS = {
    "mat": Form("a whole MAT file", _mat_fault),
    "pth": Form("a whole file of PyTorch weights", _pth_fault),
    "text": Form("text", _text_fault),
}
