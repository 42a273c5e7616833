"""Frames of a video on the grid of a track, by presentation time, in one decode pass."""

import errno
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from emovox.errors import TrackError
from emovox.media import grid
from emovox.media.containers import open_media

MAX_PIXELS = 8192 * 8192  # per frame; a header that claims more is not believed
MAX_SECONDS = 10**6  # of a track; a time beyond it is not believed
SEEK_MARGIN = 0.5  # seconds; decoding may begin so long before the first frame of use

# What FFmpeg's reader of MP4 calls errors, and healthy files are full of: edit lists that begin
# between key frames.
HARMLESS = ("Missing key frame while searching", "Cannot find an index entry before")


@dataclass(frozen=True)
class GridFrame:
    """One picture at one grid point.

    Attributes:
        index: grid index k, from 0.
        pts: the frame's own presentation time in seconds, as the file has it.
        time: seconds from the first frame of the video, which box files count from.
        image: uint8 `[H, W, 3]` RGB, upright.
    """

    index: int
    pts: float
    time: float
    image: np.ndarray


class Deadline:
    """Raises `TrackError` once the time allowed for a track is over."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds until it; None if there is no limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise TrackError("time", "Timeout", f"took longer than {self.seconds:g} s")


class VideoTrack:
    """The grid frames of one track; iterate once.

    Args:
        path: the video.
        step: seconds between grid points.
        start: seconds after the video's first frame where the track begins; None: at that frame.
        end: seconds after the video's first frame where it ends; None: with the last frame.
        deadline: checked at every decoded frame.

    Attributes:
        num_decoded: frames decoded of the track, and of a step before and after it.
        num_expected: grid points of the track, known after iterating.
        duration: seconds, known after iterating.

    Raises:
        TrackError: while iterating: the file is missing, no video, broken, cut short or too slow.
    """

    def __init__(
        self,
        path: Path,
        step: float,
        start: float | None = None,
        end: float | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self.path, self.step = path, step
        self.start, self.end = start, end
        self.deadline = deadline or Deadline(None)
        self.num_decoded = 0
        self.num_expected = 0
        self.duration = 0.0
        self._stage = "open"
        self._frame_seconds = 0.0
        self._reformatter = VideoReformatter()

    def __iter__(self) -> Iterator[GridFrame]:
        try:
            with ExitStack() as files:
                yield from self._grid_frames(files)
        except av.error.ExitError as error:
            message = f"took longer than {self.deadline.seconds:g} s"
            raise TrackError("time", "Timeout", message) from error
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # says nothing about the track
            name = type(error).__name__.removesuffix("Error")
            reason = error.strerror or "unknown reason"
            raise TrackError(self._stage, name, reason) from error
        if not self.num_decoded:
            where = f" from {self.start:g} s on" if self.start else ""
            raise TrackError("decode", "NoFrames", f"no frame could be decoded{where}")

    def check_kind(self) -> None:
        if not self.path.is_file() and self.path.exists():
            raise TrackError("open", "NotAFile", "is a folder or a device")

    def _open(self, files: ExitStack) -> "tuple[av.container.InputContainer, av.VideoStream]":
        self.check_kind()
        with _error_log() as log:
            container = files.enter_context(
                open_media(
                    self.path,
                    timeout=self.deadline.seconds,
                    options={"max_pixels": str(MAX_PIXELS)},
                )
            )
        if not container.streams.video:
            raise TrackError("open", "NoVideo", "holds no video stream")
        stream = container.streams.video[0]
        for other in container.streams:
            if other is not stream:  # whose damage would end the reading of this one
                other.discard = av.stream.Discard.all
        if stream.codec_context is None:
            raise TrackError("open", "UnknownCodec", "no decoder for its video stream")
        if complaint := _complaint(container, stream, log):
            raise TrackError("open", "BadHeader", complaint)
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {
            "err_detect": "explode",  # a damaged frame is an error, not a guess
            "max_pixels": str(MAX_PIXELS),
        }
        if stream.average_rate:
            self._frame_seconds = float(1 / stream.average_rate)
        self._stage = "decode"
        return container, stream

    def _grid_frames(self, files: ExitStack) -> Iterator[GridFrame]:
        origin, frames = self._frames_from_start(files)
        start = self.start or 0.0
        end = None if self.end is None else self.end - start
        last, interval = 0.0, self._frame_seconds

        def in_track() -> Iterator[tuple[float, av.VideoFrame]]:
            nonlocal last, interval
            for moment, frame in frames:
                if end is not None and moment - origin - start > end + self.step:
                    return
                if moment - origin - start < -self.step:
                    continue
                if self.num_decoded:
                    interval = moment - origin - start - last
                last = moment - origin - start
                self.num_decoded += 1
                yield last, frame

        for index, moment, frame in grid.nearest(in_track(), self.step, end):
            seconds = moment + start
            yield GridFrame(index, seconds + origin, seconds, self._picture(frame))
        reach = last + interval / 2 if end is None else end
        self.num_expected = grid.num_points(reach, self.step) if self.num_decoded else 0
        self.duration = last + interval if end is None else end
        if self.duration > MAX_SECONDS:
            raise TrackError("time", "TooLong", f"{self.duration:.0f} seconds, of which few exist")

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        picture = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        return upright(picture, frame.rotation)

    def _frames_from_start(
        self, files: ExitStack
    ) -> tuple[float, Iterator[tuple[float, av.VideoFrame]]]:
        """Return the time of the video's first frame, and frames from before the start on."""
        container, stream = self._open(files)
        frames = self._decode(container, stream)
        first = next(frames, None)
        if first is None:
            return 0.0, iter(())
        origin = first[0]
        begin = origin + (self.start or 0.0) - self.step
        if begin - SEEK_MARGIN <= origin or stream.start_time is None:
            return origin, chain([first], frames)
        try:
            sought = self._seek(container, stream, begin)
        except (av.error.FFmpegError, TrackError):
            # What is before the track may not be decodable from where the seek ended.
            self.deadline.check()
            sought = None
        if sought is None:
            # Not every container can go back to its first frame, but every file opens there.
            sought = self._decode(*self._open(files))
        return origin, sought

    def _seek(
        self, container: "av.container.InputContainer", stream: "av.VideoStream", begin: float
    ) -> Iterator[tuple[float, av.VideoFrame]] | None:
        """Frames from `begin` on; None if the container leads past it, or to its end."""
        if not stream.time_base:
            return None
        wanted = int((begin - SEEK_MARGIN) / stream.time_base)
        container.seek(wanted, stream=stream, backward=True)
        frames = self._decode(container, stream)
        before = None
        for moment, frame in frames:
            if moment >= begin:
                return chain([(moment, frame)], frames) if before is not None else None
            before = moment
        return None

    def _decode(
        self, container: "av.container.InputContainer", stream: "av.VideoStream"
    ) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield `(presentation time in seconds, frame)`, times rising."""
        by_order = container.format.name == "avi"  # which has no presentation times
        last: float | None = None
        timed = False  # whether the file itself gave the last time
        for packet in _packets(container, stream):
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


def _packets(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> Iterator[av.Packet]:
    """The packets of a stream to its end, without those of frames that lean on earlier ones."""
    key: int | None = None  # time of the first key frame
    leading = False  # whether only frames that are shown before it can have followed it
    read: int | None = None  # decoding time of the last packet
    for packet in container.demux(stream):
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
    if _ends_early(container, stream, read):
        raise TrackError("decode", "Truncated", "frames that its index lists are missing")


def check_order(last: float | None, moment: float) -> None:
    """Raise `TrackError` if a frame has an earlier time than the one that is shown before it."""
    if last is not None and moment < last:
        message = f"a frame at {moment:.3f} s follows one at {last:.3f} s"
        raise TrackError("decode", "BadTimes", message)


def upright(picture: np.ndarray, rotation: float) -> np.ndarray:
    """A picture turned by degrees counterclockwise, to the nearest quarter."""
    quarters = round(rotation / 90)
    return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture


_LogLine = tuple[int, str, str]  # level, who says it, message
_log_lock = threading.Lock()
_num_logs = 0


@contextmanager
def _error_log() -> Iterator[list[_LogLine]]:
    """Collect what FFmpeg logs as errors in this thread; some damage is said nowhere else.

    PyAV has one log level for all threads, so the last one to leave restores it.
    """
    global _num_logs, _log_before
    with _log_lock:
        if not _num_logs:
            _log_before = av.logging.get_level(), av.logging.get_skip_repeated()
            av.logging.set_level(max(_log_before[0] or 0, av.logging.ERROR))
            av.logging.set_skip_repeated(False)
        _num_logs += 1
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        with _log_lock:
            _num_logs -= 1
            if not _num_logs:
                av.logging.set_level(_log_before[0])
                av.logging.set_skip_repeated(_log_before[1])


_log_before: tuple[int | None, bool] = None, True


def _complaint(
    container: "av.container.InputContainer", stream: "av.VideoStream", log: list[_LogLine]
) -> str:
    """The first error in the log that concerns the container or this stream; empty if none."""
    for level, name, message in log:
        about = re.match(r"stream (\d+), ", message)
        if (
            level <= av.logging.ERROR
            and name in (container.format.name, "IMGUTILS")
            and not message.startswith(HARMLESS)
            and (about is None or int(about[1]) == stream.index)
        ):
            return message.strip()
    return ""


def _ends_early(
    container: "av.container.InputContainer", stream: "av.VideoStream", read: int | None
) -> bool:
    """Whether a file with an index of all its frames ended before the last of them."""
    if "mp4" not in container.format.name or not len(stream.index_entries):
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
