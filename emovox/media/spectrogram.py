"""The magnitude spectrogram that the student receives, as the reference code computes it.

The input is 16 kHz mono. The output has one column per 10 ms and one row for each of the 512 bins
of the Fourier transform, DC first, including the mirrored half; no logarithm and no mel scale.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.fft import rfft
from scipy.signal import lfilter

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16_000  # samples per second
FRAME = 400  # samples, 25 ms
HOP = 160  # samples from one frame to the next, 10 ms
NUM_BINS = 512  # points of the Fourier transform; frames are zero-padded to it
NUM_HALF = NUM_BINS // 2 + 1  # distinct bins; the others mirror them
MARGIN = 384  # samples that the reference code reads after the hops of a segment, 24 ms
LEVELS = 2.0**15  # scale of samples within -1..1: 16-bit levels
DC_POLE = 0.99  # of the filter that removes the mean, y[n] = x[n] - x[n-1] + 0.99 y[n-1]
PRE_EMPHASIS = 0.97  # y[n] = x[n] - 0.97 x[n-1]
EPSILON = 1e-5  # added to the deviation of a bin, in 16-bit levels; keeps silence finite

# Widths in frames to which whole utterances are cut: 1 to 10 s.
BUCKETS = tuple(range(100, 1001, 100))

CACHED_SAMPLES = 1 << 18  # samples that a CPU transforms at a time; they fit into its cache
SCAN_BLOCK = 256  # samples per block of the recursive filter
SCAN_REACH = 9  # blocks that one block affects

Array = TypeVar("Array", np.ndarray, "Tensor")


def num_frames(num_samples: int) -> int:
    """Return the number of columns of a spectrogram.

    Example:
        >>> num_frames(16_000)  # one second
        98
    """
    return max(0, (num_samples - FRAME) // HOP + 1)


def num_samples(num_frames: int) -> int:
    """Return the number of samples that the reference code reads for a segment.

    Example:
        >>> num_samples(400)  # 4 s
        64384
    """
    return num_frames * HOP + MARGIN


def centre_bucket(num_frames: int) -> tuple[int, int]:
    """Return the first frame and width of the central part of an utterance.

    The width is the largest bucket that fits. The start is that of the reference code, which counts
    frames from 1: one frame before the exact middle.

    Raises:
        ValueError: fewer frames than the smallest bucket.

    Example:
        >>> centre_bucket(498)  # the central 4 s of 5 s
        (48, 400)
    """
    if num_frames < BUCKETS[0]:
        raise ValueError(f"{num_frames} frames; the smallest bucket has {BUCKETS[0]}")
    width = max(bucket for bucket in BUCKETS if bucket <= num_frames)
    return max(0, (num_frames - width + 1) // 2 - 1), width


def spectrogram(samples: np.ndarray) -> np.ndarray:
    """Return the magnitudes float32 `[512, T]` of 16 kHz samples `[L]`, not normalised.

    If all samples are within -1..1, they are multiplied by 2^15. The dither of the reference code,
    a millionth of the deviation, is omitted, so that the output is repeatable.

    Raises:
        ValueError: not one axis, fewer samples than one frame, or a sample that is not finite.

    Example:
        >>> spectrogram(np.zeros(16_000)).shape
        (512, 98)
    """
    levels = np.asarray(samples, np.float64)
    if levels.ndim != 1 or len(levels) < FRAME:
        raise ValueError(f"expected samples [L] of at least {FRAME}, got {list(levels.shape)}")
    if not np.isfinite(levels).all():
        raise ValueError("a sample is not a finite number")
    if np.abs(levels).max() <= 1:
        levels = levels * LEVELS
    levels = lfilter([1, -1], [1, -DC_POLE], levels)
    levels = lfilter([1, -PRE_EMPHASIS], [1], levels)
    frames = np.lib.stride_tricks.sliding_window_view(levels, FRAME)[::HOP]
    half = np.abs(rfft(frames * np.hamming(FRAME), NUM_BINS)).astype(np.float32).T
    return np.concatenate([half, half[-2:0:-1]])


def normalise(spectrogram: Array) -> Array:
    """Normalise each bin to zero mean and unit deviation (N - 1) over time, the last axis.

    Constant bins become zeros.
    """
    centred = spectrogram - spectrogram.mean(-1, keepdims=True)  # type: ignore[call-overload]
    degrees = max(1, spectrogram.shape[-1] - 1)
    deviation = ((centred * centred).sum(-1, keepdims=True) / degrees) ** 0.5
    return centred / (deviation + EPSILON)


def batch_spectrogram(samples: "Tensor") -> "Tensor":
    """Return the magnitudes float32 `[B, 512, T]` of 16 kHz samples `[B, L]`, on their device.

    The same as `spectrogram` of each utterance, within the rounding of float32. Without a gradient,
    and without a check for samples that are not finite.

    Raises:
        ValueError: not two axes, or fewer samples than one frame.
    """
    import torch

    if samples.ndim != 2 or samples.shape[1] < FRAME:
        raise ValueError(f"expected samples [B, L >= {FRAME}], got {list(samples.shape)}")
    num_utterances, length = samples.shape
    step = max(1, num_utterances if samples.is_cuda else CACHED_SAMPLES // length)
    mirror = torch.arange(NUM_HALF - 2, 0, -1, device=samples.device)
    with torch.no_grad():
        shape = (num_utterances, NUM_BINS, num_frames(length))
        magnitudes = samples.new_empty(shape, dtype=torch.float32)
        for first in range(0, num_utterances, step):
            part = slice(first, first + step)
            half, mirrored = magnitudes[part, :NUM_HALF], magnitudes[part, NUM_HALF:]
            _half_spectrogram(samples[part].float(), half)
            torch.index_select(half, 1, mirror, out=mirrored)
    return magnitudes


def _half_spectrogram(samples: "Tensor", out: "Tensor") -> None:
    """Write the magnitudes `[B, 257, T]` of the distinct bins into `out`."""
    import torch

    # Frames as long as the transform, with a window that is zero at the end: no padding per frame.
    beyond = NUM_BINS - FRAME
    window = torch.from_numpy(np.pad(np.hamming(FRAME), (0, beyond))).to(samples)
    peaks = samples.abs().amax(dim=1, keepdim=True)
    levels = samples * (1 + (LEVELS - 1) * (peaks <= 1))  # each utterance is tested separately
    levels = torch.nn.functional.pad(_emphasise(levels), (0, beyond))
    bins = torch.fft.rfft(levels.unfold(1, NUM_BINS, HOP) * window)
    # Takes a third of the time of abs(), which avoids an overflow of the squares.
    squares = torch.view_as_real(bins).square_()
    torch.add(squares[..., 0].mT, squares[..., 1].mT, out=out).sqrt_()


def _emphasise(levels: "Tensor") -> "Tensor":
    """Apply both filters: dx[n] + (0.99 - 0.97) y[n-1], where y is the output of the first."""
    import torch

    steps = levels.diff(dim=1, prepend=levels.new_zeros(len(levels), 1))
    without_mean = torch.nn.functional.pad(_leaky_sum(steps), (1, -1))
    return steps.add_(without_mean, alpha=DC_POLE - PRE_EMPHASIS)


def _leaky_sum(x: "Tensor") -> "Tensor":
    """Compute y[n] = x[n] + 0.99 y[n-1] along the last axis of `[B, L]`, by blocks.

    Within a block, y is a cumulative sum of x[n] / 0.99^n, times 0.99^n. A carry decays
    by 0.99^256 per block; after nine blocks it is below the rounding of float32.
    """
    import torch

    length = x.shape[1]
    powers = torch.from_numpy(DC_POLE ** np.arange(SCAN_BLOCK)).to(x)
    fades = torch.from_numpy(DC_POLE ** (SCAN_BLOCK * np.arange(SCAN_REACH)[::-1])).to(x)
    blocks = torch.nn.functional.pad(x, (0, -length % SCAN_BLOCK)).view(len(x), -1, SCAN_BLOCK)
    sums = (blocks / powers).cumsum_(2).mul_(powers)
    ends = torch.nn.functional.pad(sums[:, :, -1], (SCAN_REACH, -1))
    carried = (ends.unfold(1, SCAN_REACH, 1) * fades).sum(2, keepdim=True)
    return sums.addcmul_(carried, DC_POLE * powers).flatten(1)[:, :length]
