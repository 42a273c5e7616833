"""SIGKILL at random moments to a build's driver and workers, and the hash that it ends with. Linux.

    python tests/benchmarks/kills.py --clips VOXCELEB2_FOLDER [--kills 200] [--copies 26] [--seed 7]

A corpus of copies of real clips is built twice with the command line, one track per shard: once
undisturbed, once with kills. Each kill waits until a random number of shards is done, another one
for every kill, so that all of them fall into the run, and then for up to `--delay` seconds, so that
some hit a process while it starts. It hits a worker, or the driver, which is then started again at
once while its workers may still be alive. In the end both datasets have to have the same content.
"""

import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from clips import copy_clips

DRIVER_SHARE = 0.2  # of kills that hit the driver
MARGIN = 0.2  # share of shards, at the end, that no kill waits for
POLL = 0.02


def command(root: Path, out: Path) -> list[str]:
    words = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    return [
        *words,
        "--root",
        str(root),
        "--out",
        str(out),
        "--name",
        "kills",
        "--shard-tracks",
        "1",
    ]


def contents(out: Path) -> dict[str, str]:
    """Content hash of every table in the manifest."""
    files = json.loads((out / "manifest.json").read_text())["files"]
    return {file["path"]: file["content_sha256"] for file in files if file["content_sha256"]}


def num_done(out: Path) -> int:
    """Shards that have their marker."""
    return sum(path.stem != "finished" for path in out.glob(".emovox/*.json"))


class Run:
    """A build that is started again whenever its driver is killed."""

    def __init__(self, root: Path, out: Path) -> None:
        self._command = command(root, out)
        self.out = out
        self.num_starts = 0
        self.start()

    def start(self) -> None:
        with (self.out.parent / "log").open("ab") as log:
            self.driver = psutil.Popen(self._command, stdout=log, stderr=log)
        self.num_starts += 1

    def wait_for(self, num_shards: int) -> bool:
        """Wait until so many shards are done; False if the driver has ended before that."""
        while num_done(self.out) < num_shards:
            if self.driver.poll() is not None:
                return False
            time.sleep(POLL)
        return self.driver.poll() is None

    def kill(self, draw: random.Random) -> str:
        """Kill the driver or one of its workers; return which, or nothing if it was too late."""
        if draw.random() < DRIVER_SHARE:
            self.driver.kill()
            self.driver.wait()
            self.start()
            return "driver"
        while self.driver.poll() is None:
            if workers := self._workers():
                try:
                    draw.choice(workers).kill()
                    return "worker"
                except psutil.NoSuchProcess:
                    pass  # it had ended by itself
            time.sleep(POLL)
        return ""

    def _workers(self) -> list[psutil.Process]:
        try:
            children = self.driver.children()
            return [c for c in children if any("popen_loky" in word for word in c.cmdline())]
        except psutil.Error:
            return []


def disturb(
    run: Run, num_shards: int, num_kills: int, delay: float, draw: random.Random
) -> Iterator[str]:
    """Kill until there were enough, or the run is over; yield what was hit."""
    # The last shards are left, lest the run ends in the second that a kill waits.
    last = round(num_shards * (1 - MARGIN))
    if last < num_kills:
        raise SystemExit(f"{num_kills} kills need more than {num_shards} tracks; use more --copies")
    moments = sorted(draw.sample(range(last), num_kills), reverse=True)
    while moments and run.wait_for(moments[-1]):
        time.sleep(draw.uniform(0, delay))
        if hit := run.kill(draw):
            moments.pop()
            yield hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder with mp4/<id>/<video>/")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--copies", type=int, default=26)
    parser.add_argument("--delay", type=float, default=1.0, help="most seconds that a kill waits")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, whole, out = (Path(name) / part for part in ("corpus", "whole", "out"))
        num_shards = len(copy_clips(arguments.clips, root, arguments.copies))
        subprocess.run(command(root, whole), check=True, stdout=subprocess.DEVNULL)
        draw, started = random.Random(arguments.seed), time.monotonic()
        run = Run(root, out)
        hits = collections.Counter(disturb(run, num_shards, arguments.kills, arguments.delay, draw))
        code = run.driver.wait()
        same = code == 0 and contents(out) == contents(whole)
        print(f"{num_shards} tracks, {hits.total()} kills: {dict(hits)}; {run.num_starts} starts")
        print(f"exit code {code} after {time.monotonic() - started:.0f} s")
        if not same:
            print((out.parent / "log").read_text()[-2000:])
        print("the content hashes are equal" if same else "VIOLATION: the content differs")
        if hits.total() < arguments.kills:
            print("VIOLATION: the run was over too soon; use more --copies")
            same = False
        raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
