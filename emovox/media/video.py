"""Frames of a video on the grid of a track, by presentation time, in one decoding pass."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from emovox.errors import TrackError
from emovox.limits import MAX_PIXELS, MAX_TRACK_SECONDS
from emovox.media import grid
from emovox.media.containers import complaint, error_log, missing_end, open_media, read_packets
from emovox.media.streams import Display, choose_stream, edit_shift, first_sound
from emovox.paths import OUR_OWN, error_name

SEEK_MARGIN = 0.5  # seconds to decode before the first frame that is used
CUT_ANYWHERE = ("mpegts", "mpeg")  # may begin between key frames; the first frames refer to others
END_TOLERANCE = 0.001  # seconds; containers round times


@dataclass(frozen=True)
class GridFrame:
    """One picture at one grid point."""

    index: int  # grid index k, from 0
    pts: float  # presentation time of the frame in the file, in seconds
    time: float  # seconds from the first displayed frame of the video; box files use this time
    image: np.ndarray  # uint8 `[H, W, 3]` RGB, as a player displays it


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

    Raises:
        TrackError: while iterating: the file is missing, damaged, cut short, not a video, takes
            too long, or ends before the start; or start and end are not valid times.
    """

    path: Path  # the video
    step: float  # seconds between grid points
    start: float | None = None  # seconds after the first displayed frame; None: that frame
    end: float | None = None  # seconds after the first frame; None: the end of the video
    # checked at every decoded frame
    deadline: Deadline = field(default_factory=lambda: Deadline(None))
    num_decoded: int = field(default=0, init=False)  # from one step before the track to one after
    num_expected: int = field(default=0, init=False)  # grid points; known at the end, as the rest
    # start of the track on the clock of the file, which is 0 at the first frame
    start_time: float = field(default=0.0, init=False)
    end_time: float = field(default=0.0, init=False)  # on that clock; never past the end
    duration: float = field(default=0.0, init=False)  # seconds
    # seconds from the first frame to the first sample; None without sound
    sound_offset: float | None = field(default=None, init=False)
    # remarks on the file and the track, one line each
    notes: list[str] = field(default_factory=list, init=False)
    _stage: str = field(default="open", init=False)
    _frame_seconds: float = field(default=0.0, init=False)
    _aspect: Fraction | None = field(default=None, init=False)
    _edit_shift: float = field(default=0.0, init=False)
    _display: Display = field(default_factory=Display, init=False)

    def __iter__(self) -> Iterator[GridFrame]:
        try:
            with ExitStack() as files:
                yield from self._grid_frames(files)
        except av.error.ExitError as error:
            raise self.deadline.error() from error
        except (av.error.FFmpegError, OSError) as error:
            if error.errno in OUR_OWN:
                raise  # not an error of the track
            reason = error.strerror or "unknown reason"
            raise TrackError(self._stage, error_name(error), reason) from error

    def _grid_frames(self, files: ExitStack) -> Iterator[GridFrame]:
        start, end = self._interval()
        origin, frames = self._frames_from_start(files)
        last, interval, at_end = 0.0, self._frame_seconds, False

        def in_track() -> Iterator[tuple[float, Any]]:
            nonlocal last, interval, at_end
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
            at_end = True

        for index, moment, frame in grid.nearest(in_track(), self.step, end):
            beyond = at_end and end is not None and end > last + interval + END_TOLERANCE
            if beyond and index * self.step > last + interval / 2:
                break
            seconds = moment + start
            yield GridFrame(index, seconds + origin, seconds, self._picture(frame))
        if at_end and (reason := missing_end(self.path)):
            raise TrackError("decode", "Truncated", reason)
        video_end = last + interval
        if not self.num_decoded or (at_end and video_end <= 0):
            where = f" from {self.start:g} s on" if self.start else ""
            raise TrackError("decode", "NoFrames", f"no frame could be decoded{where}")
        reach = end
        if end is None or (at_end and end > video_end + END_TOLERANCE):
            if end is not None:
                fact = f"end {self.end:g} s is past the end of the file"
                self.notes.append(f"{fact}; used {start + video_end:.3f} s")
            reach, end = last + interval / 2, video_end
        self.num_expected = grid.num_points(end if reach is None else reach, self.step)
        self.duration, self.start_time, self.end_time = end, start, start + end
        self._check_length(end)
        sound, notes = first_sound(self.path, self.deadline.seconds)
        self.sound_offset = None if sound is None else sound - origin - self._edit_shift
        self.notes += notes

    def _interval(self) -> tuple[float, float | None]:
        """Return the start, and the end in seconds after it; `TrackError` for invalid times."""
        start = 0.0 if self.start is None else self.start
        end = None if self.end is None else self.end - start
        if not start >= 0 or not (end is None or end > 0):
            message = f"start {self.start}, end {self.end}: not an interval of a file"
            raise TrackError("time", "BadTimes", message)
        self._check_length(max(start, end or 0.0))
        return start, end

    def _check_length(self, seconds: float) -> None:
        if seconds > MAX_TRACK_SECONDS:
            message = f"{seconds:.0f} s is longer than {MAX_TRACK_SECONDS} s"
            raise TrackError("time", "TooLong", message)

    def _picture(self, frame: Any) -> np.ndarray:
        return self._display(frame, self._aspect)

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
        try:
            if sought := self._seek(stream, begin):
                return origin, sought
        except (av.error.FFmpegError, TrackError):  # frames before the track need not be decodable
            self.deadline.check()
        # Not every container can seek back to its first frame, but every file opens there.
        return origin, self._decode(self._open(files))

    def _open(self, files: ExitStack) -> "av.VideoStream":
        if not self.path.is_file() and self.path.exists():
            raise TrackError("open", "NotAFile", "is a folder or a device")
        options = {"max_pixels": str(MAX_PIXELS)}
        with error_log() as log:
            opened = open_media(self.path, timeout=self.deadline.seconds, options=options)
        container = files.enter_context(opened)
        stream, self.notes = choose_stream(container, "video")
        if stream is None:
            raise TrackError("open", "NoVideo", "holds no video stream")
        for other in container.streams:
            if other is not stream:  # damage in another stream would stop reading
                other.discard = av.stream.Discard.all
        if stream.codec_context is None:
            raise TrackError("open", "UnknownCodec", "no decoder for its video stream")
        if reason := complaint(stream, log):
            raise TrackError("open", "BadHeader", reason)
        stream.codec_context.thread_count = 1
        # Fail on a damaged frame instead of concealing the damage.
        stream.codec_context.options = options | {"err_detect": "explode"}
        if stream.average_rate:
            self._frame_seconds = float(1 / stream.average_rate)
        self._aspect = stream.sample_aspect_ratio
        if "mp4" in container.format.name and len(stream.index_entries):
            self._edit_shift = edit_shift(self.path) if stream.index_entries[0].is_discard else 0.0
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
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                if last is None and stream.container.format.name in CUT_ANYWHERE:
                    continue
                raise
            for frame in frames:
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
    for packet in read_packets(stream.container, stream):
        if packet.is_corrupt and read is not None:  # the first may be cut in a stream
            raise TrackError("decode", "Truncated", "the file ends inside a frame")
        if packet.dts is not None:
            read = packet.dts
            if not packet.size:
                continue  # repeats the last frame; to the decoder it would be the end
        if key is None and packet.is_keyframe:
            key, leading = packet.pts, True
        if leading and key is not None and packet.pts is not None:
            if packet.pts < key:
                continue  # of an open group of pictures, which begins before the first key frame
            leading = packet.pts == key
        yield packet
    index: Any = stream.index_entries if "mp4" in stream.container.format.name else ()
    if len(index) and (read is None or read < index[-1].timestamp):
        raise TrackError("decode", "Truncated", "frames that its index lists are missing")


def check_order(last: float | None, moment: float) -> None:
    """Raise `TrackError` if a frame is earlier than the frame that is shown before it."""
    if last is not None and moment < last:
        message = f"a frame at {moment:.3f} s follows one at {last:.3f} s"
        raise TrackError("decode", "BadTimes", message)


def first_picture(path: Path) -> float | None:
    """Return the time of a file's first displayed picture, in seconds, as its sound has times.

    None if no picture can be decoded; attached pictures do not count.
    """
    status = path.stat()
    return _first_picture(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _first_picture(path: Path, *_version: int) -> float | None:
    track = VideoTrack(path, 1.0)
    try:
        with ExitStack() as files:
            first = next(track._decode(track._open(files)), None)
    except (av.error.FFmpegError, OSError, TrackError):
        return None
    return None if first is None else first[0] + track._edit_shift


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
