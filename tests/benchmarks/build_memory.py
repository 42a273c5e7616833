"""Peak memory of a build, main process and workers, as the corpus grows tenfold. Linux only.

python tests/benchmarks/build_memory.py --clips VOXCELEB2_FOLDER [--small 40] [--large 400]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from clips import copy_clips


def peak_kib(pid: int) -> int:
    """The kernel's own record of a process's largest resident set; 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def measure(root: Path, out: Path) -> dict[str, float]:
    """Build, and return the peaks in MiB of the main process and of the largest worker."""
    command = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    command += ["--root", str(root), "--out", str(out)]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        try:
            pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
        except psutil.NoSuchProcess:
            break
        for pid in pids:
            peaks[pid] = max(peaks.get(pid, 0), peak_kib(pid))
        time.sleep(0.02)
    if process.wait():
        raise SystemExit("the build failed")
    main = peaks.pop(process.pid)
    return {"main": main / 1024, "worker": max(peaks.values()) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder with mp4/<id>/<video>/")
    parser.add_argument("--small", type=int, default=40)
    parser.add_argument("--large", type=int, default=400)
    arguments = parser.parse_args()
    num_clips = len(list(arguments.clips.glob("mp4/*/*/*.mp4")))
    results = {}
    for wanted in (arguments.small, arguments.large):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "corpus"
            clips = copy_clips(arguments.clips, root, -(-wanted // num_clips))
            results[wanted] = measure(root, Path(folder) / "out")
            shown = ", ".join(f"{name} {peak:.0f} MiB" for name, peak in results[wanted].items())
            print(f"{len(clips)} clips: {shown}", flush=True)
    for name in ("main", "worker"):
        ratio = results[arguments.large][name] / results[arguments.small][name]
        print(f"{name}: {ratio:.2f} x")


if __name__ == "__main__":
    main()
