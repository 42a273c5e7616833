"""Files of a corpus, and its tracks: speaking-face utterances, and the media that show them."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import groupby
from pathlib import Path

from emovox.dataset.rows import Dropped
from emovox.errors import InputError, NetworkError, TrackError
from emovox.ids import TrackKey, is_below, printable
from emovox.paths import FileState, describe, file_state, is_remote

_MEDIA = (
    "3g2 3gp amv asf avi divx dv f4v flv m2t m2ts m2v m4v mj2 mkv mod mov mp4 mpe mpeg mpg mts mxf "
    "nut ogm ogv ogx qt rm rmvb tod ts vob webm wmv"
)
_AUDIO = (
    "aac ac3 aif aifc aiff amr au caf eac3 flac m4a m4b mka mp2 mp3 oga ogg opus rf64 snd sph w64 "
    "wav wave weba wma wv"
)
# In lower case: of files that may hold pictures, and of files of sound alone.
MEDIA_ENDINGS = frozenset(f".{name}" for name in _MEDIA.split())
AUDIO_ENDINGS = frozenset(f".{name}" for name in _AUDIO.split())


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
        """Return True if a name is that of a folder."""
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
        """Return True if a name is that of a folder."""
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


class FaceSource(StrEnum):
    """Source of the position of a face in a frame."""

    VOXCELEB2 = "voxceleb2"  # the top-aligned 1/1.4 square of a 224 x 224 crop
    DENSE = "dense"  # the central 1/1.6 square of a JPEG of the dense frames
    BOXES = "boxes"  # a VoxCeleb box file
    DETECT = "detect"  # a detector


@dataclass(frozen=True, slots=True)
class Track:
    """One utterance of one person, and where its pictures are."""

    key: TrackKey  # its names
    source: str  # path of the video, or of the folder of JPEGs, below the corpus root
    faces: FaceSource  # how the face is found in a frame
    boxes: str | None = None  # path of the box file below the corpus root, for `FaceSource.BOXES`
    # seconds into the video where the track begins; None: with its first box, or without boxes its
    # first frame
    start: float | None = None
    end: float | None = None  # seconds into the video; None: with the last box or frame
    split: str | None = None  # the split that a table gives it
    person: str | None = None  # the folder that is a person's name; `shown` replaces it by the id

    @property
    def track_id(self) -> str:
        """`<identity>/<video>/<number>`."""
        return self.key.track_id

    def shown(self, path: str) -> str:
        """Return a path of this track with the identity in place of the person's name."""
        identity = self.key.identity_id
        parts = (identity if part == self.person else part for part in path.split("/"))
        return printable("/".join(parts))


@dataclass
class Corpus:
    """Tracks that a layout found below its root."""

    root: Path  # the folder that every `source` and `boxes` is relative to
    tracks: list[Track] = field(default_factory=list)  # sorted by `track_id`, which is unique
    dropped: list[Dropped] = field(default_factory=list)  # no track, but look like one
    notes: list[str] = field(default_factory=list)  # for the user, on what was left out
    # names of an example, and the number, of things for which `finish` adds a note each
    left_out: dict[str, tuple[str, int]] = field(default_factory=dict)

    @cached_property
    def files(self) -> Files:
        """Files below the root."""
        return (RemoteFiles if is_remote(self.root) else Files)(self.root)

    def walk(self, below: str = "", shown: Callable[[str], str] = str) -> Iterator[Entry]:
        """Yield the files below a folder, see `Files.walk`; what it skips becomes notes.

        `shown` returns a name as it may be printed.
        """
        return self.files.walk(below, lambda what, name: self.leave_out(what, shown(name)))

    def add(self, track: Track) -> None:
        """Add a track, or drop it if its names cannot be written into the tables."""
        try:
            track.key.check()
        except TrackError as error:
            self.drop(track.track_id, track.shown(track.source), error)
        else:
            self.tracks.append(track)

    def leave_out(self, what: str, name: str) -> None:
        """Count something that gives no track; `finish` makes one note of all with this reason.

        Args:
            what: description in the plural, such as `files without a video ending`.
            name: path below the root, as it may be printed.
        """
        example, number = self.left_out.get(what, (name or "the root", 0))
        self.left_out[what] = example, number + 1

    def note(self, line: str) -> None:
        """Add a line for the user."""
        self.notes.append(printable(line))

    def drop(self, track_id: str, source: str, error: TrackError) -> None:
        """Record an entry that looks like a track but cannot be one."""
        self.dropped.append(Dropped.of(track_id, source, error))

    def finish(self) -> "Corpus":
        """Sort the tracks, drop all but the first of a `track_id`, and add the notes."""
        for what, (example, number) in self.left_out.items():
            self.note(f"left out {number:,} {what}, for example {example}")
        self.left_out.clear()
        self.tracks.sort(key=lambda track: (track.track_id, track.source))
        unique: list[Track] = []
        for _, (first, *others) in groupby(self.tracks, lambda track: track.track_id):
            unique.append(first)
            for track in others:
                message = f"{first.shown(first.source)} has the same track_id and comes first"
                error = TrackError("plan", "DuplicateTrack", message)
                self.drop(track.track_id, track.shown(track.source), error)
        if repeated := len(self.tracks) - len(unique):
            last = self.dropped[-1]
            self.note(
                f"dropped {repeated:,} tracks with the track_id of another one, for example "
                f"{last.source}: {last.message}; rename them to keep both"
            )
        self.tracks = unique
        return self
