"""The engine of a Ray cluster: a lost actor costs a repetition of its shards, nothing else.

An actor holds some cores of a node, and a share of its GPUs if asked for. It runs the same workers
as a single machine. Only the markers in the state record progress, so state, corpus and output must
be on storage that all nodes share.
"""

import contextlib
import hashlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from tqdm import tqdm

from emovox import __version__
from emovox.cache import cache_folder
from emovox.devices import Runtime, resolve_runtime, teacher_devices
from emovox.errors import EmovoxError, first_line
from emovox.files import replace_file
from emovox.labelling.engine import QUEUE_PER_WORKER, Workers, started_workers
from emovox.labelling.plan import ROWS_VERSION, ShardJob
from emovox.labelling.shard_report import ShardReport, marker_file
from emovox.packages import explained

MAX_WAIT_SECONDS = 300.0  # without any actor, before a run gives up
POLL = 5.0  # seconds between checks for new nodes
MAX_LOSSES = 10  # lost actors per shard
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 5.0  # for an actor to clean up
MARKER_SECONDS = 90.0  # until a marker of a node is visible to the driver: NFS caches for 60 s
ROUNDING = 1e-9  # error of sums of GPU fractions


class ShardActor:
    """An actor: workers on a part of a node, and the weights of the teacher.

    Args:
        num_workers: processes that decode.
        file_name: name of the weights file.
        weights: its bytes.
    """

    def __init__(self, num_workers: int, file_name: str, weights: bytes) -> None:
        self._num_workers = num_workers
        folder = cache_folder() / "weights" / hashlib.sha256(weights).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        self._teacher_path = folder / file_name
        with replace_file(self._teacher_path) as temporary:
            temporary.write_bytes(weights)
        self._lock = threading.Lock()
        self._workers: Workers | None = None
        self._started = contextlib.ExitStack()

    def ready(self) -> tuple[str, int]:
        """Return the version of the code, once the actor has started."""
        return code_version()

    def build(self, job: ShardJob) -> ShardReport:
        """Run one shard; each worker runs one at a time."""
        job = replace(job, teacher_path=self._teacher_path)
        with self._lock:
            if self._workers is None:
                devices = teacher_devices(job.settings.device)
                starting = started_workers(job, self._num_workers, devices)
                self._workers = self._started.enter_context(starting)
        return self._workers.build(job)

    def close(self) -> None:
        """End the workers and remove their files from the node."""
        self._started.close()


def code_version() -> tuple[str, int]:
    """Return the version of emovox and of the rows it makes."""
    return __version__, ROWS_VERSION


def _check_reachable(address: str | None) -> None:
    """Raise `EmovoxError` if nothing listens at an address; Ray would retry for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return  # only Ray can resolve it
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EmovoxError(f"Ray cluster {address}: cannot connect: {first_line(error)}") from error


@dataclass
class _Actor:
    """An actor as the driver sees it."""

    handle: Any
    running: set[Any] = field(default_factory=set)  # references of its calls


class RayEngine:
    """Schedules shards on the actors of a Ray cluster.

    Args:
        address: of the cluster's head, for example `10.0.0.1:6379` or `auto`; None: `RAY_ADDRESS`,
            or without it a cluster on this machine alone.
        actor_cpus: cores of an actor, with one worker each.
        actor_gpus: GPUs of an actor, or a fraction of one.
        num_workers: number of workers; 0: as many as fit on the cluster.

    Raises:
        MissingPackageError: Ray is not installed.
        EmovoxError: the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        actor_cpus: int = 1,
        actor_gpus: float = 0.0,
        num_workers: int = 0,
    ) -> None:
        with explained("--engine ray"):
            import ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends no usage statistics
        # The run itself reports failed calls, in one line.
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        self._ray = ray
        self._cpus, self._gpus, self._num_workers = actor_cpus, actor_gpus, num_workers
        self._last_loss = ""
        self._may_grow = bool(address or os.environ.get("RAY_ADDRESS")) or ray.is_initialized()
        if not ray.is_initialized():
            _check_reachable(address)
            on_terminate = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                where = address or "auto"
                raise EmovoxError(
                    f"Ray cluster {where}: cannot connect: {first_line(error)}"
                ) from error
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_terminate)  # which Ray replaces

    def resolve(self, device: str, precision: str, compile: str, pays: bool) -> Runtime:
        """Return the result of `resolve_runtime` on a node of the cluster."""
        if not self._gpus:
            device = "cpu"  # Ray does not hide GPUs from actors without one
        if not self._room():
            if not self._may_grow:
                raise EmovoxError(f"this machine has {self._resources()}: {self._no_room()}")
            self._print_waiting()
        task = self._ray.remote(resolve_runtime).options(num_gpus=self._gpus, max_retries=3)
        try:
            return self._get(task.remote(device, precision, compile, pays), MAX_WAIT_SECONDS)
        except self._ray.exceptions.RayError as error:
            raise EmovoxError(f"Ray cluster: {first_line(error)}") from error

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        """Yield the report of each shard as it finishes."""
        remaining = iter(jobs)
        if (first := next(remaining, None)) is None:
            return
        path = first.teacher_path
        weights = self._ray.put(path.read_bytes())
        yield from _Run(self, chain([first], remaining), (self._cpus, path.name, weights)).reports()

    def start_actor(self, *arguments: Any) -> Any:
        """Request an actor; it has started once its `ready` returns."""
        actor = self._ray.remote(ShardActor).options(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_concurrency=self.capacity + 2,  # lets `ready` and `close` run beside shards
        )
        return actor.remote(*arguments)

    def end_actor(self, actor: Any, seconds: float = 0.0) -> None:
        """End an actor; its workers notice and end too.

        Args:
            actor: handle of the actor.
            seconds: time to clean up.
        """
        if seconds:
            self.wait([actor.close.remote()], seconds)
        self._ray.kill(actor)

    @property
    def capacity(self) -> int:
        """Number of shards submitted to an actor at a time."""
        return QUEUE_PER_WORKER * self._cpus

    def num_actors(self) -> int:
        """Return how many actors to run: at least one, limited by nodes and `num_workers`."""
        room = self._room()
        wanted = math.ceil(self._num_workers / self._cpus) if self._num_workers else room
        return max(1, min(room, wanted))

    def _room(self) -> int:
        """Return the number of actors that fit on the nodes."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                here = resources.get("CPU", 0) // self._cpus
                if self._gpus:
                    here = min(here, resources.get("GPU", 0) / self._gpus + ROUNDING)
                room += int(here)
        return room

    def _resources(self) -> str:
        resources = self._ray.cluster_resources()
        return f"CPUs: {resources.get('CPU', 0):g}, GPUs: {resources.get('GPU', 0):g}"

    def _print_waiting(self) -> None:
        """Print on stderr that nothing can run yet."""
        line = f"emovox: waiting for nodes; the cluster has {self._resources()}: {self._no_room()}"
        tqdm.write(line, file=sys.stderr)

    def wait(self, references: list[Any], seconds: float) -> list[Any]:
        """Wait for the first of some references; return those that are done."""
        return self._ray.wait(references, num_returns=1, timeout=seconds)[0]

    def _get(self, reference: Any, seconds: float | None = None) -> Any:
        """Return the result of a call, or raise the error of emovox that ended it."""
        try:
            return self._ray.get(reference, timeout=seconds)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, EmovoxError | OSError):
                raise error.cause from None
            raise
        except self._ray.exceptions.GetTimeoutError as error:
            raise EmovoxError(self.no_room()) from error

    def result(self, reference: Any) -> Any:
        """Return the result of a call; None if its actor, its node or the result was lost.

        Raises:
            EmovoxError, OSError: the call raised it.
        """
        try:
            return self._get(reference)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            self._last_loss = first_line(error)
            return None

    def no_room(self) -> str:
        """Return the message for a cluster without room."""
        loss = self._last_loss and f" (the last loss: {self._last_loss})"
        advice = "add nodes and rerun to resume"
        return f"waited {MAX_WAIT_SECONDS:.0f} s: {self._no_room()}; {advice}{loss}"

    def _no_room(self) -> str:
        gpus = f", --actor-gpus {self._gpus:g}" if self._gpus else ""
        return f"no node can run an actor with --actor-cpus {self._cpus}{gpus}"


class _Run:
    """One run: its actors and their shards."""

    def __init__(self, engine: RayEngine, jobs: Iterator[ShardJob], arguments: Any) -> None:
        self._engine, self._arguments = engine, arguments
        self._jobs = jobs
        self._waiting: deque[ShardJob] = deque()  # the next shard, and shards of lost actors
        self._starting: dict[Any, _Actor] = {}
        self._actors: list[_Actor] = []
        self._calls: dict[Any, tuple[_Actor, ShardJob]] = {}
        self._losses: dict[str, int] = {}
        self._last_sign = time.monotonic()
        self._seen_marker = False
        self._no_start_before = 0.0

    def reports(self) -> Iterator[ShardReport]:
        """Yield the report of each shard as it finishes."""
        try:
            while self._is_left():
                self._start_missing()
                self._submit()
                for reference in self._engine.wait([*self._starting, *self._calls], POLL):
                    if (report := self._take(reference)) is not None:
                        yield report
                if self._actors:
                    self._last_sign = time.monotonic()
                elif time.monotonic() - self._last_sign > MAX_WAIT_SECONDS:
                    raise EmovoxError(self._engine.no_room())
        finally:
            for actor in self._actors:
                self._engine.end_actor(actor.handle, CLOSE_SECONDS)
            for actor in self._starting.values():
                self._engine.end_actor(actor.handle)

    def _is_left(self) -> bool:
        if not self._waiting and (job := next(self._jobs, None)) is not None:
            self._waiting.append(job)
        return bool(self._waiting or self._calls)

    def _start_missing(self) -> None:
        if time.monotonic() < self._no_start_before:
            return
        missing = self._engine.num_actors() - len(self._actors) - len(self._starting)
        for _ in range(missing):
            actor = _Actor(self._engine.start_actor(*self._arguments))
            self._starting[actor.handle.ready.remote()] = actor

    def _submit(self) -> None:
        """Submit shards to actors with room."""
        for actor in self._actors:
            while len(actor.running) < self._engine.capacity and self._is_left():
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                reference = actor.handle.build.remote(job)
                actor.running.add(reference)
                self._calls[reference] = actor, job

    def _take(self, reference: Any) -> ShardReport | None:
        """Handle a finished call; return the report if it was a shard."""
        result = self._engine.result(reference)
        if reference in self._starting:
            actor = self._starting.pop(reference)
            if result is None:
                self._no_start_before = time.monotonic() + POLL
                return None
            if result != code_version():
                raise EmovoxError(
                    f"a node of the Ray cluster has emovox {result[0]} (rows {result[1]}), this "
                    "machine {} (rows {}); install the same version on all nodes".format(
                        *code_version()
                    )
                )
            self._actors.append(actor)
            return None
        actor, job = self._calls.pop(reference)
        actor.running.discard(reference)
        if result is None:
            self._lose(actor, job)
        elif not self._seen_marker:
            _expect_marker(job)
            self._seen_marker = True
        return result

    def _lose(self, actor: _Actor, job: ShardJob) -> None:
        if actor in self._actors:
            self._actors.remove(actor)
            self._engine.end_actor(actor.handle)  # it may be alive but unreachable
        name = job.shard.fingerprint
        self._losses[name] = self._losses.get(name, 0) + 1
        if self._losses[name] > MAX_LOSSES:
            raise EmovoxError(
                f"{MAX_LOSSES} actors died on the shard of {job.shard.tracks[0].track_id}; see the "
                "logs of Ray on its nodes"
            )
        self._waiting.append(job)


def _expect_marker(job: ShardJob) -> None:
    """Check that this machine sees what the nodes write."""
    marker = marker_file(job.state, job.shard.fingerprint)
    end = time.monotonic() + MARKER_SECONDS
    while not any(job.state.iterdir()) or not marker.exists():  # listing the folder refreshes NFS
        if time.monotonic() > end:
            raise EmovoxError(
                f"{job.state}: files written by cluster nodes are not visible to this machine; "
                "pass an --out or --state on storage that all of them share"
            )
        time.sleep(0.2)
