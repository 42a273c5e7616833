"""The engine of one machine: worker processes, replaced when they die."""

import contextlib
import multiprocessing
import os
import queue
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

import joblib
from loky import BrokenProcessPool, ProcessPoolExecutor

from emovox.devices import teacher_devices
from emovox.errors import ConfigError, EmovoxError, first_line
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.plan import MAX_DEATHS, ShardJob, ShardReport
from emovox.labelling.teacher_process import TeacherLostError
from emovox.labelling.worker import WorkerContext, run_shard, serve_teacher, start_worker

MAX_KILLS = 10  # as `MAX_DEATHS`, for kills from outside, for example for lack of memory
MAX_LOST = 60  # connections to the teacher's process that one shard may lose
LOST_PAUSE = 0.5  # seconds
MAX_FAILURES = 4  # consecutive failures of the teacher's process
KILLED = (-9, -signal.SIGTERM)  # SIGKILL has no name on Windows
POLL = 0.05  # seconds between checks of another process
ENDED = "the build was stopped"

_hook_lock = threading.Lock()
_start_lock = threading.Lock()

Result = TypeVar("Result")
Work = Callable[[ShardJob, WorkerContext], ShardReport]


class Engine(Protocol):
    """Runs shards in any order."""

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        """Yield the report of each shard as it finishes."""
        ...


class Process:
    """A loky process that is replaced when it dies; `folder` is for its temporary files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool: ProcessPoolExecutor | None = None
        self._started: list[BaseProcess] = []
        self._closed = False

    def submit(self, call: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Call a function in the process; the future raises `BrokenProcessPool` if it dies."""
        if self._closed:
            raise EmovoxError(ENDED)
        if self._pool is not None:
            return self._pool.submit(call, *arguments)
        # One pool starts at a time: the new child processes are those of this pool.
        with _start_lock:
            before = set(multiprocessing.active_children())
            one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            # Silences the warning of loky's resource tracker when workers are killed.
            os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
            start = partial(start_worker, os.getpid(), self._folder)
            self._pool = ProcessPoolExecutor(1, initializer=start, env=one_thread)
            future: Future[Result] = self._pool.submit(call, *arguments)
            self._started = [p for p in multiprocessing.active_children() if p not in before]
        return future

    def exit_code(self) -> int | None:
        """Return the exit code of a process that died; None if it is unknown."""
        for _ in range(int(1 / POLL)):  # only one thread can ask; loky's may be about to
            codes = [process.exitcode for process in self._started]
            if None not in codes:
                break
            time.sleep(POLL)
        return next(iter(codes), None)

    def end(self) -> None:
        """End the process at once; the next call starts a new one."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        with _hook_lock:  # hides the traceback of loky's thread about the killed process
            hook, threading.excepthook = threading.excepthook, lambda arguments: None
            try:
                pool.shutdown(kill_workers=True)
            finally:
                threading.excepthook = hook

    def close(self) -> None:
        """End the process and refuse further calls."""
        self._closed = True
        self.end()


class Server(Process):
    """Process of a teacher that several workers share; it is restarted when it dies."""

    def __init__(self, job: ShardJob, device: str, socket: Path) -> None:
        super().__init__(socket.parent)
        self.num_failures = 0  # since a shard was finished with it
        self._job, self._device = job, device
        self._addresses = (socket.with_suffix(f".{start}") for start in count(1))
        self._address = socket
        self._lock = threading.Lock()
        self._serving: Future[None] | None = None

    def address(self) -> str:
        """Return its address once it accepts workers; EmovoxError if the teacher keeps failing."""
        with self._lock:
            while self._serving is None or self._serving.done() or not self._address.exists():
                if self._closed:
                    raise EmovoxError(ENDED)
                if self._serving is None or self._serving.done():
                    self._start()
                time.sleep(POLL)
            return str(self._address)

    def _start(self) -> None:
        if self._serving is not None:
            error = self._serving.exception()
            self.end()
            if isinstance(error, EmovoxError):
                raise error
            self.num_failures += 1
            if self.num_failures == MAX_FAILURES:
                reason = first_line(error)
                raise EmovoxError(f"the teacher failed on {self._device}: {reason}") from error
        self._address = next(self._addresses)
        arguments = str(self._address), self._job.teacher_path, self._job.settings, self._device
        self._serving = self.submit(serve_teacher, *arguments)


class Worker(Process):
    """A process that runs shards, replaced when it dies; without `server` it holds the teacher."""

    def __init__(self, work: Work, context: WorkerContext, server: Server | None) -> None:
        super().__init__(context.journal.parent)
        self._work, self._context, self._server = work, context, server

    def build(self, job: ShardJob) -> ShardReport:
        """Run a shard, in a new process after each death, and return its report.

        A track on which the process crashes or hangs `MAX_DEATHS` times is added to `job.lost`. A
        process killed from outside says little about its track: that takes `MAX_KILLS`.

        Raises:
            TeacherLostError: the shard lost its connection to the teacher `MAX_LOST` times.
            EmovoxError: workers die before their first track.
        """
        deaths, kills = Counter[str](), Counter[str]()
        num_lost = 0  # connections to the teacher
        while True:
            self._context.journal.unlink(missing_ok=True)
            try:
                context = self._context
                if self._server is not None:
                    context = replace(context, address=self._server.address())
                report = self.submit(self._work, job, context).result()
                self._context.journal.unlink(missing_ok=True)
                if self._server is not None:
                    self._server.num_failures = 0
                return report
            except TeacherLostError:
                num_lost += 1
                if num_lost == MAX_LOST:
                    raise
                time.sleep(LOST_PAUSE)  # until its end is known in this process
            except BrokenProcessPool as error:
                code = self.exit_code()
                self.end()
                track_id = ""
                with contextlib.suppress(OSError):  # it died before its first track
                    track_id = self._context.journal.read_text("utf-8").rpartition("\0")[2]
                losses, limit = (kills, MAX_KILLS) if code in KILLED else (deaths, MAX_DEATHS)
                losses[track_id] += 1
                if losses[track_id] < limit:
                    continue
                if not track_id:
                    raise EmovoxError(
                        f"workers died {limit} times before their first track; if memory is "
                        "short, pass a smaller --jobs"
                    ) from error
                job = replace(job, lost={**job.lost, track_id: losses[track_id]})

    def num_done(self) -> int:
        """Return the number of finished tracks of the running shard."""
        with contextlib.suppress(OSError):  # no shard runs
            return max(0, self._context.journal.read_bytes().count(b"\0") - 1)
        return 0


@dataclass
class LokyEngine:
    """Worker processes through loky, each with one thread; any thread may use them."""

    num_workers: int  # processes that decode
    # Each gets a process of the teacher for all workers; empty: every worker holds the teacher.
    devices: tuple[str, ...] = ()
    work: Work = run_shard  # function that runs one shard
    _processes: list[Process] = field(default_factory=list, init=False)

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        """Yield the report of each shard as it finishes."""
        if not (jobs := list(jobs)):
            return
        self.start(jobs[0])
        # Closed before the threads are waited for, and again for processes that started meanwhile.
        with (
            contextlib.closing(self),
            ThreadPoolExecutor(self.num_workers) as threads,
            contextlib.closing(self),
        ):
            for future in as_completed([threads.submit(self.build, job) for job in jobs]):
                yield future.result()

    def start(self, job: ShardJob) -> None:
        """Prepare the processes for the teacher and the settings of a job."""
        self._temporary = tempfile.TemporaryDirectory(prefix="emovox-", ignore_cleanup_errors=True)
        folder, devices = Path(self._temporary.name), self.devices
        servers = [Server(job, d, folder / f"teacher-{n}") for n, d in enumerate(devices)]
        self._processes = [*servers]
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for number in range(self.num_workers):
            server = servers[number % len(servers)] if servers else None
            device = devices[number % len(devices)] if devices else job.settings.device
            worker = Worker(self.work, WorkerContext(folder / f"track-{number}", device), server)
            self._processes.append(worker)
            self._free.put(worker)

    def build(self, job: ShardJob) -> ShardReport:
        """Run a shard with the next free worker."""
        worker = self._free.get()
        try:
            return worker.build(job)
        finally:
            self._free.put(worker)

    def num_done(self) -> int:
        """Return the number of finished tracks of running shards."""
        return sum(each.num_done() for each in self._processes if isinstance(each, Worker))

    def close(self) -> None:
        """End all processes; running shards fail."""
        for process in reversed(self._processes):
            process.close()
        self._temporary.cleanup()


def local_engine(config: BuildConfig, jobs: Sequence[ShardJob]) -> LokyEngine:
    """Return the engine of this machine; ConfigError for a GPU on a system without Unix sockets."""
    num_workers = max(1, min(config.jobs or joblib.cpu_count(), len(jobs)))
    devices = teacher_devices(jobs[0].settings.device) if jobs else ()
    if devices and not hasattr(socket, "AF_UNIX"):  # workers reach the teacher through them
        raise ConfigError(
            f"--device {devices[0]}: not supported on this system, which lacks Unix sockets; "
            "pass --device cpu, or use Linux (on Windows: WSL 2)"
        )
    return LokyEngine(num_workers, devices)
