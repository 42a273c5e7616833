"""Crops on their way to a teacher, and logits on their way back.

A worker either holds the teacher itself, or feeds one that runs in a process of its own: on a GPU
there is one such process, and the workers of all cores feed it. Crops lie in memory that both
processes see; only a number goes through the socket between them.
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

from emovox.emotions import EMOTIONS
from emovox.errors import EmovoxError
from emovox.teacher import Teacher

BATCH = 64  # crops that are handed over at a time
NUM_BUFFERS = 3  # one is filled while the others wait for the teacher


class TeacherLostError(EmovoxError):
    """The process of the teacher is gone; the shard has to be done again."""


class Feed(Protocol):
    """Takes crops in batches, and gives all their logits back in the end.

    Attributes:
        input_size: side S of the crops, in pixels.
        sha256: of the teacher's weights.
        teacher_seconds: spent by the teacher on the crops so far.
        wait_seconds: spent by the caller waiting for it.
    """

    input_size: int
    sha256: str
    teacher_seconds: float
    wait_seconds: float

    def buffer(self) -> np.ndarray:
        """Memory for the next crops, uint8 `[BATCH, S, S, 3]`; `put` hands it over."""
        ...

    def put(self, num_crops: int) -> None:
        """Hand over the first crops in the buffer."""
        ...

    def drain(self) -> np.ndarray:
        """Logits float32 `[N, 8]` of all crops put since the last call, in order."""
        ...


class InlineFeed:
    """A `Feed` to a teacher in this process, which works while the caller waits."""

    def __init__(self, teacher: Teacher) -> None:
        self.input_size, self.sha256 = teacher.input_size, teacher.sha256
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
        logits, self._logits = _joined(self._logits), []
        return logits


class RemoteFeed:
    """A `Feed` to the `TeacherServer` at an address.

    Raises:
        TeacherLostError: here or in any call: the server is not, or no longer, there.
    """

    def __init__(self, address: str) -> None:
        self.teacher_seconds = self.wait_seconds = 0.0
        with _or_lost():
            self._server: Connection = Client(address, "AF_UNIX")
            self.sha256, self.input_size = self._server.recv()
            descriptor = _shared_memory(memory_bytes(self.input_size))
            memory = mmap.mmap(descriptor, memory_bytes(self.input_size))
            _send_descriptor(self._server, descriptor)
        os.close(descriptor)
        self._buffers = [crops_in(memory, self.input_size, i) for i in range(NUM_BUFFERS)]
        self._free = deque(range(NUM_BUFFERS))
        self._under_way: deque[int] = deque()
        self._logits: list[np.ndarray] = []

    def buffer(self) -> np.ndarray:
        if not self._free:
            self._receive()
        return self._buffers[self._free[0]]

    def put(self, num_crops: int) -> None:
        number = self._free.popleft()
        with _or_lost():
            self._server.send((number, num_crops))
        self._under_way.append(number)

    def drain(self) -> np.ndarray:
        while self._under_way:
            self._receive()
        logits, self._logits = _joined(self._logits), []
        return logits

    def close(self) -> None:
        """Leave; the server forgets what is under way."""
        self._server.close()

    def _receive(self) -> None:
        started = time.perf_counter()
        with _or_lost():
            logits, seconds = self._server.recv()
        self._logits.append(logits)
        self._free.append(self._under_way.popleft())
        self.wait_seconds += time.perf_counter() - started
        self.teacher_seconds += seconds


def crops_in(memory: mmap.mmap | None, size: int, number: int = 0) -> np.ndarray:
    """One batch of crops of side `size`, uint8: the one with that number in shared memory."""
    shape = (BATCH, size, size, 3)
    if memory is None:
        return np.empty(shape, np.uint8)
    return np.ndarray(shape, np.uint8, memory, offset=number * BATCH * size**2 * 3)


def memory_bytes(size: int) -> int:
    """Bytes of the memory that a `RemoteFeed` shares with its server."""
    return NUM_BUFFERS * BATCH * size**2 * 3


def _shared_memory(num_bytes: int) -> int:
    """A file without a name: it goes with the last process that has it open, however that ends."""
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


def _joined(logits: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty((0, len(EMOTIONS)), np.float32), *logits])


@contextlib.contextmanager
def _or_lost() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        gone = isinstance(error, EOFError | ConnectionError | FileNotFoundError)
        if not gone and getattr(error, "errno", None):  # none: it ended in mid-message
            raise
        raise TeacherLostError("the process of the teacher is gone") from error
