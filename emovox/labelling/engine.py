"""Runs shards on the cores of one machine, and survives processes that die."""

import contextlib
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

from loky import BrokenProcessPool, ProcessPoolExecutor

from emovox.errors import EmovoxError, first_line
from emovox.labelling.shard import ShardJob, ShardReport
from emovox.labelling.teacher_client import TeacherLostError
from emovox.labelling.worker import Place, run_shard, serve_teacher, start_worker

MAX_DEATHS = 2  # of workers over one track, before it counts as lost
MAX_KILLS = 10  # from outside, as for memory, over one track, before it counts as lost
ALONE_FROM = 2  # kills over one shard, before it is tried while no other shard runs
MAX_LOST = 60  # connections to a teacher's process, over one shard
LOST_PAUSE = 0.5  # seconds
MAX_FAILURES = 4  # of a teacher's process in a row
QUEUE_PER_WORKER = 2  # shards handed out per worker, so that none waits for the driver
KILLED = (-9, -signal.SIGTERM)  # SIGKILL has no name on Windows
POLL = 0.05  # seconds between looks at another process
ENDED = "the build was ended"

_hook_lock = threading.Lock()
_start_lock = threading.Lock()

Result = TypeVar("Result")
Work = Callable[[ShardJob, Place], ShardReport]


class Engine(Protocol):
    """Runs shards, in any order, and yields each one's report as it finishes."""

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]: ...


class Process:
    """A process of its own, through loky, which is replaced when it dies.

    Args:
        folder: for its temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool: ProcessPoolExecutor | None = None
        self._started: list[BaseProcess] = []
        self._closed = False

    def submit(self, call: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Call a function there; its future raises `BrokenProcessPool` if the process dies."""
        if self._closed:
            raise EmovoxError(ENDED)
        if self._pool is not None:
            return self._pool.submit(call, *arguments)
        with _start_lock:  # one pool starts at a time, so that a new child process is this pool's
            before = set(multiprocessing.active_children())
            one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            # Read by the process in which loky counts semaphores: it warns when workers are killed.
            os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
            self._pool = ProcessPoolExecutor(
                1,
                initializer=start_worker,
                initargs=(os.getpid(), self._folder),
                env=one_thread,
            )
            future: Future[Result] = self._pool.submit(call, *arguments)
            self._started = [p for p in multiprocessing.active_children() if p not in before]
        return future

    def exit_code(self) -> int | None:
        """How a process that died ended; None if that cannot be known."""
        for _ in range(int(1 / POLL)):  # loky's own thread may be about to ask, and only one can
            codes = [process.exitcode for process in self._started]
            if None not in codes:
                break
            time.sleep(POLL)
        return next(iter(codes), None)

    def end(self) -> None:
        """End the process at once; the next call starts another one."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        with _hook_lock:  # what loky's own thread complains of then is of no use to anyone
            hook, threading.excepthook = threading.excepthook, lambda arguments: None
            try:
                pool.shutdown(kill_workers=True)
            finally:
                threading.excepthook = hook

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        self.end()


class Server(Process):
    """The process of a teacher that several workers feed, started again when it dies."""

    def __init__(self, job: ShardJob, device: str, socket: Path) -> None:
        super().__init__(socket.parent)
        self._job, self._device, self._socket = job, device, socket
        self._lock = threading.Lock()
        self._num_starts = 0
        self._num_failures = 0  # since it last served a shard
        self._serving: Future[None] | None = None

    def address(self) -> str:
        """Where workers reach it; waits until they can.

        Raises:
            EmovoxError: the teacher cannot be loaded, fails, or dies again and again.
        """
        with self._lock:
            address = self._address()
            while self._serving is None or self._serving.done() or not address.exists():
                if self._closed:
                    raise EmovoxError(ENDED)
                if self._serving is not None and self._serving.done():
                    self._look_at_end(self._serving)
                    self._serving = None
                if self._serving is None:
                    self._num_starts += 1
                    address = self._address()
                    job = self._job
                    self._serving = self.submit(
                        serve_teacher, str(address), job.teacher_path, job.settings, self._device
                    )
                time.sleep(POLL)
            return str(address)

    def has_served(self) -> None:
        """A shard was done with it: what failed before is forgiven."""
        self._num_failures = 0

    def _address(self) -> Path:
        return self._socket.with_suffix(f".{self._num_starts}")

    def _look_at_end(self, serving: "Future[None]") -> None:
        error = serving.exception()
        self.end()
        if isinstance(error, EmovoxError):
            raise error
        self._num_failures += 1
        if self._num_failures == MAX_FAILURES:
            reason = first_line(error)
            raise EmovoxError(f"the teacher failed on {self._device}: {reason}") from error


class Worker(Process):
    """A process that runs shards, and what to do when it dies.

    Args:
        work: what it runs.
        place: its journal and device.
        server: of the teacher; None: the worker holds the teacher itself.
        turns: to run a shard while no other worker does.
    """

    def __init__(self, work: Work, place: Place, server: Server | None, turns: "Turns") -> None:
        super().__init__(place.journal.parent)
        self._work, self._place = work, place
        self._server, self._turns = server, turns

    def place(self) -> Place:
        """Its place, with the address of the teacher."""
        if self._server is None:
            return self._place
        return replace(self._place, address=self._server.address())

    def close(self) -> None:
        super().close()
        if self._server is not None:
            self._server.close()

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function there, with the place of the worker as its last argument."""
        return self.submit(function, *arguments, self.place()).result()

    def build(self, job: ShardJob) -> ShardReport:
        """Run a shard to its end, whatever it takes.

        A track over which the process crashes or hangs `MAX_DEATHS` times is lost to this way of
        decoding. A process that is killed says little of its track, so that takes `MAX_KILLS`;
        after `ALONE_FROM` the shard runs alone, in case it is memory that is short.
        """
        deaths: Counter[str] = Counter()
        kills: Counter[str] = Counter()
        num_lost = 0  # connections to the teacher
        while True:
            self._place.journal.unlink(missing_ok=True)
            try:
                with self._turns.take(alone=kills.total() >= ALONE_FROM):
                    report = self.submit(self._work, job, self.place()).result()
                if self._server is not None:
                    self._server.has_served()
                return report
            except TeacherLostError:
                num_lost += 1
                if num_lost == MAX_LOST:
                    raise
                time.sleep(LOST_PAUSE)  # until its end is known here
            except BrokenProcessPool as error:
                code = self.exit_code()
                self.end()
                track_id = _read(self._place.journal)
                count, limit = (kills, MAX_KILLS) if code in KILLED else (deaths, MAX_DEATHS)
                count[track_id] += 1
                if count[track_id] < limit:
                    continue
                if not track_id:
                    raise EmovoxError(
                        "a worker died before its first track, again and again; is there memory "
                        "for so many workers? Try fewer with --jobs"
                    ) from error
                job = replace(job, lost={**job.lost, track_id: count[track_id]})


class Turns:
    """Lets up to `number` workers run at a time, or one of them alone."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._permits = threading.Semaphore(number)
        self._all = threading.Lock()  # only one may gather all permits

    @contextlib.contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        num_permits = self._number if alone else 1
        with self._all if alone else contextlib.nullcontext():
            for _ in range(num_permits):
                self._permits.acquire()
        try:
            yield
        finally:
            self._permits.release(num_permits)


@dataclass(frozen=True)
class LokyEngine:
    """Worker processes through loky, each with one thread.

    Attributes:
        num_workers: processes that decode.
        devices: a process for the teacher on each of them, which the workers feed in turn; if
            there are none, every worker holds the teacher itself.
        work: what a worker does with a shard.
        watch: called with the workers before the first shard and after the last.
    """

    num_workers: int
    devices: tuple[str, ...] = ()
    work: Work = run_shard
    watch: "Callable[[Workers], None] | None" = None

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        remaining = iter(jobs)
        if (first := next(remaining, None)) is None:
            return
        with started_workers(first, self.num_workers, self.devices, self.work) as workers:
            if self.watch is not None:
                self.watch(workers)
            yield from _run(workers, chain([first], remaining))
            if self.watch is not None:
                self.watch(workers)


class Workers:
    """The workers of one machine. Any number of threads may ask them to build shards."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in workers:
            self._free.put(worker)

    def build(self, job: ShardJob) -> ShardReport:
        """Run a shard with the next worker that is free."""
        worker = self._free.get()
        try:
            return worker.build(job)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End all processes; shards under way fail."""
        for worker in self.workers:
            worker.close()


@contextlib.contextmanager
def started_workers(
    job: ShardJob, num_workers: int, devices: tuple[str, ...], work: Work = run_shard
) -> Iterator[Workers]:
    """Workers for the teacher and the settings of a job; their processes end with the context."""
    with tempfile.TemporaryDirectory(prefix="emovox-") as name:
        folder, turns = Path(name), Turns(num_workers)
        servers = [
            Server(job, device, folder / f"teacher-{number}")
            for number, device in enumerate(devices)
        ]
        members = []
        for number in range(num_workers):
            server = servers[number % len(servers)] if servers else None
            device = devices[number % len(devices)] if devices else job.settings.device
            place = Place(folder / f"track-{number}", device)
            members.append(Worker(work, place, server, turns))
        workers = Workers(members)
        try:
            yield workers
        finally:
            workers.close()


def _run(workers: Workers, jobs: Iterator[ShardJob]) -> Iterator[ShardReport]:
    under_way: set[Future[ShardReport]] = set()
    num_workers = len(workers.workers)
    with ThreadPoolExecutor(num_workers) as threads:
        try:
            while True:
                while len(under_way) < QUEUE_PER_WORKER * num_workers:
                    if (job := next(jobs, None)) is None:
                        break
                    under_way.add(threads.submit(workers.build, job))
                if not under_way:
                    return
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BaseException:
            for future in under_way:
                future.cancel()
            workers.close()
            raise


def _read(journal: Path) -> str:
    try:
        return journal.read_text(encoding="utf-8")
    except OSError:
        return ""
