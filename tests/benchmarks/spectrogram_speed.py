"""Speed of spectrograms of batches, compared with NumPy, one utterance after another.

    python tests/benchmarks/spectrogram_speed.py [--threads 2] [--batch 32] [--rounds 15]

The baseline is a straightforward implementation without a loop: SciPy's filters, all frames at
once, NumPy's transform of all 512 bins. All variants process the same segments of 4 s, in turns.
The output is the median and the minimum over the rounds, in milliseconds per segment, and the
speedup over the baseline. Two threads need two idle cores: on a busy machine, ignore their median.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.signal import lfilter

from emovox.media.spectrogram import batch_spectrogram, num_samples, spectrogram


def baseline(samples: np.ndarray) -> np.ndarray:
    levels = lfilter([1, -1], [1, -0.99], samples * 32768)
    levels = lfilter([1, -0.97], [1], levels)
    frames = np.lib.stride_tricks.sliding_window_view(levels, 400)[::160] * np.hamming(400)
    return np.abs(np.fft.fft(frames, 512)).T.astype(np.float32)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{platform.machine()}, torch {torch.__version__}, NumPy {np.__version__}, "
        f"{args.threads} threads, {args.batch} segments of 4 s"
    )
    shape = args.batch, num_samples(400)
    samples = 0.1 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    batch = torch.from_numpy(samples)
    difference = np.abs(batch_spectrogram(batch[:1])[0].numpy() - baseline(samples[0]))
    print(f"largest difference / mean {difference.max() / baseline(samples[0]).mean():.1e}")
    variants: dict[str, Callable[[], object]] = {
        "NumPy, one by one": lambda: [baseline(row) for row in samples],
        "emovox.spectrogram, one by one": lambda: [spectrogram(row) for row in samples],
        "emovox, one by one": lambda: [batch_spectrogram(row[None]) for row in batch],
        "emovox, in a batch": lambda: batch_spectrogram(batch),
    }
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        seconds(run)
    for _ in range(args.rounds):
        for name, run in variants.items():
            taken[name].append(seconds(run))
    print(f"  {'':<32}{'median':>10}{'':>10}{'minimum':>10}")
    for name, times in taken.items():
        line = f"  {name:<32}"
        for figure in (statistics.median, min):
            ratio = figure(taken["NumPy, one by one"]) / figure(times)
            line += f"{1000 * figure(times) / args.batch:10.2f}{ratio:8.1f} x"
        print(line)


if __name__ == "__main__":
    main()
