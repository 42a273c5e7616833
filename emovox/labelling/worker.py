"""Code of the processes of a build: shards in a worker, the teacher in its server."""

import contextlib
import faulthandler
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from emovox.errors import InputError
from emovox.files import set_compile_cache
from emovox.labelling.plan import ShardJob, ShardReport, ShardSettings
from emovox.labelling.shard import build_shard
from emovox.labelling.teacher_process import Feed, InlineFeed, RemoteFeed, TeacherLostError
from emovox.media.faces import Detector, Mtcnn
from emovox.teacher import load_teacher

DRIVER_POLL = 1.0  # seconds between checks that the driver is alive
HANG_FACTOR = 2.0  # multiple of the timeout after which a worker that hangs in C exits


@dataclass(frozen=True)
class WorkerContext:
    """Resources of a worker on its machine."""

    # File with a zero byte and an id for each track so far; tells the driver the progress, and the
    # track on which the worker died.
    journal: Path
    device: str  # of the face detector, and of the teacher if the worker holds it
    address: str | None = None  # of the teacher's server; None if the worker holds the teacher


def start_worker(driver: int, folder: Path) -> None:
    """Ignore Ctrl-C, which the driver handles; remove `folder` and exit when the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_compile_cache()  # which must outlast `folder`
    tempfile.tempdir = str(folder)

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(DRIVER_POLL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_shard(job: ShardJob, context: WorkerContext) -> ShardReport:
    """Run one shard with a watchdog, and keep the journal up to date."""
    with watchdog(job.timeout) as restart:

        def on_track(track_id: str) -> None:
            with context.journal.open("a", encoding="utf-8") as journal:
                journal.write(f"\0{track_id}")
            if track_id:
                restart()
            else:
                faulthandler.cancel_dump_traceback_later()

        try:
            feed = feed_of(job.settings, job.teacher_path, context)
            detector = partial(load_detector, context.device, job.settings.min_face)
            return build_shard(job, feed, detector, on_track)
        except TeacherLostError:
            _remote_feed.cache_clear()
            raise


def feed_of(settings: ShardSettings, teacher_path: Path, context: WorkerContext) -> Feed:
    """Return the feed of the planned teacher; InputError if its weights file changed since then."""
    feed: Feed
    if context.address is None:
        modes = _modes(settings)
        feed = _inline_feed(str(teacher_path), context.device, settings.embeddings, **modes)
    else:
        feed = _remote_feed(context.address)
    if feed.sha256 != settings.teacher_sha256:
        raise InputError(f"{teacher_path}: changed since the build started; rerun the build")
    return feed


def serve_teacher(address: str, path: Path, settings: ShardSettings, device: str) -> None:
    """Run the teacher for all workers that connect to the address, until the process ends."""
    from emovox.labelling.teacher_process import TeacherServer

    load: Any = partial(load_teacher, path, device, **_modes(settings))  # a BatchTeacher
    TeacherServer(load, address, embeddings=settings.embeddings).serve()


@contextlib.contextmanager
def watchdog(timeout: float | None) -> Iterator[Callable[[], None]]:
    """End the process when a track takes `HANG_FACTOR` times its timeout, as a hang in C does.

    Yields a function that restarts the timer. The timer is that of faulthandler, whose thread needs
    no lock that a hang in C could hold.
    """
    with Path(os.devnull).open("w") as sink:  # receives the traceback

        def restart() -> None:
            if timeout is not None:
                faulthandler.dump_traceback_later(HANG_FACTOR * timeout, exit=True, file=sink)

        try:
            yield restart
        finally:
            faulthandler.cancel_dump_traceback_later()


@lru_cache(maxsize=1)
def _inline_feed(path: str, device: str, embeddings: bool, **modes: Any) -> InlineFeed:
    import torch

    torch.set_num_threads(1)  # every core has a worker
    return InlineFeed(load_teacher(path, device, **modes), embeddings=embeddings)


def _modes(settings: ShardSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in ("precision", "compiled", "mirror")}


_remote_feed = lru_cache(maxsize=1)(RemoteFeed)


@lru_cache(maxsize=1)
def load_detector(device: str, min_face: int | None = None) -> Detector:
    """Return MTCNN on the device; it is loaded once per process."""
    import torch

    torch.set_num_threads(1)
    return Mtcnn(device, min_face)
