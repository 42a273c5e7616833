"""Files and folders that are either complete or absent, kinds of files, and the cache's folder.

A file is written under a temporary name, synchronised and renamed. An HDF5 file takes nothing from
other files.
"""

import contextlib
import errno
import getpass
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emovox.errors import ConfigError, EmovoxError, InputError, first_line
from emovox.ids import check_printable
from emovox.limits import MAX_DOCUMENT, MAX_EXPANSION, MAX_HDF5_OBJECTS, MAX_NESTING, MIN_EXPANDED
from emovox.paths import is_remote

# Errors of a file system without locks, such as NFS without lockd.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def regular(path: Path) -> Path:
    """Return the path of a file to open; OSError if missing, or a device that may never answer."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder raises a better error
        raise OSError(errno.EINVAL, "a FIFO, a socket or a device, not a file", str(path))
    return path


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a small file, local or remote; OSError if it cannot be read.

    ValueError if it is not UTF-8, or has more than MAX_DOCUMENT bytes.
    """
    if is_remote(path):
        data = path.read_bytes()
    else:
        with regular(path).open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise ValueError(f"has more than {MAX_DOCUMENT:,} bytes")
    return data.decode(encoding, errors).replace("\r\n", "\n")


def check_expansion(unpacked: int, stored: int | Path) -> None:
    """Raise ValueError if data, or a file, claims to expand to more than compression can reach."""
    stored = stored if isinstance(stored, int) else stored.stat().st_size
    if unpacked > max(MIN_EXPANDED, stored * MAX_EXPANSION):
        raise ValueError(f"claims {unpacked:,} bytes, but stores {stored:,}")


def parse_json(text: str) -> Any:
    """Return the content of a JSON document.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or contains a number that is not finite or
            half of a surrogate pair.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number of JSON")

    try:
        content = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    level: list[Any] = [[content]]
    for _ in range(MAX_NESTING + 1):
        lists = (item.values() if isinstance(item, dict) else item for item in level)
        level = [x for items in lists for x in items if isinstance(x, dict | list)]
    if level:
        raise ValueError("is nested too deeply")
    if "\\u" in text:
        json.dumps(content, ensure_ascii=False).encode()
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; InputError if it cannot be read or is something else."""
    try:
        content = parse_json(read_text(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object")
    return content


def read_start(path: Path, num_bytes: int) -> bytes:
    """Return the first bytes of a file; InputError if it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return file.read(num_bytes)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file; on success rename it to `path`, on failure remove it.

    A remote `path` is uploaded, which is atomic in an object store.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
            temporary = Path(folder) / "file"
            yield temporary
            path.put(temporary)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of `replace_file(path)` that a killed process left behind."""
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        temporary.unlink(missing_ok=True)


def check_vacant(out: Path, dataset: Path | None = None) -> None:
    """Raise InputError unless a place is free or empty and printable; ConfigError in `dataset`."""
    if dataset and out.resolve().is_relative_to(dataset.resolve()):
        raise ConfigError(f"{out}: inside the dataset; pass another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not empty; pass another --out")
    check_printable(out, "--out")


@contextlib.contextmanager
def exclusive(lock: Path, busy: str, timeout: float = 0) -> Iterator[None]:
    """Hold a lock file; wait `timeout` seconds for it, -1 for ever.

    Raises:
        EmovoxError: another process holds it, with the message `busy`; or the file system has no
            locks.
    """
    from filelock import FileLock, Timeout  # slower to import than a dataset to open

    _check_locks(lock.parent)
    try:
        held = FileLock(lock, timeout=timeout).acquire()
    except Timeout:
        raise EmovoxError(busy) from None
    with held:
        yield


def _check_locks(folder: Path) -> None:
    """Raise EmovoxError if the file system of a folder has no locks.

    filelock would use the existence of the lock file instead, which outlives a killed process.
    """
    try:
        import fcntl
    except ImportError:  # Windows, whose file systems have locks
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise EmovoxError(
                f"{folder}: the file system has no locks; use a folder on another disk, or mount "
                "it with locks (NFS: lockd; Lustre: -o flock)"
            ) from error


@contextlib.contextmanager
def new_folder(place: Path, doing: str) -> Iterator[Path]:
    """Yield a hidden folder beside `place`; on success rename it to `place`, on failure remove it.

    The next call removes what a killed process left behind. `place` is an empty folder, or
    missing; `doing` is the operation in a word, such as `importing`.

    Raises:
        EmovoxError: another process is writing the same folder.
    """
    building = place.parent / f".{place.name}.{doing}"
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.parent / f".{place.name}.lock"
    lock.touch()  # raises where FileLock would wait: missing permissions, a full disk
    busy = f"{place}: another run is {doing}; wait until it has finished"
    with exclusive(lock, busy):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            yield building
            building.rename(place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
            lock.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes atomically; create the folders of `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(target) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


ELSEWHERE = "takes data from elsewhere (a link, external storage or a virtual dataset)"


def open_hdf5(path: Path, mode: str = "r", **options: Any) -> Any:
    """Open an HDF5 file without a lock, which some file systems lack; OSError if it is damaged.

    Files are written under a temporary name of this process, so nobody else opens them. ValueError
    if a file to read takes data from elsewhere, or has too many objects.
    """
    import h5py

    file = h5py.File(path if mode == "w" else regular(path), mode, locking=False, **options)
    groups, seen = [file] if mode == "r" else [], {file}  # a group may contain itself
    try:
        for count, (_, item) in enumerate(each for group in groups for each in members(group)):
            if count == MAX_HDF5_OBJECTS:
                raise ValueError(f"more than {MAX_HDF5_OBJECTS:,} arrays and groups")
            if isinstance(item, h5py.Group) and item not in seen:
                seen.add(item)
                groups.append(item)
    except BaseException:
        file.close()
        raise
    return file


def members(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and objects of a group; ValueError if one takes data from elsewhere."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} {ELSEWHERE}")
        check_storage(name, item := group[name])
        yield name, item


def check_storage(name: str, item: Any) -> None:
    """Raise ValueError for a dataset whose values are not in its own file."""
    import h5py

    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise ValueError(f"{name!r} {ELSEWHERE}")


LFS_POINTER = "version https://git-lfs"  # beginning of the text that stands for a file
LFS_HINT = "a Git LFS pointer, not the file; run `git lfs pull` where it was cloned"


def is_lfs_pointer(path: Path) -> bool:
    """Return True if a local file is a Git LFS pointer; False for a file that cannot be read."""
    try:
        return read_start(path, len(LFS_POINTER)) == LFS_POINTER.encode()
    except InputError:
        return False


# First bytes of a file -> its kind.
MAGIC = {
    b"MATLAB 5.0 MAT-file": "a MAT 5 file",
    b"MATLAB 7.3 MAT-file": "a MAT 7.3 file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x80\x02": "a pickle",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    LFS_POINTER.encode(): "a Git LFS pointer",
}


def kind_of_file(path: Path) -> str:
    """Return the kind of a file by its first bytes, in words; InputError if it cannot be read."""
    head = read_start(path, 512)
    if not head:
        return "an empty file"
    if kinds := [kind for magic, kind in MAGIC.items() if head.startswith(magic)]:
        return kinds[0]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page"
    if start.startswith(b"<"):
        return "XML or HTML text"
    return "text" if b"\0" not in head and head.isascii() else "a file of unknown kind"


def cache_folder() -> Path:
    """Return `$EMOVOX_CACHE`, or `emovox` in `$XDG_CACHE_HOME` or `~/.cache`; it may not exist.

    An account without a home, or with / as its home, as in containers, gets a folder of its own
    for temporary files.
    """
    with contextlib.suppress(RuntimeError):
        if chosen := os.environ.get("EMOVOX_CACHE"):
            return Path(chosen).expanduser()
        if chosen := os.environ.get("XDG_CACHE_HOME"):
            return Path(chosen) / "emovox"
        folder = Path.home() / ".cache/emovox"
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if existing == folder or os.access(existing, os.W_OK):
            return folder
    return Path(tempfile.gettempdir(), f"emovox_{user_name()}")


def set_compile_cache() -> None:
    """Set the folder of torch.compile, whose default needs the name of the user."""
    folder = Path(tempfile.gettempdir(), f"torchinductor_{user_name()}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def user_name() -> str:
    """Return the name of the user, or the number of an account without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())
