"""The track: one speaking-face utterance, and where its pixels are."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from emovox.corpus.listing import Entry, Files, files_below
from emovox.corpus.voxceleb import format_track_id
from emovox.dataset.schema import MAX_TRACK_NUMBER
from emovox.errors import TrackError


class Faces(StrEnum):
    """Where in a frame the face of a track is."""

    VOXCELEB2 = "voxceleb2"  # the top-aligned 1/1.4 square of a 224 x 224 crop
    DENSE = "dense"  # the central 1/1.6 square of a JPEG of the dense frames
    BOXES = "boxes"  # a VoxCeleb box file
    DETECT = "detect"  # unknown: found by a detector


@dataclass(frozen=True, slots=True)
class Track:
    """One utterance of one person.

    Attributes:
        identity_id: who speaks; never a name in a released dataset of VoxCeleb.
        video_id: the video it was cut from.
        track_num: number of the utterance within the video.
        source: path of the video, or of the folder of JPEGs, below the corpus root.
        faces: how the face is found in a frame.
        boxes: path of the box file below the corpus root, for `Faces.BOXES`.
        start: seconds into the video where the track begins; None means with its first box, or
            where there are none its first frame.
        end: seconds into the video where it ends; None means with the last box or frame.
        split: the split a table gives it.
        person: the folder in its paths that is a person's name; `shown` hides it.
    """

    identity_id: str
    video_id: str
    track_num: int
    source: str
    faces: Faces
    boxes: str | None = None
    start: float | None = None
    end: float | None = None
    split: str | None = None
    person: str | None = None

    @property
    def track_id(self) -> str:
        """`<identity>/<video>/<number>`, the number with five digits or more."""
        return format_track_id(self.identity_id, self.video_id, self.track_num)

    def shown(self, path: str) -> str:
        """A path of this track as it may be written down: with the id for the person's name."""
        parts = (self.identity_id if part == self.person else part for part in path.split("/"))
        return printable("/".join(parts))


@dataclass(frozen=True, slots=True)
class Dropped:
    """A track that gave no rows, as a row of the table `dropped`."""

    track_id: str
    source: str
    stage: str
    error: str
    message: str
    attempts: int = 1


@dataclass
class Corpus:
    """What a layout found below its root.

    Attributes:
        root: the folder that every `source` and `boxes` is relative to.
        tracks: sorted by `track_id`, which is unique.
        dropped: what looks like a track but cannot be one.
        notes: lines for the user about things left aside.
    """

    root: Path
    tracks: list[Track] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def files(self) -> Files:
        """What lies below the root."""
        return files_below(self.root)

    def walk(self, below: str = "", shown: Callable[[str], str] = str) -> Iterator[Entry]:
        """The files below a folder, see `Files.walk`; what cannot be listed becomes a note."""
        return self.files.walk(below, self.note, shown)

    def add(self, track: Track) -> None:
        """Take a track in, or put it among the dropped if its names cannot be written down."""
        try:
            check_names(track)
        except TrackError as error:
            self.drop(track.track_id, track.shown(track.source), error)
        else:
            self.tracks.append(track)

    def note(self, line: str) -> None:
        """Tell the user about something that is left aside."""
        self.notes.append(printable(line))

    def drop(self, track_id: str, source: str, error: TrackError) -> None:
        """Record something that looks like a track but cannot be one."""
        self.dropped.append(
            Dropped(printable(track_id), printable(source), error.stage, error.error, error.message)
        )

    def finish(self) -> "Corpus":
        """Sort the tracks, and drop all but the first of those that share a `track_id`."""
        self.tracks.sort(key=lambda track: (track.track_id, track.source))
        unique: list[Track] = []
        for track in self.tracks:
            if unique and unique[-1].track_id == track.track_id:
                first = unique[-1].shown(unique[-1].source)
                message = f"{first} has the same track_id and comes first"
                error = TrackError("plan", "DuplicateTrack", message)
                self.drop(track.track_id, track.shown(track.source), error)
            else:
                unique.append(track)
        self.tracks = unique
        return self


def check_names(track: Track) -> None:
    """Raise `TrackError` unless the track can be written into the tables."""
    for name in (track.identity_id, track.video_id):
        if not name or "/" in name or printable(name) != name:
            message = f"{printable(name)!r} cannot be an identity or a video: empty, not UTF-8, \
or with a slash or a control character in it"
            raise TrackError("plan", "BadName", message)
    if not 0 <= track.track_num <= MAX_TRACK_NUMBER:
        message = f"track number {track.track_num} is beyond {MAX_TRACK_NUMBER}"
        raise TrackError("plan", "BadName", message)


def printable(name: str) -> str:
    """Escape what UTF-8 cannot hold, and control characters: `a\\udcff` becomes `a\\\\udcff`."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return re.sub(r"[\x00-\x1f\x7f]", lambda c: f"\\x{ord(c[0]):02x}", text)
