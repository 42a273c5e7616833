"""Face detection by MTCNN (Zhang et al., 2016), through facenet-pytorch."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from emovox.media.faces import Box

MAX_SIDE = 640  # pixels; larger frames are reduced for detection
MIN_FACE = 40  # pixels in the reduced frame; faces of two thirds of it are found too
WINDOW = 12  # pixels of MTCNN's smallest window, which a face of `MIN_FACE` is reduced to
MIN_SCORE = 0.9


class Mtcnn:
    """A `Detector`. Its networks are in the wheel of facenet-pytorch: nothing is downloaded.

    `min_face`, in pixels of the frame, replaces `MIN_FACE` pixels of a frame of `MAX_SIDE`.
    """

    def __init__(self, device: torch.device, min_face: int | None = None) -> None:
        from facenet_pytorch import MTCNN

        self._min_face = min_face
        self._smallest = min(MIN_FACE, min_face or MIN_FACE)
        self._net = MTCNN(keep_all=True, min_face_size=self._smallest, device=device)
        if device.type == "cpu":  # 1.4 times as fast, with the same boxes
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
