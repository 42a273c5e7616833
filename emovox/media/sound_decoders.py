"""Decoders of sound: libsndfile for the files it can seek in, FFmpeg for all others.

FFmpeg decodes MP4 and related containers from shortly before the start of a part; other containers,
whose times are not exact to the sample, from the beginning.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import soundfile

from emovox import limits
from emovox.errors import InputError, NoSoundError
from emovox.files import read_start
from emovox.media.containers import STREAMED, missing_end, open_media, read_packets
from emovox.media.streams import choose_stream
from emovox.media.video import first_picture

SEEK_MARGIN = 0.5  # seconds to decode before the start, for codecs that depend on earlier frames
SEEKABLE = "mp4"  # in the names of containers whose index and duration are exact to the sample

# Sizes in libsndfile's log: of the data, or of the file where the log has no other.
SNDFILE_SIZES = re.compile(
    r"^ *(?:data|SSND|Riff size|riff|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE
)

# First bytes of the files that libsndfile reads.
SNDFILE_MAGIC = re.compile(rb"(RIFF|RIFX|RF64)....WAVE|fLaC|FORM....AIF|\.snd|riff", re.DOTALL)

# A sample whose time differs by more than this from its place after the samples before it is moved
# there, if the difference is no more than a plausible gap or overlap; in seconds.
MAX_DRIFT = 0.02
MAX_GAP = 3600.0
MAX_OVERLAP = 1.0


def open_sound(path: Path) -> "SndFile | AvFile":
    """Open the sound of a file, by its content and not its name; InputError if it has none."""
    magic = read_start(path, 12)
    if not magic:
        raise InputError(f"{path}: the file is empty")
    if not SNDFILE_MAGIC.match(magic):
        return AvFile(path)
    try:
        return SndFile(path)
    except (soundfile.LibsndfileError, io.UnsupportedOperation):  # it may not know the codec
        return AvFile(path)


def check_form(path: Path, rate: int, channels: int) -> None:
    """Raise InputError for an impossible sample rate or number of channels."""
    if not 0 < rate <= limits.MAX_SAMPLE_RATE or not 0 < channels <= limits.MAX_CHANNELS:
        raise InputError(f"{path}: invalid sample rate {rate} or number of channels {channels}")


class SndFile(ExitStack):
    """A file that libsndfile reads.

    Attributes:
        rate: samples per second.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file = self.enter_context(soundfile.SoundFile(os.fsencode(path)))
        self.rate: int = self._file.samplerate
        check_form(path, self.rate, self._file.channels)
        length = self._file.frames / self.rate
        is_long = length > limits.MAX_FILE_SECONDS
        if is_long or not self._file.seekable() or "MPEG" in self._file.subtype:
            self.close()
            raise io.UnsupportedOperation("libsndfile cannot go to every sample of this file")
        if self._file.frames > limits.MAX_SAMPLES_PER_BYTE * path.stat().st_size:
            raise InputError(f"{path}: cut short: claims {length:,.0f} s")
        for claimed, found in SNDFILE_SIZES.findall(self._file.extra_info):
            if int(found) < int(claimed) < STREAMED:
                raise InputError(f"{path}: cut short: {found} of {claimed} bytes")

    def read(self, begin: int, end: int | None) -> np.ndarray:
        """Return the samples from `begin` to `end`, or to the end of the file, float32 `[L, C]`."""
        begin = min(begin, self._file.frames)
        num = min(self._file.frames if end is None else end, self._file.frames) - begin
        if num * self._file.channels * 4 > limits.MAX_SOUND_BYTES:
            raise InputError(f"{self.path}: claims {num:,} samples; read it in parts")
        try:
            self._file.seek(begin)
            samples: np.ndarray = self._file.read(num, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{self.path}: cut short or damaged ({error.error_string})") from error
        if len(samples) < num:
            raise InputError(f"{self.path}: cut short: {len(samples)} of {num} samples")
        return samples

    def seconds(self) -> float:
        """Return the time at which the sound ends."""
        return float(self._file.frames / self.rate)


class AvFile(ExitStack):
    """A file that FFmpeg decodes; its attributes and methods are those of `SndFile`.

    Positions are samples on the clock of the file, so the first sample may have any position.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._origin: float | None = None  # time of the first picture in the file
        self._lead = 0  # position of the first sample
        self._stream = self._open()
        self._formats = self._stream.container.format.name
        self.rate: int = self._stream.codec_context.sample_rate
        check_form(path, self.rate, max(self._stream.codec_context.channels, 1))

    def _open(self) -> "av.AudioStream":
        try:
            container = self.enter_context(open_media(self.path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        stream, _ = choose_stream(container, "audio")
        if stream is None:
            raise NoSoundError(f"{self.path}: holds no audio stream")
        if stream.codec_context is None:
            raise InputError(f"{self.path}: no decoder for its audio stream")
        stream.codec_context.thread_count = 1
        # Fail on a damaged frame instead of concealing the damage.
        stream.codec_context.options = {"err_detect": "explode"}
        return stream

    def read(self, begin: int, end: int | None) -> np.ndarray:
        pieces = [np.empty((0, 1), np.float32)]
        filled = begin
        for position, samples in self._samples_from(begin):
            stop = position + len(samples) if end is None else end
            if silent := max(0, min(position, stop) - filled):
                pieces.append(np.zeros((silent, samples.shape[1]), np.float32))
                filled += silent
            new = samples[max(0, filled - position) : max(0, stop - position)]
            pieces.append(new)
            filled += len(new)
            if end is not None and filled >= end:
                break
        return np.concatenate(pieces[1:] or pieces)

    def seconds(self) -> float:
        end, duration = 0, self._stream.duration
        for position, samples in self._samples_from(0):
            end = position + len(samples)
            if SEEKABLE in self._formats and duration is not None:
                self._check_end()
                return float(duration * self._stream.time_base) + self._lead / self.rate
        return end / self.rate

    def _samples_from(self, begin: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield positions and samples `[n, C]` of decoded frames, from `begin` or earlier on."""
        try:
            form = None
            for position, frame in self._frames_from(begin):
                form = form or (self.rate, frame.layout.nb_channels)
                if form != (frame.sample_rate, frame.layout.nb_channels):
                    raise InputError(f"{self.path}: the sample rate or the channels change midway")
                yield position, _to_floats(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: cut short or damaged ({error.strerror})") from error

    def _frames_from(self, begin: int) -> Iterator[tuple[int, av.AudioFrame]]:
        frames = self._decode(self._packets_from_start())
        first = next(frames, None)
        if first is None:
            return
        position = self._lead = self._place(first) or 0
        if SEEKABLE in self._formats and begin - position > SEEK_MARGIN * self.rate:
            position, frames = self._seek(first, begin)
        else:
            frames = chain([first], frames)
        longest = 0
        for frame in frames:
            place = self._place(frame)
            if place is not None:
                jump = (place - position) / self.rate
                if abs(jump) > MAX_DRIFT and -MAX_OVERLAP < jump < MAX_GAP:
                    position = place
            yield position, frame
            position += frame.samples
            longest = max(longest, frame.samples)
        self._check_end()
        duration = self._stream.duration
        if SEEKABLE in self._formats and duration is not None:
            found = Fraction(position - self._lead, self.rate)
            missing = duration * self._stream.time_base - found
            if missing * self.rate > 2 * longest:  # the last frames may be padding
                raise InputError(f"{self.path}: cut short: {float(missing):.2f} s are missing")

    def _check_end(self) -> None:
        if reason := missing_end(self.path):
            raise InputError(f"{self.path}: {reason}")

    def _place(self, frame: av.AudioFrame) -> int | None:
        """Return the position of a frame by its time; None if it has none, or without pictures."""
        if self._origin is None or frame.time is None:
            return None
        return round((frame.time - self._origin) * self.rate)

    def _packets_from_start(self) -> Iterator[av.Packet]:
        """Find the time of the first picture; return all packets of the sound."""
        container = self._stream.container
        pictures, _ = choose_stream(container, "video")
        before: list[av.Packet] = []  # the packets of the sound that are stored before the picture
        if pictures is not None:
            for packet in read_packets(container, pictures, self._stream):
                if packet.stream_index != pictures.index:
                    before.append(packet)
                    continue
                self._origin = first_picture(self.path)
                if self._origin is None and packet.pts is not None:  # it cannot be decoded
                    self._origin = float(packet.pts * packet.time_base)
                break
        return chain(before, read_packets(container, self._stream))

    def _seek(self, first: av.AudioFrame, begin: int) -> tuple[int, Iterator[av.AudioFrame]]:
        """Return position and frames from shortly before `begin`, or of all sound if that fails."""
        stream = self._stream
        ticks_per_sample = 1 / (stream.time_base * self.rate)
        margin = int(SEEK_MARGIN * self.rate)
        if first.pts is not None and ticks_per_sample >= 1:
            wanted = first.pts + int((begin - self._lead - margin) * ticks_per_sample)
            stream.container.seek(wanted, stream=stream, backward=True)
            frames = self._decode(read_packets(stream.container, stream))
            head = next(frames, None)
            if head is not None and head.pts is not None:
                position = self._lead + round((head.pts - first.pts) / ticks_per_sample)
                if position <= begin - margin // 2:
                    return position, chain([head], frames)
        self._stream = self._open()
        return self._lead, self._decode(read_packets(self._stream.container, self._stream))

    def _decode(self, packets: Iterator[av.Packet]) -> Iterator[av.AudioFrame]:
        for packet in packets:
            if packet.is_corrupt:
                raise InputError(f"{self.path}: cut short inside a packet")
            if packet.size or packet.dts is None:  # to the decoder, an empty one would be the end
                yield from packet.decode()


def _to_floats(frame: av.AudioFrame) -> np.ndarray:
    """Return the samples float32 `[n, C]` of a decoded frame, full scale 1."""
    if frame.format.name == "fltp" and len(frame.planes) == 1:  # to_ndarray is slow
        return np.frombuffer(frame.planes[0], np.float32, frame.samples)[:, None]
    values: np.ndarray = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float32)
