"""Segments of tracks: some seconds of sound and the teacher's target for them.

A segment depends only on the seed and on its position in the training. So the order of threads, the
number of processes and an interruption do not change it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Dropped
from emovox.dataset.schema import SPLITS
from emovox.errors import InputError
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.paths import map_ahead
from emovox.student.clips import Clip, Windows, find_clips, unusable
from emovox.student.sound_cache import FULL_SCALE, SoundCache, pack_clips
from emovox.student.student_config import StudentTrainConfig

ORDER, START, SAMPLE = 0, 1, 2  # streams of random numbers, see `_random`
NOTHING = np.empty(0, np.float32)
PREFETCH = 4  # batches that each thread prepares
MAX_FAILURES = 100  # consecutive unreadable tracks after which a segment stays empty


@dataclass(frozen=True)
class Segment:
    """One training example; without samples and target if no track could be read."""

    samples: np.ndarray  # `[L]`, 16 kHz, float32, or int16 from a sound cache
    target: np.ndarray  # pooled logits of the teacher, float32 `[E]`
    track_id: str = ""
    start: float = 0.0  # seconds from the start of the track
    failures: tuple[Dropped, ...] = ()  # tracks drawn for this segment that could not be read


@dataclass(frozen=True)
class Batch:
    """Segments together: samples `[B, L]`, targets float32 `[B, E]`, all failures."""

    samples: np.ndarray
    targets: np.ndarray
    failures: tuple[Dropped, ...]


class SpeechSegments(TorchDataset[dict[str, Any]]):
    """Segments of the tracks of a split and the teacher's targets, as a Dataset of torch.

    An item has `samples` (float32 `[L]`, 16 kHz, slightly more than `seconds`, padded with
    silence), `target` (float32 `[E]`), `track_id` and `start` in seconds. In the split train,
    positions have no end: every `len` of them draw each track once, in a new order, at random
    starts (encoder: random `Windows`); the next track replaces one that cannot be read. In other
    splits, an item is the middle of a track. Items depend only on their position and the arguments.

    Args:
        dataset: the dataset, or its folder.
        root: folder with the tracks' audio, see `audio_path`, or of the dataset's sources.
        split: split of the dataset.
        seconds: length of a segment.
        pool: pooling of the logits of a segment into its target, see `Dataset.target`.
        sound_cache: folder of `pack_sound`; tracks that it lacks are packed first.
        options: other fields of `StudentTrainConfig`, such as `timing`, `seed` and `max_dropped`.

    Raises:
        ConfigError: the dataset lacks the split.
        InputError: the dataset or the folder of audio is missing, or an item cannot be read.
        CheckError: too many tracks have no usable audio.

    Example:
        >>> place = "emovox-demo/dataset", "emovox-demo/corpus"
        >>> segments = SpeechSegments(*place, "train", seconds=2)
        >>> len(segments), segments[0]["samples"].shape, segments[0]["target"].shape
        (60, (32384,), (8,))
    """

    sounds: SoundCache | None = None

    def __init__(
        self,
        dataset: Dataset | str | os.PathLike[str],
        root: str | os.PathLike[str],
        split: str,
        seconds: float = 4.0,
        pool: str = "max",
        *,
        sound_cache: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self.dataset = dataset if isinstance(dataset, Dataset) else load(dataset)
        self.dataset.check_split(split)
        self.root, self.is_random = Path(root), split == SPLITS[0]
        options = {"validation_share": 1.0} | options
        self.config = config = StudentTrainConfig(seconds=seconds, pool=pool, **options)
        self.windows = Windows(config.seconds)
        track_ids = self.dataset.tracks[split]["track_id"].to_pylist()
        if not self.is_random:  # a fixed random share, in its order
            count = max(1, round(config.validation_share * len(track_ids)))
            chosen = _random(config.seed, SAMPLE, 0).permutation(len(track_ids))[:count]
            track_ids = [track_ids[index] for index in sorted(chosen)]
        self.scan = find_clips(self.dataset, track_ids, self.root)
        self.scan.check(self.root, config.max_dropped)
        self.clips = self.scan.clips
        if sound_cache is not None:
            self.use(Path(sound_cache), lambda line: None)

    def use(self, sound_cache: Path, say: Callable[[str], None]) -> None:
        """Read from a sound cache, after packing the tracks that it lacks."""
        pack_clips(sound_cache, self.clips, self.root, 0, say)
        self.sounds = SoundCache(sound_cache, self.clips, self.root)

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, position: int) -> dict[str, Any]:
        found = self.segment(position)
        if not len(found.samples):
            raise InputError(f"{found.failures[0].track_id}: {found.failures[0].message}")
        scale = np.float32(FULL_SCALE if found.samples.dtype == np.int16 else 1)
        samples = found.samples.astype(np.float32) / scale
        kept = {"track_id": found.track_id, "start": found.start}
        return {"samples": samples, "target": found.target, **kept}

    def segment(self, position: int) -> Segment:
        """Return a segment, and the failures; random ones are empty after `MAX_FAILURES`."""
        if not self.is_random:
            clip = self.clips[position]
            return self.read(clip, self._room(clip) / 2)
        number, place = divmod(position, len(self))
        first = int(_order(self.config.seed, number, len(self))[place])
        failures: tuple[Dropped, ...] = ()
        for index in range(first, first + min(MAX_FAILURES, len(self))):
            clip = self.clips[index % len(self)]
            random = _random(self.config.seed, START, position)
            start = random.uniform(0, self._room(clip))
            if self.config.encoder:
                starts = self.windows.starts(round(clip.duration * SAMPLE_RATE))
                start = random.choice(starts) / SAMPLE_RATE
            found = self.read(clip, start)
            failures += found.failures
            if len(found.samples):
                break
        return replace(found, failures=failures) if failures else found

    def _room(self, clip: Clip) -> float:
        """Return the latest start of a segment within a track, in seconds."""
        return max(clip.duration - self.windows.length / SAMPLE_RATE, 0.0)

    def read(self, clip: Clip, start: float) -> Segment:
        """Read a segment from `start` seconds on; an empty one with the failure if unreadable."""
        config, start = self.config, round(start * SAMPLE_RATE) / SAMPLE_RATE
        end = min(start + self.windows.length / SAMPLE_RATE, clip.duration)
        try:
            if self.sounds:
                samples = self.sounds.read(clip, start, end)
            else:
                samples = read_audio(clip.path, clip.start + start, clip.start + end)
        except InputError as error:
            failure = unusable(clip.track_id, clip.path, self.root, error)
            return Segment(NOTHING, NOTHING, failures=(failure,))
        if num_missing := self.windows.length - len(samples):
            samples = np.pad(samples, (0, num_missing))
        # No rows behind the end of the sound.
        window = start, min(start + config.seconds, clip.duration)
        target = self.dataset.target(clip.track_id, *window, config.pool, config.timing)
        return Segment(samples, target, clip.track_id, start)


def load_batches(
    segments: SpeechSegments, positions: Sequence[int], batch_size: int, num_workers: int
) -> Iterator[Batch]:
    """Read segments in the order of `positions` as batches, in threads, some batches ahead.

    Decoders release Python's lock while they work. EmovoxError if a segment cannot be read.
    """
    parts = [positions[k : k + batch_size] for k in range(0, len(positions), batch_size)]
    read = partial(_read_batch, segments)
    if not num_workers:
        return map(read, parts)
    return map_ahead(read, parts, ThreadPoolExecutor(num_workers), PREFETCH * num_workers)


def _read_batch(segments: SpeechSegments, positions: Sequence[int]) -> Batch:
    found = [segments.segment(position) for position in positions]
    heard = [segment for segment in found if len(segment.samples)]
    samples = np.array([segment.samples for segment in heard])
    targets = np.array([segment.target for segment in heard])
    failures = tuple(failure for segment in found for failure in segment.failures)
    return Batch(samples, targets, failures)


@lru_cache(4)  # threads may read at the end of one pass and in the next
def _order(seed: int, number: int, num_tracks: int) -> np.ndarray:
    return _random(seed, ORDER, number).permutation(num_tracks)


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, number])
