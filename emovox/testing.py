"""Stand-ins for every seam, and clips whose frames say which one they are.

For tests of emovox and of code that builds on it: nothing here loads torch.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from emovox.build.shard import ShardJob, ShardReport, build_shard
from emovox.emotions import EMOTIONS
from emovox.media.faces import Box, Detector
from emovox.teacher import Teacher

CODE_BITS = 12  # a coded frame can hold numbers up to 4095


class FakeTeacher:
    """A `Teacher` without a network: its logits are the mean red of eight rows of the face."""

    name = "fake"
    emotions = EMOTIONS
    sha256 = "0" * 64

    def __init__(self, input_size: int = 16) -> None:
        self.input_size = input_size
        self.num_crops = 0

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.num_crops += len(crops)
        rows = np.array_split(crops[..., 0].astype(np.float32), len(EMOTIONS), axis=1)
        return np.stack([part.mean(axis=(1, 2)) for part in rows], axis=1)


class FakeDetector:
    """A `Detector` that finds the same boxes in every frame."""

    def __init__(self, boxes: Sequence[Box] = (Box(10, 10, 40, 40, 0.99),)) -> None:
        self.boxes = list(boxes)

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[Box]]:
        return [self.boxes for _ in frames]


class InlineEngine:
    """An `Engine` that runs shards one after another in this process."""

    def __init__(self, teacher: Teacher, detector: Detector | None = None) -> None:
        self.teacher = teacher
        self.detector = detector or FakeDetector()
        self.num_shards = 0

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        for job in jobs:
            self.num_shards += 1
            yield build_shard(job, self.teacher, lambda: self.detector)


def coded_frame(number: int, width: int = 224, height: int = 224) -> np.ndarray:
    """A picture uint8 `[H, W, 3]` of stripes that spell `number` in binary."""
    bits = np.array([(number >> k) & 1 for k in range(CODE_BITS)])
    stripe = np.minimum(np.arange(width) * CODE_BITS // width, CODE_BITS - 1)
    row = np.where(bits[stripe] == 1, 220, 30).astype(np.uint8)
    return np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2)


def read_code(image: np.ndarray) -> int:
    """The number that a decoded `coded_frame` spells."""
    centres = (np.arange(CODE_BITS) + 0.5) * image.shape[1] / CODE_BITS
    levels = image[image.shape[0] // 2, centres.astype(int), 0]
    return int(sum(1 << k for k, level in enumerate(levels) if level > 125))


def write_clip(
    path: Path,
    frames: int | Iterable[np.ndarray],
    *,
    fps: Fraction | float | int = 25,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a real video file.

    Args:
        path: its ending names the container; folders are made.
        frames: pictures uint8 `[H, W, 3]`, or how many coded ones.
        fps: frame rate.
        times: presentation times in seconds, to the millisecond, instead of a constant rate.
        codec: name of the encoder.
        options: of the encoder.
        container_options: of the container, such as `{"movflags": "faststart"}`.
    """
    pictures = (coded_frame(i) for i in range(frames)) if isinstance(frames, int) else frames
    rate = Fraction(fps).limit_denominator(1001)
    base = 1 / rate if times is None else Fraction(1, 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = None
        for i, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p" if codec != "mjpeg" else "yuvj420p"
                stream.codec_context.time_base = base
                stream.codec_context.thread_count = 1
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = base
            frame.pts = i if times is None else round(times[i] * 1000)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
    return path
