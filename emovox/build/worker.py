"""What runs in the processes of a build: shards in a worker, a teacher in its server."""

import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from emovox.build.feed import Feed, InlineFeed, RemoteFeed
from emovox.build.plan import ShardSettings
from emovox.build.shard import ShardJob, ShardReport, build_shard
from emovox.errors import InputError
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


def start_worker(driver: int) -> None:
    """Leave Ctrl-C to the driver, which ends its workers, and do not outlive it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(DRIVER_POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_shard(job: ShardJob, place: Place) -> ShardReport:
    """Run one shard, with a watchdog and a journal of the track in hand."""
    tempfile.tempdir = str(place.journal.parent)  # goes with the driver, however this process ends
    with Watchdog(job.timeout) as watchdog:

        def on_track(track_id: str) -> None:
            place.journal.write_text(track_id, encoding="utf-8")
            watchdog.restart()

        feed = feed_of(job.settings, job.teacher_path, place)
        report = build_shard(job, feed, lambda: load_detector(place.device), on_track)
    place.journal.unlink(missing_ok=True)
    return report


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
    from emovox.build.server import BatchTeacher, TeacherServer

    def load() -> BatchTeacher:
        teacher = load_teacher(path, device, settings.precision, compiled=settings.compiled)
        return cast(BatchTeacher, teacher)

    TeacherServer(load, address).serve()


class Watchdog:
    """Ends the process when a track takes far longer than its timeout, as a hang in C does."""

    def __init__(self, timeout: float | None) -> None:
        self._seconds = None if timeout is None else HANG_FACTOR * timeout
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Watchdog":
        return self

    def restart(self) -> None:
        self._stop()
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, os._exit, (1,))
            self._timer.daemon = True
            self._timer.start()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def __exit__(self, *exception: object) -> None:
        self._stop()


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
