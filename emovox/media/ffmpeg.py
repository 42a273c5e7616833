"""Frames of a video that a child process decodes: the ffmpeg program, for the extra `ffmpeg`.

For a video that crashed the decoder in this process. Pixels and times equal those of `VideoTrack`;
if the file has no time for a frame, the estimate may differ by 0.1 ms. The program must be version
5.1 or later; how much damage it detects depends on the version.
"""

import math
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any

import av
import numpy as np

from emovox.errors import TrackError
from emovox.limits import MAX_PIXELS
from emovox.media.containers import HARMLESS, OWN_DATA_ONLY, media_url
from emovox.media.streams import SQUARE_PIXELS
from emovox.media.video import VideoTrack, check_order

AHEAD = 2**32  # ticks added to the times on the way, because NUT cannot hold negative ones

NUT = {"format": "nut", "vcodec": "rawvideo", "fps_mode": "passthrough"}

COMPONENT = re.compile(r"^(\[[^\]]+ @ \w+\] )+")  # of the program that logs a line


def find_program() -> str | None:
    """Return the ffmpeg program on PATH, else that of imageio-ffmpeg.

    None if neither is installed, or if the package ffmpeg-python of the extra `ffmpeg` is missing.
    """
    with suppress(ImportError, RuntimeError):
        import ffmpeg  # noqa: F401

        if found := shutil.which("ffmpeg"):
            return found
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    return None


@dataclass(eq=False)
class FfmpegTrack(VideoTrack):
    """A `VideoTrack` whose pictures a child process decodes, which is killed at the deadline.

    Raises:
        TrackError: while iterating, as `VideoTrack`; also if the program crashes.
    """

    program: str = field(kw_only=True)  # path of the ffmpeg program

    def _picture(self, frame: Any) -> np.ndarray:
        return np.ascontiguousarray(frame.to_ndarray())

    def _decode(self, stream: "av.VideoStream") -> Iterator[tuple[float, Any]]:
        with ExitStack() as files:
            log = files.enter_context(TemporaryFile())
            process = subprocess.Popen(
                self._command(stream), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
            files.enter_context(process)
            files.callback(process.kill)
            timer = threading.Timer(min(self.deadline.left(), threading.TIMEOUT_MAX), process.kill)
            files.callback(timer.cancel)
            timer.start()
            last: float | None = None
            with suppress(av.error.FFmpegError):  # the program's log states the reason
                pictures = files.enter_context(av.open(process.stdout, format="nut"))
                for frame in pictures.decode(video=0):
                    self.deadline.check()
                    moment = float(frame.pts * frame.time_base - AHEAD * stream.time_base)
                    check_order(last, moment)
                    if last is None or moment > last:
                        yield moment, frame
                    last = moment
            self._check(process.wait(), log)

    def _command(self, stream: "av.VideoStream") -> list[str]:
        """Return the command that writes the pictures as NUT, whose times are those of the file."""
        import ffmpeg

        options: dict[str, object] = {
            **OWN_DATA_ONLY,
            "threads": 1,
            "max_pixels": MAX_PIXELS,
            "err_detect:v": "explode",  # fail on a damaged frame instead of concealing the damage
            "copyts": None,  # keep the times of the file
        }
        if stream.container.format.name != "avi":  # AVI has decoding times only
            options["fflags"] = "+igndts"  # ffmpeg would estimate by them
        if self.deadline.seconds is not None:  # CPU seconds; stops a child of a killed parent
            options["timelimit"] = math.ceil(self.deadline.seconds) + 1
        command = (
            ffmpeg.input("INPUT", **options)[str(stream.index)]
            .filter("scale", SQUARE_PIXELS, "ih", flags="bilinear")  # the conversion of PyAV
            .filter("format", "rgb24")
            .filter("setpts", f"PTS+{AHEAD}")
            .output("pipe:", noautoscale=None, enc_time_base=str(stream.time_base), **NUT)
            .global_args("-nostdin", "-nostats", "-loglevel", "error", "-xerror")
            .compile(cmd=self.program)
        )
        # The name may hold characters that ffmpeg-python cannot take.
        return [media_url(self.path) if word == "INPUT" else word for word in command]

    def _check(self, code: int, log: IO[bytes]) -> None:
        """Raise the first error of the program, which ended with this code, if there is one."""
        self.deadline.check()
        if code < 0:
            raise TrackError("decode", "DecoderDied", "the ffmpeg program crashed")
        log.seek(0)
        for line in log.read().decode(errors="replace").splitlines():
            reason = COMPONENT.sub("", line).replace(media_url(self.path), "file")
            if not reason.startswith(HARMLESS):
                raise TrackError("decode", "InvalidData", reason)
        if code:
            raise TrackError("decode", "Unknown", f"the ffmpeg program ended with {code}")
