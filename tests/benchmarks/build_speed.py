"""Build throughput as a fraction of the limit of decoding and teacher on the same cores.

    python tests/benchmarks/build_speed.py --clips VOXCELEB2_FOLDER [--teacher NAME --repeat N]

Each limit is measured alone, on the clips of the build and with a worker on every core: media
(decode, crop, sharpness) without a teacher, and the teacher without media. On a CPU they share the
cores, so their times per frame add up.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
from clips import copy_clips

from emovox.devices import resolve_runtime
from emovox.emotions import EMOTIONS
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.engine import LokyEngine
from emovox.labelling.plan import ShardJob, ShardReport, make_plan
from emovox.labelling.shard import build_shard
from emovox.labelling.teacher_process import BATCH, InlineFeed
from emovox.labelling.worker import WorkerContext, feed_of, load_detector, run_shard
from emovox.testing import FakeTeacher

TEACHER_BATCHES = 20  # per shard, for the limit of the teacher


class NoTeacher(FakeTeacher):
    """Takes crops of the size of another teacher, and returns zeros."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.input_size = input_size

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return np.zeros((len(crops), len(EMOTIONS)), np.float32)


def media_only(job: ShardJob, context: WorkerContext) -> ShardReport:
    """Build a shard without a teacher."""
    size = feed_of(job.settings, job.teacher_path, context).input_size
    return build_shard(job, InlineFeed(NoTeacher(size)), lambda: load_detector(context.device))


def teacher_only(job: ShardJob, context: WorkerContext) -> ShardReport:
    """Run the teacher on random crops; `num_decoded` of the report counts them."""
    feed = feed_of(job.settings, job.teacher_path, context)
    crops = feed.buffer()
    crops[:] = np.random.default_rng(0).integers(0, 256, crops.shape, np.uint8)
    before = feed.teacher_seconds
    for _ in range(TEACHER_BATCHES):
        feed.buffer()
        feed.put(BATCH)
    feed.drain()
    report = ShardReport(job.shard.fingerprint, num_decoded=TEACHER_BATCHES * BATCH)
    report.teacher_seconds = feed.teacher_seconds - before
    return report


def run(
    work: Callable[[ShardJob, WorkerContext], ShardReport], jobs: list[ShardJob], workers: int
) -> tuple[list[ShardReport], float]:
    """Return the reports after each worker's first one, and the seconds they took."""
    reports, times = [], []
    for report in LokyEngine(workers, work=work).run(jobs):
        reports.append(report)
        times.append(time.perf_counter())
    return reports[workers:], times[-1] - times[workers - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="a folder in VoxCeleb2's layout")
    parser.add_argument("--repeat", type=int, default=20, help="copies of the clips")
    parser.add_argument("--teacher", default="compact")
    options = parser.parse_args()
    workers = joblib.cpu_count()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "corpus"
        copy_clips(options.clips, root, options.repeat)
        config = BuildConfig("voxceleb2", root, Path(name) / "out", options.teacher)
        plan = make_plan(config, resolve_runtime)

        def jobs(folder: str) -> list[ShardJob]:
            state = Path(name) / folder
            state.mkdir()
            return plan.jobs(state, ())

        media, _ = run(media_only, jobs("media"), workers)
        teacher, _ = run(teacher_only, jobs("teacher"), workers)
        built, seconds = run(run_shard, jobs("build"), workers)
    frames = sum(r.num_frames for r in media) / sum(r.media_seconds for r in media)
    crops = sum(r.num_decoded for r in teacher) / sum(r.teacher_seconds for r in teacher)
    limit = workers / (1 / frames + 1 / crops)
    reached = sum(r.num_frames for r in built) / seconds
    print(f"media    {frames:,.0f} frames/s per core")
    print(f"teacher  {crops:,.0f} crops/s per core")
    print(f"limit    {limit:,.0f} frames/s with {workers} workers")
    print(f"reached  {reached:,.0f} frames/s, {reached / limit:.2f} of the limit")


if __name__ == "__main__":
    main()
