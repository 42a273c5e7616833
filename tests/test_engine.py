"""Worker processes that crash, hang or are killed cost one track, and the rest is done."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky.process_executor import BrokenProcessPool

from emovox.build.engine import LokyEngine, _journal, _Watchdog
from emovox.build.plan import Shard, ShardSettings
from emovox.build.shard import ShardJob, ShardReport, build_shard
from emovox.corpus.tracks import Faces, Track
from emovox.errors import EmovoxError, InputError
from emovox.teacher import EMBEDDED
from emovox.testing import FakeDetector, FakeTeacher, write_clip

SETTINGS = ShardSettings(240, "fake", "0" * 64, "cpu", "fp32", False)


def make_jobs(root: Path, videos: list[list[str]], timeout: float | None = None) -> list[ShardJob]:
    """One job per list of video names; a name says what working on it does."""
    jobs = []
    state = root / "state"
    state.mkdir()
    for number, names in enumerate(videos):
        tracks = []
        for k, name in enumerate(names):
            path = f"mp4/p{number}/{name}/{k:05d}.mp4"
            write_clip(root / path, 7)
            tracks.append(Track(f"p{number}", name, k, path, Faces.VOXCELEB2))
        shard = Shard(f"{number:064d}", tuple(tracks))
        jobs.append(ShardJob(shard, SETTINGS, root, state, root, timeout))
    return jobs


def work(job: ShardJob) -> ShardReport:
    """Like the engine's own work, with a fake teacher, and tracks that do what their name says."""
    journal = _journal(job)
    with _Watchdog(job.timeout) as watchdog:

        def on_track(track_id: str) -> None:
            journal.write_text(track_id, encoding="utf-8")
            watchdog.restart()
            if track_id in job.lost:
                return
            if "crash" in track_id:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "hang" in track_id:
                time.sleep(60)
            if "once" in track_id and not (job.root / "died").exists():
                (job.root / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        return build_shard(job, FakeTeacher(), FakeDetector, on_track)


def die_at_once(job: ShardJob) -> ShardReport:
    os._exit(1)


def results(jobs: list[ShardJob]) -> tuple[list[str], dict[str, tuple[str, int]]]:
    written: list[str] = []
    dropped: dict[str, tuple[str, int]] = {}
    for report in LokyEngine(2, work).run(jobs):
        written += [track.track_id for track in report.tracks]
        dropped |= {d.track_id: (d.error, d.attempts) for d in report.dropped}
    return sorted(written), dropped


def test_crash_costs_one_track(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [["a", "b"], ["c", "crash", "d"], ["e"], ["f"], ["g"], ["h"]])
    written, dropped = results(jobs)
    assert dropped == {"p1/crash/00001": ("WorkerDied", 2)}
    assert [track_id.split("/")[1] for track_id in written] == list("abcdefgh")


def test_hang_that_nothing_interrupts_costs_one_track(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [["a", "hang", "b"], ["c"]], timeout=0.5)
    started = time.monotonic()
    written, dropped = results(jobs)
    assert dropped == {"p0/hang/00001": ("WorkerDied", 2)}
    assert [track_id.split("/")[1] for track_id in written] == ["a", "b", "c"]
    assert time.monotonic() - started < 40


def test_worker_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    written, dropped = results(make_jobs(tmp_path, [["a", "once"], ["b"]]))
    assert dropped == {}
    assert [track_id.split("/")[1] for track_id in written] == ["a", "once", "b"]


def test_worker_that_dies_before_any_track_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmovoxError, match=r"died before its first track.*--jobs"):
        list(LokyEngine(1, die_at_once).run(make_jobs(tmp_path, [["a"]])))


def test_teacher_that_changes_under_way_is_refused(tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, [["a"]])
    job = replace(job, teacher_path=EMBEDDED["compact"][0])
    with pytest.raises(InputError, match="changed while the build was under way"):
        list(LokyEngine(1).run([job]))
    assert not list(job.state.glob("*.json"))


def test_shard_that_meets_a_broken_pool_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool breaks after a result came back and before the next shard is handed out."""
    first_pool = True

    class BreakingPool:
        def __init__(self, breaks: bool) -> None:
            self.breaks, self.num_done = breaks, 0

        def submit(self, work: Callable[[ShardJob], ShardReport], job: ShardJob) -> "Future[Any]":
            if self.breaks and self.num_done == 2:
                raise BrokenProcessPool
            self.num_done += 1
            future: Future[Any] = Future()
            future.set_result(work(job))
            return future

    @contextlib.contextmanager
    def pool(num_workers: int) -> Iterator[BreakingPool]:
        nonlocal first_pool
        first, first_pool = first_pool, False
        yield BreakingPool(first)

    monkeypatch.setattr("emovox.build.engine._pool", pool)
    reports = LokyEngine(1, work).run(make_jobs(tmp_path, [["a"], ["b"], ["c"], ["d"]]))
    names = [track.track_id.split("/")[1] for report in reports for track in report.tracks]
    assert sorted(names) == list("abcd")


def test_watchdog_stays_quiet_when_stopped() -> None:
    with _Watchdog(0.05) as watchdog:
        watchdog.restart()
    time.sleep(0.3)  # this process would be gone
