"""Speed of reading sound, from files and from a sound cache, compared with training a student.

    python tests/benchmarks/student_speed.py [--audio FOLDER] [--mp4 FOLDER] [--workers 2]

The full-width network trains on segments of 4 s that are already on the device (a repeated batch),
and on segments that the loader reads from the cache meanwhile. The loader alone reads random
segments of the WAV and FLAC files in the folder, or of files written for this benchmark, of the
AAC in the videos of --mp4 (in the layout of VoxCeleb2, twenty copies of each), and of the cache
that `pack_sound` makes of these videos, or else of the WAV files. Rounds alternate between all of
them, and each figure is the median over the rounds. Packing is timed once, in one process.
"""

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from operator import truediv
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch
from clips import copy_clips

from emovox.dataset import schema
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.devices import device_name, resolve_device, resolve_precision
from emovox.emotions import EMOTIONS
from emovox.ids import TrackKey
from emovox.media.audio import SAMPLE_RATE, audio_duration
from emovox.media.spectrogram import batch_spectrogram, normalise
from emovox.student.clips import Windows
from emovox.student.networks import VGGVox
from emovox.student.segments import Batch, SpeechSegments, load_batches
from emovox.student.sound_cache import FULL_SCALE, pack_sound
from emovox.student.student_config import StudentTrainConfig
from emovox.student.trainer import distillation_loss

NUM_WRITTEN = 100  # files of each kind
STEPS = 4  # of the network per round; the loader reads LOADED times as many segments
LOADED = 20
CACHED = 10  # times as many from a cache
COPIES = 20  # of each video


def write_files(folder: Path, ending: str) -> Path:
    """Write noise as loud as speech, 4.5 to 12 s each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(NUM_WRITTEN):
        samples = rng.normal(0, 0.05, round(rng.uniform(4.5, 12) * SAMPLE_RATE))
        soundfile.write(folder / f"{number:05d}.{ending}", samples, SAMPLE_RATE)
    return folder


def segments_of(
    paths: list[Path], folder: Path, config: StudentTrainConfig, cache: Path | None = None
) -> SpeechSegments:
    """Return random segments of the files, with a dataset of random logits in a new folder."""
    rows = []
    for number, path in enumerate(paths):
        count = int(audio_duration(path) * 1000 / schema.STEP_MS) + 1
        rows.append(TrackRow(TrackKey("id", "v", number), count, count))
        link = folder / f"audio/{rows[-1].track_id}{path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())

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
    write_chunks(folder / "dataset", chunks(), [], info, hdf5=False)
    place = folder / "dataset", folder / "audio", "train"
    return SpeechSegments(*place, batch_size=config.batch_size, sound_cache=cache)


def training(
    config: StudentTrainConfig, device: str, batches: Iterator[Batch] | None, waits: list[float]
) -> Callable[[], int]:
    """Return a function that trains some steps and counts the segments; None: a repeated batch.

    `waits` receives the seconds for which each step waits for its batch.
    """
    net = VGGVox(generator=torch.Generator().manual_seed(0))
    net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), config.learning_rate, momentum=config.momentum)
    on_gpu = device != "cpu"
    forward = torch.compile(net) if on_gpu else net
    reduced = resolve_precision("auto", device) == "bf16"
    samples = torch.randn(config.batch_size, Windows(config.seconds).length, device=device) / 10
    targets = torch.randn(config.batch_size, len(EMOTIONS), device=device)

    def read() -> tuple[torch.Tensor, torch.Tensor]:
        if batches is None:
            return samples, targets
        started = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - started)
        found = [torch.from_numpy(array) for array in (batch.samples, batch.targets)]
        found = [(x.pin_memory() if on_gpu else x).to(device, non_blocking=True) for x in found]
        return found[0].float() / FULL_SCALE, found[1]

    def run() -> int:
        for _ in range(STEPS):
            heard, wanted = read()
            spectrograms = normalise(batch_spectrogram(heard))
            with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=reduced):
                logits = forward(spectrograms)
            loss = distillation_loss(logits.float(), wanted, config).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return STEPS * config.batch_size

    return run


def packing(paths: list[Path], segments: SpeechSegments, out: Path) -> str:
    """Pack the files in one process; return the speed in words."""
    started, used = time.perf_counter(), time.process_time()
    pack_sound(segments.dataset.path, segments.root, out, jobs=1)
    passed, used = time.perf_counter() - started, time.process_time() - used
    seconds = sum(clip.duration for clip in segments.clips)
    return (
        f"packing {len(paths):,} files, {seconds:,.0f} s of sound: {seconds / used:,.0f} times "
        f"real time per second of a core, {seconds / passed:,.0f} by the clock"
    )


def loading(segments: SpeechSegments, workers: int, rounds: int) -> Callable[[], int]:
    """Return a function that reads batches, after a warm-up, and counts the segments."""
    size = segments.config.batch_size
    num_batches = STEPS * LOADED * (CACHED if segments.sounds else 1)
    total = (rounds * num_batches + 2 * workers + 2) * size
    batches = load_batches(segments, range(total), size, workers)
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
    parser.add_argument("--mp4", type=Path, help="folder of videos in the layout of VoxCeleb2")
    parser.add_argument("--threads", type=int, default=2, help="threads of the network")
    parser.add_argument("--workers", type=int, default=2, help="threads of the loader")
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
        if arguments.audio:
            found = sorted(p for p in arguments.audio.rglob("*") if p.suffix in (".wav", ".flac"))
            sources = {str(arguments.audio): found}
        else:
            sources = {
                f"{e.upper()}, 16 kHz": sorted(write_files(folder / e, e).iterdir())
                for e in ("wav", "flac")
            }
        if arguments.mp4:
            sources["AAC of mp4"] = copy_clips(arguments.mp4, folder / "mp4", COPIES)
        readers = {
            kind: segments_of(paths, folder / f"data {number}", config)
            for number, (kind, paths) in enumerate(sources.items())
        }
        chosen = list(sources)[-1 if arguments.mp4 else 0]
        paths, cache = sources[chosen], folder / "sound"
        packed = packing(paths, readers[chosen], cache)
        readers["cache"] = cached = segments_of(paths, folder / "packed", config, cache)
        steps = range(STEPS * arguments.rounds * config.batch_size)
        batches = load_batches(cached, steps, config.batch_size, arguments.workers)
        fed, waits = "network, batches from the cache", list[float]()
        network = f"network, a repeated batch of {config.batch_size}"
        runs = {
            network: training(config, device, None, []),
            fed: training(config, device, batches, waits),
        }
        for kind, segments in readers.items():
            runs[f"loader, {kind}"] = loading(segments, arguments.workers, arguments.rounds)
        rates: dict[str, list[float]] = {what: [] for what in runs}
        used: dict[str, list[float]] = {what: [] for what in runs}  # of the cores, here
        for _ in range(arguments.rounds):
            for what, run in runs.items():
                before = time.process_time()
                rates[what].append(rate(run))
                used[what].append(time.process_time() - before)
    count = STEPS * LOADED * CACHED * config.batch_size
    per_core = count / statistics.median(used["loader, cache"])
    extra = statistics.median(map(truediv, used[fed], used[network]))
    waited = statistics.mean(waits[1:]) * statistics.median(rates[fed]) / config.batch_size
    print(f"\n{packed}\ncache: {per_core:,.0f} segments per second of a core")
    print(f"a step from the cache waits {waited:.2%} of its time for its batch, and takes")
    print(f"{extra:.3f} times the seconds of the cores of a step on a repeated batch")
    print(f"\n| what | segments/s | relative to the network |\n|{' --- |' * 3}")
    for what, values in rates.items():
        ratio = statistics.median(values) / statistics.median(rates[network])
        print(f"| {what} | {statistics.median(values):,.1f} | {ratio:,.2f} |")


if __name__ == "__main__":
    main()
