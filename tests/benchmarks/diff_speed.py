"""Seconds and peak memory of `emovox diff` between a dataset and a changed copy of it.

    python tests/benchmarks/diff_speed.py DATASET [--runs 3]

In the copy, which is written to a temporary folder first, every logit has noise of deviation 0.05
and one track in a hundred is missing: nothing is equal, so nothing can be skipped. Each run is a
process of its own, start and imports included; JSON, so that all is computed and written.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

import emovox
from emovox.dataset import schema
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.ids import TrackKey

TRACK_COLUMNS = ["identity_id", "video_id", "track_num", "n_frames", "n_expected", "duration_ms"]
TRACKS_PER_CHUNK = 4096


def changed_chunks(dataset: emovox.Dataset, rng: np.random.Generator) -> Iterator[Chunk]:
    for split in dataset.tracks:
        rows = dataset.tracks[split].select([*TRACK_COLUMNS, "row_offset"]).to_pylist()
        frames = dataset.frames[split].combine_chunks()
        for start in range(0, len(rows), TRACKS_PER_CHUNK):
            part = [row for row in rows[start : start + TRACKS_PER_CHUNK] if rng.random() > 0.01]
            spans = [range(row["row_offset"], row["row_offset"] + row["n_frames"]) for row in part]
            kept = frames.take(pa.array(np.concatenate(spans)))
            columns = [kept[name] for name in schema.EIGHT.frames.names]
            for index, name in enumerate(schema.EIGHT.frames.names):
                if name in schema.EIGHT.logits:
                    noise = rng.normal(0, 0.05, len(kept)).astype(np.float32)
                    columns[index] = pa.array(kept[name].to_numpy() + noise)
            tracks = [
                TrackRow(
                    TrackKey(row["identity_id"], row["video_id"], row["track_num"]),
                    *(row[name] for name in TRACK_COLUMNS[3:]),
                )
                for row in part
            ]
            whole = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
            yield Chunk(split, tracks, pa.Table.from_arrays(whole, schema=schema.EIGHT.frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    info = DatasetInfo(
        "changed",
        "1.1.0",
        240,
        {"name": "changed", "sha256": None},
        {"origin": "a changed copy"},
        ("frames", "tracks"),
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "changed"
        chunks = changed_chunks(emovox.load(arguments.dataset), np.random.default_rng(0))
        write_chunks(copy, chunks, [], info, hdf5=False)
        paths = [str(arguments.dataset), str(copy)]
        command = [sys.executable, "-m", "emovox", "diff", *paths, "--format", "json"]
        for _ in range(arguments.runs):
            started = time.perf_counter()
            output = subprocess.run(command, check=True, capture_output=True).stdout
            seconds = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of any so far
            print(f"{seconds:6.1f} s {peak:6.0f} MiB {len(output) / 1e6:8.1f} MB of JSON")
    found = json.loads(output)
    sizes = " and ".join(f"{found[side]['frames']:,}" for side in ("old", "new"))
    frames = found["frames"]
    print(f"{sizes} frames, {frames['common']:,} in both, {frames['changed']:,} changed")


if __name__ == "__main__":
    main()
