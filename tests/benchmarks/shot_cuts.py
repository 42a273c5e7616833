"""Recall and false alarms of the detection of cuts, and its time per picture.

    python tests/benchmarks/shot_cuts.py --clips VOXCELEB2_FOLDER

The clips show one shot each (checked by eye). Two clips of different persons, or of different
videos of a person, joined at a random picture, make one cut; each clip by itself makes none. The
changes are applied to whole tracks, or to every picture by itself where they say so.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np

from emovox.media.images import dissimilarity, number_shots, thumbnail
from emovox.media.video import GridFrame, VideoTrack

Pictures = list[np.ndarray]
RNG = np.random.default_rng(0)


def clipped(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


def noisy(picture: np.ndarray) -> np.ndarray:
    return clipped(picture + RNG.normal(0, 25, picture.shape))


def dark(picture: np.ndarray) -> np.ndarray:
    return clipped(picture * 0.12 + RNG.normal(0, 3, picture.shape))


def blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), 8)


def grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def barred(picture: np.ndarray) -> np.ndarray:
    frame = np.zeros((360, 640, 3), np.uint8)
    frame[68:292, 208:432] = picture
    return frame


def full_hd(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (1920, 1080), interpolation=cv2.INTER_LINEAR)


def jpeg(picture: np.ndarray) -> np.ndarray:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 8])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def shaken(picture: np.ndarray) -> np.ndarray:
    x, y = RNG.integers(-12, 13, 2)
    shift = np.array([[1.0, 0, x], [0, 1, y]])
    return cv2.warpAffine(picture, shift, (224, 224), borderMode=cv2.BORDER_REFLECT)


def zoomed(picture: np.ndarray) -> np.ndarray:
    zoom = RNG.uniform(1.0, 1.25)
    return cv2.warpAffine(picture, cv2.getRotationMatrix2D((112, 112), 0, zoom), (224, 224))


def exposed(picture: np.ndarray) -> np.ndarray:
    return clipped(picture * RNG.choice([0.5, 0.7, 1.0, 1.4, 1.8]))


def subtitled(picture: np.ndarray) -> np.ndarray:
    shown = picture.copy()
    if RNG.random() < 0.5:
        shown[170:215, 10:214] = 0
        text = "".join(RNG.choice(list("ABCDEFGH "), 11))
        cv2.putText(shown, text, (14, 205), 0, 1, (255, 255, 0), 2)
    return shown


def hand(picture: np.ndarray) -> np.ndarray:
    shown = picture.copy()
    if RNG.random() < 0.5:
        centre = (int(RNG.integers(40, 180)), int(RNG.integers(160, 220)))
        cv2.ellipse(shown, centre, (38, 60), 20, 0, 360, (205, 150, 120), -1)
    return shown


def flashed(pictures: Pictures) -> Pictures:
    """Put one white, black or foreign picture into a track."""
    odd = [np.full_like(pictures[0], 255), np.zeros_like(pictures[0]), pictures[0][::-1, ::-1]]
    place = int(RNG.integers(1, len(pictures) - 1))
    return [*pictures[:place], odd[RNG.integers(3)], *pictures[place + 1 :]]


def each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Pictures], Pictures]:
    return lambda pictures: [change(picture) for picture in pictures]


# Changes that keep a cut a cut, and changes inside a shot.
WHOLE = {
    "as they are": list,
    "noise": each(noisy),
    "a tenth of the light": each(dark),
    "blurred": each(blurred),
    "grey": each(grey),
    "bars": each(barred),
    "JPEG of quality 8": each(jpeg),
    "1080p": each(full_hd),
    "every second picture": lambda pictures: pictures[::2],
    "every fourth picture": lambda pictures: pictures[::4],
}
INSIDE = {
    "shake, each picture": each(shaken),
    "zoom, each picture": each(zoomed),
    "exposure, each picture": each(exposed),
    "subtitles come and go": each(subtitled),
    "hands come and go": each(hand),
    "one odd picture": flashed,
}


def shots_of(pictures: Pictures) -> list[int]:
    frames = (GridFrame(k, 0.24 * k, 0.24 * k, picture) for k, picture in enumerate(pictures))
    return [shot for _, shot in number_shots(frames)]


def joined(clips: list[Pictures]) -> Iterator[tuple[Pictures, Pictures]]:
    for first, second in permutations(range(len(clips)), 2):
        a, b = clips[first], clips[second]
        yield a[int(RNG.integers(0, len(a) - 8)) :][:16], b[int(RNG.integers(0, len(b) - 8)) :][:16]


def milliseconds(work: Callable[[], object], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        work()
    return 1000 * (time.process_time() - started) / times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder with mp4/<id>/<video>/")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    paths = sorted(arguments.clips.glob("mp4/*/*/*.mp4"))
    clips = [[frame.image for frame in VideoTrack(path, 0.24)] for path in paths]
    print("| | cuts found | false cuts |\n|---|---:|---:|")
    for name, change in (WHOLE | INSIDE).items():
        found = num_cuts = false = pairs = 0
        for _ in range(arguments.rounds):
            for clip in clips:
                changed = change(clip)
                false += shots_of(changed)[-1]
                pairs += len(changed) - 1
            for a, b in joined(clips) if name in WHOLE else ():
                a, b = change(a), change(b)
                shots = shots_of(a + b)
                is_cut = shots[len(a)] > shots[len(a) - 1]
                found, num_cuts = found + is_cut, num_cuts + 1
                false += shots[-1] - is_cut
                pairs += len(a + b) - 2
        cuts = f"{found} of {num_cuts}" if num_cuts else ""
        print(f"| {name} | {cuts} | {false} of {pairs:,} pairs |", flush=True)
    for name, size in (("224 x 224", (224, 224)), ("1920 x 1080", (1920, 1080))):
        pictures = [cv2.resize(picture, size) for clip in clips for picture in clip[:10]]
        small = [thumbnail(picture) for picture in pictures]
        reduce = milliseconds(lambda: [thumbnail(p) for p in pictures], 3) / len(pictures)  # noqa: B023
        compare = milliseconds(lambda: [*map(dissimilarity, small, small[1:])], 3) / len(small)  # noqa: B023
        print(f"{name}: {reduce:.2f} ms to reduce a picture, {compare:.2f} ms to compare two")


if __name__ == "__main__":
    main()
