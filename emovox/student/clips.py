"""Sound of a dataset's tracks: files, durations, tracks without sound, and windows to hear."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from emovox.corpus.sound_files import AudioTree, Place
from emovox.dataset.reader import Dataset
from emovox.dataset.rows import Dropped, count_reasons
from emovox.errors import CheckError, ConfigError, InputError, TrackError
from emovox.media.audio import audio_duration, read_audio
from emovox.media.spectrogram import HOP, SAMPLE_RATE, num_samples
from emovox.packages import DataFrame, data_frame
from emovox.paths import map_ahead
from emovox.student.student_config import LEGACY, EvaluateConfig, PredictConfig

WHOLE, CENTRE = "whole", "centre bucket"  # other parts that a student can hear, see `Student`
SILENT_PEAK = 1e-3  # largest sample of silence, 60 dB below full scale


@dataclass(frozen=True)
class Windows:
    """Length, distance and pooling of windows; by default those of the paper's recipe."""

    seconds: float = 4.0
    hop: float | None = None  # seconds from one start to the next; None for half a window
    pool: str = "max"  # pooling of the logits of several windows, see `Dataset.target`

    def __str__(self) -> str:
        hop = self.hop or self.seconds / 2
        return f"windows of {self.seconds:g} s every {hop:g} s, pooled by {self.pool}"

    @property
    def length(self) -> int:
        """Samples of a window, slightly more than its seconds: 64,384 for 4 s."""
        return num_samples(round(self.seconds * (SAMPLE_RATE // HOP)))

    def starts(self, num_heard: int) -> list[int]:
        """Return the first sample of each window; they cover all of `num_heard` samples."""
        hop = round((self.hop or self.seconds / 2) * SAMPLE_RATE)
        return list(range(0, max(1, num_heard + min(0, hop - self.length)), hop))

    def cut(self, samples: np.ndarray) -> list[np.ndarray]:
        """Return the windows of samples `[L]`, each of `length` samples."""
        parts = [samples[start : start + self.length] for start in self.starts(len(samples))]
        return [np.pad(part, (0, self.length - len(part))) for part in parts]


def choose_part(config: EvaluateConfig | PredictConfig, trained: Windows) -> Windows | str:
    """Return what a student hears; ConfigError for other options of windows beside `whole`."""
    if config.whole and (config.seconds or config.hop):
        raise ConfigError("whole: hears all sound at once; leave out seconds and hop")
    seconds = config.seconds or trained.seconds
    return WHOLE if config.whole else Windows(seconds, config.hop, trained.pool)


Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_DURATION = 0.24  # seconds; one step of the grid
MAX_MISSING = 1.0  # seconds by which the sound may end before the last frame
NUM_THREADS = 8  # of the scan, which waits for the disk
CHUNK = 64  # utterances that a network scores at a time, while the next are read


@dataclass(frozen=True)
class Clip:
    """Sound of one track."""

    track_id: str
    path: Path  # audio file, or video file with sound
    duration: float  # seconds from the start for which there are both sound and frames
    start: float = 0.0  # of the track, in seconds of the file's clock
    end: float | None = None  # likewise; None: to the end of the file


@dataclass(frozen=True)
class Scan:
    """Tracks with usable audio, in the requested order, and the other tracks."""

    clips: list[Clip]
    dropped: list[Dropped]

    def to_pandas(self) -> DataFrame:
        """Return track_id, seconds and the reason if dropped; MissingPackageError if missing."""
        rows: list[tuple[Any, ...]] = [(c.track_id, c.duration, None) for c in self.clips]
        rows += [(item.track_id, math.nan, item.message) for item in self.dropped]
        return data_frame(rows, ["track_id", "seconds", "reason"])

    def check(self, root: Path, max_dropped: float) -> None:
        """Raise CheckError if all tracks, or more than `max_dropped` of them, lack usable audio."""
        num_tracks = len(self.clips) + len(self.dropped)
        if not self.dropped or (self.clips and len(self.dropped) <= max_dropped * num_tracks):
            return
        first = self.dropped[0]
        raise CheckError(
            f"{root}: {len(self.dropped):,} of {num_tracks:,} tracks have no usable audio, for "
            f"example {first.track_id}: {first.message}; fix this, or pass a larger --max-dropped"
        )

    def summary(self) -> str:
        """Return one line with the number of tracks and the reasons of the dropped ones."""
        num_tracks = len(self.clips) + len(self.dropped)
        line = f"{len(self.clips):,} of {num_tracks:,} tracks have usable audio"
        return f"{line}; dropped {list_reasons(self.dropped)}" if self.dropped else line


def find_clips(dataset: Dataset, track_ids: Sequence[str], root: Path) -> Scan:
    """Find and measure the audio of tracks, with a progress bar in a terminal.

    `root` is the folder of the audio, in any layout that `audio_path` supports, or of the media
    that the dataset names as the source of its tracks; InputError if it is missing.
    """
    check_root(root)
    look = partial(_look, AudioTree(root), dataset.step)
    ends = [float(dataset.times(track_id)[-1]) for track_id in track_ids]
    places = [dataset.source(track_id) for track_id in track_ids]
    shown = {"desc": "audio", "unit": " tracks", "disable": None, "leave": False}
    found = thread_map(look, track_ids, ends, places, max_workers=NUM_THREADS, **shown)
    return Scan(
        [item for item in found if isinstance(item, Clip)],
        [item for item in found if isinstance(item, Dropped)],
    )


def check_root(root: Path) -> None:
    """Raise InputError if the folder of audio is missing."""
    if not root.is_dir():
        advice = "pass the folder of the tracks' audio as --audio"
        raise InputError(f"{root}: folder not found; {advice}")


def read_utterance(
    path: Path, protocol: str = "standard", start: float = 0.0, end: float | None = None
) -> np.ndarray:
    """Read the samples of a file or a part under a protocol; InputError if this is not possible."""
    if protocol == LEGACY:
        return read_audio(path, start, end, channels="left", resample=False)
    return read_audio(path, start, end)


def read_ahead(
    items: Sequence[Item], read: Callable[[Item], Result], desc: str, num_threads: int = 2
) -> Iterator[list[Result]]:
    """Yield the results of `read` in chunks, reading the next chunk while one is in use.

    `read` is called in threads. A progress bar with the label `desc` is drawn in a terminal.
    """
    results = map_ahead(read, items, ThreadPoolExecutor(num_threads), CHUNK)
    with tqdm(total=len(items), desc=desc, unit=" files", disable=None, leave=False) as bar:
        while chunk := list(islice(results, CHUNK)):
            yield chunk
            bar.update(len(chunk))


def list_reasons(dropped: Iterable[Dropped]) -> str:
    """Return the number of tracks per stage and reason, most frequent first."""
    counts = count_reasons(dropped).most_common()
    return ", ".join(f"{count:,} x {reason}" for reason, count in counts)


def check_duration(seconds: float) -> None:
    """Raise TrackError for sound that is shorter than a step of the grid."""
    if seconds < MIN_DURATION:
        message = f"{seconds:.2f} s of audio, shorter than {MIN_DURATION} s"
        raise TrackError("time", "TooShort", message)


def reason_of(path: Path, error: InputError | TrackError) -> TrackError:
    """Return the reason why audio cannot be used, without its absolute path."""
    if isinstance(error, TrackError):
        return error
    return TrackError("open", "Unreadable", str(error).removeprefix(f"{path}: "))


def unusable(track_id: str, path: Path, root: Path, error: InputError | TrackError) -> Dropped:
    """Return the row of a track whose audio cannot be used."""
    return Dropped.of(track_id, path.relative_to(root).as_posix(), reason_of(path, error))


def _look(tree: AudioTree, step: float, track_id: str, end: float, place: Place) -> Clip | Dropped:
    """Return the clip of a track whose last frame is at `end` seconds, or its row of `dropped`."""
    sound = tree.locate(track_id, *place)
    if sound is None:
        return Dropped(track_id, "", "open", "FileNotFound", "audio file not found")
    try:
        last = math.inf if sound.end is None else sound.end
        duration = min(audio_duration(sound.path), last) - sound.start
        check_duration(duration)
        if duration < end - MAX_MISSING:
            message = f"{duration:.2f} s of audio, but frames up to {end:.2f} s"
            raise TrackError("time", "EndsBeforeFrames", message)
    except (InputError, TrackError) as error:
        return unusable(track_id, sound.path, tree.root, error)
    return Clip(track_id, sound.path, min(duration, end + step), sound.start, sound.end)
