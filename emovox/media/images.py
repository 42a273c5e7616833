"""Grid frames that are files already, as in the tree of dense frames; hard cuts between frames."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from emovox.errors import TrackError
from emovox.files import regular
from emovox.limits import MAX_PICTURE
from emovox.media.video import GridFrame, VideoTrack
from emovox.paths import error_name

FRAME_NAME = re.compile(r"([0-9]+)\.jpe?g", re.IGNORECASE)
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


class ImageTrack(VideoTrack):
    """The numbered JPEGs of one folder, one per grid point, in the order of their numbers.

    The first number is 1, or 0 if there is such a file; a missing number is a gap. Start and end
    are not used; attributes and errors are those of `VideoTrack`.
    """

    def __iter__(self) -> Iterator[GridFrame]:
        numbered = self._numbered()
        first = 0 if 0 in numbered else 1
        for number in sorted(numbered):
            self.deadline.check()
            index = number - first
            image = _read(numbered[number])
            self.num_decoded += 1
            self.num_expected = index + 1
            self.duration = self.end_time = self.num_expected * self.step
            yield GridFrame(index, index * self.step, index * self.step, image)

    def _numbered(self) -> dict[int, Path]:
        try:
            paths = sorted(self.path.iterdir())
        except OSError as error:
            raise TrackError("open", error_name(error), error.strerror or "") from error
        numbered: dict[int, Path] = {}
        for path in paths:
            if match := FRAME_NAME.fullmatch(path.name):
                other = numbered.setdefault(int(match[1]), path)
                if other is not path:
                    message = f"{other.name} and {path.name} have the same number"
                    raise TrackError("open", "DuplicateFrame", message)
        if not numbered:
            raise TrackError("open", "NoFrames", "the folder holds no numbered JPEG")
        return numbered


def _read(path: Path) -> np.ndarray:
    """Read a JPEG as uint8 `[H, W, 3]` RGB."""
    try:
        with regular(path).open("rb") as file:
            return decode(file.read(MAX_PICTURE))
    except OSError as error:
        raise TrackError("decode", error_name(error), f"{path.name}: {error.strerror}") from error
    except ValueError as error:
        raise TrackError("decode", "InvalidData", f"{path.name}: {error}") from error


def decode(data: bytes, kind: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Decode an image file, by default to uint8 `[H, W, 3]` RGB; ValueError if it is damaged."""
    if data.startswith(JPEG_START) and JPEG_END not in data:  # OpenCV fills the rest with grey
        raise ValueError("ends inside the picture")
    with contextlib.suppress(cv2.error):  # empty, or more pixels than OpenCV allows
        image = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
        if image is not None:
            return image
    raise ValueError("not an image, or too large")


CUT = 0.75  # dissimilarity of two shots; measured by tests/benchmarks/shot_cuts.py
BLACK = 0.1  # brightness of the bars around a picture, as a fraction of the brightest pixel
THUMBNAIL, SIDE = 48, 24  # pixels; before bars are removed, and after
BLOCK, REACH = 6, 4  # pixels of SIDE; REACH is the largest motion between two pictures
MAX_RESIDUAL = 0.4  # of a block; limits the effect of a hand or a subtitle
SAME = 0.12  # residual of pictures that need no closer look
MIN_CONTRAST = 2.0  # standard deviation of brightness; flatter pictures show nothing


def number_shots(frames: Iterable[GridFrame]) -> Iterator[tuple[GridFrame, int]]:
    """Yield the frames of a track, each with the number of its shot, from 0.

    A shot begins with a frame that differs from the one before it, unless the next frame continues
    the old shot: a single odd picture, such as a flash, does not end it, nor does a blank one. At
    most one frame is held back.
    """
    shot = 0
    last: np.ndarray | None = None  # picture of the shot
    odd: tuple[GridFrame, np.ndarray] | None = None  # the frame after it, if it differs
    for frame in frames:
        small = thumbnail(frame.image)
        if _brightness(small)[1] < MIN_CONTRAST:  # compare the next frame with the one before this
            if last is None:
                yield frame, shot
                continue
            small = last if odd is None else odd[1]
        differs = last is not None and dissimilarity(last, small) > CUT
        if odd is not None:
            if differs:
                shot, last = shot + 1, odd[1]
                differs = dissimilarity(last, small) > CUT
            yield odd[0], shot
            odd = None
        if differs:
            odd = frame, small
        else:
            last = small
            yield frame, shot
    if odd is not None:
        yield odd[0], shot + 1


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """Reduce a picture to `[THUMBNAIL, THUMBNAIL, 3]`, whatever its sides."""
    twice = cv2.resize(picture, (2 * THUMBNAIL, 2 * THUMBNAIL))  # bilinear: leaves out most pixels
    return cv2.resize(twice, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def dissimilarity(before: np.ndarray, after: np.ndarray) -> float:
    """Compare two thumbnails: 0 for the same picture, about 1 for two scenes.

    Blocks of one are searched near their places in the other, at equal brightness and contrast.
    The residual is relative to that of the mirrored and the inverted picture, which have the same
    colours and textures but show something else.
    """
    inside = _without_bars(before, after)
    before, after = (
        cv2.resize(p[inside], (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        for p in (before, after)
    )
    a, b = _standardise(before, before), _standardise(after, after)
    if np.minimum((a - b) ** 2, MAX_RESIDUAL).mean() < SAME:
        return 0.0
    unchanged = _standardise(after, before)  # a subtitle changes mean and contrast, not the light
    residual, as_before, mirrored, inverted = _residuals(a, b, unchanged, b[:, ::-1], b[::-1])
    if min(residual, as_before) < SAME:
        return 0.0
    return 2 * min(residual, *_residuals(b, a)) / (mirrored + inverted)


def _without_bars(*pictures: np.ndarray) -> tuple[slice, slice]:
    grey = np.maximum(*(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures))
    rows, columns = (np.flatnonzero(grey.max(axis) >= BLACK * grey.max()) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _standardise(picture: np.ndarray, light: np.ndarray) -> np.ndarray:
    mean, contrast = _brightness(light)
    return (picture - np.float32(mean)) / np.float32(max(contrast, MIN_CONTRAST))


def _brightness(picture: np.ndarray) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    return float(mean[0, 0]), float(deviation[0, 0])


def _residuals(a: np.ndarray, *others: np.ndarray) -> list[float]:
    """Return the mean squared difference of each picture's blocks to the best places in `a`."""
    padded = cv2.copyMakeBorder(a, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
    rows = padded.reshape(len(padded), -1)  # colours side by side
    places = sliding_window_view(rows, (BLOCK, 3 * BLOCK))[:, ::3]
    reach, starts, total = 2 * REACH + 1, range(0, SIDE, BLOCK), np.zeros(len(others))
    for y, x in product(starts, starts):
        near = places[y : y + reach, x : x + reach].reshape(reach**2, -1)
        blocks = np.stack([o[y : y + BLOCK, x : x + BLOCK].ravel() for o in others], axis=1)
        squares = np.einsum("ij,ij->i", near, near)[:, None] - 2 * (near @ blocks)
        least = (squares.min(axis=0) + (blocks**2).sum(axis=0)) / len(blocks)
        total += np.clip(least, 0, MAX_RESIDUAL)
    return (total / len(starts) ** 2).tolist()
