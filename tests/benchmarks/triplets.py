"""Learning from triplets beside classes, on drawn patterns.

    python tests/benchmarks/triplets.py [--seeds 3] [--epochs 6]

A picture has stripes that are upright or level, and a brightness. The class is the brightness, dark
or bright, which overlap; triplets say that the picture with the other stripes is the odd one. The
face network of Schoneveld et al. begins at random and is trained with and without the triplets, in
the same order. Prints what `emovox evaluate-teacher` gives on other pictures.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

import emovox

SIDE, NUM_TRIPLETS = 80, 120
LEVELS = {"sadness": 110, "happiness": 145}  # mean brightness; its deviation is 25


def draw(rng: np.random.Generator, level: float, upright: bool) -> np.ndarray:
    """Stripes of any phase and contrast, with noise: uint8 `[SIDE, SIDE]`."""
    wave = np.sign(np.sin(np.arange(SIDE) / 6 + rng.uniform(0, 6))) * rng.uniform(20, 50)
    noise = rng.normal(0, 5, (SIDE, SIDE))
    picture = rng.normal(level, 25) + (wave[None, :] if upright else wave[:, None]) + noise
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_triplets(rng: np.random.Generator, folder: Path) -> Path:
    """Write pictures and their triplets in the form of Google's Facial Expression Comparison."""
    folder.mkdir(parents=True)
    for number in range(60):
        picture = draw(rng, rng.choice([*LEVELS.values()]), number % 2 == 0)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    lines = []
    for _ in range(NUM_TRIPLETS):
        kind = rng.integers(2)
        similar = rng.choice(np.arange(kind, 60, 2), 2, replace=False)
        faces = [*similar, rng.choice(np.arange(1 - kind, 60, 2))]
        order = rng.permutation(3)
        cells = [f"http://host/{faces[k]}.png,0,1,0,1" for k in order]
        odd = 1 + [*order].index(2)
        lines.append(",".join([*cells, "TWO_CLASS_TRIPLET", *(f"r{k},{odd}" for k in range(6))]))
    (folder / "triplets.csv").write_text("\n".join(lines) + "\n")
    return folder / "triplets.csv"


def write_classes(rng: np.random.Generator, folder: Path) -> Path:
    """Write 60 pictures of each class for training, and 30 each for validation and test."""
    for part, num in (("train", 60), ("val", 30), ("test", 30)):
        for label, level in LEVELS.items():
            (folder / part / label).mkdir(parents=True)
            for number in range(num):
                picture = draw(rng, level, number % 2 == 0)
                cv2.imwrite(str(folder / part / label / f"{number}.png"), picture)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    started, rng = time.perf_counter(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = write_classes(rng, root / "classes")
        known, other = (write_triplets(rng, root / part) for part in ("known", "other"))
        print(
            "| seed | triplets | accuracy of triplets | accuracy of classes |\n|---:|---|---:|---:|"
        )
        for seed in range(options.seeds):
            for triplets in (str(known), ""):
                run = emovox.train_teacher(
                    data,
                    root / f"run-{seed}-{bool(triplets)}",
                    "teacher-inception",
                    triplets=triplets,
                    epochs=options.epochs,
                    batch_size=12,
                    backbone_rate=1.0,
                    seed=seed,
                    device="cpu",
                )
                found = emovox.evaluate_teacher(run.best, data, triplets=str(other))
                scores = f"{found.triplet_accuracy:.3f} | {found.plain.accuracy:.3f}"
                print(f"| {seed} | {'learned' if triplets else '-'} | {scores} |", flush=True)
    print(f"{time.perf_counter() - started:.0f} s, torch with {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
