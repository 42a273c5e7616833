"""Growth of a build: time per track up to ten thousand, plan and finish of a million.

    python tests/benchmarks/growth.py real [--tracks 10000] [--rounds 3]
    python tests/benchmarks/growth.py planned [--tracks 1100000]

real      builds corpora of short synthetic clips, each twice as large as the one before, with
          `emovox build-dataset`, and gives the processor time of all processes, and the wall time,
          that each further track took.
planned   lays out a VoxCeleb2 tree of empty files, and builds it with the real plan and the real
          finish; rows come from a random generator instead of media and teacher. Gives seconds and
          peak memory of each stage.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.rows import TrackRow
from emovox.emotions import PUBLISHED
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.plan import ShardJob, ShardReport, row_columns, write_shard
from emovox.labelling.run import build_dataset
from emovox.testing import write_clip

FRAMES_PER_TRACK = 33
VIDEOS_PER_IDENTITY = 25
TRACKS_PER_VIDEO = 7  # VoxCeleb2: 1.1 million tracks of 150 thousand videos of 6 thousand people


def lay_out(root: Path, num_tracks: int, content: Path | None) -> None:
    """A VoxCeleb2 tree of hard links to a clip, or of empty files."""
    for number in range(num_tracks):
        video, track = divmod(number, TRACKS_PER_VIDEO)
        identity = video // VIDEOS_PER_IDENTITY
        path = root / f"mp4/id{identity:05d}/v{video:06d}/{track:05d}.mp4"
        if track == 0:
            path.parent.mkdir(parents=True)
        if content is None:
            os.close(os.open(path, os.O_CREAT))
        else:
            path.hardlink_to(content)


def build(root: Path, out: Path) -> tuple[float, float]:
    """Processor and wall seconds of a build."""
    command = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    command += ["--root", str(root), "--out", str(out), "--compile", "off"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - started


def real(folder: Path, num_tracks: int, rounds: int) -> None:
    clip = write_clip(folder / "clip.mp4", 50)
    sizes = [num_tracks // 8, num_tracks // 4, num_tracks // 2, num_tracks]
    for size in sizes:
        lay_out(folder / str(size), size, clip)
    for number in range(rounds):
        times = []
        for size in sizes:
            times.append(build(folder / str(size), folder / "out"))
            shutil.rmtree(folder / "out")
        print(f"round {number + 1}")
        for i in range(1, len(sizes)):
            more = sizes[i] - sizes[i - 1]
            cpu, wall = (1000 * (times[i][k] - times[i - 1][k]) / more for k in (0, 1))
            print(
                f"  {sizes[i - 1]:>6,} to {sizes[i]:>6,} tracks: {cpu:.2f} ms of processor and "
                f"{wall:.2f} ms of wall time for each further track",
                flush=True,
            )


class FakeMedia:
    """An `Engine` whose rows come from a random generator."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.random = np.random.default_rng(0)

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        self.began = time.perf_counter()
        self.memory = peak_memory()
        for job in jobs:
            yield self.fake(job)
        self.ended = time.perf_counter()

    def fake(self, job: ShardJob) -> ShardReport:
        report = ShardReport(job.shard.fingerprint)
        ids = [track.track_id for track in job.shard.tracks]
        report.tracks = [
            TrackRow(t.key, FRAMES_PER_TRACK, FRAMES_PER_TRACK, 7920) for t in job.shard.tracks
        ]
        num_rows = len(ids) * FRAMES_PER_TRACK
        index = np.tile(np.arange(FRAMES_PER_TRACK), len(ids))
        columns = {
            "track_id": pa.array(ids).take(pa.array(np.repeat(np.arange(len(ids)), 33))),
            "frame_index": index.astype(np.int32),
            "timestamp_ms": index.astype(np.int32) * schema.STEP_MS,
            "pts_ms": index * float(schema.STEP_MS),
            "shot": np.zeros(num_rows, np.int16),
        }
        wanted = row_columns(PUBLISHED)
        for field in wanted:
            if field.name not in columns:
                columns[field.name] = self.random.standard_normal(num_rows, np.float32)
        table = pa.table([pa.array(columns[f.name], f.type) for f in wanted], schema=wanted)
        write_shard(job.state, table, report)
        return report


def planned(folder: Path, num_tracks: int) -> None:
    root = folder / "corpus"
    lay_out(root, num_tracks, None)
    engine, started = FakeMedia(), time.perf_counter()
    config = BuildConfig("voxceleb2", root, folder / "out", shard_tracks=256, hdf5=True)
    result = build_dataset(config, engine=engine, show_progress=False)
    ended = time.perf_counter()
    totals = result.manifest["totals"]
    print(f"{totals['tracks']:,} tracks, {totals['frames']:,} frames, {result.num_shards:,} shards")
    print(f"plan    {engine.began - started:.1f} s, peak {engine.memory:,.0f} MiB so far")
    print(f"media   {engine.ended - engine.began:.1f} s, faked")
    print(f"finish  {ended - engine.ended:.1f} s, peak {peak_memory():,.0f} MiB so far")


def peak_memory() -> float:
    """MiB, of this process since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["real", "planned"])
    parser.add_argument("--tracks", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is room for a million files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        if arguments.what == "real":
            real(Path(name), arguments.tracks or 10_000, arguments.rounds)
        else:
            planned(Path(name), arguments.tracks or 1_100_000)


if __name__ == "__main__":
    main()
