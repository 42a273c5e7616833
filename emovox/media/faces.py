"""Face boxes in a frame, given or detected, and the square crop that the teacher receives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

DENSE_SCALE = 1.6  # side of a dense frame / side of the detected face in it
VOXCELEB2_SCALE = 1.4  # side of a VoxCeleb2 clip / side of the detected face in it
MIN_VISIBLE = 0.25  # fraction of a box that must lie inside the frame

MIN_OVERLAP = 0.2  # intersection over union of a face with the same face one step earlier
MAX_LOST = 1.0  # seconds without the followed face before another face is followed


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the frame; `score` of the detector, None for a given box."""

    x: float
    y: float
    w: float
    h: float
    score: float | None = None

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.w * self.h


# From uint8 RGB frames `[H, W, 3]` of one size to the boxes of the faces in each.
Detector = Callable[[Sequence[np.ndarray]], list[list[Box]]]


def dense_box(width: int, height: int) -> Box:
    """Return the face in a dense frame: the central square of side round(0.625 min(H, W)).

    Example:
        >>> dense_box(160, 160)
        Box(x=30, y=30, w=100, h=100, score=None)
    """
    side = int(min(width, height) / DENSE_SCALE + 0.5)  # rounds halves up, unlike round()
    return Box((width - side) // 2, (height - side) // 2, side, side)


def voxceleb2_box(width: int, height: int) -> Box:
    """Return the face in a VoxCeleb2 clip: side min(H, W)/1.4, centred in x, at the top.

    Example:
        >>> voxceleb2_box(224, 224)
        Box(x=32.0, y=0.0, w=160.0, h=160.0, score=None)
    """
    side = min(width, height) / VOXCELEB2_SCALE
    return Box((width - side) / 2, 0.0, side, side)


def square(box: Box) -> Box:
    """Return the square with the same centre, whose side is the longer side of the box."""
    side = max(box.w, box.h)
    return Box(box.x + (box.w - side) / 2, box.y + (box.h - side) / 2, side, side, box.score)


def is_visible(box: Box, width: int, height: int) -> bool:
    """Return True if at least a quarter of a box lies inside a frame."""
    inside = _intersection(box, Box(0.0, 0.0, width, height))
    return inside > 0 and inside >= MIN_VISIBLE * box.area


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """Crop a box, rounded to whole pixels; outside the frame, the nearest edge is repeated."""
    height, width = image.shape[:2]
    left, top = round(box.x), round(box.y)
    right, bottom = max(round(box.x + box.w), left + 1), max(round(box.y + box.h), top + 1)
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return image[top:bottom, left:right]
    rows = np.arange(top, bottom).clip(0, height - 1)
    columns = np.arange(left, right).clip(0, width - 1)
    return image[rows[:, None], columns]


def resize(face: np.ndarray, size: int) -> np.ndarray:
    """Resize a square face to `[size, size, 3]`: area average if larger, bilinear if smaller.

    A face with an even side of at least `2 * size` is halved first. This is several times faster
    than a single step, and closer to the antialiased bilinear filter of the reference code.
    """
    while face.shape[0] >= 2 * size and face.shape[0] % 2 == 0:
        half = face.shape[0] // 2
        face = cv2.resize(face, (half, half), interpolation=cv2.INTER_AREA)
    method = cv2.INTER_AREA if face.shape[0] > size else cv2.INTER_LINEAR
    return cv2.resize(face, (size, size), interpolation=method)


def sharpness(face: np.ndarray) -> float:
    """Return the variance of the Laplacian of the grey face (Pech-Pacheco et al., 2000)."""
    _, deviation = cv2.meanStdDev(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_16S))
    return float(deviation[0, 0] ** 2)


def overlap(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes."""
    both = _intersection(a, b)
    return both / (a.area + b.area - both) if both else 0.0


def _intersection(a: Box, b: Box) -> float:
    x = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    y = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    return x * y if x > 0 and y > 0 else 0.0


class Follower:
    """Tracker of the largest face of a clip from one grid frame to the next.

    The followed face is the box that overlaps the last one most. If the face is lost for more than
    a second, the largest face of the next frame is followed.
    """

    def __init__(self) -> None:
        self._box: Box | None = None
        self._time = 0.0

    def __call__(self, boxes: list[Box], time: float) -> Box | None:
        """Return the box of the followed face in a frame at `time` seconds; None if it is lost."""
        if not boxes:
            return None
        if self._box is None or time - self._time > MAX_LOST:
            chosen = max(boxes, key=lambda box: box.area)
        else:
            last = self._box
            chosen = max(boxes, key=lambda box: overlap(box, last))
            if overlap(chosen, last) < MIN_OVERLAP:
                return None
        self._box, self._time = chosen, time
        return chosen


MAX_SIDE = 640  # pixels; larger frames are reduced for detection
MIN_FACE = 40  # pixels in the reduced frame; faces of two thirds of it are found too
WINDOW = 12  # pixels of MTCNN's smallest window, which a face of `MIN_FACE` is reduced to
MIN_SCORE = 0.9


class Mtcnn:
    """A `Detector`. Its networks are in the wheel of facenet-pytorch: nothing is downloaded.

    `min_face`, in pixels of the frame, replaces `MIN_FACE` pixels of a frame of `MAX_SIDE`.
    """

    def __init__(self, device: str, min_face: int | None = None) -> None:
        import torch
        from facenet_pytorch import MTCNN

        self._min_face = min_face
        self._smallest = min(MIN_FACE, min_face or MIN_FACE)
        self._net = MTCNN(keep_all=True, min_face_size=self._smallest, device=device)
        if device == "cpu":  # 1.3 times as fast, with the same boxes
            self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[Box]]:
        height, width = frames[0].shape[:2]
        unlimited = MIN_FACE / self._min_face if self._min_face else MAX_SIDE / max(height, width)
        scale = min(1.0, unlimited)
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            frames = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames]
        if min(frames[0].shape[:2]) * (WINDOW / self._smallest) < WINDOW:  # MTCNN would fail
            return [[] for _ in frames]
        corners, scores = self._net.detect(list(frames))
        return [_boxes(c, s, scale) for c, s in zip(corners, scores, strict=True)]


def _boxes(corners: object, scores: object, scale: float) -> list[Box]:
    # Frames without a face are None; numpy 2 gets the others as object arrays.
    if corners is None or scores is None:
        return []
    sides = (np.asarray(corners, np.float64) / scale).tolist()
    found = zip(sides, np.asarray(scores, np.float64).tolist(), strict=True)
    return [
        Box(left, top, right - left, bottom - top, score)
        for (left, top, right, bottom), score in found
        if score >= MIN_SCORE and right > left and bottom > top
    ]
