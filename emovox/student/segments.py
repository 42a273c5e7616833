"""Segments of tracks: a stretch of sound and the target that the teacher gives for it.

Every segment follows from the seed and its position in the training alone, so that the order of
workers, the number of processes and an interruption change nothing.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from emovox.dataset.reader import Dataset
from emovox.dataset.rows import Dropped
from emovox.emotions import EMOTIONS
from emovox.errors import EmovoxError, InputError
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.student.clips import Clip, unreadable
from emovox.student.student_config import StudentTrainConfig

Item = TypeVar("Item")

ORDER, START, SAMPLE = 0, 1, 2  # streams of random numbers, see `_random`
MOST_FAILURES = 100  # tracks in a row that cannot be read before the folder is to blame


@dataclass(frozen=True)
class Segment:
    """One example.

    Attributes:
        samples: float32 `[L]`, 16 kHz.
        target: pooled logits of the teacher, float32 `[8]`.
        failures: tracks that were to give this segment and could not be read.
    """

    samples: np.ndarray
    target: np.ndarray
    failures: tuple[Dropped, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Segments together: samples float32 `[B, L]`, targets float32 `[B, 8]`, failures of all.

    Arrays travel from a worker through a pipe; tensors would go through /dev/shm, which is small in
    many containers.
    """

    samples: np.ndarray
    targets: np.ndarray
    failures: tuple[Dropped, ...]


class TrainSegments(TorchDataset[Segment]):
    """Random segments, by position in an endless training.

    Every `len(clips)` positions draw each track once, in a new order. Where a track cannot be read
    the next one takes its place; after `MOST_FAILURES` of them the segment has no samples.

    Args:
        dataset: gives the targets.
        clips: tracks of the train split.
        root: folder of the audio, for messages.
        config: recipe.
    """

    def __init__(
        self, dataset: Dataset, clips: Sequence[Clip], root: Path, config: StudentTrainConfig
    ) -> None:
        self.dataset, self.clips, self.root, self.config = dataset, clips, root, config
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __getitem__(self, position: int) -> Segment:
        turn, place = divmod(position, len(self.clips))
        if self._order[0] != turn:
            order = _random(self.config.seed, ORDER, turn).permutation(len(self.clips))
            self._order = (turn, order)
        first = int(self._order[1][place])
        failures: list[Dropped] = []
        for index in range(first, first + min(MOST_FAILURES, len(self.clips))):
            clip = self.clips[index % len(self.clips)]
            start = _random(self.config.seed, START, position).uniform(0, _room(clip, self.config))
            try:
                segment = read_segment(self.dataset, clip, start, self.config)
            except InputError as error:
                failures.append(unreadable(clip.track_id, clip.path, self.root, error))
                continue
            return Segment(segment.samples, segment.target, tuple(failures))
        return _nothing(failures)


class FixedSegments(TorchDataset[Segment]):
    """The middle of each track, always the same; a track that cannot be read has no samples."""

    def __init__(
        self, dataset: Dataset, clips: Sequence[Clip], root: Path, config: StudentTrainConfig
    ) -> None:
        self.dataset, self.clips, self.root, self.config = dataset, clips, root, config

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Segment:
        clip = self.clips[index]
        try:
            return read_segment(self.dataset, clip, _room(clip, self.config) / 2, self.config)
        except InputError as error:
            return _nothing([unreadable(clip.track_id, clip.path, self.root, error)])


def read_segment(dataset: Dataset, clip: Clip, start: float, config: StudentTrainConfig) -> Segment:
    """Read `config.num_samples` of a track from `start` seconds on, with silence behind its end.

    Raises:
        InputError: the audio cannot be read.
    """
    start = round(start * SAMPLE_RATE) / SAMPLE_RATE
    duration = min(config.num_samples / SAMPLE_RATE, clip.duration - start)
    samples = read_audio(clip.path, start, duration)
    padded = np.zeros(config.num_samples, np.float32)
    padded[: len(samples)] = samples
    end = start + config.seconds
    target = dataset.target(clip.track_id, start, end, config.pool, config.timing)
    return Segment(padded, target)


def sample(items: Sequence[Item], share: float, seed: int) -> list[Item]:
    """A fixed random share of the items, at least one, in their order."""
    count = max(1, round(share * len(items)))
    chosen = _random(seed, SAMPLE, 0).permutation(len(items))[:count]
    return [items[index] for index in sorted(chosen)]


def load_batches(
    segments: TorchDataset[Segment],
    positions: Sequence[int],
    batch_size: int,
    workers: int,
) -> Iterator[Batch]:
    """Read segments in the order of `positions`, in worker processes, as batches.

    Raises:
        EmovoxError: raised while reading a segment, or a worker was killed.
    """
    loader = DataLoader(
        _Caught(segments),
        batch_size=batch_size,
        sampler=_Positions(positions),
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    try:
        for batch in loader:
            if isinstance(batch, EmovoxError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EmovoxError(
            "a process that reads audio was killed, often for want of memory; try fewer --workers"
        ) from error


class _Caught(TorchDataset[Segment | EmovoxError]):
    """Segments, or the errors instead: what a worker raises comes out as a printed traceback."""

    def __init__(self, segments: TorchDataset[Segment]) -> None:
        self.segments = segments

    def __getitem__(self, position: int) -> Segment | EmovoxError:
        try:
            return self.segments[position]
        except EmovoxError as error:
            return error


class _Positions(torch.utils.data.Sampler[int]):
    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = positions

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)


def _collate(found: Iterable[Segment | EmovoxError]) -> Batch | EmovoxError:
    segments = []
    for item in found:
        if isinstance(item, EmovoxError):
            return item
        segments.append(item)
    heard = [segment for segment in segments if len(segment.samples)]
    failures = tuple(failure for segment in segments for failure in segment.failures)
    if not heard:
        return Batch(
            np.empty((0, 0), np.float32), np.empty((0, len(EMOTIONS)), np.float32), failures
        )
    return Batch(
        np.stack([s.samples for s in heard]), np.stack([s.target for s in heard]), failures
    )


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)  # it reads and resamples; the processors are the network's
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()


def _die_with(parent: int) -> None:
    """End this process once its parent is gone.

    A worker whose training was killed would wait forever to hand over a batch, and hold on to the
    training's sockets and GPU.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, number])


def _room(clip: Clip, config: StudentTrainConfig) -> float:
    """Seconds by which a segment can be moved within a track."""
    return max(clip.duration - config.num_samples / SAMPLE_RATE, 0.0)


def _nothing(failures: list[Dropped]) -> Segment:
    empty = np.empty(0, np.float32)
    return Segment(empty, empty, tuple(failures))
