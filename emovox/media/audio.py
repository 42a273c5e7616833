"""Any audio as 16 kHz mono, whole or a piece of it.

WAV and FLAC are read by libsndfile, which goes straight to the piece. Everything else is decoded by
FFmpeg: MP4 and its kin from a little before the piece on, other containers, whose times are not
exact to the sample, from the beginning.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
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
MAX_PEAK = 16.0  # times full scale; floats beyond it are levels of some other scale
MAX_RATE = 1_000_000  # samples per second; a header that claims more is not believed

# Of libswresample: a pass band to 7.2 kHz, and what is above 8 kHz 90 dB down; see
# tests/test_media_audio.py.
RESAMPLER = {"filter_size": "128", "cutoff": "0.955", "phase_shift": "10", "linear_interp": "1"}
RESAMPLER_REACH = 128  # samples of the lower rate; farther away none makes a difference

SEEK_MARGIN = 0.5  # seconds that are decoded before a piece, for codecs that build up on the past
SEEKABLE = "mp4"  # in the names of containers whose index is exact to the sample
EXACT_DURATIONS = ("mp4", "matroska", "ogg")  # containers that do not estimate their duration

SNDFILE_MAGIC = (b"RIFF", b"RF64", b"fLaC")
STREAMED = 0x7FFFFF00  # bytes of a WAV; writers that do not know the size claim more
WAV_DATA = re.compile(r"^data\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)  # libsndfile's log

Channels = Literal["mean", "left"]


def read_audio(
    path: str | Path,
    start: float = 0.0,
    duration: float | None = None,
    *,
    channels: Channels = "mean",
    resample: bool = True,
) -> np.ndarray:
    """Read audio as float32 `[L]`, mono, 16 kHz, within -1..1.

    What a file decodes to beyond full scale is clipped, as in 16 bits.

    Args:
        path: of an audio file, or a video with sound.
        start: seconds from its first sample.
        duration: seconds; None for all that follows. Less is read where the file ends before.
        channels: `mean` of all, or the `left` (first) one.
        resample: to 16 kHz; False takes the samples as if they were 16 kHz, as the reference does,
            and then `start` and `duration` count 16,000 samples a second.

    Raises:
        InputError: missing, unreadable, cut short, without sound, or holds samples that are no
            numbers; or nothing is left after `start`.
    """
    path = Path(path)
    if channels not in get_args(Channels):
        raise ValueError(f"channels {channels!r} is not one of {', '.join(get_args(Channels))}")
    if not start >= 0 or not (duration is None or duration > 0):
        raise ValueError(f"start {start} and duration {duration} are no piece of a file")
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


def audio_duration(path: str | Path) -> float:
    """Seconds of sound in a file: by its header, or by decoding it where that only estimates.

    Raises:
        InputError: missing, unreadable, or without sound.
    """
    with _open(Path(path)) as source:
        seconds = source.seconds()
    if not seconds > 0:
        raise InputError(f"{path}: holds no sound")
    return seconds


def _window(first: int, last: int | None, rate: int) -> tuple[int, int, int | None]:
    """What to read for samples `first` to `last` at 16 kHz of a file of another rate.

    Returns:
        A sample at 16 kHz that a sample of the file coincides with, that sample, and where to end.
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
    entry = graph.add_abuffer(
        format="flt", layout="mono", sample_rate=rate, time_base=frame.time_base
    )
    options = ":".join(f"{key}={value}" for key, value in RESAMPLER.items())
    resampler = graph.add("aresample", f"{SAMPLE_RATE}:{options}")
    exit_ = graph.add("abuffersink")
    entry.link_to(resampler)
    resampler.link_to(exit_)
    graph.configure()
    graph.push(frame)
    graph.push(None)
    pieces = [np.empty(0, np.float32)]
    while True:
        try:
            pieces.append(graph.pull().to_ndarray()[0])
        except av.error.EOFError:
            return np.concatenate(pieces)


def _to_mono(samples: np.ndarray, channels: Channels, path: Path) -> np.ndarray:
    """Float32 `[L]` of `[L, C]`, checked."""
    peak = np.abs(samples).max(initial=0)
    if not np.isfinite(peak):
        raise InputError(f"{path}: a sample is not a finite number")
    if peak > MAX_PEAK:
        raise InputError(f"{path}: a sample is {peak:g}; floating-point audio is within -1..1")
    mono = samples[:, 0] if channels == "left" else samples.mean(axis=1)
    return np.ascontiguousarray(mono, np.float32)


def _open(path: Path) -> "AbstractContextManager[_Source]":
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not magic:
        raise InputError(f"{path}: is an empty file")
    return _SndFile(path) if magic in SNDFILE_MAGIC else _AvFile(path)


class _Source(AbstractContextManager["_Source"], ABC):
    """An open file.

    Attributes:
        rate: its own samples per second.
    """

    rate: int

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = ExitStack()

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @abstractmethod
    def read(self, begin: int, end: int | None) -> np.ndarray:
        """Samples from `begin` to `end`, or fewer, float32 `[L, C]`."""

    @abstractmethod
    def seconds(self) -> float:
        """Duration."""


class _SndFile(_Source):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._file = self._files.enter_context(soundfile.SoundFile(path))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path}: cannot be read ({error.error_string})") from error
        self.rate = self._file.samplerate
        if data := WAV_DATA.search(self._file.extra_info):
            claimed, found = map(int, data.groups())
            if found < claimed < STREAMED:
                raise InputError(f"{path}: cut short: {found} of {claimed} bytes of sound")

    def read(self, begin: int, end: int | None) -> np.ndarray:
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


class _AvFile(_Source):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._container, self._stream = self._open()
        self._formats = self._container.format.name
        self.rate = self._stream.codec_context.sample_rate
        if not 0 < self.rate <= MAX_RATE:
            raise InputError(f"{path}: its sample rate is {self.rate}")

    def _open(self) -> "tuple[av.container.InputContainer, av.AudioStream]":
        try:
            container = open_media(self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        self._files.enter_context(container)
        if not container.streams.audio:
            raise InputError(f"{self.path}: holds no audio stream")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise InputError(f"{self.path}: no decoder for its audio stream")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}  # no guesses in place of sound
        return container, stream

    def read(self, begin: int, end: int | None) -> np.ndarray:
        pieces = [np.empty((0, 1), np.float32)]
        for position, samples in self._samples_from(begin):
            if end is not None and position >= end:
                break
            last = None if end is None else end - position
            pieces.append(samples[max(0, begin - position) : last])
        return np.concatenate(pieces[1:] or pieces)

    def seconds(self) -> float:
        stream, duration = self._stream, self._container.duration
        if any(name in self._formats for name in EXACT_DURATIONS):
            if stream.duration is not None:
                return float(stream.duration * stream.time_base)
            if duration is not None and len(self._container.streams) == 1:
                return duration / av.time_base
        return sum(len(samples) for _, samples in self._samples_from(0)) / self.rate

    def _samples_from(self, begin: int) -> Iterator[tuple[int, np.ndarray]]:
        """Positions and samples `[n, C]` of decoded frames, from `begin` or before it on."""
        try:
            form = None
            for position, frame in self._frames_from(begin):
                form = form or (self.rate, frame.layout.nb_channels)
                if form != (frame.sample_rate, frame.layout.nb_channels):
                    raise InputError(f"{self.path}: its sample rate or channels change on the way")
                yield position, _to_floats(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: cut short or damaged ({error.strerror})") from error

    def _frames_from(self, begin: int) -> Iterator[tuple[int, av.AudioFrame]]:
        frames = self._decode(self._container, self._stream)
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
        """Decode from a little before `begin`; from the first frame where no index leads there."""
        stream = self._stream
        ticks_per_sample = 1 / (stream.time_base * self.rate)
        margin = int(SEEK_MARGIN * self.rate)
        if first.pts is not None and ticks_per_sample >= 1:
            wanted = first.pts + int((begin - margin) * ticks_per_sample)
            self._container.seek(wanted, stream=stream, backward=True)
            frames = self._decode(self._container, stream)
            head = next(frames, None)
            if head is not None and head.pts is not None:
                position = round((head.pts - first.pts) / ticks_per_sample)
                if position <= begin - margin // 2:
                    return position, chain([head], frames)
        return 0, self._decode(*self._open())

    def _decode(
        self, container: "av.container.InputContainer", stream: "av.AudioStream"
    ) -> Iterator[av.AudioFrame]:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise InputError(f"{self.path}: cut short: it ends inside a packet")
            yield from packet.decode()


def _to_floats(frame: av.AudioFrame) -> np.ndarray:
    """Float32 `[n, C]` of a decoded frame, full scale 1."""
    values: np.ndarray = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float32)
