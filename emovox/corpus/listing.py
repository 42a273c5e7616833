"""Files of a corpus, on disk or behind a URL, in the same order."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from emovox.errors import InputError, NetworkError
from emovox.ids import is_below
from emovox.media.endings import MEDIA_ENDINGS
from emovox.paths import FileState, describe, file_state, is_remote


@dataclass(frozen=True, slots=True)
class Entry:
    name: str  # path below the root, with slashes
    is_file: bool


# What lies in a folder: its own name, and if it is a folder, a file, a symbolic link.
Listed = tuple[str, bool, bool, bool]


class Files:
    """The files below a folder on disk. Their names are paths below it, with slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def is_dir(self, name: str) -> bool:
        return (self.root / name).is_dir()

    def state(self, name: str) -> FileState | None:
        """Return size and time of a file, which change with its content; None if it is missing."""
        return file_state(self.root / name)

    def folder_state(self, name: str) -> list[tuple[str, FileState | None]] | None:
        """Return the state of all files of a folder, since its own time does not follow them."""
        with contextlib.suppress(OSError):  # the track will be dropped with the reason
            return [(p.name, file_state(p)) for p in sorted((self.root / name).iterdir())]
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
            for own_name, is_dir, is_file, is_link in listing:
                name = f"{folder}/{own_name}" if folder else own_name
                if own_name.startswith("."):
                    if is_dir or is_video(own_name):
                        leave_out("hidden files and folders", name)
                elif not is_dir or is_video(own_name):
                    yield Entry(name, is_file)
                elif not is_link or not _leads_up(self.root / name):
                    stack.append(name)

    def _list(self, folder: str) -> list[Listed]:
        with os.scandir(self.root / folder) as found:
            return sorted(
                (e.name, safely(e.is_dir), safely(e.is_file), e.is_symlink()) for e in found
            )


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


def _leads_up(link: Path) -> bool:
    """Return True for a link to one of its own parents, which would never end."""
    return link.parent.resolve().is_relative_to(link.resolve())


class RemoteFiles(Files):
    """Files below a URL, all from one recursive listing."""

    def is_dir(self, name: str) -> bool:
        return name in self._folders

    def state(self, name: str) -> FileState | None:
        return self._states.get(name)

    def folder_state(self, name: str) -> list[tuple[str, FileState | None]] | None:
        if name not in self._folders:
            return None
        below = f"{name}/" if name else ""
        return [(each, self._states.get(f"{below}{each}")) for each, *_ in self._list(name)]

    def _list(self, folder: str) -> list[Listed]:
        return sorted(self._folders.get(folder, []))

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
    def _folders(self) -> dict[str, list[Listed]]:
        folders: dict[str, list[Listed]] = defaultdict(list)
        for name in self._states:
            folder, _, own_name = name.rpartition("/")
            is_new = folder not in folders
            folders[folder].append((own_name, False, True, False))
            while folder and is_new:
                folder, _, own_name = folder.rpartition("/")
                is_new = folder not in folders
                folders[folder].append((own_name, True, False, False))
        return dict(folders)


def files_below(root: Path) -> Files:
    """Return the files below a folder or a URL."""
    kind = RemoteFiles if is_remote(root) else Files
    return kind(root)
