"""Files of a corpus, on disk or behind a URL, in the same order."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from emovox.errors import InputError, NetworkError
from emovox.ids import is_below
from emovox.media.endings import MEDIA_ENDINGS
from emovox.paths import FileState, describe, file_state, is_remote


@dataclass(frozen=True, slots=True)
class Entry:
    name: str  # path below the root, with slashes
    is_file: bool


class DirEntry(Protocol):
    """The part of `os.DirEntry` that `walk` uses."""

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
        """Return size and time of a file, which change with its content; None if it is missing."""
        return file_state(self.root / name)

    def folder_state(self, name: str) -> list[tuple[str, FileState | None]] | None:
        """Return the state of all files of a folder, since its own time does not follow them."""
        with contextlib.suppress(OSError):  # the track will be dropped with the reason
            paths = sorted((self.root / name).iterdir())
            return [(path.name, file_state(path)) for path in paths]
        return None

    def walk(self, below: str, leave_out: Callable[[str, str], None]) -> Iterator[Entry]:
        """Yield every file below a folder, and folders whose name ends like a video.

        Hidden names are skipped; symbolic links are followed unless they lead back up.
        `leave_out` is called with a description and the name of each hidden video or folder, and
        of each folder that cannot be listed.
        """
        stack = [below]
        while stack:
            folder = stack.pop()
            try:
                listing = self._list(folder)
            except OSError as error:
                leave_out(f"folders that cannot be listed ({error.strerror})", folder)
                continue
            for entry in listing:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    if is_video(entry.name) or safely(entry.is_dir):
                        leave_out("hidden files and folders", name)
                elif safely(entry.is_dir):
                    if is_video(entry.name):
                        yield Entry(name, is_file=False)
                    elif not _leads_up(entry):
                        stack.append(name)
                else:
                    yield Entry(name, is_file=safely(entry.is_file))

    def _list(self, folder: str) -> Sequence[DirEntry]:
        with os.scandir(self.root / folder) as entries:
            return sorted(entries, key=lambda e: e.name)


def ending_of(name: str) -> str:
    """Return the ending of a file in lower case, with its dot; faster than `Path.suffix`."""
    _, dot, ending = name.rpartition(".")
    return (dot + ending).lower()


def is_video(name: str) -> bool:
    """Return True if a file name has an ending of `MEDIA_ENDINGS`, in any case of letters."""
    return ending_of(name) in MEDIA_ENDINGS


def safely(test: Callable[[], bool]) -> bool:
    """Return the result of a test of a path; False for one that cannot be looked up."""
    try:
        return test()
    except OSError:  # a link to itself, no permission, or a name that is too long
        return False


def _leads_up(entry: DirEntry) -> bool:
    """Return True if a folder is a link to one of its parents, which would never end."""
    if not entry.is_symlink():
        return False
    return Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())


class RemoteFiles(Files):
    """Files below a URL, all from one recursive listing."""

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
            return {name: state for name, state in root.files().items() if is_below(name)}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except PermissionError as error:
            raise InputError(f"{root}: no permission to list it: {describe(error)}") from error
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
    """Return the files below a folder or a URL."""
    kind = RemoteFiles if is_remote(root) else Files
    return kind(root)
