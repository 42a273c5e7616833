"""Fakes of every seam, and real video clips whose frames contain their number.

For tests of emovox and of code that builds on it. Nothing in this module loads torch.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emovox.emotions import EMOTIONS
from emovox.teacher import Teacher

if TYPE_CHECKING:
    from emovox.labelling.plan import ShardJob, ShardReport
    from emovox.media.faces import Box, Detector

CODE_BITS = 12  # numbers of coded frames are below 4096


class FakeTeacher:
    """A `Teacher` without a network: its outputs are the mean red values of strips of a face.

    Its embedding is the mean red, green and blue of the face.

    Attributes:
        emotions, values: names of the outputs, one strip each; the published eight by default.
        input_size: side of the crops in pixels.
        num_crops: number of crops so far.

    Example:
        >>> teacher = FakeTeacher()
        >>> teacher(np.full((2, 16, 16, 3), 7, np.uint8))[0].tolist(), teacher.num_crops
        ([7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0], 2)
    """

    name = "fake"
    sha256 = "0" * 64
    batch_size, embedding_size, temperature = 64, 3, 1.0

    def __init__(
        self, input_size: int = 16, emotions: Sequence[str] = EMOTIONS, values: Sequence[str] = ()
    ) -> None:
        self.emotions, self.values = tuple(emotions), tuple(values)
        self.input_size = input_size
        self.num_crops = 0

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.num_crops += len(crops)
        num_outputs = len(self.emotions) + len(self.values)
        rows = np.array_split(crops[..., 0].astype(np.float32), num_outputs, axis=1)
        return np.stack([part.mean(axis=(1, 2)) for part in rows], axis=1)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return embeddings, float32 `[N, 3]`."""
        return crops.astype(np.float32).mean(axis=(1, 2))

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        """Compute all outputs as `TorchTeacher.launch` does; the function returns them."""
        crops = np.concatenate(parts)
        outputs = np.concatenate([self(crops), self.embed(crops)], axis=1)
        return lambda: outputs


class FakeDetector:
    """A `Detector` that returns the same boxes for every frame.

    Attributes:
        boxes: boxes of a frame; one of 40 x 40 pixels by default.

    Example:
        >>> FakeDetector()([coded_frame(0)])
        [[Box(x=10, y=10, w=40, h=40, score=0.99)]]
    """

    def __init__(self, boxes: "Sequence[Box] | None" = None) -> None:
        from emovox.media.faces import Box

        self.boxes = [Box(10, 10, 40, 40, 0.99)] if boxes is None else list(boxes)

    def __call__(self, frames: Sequence[np.ndarray]) -> "list[list[Box]]":
        return [self.boxes for _ in frames]


class InlineEngine:
    """An `Engine` that runs shards one after another in this process.

    Attributes:
        teacher: used instead of the teacher of the build; it has the same outputs.
        detector: detector of faces, for a corpus without boxes; a `FakeDetector` by default.
        num_shards: number of shards so far.

    Example:
        >>> import emovox
        >>> clip = write_clip("talks/ann/talk.mp4", 30)
        >>> engine = InlineEngine(FakeTeacher())
        >>> emovox.build_dataset(layout="folder", root="talks", out="labelled", engine=engine)
        <BuildResult labelled: 1 tracks, 5 frames, 0 dropped>
        >>> engine.num_shards
        1
    """

    def __init__(self, teacher: Teacher, detector: "Detector | None" = None) -> None:
        self.teacher = teacher
        self.detector = detector or FakeDetector()
        self.num_shards = 0

    def run(self, jobs: "Iterable[ShardJob]") -> "Iterator[ShardReport]":
        """Yield the report of each shard as it finishes."""
        from emovox.labelling.shard import build_shard
        from emovox.labelling.teacher_process import InlineFeed

        for job in jobs:
            self.num_shards += 1
            feed = InlineFeed(self.teacher, embeddings=job.settings.embeddings)
            yield build_shard(job, feed, lambda: self.detector)


def coded_frame(number: int, width: int = 224, height: int = 224) -> np.ndarray:
    """Return a picture uint8 `[H, W, 3]` whose stripes are the binary digits of `number`."""
    bits = np.array([(number >> k) & 1 for k in range(CODE_BITS)])
    stripe = np.minimum(np.arange(width) * CODE_BITS // width, CODE_BITS - 1)
    row = np.where(bits[stripe] == 1, 220, 30).astype(np.uint8)
    return np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2)


def write_clip(
    path: str | os.PathLike[str],
    frames: int | Iterable[np.ndarray],
    *,
    fps: Fraction | float | int = 25,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a real video file and return its path, whose suffix selects the container.

    `frames` are pictures uint8 `[H, W, 3]`, or the number of coded frames; `times` are presentation
    times in seconds, to the millisecond, instead of a constant rate. `options` are those of the
    encoder, `container_options` for example `{"movflags": "faststart"}`.
    """
    import av

    pictures = (coded_frame(i) for i in range(frames)) if isinstance(frames, int) else frames
    rate = Fraction(fps).limit_denominator(1001)
    base = 1 / rate if times is None else Fraction(1, 1000)
    path = Path(path)
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
