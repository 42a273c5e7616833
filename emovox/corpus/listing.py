"""What files a corpus has, on disk or behind a URL, in the same order."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from emovox.errors import InputError, NetworkError
from emovox.paths import FileState, describe, file_state, is_remote

VIDEO_ENDINGS = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")
)


@dataclass(frozen=True, slots=True)
class Entry:
    name: str  # path below the root, with slashes
    is_file: bool


class DirEntry(Protocol):
    """What `walk` asks of an `os.DirEntry`."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    def is_dir(self) -> bool: ...
    def is_file(self) -> bool: ...
    def is_symlink(self) -> bool: ...


class Files:
    """The files below a folder on disk. Their names are paths below it, with slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def is_dir(self, name: str) -> bool:
        return (self.root / name).is_dir()

    def is_file(self, name: str) -> bool:
        return (self.root / name).is_file()

    def state(self, name: str) -> FileState | None:
        """What changes when the content of a file does, None where there is none."""
        return file_state(self.root / name)

    def folder_state(self, name: str) -> list[tuple[str, FileState | None]] | None:
        """State of all files of a folder, whose own time says nothing of them."""
        with contextlib.suppress(OSError):  # the track will be dropped with the reason
            paths = sorted((self.root / name).iterdir())
            return [(path.name, file_state(path)) for path in paths]
        return None

    def walk(
        self, below: str, note: Callable[[str], None], shown: Callable[[str], str]
    ) -> Iterator[Entry]:
        """Yield every file below a folder, and folders whose name ends like a video.

        Hidden names are skipped, symbolic links followed unless they lead back up. A folder that
        cannot be listed becomes a note, with its name as `shown`: nobody knows what it holds.
        """
        stack = [below]
        while stack:
            folder = stack.pop()
            try:
                listing = self._list(folder)
            except OSError as error:
                name = shown(folder) if folder else "the root"
                note(f"{name}: cannot be listed ({error.strerror})")
                continue
            for entry in listing:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if _is(entry.is_dir):
                    if Path(entry.name).suffix.lower() in VIDEO_ENDINGS:
                        yield Entry(name, is_file=False)
                    elif not _leads_up(entry):
                        stack.append(name)
                else:
                    yield Entry(name, is_file=_is(entry.is_file))

    def _list(self, folder: str) -> Sequence[DirEntry]:
        with os.scandir(self.root / folder) as entries:
            return sorted(entries, key=lambda e: e.name)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that leads to itself, or where nobody may look
        return False


def _leads_up(entry: DirEntry) -> bool:
    """Whether a folder is a link to one that it lies in, which would have no end."""
    if not entry.is_symlink():
        return False
    return Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())


class RemoteFiles(Files):
    """The files below a URL, all from one recursive listing: none of them costs a request."""

    def is_dir(self, name: str) -> bool:
        return name in self._folders

    def is_file(self, name: str) -> bool:
        return name in self._states

    def state(self, name: str) -> FileState | None:
        return self._states.get(name)

    def folder_state(self, name: str) -> list[tuple[str, FileState | None]] | None:
        if name not in self._folders:
            return None
        below = f"{name}/" if name else ""
        names = (entry.name for entry in self._list(name))
        return [(each, self._states.get(f"{below}{each}")) for each in names]

    def _list(self, folder: str) -> Sequence[DirEntry]:
        return sorted(self._folders.get(folder, []), key=lambda e: (e.name, e.is_dir()))

    @cached_property
    def _states(self) -> dict[str, FileState]:
        root = self.root
        assert is_remote(root)
        try:
            return root.files()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except PermissionError as error:
            raise InputError(f"{root}: may not be listed: {describe(error)}") from error
        except OSError as error:
            raise NetworkError(f"{root}: cannot be listed: {describe(error)}") from error

    @cached_property
    def _folders(self) -> dict[str, list["_RemoteEntry"]]:
        folders: dict[str, list[_RemoteEntry]] = defaultdict(list)
        for name in self._states:
            folder, _, own_name = name.rpartition("/")
            is_new = folder not in folders
            folders[folder].append(_RemoteEntry(own_name, folder=False))
            while folder and is_new:
                folder, _, own_name = folder.rpartition("/")
                is_new = folder not in folders
                folders[folder].append(_RemoteEntry(own_name, folder=True))
        return dict(folders)


@dataclass(frozen=True, slots=True)
class _RemoteEntry:
    name: str
    folder: bool

    @property
    def path(self) -> str:
        return self.name

    def is_dir(self) -> bool:
        return self.folder

    def is_file(self) -> bool:
        return not self.folder

    def is_symlink(self) -> bool:
        return False


def files_below(root: Path) -> Files:
    """The files below a folder of either kind."""
    kind = RemoteFiles if is_remote(root) else Files
    return kind(root)
