"""Segments of tracks: some seconds of sound and the teacher's target for them.

A segment depends only on the seed and on its position in the training. So the order of workers, the
number of processes and an interruption do not change it.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from emovox.dataset.reader import Dataset
from emovox.dataset.rows import Dropped
from emovox.errors import EmovoxError, InputError
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.student.clips import Clip, unusable
from emovox.student.student_config import StudentTrainConfig
from emovox.student.windows import Windows

Item = TypeVar("Item")

ORDER, START, SAMPLE = 0, 1, 2  # streams of random numbers, see `_random`
MAX_FAILURES = 100  # consecutive unreadable tracks after which a segment stays empty


@dataclass(frozen=True)
class Segment:
    """One training example."""

    samples: np.ndarray  # float32 `[L]`, 16 kHz; empty if no track could be read
    target: np.ndarray  # pooled logits of the teacher, float32 `[E]`; empty without samples
    failures: tuple[Dropped, ...] = ()  # tracks drawn for this segment that could not be read


@dataclass(frozen=True)
class Batch:
    """Segments together: samples float32 `[B, L]`, targets float32 `[B, E]`, all failures.

    Workers send arrays through a pipe; tensors would use /dev/shm, which is small in many
    containers.
    """

    samples: np.ndarray
    targets: np.ndarray
    failures: tuple[Dropped, ...]


class Segments(TorchDataset[Segment]):
    """Segments of tracks with audio; `root` is the folder of the audio, for messages."""

    def __init__(
        self, dataset: Dataset, clips: Sequence[Clip], root: Path, config: StudentTrainConfig
    ) -> None:
        self.dataset, self.clips, self.root, self.config = dataset, clips, root, config

    def room(self, clip: Clip) -> float:
        """Return the latest start of a segment within a track, in seconds."""
        return max(clip.duration - self.config.num_samples / SAMPLE_RATE, 0.0)

    def read(self, clip: Clip, start: float) -> Segment:
        """Read a segment; an empty one with the failure if the track cannot be read."""
        try:
            return read_segment(self.dataset, clip, start, self.config)
        except InputError as error:
            empty = np.empty(0, np.float32)
            return Segment(empty, empty, (unusable(clip.track_id, clip.path, self.root, error),))


class TrainSegments(Segments):
    """Random segments, by position in an endless training; for an encoder, random `Windows`.

    Every `len(clips)` positions draw each track once, in a new order. The next track replaces one
    that cannot be read; after `MAX_FAILURES` of them the segment has no samples.
    """

    _order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # the current pass over the tracks

    def __getitem__(self, position: int) -> Segment:
        number, place = divmod(position, len(self.clips))
        if self._order[0] != number:
            order = _random(self.config.seed, ORDER, number).permutation(len(self.clips))
            self._order = (number, order)
        first = int(self._order[1][place])
        failures: tuple[Dropped, ...] = ()
        for index in range(first, first + min(MAX_FAILURES, len(self.clips))):
            clip = self.clips[index % len(self.clips)]
            random = _random(self.config.seed, START, position)
            start = random.uniform(0, self.room(clip))
            if self.config.encoder:
                windows = Windows(self.config.seconds).starts(round(clip.duration * SAMPLE_RATE))
                start = random.choice(windows) / SAMPLE_RATE
            segment = self.read(clip, start)
            failures += segment.failures
            if len(segment.samples):
                break
        return replace(segment, failures=failures)


class FixedSegments(Segments):
    """The middle of each track; a track that cannot be read has no samples."""

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Segment:
        clip = self.clips[index]
        return self.read(clip, self.room(clip) / 2)


def read_segment(dataset: Dataset, clip: Clip, start: float, config: StudentTrainConfig) -> Segment:
    """Read a segment from `start` seconds on, padded with silence; InputError if this fails."""
    start = round(start * SAMPLE_RATE) / SAMPLE_RATE
    end = min(start + config.num_samples / SAMPLE_RATE, clip.duration)
    samples = read_audio(clip.path, clip.start + start, clip.start + end)
    padded = np.zeros(config.num_samples, np.float32)
    padded[: len(samples)] = samples
    window = start, min(start + config.seconds, clip.duration)  # no rows behind the sound's end
    target = dataset.target(clip.track_id, *window, config.pool, config.timing)
    return Segment(padded, target)


def sample(items: Sequence[Item], fraction: float, seed: int) -> list[Item]:
    """Draw a fixed random fraction of the items, at least one, in their order."""
    count = max(1, round(fraction * len(items)))
    chosen = _random(seed, SAMPLE, 0).permutation(len(items))[:count]
    return [items[index] for index in sorted(chosen)]


READER = "DataLoader worker"  # in torch's message
READER_KILLED = (
    "a process that reads audio was killed, often because memory ran out; pass fewer --workers"
)


def load_batches(
    segments: Segments, positions: Sequence[int], batch_size: int, num_workers: int
) -> Iterator[Batch]:
    """Read segments in the order of `positions`, in worker processes, as batches.

    EmovoxError if a segment cannot be read or a worker was killed.
    """
    loader = DataLoader(
        _Batches(segments),
        batch_size=None,
        sampler=[positions[k : k + batch_size] for k in range(0, len(positions), batch_size)],
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_start_worker,
    )
    try:
        for batch in loader:
            if isinstance(batch, EmovoxError):
                raise batch
            yield batch
    except RuntimeError as error:
        if READER not in str(error):
            raise
        raise EmovoxError(READER_KILLED) from error


class _Batches(TorchDataset[Batch | EmovoxError]):
    """Batches, or their errors: an error raised in a worker would print its traceback."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def __getitem__(self, positions: Sequence[int]) -> Batch | EmovoxError:
        try:
            segments = [self.segments[position] for position in positions]
        except EmovoxError as error:
            return error
        heard = [segment for segment in segments if len(segment.samples)]
        samples = np.array([segment.samples for segment in heard], np.float32)
        targets = np.array([segment.target for segment in heard], np.float32)
        failures = tuple(failure for segment in segments for failure in segment.failures)
        return Batch(samples, targets, failures)


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)  # the other cores belong to the network
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()


def _die_with(parent: int) -> None:
    """End this process when its parent has ended.

    A worker whose training was killed would wait forever to deliver a batch, and keep the
    training's sockets and GPU.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, number])
