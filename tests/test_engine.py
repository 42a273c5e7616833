"""Worker processes that crash, hang or are killed cost at most one track."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from engine_fixtures import InProcess
from pyarrow.parquet import read_table

from emovox.corpus.tracks import FaceSource, Track
from emovox.errors import EmovoxError, InputError
from emovox.ids import TrackKey
from emovox.labelling.engine import LokyEngine
from emovox.labelling.plan import (
    MAX_DEATHS,
    Shard,
    ShardJob,
    ShardReport,
    ShardSettings,
    rows_file,
)
from emovox.labelling.shard import build_shard
from emovox.labelling.teacher_process import InlineFeed
from emovox.labelling.worker import WorkerContext, watchdog
from emovox.media.ffmpeg import find_program
from emovox.teacher import EMBEDDED
from emovox.testing import FakeDetector, FakeTeacher, write_clip

SETTINGS = ShardSettings(240, "fake", "0" * 64, "cpu", "fp32", False)


def make_jobs(root: Path, videos: list[list[str]], timeout: float | None = None) -> list[ShardJob]:
    """Return one job per list of video names; a name tells what working on it does."""
    jobs = []
    state = root / "state"
    state.mkdir()
    for number, names in enumerate(videos):
        tracks = []
        for k, name in enumerate(names):
            path = f"mp4/p{number}/{name}/{k:05d}.mp4"
            write_clip(root / path, 7)
            tracks.append(Track(TrackKey(f"p{number}", name, k), path, FaceSource.VOXCELEB2))
        shard = Shard(2 * f"{number:032d}", tuple(tracks))
        jobs.append(ShardJob(shard, SETTINGS, root, state, root, timeout))
    return jobs


def work(job: ShardJob, place: WorkerContext) -> ShardReport:
    """Run a shard with a fake teacher; tracks crash, hang or wait as their names tell."""
    with watchdog(job.timeout) as restart:

        def on_track(track_id: str) -> None:
            place.journal.write_text(track_id, encoding="utf-8")
            if not track_id:
                return
            restart()
            num_deaths = job.lost.get(track_id, 0)
            if num_deaths > MAX_DEATHS or (num_deaths and "always" not in track_id):
                return
            if "crash" in track_id:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "hang" in track_id:
                time.sleep(60)
            for times in re.findall(r"killed([0-9]+)", track_id):
                with (job.root / "kills").open("ab+") as kills:
                    if kills.tell() < int(times):
                        kills.write(b"x")
                        kills.flush()
                        os.kill(os.getpid(), signal.SIGKILL)

        with pytest.MonkeyPatch.context() as patch:
            if (job.root / "no-ffmpeg").exists():
                patch.setattr("emovox.labelling.shard.find_program", lambda: None)
            return build_shard(job, InlineFeed(FakeTeacher()), FakeDetector, on_track)


def die_at_once(job: ShardJob, place: WorkerContext) -> ShardReport:
    os._exit(1)


def results(jobs: list[ShardJob]) -> tuple[list[str], dict[str, tuple[str, int]]]:
    written: list[str] = []
    dropped: dict[str, tuple[str, int]] = {}
    for report in LokyEngine(2, work=work).run(jobs):
        written += [track.track_id for track in report.tracks]
        dropped |= {d.track_id: (d.error, d.attempts) for d in report.dropped}
    return sorted(written), dropped


def begin_three_tracks(job: ShardJob, place: WorkerContext) -> ShardReport:
    for track_id in "abc":
        with place.journal.open("a") as journal:
            journal.write(f"\0{track_id}")
    while not (job.root / "go").exists():
        time.sleep(0.01)
    return ShardReport(job.shard.fingerprint)


def test_progress_counts_the_finished_tracks_of_running_shards(tmp_path: Path) -> None:
    engine = LokyEngine(1, work=begin_three_tracks)
    assert engine.num_done() == 0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(list, engine.run(make_jobs(tmp_path, [["a", "b", "c"]])))
        end = time.monotonic() + 60
        while engine.num_done() < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert engine.num_done() == 2
        (tmp_path / "go").touch()
        assert len(running.result()) == 1
    assert engine.num_done() == 0


def test_crash_costs_one_track(tmp_path: Path) -> None:
    (tmp_path / "no-ffmpeg").touch()
    jobs = make_jobs(tmp_path, [["a", "b"], ["c", "crash", "d"], ["e"], ["f"], ["g"], ["h"]])
    reports = list(LokyEngine(2, work=work).run(jobs))
    (dropped,) = [dropped for report in reports for dropped in report.dropped]
    assert (dropped.track_id, dropped.error, dropped.attempts) == (
        "p1/crash/00001",
        "WorkerDied",
        2,
    )
    assert "the program ffmpeg and emovox[ffmpeg] allow another try" in dropped.message
    written = [track.track_id.split("/")[1] for report in reports for track in report.tracks]
    assert sorted(written) == list("abcdefgh")


@pytest.mark.slow
@pytest.mark.skipif(find_program() is None, reason="needs the extra ffmpeg and the program")
def test_crash_of_the_decoder_costs_no_track_with_ffmpeg(tmp_path: Path) -> None:
    """A child process writes the same rows as a healthy worker."""
    videos = [["a", "crash"], ["b"]]
    reports = list(LokyEngine(2, work=work).run(make_jobs(tmp_path, videos)))
    assert [dropped for report in reports for dropped in report.dropped] == []
    (notes,) = [report.notes for report in reports if report.notes]
    what = "tracks were decoded in a child process after their decoder died"
    assert notes == {what: [1, "p0/crash/00001"]}
    (tmp_path / "healthy").mkdir()
    jobs = make_jobs(tmp_path / "healthy", videos)
    for job in jobs:
        build_shard(job, InlineFeed(FakeTeacher()), FakeDetector)
        name = rows_file(job.state, job.shard.fingerprint).name
        assert read_table(job.state / name) == read_table(tmp_path / "state" / name)


@pytest.mark.slow
@pytest.mark.skipif(find_program() is None, reason="needs the extra ffmpeg and the program")
def test_crash_outside_the_decoder_costs_one_track(tmp_path: Path) -> None:
    written, dropped = results(make_jobs(tmp_path, [["a", "crashalways"], ["b"]]))
    assert dropped == {"p0/crashalways/00001": ("WorkerDied", MAX_DEATHS + 1)}
    assert [track_id.split("/")[1] for track_id in written] == ["a", "b"]


@pytest.mark.skipif(find_program() is None, reason="needs the extra ffmpeg and the program")
def test_damage_found_by_the_child_is_the_reason(tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, [["a", "b"]])
    track = job.shard.tracks[1]
    (tmp_path / track.source).write_bytes(b"no video")
    job = replace(job, lost={track.track_id: MAX_DEATHS})
    report = build_shard(job, InlineFeed(FakeTeacher()), FakeDetector)
    (dropped,) = report.dropped
    assert (dropped.error, dropped.attempts) == ("InvalidData", MAX_DEATHS)
    assert not report.notes


@pytest.mark.slow
def test_uninterruptible_hang_costs_one_track(tmp_path: Path) -> None:
    (tmp_path / "no-ffmpeg").touch()
    jobs = make_jobs(tmp_path, [["a", "hang", "b"], ["c"]], timeout=1.5)
    started = time.monotonic()
    written, dropped = results(jobs)
    assert dropped == {"p0/hang/00001": ("WorkerDied", 2)}
    assert [track_id.split("/")[1] for track_id in written] == ["a", "b", "c"]
    assert time.monotonic() - started < 40


@pytest.mark.parametrize("times", [1, pytest.param(MAX_DEATHS + 1, marks=pytest.mark.slow)])
def test_worker_killed_from_outside_costs_no_track(tmp_path: Path, times: int) -> None:
    written, dropped = results(make_jobs(tmp_path, [["a", f"killed{times}"], ["b"]]))
    assert dropped == {}
    assert [track_id.split("/")[1] for track_id in written] == ["a", f"killed{times}", "b"]
    assert (tmp_path / "kills").stat().st_size == times


def test_worker_that_dies_before_any_track_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmovoxError, match=r"died 2 times before their first track.*--jobs"):
        list(LokyEngine(1, work=die_at_once).run(make_jobs(tmp_path, [["a"]])))


def test_teacher_that_changes_during_a_build_is_refused(tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, [["a"]])
    job = replace(job, teacher_path=EMBEDDED["compact"])
    with pytest.raises(InputError, match="changed since the build started"):
        list(InProcess().run([job]))
    assert not list(job.state.glob("*.json"))


def test_stopped_watchdog_does_not_exit() -> None:
    with watchdog(0.05) as restart:
        restart()
    time.sleep(0.3)  # longer than the watchdog's limit


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    """Run the benchmark of kills with few of them."""
    for number in range(24):
        write_clip(tmp_path / f"clips/mp4/a/x/{number:05d}.mp4", 250)
    script = Path(__file__).parent / "benchmarks" / "kills.py"
    command = [sys.executable, str(script), "--clips", str(tmp_path / "clips")]
    command += ["--kills", "6", "--copies", "1", "--delay", "0.1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
