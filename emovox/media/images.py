"""Grid frames that are files already: the published tree of dense face frames."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

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
            data = file.read(MAX_PICTURE)
    except OSError as error:
        message = f"{path.name}: {error.strerror}"
        raise TrackError("decode", error_name(error), message) from error
    if data.startswith(JPEG_START) and JPEG_END not in data:  # OpenCV fills the rest with grey
        raise TrackError("decode", "Truncated", f"{path.name} ends inside the picture")
    with contextlib.suppress(cv2.error):  # empty, or more pixels than OpenCV allows
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            return image
    raise TrackError("decode", "InvalidData", f"{path.name} is not an image")
