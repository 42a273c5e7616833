"""How fast a build is: against a bare decode loop, and against the reference way.

    python tests/benchmarks/build_speed.py --clips VOXCELEB2_FOLDER [--copies 20] [--rounds 3]

All figures are CPU or wall seconds of one run on the same clips; only their ratios mean something.

decode    `emovox`'s frames, crops and sharpness, against a loop that decodes every frame with PyAV
          and converts every sixth, one core each. The loop is timed as PyAV's documentation writes
          it (`frame.to_ndarray`), and with a converter kept between frames, as emovox keeps one.
build     `emovox build-dataset` as a user runs it, start and finish included, against the way of
          the reference code: one `ffmpeg` process per clip writes JPEGs, which are read back,
          cropped and given to the same teacher in batches. The reference is run as it is written,
          clip after clip with both programs free to use every core, and again with one process
          per core working on its share of the clips.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import joblib
import numpy as np
from av.video.reformatter import VideoReformatter

from emovox.media import faces
from emovox.media.video import VideoTrack
from emovox.teacher import load_teacher


def bare_loop(clips: list[Path], keep_converter: bool) -> None:
    converter = VideoReformatter()
    for clip in clips:
        with av.open(str(clip)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for i, frame in enumerate(container.decode(video=0)):
                if i % 6 == 0 and keep_converter:
                    converter.reformat(frame, format="rgb24").to_ndarray()
                elif i % 6 == 0:
                    frame.to_ndarray(format="rgb24")


def emovox_loop(clips: list[Path]) -> None:
    for clip in clips:
        for frame in VideoTrack(clip, 0.24):
            face = faces.cut(frame.image, faces.voxceleb2_box(224, 224))
            faces.sharpness(face)
            faces.resize(face, 48)


def reference(clips: list[Path], threads: int) -> int:
    """The reference way over some clips, in this process; returns the number of rows."""
    import imageio_ffmpeg
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    teacher = load_teacher("compact", "cpu")
    num_rows = 0
    for clip in clips:
        with tempfile.TemporaryDirectory() as folder:
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(clip)]
            command += ["-vf", "select=not(mod(n\\,6))", "-fps_mode", "passthrough", "-q:v", "2"]
            command += ["-threads", str(threads), f"{folder}/%05d.jpg"]
            subprocess.run(command, check=True)
            crops = []
            for path in sorted(Path(folder).iterdir()):
                image = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))
                face = faces.cut(image, faces.voxceleb2_box(224, 224))
                crops.append(faces.resize(face, teacher.input_size))
            num_rows += len(teacher(np.stack(crops)))
    return num_rows


def reference_in_parallel(clips: list[Path]) -> int:
    cores = joblib.cpu_count()
    shares = [clips[i::cores] for i in range(cores)]
    return sum(joblib.Parallel(n_jobs=cores)(joblib.delayed(reference)(s, 1) for s in shares))


def build(root: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    command += ["--root", str(root), "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def seconds(clock: Callable[[], float], work: Callable[..., object], *arguments: object) -> float:
    started = clock()
    work(*arguments)
    return clock() - started


def copy_clips(source: Path, root: Path, copies: int) -> list[Path]:
    """The clips many times over, under other identities."""
    paths = []
    for clip in sorted(source.glob("mp4/*/*/*.mp4")):
        for k in range(copies):
            identity, video, name = clip.relative_to(source / "mp4").parts
            target = root / "mp4" / f"{identity}c{k:03d}" / video / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip, target)
            paths.append(target)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder with mp4/<id>/<video>/")
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "corpus", Path(folder) / "out"
        clips = copy_clips(arguments.clips, root, arguments.copies)
        few = clips[:: max(1, len(clips) // 40)]
        ratios: dict[str, list[float]] = {}

        def record(name: str, ratio: float) -> None:
            ratios.setdefault(name, []).append(ratio)
            print(f"  {name}: {ratio:.2f}", flush=True)

        for number in range(arguments.rounds):
            print(f"round {number + 1}: {len(clips)} clips", flush=True)
            ours = seconds(time.process_time, emovox_loop, few)
            plain = seconds(time.process_time, bare_loop, few, False)
            kept = seconds(time.process_time, bare_loop, few, True)
            record("decode + crop per core / plain PyAV loop", plain / ours)
            record("decode + crop per core / loop with a kept converter", kept / ours)
            whole = seconds(time.perf_counter, build, root, out)
            print(f"  build: {whole:.1f} s, {len(clips) / whole:.1f} clips/s", flush=True)
            alone = seconds(time.perf_counter, reference, clips, joblib.cpu_count())
            record("build / reference way, clip after clip", alone / whole)
            shared = seconds(time.perf_counter, reference_in_parallel, clips)
            record("build / reference way, a process per core", shared / whole)
        print("\nmedian of the rounds, speed of emovox over that of the other:")
        for name, values in ratios.items():
            print(f"  {name}: {statistics.median(values):.2f}")


if __name__ == "__main__":
    main()
