"""Runs shards on the cores of one machine, and survives workers that die."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool

from emovox.build.shard import ShardJob, ShardReport, build_shard, rows_file
from emovox.errors import EmovoxError, InputError
from emovox.media.faces import Detector
from emovox.teacher import Teacher, load_teacher

MAX_DEATHS = 2  # workers that one track may take with it, before it is dropped
QUEUE_PER_WORKER = 2  # shards handed out per worker, so that none waits for the driver
DRIVER_POLL = 1.0  # seconds between looks whether the driver is still there
HANG_FACTOR = 2.0  # times the timeout after which a worker that cannot be interrupted ends itself

Work = Callable[[ShardJob], ShardReport]


class Engine(Protocol):
    """Runs shards, in any order, and yields each one's report as it finishes."""

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]: ...


@dataclass(frozen=True)
class LokyEngine:
    """Worker processes through joblib's loky, each with one thread and its own teacher.

    A worker that crashes, is killed for memory or hangs breaks the pool. The shards then under way
    are run again one by one, which tells the guilty track; it is dropped after `MAX_DEATHS`.
    """

    num_workers: int
    work: Work | None = None

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        remaining = iter(jobs)
        while True:
            unfinished = yield from self._run_pool(remaining)
            if not unfinished:
                return
            for job in unfinished:
                yield from self._run_alone(job)

    def _run_pool(self, jobs: Iterator[ShardJob]) -> Generator[ShardReport, None, list[ShardJob]]:
        """Run jobs until there are no more, or the pool breaks; return those it broke over."""
        under_way: dict[Future[ShardReport], ShardJob] = {}
        with _pool(self.num_workers) as pool:
            try:
                while True:
                    while len(under_way) < QUEUE_PER_WORKER * self.num_workers:
                        if (job := next(jobs, None)) is None:
                            break
                        try:
                            under_way[pool.submit(self.work or _work, job)] = job
                        except BrokenProcessPool:  # broke since the last result
                            return [*under_way.values(), job]
                    if not under_way:
                        return []
                    finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in finished:
                        report = future.result()
                        del under_way[future]
                        yield report
            except BrokenProcessPool:
                return list(under_way.values())

    def _run_alone(self, job: ShardJob) -> Iterator[ShardReport]:
        deaths: Counter[str] = Counter()
        while True:
            _journal(job).unlink(missing_ok=True)
            with _pool(1) as pool:
                try:
                    yield pool.submit(self.work or _work, job).result()
                    return
                except BrokenProcessPool as error:
                    track_id = _read_journal(job)
                    if not track_id:
                        raise EmovoxError(
                            "a worker died before its first track; is there memory for "
                            f"{self.num_workers} workers? Try fewer with --jobs"
                        ) from error
                    deaths[track_id] += 1
                    if deaths[track_id] >= MAX_DEATHS:
                        lost = {**job.lost, track_id: deaths[track_id]}
                        job = replace(job, lost=lost)


@contextlib.contextmanager
def _pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Read by the process that loky starts to count semaphores: it warns when workers are killed.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    pool = ProcessPoolExecutor(
        num_workers, initializer=_start_worker, initargs=(os.getpid(),), env=one_thread
    )
    try:
        yield pool
    except BaseException:
        _kill(pool)
        raise
    pool.shutdown()


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers at once. What loky's own thread then complains of is of no use to anyone."""
    hook = threading.excepthook
    threading.excepthook = lambda arguments: None
    try:
        pool.shutdown(kill_workers=True)
    finally:
        threading.excepthook = hook


def _start_worker(driver: int) -> None:
    """Leave Ctrl-C to the driver, which ends its workers, and do not outlive it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(DRIVER_POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(job: ShardJob) -> ShardReport:
    """Run one shard in a worker process, with a watchdog and a journal of the track in hand."""
    import torch

    torch.set_num_threads(1)
    journal = _journal(job)
    with _Watchdog(job.timeout) as watchdog:

        def on_track(track_id: str) -> None:
            journal.write_text(track_id, encoding="utf-8")
            watchdog.restart()

        settings = job.settings
        teacher = _load_teacher(
            str(job.teacher_path), settings.device, settings.precision, settings.compiled
        )
        if teacher.sha256 != settings.teacher_sha256:
            raise InputError(f"{job.teacher_path}: changed while the build was under way")
        report = build_shard(job, teacher, lambda: load_detector(settings.device), on_track)
    journal.unlink(missing_ok=True)
    return report


class _Watchdog:
    """Ends the process when a track takes far longer than its timeout, as a hang in C does."""

    def __init__(self, timeout: float | None) -> None:
        self._seconds = None if timeout is None else HANG_FACTOR * timeout
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "_Watchdog":
        return self

    def restart(self) -> None:
        self._stop()
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, os._exit, (1,))
            self._timer.daemon = True
            self._timer.start()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def __exit__(self, *exception: object) -> None:
        self._stop()


def _journal(job: ShardJob) -> Path:
    return rows_file(job.state, job.shard.fingerprint).with_suffix(".track")


def _read_journal(job: ShardJob) -> str:
    try:
        return _journal(job).read_text(encoding="utf-8")
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _load_teacher(path: str, device: str, precision: str, compiled: bool) -> Teacher:
    return load_teacher(path, device, precision, compiled=compiled)


@lru_cache(maxsize=1)
def load_detector(device: str) -> Detector:
    """MTCNN on the device, once per process."""
    import torch

    from emovox.media.mtcnn import Mtcnn

    return Mtcnn(torch.device(device))
