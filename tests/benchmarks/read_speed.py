"""Time to open a dataset and to read the logits of a random track, memory of eight workers.

    python tests/benchmarks/read_speed.py DATASET [--tracks 5000]

The first read of a dataset unpacks its logits into the cache; that is timed apart. Workers are
fresh processes that get the dataset pickled and read every track. "Resident" sums what each of them
maps; in "shared out" (proportional set size) memory that several map is counted once.
"""

import argparse
import multiprocessing
import pickle
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import emovox

OPEN = """
import time; started = time.perf_counter()
import emovox; emovox.load({path!r})
print(time.perf_counter() - started)
"""


def read_all(dataset: emovox.Dataset, ready: Any, done: Any, sizes: Any) -> None:
    total = sum(float(track.logits.sum()) for track in dataset)
    ready.wait()  # everybody has read everything and holds it
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    sizes.put((kilobytes["Rss"], kilobytes["Pss"], total))
    done.wait()


def workers(dataset: emovox.Dataset, count: int) -> tuple[float, float]:
    """Sums over the workers of resident and of proportional set size, in MiB."""
    context = multiprocessing.get_context("spawn")
    ready, done, sizes = context.Barrier(count), context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=read_all, args=(dataset, ready, done, sizes)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [sizes.get() for _ in processes]
    for process in processes:
        process.join()
    assert len({total for _, _, total in found}) == 1, "every worker read the same"
    return sum(rss for rss, _, _ in found) / 1024, sum(pss for _, pss, _ in found) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--tracks", type=int, default=5000)
    arguments = parser.parse_args()
    script = OPEN.format(path=str(arguments.dataset))
    opened = [float(subprocess.check_output([sys.executable, "-c", script])) for _ in range(5)]
    print(f"open, import included        {statistics.median(opened):8.3f} s")
    dataset = emovox.load(arguments.dataset)
    ids = [
        name for split in dataset.tracks for name in dataset.tracks[split]["track_id"].to_pylist()
    ]
    started = time.perf_counter()
    dataset.logits(ids[0])
    print(f"first logits                 {time.perf_counter() - started:8.3f} s")
    times = []
    for name in random.Random(0).choices(ids, k=arguments.tracks):
        started = time.perf_counter()
        dataset.logits(name)
        times.append(1e3 * (time.perf_counter() - started))
    print(f"logits of a random track     {statistics.median(times):8.4f} ms, median")
    print(f"pickled                      {len(pickle.dumps(dataset)):8d} bytes")
    for count in (1, 8):
        alone, shared = workers(dataset, count)
        print(f"{count} workers, all tracks read  {alone:8.0f} MiB resident")
        print(f"                             {shared:8.0f} MiB shared out")


if __name__ == "__main__":
    main()
