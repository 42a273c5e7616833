"""Speed of decoding and cropping frames, compared with a plain PyAV loop.

    python tests/benchmarks/decode_speed.py --clips VOXCELEB2_FOLDER [--copies 4] [--rounds 5]

emovox computes frames, crops and sharpness. The loop decodes every frame with PyAV and converts
every sixth. Both are measured in CPU seconds of one thread on the same clips. The loop is timed as
in PyAV's documentation (`frame.to_ndarray`), and with one converter for all frames, as in emovox.
Only ratios within a round are comparable.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
from av.video.reformatter import VideoReformatter

from emovox.media import faces
from emovox.media.video import VideoTrack


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


def seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.process_time()
    work(*arguments)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder with mp4/<id>/<video>/")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    clips = sorted(arguments.clips.glob("mp4/*/*/*.mp4")) * arguments.copies
    ratios: dict[str, list[float]] = {"to_ndarray": [], "kept converter": []}
    for number in range(arguments.rounds):
        ours = seconds(emovox_loop, clips)
        ratios["to_ndarray"].append(seconds(bare_loop, clips, False) / ours)
        ratios["kept converter"].append(seconds(bare_loop, clips, True) / ours)
        print(f"round {number + 1}: {1000 * ours / len(clips):.1f} ms per clip", flush=True)
    for name, values in ratios.items():
        rounds = ", ".join(f"{value:.2f}" for value in values)
        print(f"speed over the loop with {name}: {rounds}; median {statistics.median(values):.2f}")


if __name__ == "__main__":
    main()
