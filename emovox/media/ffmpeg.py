"""Frames of a video that a child process decodes: the ffmpeg program, for the extra `ffmpeg`.

For a video that crashed the decoder in this process. Pixels and times equal those of `VideoTrack`;
if the file has no time for a frame, the estimate may differ by 0.1 ms. The program must be version
5.1 or later; how much damage it detects depends on the version.
"""

import math
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from emovox.errors import TrackError
from emovox.media.video import (
    HARMLESS,
    MAX_PIXELS,
    SEEK_MARGIN,
    Deadline,
    VideoTrack,
    check_order,
    upright,
)

# Lines of the program's log. The filter showinfo, used twice, describes every frame.
SHOWINFO = re.compile(r"\[Parsed_showinfo_(\d+) @ \w+\] \[info\] (.*)")
CONFIG = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
FRAME = re.compile(r"n: *\d+ pts: *(-?\d+|NOPTS) .* s:(\d+)x(\d+) ")
FRAME_END = "color_range:"
FRAME_ROTATION = re.compile(r" +side data - .*?displaymatrix: rotation of (-?[\d.]+)")
INPUT = re.compile(r"\[info\] Input #0, (.+), from '")
STREAM = re.compile(r"\[info\] +Stream #0:(\d+)\S*: (\w+)")
ROTATION = re.compile(r"\[info\] +(?:displaymatrix|Display Matrix): rotation of (-?[\d.]+)")
COMPLAINT = re.compile(r"(?:\[([^\]]+?) @ \w+\] )?.*?\[(?:error|fatal|panic)\] (.*)")

# Meaning of a logged error: `(words in it, stage, error)`; an empty stage is the current one.
REASONS = (
    ("matches no streams", "open", "NoVideo"),
    ("Decoder (codec none) not found", "open", "UnknownCodec"),
    ("corrupt decoded frame", "decode", "Corrupt"),
    ("corrupt input packet", "decode", "Truncated"),
    ("partial file", "decode", "Truncated"),
    ("Cannot allocate memory", "", "Memory"),
    ("Invalid data found", "", "InvalidData"),
    ("End of file", "", "EOF"),
)

_Picture = tuple[np.ndarray, float]  # pixels, and the rotation in degrees that makes them upright


def find_program() -> str | None:
    """Return the ffmpeg program on PATH, else that of imageio-ffmpeg.

    None if neither is installed, or if the package ffmpeg-python of the extra `ffmpeg` is missing.
    """
    try:
        import ffmpeg  # noqa: F401
    except ImportError:
        return None
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


@dataclass(eq=False)
class FfmpegTrack(VideoTrack):
    """A `VideoTrack` that a child process decodes, which is killed at the deadline.

    Attributes:
        program: path of the ffmpeg program; the others are those of `VideoTrack`.

    Raises:
        TrackError: while iterating, as `VideoTrack`; also if the program crashes.
    """

    program: str = field(kw_only=True)

    def _frames_from_start(
        self, files: ExitStack
    ) -> tuple[float, Iterator[tuple[float, _Picture]]]:
        self.check_kind()
        with self.path.open("rb") as file:
            is_avi = file.read(12)[8:] == b"AVI "
        begin = (self.start or 0.0) - self.step - SEEK_MARGIN
        command = _command(self.program, self.path, begin, is_avi, self.deadline)
        child = _Child(command, self.path, self.deadline)
        files.callback(child.end)
        first = next(child.shown(), None)  # of all frames, chosen or not
        if first is None:
            return 0.0, iter(())
        self._frame_seconds = child.frame_seconds
        return first.time or 0.0, self._chosen(child)

    def _chosen(self, child: "_Child") -> Iterator[tuple[float, _Picture]]:
        """Yield `(presentation time in seconds, picture)`, times rising."""
        last: float | None = None
        for shown in child.shown():
            if not shown.is_chosen:
                continue
            pixels = child.pixels(shown)
            self.deadline.check()
            moment = shown.time
            if moment is None:
                moment = 0.0 if last is None else last + self._frame_seconds
            else:
                check_order(last, moment)
            if last is None or moment > last:
                yield moment, (pixels, shown.rotation)
            last = moment

    def _picture(self, frame: _Picture) -> np.ndarray:
        return upright(*frame)


def _command(program: str, path: Path, begin: float, is_avi: bool, deadline: Deadline) -> list[str]:
    """Return the command that logs every frame of a video and writes those from `begin` on."""
    import ffmpeg

    options: dict[str, object] = {
        "threads": 1,
        "max_pixels": MAX_PIXELS,
        "err_detect:v": "explode",  # fail on a damaged frame instead of concealing the damage
        "copyts": None,  # keep the times of the file
        "noautorotate": None,
    }
    if not is_avi:  # AVI has decoding times only; in other files ffmpeg would estimate from them
        options["fflags"] = "+igndts"
    if deadline.seconds is not None:  # CPU seconds; stops a child whose parent was killed
        options["timelimit"] = math.ceil(deadline.seconds) + 1
    chosen = f"gte(t-start_t,{begin:.6f})" if begin > 0 else "1"
    return list(
        ffmpeg.input(f"file:{path}", **options)["v:0"]
        .filter("showinfo", checksum=0)
        .filter("select", chosen)
        .filter("showinfo", checksum=0)
        .filter("scale", flags="bilinear")  # the conversion of PyAV
        .output(
            "pipe:", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", noautoscale=None
        )
        .global_args("-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel", "level+info")
        .compile(cmd=program)
    )


@dataclass(frozen=True)
class _Shown:
    """One frame in the program's log.

    Attributes:
        is_chosen: True for a frame whose pixels follow; False for any decoded frame.
        time: seconds, from the file; None if the file has no time for it.
        width: in pixels, before the rotation.
        height: in pixels, before the rotation.
        rotation: degrees that make the picture upright.
    """

    is_chosen: bool
    time: float | None
    width: int
    height: int
    rotation: float


class _Child:
    """The running program: its log, which describes the frames, and their pixels, in parallel.

    Attributes:
        frame_seconds: time between two frames at the frame rate of the video; 0.0 if unknown.
    """

    def __init__(self, command: list[str], path: Path, deadline: Deadline) -> None:
        self.frame_seconds = 0.0
        self._path, self._deadline = path, deadline
        self._time_base = Fraction(1)
        self._reader = ""  # FFmpeg's name of the container
        self._stream = ""  # number of the video stream
        self._rotation = 0.0
        self._complaints: list[tuple[str, str]] = []
        self._shown: queue.SimpleQueue[_Shown | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._stdout: IO[bytes] = self._process.stdout
        self._thread = threading.Thread(
            target=self._read_log, args=(self._process.stderr,), daemon=True
        )
        self._thread.start()
        left = min(deadline.left(), threading.TIMEOUT_MAX)
        self._timer = threading.Timer(left, self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Kill the program if it still runs, and close its pipes."""
        self._timer.cancel()
        with self._process:
            self._process.kill()
            self._thread.join()

    def shown(self) -> Iterator[_Shown]:
        """Yield the description of each frame to come.

        Raises:
            TrackError: at the end, if the program failed or logged an error.
        """
        while (shown := self._shown.get()) is not None:
            yield shown
        if (error := self._error()) is not None:
            raise error

    def pixels(self, shown: _Shown) -> np.ndarray:
        """Return the pixels uint8 `[H, W, 3]` of the frame that was described last."""
        size = shown.width * shown.height * 3
        data = self._stdout.read(size)
        if len(data) < size:
            while self._shown.get() is not None:
                pass
            raise self._error() or TrackError("decode", "Truncated", "the last frame is incomplete")
        return np.frombuffer(data, np.uint8).reshape(shown.height, shown.width, 3)

    def _read_log(self, log: IO[bytes]) -> None:
        in_stream = False
        frame: _Shown | None = None
        for line in (raw.decode(errors="replace").rstrip() for raw in log):
            if match := SHOWINFO.match(line):
                frame = self._read_frame(int(match[1]) > 0, match[2], frame)
            elif match := COMPLAINT.match(line):
                message = match[2].replace(f"file:{self._path}", "file")
                self._complaints.append((match[1] or "", message))
            elif match := INPUT.match(line):
                self._reader = match[1]
            elif match := STREAM.match(line):
                in_stream = match[2] == "Video" and not self._stream
                self._stream = match[1] if in_stream else self._stream
            elif in_stream and (match := ROTATION.match(line)):
                self._rotation = float(match[1])
        self._shown.put(None)

    def _read_frame(self, is_chosen: bool, text: str, frame: _Shown | None) -> _Shown | None:
        """Read a line about a frame.

        Args:
            is_chosen: the line describes a frame whose pixels follow.
            text: the line.
            frame: the frame as described so far.

        Returns:
            The frame as described now; None if it is complete.
        """
        if match := FRAME.match(text):
            time = None if match[1] == "NOPTS" else float(int(match[1]) * self._time_base)
            size = int(match[2]), int(match[3])
            return _Shown(is_chosen, time, *size, self._rotation)
        if frame is not None and (match := FRAME_ROTATION.match(text)):
            return replace(frame, rotation=float(match[1]))
        if frame is not None and text.startswith(FRAME_END):
            self._shown.put(frame)
            return None
        if match := CONFIG.match(text):
            self._time_base = Fraction(int(match[1]), int(match[2]))
            self.frame_seconds = int(match[4]) / int(match[3]) if int(match[3]) else 0.0
        return frame

    def _error(self) -> TrackError | None:
        """Return the error of the program after its end; None if it succeeded."""
        code = self._process.wait()
        if not self._deadline.left():
            return self._deadline.error()
        if code < 0:
            return TrackError("decode", "DecoderDied", "the ffmpeg program crashed")
        complaints = [m for who, m in self._complaints if code or self._concerns_video(who, m)]
        if not complaints and code:
            return TrackError("decode", "Unknown", f"the ffmpeg program ended with {code}")
        if not complaints:
            return None
        stage = "decode" if self._reader else "open"
        for words, known_stage, name in REASONS:
            if any(words in message for message in complaints):
                return TrackError(known_stage or stage, name, words)
        return TrackError(stage, "InvalidData" if code else "BadHeader", complaints[0])

    def _concerns_video(self, who: str, message: str) -> bool:
        """Return True for an error of the container or the video stream, as in `VideoTrack`."""
        about = re.match(r"stream (\d+), ", message)
        other_stream = about is not None and about[1] != self._stream
        return who == self._reader and not other_stream and not message.startswith(HARMLESS)
