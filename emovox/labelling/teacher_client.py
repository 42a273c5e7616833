"""Feeds: crops to a teacher, its outputs back.

A worker either holds the teacher itself or shares one that runs in another process: each GPU has
one such process. Crops lie in memory that both processes map; only the number of a buffer goes
through the socket.
"""

import contextlib
import mmap
import os
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection
from typing import Protocol

import numpy as np

from emovox.emotions import Outputs
from emovox.errors import EmovoxError
from emovox.teacher import Teacher

BATCH = 64  # crops per call
NUM_BUFFERS = 3  # one is filled while the others wait for the teacher


class TeacherLostError(EmovoxError):
    """The teacher's process ended; the shard must be built again."""


class Feed(Protocol):
    """Sends crops to a teacher in batches, and returns all its outputs at the end.

    Attributes:
        input_size: side S of the crops, in pixels.
        sha256: SHA-256 of the teacher's weights.
        outputs: names of the teacher's outputs.
        teacher_seconds: time that the teacher has spent on the crops.
        wait_seconds: time that the caller has waited for it.
    """

    input_size: int
    sha256: str
    outputs: Outputs
    teacher_seconds: float
    wait_seconds: float

    def buffer(self) -> np.ndarray:
        """Return memory for the next crops, uint8 `[BATCH, S, S, 3]`; `put` sends it."""
        ...

    def put(self, num_crops: int) -> None:
        """Send the first `num_crops` crops of the buffer."""
        ...

    def drain(self) -> np.ndarray:
        """Return the outputs float32 `[N, E + V]` of all crops since the last call, in order."""
        ...


class InlineFeed:
    """Feed of a teacher in this process; `put` returns when its logits are computed."""

    def __init__(self, teacher: Teacher) -> None:
        self.input_size, self.sha256 = teacher.input_size, teacher.sha256
        self.outputs = Outputs(teacher.emotions, teacher.values)
        self.teacher_seconds = self.wait_seconds = 0.0
        self._teacher = teacher
        self._crops = crops_in(None, teacher.input_size)
        self._logits: list[np.ndarray] = []

    def buffer(self) -> np.ndarray:
        return self._crops

    def put(self, num_crops: int) -> None:
        started = time.perf_counter()
        self._logits.append(self._teacher(self._crops[:num_crops]))
        self.teacher_seconds += time.perf_counter() - started
        self.wait_seconds = self.teacher_seconds

    def drain(self) -> np.ndarray:
        logits, self._logits = _joined(self._logits, self.outputs), []
        return logits


class RemoteFeed:
    """Feed of the `TeacherServer` at an address.

    Raises:
        TeacherLostError: in the constructor or any method: the server is not running.
    """

    def __init__(self, address: str) -> None:
        self.teacher_seconds = self.wait_seconds = 0.0
        with _or_lost():
            self._server: Connection = Client(address, "AF_UNIX")
            self.sha256, self.input_size, self.outputs = self._server.recv()
            descriptor = _shared_memory(memory_bytes(self.input_size))
            memory = mmap.mmap(descriptor, memory_bytes(self.input_size))
            _send_descriptor(self._server, descriptor)
        os.close(descriptor)
        self._buffers = [crops_in(memory, self.input_size, i) for i in range(NUM_BUFFERS)]
        self._free = deque(range(NUM_BUFFERS))
        self._in_progress: deque[int] = deque()
        self._logits: list[np.ndarray] = []

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
        logits, self._logits = _joined(self._logits, self.outputs), []
        return logits

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


def crops_in(memory: mmap.mmap | None, size: int, number: int = 0) -> np.ndarray:
    """Return the batch of crops with this number in `memory`, or a new one, uint8.

    Args:
        memory: shared memory; None: allocate.
        size: side of a crop, in pixels.
        number: of the buffer within the memory.
    """
    shape = (BATCH, size, size, 3)
    if memory is None:
        return np.empty(shape, np.uint8)
    return np.ndarray(shape, np.uint8, memory, offset=number * BATCH * size**2 * 3)


def memory_bytes(size: int) -> int:
    """Return the size of the memory that a `RemoteFeed` shares with its server."""
    return NUM_BUFFERS * BATCH * size**2 * 3


def _shared_memory(num_bytes: int) -> int:
    """Open an unnamed file: it disappears with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("emovox")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, num_bytes)
    return descriptor


def _send_descriptor(connection: Connection, descriptor: int) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        socket.send_fds(channel, [b"\0"], [descriptor])


def _joined(logits: list[np.ndarray], outputs: Outputs) -> np.ndarray:
    return np.concatenate([np.empty((0, len(outputs)), np.float32), *logits])


@contextlib.contextmanager
def _or_lost() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        gone = isinstance(error, EOFError | ConnectionError | FileNotFoundError)
        if not gone and getattr(error, "errno", None):  # no errno: it ended within a message
            raise
        raise TeacherLostError("the teacher's process has ended") from error
