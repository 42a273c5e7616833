"""The teacher's process: crops of many workers in, shared batches, logits out."""

import contextlib
import mmap
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from typing import Protocol

import numpy as np

from emovox.emotions import Outputs
from emovox.labelling.teacher_client import NUM_BUFFERS, crops_in, memory_bytes

NUM_LAUNCHED = 2  # batches on the device: one runs, one is queued
MAX_CLIENTS = 1024


class BatchTeacher(Protocol):
    """Teacher that launches batches without waiting; `teacher.inference.TorchTeacher` is one."""

    input_size: int
    sha256: str
    emotions: tuple[str, ...]
    values: tuple[str, ...]
    batch_size: int

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        """Start a batch; the returned function waits for its logits."""
        ...


@dataclass(frozen=True)
class _Request:
    """Crops of a client that waits for their logits."""

    crops: np.ndarray
    client: Connection


@dataclass(frozen=True)
class _Launched:
    """Requests of one batch, its start time, and the functions that wait for its logits."""

    requests: list[_Request]
    started: float
    logits: list[Callable[[], np.ndarray]]


class TeacherServer:
    """Runs a teacher for every `RemoteFeed` that connects to an address.

    Crops of several clients share a batch, and the next batch is launched while one runs. A client
    waits when its buffers are full, which bounds the queue.

    Args:
        load: loads the teacher; called after clients can connect.
        address: path of the Unix socket to create.
    """

    def __init__(self, load: Callable[[], BatchTeacher], address: str) -> None:
        self._clients: set[Connection] = set()
        self._ended = False
        self._listener = Listener(address, "AF_UNIX", backlog=MAX_CLIENTS)
        try:
            self._teacher = load()
        except BaseException:  # clients that wait must learn of any failure
            self._end()
            raise
        self._requests: queue.Queue[_Request | BaseException] = queue.Queue()
        self._launched: queue.Queue[_Launched] = queue.Queue(NUM_LAUNCHED - 1)

    def serve(self) -> None:
        """Serve until the process ends; raises the error of a teacher that fails."""
        for work in (self._accept, self._answer):
            threading.Thread(target=work, daemon=True).start()
        left: _Request | None = None
        try:
            while True:
                requests, left = self._next_batch(left)
                started = time.perf_counter()
                self._launched.put(_Launched(requests, started, self._launch(requests)))
        finally:
            self._end()

    def _end(self) -> None:
        """Close all client connections when the teacher has stopped."""
        self._ended = True
        self._listener.close()
        for client in list(self._clients):
            _hang_up(client)

    def _next_batch(self, first: _Request | None) -> tuple[list[_Request], _Request | None]:
        """Return the queued requests that fit into one batch, and the first that does not."""
        requests = [first or self._next(wait=True)]
        num_crops = len(requests[0].crops)
        while True:
            try:
                request = self._next(wait=False)
            except queue.Empty:
                return requests, None
            num_crops += len(request.crops)
            if num_crops > self._teacher.batch_size:
                return requests, request
            requests.append(request)

    def _next(self, *, wait: bool) -> _Request:
        request = self._requests.get(block=wait)
        if isinstance(request, BaseException):
            raise request
        return request

    def _launch(self, requests: list[_Request]) -> list[Callable[[], np.ndarray]]:
        size = self._teacher.batch_size
        if len(requests) > 1:
            return [self._teacher.launch(*(request.crops for request in requests))]
        crops = requests[0].crops
        return [self._teacher.launch(crops[i : i + size]) for i in range(0, len(crops), size)]

    def _answer(self) -> None:
        """Send logits to clients as they arrive; pass a failure on to serve(), which raises it."""
        try:
            ended = 0.0
            while True:
                ended = self._answer_one(self._launched.get(), ended)
        except BaseException as error:
            self._requests.put(error)
            while True:  # serve() may be waiting to queue one more
                self._launched.get()

    def _answer_one(self, launched: _Launched, ended: float) -> float:
        """Wait for a batch, and send each client its logits and its share of the time.

        Args:
            launched: the batch.
            ended: time at which the previous batch was finished.

        Returns:
            Time at which this batch was finished.
        """
        logits = np.concatenate([wait() for wait in launched.logits])
        started, ended = max(ended, launched.started), time.perf_counter()
        per_crop = (ended - started) / len(logits)
        stop = 0
        for request in launched.requests:
            start, stop = stop, stop + len(request.crops)
            answer = logits[start:stop], per_crop * (stop - start)
            with contextlib.suppress(OSError):  # its reader thread notices that the client is gone
                request.client.send(answer)
        return ended

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
            outputs = Outputs(self._teacher.emotions, self._teacher.values)
            client.send((self._teacher.sha256, size, outputs))
            memory = _receive_memory(client, memory_bytes(size))
            buffers = [crops_in(memory, size, number) for number in range(NUM_BUFFERS)]
            while True:
                number, num_crops = client.recv()
                self._requests.put(_Request(buffers[number][:num_crops], client))
        except (EOFError, OSError):
            # The connection closes with its last request: an answer may still be in progress.
            self._clients.discard(client)


def _hang_up(client: Connection) -> None:
    """Shut a connection down; unlike closing it, this wakes a thread that reads from it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(client.fileno())) as channel:
        channel.shutdown(socket.SHUT_RDWR)


def _receive_memory(client: Connection, num_bytes: int) -> mmap.mmap:
    with socket.socket(fileno=os.dup(client.fileno())) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise EOFError
    try:
        return mmap.mmap(descriptors[0], num_bytes)
    finally:
        os.close(descriptors[0])
