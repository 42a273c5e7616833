"""The engine of a Ray cluster: a lost actor costs a repetition of its shards, nothing else.

An actor holds some cores of a node, and a share of its GPUs if asked for. It runs the same workers
as a single machine. Only the markers in the state record progress, so state, corpus and output must
be on storage that all nodes share.
"""

import hashlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from emovox import __version__
from emovox.devices import Runtime, resolve_runtime, teacher_devices
from emovox.errors import EmovoxError, first_line
from emovox.files import cache_folder, replace_file
from emovox.labelling.engine import LokyEngine
from emovox.labelling.plan import ROWS_VERSION, ShardJob, ShardReport
from emovox.packages import explained
from emovox.paths import is_remote

MAX_WAIT_SECONDS = 300.0  # without any actor, before a run gives up
POLL = 5.0  # seconds between checks for new nodes
QUEUE_PER_WORKER = 2  # shards submitted per worker, so that no worker waits for the driver
MAX_LOSSES = 10  # lost actors per shard
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 5.0  # for an actor to clean up
ROUNDING = 1e-9  # error of sums of GPU fractions
CODE_VERSION = (__version__, ROWS_VERSION)


class ShardActor:
    """An actor: workers on a part of a node, and the weights of the teacher, sent as bytes."""

    def __init__(self, num_workers: int, file_name: str, weights: bytes) -> None:
        self._num_workers = num_workers
        folder = cache_folder() / "weights" / hashlib.sha256(weights).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        self._teacher_path = folder / file_name
        with replace_file(self._teacher_path) as temporary:
            temporary.write_bytes(weights)
        self._lock = threading.Lock()
        self._workers: LokyEngine | None = None

    def ready(self) -> tuple[str, int, str]:
        """Return the version of the code and the name of the node, once the actor has started."""
        return *CODE_VERSION, os.uname().nodename

    def build(self, job: ShardJob) -> ShardReport:
        """Run one shard; EmovoxError if this node does not see the state."""
        if not is_remote(job.state) and not job.state.is_dir():
            raise EmovoxError(
                f"{job.state}: missing on node {os.uname().nodename} of the Ray cluster; pass an "
                "--out or --state on storage that all nodes share"
            )
        job = replace(job, teacher_path=self._teacher_path)
        with self._lock:
            if self._workers is None:
                workers = LokyEngine(self._num_workers, teacher_devices(job.settings.device))
                workers.start(job)
                self._workers = workers
        return self._workers.build(job)

    def close(self) -> None:
        """End the workers and remove their files from the node."""
        if self._workers is not None:
            self._workers.close()


def _check_reachable(address: str | None) -> None:
    """Raise an error if nothing listens at an address; Ray would retry for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:  # only Ray can resolve other addresses
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


class RayEngine:
    """Schedules shards on the actors of a Ray cluster.

    `address` is that of its head, for example `10.0.0.1:6379` or `auto`; None: `RAY_ADDRESS`, or
    without it a cluster on this machine alone. An actor has one worker per core; `num_workers` 0
    means as many as fit. EmovoxError if the cluster cannot be reached.
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
        self.ray, self.cpus, self.gpus, self.num_workers = ray, actor_cpus, actor_gpus, num_workers
        if not ray.is_initialized():
            no_token, on_terminate = ray.exceptions.RayError, signal.getsignal(signal.SIGTERM)
            try:
                _check_reachable(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, OverflowError, RuntimeError, ValueError, no_token) as error:
                message = f"Ray cluster {address or 'auto'}: cannot connect: {first_line(error)}"
                raise EmovoxError(message) from error
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_terminate)  # which Ray replaces

    def resolve(self, device: str, precision: str, compile: str, pays: bool) -> Runtime:
        """Return the result of `resolve_runtime` on a node of the cluster."""
        if not self.gpus:
            device = "cpu"  # Ray does not hide GPUs from actors without one
        if not self.room():
            found = self.ray.cluster_resources()
            resources = f"CPUs: {found.get('CPU', 0):g}, GPUs: {found.get('GPU', 0):g}"
            line = f"emovox: waiting for nodes; the cluster has {resources}: {self._no_room()}"
            tqdm.write(line, file=sys.stderr)
        task = self.ray.remote(resolve_runtime).options(num_gpus=self.gpus, max_retries=3)
        try:
            return self.get(task.remote(device, precision, compile, pays), MAX_WAIT_SECONDS)
        except self.ray.exceptions.RayError as error:
            raise EmovoxError(f"Ray cluster: {first_line(error)}") from error

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        """Yield the report of each shard as it finishes."""
        if jobs := list(jobs):
            yield from _Run(self, jobs).reports()

    def room(self) -> int:
        """Return the number of actors that fit on the nodes."""
        room = 0
        for resources in (node["Resources"] for node in self.ray.nodes() if node["Alive"]):
            here = resources.get("CPU", 0) // self.cpus
            if self.gpus:
                here = min(here, resources.get("GPU", 0) / self.gpus + ROUNDING)
            room += int(here)
        return room

    def get(self, reference: Any, seconds: float | None = None) -> Any:
        """Return the result of a call, or raise the error of emovox that ended it."""
        try:
            return self.ray.get(reference, timeout=seconds)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, EmovoxError | OSError):
                raise error.cause from None
            raise
        except self.ray.exceptions.GetTimeoutError as error:
            raise self.waited() from error

    def waited(self) -> EmovoxError:
        """Return the error of a cluster that had no room for `MAX_WAIT_SECONDS`."""
        advice = "add nodes and rerun to resume"
        return EmovoxError(f"waited {MAX_WAIT_SECONDS:.0f} s: {self._no_room()}; {advice}")

    def _no_room(self) -> str:
        gpus = f", --actor-gpus {self.gpus:g}" if self.gpus else ""
        return f"no node can run an actor with --actor-cpus {self.cpus}{gpus}"


class _Run:
    def __init__(self, engine: RayEngine, jobs: list[ShardJob]) -> None:
        self._engine, self._ray = engine, engine.ray
        self._capacity = QUEUE_PER_WORKER * engine.cpus  # shards submitted to an actor at a time
        self._new_actor = self._ray.remote(ShardActor).options(
            num_cpus=engine.cpus,
            num_gpus=engine.gpus,
            max_concurrency=self._capacity + 2,  # lets `ready` and `close` run beside shards
        )
        path = jobs[0].teacher_path
        self._arguments = engine.cpus, path.name, self._ray.put(path.read_bytes())
        self._waiting = deque(jobs)
        self._starting: dict[Any, Any] = {}  # actor, by its call of `ready`
        self._actors: dict[Any, int] = {}  # number of running calls
        self._calls: dict[Any, tuple[Any, ShardJob]] = {}  # actor and shard
        self._losses: Counter[str] = Counter()
        self._last_sign = time.monotonic()

    def reports(self) -> Iterator[ShardReport]:
        try:
            while self._waiting or self._calls:
                self._start_missing()
                for actor in self._actors:
                    while self._waiting and self._actors[actor] < self._capacity:
                        job = self._waiting.popleft()
                        self._calls[actor.build.remote(job)] = actor, job
                        self._actors[actor] += 1
                pending = [*self._starting, *self._calls]
                for reference in self._ray.wait(pending, num_returns=1, timeout=POLL)[0]:
                    if reference in self._starting:
                        self._take_actor(reference)
                    elif (report := self._take_report(reference)) is not None:
                        yield report
                if self._actors:
                    self._last_sign = time.monotonic()
                elif time.monotonic() - self._last_sign > MAX_WAIT_SECONDS:
                    raise self._engine.waited()
        finally:
            if closing := [actor.close.remote() for actor in self._actors]:
                self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
            for actor in (*self._actors, *self._starting.values()):
                self._ray.kill(actor)  # its workers notice and end too

    def _start_missing(self) -> None:
        """Request actors: as many as fit on the nodes or are wanted, but at least one."""
        num_actors = self._engine.room()
        if self._engine.num_workers:
            num_actors = min(num_actors, math.ceil(self._engine.num_workers / self._engine.cpus))
        for _ in range(max(1, num_actors) - len(self._actors) - len(self._starting)):
            actor = self._new_actor.remote(*self._arguments)
            self._starting[actor.ready.remote()] = actor

    def _result(self, reference: Any) -> Any:
        """Return the result of a call, or raise its error; None if actor or result was lost."""
        try:
            return self._engine.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError:
            return None

    def _take_actor(self, reference: Any) -> None:
        actor, found = self._starting.pop(reference), self._result(reference)
        if found is None:
            time.sleep(POLL)  # before another start
        elif found[:2] != CODE_VERSION:
            node, here = ("{} (rows {})".format(*v) for v in (found, CODE_VERSION))
            raise EmovoxError(
                f"node {found[2]} of the Ray cluster has emovox {node}, this machine {here}; "
                "install the same version on all nodes"
            )
        else:
            self._actors[actor] = 0

    def _take_report(self, reference: Any) -> ShardReport | None:
        """Return the report of a finished call; None if the shard must be built again."""
        report: ShardReport | None = self._result(reference)
        actor, job = self._calls.pop(reference)
        if actor in self._actors:
            self._actors[actor] -= 1
        if report is None:
            if self._actors.pop(actor, None) is not None:
                self._ray.kill(actor)  # it may be alive but unreachable
            name = job.shard.fingerprint
            self._losses[name] += 1
            if self._losses[name] > MAX_LOSSES:
                lost = f"{MAX_LOSSES} actors died on the shard of {job.shard.tracks[0].track_id}"
                raise EmovoxError(f"{lost}; see the logs of Ray on its nodes")
            self._waiting.appendleft(job)
        return report
