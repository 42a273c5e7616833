"""Seconds and peak memory of `emovox validate`, against reading the dataset once with DuckDB.

    python tests/benchmarks/validate_speed.py DATASET [--runs 3]

Each run is a process of its own, start and imports included. The scan sums every logit and counts
every track_id: what the engine takes to read the frames, whatever else the machine is doing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SCAN = """
import duckdb, sys
from emovox.dataset.schema import EIGHT
sums = ", ".join(f"sum({name})" for name in EIGHT.logits)
frames = f"'{sys.argv[1]}/frames/*.parquet'"
duckdb.sql(f"select count(distinct track_id), {sums} from {frames}").fetchall()
"""


def measure(command: list[str]) -> tuple[float, float, float, str]:
    """Run a command; its wall seconds, processor seconds, peak MiB and output."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(process.returncode)
    seconds = time.perf_counter() - started
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = str(arguments.dataset)
    commands = {
        "DuckDB scan": [sys.executable, "-c", SCAN, folder],
        "emovox validate": [sys.executable, "-m", "emovox", "validate", folder, "--format", "json"],
    }
    for _ in range(arguments.runs):
        for name, command in commands.items():
            seconds, busy, peak, output = measure(command)
            print(f"{name:<16}{seconds:6.1f} s {busy:6.1f} s of processors {peak:6.0f} MiB")
    report = json.loads(output)
    print(f"valid: {report['valid']}; {report['counts']}")


if __name__ == "__main__":
    main()
