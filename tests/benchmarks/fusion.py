"""Fusion of face and sound against each alone, on a synthetic corpus of 36 speakers.

    python tests/benchmarks/fusion.py [--out FOLDER] [--seeds 3]

The value is half a function of the face alone and half of the sound alone, independent of each
other. The face curve is seen in the logits, through noise; the sound curve is the rate of a
tremolo, heard by a student with random weights. The noise is drawn once, before any training. The
annotations lag 2.0 s behind. Prints the delay that was found and, for each seed, what
`emovox evaluate-fusion` prints for unheard speakers. About half a second of synthetic sound per
second, so FOLDER, if given, is written once and used again.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import soundfile
import torch

import emovox
from emovox import checkpoints
from emovox.student.networks import StudentConfig, VGGVox

SPEAKERS, TRACKS, SECONDS = 36, 3, 20
STEP, RATE, DELAY = 0.24, 16_000, 2.0
NOISE = 0.3  # deviation in the logits and in the value, of curves from -1 to 1
UNHEARD = 12  # speakers


def curve(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """A smooth random curve from -1 to 1."""
    waves = [
        np.sin(2 * np.pi * (f * times + p))
        for f, p in zip(rng.uniform(0.02, 0.15, 4), rng.random(4), strict=True)
    ]
    total = np.sum(waves, axis=0)
    return total / np.abs(total).max()


def write_corpus(out: Path) -> None:
    """Write dataset, sound, targets and student."""
    rng = np.random.default_rng(0)
    tracks: dict[str, list[Any]] = {"track_id": [], "split": [], "duration_ms": []}
    frames: dict[str, list[Any]] = {
        "track_id": [],
        "frame_index": [],
        "logit_low": [],
        "logit_high": [],
    }
    targets: dict[str, list[Any]] = {"track_id": [], "timestamp_ms": [], "valence": []}
    for speaker in range(SPEAKERS):
        for number in range(1, TRACKS + 1):
            name = f"speaker{speaker:02d}/talk/{number:05d}"
            seen = rng.integers(2**32), rng.integers(2**32)
            face, sound = (curve(np.random.default_rng(s), np.arange(0, 40, 0.01)) for s in seen)

            def at(values: np.ndarray, times: np.ndarray) -> np.ndarray:
                return np.interp(times, np.arange(0, 40, 0.01), values)

            times = np.arange(0, SECONDS, STEP)
            kept = rng.random(len(times)) > 0.1  # the detector loses a face
            logits = at(face, times)[:, None] * [-2, 2] + rng.normal(0, 2 * NOISE, (len(times), 2))
            frames["track_id"] += [name] * kept.sum()
            frames["frame_index"] += np.flatnonzero(kept).tolist()
            for place, column in enumerate(("logit_low", "logit_high")):
                frames[column] += logits[kept, place].tolist()
            tracks["track_id"].append(name)
            tracks["split"].append("unheard_val" if speaker < UNHEARD else "train")
            tracks["duration_ms"].append(SECONDS * 1000)
            clock = np.arange(SECONDS * RATE) / RATE
            beats = np.cumsum(7.5 + 4.5 * at(sound, clock)) / RATE
            voice = sum(np.sin(2 * np.pi * k * 150 * clock) / k for k in range(1, 20))
            samples = 0.1 * voice * (1 + 0.9 * np.sin(2 * np.pi * beats))
            samples += 0.01 * rng.normal(size=len(samples))
            path = out / "sound" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, RATE)
            marks = np.arange(0, SECONDS, 0.04)
            value = 0.5 * at(face, marks - DELAY) + 0.5 * at(sound, marks - DELAY)
            value += rng.normal(0, NOISE / 3, len(marks))
            targets["track_id"] += [name] * len(marks)
            targets["timestamp_ms"] += np.round(marks * 1000).astype(int).tolist()
            targets["valence"] += value.tolist()
    emovox.write_dataset(out / "dataset", tracks, frames, name="fusion", synthetic=True)
    pyarrow.csv.write_csv(pa.table(targets), out / "targets.csv")
    net = VGGVox(StudentConfig(1 / 8), torch.Generator().manual_seed(0))
    checkpoints.save(out / "student.safetensors", net, {"recipe": {"seconds": 1.0}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="emovox-fusion-"))
    if not (out / "targets.csv").exists():
        write_corpus(out)
    common = out / "dataset", out / "targets.csv", out / "sound"
    student = out / "student.safetensors"
    for seed in range(args.seeds):
        started = time.perf_counter()
        runs = {kind: out / f"{kind}-{seed}" for kind in ("model", "audio", "video")}
        for kind, run in runs.items():
            emovox.train_fusion(
                *common, run, fusion=kind, sound=student, seed=seed, say=print, device="cpu"
            )
        result = emovox.evaluate_fusion(
            runs["model"],
            *common,
            against=[runs["audio"], runs["video"]],
            sound=student,
            device="cpu",
        )
        print(f"seed {seed}, {time.perf_counter() - started:.0f} s")
        print(result.summary())
    result.write(out / "evaluation")


if __name__ == "__main__":
    main()
