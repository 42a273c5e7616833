"""Frames of a video that a child process decodes: the ffmpeg program, for the extra `ffmpeg`.

For a video that crashed the decoder in this process. Pixels and times equal those of `VideoTrack`;
if the file has no time for a frame, the estimate may differ by 0.1 ms. The program must be version
5.1 or later; how much damage it detects depends on the version.
"""

import io
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from tempfile import NamedTemporaryFile
from typing import TextIO

import numpy as np

from emovox.errors import TrackError
from emovox.limits import MAX_PIXELS
from emovox.media.containers import OWN_DATA_ONLY, REFUSED, check_own_data, concerns, media_url
from emovox.media.streams import SQUARE_PIXELS, StreamInfo, choose
from emovox.media.video import CUT_ANYWHERE, SEEK_MARGIN, VideoTrack, check_order

# Lines of the program's log. The filter showinfo describes every frame.
CONFIG = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
FRAME = re.compile(r"showinfo.*\] n: *\d+ pts: *(-?\d+|NOPTS) .* s:(\d+)x(\d+) ")
INPUT = re.compile(r"\[info\] Input #0, (.+), from '")
STREAM = re.compile(r"\[info\] +Stream #0:(\d+)\S*: (\w+): (.*)")
PICTURE_SIZE = re.compile(r", (\d+)x(\d+)")
FIRST_SAMPLE = re.compile(r"showinfo.*pts:(-?\d+) .* rate:(\d+) ")
COMPLAINT = re.compile(r"^(?:\[([^\]]+?) @ \w+\] )?.*?\[(?:error|fatal|panic)\] (.*)", re.MULTILINE)

# Meaning of a logged error: `(words in it, stage, error)`; an empty stage is the current one.
REASONS = (
    ("matches no streams", "open", "NoVideo"),
    ("Decoder (codec none) not found", "open", "UnknownCodec"),
    ("corrupt decoded frame", "decode", "Corrupt"),
    ("corrupt input packet", "decode", "Truncated"),
    ("partial file", "decode", "Truncated"),
    ("Cannot allocate memory", "", "Memory"),
    ("not on whitelist", "open", "Container"),
    ("Invalid data found", "", "InvalidData"),
    ("End of file", "", "EOF"),
)


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
    """A `VideoTrack` that a child process decodes, which is killed at the deadline.

    Raises:
        TrackError: while iterating, as `VideoTrack`; also if the program crashes.
    """

    program: str = field(kw_only=True)  # path of the ffmpeg program
    _reader: str = field(default="", init=False)  # FFmpeg's name of the container
    _time_base: Fraction = field(default=Fraction(1), init=False)
    _sound: int | None = field(default=None, init=False)  # index of the stream of sound

    def _frames_from_start(
        self, files: ExitStack
    ) -> tuple[float, Iterator[tuple[float, np.ndarray]]]:
        self.check_kind()
        check_own_data(self.path)  # raises what the program does not tell apart
        log = self._run()
        self._reader = "".join(INPUT.findall(log)[:1])
        streams = _list_streams(log)
        video, self.notes = choose(streams["Video"], "video")
        self._sound, self._sound_notes = choose(streams["Audio"], "audio")
        frames = self._read(video, files)
        first = next(frames, None)
        if first is None:
            return 0.0, iter(())
        origin = first[0]
        if self._sound is not None and "mp4" in self._reader:  # as streams.edit_shift does
            shown = f"-map 0:{video} -vf showinfo,select=gte(pts\\,0) -frames:v 1 -f null -"
            log = self._run(*shown.split(), reading=("-advanced_editlist", "0"))
            base = CONFIG.search(log)
            times = [int(pts) for pts, *_ in FRAME.findall(log) if pts.isdigit()]
            if base and times:
                self._edit_shift = float(times[0] * Fraction(int(base[1]), int(base[2]))) - origin
        return origin, chain([first], frames)

    def _read(self, video: int | None, files: ExitStack) -> Iterator[tuple[float, np.ndarray]]:
        """Yield time and picture of the first frame, and of those from before the start on."""
        log = files.enter_context(NamedTemporaryFile())  # noqa: SIM115
        lines = files.enter_context(open(log.name, errors="replace"))  # noqa: SIM115, PTH123
        process = subprocess.Popen(
            self._command(video), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
        files.enter_context(process)
        files.callback(process.kill)
        timer = threading.Timer(min(self.deadline.left(), threading.TIMEOUT_MAX), process.kill)
        files.callback(timer.cancel)
        timer.start()
        assert isinstance(process.stdout, io.BufferedReader)
        last: float | None = None
        while process.stdout.peek(1):  # its line is in the log by now
            moment, width, height = self._next_frame(lines, last)
            data = process.stdout.read(width * height * 3)
            if not data or len(data) < width * height * 3:
                raise self._error(process.wait(), video, lines) or TrackError(
                    "decode", "Truncated", "the last frame is incomplete"
                )
            self.deadline.check()
            if last is None or moment > last:
                yield moment, np.frombuffer(data, np.uint8).reshape(height, width, 3)
            last = moment
        if error := self._error(process.wait(), video, lines):
            raise error

    def _next_frame(self, lines: TextIO, last: float | None) -> tuple[float, int, int]:
        """Return time, width and height of the next frame in the log; zeros without one."""
        for line in lines:
            if match := CONFIG.search(line):
                self._time_base = Fraction(int(match[1]), int(match[2]))
                self._frame_seconds = int(match[4]) / int(match[3]) if int(match[3]) else 0.0
            elif match := FRAME.search(line):
                if match[1] == "NOPTS":
                    moment = 0.0 if last is None else last + self._frame_seconds
                else:
                    moment = float(int(match[1]) * self._time_base)
                    check_order(last, moment)
                return moment, int(match[2]), int(match[3])
        return 0.0, 0, 0

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
        own = chain(*((f"-{key}", value) for key, value in OWN_DATA_ONLY.items()))
        command = [self.program, *options, *own, *reading, "-i", media_url(self.path), *output]
        left = None if self.deadline.seconds is None else self.deadline.left()
        try:
            run = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=left
            )
        except subprocess.TimeoutExpired as error:
            raise self.deadline.error() from error
        return run.stderr.decode(errors="replace")

    def _command(self, video: int | None) -> list[str]:
        """Return the command that writes the first frame, and those from before the start on."""
        import ffmpeg

        options: dict[str, object] = {
            **OWN_DATA_ONLY,
            "threads": 1,
            "max_pixels": MAX_PIXELS,
            "err_detect:v": "explode",  # fail on a damaged frame instead of concealing the damage
            "copyts": None,  # keep the times of the file
        }
        if self._reader != "avi":  # AVI has decoding times only
            options["fflags"] = "+igndts"  # ffmpeg would estimate by them
        if self.deadline.seconds is not None:  # CPU seconds; stops a child of a killed parent
            options["timelimit"] = math.ceil(self.deadline.seconds) + 1
        begin = (self.start or 0.0) - self.step - SEEK_MARGIN
        chosen = f"eq(n,0)+gte(t-start_t,{begin:.6f})" if begin > 0 else "1"
        raw = {"format": "rawvideo", "pix_fmt": "rgb24", "fps_mode": "passthrough"}
        command = (
            ffmpeg.input("INPUT", **options)["V:0" if video is None else str(video)]
            .filter("select", chosen)
            .filter("scale", SQUARE_PIXELS, "ih", flags="bilinear")  # the conversion of PyAV
            .filter("format", "rgb24")
            .filter("showinfo", checksum=0)
            .output("pipe:", noautoscale=None, **raw)
            .global_args("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info")
            .global_args(*([] if self._reader in CUT_ANYWHERE else ["-xerror"]))
            .compile(cmd=self.program)
        )
        # The name may hold characters that ffmpeg-python cannot take.
        return [media_url(self.path) if word == "INPUT" else word for word in command]

    def _error(self, code: int, video: int | None, lines: TextIO) -> TrackError | None:
        """Return the error of the program that ended with this code; None if it succeeded."""
        if not self.deadline.left():
            return self.deadline.error()
        if code < 0:
            return TrackError("decode", "DecoderDied", "the ffmpeg program crashed")
        lines.seek(0)
        log = lines.read()
        if starts_anywhere := self._reader in CUT_ANYWHERE:  # errors before a frame do not matter
            first = FRAME.search(log)
            log = log[first.start() :] if first else ""
        errors = COMPLAINT.findall(log)
        if not code and not starts_anywhere:
            errors = [(who, m) for who, m in errors if concerns(who, m, self._reader, video)]
        if not errors:
            message = f"the ffmpeg program ended with {code}"
            return TrackError("decode", "Unknown", message) if code else None
        messages = [message.replace(media_url(self.path), "file") for _, message in errors]
        stage = "decode" if self._reader else "open"
        for words, known_stage, name in REASONS:
            if any(words in message for message in messages):
                message = REFUSED if name == "Container" else words
                return TrackError(known_stage or stage, name, message)
        return TrackError(stage, "InvalidData" if code else "BadHeader", messages[0])


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
