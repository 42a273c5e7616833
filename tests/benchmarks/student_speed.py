"""Speed of reading sound, compared with training a student on it.

    python tests/benchmarks/student_speed.py [--audio FOLDER] [--threads 2] [--workers 2]

The full-width network trains on segments of 4 s that are already on the device. The loader alone
reads random segments of the WAV and FLAC files in the folder, or of files written for this
benchmark. Rounds alternate between the two, and each figure is the median over the rounds. The
loader should be at least 1.5 times as fast as the network.
"""

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch

from emovox.dataset import schema
from emovox.dataset.reader import load
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.devices import device_name, resolve_device, resolve_precision
from emovox.emotions import EMOTIONS
from emovox.ids import TrackKey
from emovox.media.audio import SAMPLE_RATE
from emovox.media.spectrogram import batch_spectrogram, normalise
from emovox.student.clips import Clip
from emovox.student.segments import TrainSegments, load_batches
from emovox.student.student_config import StudentTrainConfig
from emovox.student.trainer import distillation_loss
from emovox.student.vggvox import VGGVox

ENOUGH = 1.5
NUM_WRITTEN = 100  # files of each kind
STEPS = 4  # of the network per round; the loader reads LOADED times as many segments
LOADED = 20


def write_files(folder: Path, ending: str) -> Path:
    """Write noise as loud as speech, 4.5 to 12 s each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(NUM_WRITTEN):
        samples = rng.normal(0, 0.05, round(rng.uniform(4.5, 12) * SAMPLE_RATE))
        soundfile.write(folder / f"{number:05d}.{ending}", samples, SAMPLE_RATE)
    return folder


def segments_of(audio: Path, folder: Path, config: StudentTrainConfig) -> TrainSegments:
    """Return random segments of the files, with a dataset of random logits."""
    paths = sorted(p for p in audio.rglob("*") if p.suffix in (".wav", ".flac"))
    durations = [soundfile.info(path).duration for path in paths]
    rows = [
        TrackRow(TrackKey("id", "v", i), count, count)
        for i, count in enumerate(int(seconds * 1000 / schema.STEP_MS) + 1 for seconds in durations)
    ]

    def chunks() -> Iterator[Chunk]:
        rng = np.random.default_rng(0)
        for row in rows:
            index = np.arange(row.n_frames)
            columns = [
                pa.array([row.track_id] * row.n_frames),
                pa.array(index.astype(np.int16)),
                pa.array((index * schema.STEP_MS).astype(np.int32)),
                *map(pa.array, rng.normal(size=(len(EMOTIONS), row.n_frames)).astype(np.float32)),
            ]
            yield Chunk("train", [row], pa.Table.from_arrays(columns, schema=schema.EIGHT.frames))

    teacher = {"name": "noise", "sha256": None}
    info = DatasetInfo(
        "noise", "1.0.0", schema.STEP_MS, teacher, {"origin": "noise"}, ("frames", "tracks")
    )
    write_chunks(folder, chunks(), [], info, hdf5=False)
    clips = [
        Clip(row.track_id, path, seconds)
        for row, path, seconds in zip(rows, paths, durations, strict=True)
    ]
    return TrainSegments(load(folder), clips, audio, config)


def training(config: StudentTrainConfig, device: str) -> Callable[[], int]:
    """Return a function that trains some steps without a loader, and counts the segments."""
    net = VGGVox(generator=torch.Generator().manual_seed(0))
    net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), config.learning_rate, momentum=config.momentum)
    on_gpu = device != "cpu"
    forward = torch.compile(net) if on_gpu else net
    reduced = resolve_precision("auto", device) == "bf16"
    samples = torch.randn(config.batch_size, config.num_samples, device=device) / 10
    targets = torch.randn(config.batch_size, len(EMOTIONS), device=device)

    def run() -> int:
        for _ in range(STEPS):
            spectrograms = normalise(batch_spectrogram(samples))
            with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=reduced):
                logits = forward(spectrograms)
            loss = distillation_loss(logits.float(), targets, config).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return STEPS * config.batch_size

    return run


def loading(segments: TrainSegments, workers: int) -> Callable[[], int]:
    """Return a function that reads batches, after a warm-up, and counts the segments."""
    size = segments.config.batch_size
    num_batches = STEPS * LOADED
    batches = load_batches(segments, range(10**9), size, workers)
    for _ in range(2 * workers + 2):
        next(batches)

    def run() -> int:
        return sum(len(batch.samples) for batch in itertools.islice(batches, num_batches))

    return run


def rate(run: Callable[[], int]) -> float:
    started = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audio", type=Path, help="folder of WAV or FLAC files")
    parser.add_argument("--threads", type=int, default=2, help="threads of the network")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the loader")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    config = StudentTrainConfig(batch_size=arguments.batch_size, device=device)
    print(
        f"{device_name(device)}, {platform.processor() or platform.machine()}, torch "
        f"{torch.__version__}, {arguments.threads} threads, {arguments.workers} workers"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["EMOVOX_CACHE"] = str(folder / "cache")
        network = f"network, batches of {config.batch_size}"
        runs = {network: training(config, device)}
        if arguments.audio:
            folders = {str(arguments.audio): arguments.audio}
        else:
            folders = {f"{e.upper()}, 16 kHz": write_files(folder / e, e) for e in ("wav", "flac")}
        for kind, audio in folders.items():
            segments = segments_of(audio, folder / f"dataset {len(runs)}", config)
            runs[f"loader, {kind}"] = loading(segments, arguments.workers)
        rates: dict[str, list[float]] = {what: [] for what in runs}
        for _ in range(arguments.rounds):
            for what, run in runs.items():
                rates[what].append(rate(run))
    print(f"\n| what | segments/s | relative to the network |\n|{' --- |' * 3}")
    for what, values in rates.items():
        ratio = statistics.median(values) / statistics.median(rates[network])
        verdict = "" if what == network else ", fast enough" if ratio >= ENOUGH else ", TOO SLOW"
        print(f"| {what} | {statistics.median(values):,.1f} | {ratio:,.1f}{verdict} |")


if __name__ == "__main__":
    main()
