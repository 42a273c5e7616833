"""emovox against other ways to the same rows, on the same clips in the same run. Linux only.

    python tests/benchmarks/peers.py --clips VOXCELEB2_FOLDER [--copies 20] [--rounds 3]
        [--video2dataset PYTHON]

emovox         `emovox build-dataset` as a user runs it.
reference      the way of the reference code: an `ffmpeg` process per clip writes JPEGs, which are
               read back, cropped and given to the teacher; a process per core has its share.
opencv         `cv2.VideoCapture`, frame by frame; every sixth is cropped and given to the teacher;
               a process per core.
video2dataset  its `FrameSubsampler`, which is what it has for frames, makes a video of every sixth
               one; that is read with OpenCV, cropped and given to the teacher; a process per core.
               PYTHON is the interpreter of an environment in which video2dataset imports.

Tracks per second of the whole command, start included, and the largest memory of all its processes
together, what they share counted once (PSS). Only ratios within a round mean something.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import joblib
import numpy as np
import psutil
from clips import copy_clips

EVERY = 6  # frames of 25 per second: one in 0.24 s

SUBSAMPLE = """
import sys
from video2dataset.subsamplers.frame_subsampler import FrameSubsampler
subsample = FrameSubsampler("25/6")
for line in sys.stdin.read().splitlines():  # ffmpeg reads from stdin too
    source, target = line.split()
    with open(source, "rb") as file:
        streams, _, error = subsample({"video": [file.read()]}, {})
    assert error is None, error
    with open(target, "wb") as file:
        file.write(streams["video"][0])
"""


def jpegs(clip: Path, folder: Path) -> Iterator[np.ndarray]:
    """Every sixth frame, through JPEG files."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(clip)]
    command += ["-vf", f"select=not(mod(n\\,{EVERY}))", "-fps_mode", "passthrough", "-q:v", "2"]
    subprocess.run([*command, "-threads", "1", f"{folder}/%05d.jpg"], check=True)
    for path in sorted(folder.iterdir()):
        yield np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


def captured(clip: Path, folder: Path) -> Iterator[np.ndarray]:
    """Every sixth frame that OpenCV gives."""
    yield from read(clip, EVERY)


def read(clip: Path, every: int) -> Iterator[np.ndarray]:
    capture, number = cv2.VideoCapture(str(clip)), 0
    while True:
        there, frame = capture.read()
        if not there:
            return
        if number % every == 0:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        number += 1


def resampled(clip: Path, folder: Path) -> Iterator[np.ndarray]:
    """The frames of the video that video2dataset made of the clip before."""
    yield from read(resampled_file(clip), 1)


def resampled_file(clip: Path) -> Path:
    """Return the path of the video that video2dataset makes of a clip, outside the corpus."""
    return clip.parents[4] / "resampled" / "-".join(clip.parts[-3:])


def work(frames: Callable[[Path, Path], Iterator[np.ndarray]], clips: list[Path]) -> int:
    """Rows of some clips, in a process with one thread; returns their number."""
    import torch

    from emovox.media import faces
    from emovox.teacher import load_teacher

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    teacher = load_teacher("compact", "cpu")
    num_rows = 0
    for clip in clips:
        with tempfile.TemporaryDirectory() as folder:
            box = faces.voxceleb2_box(224, 224)
            found = [
                faces.resize(faces.cut(frame, box), teacher.input_size)
                for frame in frames(clip, Path(folder))
            ]
        num_rows += len(teacher(np.stack(found)))
    return num_rows


def subsample(python: str, clips: list[Path]) -> None:
    resampled_file(clips[0]).parent.mkdir(exist_ok=True)
    lines = "".join(f"{clip} {resampled_file(clip)}\n" for clip in clips)
    subprocess.run([python, "-c", SUBSAMPLE], input=lines, text=True, check=True)


def run_peer(name: str, root: Path, python: str) -> None:
    """One peer over all clips, with a process per core."""
    clips = sorted(root.glob("mp4/*/*/*.mp4"))
    cores = joblib.cpu_count()
    shares = [clips[i::cores] for i in range(cores)]
    frames = {"reference": jpegs, "opencv": captured, "video2dataset": resampled}[name]
    with joblib.Parallel(n_jobs=cores) as parallel:
        if name == "video2dataset":
            parallel(joblib.delayed(subsample)(python, share) for share in shares)
        print(sum(parallel(joblib.delayed(work)(frames, share) for share in shares)))


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and MiB of its processes at their largest."""
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        total = 0
        try:
            for each in (process, *process.children(recursive=True)):
                total += each.memory_full_info().pss
        except psutil.Error:
            pass  # one that just ended
        peak = max(peak, total)
        time.sleep(0.2)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder with mp4/<id>/<video>/")
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--video2dataset", metavar="PYTHON", default="")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        run_peer(arguments.peer, arguments.clips, arguments.video2dataset)
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "corpus"
        num_clips = len(copy_clips(arguments.clips, root, arguments.copies))
        build = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
        this = [sys.executable, __file__, "--clips", str(root), "--peer"]
        peers = ["reference", "opencv"] + ["video2dataset"] * bool(arguments.video2dataset)
        results: dict[str, list[tuple[float, float]]] = {}
        for number in range(arguments.rounds):
            out = Path(name) / f"out{number}"
            commands = {"emovox": [*build, "--root", str(root), "--out", str(out)]}
            for peer in peers:
                commands[peer] = [*this, peer, "--video2dataset", arguments.video2dataset]
            for peer, command in commands.items():
                results.setdefault(peer, []).append(measure(command))
                seconds, memory = results[peer][-1]
                ratio = seconds / results["emovox"][-1][0]
                print(
                    f"round {number + 1}  {peer:<14}{num_clips / seconds:6.1f} tracks/s  "
                    f"{memory:6,.0f} MiB  emovox is {ratio:.2f} times as fast",
                    flush=True,
                )
    print("\nmedians")
    for peer, values in results.items():
        speed = statistics.median(num_clips / seconds for seconds, _ in values)
        memory = statistics.median(memory for _, memory in values)
        pairs = zip(values, results["emovox"], strict=True)
        ratio = statistics.median(theirs / ours for (theirs, _), (ours, _) in pairs)
        print(f"{peer:<14}{speed:6.1f} tracks/s  {memory:6,.0f} MiB  {ratio:.2f}")


if __name__ == "__main__":
    main()
