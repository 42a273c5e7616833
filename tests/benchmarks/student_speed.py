"""Whether reading sound keeps up with training a student on it.

    python tests/benchmarks/student_speed.py [--audio FOLDER] [--threads 2] [--workers 2]

The network trains at full width on segments that are on the device already; then the loader reads
random segments alone, of all WAV and FLAC files below the folder, or of files that it writes itself.
Rounds alternate between the two, and each figure is the median over the rounds. The loader should
give at least 1.5 times what the network takes.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from emovox.build.tables import Header, TrackRow, write_dataset
from emovox.dataset.reader import Dataset, load
from emovox.media.audio import SAMPLE_RATE, audio_duration
from emovox.media.spectrogram import batch_spectrogram, normalise
from emovox.student.clips import Clip
from emovox.student.distillation import distillation_loss
from emovox.student.recipe import TrainConfig
from emovox.student.segments import TrainSegments, load_batches
from emovox.student.vggvox import VGGVox
from emovox.teacher.devices import device_name, resolve_device, resolve_precision

ENOUGH = 1.5  # times what the network takes
NUM_WRITTEN = 64  # files of our own
STEP_MS = 240


def write_files(folder: Path, ending: str) -> Path:
    """Noise as loud as speech, 4.5 to 12 s each."""
    rng = np.random.default_rng(0)
    for number in range(NUM_WRITTEN):
        samples = rng.normal(0, 0.05, round(rng.uniform(4.5, 12) * SAMPLE_RATE))
        soundfile.write(folder / f"{number:05d}.{ending}", samples, SAMPLE_RATE)
    return folder


def find_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac"))


def make_dataset(out: Path, paths: list[Path]) -> tuple[Dataset, list[Clip]]:
    """A dataset of random logits for the files."""
    from emovox.build.tables import Chunk
    from emovox.testing import frames_table

    raise NotImplementedError((out, paths, Chunk, frames_table, Header, TrackRow, write_dataset, load))
