"""A teacher in its own process: same rows, and no rows lost when it dies."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from engine_fixtures import InProcess
from test_engine import make_jobs

from emovox.errors import EmovoxError
from emovox.labelling.engine import Engine, LokyEngine
from emovox.labelling.plan import ShardJob, rows_file
from emovox.labelling.teacher_process import (
    BATCH,
    NUM_BUFFERS,
    Feed,
    InlineFeed,
    RemoteFeed,
    TeacherLostError,
    TeacherServer,
)
from emovox.teacher import find_teacher
from emovox.testing import FakeTeacher


class SlowTeacher(FakeTeacher):
    """Slow teacher that records the sizes of its batches."""

    def __init__(self, batch_size: int, fails_at: int = -1) -> None:
        super().__init__(8)
        self.batch_size, self.fails_at = batch_size, fails_at
        self.sizes: list[int] = []

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        self.sizes.append(sum(map(len, parts)))
        logits = super().launch(*parts)

        def wait() -> np.ndarray:
            time.sleep(0.005)
            if len(self.sizes) > self.fails_at >= 0:
                raise RuntimeError("out of memory")
            return logits()

        return wait


@pytest.fixture
def short() -> Iterator[Path]:
    """Folder with a short name: on macOS the path of a socket has at most 104 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def start(
    teacher: SlowTeacher, folder: Path, *, embeddings: bool = False
) -> tuple[str, list[BaseException]]:
    """Start a server in a thread; return its address and the list of its errors."""
    address, errors = str(folder / "teacher"), list[BaseException]()
    server = TeacherServer(lambda: teacher, address, embeddings=embeddings)

    def serve() -> None:
        try:
            server.serve()
        except RuntimeError as error:
            errors.append(error)

    threading.Thread(target=serve, daemon=True).start()
    return address, errors


def test_a_long_folder_for_temporary_files(tmp_path: Path) -> None:
    """The address of a Unix socket has at most 107 bytes."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    address, _ = start(SlowTeacher(4), folder)
    feed = RemoteFeed(address)
    feed.buffer()[:3] = 0
    feed.put(3)
    assert len(feed.drain()) == 3
    feed.close()


def ended(errors: list[BaseException]) -> list[BaseException]:
    """Wait for the errors of a server; its clients may notice earlier."""
    deadline = time.monotonic() + 20
    while not errors and time.monotonic() < deadline:
        time.sleep(0.01)
    return errors


def give(feed: Feed, crops: np.ndarray) -> None:
    for begin in range(0, len(crops), BATCH):
        part = crops[begin : begin + BATCH]
        feed.buffer()[: len(part)] = part
        feed.put(len(part))


@pytest.mark.parametrize(
    ("batch_size", "embeddings"), [(BATCH, True), (BATCH, False), (4 * BATCH, False)]
)
def test_every_client_gets_its_own_outputs(short: Path, batch_size: int, embeddings: bool) -> None:
    teacher = SlowTeacher(batch_size)
    address, _ = start(teacher, short, embeddings=embeddings)

    def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        feed, direct = RemoteFeed(address), InlineFeed(FakeTeacher(8), embeddings=embeddings)
        for _ in range(2):
            crops = random.integers(0, 256, (random.integers(1, 6 * BATCH), 8, 8, 3), np.uint8)
            give(feed, crops)
            give(direct, crops)
            np.testing.assert_array_equal(feed.drain(), direct.drain())
        assert feed.drain().shape == (0, 8 + 3 * embeddings)
        assert feed.teacher_seconds > 0 and feed.wait_seconds > 0

    with ThreadPoolExecutor(6) as clients:
        list(clients.map(client, range(6)))
    assert max(teacher.sizes) <= batch_size
    if batch_size > BATCH:
        assert max(teacher.sizes) > BATCH, "clients share batches"


def test_client_that_disconnects_does_not_disturb_others(short: Path) -> None:
    address, errors = start(SlowTeacher(BATCH), short)
    crops = np.arange(BATCH * 8 * 8 * 3, dtype=np.uint8).reshape(BATCH, 8, 8, 3)
    leaving = RemoteFeed(address)
    give(leaving, np.concatenate([crops] * (NUM_BUFFERS - 1)))
    leaving.close()
    staying = RemoteFeed(address)
    give(staying, crops)
    np.testing.assert_array_equal(staying.drain(), FakeTeacher(8)(crops))
    assert not errors


def test_teacher_that_fails_ends_the_server(short: Path) -> None:
    address, errors = start(SlowTeacher(BATCH, fails_at=1), short)
    feed = RemoteFeed(address)
    with pytest.raises(TeacherLostError):
        for _ in range(4):
            give(feed, np.zeros((BATCH, 8, 8, 3), np.uint8))
            feed.drain()
    assert "out of memory" in str(ended(errors))
    with pytest.raises(TeacherLostError):
        RemoteFeed(address)


def test_teacher_that_fails_under_load_releases_all_clients(short: Path) -> None:
    """The buffers of all clients are full when the teacher fails."""
    address, errors = start(SlowTeacher(BATCH, fails_at=3), short)

    def client(_: int) -> None:
        with pytest.raises(TeacherLostError):  # on connecting, if the other clients were faster
            feed = RemoteFeed(address)
            for _ in range(4):
                give(feed, np.zeros((NUM_BUFFERS * BATCH, 8, 8, 3), np.uint8))
            feed.drain()

    with ThreadPoolExecutor(8) as clients:
        for waiting in [clients.submit(client, number) for number in range(8)]:
            waiting.result(timeout=30)
    assert "out of memory" in str(ended(errors))


def test_missing_server_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TeacherLostError):
        RemoteFeed(str(tmp_path / "nobody"))


def compact_jobs(root: Path, num_shards: int) -> list[ShardJob]:
    """Return shards of three clips for the embedded teacher."""
    from dataclasses import replace

    teacher = find_teacher("compact")
    jobs = make_jobs(root, [[f"{n}{name}" for name in "abc"] for n in range(num_shards)])
    settings = replace(jobs[0].settings, teacher_sha256=teacher.sha256)
    return [replace(job, settings=settings, teacher_path=teacher.path) for job in jobs]


def rows_of(engine: Engine, jobs: Sequence[ShardJob]) -> list[dict[str, list[object]]]:
    assert len(list(engine.run(jobs))) == len(jobs)
    paths = [rows_file(job.state, job.shard.fingerprint) for job in jobs]
    tables = [pq.read_table(path).to_pydict() for path in paths]
    for path in jobs[0].state.iterdir():
        path.unlink()
    return tables


@pytest.mark.slow
def test_rows_equal_those_of_workers_with_their_own_teacher(tmp_path: Path) -> None:
    jobs = compact_jobs(tmp_path, 6)
    held = rows_of(InProcess(), jobs)
    assert all(table["track_id"] for table in held)
    killed: list[int] = []

    def kill_server() -> None:
        """Kill the teacher of the first device once, when the first shard is finished."""
        while not list(jobs[0].state.glob("*.json")):
            time.sleep(0.001)
        for process in psutil.Process().children(recursive=True):
            if any("teacher-0" in str(c.laddr) for c in process.net_connections("unix")):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    threading.Thread(target=kill_server, daemon=True).start()
    engine = LokyEngine(3, devices=("cpu", "cpu"))
    assert rows_of(engine, jobs) == held
    assert killed


def test_teacher_that_cannot_be_loaded_is_one_error(tmp_path: Path) -> None:
    from dataclasses import replace

    jobs = [replace(job, teacher_path=tmp_path / "none.pth") for job in compact_jobs(tmp_path, 1)]
    with pytest.raises(EmovoxError, match=r"none\.pth"):
        list(LokyEngine(1, devices=("cpu",)).run(jobs))
