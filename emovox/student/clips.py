"""The sound of a dataset's tracks: which file, how long, and which tracks have none."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from emovox.corpus.sound_files import AudioTree
from emovox.dataset.reader import Dataset
from emovox.dataset.rows import Dropped
from emovox.errors import CheckError, InputError
from emovox.media.audio import audio_duration

SHORTEST = 0.24  # seconds; one step of the grid
MISMATCH = 1.0  # seconds by which the sound may end before the last frame
THREADS = 8  # of the scan, which waits for the disk


@dataclass(frozen=True)
class Clip:
    """A track with its sound.

    Attributes:
        track_id: of the track.
        path: of the audio, or the video with it.
        duration: seconds from the start for which there are both sound and frames.
    """

    track_id: str
    path: Path
    duration: float


@dataclass(frozen=True)
class Scan:
    """What was found in a folder of audio for some tracks.

    Attributes:
        clips: tracks with sound, in the order asked for.
        dropped: the others.
    """

    clips: list[Clip]
    dropped: list[Dropped]

    def without(self, failures: Mapping[str, Dropped]) -> "Scan":
        """The same, with some of the clips moved to the dropped tracks."""
        kept = [clip for clip in self.clips if clip.track_id not in failures]
        return Scan(kept, [*self.dropped, *failures.values()])

    def check(self, root: Path, max_dropped: float) -> None:
        """Raise CheckError if no track can be heard, or more than `max_dropped` of them cannot."""
        num_tracks = len(self.clips) + len(self.dropped)
        if not self.dropped or (self.clips and len(self.dropped) <= max_dropped * num_tracks):
            return
        first = self.dropped[0]
        raise CheckError(
            f"{root}: {len(self.dropped):,} of {num_tracks:,} tracks have no usable audio, for "
            f"example {first.track_id}: {first.message}; more may be allowed with --max-dropped"
        )

    def summary(self) -> str:
        """How many tracks can be heard, and why the others cannot, in one line."""
        line = f"{len(self.clips):,} of {len(self.clips) + len(self.dropped):,} tracks can be heard"
        return f"{line}; {count_reasons(self.dropped)}" if self.dropped else line


def find_clips(
    dataset: Dataset, track_ids: Sequence[str], root: Path, progress: bool = False
) -> Scan:
    """Find and measure the audio of tracks.

    Args:
        dataset: that has the tracks.
        track_ids: in the order that is kept.
        root: folder of the audio, in any of the trees that `audio_path` knows.
        progress: draw a bar where stderr is a terminal.

    Raises:
        InputError: no such folder.
    """
    from tqdm import tqdm

    check_root(root)
    tree = AudioTree(root)
    ends = {track_id: _last_time(dataset, track_id) for track_id in track_ids}

    def look(track_id: str) -> Clip | Dropped:
        return _look(track_id, tree, ends[track_id], dataset.step)

    with ThreadPoolExecutor(THREADS) as pool:
        bar = tqdm(
            pool.map(look, track_ids),
            total=len(track_ids),
            desc="audio",
            unit=" tracks",
            disable=None if progress else True,
            leave=False,
        )
        found = list(bar)
    return Scan(
        [item for item in found if isinstance(item, Clip)],
        [item for item in found if isinstance(item, Dropped)],
    )


def check_root(root: Path) -> None:
    """Raise InputError if there is no such folder of audio."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --audio names the folder of the tracks' audio")


def count_reasons(dropped: Iterable[Dropped]) -> str:
    """Counts by stage and reason, as in the summary of a build."""
    counts = Counter(f"{item.stage}: {item.error}" for item in dropped)
    return ", ".join(f"{count:,} x {reason}" for reason, count in counts.most_common())


def unreadable(track_id: str, path: Path, root: Path, error: InputError) -> Dropped:
    """A track whose audio cannot be read, as a row without absolute paths."""
    message = str(error).removeprefix(f"{path}: ")
    return Dropped(track_id, _source(path, root), "open", "Unreadable", message)


def _source(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _last_time(dataset: Dataset, track_id: str) -> float:
    return float(dataset.times(track_id)[-1])


def _look(track_id: str, tree: AudioTree, last: float, step: float) -> Clip | Dropped:
    root, path = tree.root, tree.find(track_id)
    if path is None:
        return Dropped(track_id, "", "open", "FileNotFound", "there is no file of its audio")
    try:
        duration = audio_duration(path)
    except InputError as error:
        return unreadable(track_id, path, root, error)
    if duration < SHORTEST:
        message = f"{duration:.2f} s of audio, at least {SHORTEST} s are needed"
        return Dropped(track_id, _source(path, root), "time", "TooShort", message)
    if duration < last - MISMATCH:
        message = f"{duration:.2f} s of audio, but frames up to {last:.2f} s"
        return Dropped(track_id, _source(path, root), "time", "EndsBeforeFrames", message)
    return Clip(track_id, path, min(duration, last + step))
