"""Frames of a video on the grid of a track, by presentation time, in one decode pass."""

import errno
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from emovox.errors import TrackError
from emovox.media import grid

MAX_PIXELS = 8192 * 8192  # per frame; a header that claims more is not believed
MAX_SECONDS = 10**6  # of a track; a time beyond it is not believed
SEEK_MARGIN = 0.5  # seconds; decoding may begin so long before the first frame of use


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

    def _open(self, files: ExitStack) -> "tuple[av.container.InputContainer, av.VideoStream]":
        if not self.path.is_file() and self.path.exists():
            raise TrackError("open", "NotAFile", "is a folder or a device")
        container = files.enter_context(
            av.open(
                str(self.path),
                metadata_errors="replace",
                timeout=self.deadline.seconds,
                options={"max_pixels": str(MAX_PIXELS)},
            )
        )
        if not container.streams.video:
            raise TrackError("open", "NoVideo", "holds no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise TrackError("open", "UnknownCodec", "no decoder for its video stream")
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
        reformatter = VideoReformatter()
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
            picture: np.ndarray = reformatter.reformat(frame, format="rgb24").to_ndarray()
            if frame.rotation:
                picture = np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
            seconds = moment + start
            yield GridFrame(index, seconds + origin, seconds, picture)
        reach = last + interval / 2 if end is None else end
        self.num_expected = grid.num_points(reach, self.step) if self.num_decoded else 0
        self.duration = last + interval if end is None else end
        if self.duration > MAX_SECONDS:
            raise TrackError("time", "TooLong", f"{self.duration:.0f} seconds, of which few exist")

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
        assert stream.time_base is not None
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
        key: int | None = None
        last: float | None = None
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise TrackError("decode", "Truncated", "the file ends inside a frame")
            if key is None and packet.is_keyframe:
                key = packet.pts
            if key is not None and packet.pts is not None and packet.pts < key:
                continue  # of an open group of pictures: leans on frames before the first key
            for frame in packet.decode():
                self.deadline.check()
                if frame.is_corrupt:
                    raise TrackError("decode", "Corrupt", "a frame is damaged")
                moment = _presentation_time(frame, stream, last, by_order)
                if last is None or moment > last:
                    last = moment
                    yield moment, frame


def _presentation_time(
    frame: av.VideoFrame, stream: "av.VideoStream", last: float | None, by_order: bool
) -> float:
    if by_order:
        if frame.dts is not None and frame.time_base is not None:
            return float(frame.dts * frame.time_base)
    elif frame.time is not None:
        return frame.time
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise TrackError("decode", "NoTimes", "frames have no times and the file has no rate")
    return 0.0 if last is None else last + float(1 / rate)
