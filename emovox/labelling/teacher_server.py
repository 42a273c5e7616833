"""The teacher's process: crops of many workers in, shared batches, logits out."""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener
from multiprocessing.reduction import recv_handle
from typing import NamedTuple

import numpy as np

from emovox.labelling.teacher_client import BatchTeacher, count_outputs, map_buffers, short_path

NUM_LAUNCHED = 2  # batches on the device: one runs, one is queued
MAX_CLIENTS = 1024


class _Request(NamedTuple):
    """Crops of a client that waits for their logits."""

    crops: np.ndarray
    client: Connection


# Requests of one batch, its start time, and the functions that wait for its logits.
_Launched = tuple[list[_Request], float, list[Callable[[], np.ndarray]]]


class TeacherServer:
    """Runs a teacher for every `RemoteFeed` that connects to an address.

    Crops of several clients share a batch, and the next batch is launched while one runs. A client
    waits when its buffers are full, which bounds the queue. The address is the path of a Unix
    socket to create; clients can connect to it before `load` loads the teacher.
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
                self._launched.put((requests, started, self._launch(requests)))
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
            num_crops += len(request.crops)
            if requests and num_crops > self._teacher.batch_size:
                return requests, request
            requests.append(request)
            left = None

    def _launch(self, requests: list[_Request]) -> list[Callable[[], np.ndarray]]:
        size = self._teacher.batch_size
        if len(requests) > 1:
            return [self._teacher.launch(*(request.crops for request in requests))]
        crops = requests[0].crops
        return [self._teacher.launch(crops[i : i + size]) for i in range(0, len(crops), size)]

    def _answer(self) -> None:
        """Send each client its logits and share of the time per batch; serve() raises failures."""
        ended = 0.0  # time at which the previous batch was finished
        try:
            while True:
                requests, started, waits = self._launched.get()
                logits = np.concatenate([wait() for wait in waits])
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
            while True:  # serve() may be waiting to queue one more
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
            descriptor = recv_handle(client)
            try:
                buffers = map_buffers(descriptor, size)
            finally:
                os.close(descriptor)
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
