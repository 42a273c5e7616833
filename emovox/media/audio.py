"""Audio of any format as 16 kHz mono, whole or in part.

libsndfile reads WAV and FLAC, and seeks to the start of the part. FFmpeg decodes everything else:
MP4 and related containers from shortly before the start; other containers, whose times are not
exact to the sample, from the beginning.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
import soundfile

from emovox.errors import InputError
from emovox.media.containers import open_media

SAMPLE_RATE = 16_000  # samples per second
MAX_PEAK = 16.0  # times full scale; larger floats are on another scale
MAX_RATE = 1_000_000  # samples per second; a header that gives more is wrong

# Options of libswresample: a passband to 7.2 kHz, and 90 dB attenuation above 8 kHz; see
# tests/test_media_audio.py.
RESAMPLER = {"filter_size": "128", "cutoff": "0.955", "phase_shift": "10", "linear_interp": "1"}
RESAMPLER_REACH = 128  # samples of the lower rate on which an output sample depends, to each side

SEEK_MARGIN = 0.5  # seconds to decode before the start, for codecs that depend on earlier frames
SEEKABLE = "mp4"  # in the names of containers whose index is exact to the sample
EXACT_DURATIONS = ("mp4", "matroska", "ogg")  # containers that do not estimate their duration

SNDFILE_MAGIC = (b"RIFF", b"RF64", b"fLaC")
STREAMED = 0x7FFFFF00  # bytes of a WAV; writers that do not know the size give more
WAV_DATA = re.compile(r"^data\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)  # libsndfile's log

Channels = Literal["mean", "left"]


def read_audio(
    path: str | os.PathLike[str],
    start: float = 0.0,
    duration: float | None = None,
    *,
    channels: Channels = "mean",
    resample: bool = True,
) -> np.ndarray:
    """Read audio as float32 `[L]`, mono, 16 kHz, within -1..1.

    Samples beyond full scale are clipped, as in 16-bit audio.

    Args:
        path: an audio file, or a video with sound.
        start: seconds after the first sample.
        duration: seconds; None for the rest of the file. The result is shorter if the file ends
            earlier.
        channels: `mean` of all channels, or the `left` (first) one.
        resample: convert to 16 kHz. False uses the samples as if their rate were 16 kHz, as the
            reference code does; `start` and `duration` then count 16,000 samples per second.

    Raises:
        InputError: the file is missing, unreadable, cut short, without sound, or contains samples
            that are not finite; or it ends before `start`.

    Example:
        >>> soundfile.write("tone.wav", np.sin(np.arange(48_000) / 20), 48_000)
        >>> read_audio("tone.wav").shape
        (16000,)
        >>> read_audio("tone.wav", start=0.5, duration=0.1).shape
        (1600,)
    """
    path = Path(path)
    if channels not in get_args(Channels):
        raise ValueError(f"channels {channels!r} is not one of {', '.join(get_args(Channels))}")
    if not start >= 0 or not (duration is None or duration > 0):
        raise ValueError(f"start {start}, duration {duration}: not a valid part of a file")
    first = round(start * SAMPLE_RATE)
    last = None if duration is None else first + max(1, round(duration * SAMPLE_RATE))
    with _open(path) as source:
        rate = source.rate if resample else SAMPLE_RATE
        before, begin, end = _window(first, last, rate)
        samples = _to_mono(source.read(begin, end), channels, path)
    samples = _resampled(samples, rate)[first - before :][: None if last is None else last - first]
    if not len(samples):
        raise InputError(f"{path}: holds no sound" + (f" from {start:g} s on" if start else ""))
    return np.clip(samples, -1, 1)


def audio_duration(path: str | os.PathLike[str]) -> float:
    """Return the seconds of sound in a file.

    The header gives them, except in formats that only estimate the duration: these are decoded.

    Args:
        path: an audio file, or a video with sound.

    Raises:
        InputError: the file is missing, unreadable, or without sound.
    """
    with _open(Path(path)) as source:
        seconds = source.seconds()
    if not seconds > 0:
        raise InputError(f"{path}: holds no sound")
    return seconds


def _window(first: int, last: int | None, rate: int) -> tuple[int, int, int | None]:
    """Find the samples of a file of another rate from which to compute `first` to `last` at 16 kHz.

    Returns:
        A sample at 16 kHz that coincides with a sample of the file, that sample of the file, and
        the end in samples of the file.
    """
    if rate == SAMPLE_RATE:
        return first, first, last
    step = Fraction(rate, SAMPLE_RATE)
    reach = int(RESAMPLER_REACH * max(1.0, rate / SAMPLE_RATE)) + 1
    ticks = max(0, int(first * step) - reach) // step.numerator
    end = None if last is None else int(last * step) + reach
    return ticks * step.denominator, ticks * step.numerator, end


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    graph = av.filter.Graph()
    options = ":".join(f"{key}={value}" for key, value in RESAMPLER.items())
    graph.link_nodes(
        graph.add_abuffer(format="flt", layout="mono", sample_rate=rate, time_base=frame.time_base),
        graph.add("aresample", f"{SAMPLE_RATE}:{options}"),
        graph.add("abuffersink"),
    ).configure()
    graph.push(frame)
    graph.push(None)
    pieces = [np.empty(0, np.float32)]
    while True:
        try:
            pieces.append(graph.pull().to_ndarray()[0])
        except av.error.EOFError:
            return np.concatenate(pieces)


def _to_mono(samples: np.ndarray, channels: Channels, path: Path) -> np.ndarray:
    """Check samples `[L, C]` and mix them to float32 `[L]`."""
    peak = np.abs(samples).max(initial=0)
    if not np.isfinite(peak):
        raise InputError(f"{path}: a sample is not a finite number")
    if peak > MAX_PEAK:
        raise InputError(f"{path}: a sample is {peak:g}; floating-point audio is within -1..1")
    mono = samples[:, 0] if channels == "left" else samples.mean(axis=1)
    return np.ascontiguousarray(mono, np.float32)


def _open(path: Path) -> "_SndFile | _AvFile":
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not magic:
        raise InputError(f"{path}: the file is empty")
    return _SndFile(path) if magic in SNDFILE_MAGIC else _AvFile(path)


class _SndFile(ExitStack):
    """A file that libsndfile reads.

    Attributes:
        rate: samples per second.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        try:
            self._file = self.enter_context(soundfile.SoundFile(path))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path}: cannot be read ({error.error_string})") from error
        self.rate: int = self._file.samplerate
        if data := WAV_DATA.search(self._file.extra_info):
            claimed, found = map(int, data.groups())
            if found < claimed < STREAMED:
                raise InputError(f"{path}: cut short: {found} of {claimed} bytes of sound")

    def read(self, begin: int, end: int | None) -> np.ndarray:
        """Return the samples from `begin` to `end`, or to the end of the file, float32 `[L, C]`."""
        begin = min(begin, self._file.frames)
        num = min(self._file.frames if end is None else end, self._file.frames) - begin
        try:
            self._file.seek(begin)
            samples: np.ndarray = self._file.read(num, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{self.path}: cut short or damaged ({error.error_string})") from error
        if len(samples) < num:
            raise InputError(f"{self.path}: cut short: {len(samples)} of {num} samples")
        return samples

    def seconds(self) -> float:
        return float(self._file.frames / self.rate)


class _AvFile(ExitStack):
    """A file that FFmpeg decodes; its attributes and methods are those of `_SndFile`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._stream = self._open()
        self._formats = self._stream.container.format.name
        self.rate: int = self._stream.codec_context.sample_rate
        if not 0 < self.rate <= MAX_RATE:
            raise InputError(f"{path}: invalid sample rate {self.rate}")

    def _open(self) -> "av.AudioStream":
        try:
            container = self.enter_context(open_media(self.path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        if not container.streams.audio:
            raise InputError(f"{self.path}: holds no audio stream")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise InputError(f"{self.path}: no decoder for its audio stream")
        stream.codec_context.thread_count = 1
        # Fail on a damaged frame instead of concealing the damage.
        stream.codec_context.options = {"err_detect": "explode"}
        return stream

    def read(self, begin: int, end: int | None) -> np.ndarray:
        pieces = [np.empty((0, 1), np.float32)]
        for position, samples in self._samples_from(begin):
            if end is not None and position >= end:
                break
            last = None if end is None else end - position
            pieces.append(samples[max(0, begin - position) : last])
        return np.concatenate(pieces[1:] or pieces)

    def seconds(self) -> float:
        stream, container = self._stream, self._stream.container
        if any(name in self._formats for name in EXACT_DURATIONS):
            if stream.duration is not None:
                return float(stream.duration * stream.time_base)
            if container.duration is not None and len(container.streams) == 1:
                return container.duration / av.time_base
        return sum(len(samples) for _, samples in self._samples_from(0)) / self.rate

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
        frames = self._decode(self._stream)
        first = next(frames, None)
        if first is None:
            return
        position = 0
        if SEEKABLE in self._formats and begin > SEEK_MARGIN * self.rate:
            position, frames = self._seek(first, begin)
        else:
            frames = chain([first], frames)
        longest = 0
        for frame in frames:
            yield position, frame
            position += frame.samples
            longest = max(longest, frame.samples)
        duration = self._stream.duration
        if SEEKABLE in self._formats and duration is not None:
            missing = duration * self._stream.time_base - Fraction(position, self.rate)
            if missing * self.rate > 2 * longest:  # the last frames may be padding
                raise InputError(f"{self.path}: cut short: {float(missing):.2f} s are missing")

    def _seek(self, first: av.AudioFrame, begin: int) -> tuple[int, Iterator[av.AudioFrame]]:
        """Decode from shortly before `begin`, or from the first frame if the seek fails.

        Returns:
            The position of the first sample, and the frames.
        """
        stream = self._stream
        ticks_per_sample = 1 / (stream.time_base * self.rate)
        margin = int(SEEK_MARGIN * self.rate)
        if first.pts is not None and ticks_per_sample >= 1:
            wanted = first.pts + int((begin - margin) * ticks_per_sample)
            stream.container.seek(wanted, stream=stream, backward=True)
            frames = self._decode(stream)
            head = next(frames, None)
            if head is not None and head.pts is not None:
                position = round((head.pts - first.pts) / ticks_per_sample)
                if position <= begin - margin // 2:
                    return position, chain([head], frames)
        return 0, self._decode(self._open())

    def _decode(self, stream: "av.AudioStream") -> Iterator[av.AudioFrame]:
        for packet in stream.container.demux(stream):
            if packet.is_corrupt:
                raise InputError(f"{self.path}: cut short inside a packet")
            yield from packet.decode()


def _to_floats(frame: av.AudioFrame) -> np.ndarray:
    """Return the samples float32 `[n, C]` of a decoded frame, full scale 1."""
    values: np.ndarray = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float32)
