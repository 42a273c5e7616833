"""Pace of the teacher's process: the share of its device's own pace that workers get out of it.

    python tests/benchmarks/teacher_process.py [--workers 4 --batches 200 --rounds 5]
    python tests/benchmarks/teacher_process.py --teacher senet50.safetensors --device cuda

Workers are processes that only hand over ready crops, as fast as the teacher takes them. Without
`--teacher` the device is a fake: it copies the crops of a batch, as a real one does into pinned
memory, and needs a fixed time per batch of 256 crops of 224 pixels, the pace of SENet-50 in bf16 on
an H100 (17,800 crops/s); batches run one after the other. With a teacher, its own pace is that of
full batches launched from one loop, two at a time, in a process of its own.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from emovox.emotions import EMOTIONS
from emovox.labelling.teacher_process import BATCH, BatchTeacher, RemoteFeed, TeacherServer

PACE = 17_800  # crops/s of the fake device
WARM_UP = 10  # batches of each worker that are not timed


class FakeDevice:
    """A `BatchTeacher` whose batches take a fixed time on a device of its own."""

    name, sha256, temperature = "fake", "0" * 64, 1.0
    emotions, values, embedding_size = EMOTIONS, (), 0
    input_size, batch_size = 224, 256

    def __init__(self) -> None:
        shape = (self.batch_size, self.input_size, self.input_size, 3)
        self._slots = [np.zeros(shape, np.uint8) for _ in range(3)]
        self._number, self._free_at = 0, 0.0

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        slot, stop = self._slots[self._number % len(self._slots)], 0
        self._number += 1
        for crops in parts:
            start, stop = stop, stop + len(crops)
            slot[start:stop] = crops
        self._free_at = max(self._free_at, time.perf_counter()) + self.batch_size / PACE
        ends = self._free_at

        def wait() -> np.ndarray:
            time.sleep(max(0.0, ends - time.perf_counter()))
            return np.zeros((stop, len(EMOTIONS)), np.float32)

        return wait


def load(teacher: str | None, device: str) -> BatchTeacher:
    if teacher is None:
        return FakeDevice()  # type: ignore[return-value]
    from emovox.teacher import load_teacher

    return load_teacher(teacher, device, compiled=True)  # type: ignore[return-value]


def serve(address: str, teacher: str | None, device: str) -> None:
    TeacherServer(lambda: load(teacher, device), address).serve()


def own_pace(teacher: str | None, device: str, num_batches: int, found: Any) -> None:
    """Put the crops per second of full batches, launched from one loop."""
    network = load(teacher, device)
    crops = np.zeros((network.batch_size, network.input_size, network.input_size, 3), np.uint8)
    waiting = [network.launch(crops) for _ in range(2)]
    started = time.perf_counter()
    for _ in range(num_batches):
        waiting.append(network.launch(crops))
        waiting.pop(0)()
    found.put(num_batches * network.batch_size / (time.perf_counter() - started))


def hand_over(address: str, num_batches: int, start: Barrier, found: Any) -> None:
    """Put the times between which a worker handed over its crops."""
    feed = RemoteFeed(address)
    for _ in range(WARM_UP):
        feed.buffer()
        feed.put(BATCH)
    feed.drain()
    start.wait()
    started = time.perf_counter()
    for _ in range(num_batches):
        feed.buffer()
        feed.put(BATCH)
    feed.drain()
    found.put((started, time.perf_counter()))


processes = multiprocessing.get_context("spawn")


def process_pace(address: str, num_workers: int, num_batches: int) -> float:
    start, found = processes.Barrier(num_workers), processes.Queue()
    arguments = address, num_batches, start, found
    workers = [processes.Process(target=hand_over, args=arguments) for _ in range(num_workers)]
    for worker in workers:
        worker.start()
    times = [found.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    seconds = max(end for _, end in times) - min(start for start, _ in times)
    return num_workers * num_batches * BATCH / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batches", type=int, default=200, help="of 64 crops, per worker")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    network = arguments.teacher, arguments.device
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            found = processes.Queue()
            alone = processes.Process(
                target=own_pace, args=(*network, arguments.batches // 2, found)
            )
            alone.start()
            own = found.get(timeout=600)
            alone.join()
            address = str(Path(folder, f"teacher-{number}"))
            server = processes.Process(target=serve, args=(address, *network), daemon=True)
            server.start()
            while not Path(address).exists():
                time.sleep(0.1)
            pace = process_pace(address, arguments.workers, arguments.batches)
            server.terminate()
            server.join()
            shares.append(pace / own)
            print(f"alone {own:,.0f} crops/s, process {pace:,.0f}: {shares[-1]:.2f}", flush=True)
    print(f"median share {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
