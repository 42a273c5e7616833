"""Seconds and peak memory of `emovox diff` on two datasets.

python tests/benchmarks/diff_speed.py OLD NEW [--runs 3]

Each run is a process of its own, start and imports included; JSON, so that all is computed and
written. Equal content hashes spare half of the reading: give a changed copy to measure the rest.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    paths = [str(arguments.old), str(arguments.new)]
    command = [sys.executable, "-m", "emovox", "diff", *paths, "--format", "json"]
    for _ in range(arguments.runs):
        started = time.perf_counter()
        output = subprocess.run(command, check=True, capture_output=True).stdout
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of any run so far
        print(f"{seconds:6.1f} s {peak:6.0f} MiB {len(output) / 1e6:8.1f} MB of JSON", flush=True)
    found = json.loads(output)
    sizes = " and ".join(f"{found[side]['frames']:,}" for side in ("old", "new"))
    frames = found["frames"]
    print(f"{sizes} frames, {frames['common']:,} in both, {frames['changed']:,} changed")


if __name__ == "__main__":
    main()
