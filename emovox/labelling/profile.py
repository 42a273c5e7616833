"""How fast a build could be here, and how fast it was: ceilings of media and teacher."""

import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from loky import BrokenProcessPool

from emovox.emotions import EMOTIONS
from emovox.labelling.engine import Worker, Workers
from emovox.labelling.shard import ShardJob, build_shard
from emovox.labelling.teacher_client import BATCH, Feed, TeacherLostError, crops_in
from emovox.labelling.worker import Place, feed_of, load_detector

SECONDS = 5.0  # that each ceiling is measured for, before and after
SAMPLE_PER_WORKER = 2  # shards
GPU_CROPS = 10_000  # per second, to say what a GPU would want


@dataclass(frozen=True)
class Ceilings:
    """What media and teacher can do, each alone, with all workers at it at once.

    Attributes:
        num_workers: processes that decode, one core each.
        tracks: that media can do, per second and core.
        frames: grid frames that media can do, per second and core.
        crops: that the teacher can do per second, all workers or devices together.
        shared: whether the teacher runs on the cores that decode.
    """

    num_workers: int
    tracks: float
    frames: float
    crops: float
    shared: bool

    @property
    def smaller(self) -> float:
        """The smaller of the two ceilings, frames per second."""
        return min(self.num_workers * self.frames, self.crops)

    @property
    def bound(self) -> float:
        """Frames per second that no run can exceed: on shared cores, times add up."""
        if not self.shared:
            return self.smaller
        return 1 / (1 / (self.num_workers * self.frames) + 1 / self.crops)

    @property
    def bound_by(self) -> str:
        """What to improve first."""
        by_media = self.num_workers * self.frames < self.crops
        name = "media" if by_media else "the teacher"
        if not self.shared:
            return f"{name} is the slower"
        share = self.bound / (self.num_workers * self.frames if by_media else self.crops)
        return f"{name} takes {share:.0%} of the cores' time"

    @property
    def num_cores(self) -> int:
        """Cores that keep the teacher busy: that of this run's devices, or of one GPU."""
        return math.ceil((GPU_CROPS if self.shared else self.crops) / self.frames)


class Profiler:
    """Measures the ceilings on a sample of a run's shards, and the pace of the run between.

    An engine calls it with its workers before the first shard and after the last. What the
    machine can do changes while others use it, so both measurements count.

    Args:
        sample: some of the run's shards.
        shared: whether the teacher runs on the cores that decode.
    """

    def __init__(self, sample: Sequence[ShardJob], *, shared: bool) -> None:
        self._sample, self._shared = sample, shared
        self._began = time.perf_counter()
        self._ready = self._started = self._ended = 0.0
        self._measured: list[Ceilings] = []

    def __call__(self, team: Workers) -> None:
        self._ended = time.perf_counter()
        try:
            self._measured.append(self._measure(team.workers))
        except (BrokenProcessPool, TeacherLostError):  # a clip that ends processes, perhaps
            for worker in team.workers:
                worker.end()
        if not self._started:
            self._started = time.perf_counter()

    def _measure(self, workers: Sequence[Worker]) -> Ceilings:
        shares = [self._sample[i :: len(workers)] or self._sample for i in range(len(workers))]
        with ThreadPoolExecutor(len(workers)) as threads:
            if not self._started:
                list(threads.map(lambda w: w.call(_warm, self._sample[0]), workers))
                self._ready = time.perf_counter()
            media = list(threads.map(lambda w, s: w.call(_run_media, s), workers, shares))
            crops = list(threads.map(lambda w: w.call(_run_teacher, self._sample[0]), workers))
        tracks, frames, seconds = (sum(column) for column in zip(*media, strict=True))
        rates = tracks / seconds, frames / seconds, sum(crops)
        return Ceilings(len(workers), *rates, self._shared)

    def lines(self, num_frames: int) -> list[str]:
        """What was measured, for the summary.

        Args:
            num_frames: rows that this run made.
        """
        if not self._started:
            return ["profile   nothing was left to build, so there is nothing to measure"]
        if not self._measured:
            return ["profile   a worker died while it was measured"]
        c = mean(self._measured)
        pace = num_frames / (self._ended - self._started)
        where = "on the same cores" if c.shared else "on its devices"
        wants = f"a GPU of {GPU_CROPS:,} crops/s would want" if c.shared else "the teacher wants"
        return [
            f"media     {c.frames:,.0f} frames/s and {c.tracks:,.1f} tracks/s per core, "
            f"{c.num_workers * c.frames:,.0f} frames/s with {c.num_workers} workers",
            f"teacher   {c.crops:,.0f} crops/s {where}",
            f"bound     {c.bound:,.0f} frames/s; {c.bound_by}",
            f"reached   {pace:,.0f} frames/s, {pace / c.bound:.2f} of the bound "
            f"({pace / c.smaller:.2f} of the slower alone), after a start of "
            f"{self._ready - self._began:.1f} s",
            f"cores     {wants} {c.num_cores:,} cores for media",
        ]


def mean(measured: Sequence[Ceilings]) -> Ceilings:
    """Ceilings with the mean rates of several measurements."""
    rates = np.mean([(c.tracks, c.frames, c.crops) for c in measured], axis=0)
    return replace(measured[0], **dict(zip(("tracks", "frames", "crops"), rates, strict=True)))


def choose_sample(jobs: Sequence[ShardJob], num_workers: int) -> list[ShardJob]:
    """Shards from all over a run, for all workers."""
    number = min(len(jobs), SAMPLE_PER_WORKER * num_workers)
    return [jobs[i * len(jobs) // number] for i in range(number)]


def _warm(job: ShardJob, place: Place) -> None:
    """Load the teacher, and whatever else a first shard loads."""
    _build(job, place)
    feed = feed_of(job.settings, job.teacher_path, place)
    _fill(feed)
    feed.put(BATCH)
    feed.drain()


def _run_media(jobs: Sequence[ShardJob], place: Place) -> tuple[int, int, float]:
    """Tracks, frames and seconds of media alone, over and over for `SECONDS`."""
    num_tracks, num_frames, seconds = 0, 0, 0.0
    for job in itertools.cycle(jobs):
        tracks, frames, spent = _build(job, place)
        num_tracks, num_frames, seconds = num_tracks + tracks, num_frames + frames, seconds + spent
        if seconds >= SECONDS:
            break
    return num_tracks, num_frames, seconds


def _build(job: ShardJob, place: Place) -> tuple[int, int, float]:
    """One shard without a teacher, its rows thrown away."""
    size = feed_of(job.settings, job.teacher_path, place).input_size
    with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
        unkept = replace(job, state=Path(folder))
        report = build_shard(unkept, _NoTeacher(size), lambda: load_detector(place.device))
    return len(report.tracks), report.num_frames, report.media_seconds


def _run_teacher(job: ShardJob, place: Place) -> float:
    """Crops per second of the teacher alone, fed by this worker for `SECONDS`."""
    feed = feed_of(job.settings, job.teacher_path, place)
    num_crops, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        feed.buffer()  # holds crops since the warm-up
        feed.put(BATCH)
        num_crops += BATCH
    feed.drain()
    return num_crops / (time.perf_counter() - started)


def _fill(feed: Feed) -> None:
    random = np.random.default_rng(0)
    crops = feed.buffer()
    crops[:] = random.integers(0, 256, crops.shape, np.uint8)


class _NoTeacher:
    """A `Feed` to nobody."""

    sha256 = ""
    teacher_seconds = wait_seconds = 0.0

    def __init__(self, input_size: int) -> None:
        self.input_size = input_size
        self._crops = crops_in(None, input_size)
        self._num_crops = 0

    def buffer(self) -> np.ndarray:
        return self._crops

    def put(self, num_crops: int) -> None:
        self._num_crops += num_crops

    def drain(self) -> np.ndarray:
        num_crops, self._num_crops = self._num_crops, 0
        return np.zeros((num_crops, len(EMOTIONS)), np.float32)
