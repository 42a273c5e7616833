"""The track of a corpus: one speaking-face utterance, and the media that show it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import groupby
from pathlib import Path

from emovox.corpus.listing import Entry, Files, files_below
from emovox.dataset.rows import Dropped
from emovox.errors import TrackError
from emovox.ids import TrackKey, printable

MAX_ENDINGS = 5  # counted one by one in a note


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
    # an example and the endings of things for which `finish` adds a note each
    left_out: dict[str, tuple[str, Counter[str]]] = field(default_factory=dict)

    @cached_property
    def files(self) -> Files:
        """Files below the root."""
        return files_below(self.root)

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
        _, endings = self.left_out.setdefault(what, (name or "the root", Counter()))
        endings[Path(name).suffix.lower()] += 1

    def note(self, line: str) -> None:
        """Add a line for the user."""
        self.notes.append(printable(line))

    def drop(self, track_id: str, source: str, error: TrackError) -> None:
        """Record an entry that looks like a track but cannot be one."""
        self.dropped.append(Dropped.of(track_id, source, error))

    def finish(self) -> "Corpus":
        """Sort the tracks, drop all but the first of a `track_id`, and add the notes."""
        for what, (example, endings) in self.left_out.items():
            counts = [f"{n:,} {end or 'other'}" for end, n in endings.most_common(MAX_ENDINGS)]
            shown = f" ({', '.join(counts)})" if any(endings) else ""
            self.note(f"left out {endings.total():,} {what}{shown}, for example {example}")
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
