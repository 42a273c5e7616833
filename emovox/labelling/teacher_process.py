"""Feeds of crops to a teacher, and its process, where crops of many workers share batches.

A worker either holds the teacher itself or shares one that runs in another process: each GPU has
one such process. Crops lie in memory that both processes map; only the number of a buffer goes
through the socket.
"""

import contextlib
import os
import queue
import socket
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np

from emovox.errors import EmovoxError, InputError
from emovox.teacher import Teacher

BATCH = 64  # crops per call
MAX_ADDRESS = 100  # bytes of the path of a socket, on every system
NUM_BUFFERS = 3  # one is filled while the others wait for the teacher


class BatchTeacher(Teacher, Protocol):
    """Teacher that launches batches without waiting; `teacher.inference.TorchTeacher` is one."""

    batch_size: int

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        """Start a batch; the returned function waits for its outputs and embeddings."""
        ...


def count_outputs(teacher: Teacher, *, embeddings: bool) -> int:
    """Return the number of columns of a teacher's outputs; InputError if it has no embeddings."""
    if embeddings and not teacher.embedding_size:
        advice = "leave out --embeddings, or pass another teacher"
        raise InputError(f"teacher {teacher.name}: gives no embeddings; {advice}")
    size = teacher.embedding_size if embeddings else 0
    return len(teacher.emotions) + len(teacher.values) + size


class TeacherLostError(EmovoxError):
    """The teacher's process ended; the shard must be built again."""


class Feed(ABC):
    """Sends crops of side `input_size` to a teacher in batches, and returns all its outputs."""

    def __init__(self, sha256: str, input_size: int, num_outputs: int) -> None:
        self.sha256, self.input_size = sha256, input_size  # the teacher's
        self.num_outputs = num_outputs  # E + V, and D with embeddings
        self.teacher_seconds = 0.0  # that the teacher has spent on the crops
        self.wait_seconds = 0.0  # that the caller has waited for it
        self._logits: list[np.ndarray] = []

    @abstractmethod
    def buffer(self) -> np.ndarray:
        """Return memory for the next crops, uint8 `[BATCH, S, S, 3]`; `put` sends it."""

    @abstractmethod
    def put(self, num_crops: int) -> None:
        """Send the first `num_crops` crops of the buffer."""

    def drain(self) -> np.ndarray:
        """Return the outputs float32 `[N, E + V]` of all crops since the last call, in order.

        With embeddings, D more columns have these.
        """
        logits = [np.empty((0, self.num_outputs), np.float32), *self._logits]
        self._logits = []
        if not all(np.isfinite(part).all() for part in logits):
            raise InputError("teacher: gives outputs that are not finite; use another network")
        return np.concatenate(logits)


class InlineFeed(Feed):
    """Feed of a teacher in this process; `put` returns when its logits are computed."""

    def __init__(self, teacher: Teacher, *, embeddings: bool = False) -> None:
        num_outputs = count_outputs(teacher, embeddings=embeddings)
        super().__init__(teacher.sha256, teacher.input_size, num_outputs)
        self._teacher, self._embeddings = teacher, embeddings
        self._crops = np.empty((BATCH, self.input_size, self.input_size, 3), np.uint8)

    def buffer(self) -> np.ndarray:
        return self._crops

    def put(self, num_crops: int) -> None:
        started = time.perf_counter()
        crops = self._crops[:num_crops]
        if self._embeddings:
            teacher = cast("BatchTeacher", self._teacher)  # its launch computes both at once
            for first in range(0, num_crops, teacher.batch_size):
                self._logits.append(teacher.launch(crops[first : first + teacher.batch_size])())
        else:
            self._logits.append(self._teacher(crops))
        self.teacher_seconds += time.perf_counter() - started
        self.wait_seconds = self.teacher_seconds


class RemoteFeed(Feed):
    """Feed of the `TeacherServer` at an address; methods raise TeacherLostError if it is gone."""

    def __init__(self, address: str) -> None:
        with _or_lost():
            self._server: Connection = Client(short_path(address), "AF_UNIX")
            super().__init__(*self._server.recv())
            with _unnamed_file() as file:
                self._buffers = map_buffers(file, self.input_size)
                send_handle(self._server, file.fileno(), None)
        self._free = deque(range(NUM_BUFFERS))
        self._in_progress: deque[int] = deque()

    def buffer(self) -> np.ndarray:
        if not self._free:
            self._receive()
        return self._buffers[self._free[0]]

    def put(self, num_crops: int) -> None:
        number = self._free.popleft()
        with _or_lost():
            self._server.send((number, num_crops))
        self._in_progress.append(number)

    def drain(self) -> np.ndarray:
        while self._in_progress:
            self._receive()
        return super().drain()

    def close(self) -> None:
        """Disconnect; the server discards the crops in progress."""
        self._server.close()

    def _receive(self) -> None:
        started = time.perf_counter()
        with _or_lost():
            logits, seconds = self._server.recv()
        self._logits.append(logits)
        self._free.append(self._in_progress.popleft())
        self.wait_seconds += time.perf_counter() - started
        self.teacher_seconds += seconds


def short_path(address: str) -> str:
    """Return an equal path that is short enough for a Unix socket, where Linux has one."""
    if len(os.fsencode(address)) <= MAX_ADDRESS or not Path("/proc/self/fd").is_dir():
        return address
    path = Path(address)
    return f"/proc/self/fd/{_open_folder(path.parent)}/{path.name}"


_open_folder = lru_cache(lambda folder: os.open(folder, os.O_RDONLY))  # for as long as its sockets


def map_buffers(file: IO[bytes], size: int) -> np.ndarray:
    """Map the buffers in a file, uint8 `[NUM_BUFFERS, BATCH, S, S, 3]`; it grows if necessary."""
    shape = (NUM_BUFFERS, BATCH, size, size, 3)
    return np.asarray(np.memmap(file, np.uint8, "r+", shape=shape))


def _unnamed_file() -> IO[bytes]:
    """Open a file that disappears with the last process that has it open, in memory on Linux."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("emovox"), "r+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def _or_lost() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        gone = isinstance(error, EOFError | ConnectionError | FileNotFoundError)
        if not gone and getattr(error, "errno", None):  # no errno: it ended within a message
            raise
        raise TeacherLostError("the teacher's process has ended") from error


NUM_LAUNCHED = 2  # batches on the device: one runs, one is queued
MAX_CLIENTS = 1024


_Request = tuple[np.ndarray, Connection]  # crops of a client that waits for their logits
# Requests of one batch, its start time, and the function that waits for its logits.
_Launched = tuple[list[_Request], float, Callable[[], np.ndarray]]


class TeacherServer:
    """Runs a teacher for every `RemoteFeed` that connects to an address.

    Crops of several clients share a batch, which takes `BATCH` crops or more, and the next batch is
    launched while one runs. A client waits when its buffers are full, which bounds the queue. The
    address is the path of a Unix socket to create; clients can connect to it before `load` loads
    the teacher.
    """

    def __init__(
        self, load: Callable[[], BatchTeacher], address: str, *, embeddings: bool = False
    ) -> None:
        self._clients: set[Connection] = set()
        self._ended = False
        self._listener = Listener(short_path(address), "AF_UNIX", backlog=MAX_CLIENTS)
        try:
            self._teacher = load()
            self._num_outputs = count_outputs(self._teacher, embeddings=embeddings)
        except BaseException:  # clients that wait must learn of any failure
            self._end()
            raise
        self._requests: queue.Queue[_Request | BaseException] = queue.Queue()
        self._launched: queue.SimpleQueue[_Launched] = queue.SimpleQueue()
        self._room = threading.Semaphore(NUM_LAUNCHED)

    def serve(self) -> None:
        """Serve until the process ends; raises the error of a teacher that fails."""
        for work in (self._accept, self._answer):
            threading.Thread(target=work, daemon=True).start()
        left: _Request | None = None
        try:
            while True:
                self._room.acquire()  # first, so that more requests are there to fill the batch
                requests, left = self._next_batch(left)
                started = time.perf_counter()
                wait = self._teacher.launch(*(crops for crops, _ in requests))
                self._launched.put((requests, started, wait))
        finally:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._listener.close()
        for client in list(self._clients):
            _hang_up(client)

    def _next_batch(self, left: _Request | None) -> tuple[list[_Request], _Request | None]:
        """Return requests, `left` first, that fit into one batch, and the first that does not."""
        requests: list[_Request] = []
        num_crops = 0
        while True:
            try:
                request = left or self._requests.get(block=not requests)
            except queue.Empty:
                return requests, None
            if isinstance(request, BaseException):
                raise request
            num_crops += len(request[0])
            if requests and num_crops > self._teacher.batch_size:
                return requests, request
            requests.append(request)
            left = None

    def _answer(self) -> None:
        """Send each client its logits and share of the time per batch; serve() raises failures."""
        ended = 0.0  # time at which the previous batch was finished
        try:
            while True:
                requests, started, wait = self._launched.get()
                logits = wait()
                self._room.release()
                started, ended = max(ended, started), time.perf_counter()
                per_crop = (ended - started) / len(logits)
                stop = 0
                for crops, client in requests:
                    start, stop = stop, stop + len(crops)
                    with contextlib.suppress(OSError):  # its reader notices that it is gone
                        outputs = logits[start:stop, : self._num_outputs]
                        client.send((outputs, per_crop * len(crops)))
        except BaseException as error:
            self._requests.put(error)
            while True:  # serve() may launch some more before it reaches the error
                self._room.release()
                self._launched.get()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()
            except OSError:
                if self._ended:
                    return
                raise
            threading.Thread(target=self._read, args=(client,), daemon=True).start()

    def _read(self, client: Connection) -> None:
        """Queue the requests of one client until it disconnects."""
        size = self._teacher.input_size
        self._clients.add(client)
        if self._ended:
            _hang_up(client)
        try:
            client.send((self._teacher.sha256, size, self._num_outputs))
            with os.fdopen(recv_handle(client), "r+b") as file:
                buffers = map_buffers(file, size)
            while True:
                number, num_crops = client.recv()
                self._requests.put((buffers[number][:num_crops], client))
        except (EOFError, OSError):
            # The connection closes with its last request: an answer may still be in progress.
            self._clients.discard(client)


def _hang_up(client: Connection) -> None:
    """Shut a connection down; unlike closing it, this wakes a thread that reads from it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(client.fileno())) as channel:
        channel.shutdown(socket.SHUT_RDWR)
