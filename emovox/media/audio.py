"""Audio of any format as 16 kHz mono, whole or in part, on the clock of the pictures.

libsndfile reads WAV, AIFF, AU and FLAC; FFmpeg decodes all else, and what libsndfile refuses.
"""

import os
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np

from emovox.errors import InputError, NoSoundError
from emovox.limits import MAX_FILE_SECONDS
from emovox.media.sound_decoders import open_sound

SAMPLE_RATE = 16_000  # samples per second
MAX_PEAK = 16.0  # times full scale; larger floats are on another scale

# Options of libswresample: a passband to 7.2 kHz, and 90 dB attenuation above 8 kHz; see
# tests/test_media_audio.py.
RESAMPLER = {"filter_size": "128", "cutoff": "0.955", "phase_shift": "10", "linear_interp": "1"}
RESAMPLER_REACH = 128  # samples of the lower rate on which an output sample depends, to each side

Channels = Literal["mean", "left"]


def read_audio(
    path: str | os.PathLike[str],
    start: float | None = None,
    end: float | None = None,
    *,
    channels: Channels = "mean",
    resample: bool = True,
) -> np.ndarray:
    """Read audio as float32 `[L]`, mono, 16 kHz, within -1..1.

    Times count from the first displayed picture of a video, and from the first sample of a file
    without pictures. Sound that starts after the first picture is preceded by zeros; sound before
    it is left out. Samples beyond full scale are clipped, as in 16-bit audio.

    Args:
        path: an audio file, or a video with sound.
        start: seconds; None for 0.
        end: seconds; None for the end of the sound. The result is shorter if the sound ends
            earlier.
        channels: `mean` of all channels, or the `left` (first) one.
        resample: convert to 16 kHz. False uses the samples as if their rate were 16 kHz, as the
            reference code does; `start` and `end` then count 16,000 samples per second.

    Raises:
        InputError: the file is missing, unreadable or cut short, or a sample is not finite.
        NoSoundError: the file has no sound, or its sound ends before `start`.
        ValueError: `start` is negative or not a number, or `end` is not after it.

    Example:
        >>> import soundfile
        >>> soundfile.write("tone.wav", np.sin(np.arange(48_000) / 20), 48_000)
        >>> read_audio("tone.wav").shape
        (16000,)
        >>> read_audio("tone.wav", start=0.5, end=0.6).shape
        (1600,)
    """
    path = Path(path)
    if channels not in get_args(Channels):
        raise ValueError(f"channels {channels!r} is not one of {', '.join(get_args(Channels))}")
    start = 0.0 if start is None else start
    if not start >= 0 or not (end is None or end > start):
        raise ValueError(f"start {start}, end {end}: not a valid part of a file")
    first = round(min(start, MAX_FILE_SECONDS) * SAMPLE_RATE)
    last = None
    if end is not None and end < MAX_FILE_SECONDS:
        last = max(first + 1, round(end * SAMPLE_RATE))
    with open_sound(path) as source:
        rate = source.rate if resample else SAMPLE_RATE
        before, begin, stop = _window(first, last, rate)
        samples = _to_mono(source.read(begin, stop), channels, path)
    samples = _resampled(samples, rate)[first - before :][: None if last is None else last - first]
    if not len(samples):
        raise NoSoundError(f"{path}: holds no sound" + (f" from {start:g} s on" if start else ""))
    return np.clip(samples, -1, 1)


def audio_duration(path: str | os.PathLike[str]) -> float:
    """Return the time at which the sound of a file ends, in seconds on the clock of `read_audio`.

    For a file without pictures these are the seconds of sound in it. The header gives them, except
    in formats that only estimate the duration: these are decoded.

    Raises:
        InputError: the file is missing or unreadable.
        NoSoundError: the file has no sound.
    """
    with open_sound(Path(path)) as source:
        seconds = source.seconds()
    if not seconds > 0:
        raise NoSoundError(f"{path}: holds no sound")
    return seconds


def _window(first: int, last: int | None, rate: int) -> tuple[int, int, int | None]:
    """Find the samples of a file of another rate from which to compute `first` to `last` at 16 kHz.

    Return a sample at 16 kHz, the sample of the file at its time, and the end in the file.
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
