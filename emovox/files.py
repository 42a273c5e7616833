"""Files and folders that are either whole or absent: temporary name, fsync, rename."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emovox.errors import EmovoxError
from emovox.paths import is_remote


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes `path` at once, on failure it vanishes.

    A remote `path` is uploaded, which an object store makes visible at once too.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
            temporary = Path(folder) / "file"
            yield temporary
            path.put(temporary)
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Take away temporary files of `replace_file(path)` that a killed process left behind."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(place: Path, doing: str) -> Iterator[Path]:
    """Yield a hidden folder beside `place`; on success it becomes `place`, on failure it vanishes.

    What a killed process left of it is taken away by the next one; two at a time are refused.

    Args:
        place: may be an empty folder, otherwise it is not there.
        doing: word for what goes on, such as `importing`.

    Raises:
        EmovoxError: another process is at it.
    """
    from filelock import FileLock, Timeout  # takes longer to import than a dataset to open

    building = place.parent / f".{place.name}.{doing}"
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.parent / f".{place.name}.lock"
    lock.touch()  # says why it cannot; a lock would wait
    try:
        with FileLock(lock, timeout=0):
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            try:
                yield building
                building.rename(place)
            finally:
                shutil.rmtree(building, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise EmovoxError(f"{place}: another run is {doing} to it; wait for it") from None


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes, atomically; folders of `target` are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(target) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# What a file starts with, and what that makes it.
MAGIC = {
    b"MATLAB 5.0 MAT-file": "a MAT 5 file",
    b"MATLAB 7.3 MAT-file": "a MAT 7.3 file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x80\x02": "a pickle",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"version https://git-lfs": "a Git LFS pointer",
}


def kind_of_file(path: Path) -> str:
    """What a file is by its first bytes, in words for a message."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page"
    if start.startswith(b"<"):
        return "XML or HTML text"
    return "text" if b"\0" not in head and head.isascii() else "a file of unknown kind"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
