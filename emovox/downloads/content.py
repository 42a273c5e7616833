"""Checks of downloaded files: kind and completeness, as far as their structure shows.

A server may send an error page with status 200, or close the connection early without an error.
"""

import zipfile
from pathlib import Path

from emovox.errors import InputError
from emovox.files import kind_of_file
from emovox.matfile import mat_version, open_mat

# Forms of files, and words for them.
FORMS = {
    "mat": "a complete MAT file",
    "onnx": "an ONNX network",
    "pth": "a complete file of PyTorch weights",
    "text": "text",
}

# The first bytes of torch.save before PyTorch 1.6: a pickle of its magic number.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def find_fault(path: Path, form: str) -> str | None:
    """Return what a file is instead of a complete one of its form, in words; None if it is one."""
    kind = kind_of_file(path)
    if form == "mat":
        return _mat_fault(path, kind)
    if form == "pth":
        return _pth_fault(path, kind)
    if form == "onnx":  # a protobuf message whose first field is the number of the IR version
        with path.open("rb") as file:
            return None if file.read(1) == b"\x08" else kind
    return None if kind == "text" else kind


def _mat_fault(path: Path, kind: str) -> str | None:
    try:
        mat_version(path)
    except InputError:
        return kind
    try:
        with open_mat(path) as variables:
            for _ in variables:  # reads the headers only
                pass
    except InputError as error:
        return f"a {str(error).removeprefix(f'{path}: ')}"
    return None


def _pth_fault(path: Path, kind: str) -> str | None:
    if kind != "a zip archive":
        with path.open("rb") as file:
            return None if file.read(len(LEGACY_TORCH)) == LEGACY_TORCH else kind
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a truncated or damaged zip archive"
    return None if any(n.endswith("data.pkl") for n in names) else "a zip archive without weights"
