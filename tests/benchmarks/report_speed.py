"""Measure seconds, peak memory and bytes of `emovox report` on a large dataset.

    python tests/benchmarks/report_speed.py [DATASET] [--frames 5000000] [--runs 3]

Without DATASET, a temporary one is made first: tracks of about 33 frames, 1,251 identities, mostly
neutral. Each run is a separate process, including start and imports. The first run also unpacks the
logits into an empty cache; the others read them there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.ids import TrackKey

NUM_IDENTITIES = 1251
TRACKS_PER_CHUNK = 4096
SHARES = (0.55, 0.2, 0.08, 0.08, 0.06, 0.01, 0.01, 0.01)


def chunks(num_frames: int) -> Iterator[Chunk]:
    """Yield tracks of random length in the order of their ids; each identity is in one split."""
    rng = np.random.default_rng(0)
    num_tracks = num_frames // 33
    people = np.sort(rng.integers(0, NUM_IDENTITIES, num_tracks))
    for split, (low, high) in zip(
        schema.SPLITS, ((0, 960), (960, 1001), (1001, 1251)), strict=True
    ):
        chosen = np.flatnonzero((people >= low) & (people < high))
        for start in range(0, len(chosen), TRACKS_PER_CHUNK):
            part = chosen[start : start + TRACKS_PER_CHUNK]
            counts = rng.integers(16, 51, len(part))
            rows = [
                TrackRow(
                    TrackKey(f"id{10001 + people[k]}", f"v{k // 8:010d}", k % 8),
                    int(n),
                    int(n) + k % 3,
                )
                for k, n in zip(part.tolist(), counts, strict=True)
            ]
            yield Chunk(split, rows, frames(rows, counts, rng))


def frames(rows: list[TrackRow], counts: np.ndarray, rng: np.random.Generator) -> pa.Table:
    logits = rng.normal(0, 1.5, (counts.sum(), len(EMOTIONS))).astype(np.float32)
    moods = rng.choice(len(EMOTIONS), len(counts), p=SHARES)
    logits[np.arange(len(logits)), np.repeat(moods, counts)] += 4
    index = np.concatenate([np.arange(n) for n in counts])
    ids = pa.array([row.track_id for row in rows]).take(
        pa.array(np.repeat(range(len(rows)), counts))
    )
    columns = [ids, index.astype(np.int16), (index * schema.STEP_MS).astype(np.int32)]
    arrays = [*map(pa.array, columns), *map(pa.array, np.ascontiguousarray(logits.T))]
    return pa.Table.from_arrays(arrays, schema=schema.EIGHT.frames)


def measure(command: list[str], cache: Path) -> tuple[float, float, float]:
    """Run a command; return its wall seconds, processor seconds and peak MiB."""
    started = time.perf_counter()
    environment = {**os.environ, "EMOVOX_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(1)
    seconds = time.perf_counter() - started
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--frames", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset, page = arguments.dataset, Path(folder) / "report.html"
        if dataset is None:
            dataset = Path(folder) / "dataset"
            info = DatasetInfo(
                "made", "1.0.0", schema.STEP_MS, {"name": "none", "sha256": None},
                {"origin": "Made by a benchmark."}, ("frames", "tracks"),
            )  # fmt: skip
            manifest = write_chunks(dataset, chunks(arguments.frames), [], info, hdf5=False)
            totals = manifest["totals"]
            print(f"{totals['frames']:,} frames of {totals['tracks']:,} tracks")
        command = [sys.executable, "-m", "emovox", "report", str(dataset), "--out", str(page)]
        for kind, extra in (("alone", []), ("compared", ["--compare", str(dataset)])):
            for _ in range(arguments.runs):
                seconds, busy, peak = measure([*command, *extra], Path(folder) / "cache")
                size = page.stat().st_size / 1e6
                figures = f"{seconds:6.1f} s {busy:6.1f} s of processors {peak:6.0f} MiB"
                print(f"{kind:<10}{figures} {size:5.2f} MB")


if __name__ == "__main__":
    main()
