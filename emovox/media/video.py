"""Frames of a video on the grid of a track, by presentation time, in one decoding pass."""

import errno
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from emovox.errors import TrackError
from emovox.media import grid
from emovox.media.containers import open_media
from emovox.paths import error_name

MAX_PIXELS = 8192 * 8192  # per frame; a header that gives more is wrong
MAX_SECONDS = 10**6  # of a track; a later time is wrong
SEEK_MARGIN = 0.5  # seconds to decode before the first frame that is used

# Errors in the log of FFmpeg's MP4 reader that healthy files cause as well: edit lists that begin
# between key frames.
HARMLESS = ("Missing key frame while searching", "Cannot find an index entry before")


@dataclass(frozen=True)
class GridFrame:
    """One picture at one grid point.

    Attributes:
        index: grid index k, from 0.
        pts: presentation time of the frame in the file, in seconds.
        time: seconds from the first frame of the video; box files use this time.
        image: uint8 `[H, W, 3]` RGB, upright.
    """

    index: int
    pts: float
    time: float
    image: np.ndarray


class Deadline:
    """Time limit of a track.

    Args:
        seconds: from now on; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, 0 or more; infinity without a limit."""
        return max(0.0, self._end - time.monotonic())

    def error(self) -> TrackError:
        """Return the error of a track that exceeds the limit."""
        return TrackError("time", "Timeout", f"took longer than {self.seconds:g} s")

    def check(self) -> None:
        """Raise `TrackError` if no time is left."""
        if not self.left():
            raise self.error()


@dataclass(eq=False)
class VideoTrack:
    """The grid frames of one track; iterate once.

    Attributes:
        path: the video.
        step: seconds between grid points.
        start: start of the track in seconds after the first frame of the video; None: that frame.
        end: end of the track in seconds after the first frame; None: the last frame.
        deadline: checked at every decoded frame.
        num_decoded: decoded frames from one step before the track to one step after it.
        num_expected: grid points of the track, known after iterating.
        duration: seconds, known after iterating.

    Raises:
        TrackError: while iterating: the file is missing, damaged, cut short, not a video, or takes
            too long.
    """

    path: Path
    step: float
    start: float | None = None
    end: float | None = None
    deadline: Deadline = field(default_factory=lambda: Deadline(None))
    num_decoded: int = field(default=0, init=False)
    num_expected: int = field(default=0, init=False)
    duration: float = field(default=0.0, init=False)
    _stage: str = field(default="open", init=False)
    _frame_seconds: float = field(default=0.0, init=False)
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter, init=False)

    def __iter__(self) -> Iterator[GridFrame]:
        try:
            with ExitStack() as files:
                yield from self._grid_frames(files)
        except av.error.ExitError as error:
            raise self.deadline.error() from error
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # not an error of the track
            reason = error.strerror or "unknown reason"
            raise TrackError(self._stage, error_name(error), reason) from error
        if not self.num_decoded:
            where = f" from {self.start:g} s on" if self.start else ""
            raise TrackError("decode", "NoFrames", f"no frame could be decoded{where}")

    def check_kind(self) -> None:
        """Raise `TrackError` if the path is a folder, a pipe or a device."""
        if not self.path.is_file() and self.path.exists():
            raise TrackError("open", "NotAFile", "is a folder or a device")

    def _grid_frames(self, files: ExitStack) -> Iterator[GridFrame]:
        origin, frames = self._frames_from_start(files)
        start = self.start or 0.0
        end = None if self.end is None else self.end - start
        last, interval = 0.0, self._frame_seconds

        def in_track() -> Iterator[tuple[float, Any]]:
            nonlocal last, interval
            for pts, frame in frames:
                moment = pts - origin - start
                if end is not None and moment > end + self.step:
                    return
                if moment < -self.step:
                    continue
                if self.num_decoded:
                    interval = moment - last
                last = moment
                self.num_decoded += 1
                yield moment, frame

        for index, moment, frame in grid.nearest(in_track(), self.step, end):
            seconds = moment + start
            yield GridFrame(index, seconds + origin, seconds, self._picture(frame))
        reach = last + interval / 2 if end is None else end
        self.num_expected = grid.num_points(reach, self.step) if self.num_decoded else 0
        self.duration = last + interval if end is None else end
        if self.duration > MAX_SECONDS:
            message = f"{self.duration:.0f} s is longer than {MAX_SECONDS} s"
            raise TrackError("time", "TooLong", message)

    def _picture(self, frame: Any) -> np.ndarray:
        picture = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        return upright(picture, frame.rotation)

    def _frames_from_start(self, files: ExitStack) -> tuple[float, Iterator[tuple[float, Any]]]:
        """Return the time of the video's first frame, and the frames from before the start on."""
        stream = self._open(files)
        frames = self._decode(stream)
        first = next(frames, None)
        if first is None:
            return 0.0, iter(())
        origin = first[0]
        begin = origin + (self.start or 0.0) - self.step
        if begin - SEEK_MARGIN <= origin or stream.start_time is None:
            return origin, chain([first], frames)
        sought = None
        try:
            sought = self._seek(stream, begin)
        except (av.error.FFmpegError, TrackError):  # frames before the track need not be decodable
            self.deadline.check()
        if sought is None:
            # Not every container can seek back to its first frame, but every file opens there.
            sought = self._decode(self._open(files))
        return origin, sought

    def _open(self, files: ExitStack) -> "av.VideoStream":
        self.check_kind()
        options = {"max_pixels": str(MAX_PIXELS)}
        with _error_log() as log:
            opened = open_media(self.path, timeout=self.deadline.seconds, options=options)
        container = files.enter_context(opened)
        if not container.streams.video:
            raise TrackError("open", "NoVideo", "holds no video stream")
        stream = container.streams.video[0]
        for other in container.streams:
            if other is not stream:  # damage in another stream would stop reading
                other.discard = av.stream.Discard.all
        if stream.codec_context is None:
            raise TrackError("open", "UnknownCodec", "no decoder for its video stream")
        if complaint := _complaint(stream, log):
            raise TrackError("open", "BadHeader", complaint)
        stream.codec_context.thread_count = 1
        # Fail on a damaged frame instead of concealing the damage.
        stream.codec_context.options = options | {"err_detect": "explode"}
        if stream.average_rate:
            self._frame_seconds = float(1 / stream.average_rate)
        self._stage = "decode"
        return stream

    def _seek(
        self, stream: "av.VideoStream", begin: float
    ) -> Iterator[tuple[float, av.VideoFrame]] | None:
        """Return the frames from `begin` on; None if the container seeks past it or to its end."""
        if not stream.time_base:
            return None
        wanted = int((begin - SEEK_MARGIN) / stream.time_base)
        stream.container.seek(wanted, stream=stream, backward=True)
        frames = self._decode(stream)
        before = None
        for moment, frame in frames:
            if moment >= begin:
                return chain([(moment, frame)], frames) if before is not None else None
            before = moment
        return None

    def _decode(self, stream: "av.VideoStream") -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield `(presentation time in seconds, frame)`, times rising."""
        by_order = stream.container.format.name == "avi"  # has no presentation times
        last: float | None = None
        timed = False  # the file gave the last time
        for packet in _packets(stream):
            for frame in packet.decode():
                self.deadline.check()
                if frame.is_corrupt:
                    raise TrackError("decode", "Corrupt", "a frame is damaged")
                moment = _presentation_time(frame, stream, last, by_order)
                if timed and frame.time is not None:
                    check_order(last, moment)
                timed = frame.time is not None
                if last is None or moment > last:
                    last = moment
                    yield moment, frame


def _packets(stream: "av.VideoStream") -> Iterator[av.Packet]:
    """Yield the packets of a stream, without frames that refer to frames before the seek point."""
    key: int | None = None  # time of the first key frame
    leading = False  # only frames that are shown before the key frame have followed it
    read: int | None = None  # decoding time of the last packet
    for packet in stream.container.demux(stream):
        if packet.is_corrupt:
            raise TrackError("decode", "Truncated", "the file ends inside a frame")
        if packet.dts is not None:
            read = packet.dts
        if key is None and packet.is_keyframe:
            key, leading = packet.pts, True
        if leading and key is not None and packet.pts is not None:
            if packet.pts < key:
                continue  # of an open group of pictures, which begins before the first key frame
            leading = packet.pts == key
        yield packet
    if _ends_early(stream, read):
        raise TrackError("decode", "Truncated", "frames that its index lists are missing")


def check_order(last: float | None, moment: float) -> None:
    """Raise `TrackError` if a frame is earlier than the frame that is shown before it."""
    if last is not None and moment < last:
        message = f"a frame at {moment:.3f} s follows one at {last:.3f} s"
        raise TrackError("decode", "BadTimes", message)


def upright(picture: np.ndarray, rotation: float) -> np.ndarray:
    """Rotate a picture counterclockwise by degrees, rounded to quarter turns."""
    quarters = round(rotation / 90)
    return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture


_LogLine = tuple[int, str, str]  # level, component, message
_log_lock = threading.Lock()


@contextmanager
def _error_log() -> Iterator[list[_LogLine]]:
    """Collect the errors that FFmpeg logs in this thread; some damage is reported only there.

    One thread at a time, since PyAV has one log level for all threads.
    """
    with _log_lock:
        level, skip_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(max(level or 0, av.logging.ERROR))
        av.logging.set_skip_repeated(False)
        try:
            with av.logging.Capture() as log:
                yield log
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skip_repeated)


def _complaint(stream: "av.VideoStream", log: list[_LogLine]) -> str:
    """Return the first logged error of the container or of this stream; empty if none."""
    for level, name, message in log:
        about = re.match(r"stream (\d+), ", message)
        if (
            level <= av.logging.ERROR
            and name in (stream.container.format.name, "IMGUTILS")
            and not message.startswith(HARMLESS)
            and (about is None or int(about[1]) == stream.index)
        ):
            return message.strip()
    return ""


def _ends_early(stream: "av.VideoStream", read: int | None) -> bool:
    """Return True if the file ended before the last frame of its index."""
    if "mp4" not in stream.container.format.name or not len(stream.index_entries):
        return False
    return read is None or read < stream.index_entries[-1].timestamp


def _presentation_time(
    frame: av.VideoFrame, stream: "av.VideoStream", last: float | None, by_order: bool
) -> float:
    if by_order:
        if frame.dts is not None and frame.time_base:
            return float(frame.dts * frame.time_base)
    elif frame.time is not None:
        return frame.time
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise TrackError("decode", "NoTimes", "frames have no times and the file has no rate")
    return 0.0 if last is None else last + float(1 / rate)
