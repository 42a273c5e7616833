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
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from emovox.errors import TrackError
from emovox.media.containers import media_url
from emovox.media.display import SQUARE_PIXELS
from emovox.media.ffmpeg_log import HARMLESS
from emovox.media.streams import StreamInfo, choose
from emovox.media.video import (
    CUT_ANYWHERE,
    MAX_PIXELS,
    SEEK_MARGIN,
    Deadline,
    VideoTrack,
    check_order,
)

# Lines of the program's log. The filter showinfo, used twice, describes every frame.
SHOWINFO = re.compile(r"\[Parsed_showinfo_(\d+) @ \w+\] \[info\] (.*)")
CONFIG = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
FRAME = re.compile(r"n: *\d+ pts: *(-?\d+|NOPTS) .* s:(\d+)x(\d+) ")
PTS = re.compile(r"showinfo.*\] n: *\d+ pts: *(-?\d+)")
INPUT = re.compile(r"\[info\] Input #0, (.+), from '")
STREAM = re.compile(r"\[info\] +Stream #0:(\d+)\S*: (\w+): (.*)")
PICTURE_SIZE = re.compile(r", (\d+)x(\d+)")
FIRST_SAMPLE = re.compile(r"showinfo.*pts:(-?\d+) .* rate:(\d+) ")
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

    _sound: int | None = field(default=None, init=False)  # index of the stream of sound

    def _frames_from_start(
        self, files: ExitStack
    ) -> tuple[float, Iterator[tuple[float, np.ndarray]]]:
        self.check_kind()
        with self.path.open("rb") as file:
            is_avi = file.read(12)[8:] == b"AVI "
        log = self._run()
        streams = _list_streams(log)
        video, self.notes = choose(streams["Video"], "video")
        self._sound, self._sound_notes = choose(streams["Audio"], "audio")
        begin = (self.start or 0.0) - self.step - SEEK_MARGIN
        command = _command(self.program, self.path, video, begin, is_avi, self.deadline)
        if starts_anywhere := any(name in CUT_ANYWHERE for name in INPUT.findall(log)):
            command.remove("-xerror")
        child = _Child(command, self.path, video, self.deadline, starts_anywhere)
        files.callback(child.end)
        first = next(child.shown(), None)  # of all frames, chosen or not
        if first is None:
            return 0.0, iter(())
        self._frame_seconds = child.frame_seconds
        origin = first.time or 0.0
        if self._sound is not None and "mp4" in INPUT.findall(log)[0]:  # as streams.edit_shift does
            shown = f"-map 0:{video} -vf showinfo,select=gte(pts\\,0) -frames:v 1 -f null -"
            log = self._run(*shown.split(), reading=("-advanced_editlist", "0"))
            base = CONFIG.search(log)
            times = [int(pts) for pts in PTS.findall(log) if int(pts) >= 0]
            if base and times:
                self._edit_shift = float(times[0] * Fraction(int(base[1]), int(base[2]))) - origin
        return origin, self._chosen(child)

    def _chosen(self, child: "_Child") -> Iterator[tuple[float, np.ndarray]]:
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
                yield moment, pixels
            last = moment

    def _picture(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def _first_sound(self) -> tuple[float | None, list[str]]:
        if self._sound is None:
            return None, []
        first = f"-map 0:{self._sound} -frames:a 1 -af ashowinfo -f null -"
        found = FIRST_SAMPLE.search(self._run(*first.split()))
        return (int(found[1]) / int(found[2]) if found else None), self._sound_notes

    def _run(self, *output: str, reading: tuple[str, ...] = ()) -> str:
        """Run the program on the file, with the arguments of an output; return its log."""
        options = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info", "-copyts"]
        command = [self.program, *options, *reading, "-i", media_url(self.path), *output]
        left = None if self.deadline.seconds is None else self.deadline.left()
        try:
            run = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=left
            )
        except subprocess.TimeoutExpired as error:
            raise self.deadline.error() from error
        return run.stderr.decode(errors="replace")


def _list_streams(log: str) -> dict[str, list[StreamInfo]]:
    """Return the streams that the log of the program lists, by kind, without attached pictures."""
    streams: dict[str, list[StreamInfo]] = {"Video": [], "Audio": []}
    for index, kind, text in STREAM.findall(log.partition("[info] Output #0")[0]):
        if kind in streams and "(attached pic)" not in text and "(timed thumbnails)" not in text:
            size = PICTURE_SIZE.search(text)
            num_pixels = int(size[1]) * int(size[2]) if size else 0
            info = int(index), "(default)" in text, not text.startswith("none"), num_pixels
            streams[kind].append(StreamInfo(*info))
    return streams


def _command(
    program: str, path: Path, video: int | None, begin: float, is_avi: bool, deadline: Deadline
) -> list[str]:
    """Return the command that logs every frame of a video and writes those from `begin` on."""
    import ffmpeg

    options: dict[str, object] = {
        "threads": 1,
        "max_pixels": MAX_PIXELS,
        "err_detect:v": "explode",  # fail on a damaged frame instead of concealing the damage
        "copyts": None,  # keep the times of the file
    }
    if not is_avi:  # AVI has decoding times only; in other files ffmpeg would estimate from them
        options["fflags"] = "+igndts"
    if deadline.seconds is not None:  # CPU seconds; stops a child whose parent was killed
        options["timelimit"] = math.ceil(deadline.seconds) + 1
    chosen = f"gte(t-start_t,{begin:.6f})" if begin > 0 else "1"
    command = (
        ffmpeg.input("INPUT", **options)["V:0" if video is None else str(video)]
        .filter("showinfo", checksum=0)
        .filter("select", chosen)
        .filter("scale", SQUARE_PIXELS, "ih", flags="bilinear")  # the conversion of PyAV
        .filter("format", "rgb24")
        .filter("showinfo", checksum=0)
        .output(
            "pipe:", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", noautoscale=None
        )
        .global_args("-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel", "level+info")
        .compile(cmd=program)
    )
    # The name may hold characters that ffmpeg-python cannot take.
    return [media_url(path) if word == "INPUT" else word for word in command]


@dataclass(frozen=True)
class _Shown:
    """One frame in the program's log.

    Attributes:
        is_chosen: True for a frame whose pixels follow; False for any decoded frame.
        time: seconds, from the file; None if the file has no time for it.
        width: in pixels.
        height: in pixels.
    """

    is_chosen: bool
    time: float | None
    width: int
    height: int


class _Child:
    """The running program: its log, which describes the frames, and their pixels, in parallel.

    Attributes:
        frame_seconds: time between two frames at the frame rate of the video; 0.0 if unknown.
    """

    def __init__(
        self,
        command: list[str],
        path: Path,
        video: int | None,
        deadline: Deadline,
        starts_anywhere: bool,
    ) -> None:
        self.frame_seconds = 0.0
        self._path, self._deadline = path, deadline
        self._starts_anywhere = starts_anywhere  # so errors before the first frame do not matter
        self._has_frames = False
        self._time_base = Fraction(1)
        self._reader = ""  # FFmpeg's name of the container
        self._stream = str(video)
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
        for line in (raw.decode(errors="replace").rstrip() for raw in log):
            if match := SHOWINFO.match(line):
                self._read_frame(int(match[1]) > 0, match[2])
            elif (match := COMPLAINT.match(line)) and (
                self._has_frames or not self._starts_anywhere
            ):
                message = match[2].replace(media_url(self._path), "file")
                self._complaints.append((match[1] or "", message))
            elif match := INPUT.match(line):
                self._reader = match[1]
        self._shown.put(None)

    def _read_frame(self, is_chosen: bool, text: str) -> None:
        """Read a line about a frame; `is_chosen` if its pixels follow."""
        if match := FRAME.match(text):
            time = None if match[1] == "NOPTS" else float(int(match[1]) * self._time_base)
            self._has_frames = True
            self._shown.put(_Shown(is_chosen, time, int(match[2]), int(match[3])))
        elif match := CONFIG.match(text):
            self._time_base = Fraction(int(match[1]), int(match[2]))
            self.frame_seconds = int(match[4]) / int(match[3]) if int(match[3]) else 0.0

    def _error(self) -> TrackError | None:
        """Return the error of the program after its end; None if it succeeded."""
        code = self._process.wait()
        if not self._deadline.left():
            return self._deadline.error()
        if code < 0:
            return TrackError("decode", "DecoderDied", "the ffmpeg program crashed")
        matters = code or self._starts_anywhere
        complaints = [m for who, m in self._complaints if matters or self._concerns_video(who, m)]
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
