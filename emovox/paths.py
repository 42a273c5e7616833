"""Paths that may be URLs: `s3://bucket/folder` stands where `pathlib.Path` does.

Whatever fsspec knows works: s3, gs, abfs, hdfs, sftp, memory. Credentials and endpoints are found
as fsspec and the client of the service always find them, in the environment or their own files.
"""

import contextlib
import errno
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

from emovox.errors import ConfigError, first_line
from emovox.packages import explained

Item = TypeVar("Item")
Result = TypeVar("Result")

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)", re.DOTALL)
NUM_THREADS = 16  # requests at a time where there are many
MAX_SUFFIX = 16  # characters; a longer one is no ending that a decoder goes by

# What a file system raises without a number, and the number that says the same.
NUMBERS: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
    TimeoutError: errno.ETIMEDOUT,
}
# What tells one content of a remote file from another, best first; file systems differ in names.
CHANGES = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created")

NOT_FETCHED = "NotFetched"  # the service is to blame: a build tries such a track again
GONE = {errno.ENOENT: "FileNotFound", errno.EACCES: "Permission"}

FileState = tuple[Any, ...]  # size, and what changes with the content


def as_path(text: str) -> Path:
    """A path, from what a user wrote: local, or a `RemotePath` where it is a URL.

    A `RemotePath` is no `pathlib.Path`, but does as much of one as a build needs.

    Raises:
        ConfigError: nothing that is installed can open such a URL.
    """
    match = URL.fullmatch(text)
    if match is None:
        return Path(text)
    if match[1] in ("file", "local"):
        return Path(match[2])
    return cast(Path, RemotePath(text))


def is_remote(path: object) -> TypeGuard["RemotePath"]:
    """Whether a path is a URL."""
    return isinstance(path, RemotePath)


class RemotePath:
    """A file or folder of a file system of fsspec.

    Every method asks the service anew. Errors are `OSError` with a `strerror` that names neither
    host nor folder, so that it may be written into a dataset.
    """

    def __init__(self, url: str) -> None:
        protocol, _, rest = url.partition("://")
        self._url = f"{protocol}://{rest.rstrip('/')}"
        self._fs, self._path = _open_file_system(self._url)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self._url,)

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"RemotePath({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return is_remote(other) and self._url == other._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __truediv__(self, name: str | Path) -> "RemotePath":
        if not str(name):
            return self
        inner = RemotePath.__new__(RemotePath)
        inner._url = f"{self._url}/{name}"
        inner._fs, inner._path = self._fs, f"{self._path.rstrip('/')}/{name}"
        return inner

    @property
    def name(self) -> str:
        """The last part below the bucket or host, which itself is nobody's business."""
        _, _, rest = self._url.partition("://")
        return rest.rpartition("/")[2] if "/" in rest else ""

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    def is_file(self) -> bool:
        return self.state() is not None

    def is_dir(self) -> bool:
        """Whether there is anything below it: an object store knows no empty folder."""
        try:
            return any(str(path) != self._url for path in self.iterdir()) or self._is_folder()
        except (FileNotFoundError, NotADirectoryError):
            return False

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["RemotePath"]:
        """What lies in the folder, by one listing."""
        with self._plain_errors():
            names = self._fresh().ls(self._path, detail=False)
        found = {str(name).rstrip("/") for name in names}
        for name in sorted(found - {self._path.rstrip("/")}):
            yield self / name.rpartition("/")[2]

    def files(self) -> dict[str, FileState]:
        """State of every file below the folder, at any depth, by its path below it; one listing."""
        with self._plain_errors():
            found = self._fresh().find(self._path, detail=True)
            self._fs.invalidate_cache()  # holds as much again
        start = len(self._path.rstrip("/")) + 1
        return {
            name[start:]: _state(info)
            for name, info in found.items()
            if info["type"] == "file" and len(name) > start and not name.endswith("/")
        }

    def state(self) -> FileState | None:
        """Size of a file and what changes with its content; None where there is none."""
        try:
            with self._plain_errors():
                info = self._fresh().info(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _state(info) if info["type"] == "file" else None

    def read_bytes(self) -> bytes:
        with self._plain_errors():
            return bytes(self._fs.cat_file(self._path))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors).replace("\r\n", "\n")

    def fetch(self, target: Path) -> None:
        """Copy the file to a local one."""
        with self._plain_errors():
            self._fs.get_file(self._path, str(target))

    def put(self, source: Path, *, new: bool = False) -> None:
        """Make it a copy of a local file: at once in an object store.

        Args:
            new: refuse to replace a file, where the file system can tell.

        Raises:
            FileExistsError: there is one.
        """
        options = {"mode": "create"} if new else {}
        try:
            with self._plain_errors():
                self._fs.put_file(str(source), self._path, **options)
        except OSError as error:
            if not new or error.errno != errno.ENOSYS:  # what a store says that cannot tell
                raise
            self.put(source)

    def write_text(self, text: str, *, new: bool = False) -> None:
        with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
            source = Path(folder) / "text"
            source.write_text(text, encoding="utf-8")
            self.put(source, new=new)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._plain_errors():
                self._fs.rm_file(self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as soon as a file is put into it."""

    def _is_folder(self) -> bool:
        with self._plain_errors():
            return self._fs.info(self._path)["type"] == "directory"

    def _fresh(self) -> Any:
        """The file system without what it remembers of earlier listings."""
        self._fs.invalidate_cache()
        return self._fs

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what clients of services raise into an `OSError` with a number and a name."""
        try:
            yield
        except OSError as error:
            numbers = (n for kind, n in NUMBERS.items() if isinstance(error, kind))
            number = error.errno or next(numbers, errno.EIO)
            raise _noted(OSError(number, os.strerror(number), self._url), error) from error
        except Exception as error:  # the clients' own errors have no base in common
            if type(error).__module__ == "builtins":
                raise  # is nobody's own, and a bug
            plain = OSError(errno.EIO, type(error).__name__, self._url)
            raise _noted(plain, error) from error


def _noted(plain: OSError, error: Exception) -> OSError:
    """Keep what the service said as a note: it may name hosts and folders."""
    if said := str(error).strip():
        plain.add_note(said.splitlines()[0])
    return plain


def describe(error: OSError) -> str:
    """Why a file could not be read or written, in words for the user, never for a dataset."""
    reason = error.strerror or first_line(error)
    notes = getattr(error, "__notes__", [])
    return f"{reason} ({notes[0]})" if notes else reason


def name_fault(error: OSError, path: "Path | RemotePath") -> str:
    """Short name of the reason that a file could not be read, for counting."""
    if is_remote(path):
        return GONE.get(error.errno or 0, NOT_FETCHED)
    return type(error).__name__.removesuffix("Error")


def _open_file_system(url: str) -> tuple[Any, str]:
    with explained(url):
        import fsspec.core
    try:
        file_system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # says which package
        raise ConfigError(f"{url}: {error}, or pip install 'emovox[remote]' for s3") from error
    except (OSError, ValueError) as error:  # no such protocol, or its library does not load
        raise ConfigError(f"{url}: {first_line(error)}") from error
    return file_system, path


def _state(info: dict[str, Any]) -> FileState:
    changes = next((info[key] for key in CHANGES if info.get(key)), "")
    return int(info["size"] or 0), str(changes)


def file_state(path: Path) -> FileState | None:
    """What changes when the content of a file does, None where there is none.

    Size and time of change of a local file; size and entity tag of a remote one, or its time.
    """
    if is_remote(path):
        return path.state()
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a local file with the content of `path`: itself, or a copy that is removed afterwards.

    Raises:
        FileNotFoundError: there is no such remote file.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
        copy = Path(folder) / f"copy{path.suffix[:MAX_SUFFIX]}"
        path.fetch(copy)
        yield copy


@contextlib.contextmanager
def local_folder(path: Path) -> Iterator[Path]:
    """Yield a local folder with the files of `path`, but not those of folders in it.

    Raises:
        FileNotFoundError: there is no such remote folder.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
        target, remote = Path(folder), path
        names = [name for name in remote.files() if "/" not in name]
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        for _ in map_ahead(lambda name: (remote / name).fetch(target / name), names):
            pass
        yield target


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` with threads that work some items ahead, for functions that wait for a network."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        try:
            for item in items:
                pending.append(threads.submit(function, item))
                if len(pending) >= 2 * NUM_THREADS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
