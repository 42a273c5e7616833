"""The smallest face that is found in 1080p, and the time of the search, by `--min-face`.

    python tests/benchmarks/min_face.py CLIPS

CLIPS is a folder of VoxCeleb2 clips. The face of the first picture of each clip is pasted into a
picture of 1920 x 1080 pixels at several heights, from forehead to chin. A face counts as found if a
detected box overlaps it by half. The times are those of pictures without a face, on one thread,
as multiples of the first row's. The last line compares the order of the networks' weights in memory
on the pictures with faces, in turns.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from emovox.media.faces import Mtcnn, voxceleb2_box
from emovox.media.video import VideoTrack

HEIGHTS = (24, 32, 40, 50, 60, 72, 84, 100)
OPTIONS = (None, 80, 60, 40, 20)
ROUNDS = 3


def background(rng: np.random.Generator) -> np.ndarray:
    """A busy picture of 1920 x 1080 pixels."""
    coarse = rng.integers(40, 200, (27, 48, 3), np.uint8)
    return cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)


def paste(crop: np.ndarray, height: int, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with a crop whose face has this height, and the face's corners."""
    box = voxceleb2_box(crop.shape[1], crop.shape[0])
    scale = height / box.h
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = 500, 900
    pasted = picture.copy()
    pasted[top : top + small.shape[0], left : left + small.shape[1]] = small
    x, y = left + box.x * scale, top + box.y * scale
    return pasted, np.array([x, y, x + box.w * scale, y + box.h * scale])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection of two boxes over the smaller of them."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(np.prod(np.maximum(sides, 0)) / min(areas))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    paths = sorted(parser.parse_args().clips.rglob("*.mp4"))
    torch.set_num_threads(1)
    crops = [next(iter(VideoTrack(path, 0.24))).image for path in paths]
    empty = background(np.random.default_rng(0))
    print("--min-face  faces found, by height in pixels" + " " * 29 + "time")
    print(" " * 10 + "".join(f"{height:>8}" for height in HEIGHTS))
    first = 0.0
    for option in OPTIONS:
        detector, counts = Mtcnn("cpu", option), []
        for height in HEIGHTS:
            pasted = [paste(crop, height, empty) for crop in crops]
            found = (detector([picture])[0] for picture, _ in pasted)
            hits = (
                any(overlap(np.array([b.x, b.y, b.x + b.w, b.y + b.h]), face) > 0.5 for b in boxes)
                for boxes, (_, face) in zip(found, pasted, strict=True)
            )
            counts.append(sum(hits))
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            detector([empty])
            times.append(time.perf_counter() - start)
        first = first or min(times)
        shown = "".join(f"{count:>8}" for count in counts)
        print(f"{option or 'default':<10}{shown}{min(times) / first:>8.1f}")
    print(f"channels first / last: {', '.join(map('{:.2f}'.format, compare_orders(crops, empty)))}")


def compare_orders(crops: list[np.ndarray], empty: np.ndarray) -> list[float]:
    """Return the time of MTCNN with the other order of its weights over its time, per round."""
    pictures = [paste(crop, 300, empty)[0] for crop in crops]
    last, first = Mtcnn("cpu"), Mtcnn("cpu")
    first._net.to(memory_format=torch.contiguous_format)
    ratios = []
    for _ in range(ROUNDS + 1):
        times = []
        for detector in (first, last):
            start = time.process_time()
            detector(pictures)
            times.append(time.process_time() - start)
        ratios.append(times[0] / times[1])
    return ratios[1:]  # the first warms up


if __name__ == "__main__":
    main()
