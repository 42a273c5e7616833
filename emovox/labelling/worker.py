"""What runs in the processes of a build: shards in a worker, a teacher in its server."""

import faulthandler
import getpass
import os
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from emovox.errors import InputError
from emovox.labelling.plan import ShardSettings
from emovox.labelling.shard import ShardJob, ShardReport, build_shard
from emovox.labelling.teacher_client import Feed, InlineFeed, RemoteFeed, TeacherLostError
from emovox.media.faces import Detector
from emovox.teacher import load_teacher

DRIVER_POLL = 1.0  # seconds between looks whether the driver is still there
HANG_FACTOR = 2.0  # times the timeout after which a worker that cannot be interrupted ends itself


@dataclass(frozen=True)
class Place:
    """What a worker has on its machine.

    Attributes:
        journal: file for the track in hand, which tells the driver who is to blame for a death.
        device: where faces are detected, and the teacher runs if the worker holds it.
        address: of the teacher's server; None: the worker holds the teacher.
    """

    journal: Path
    device: str
    address: str | None = None


def start_worker(driver: int, folder: Path) -> None:
    """Leave Ctrl-C to the driver, which ends its workers, and do not outlive it if it is killed.

    Args:
        driver: process id.
        folder: for temporary files; it is taken away with the driver, however that ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    compiled = Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled))  # is to outlast the folder
    tempfile.tempdir = str(folder)

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(DRIVER_POLL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_shard(job: ShardJob, place: Place) -> ShardReport:
    """Run one shard, with a watchdog and a journal of the track in hand."""
    with Watchdog(job.timeout) as watchdog:

        def on_track(track_id: str) -> None:
            place.journal.write_text(track_id, encoding="utf-8")
            if track_id:
                watchdog.restart()
            else:
                watchdog.stop()

        try:
            feed = feed_of(job.settings, job.teacher_path, place)
            return build_shard(job, feed, lambda: load_detector(place.device), on_track)
        except TeacherLostError:
            _remote_feed.cache_clear()
            raise


def feed_of(settings: ShardSettings, teacher_path: Path, place: Place) -> Feed:
    """The way to the teacher, which has to be the one that the shards were planned for.

    Raises:
        InputError: its file is another one by now.
    """
    feed: Feed
    if place.address is None:
        precision, compiled = settings.precision, settings.compiled
        feed = _inline_feed(str(teacher_path), place.device, precision, compiled)
    else:
        feed = _remote_feed(place.address)
    if feed.sha256 != settings.teacher_sha256:
        raise InputError(f"{teacher_path}: changed while the build was under way")
    return feed


def serve_teacher(address: str, path: Path, settings: ShardSettings, device: str) -> None:
    """Run the teacher for all workers that connect to the address, until the process is ended."""
    from emovox.labelling.teacher_server import BatchTeacher, TeacherServer

    def load() -> BatchTeacher:
        teacher = load_teacher(path, device, settings.precision, compiled=settings.compiled)
        return cast(BatchTeacher, teacher)

    TeacherServer(load, address).serve()


class Watchdog:
    """Ends the process when a track takes far longer than its timeout, as a hang in C does.

    The clock is faulthandler's, whose thread needs no lock that a hang in C could hold.
    """

    def __init__(self, timeout: float | None) -> None:
        self._seconds = None if timeout is None else HANG_FACTOR * timeout
        self._sink = os.open(os.devnull, os.O_WRONLY)  # for the traceback that comes with it

    def __enter__(self) -> "Watchdog":
        return self

    def restart(self) -> None:
        if self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._sink)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def __exit__(self, *exception: object) -> None:
        self.stop()
        os.close(self._sink)


@lru_cache(maxsize=1)
def _inline_feed(path: str, device: str, precision: str, compiled: bool) -> InlineFeed:
    import torch

    torch.set_num_threads(1)  # there is a worker on every core
    return InlineFeed(load_teacher(path, device, precision, compiled=compiled))


@lru_cache(maxsize=1)
def _remote_feed(address: str) -> RemoteFeed:
    return RemoteFeed(address)


@lru_cache(maxsize=1)
def load_detector(device: str) -> Detector:
    """MTCNN on the device, once per process."""
    import torch

    from emovox.media.mtcnn import Mtcnn

    torch.set_num_threads(1)
    return Mtcnn(torch.device(device))
