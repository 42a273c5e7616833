"""Paths that may be URLs: `s3://bucket/folder` works wherever a `pathlib.Path` does.

Every protocol that fsspec knows works: s3, gs, abfs, hdfs, sftp, memory. fsspec and the client of
the service find credentials and endpoints as usual, in the environment or in their own files.

fsspec has no path type, and its `isfile` and `exists` return False for every error. `RemotePath`
adds errors with a number, so that an unreachable service is never taken for a missing file.
"""

import contextlib
import errno
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

from emovox.errors import ConfigError, first_line, public_url
from emovox.packages import explained

Item = TypeVar("Item")
Result = TypeVar("Result")

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)", re.DOTALL)
NUM_THREADS = 16  # concurrent requests
MAX_SUFFIX = 16  # characters of a file extension; decoders ignore longer ones

# Numbers of the OSErrors that a file system raises without one, by class.
NUMBERS = (errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ETIMEDOUT)
ERRNO = {type(OSError(number, "")): number for number in NUMBERS}
# Keys of a remote file's details that change with its content, best first.
VERSION_KEYS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created")

NOT_FETCHED = "NotFetched"  # an error of the service: a build tries such a track again
OUR_OWN = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)  # faults of this machine
FILE_ERRORS = {errno.ENOENT: "FileNotFound", errno.EACCES: "Permission"}  # errors of the file

FileState = tuple[Any, ...]  # size, and a value that changes with the content


def as_path(path: "str | os.PathLike[str] | RemotePath") -> Path:
    """Return a local path, or a `RemotePath` for a URL; a path of either kind stays as it is.

    A `RemotePath` is not a `pathlib.Path`, but has the methods of one that emovox uses.

    Raises:
        ConfigError: no installed package can open such a URL.
    """
    if isinstance(path, RemotePath):
        return cast(Path, path)
    match = URL.fullmatch(path) if isinstance(path, str) else None
    if match is None:
        return Path(path)
    if match[1] in ("file", "local"):
        return Path(match[2])
    return cast(Path, RemotePath(match[0]))


def is_remote(path: object) -> TypeGuard["RemotePath"]:
    """Return True if a path is a URL."""
    return isinstance(path, RemotePath)


class RemotePath:
    """A file or folder of a file system of fsspec.

    Every method makes a new request; nothing is cached. Errors are `OSError`s with a `strerror`
    that contains neither host nor folder, so that it may be written into a dataset. Its text, name
    and errors have no secrets; pickles do. `opened`: the file system and the path in it, if known.
    """

    def __init__(self, url: str, opened: tuple[Any, str] | None = None) -> None:
        protocol, _, rest = url.partition("://")
        self._url = f"{protocol}://{rest.rstrip('/')}"
        self._shown = public_url(self._url)
        self._fs, self._path = opened or _open_file_system(self._url)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self._url,)

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"RemotePath({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return is_remote(other) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __truediv__(self, name: str | Path) -> "RemotePath":
        if not str(name):
            return self
        return RemotePath(_join(self._url, name), (self._fs, _join(self._path, name)))

    @property
    def name(self) -> str:
        """The last component below the bucket or host; empty for the bucket itself."""
        _, _, rest = self._shown.partition("://")
        return rest.rpartition("/")[2] if "/" in rest else ""

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    def is_file(self) -> bool:
        return self.state() is not None

    def is_dir(self) -> bool:
        """Return True if the folder exists; an object store has no empty folders."""
        try:
            return any(self.iterdir()) or self._info()["type"] == "directory"
        except (FileNotFoundError, NotADirectoryError):
            return False

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["RemotePath"]:
        """Yield the files and folders in this folder, sorted; one listing."""
        with self._service() as fs:
            listed = fs.ls(self._path, detail=False)
        paths = {str(path).rstrip("/") for path in listed} - {self._path.rstrip("/"), ""}
        for path in sorted(paths):
            yield self / path.rpartition("/")[2]

    def files(self) -> dict[str, FileState]:
        """Return the state of every file at any depth, by its path below here; one listing."""
        with self._service() as fs:
            found = fs.find(self._path, detail=True)
            fs.invalidate_cache()  # a second copy of the listing
        start = len(self._path.rstrip("/")) + 1
        return {
            name[start:]: _state(info)
            for name, info in found.items()
            if info["type"] == "file" and len(name) > start and not name.endswith("/")
        }

    def state(self) -> FileState | None:
        """Return the size of a file and a value that changes with its content; None if missing."""
        try:
            info = self._info()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _state(info) if info["type"] == "file" else None

    def read_bytes(self) -> bytes:
        with self._service() as fs:
            return bytes(fs.cat_file(self._path))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors).replace("\r\n", "\n")

    def fetch(self, target: Path) -> None:
        """Copy the file to a local one."""
        with self._service() as fs:
            fs.get_file(self._path, str(target))

    def put(self, source: Path) -> None:
        """Upload a local file to this path, atomically in an object store."""
        with self._service() as fs:
            fs.put_file(str(source), self._path)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._service() as fs:
                fs.rm_file(self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder exists as soon as it contains a file."""

    def _info(self) -> dict[str, Any]:
        with self._service() as fs:
            return dict(fs.info(self._path))

    @contextlib.contextmanager
    def _service(self) -> Iterator[Any]:
        """Yield the file system without cached listings; its errors become OSErrors with a number.

        The text of the service's own error becomes a note, since it may contain hosts and folders.
        """
        self._fs.invalidate_cache()
        try:
            yield self._fs
        except Exception as error:  # the clients' own errors have no common base class
            if isinstance(error, OSError):
                numbers = (number for kind, number in ERRNO.items() if isinstance(error, kind))
                number = error.errno or next(numbers, errno.EIO)
                reason = os.strerror(number)
            elif type(error).__module__ == "builtins":
                raise  # a bug
            else:
                number, reason = errno.EIO, type(error).__name__
            plain = OSError(number, reason, self._shown)
            if str(error).strip():
                plain.add_note(first_line(error))
            raise plain from error


def describe(error: OSError) -> str:
    """Return the reason of a failed read or write for a message; not for a dataset."""
    reason = first_line(error)
    notes = getattr(error, "__notes__", [])
    return f"{reason} ({notes[0]})" if notes else reason


def error_name(error: OSError, path: "Path | RemotePath | None" = None) -> str:
    """Return a short name for the error of reading a file, for counting: `FileNotFound`."""
    if is_remote(path):
        return FILE_ERRORS.get(error.errno or 0, NOT_FETCHED)
    return type(error).__name__.removesuffix("Error")


def _join(path: str, name: str | Path) -> str:
    """Add a name to a path or URL, before the query of a URL of a web server."""
    folder, mark, query = path.partition("?") if path.startswith("http") else (path, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{query}"


def _open_file_system(url: str) -> tuple[Any, str]:
    with explained(public_url(url)):
        import fsspec.core
    try:
        file_system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # lists the missing package
        reason = f"{error}, or pip install 'emovox[remote]' for s3"
        raise ConfigError(f"{public_url(url)}: {reason}") from error
    except (OSError, ValueError) as error:  # unknown protocol, or its library does not load
        raise ConfigError(f"{public_url(url)}: {first_line(error)}") from error
    return file_system, path


def _state(info: dict[str, Any]) -> FileState:
    version = next((info[key] for key in VERSION_KEYS if info.get(key)), "")
    return int(info["size"] or 0), str(version)


def file_state(path: Path) -> FileState | None:
    """Return a value that changes with the content of a file; None if the file is missing.

    Size and modification time of a local file; size and entity tag, or time, of a remote one.
    """
    if is_remote(path):
        return path.state()
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def local_copy(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """Yield a local file or folder with the content of `path`: itself, or a temporary copy.

    The copy of a folder has no subfolders.

    Raises:
        FileNotFoundError: the remote file or folder is missing.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="emovox-") as temporary:
        folder, remote = Path(temporary), path
        if not is_folder:
            copy = folder / f"copy{path.suffix[:MAX_SUFFIX]}"
            path.fetch(copy)
            yield copy
            return
        names = [name for name in path.files() if "/" not in name]
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        for _ in map_ahead(lambda name: (remote / name).fetch(folder / name), names):
            pass
        yield folder


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    pool: Executor | None = None,
    num_ahead: int = 2 * NUM_THREADS,
) -> Generator[Result, None, None]:
    """`map` with a pool, by default of threads, that works `num_ahead` items ahead; closes it."""
    pool = pool or ThreadPoolExecutor(NUM_THREADS)
    futures = (pool.submit(function, item) for item in items)
    try:
        pending = deque(islice(futures, num_ahead))
        while pending:
            yield pending.popleft().result()
            pending.extend(islice(futures, 1))
    finally:
        pool.shutdown(cancel_futures=True)
