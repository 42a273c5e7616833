"""A teacher on FERPlus: how well its logits agree with the votes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from emovox.emotions import EMOTIONS
from emovox.errors import InputError
from emovox.files import write_text
from emovox.media.faces import resize
from emovox.teacher import Teacher, ferplus
from emovox.teacher.teacher_scores import Scores, draw_confusion, score

CHUNK = 256  # faces resized and given to the teacher at a time

# The two ways of reading a face, and what the figures of each are called.
PLAIN = "without mirror averaging"
MIRRORED = "with mirror averaging"

# Name, unit and field of each figure that stands for all faces together.
FIGURES = (
    ("accuracy", "%", "accuracy"),
    ("mean per-class accuracy", "%", "mean_class_accuracy"),
    ("cross-entropy, nats", "", "cross_entropy"),
    ("KL to the votes, nats", "", "kl_divergence"),
    ("calibration error", "%", "calibration_error"),
)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one teacher on one part of FERPlus, read in both ways.

    Attributes:
        teacher: its name.
        sha256: of its weights.
        part: `train`, `public_test` or `private_test`.
        plain: each face read once.
        mirrored: logits averaged over the face and its mirror image.
    """

    teacher: str
    sha256: str
    part: str
    plain: Scores
    mirrored: Scores

    def summary(self) -> str:
        """The figures as lines of text, one column for each way of reading."""
        rows = [
            (name, unit, getattr(self.plain, field), getattr(self.mirrored, field), "")
            for name, unit, field in FIGURES
        ]
        for k, emotion in enumerate(EMOTIONS):
            count = self.plain.counts[k]
            note = f"of {count:,}" if count else "never occurs"
            rows.append((f"  {emotion}", "%", self.plain.recall[k], self.mirrored.recall[k], note))
        lines = [
            f"{self.teacher} on {self.part}, {sum(self.plain.counts):,} faces",
            f"{'':<26}{'without':>10}{'with':>10}  mirror averaging",
        ]
        for name, unit, *values, note in rows:
            shown = [f"{100 * v:.2f} %" if unit else f"{v:.4f}" for v in values]
            lines.append(f"{name:<26}{shown[0]:>10}{shown[1]:>10}  {note}".rstrip())
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Plain values; the keys say which way a face was read."""
        return {
            "teacher": {"name": self.teacher, "sha256": self.sha256},
            "part": self.part,
            PLAIN.replace(" ", "_"): self.plain.as_json(),
            MIRRORED.replace(" ", "_"): self.mirrored.as_json(),
        }

    def write(self, folder: Path) -> None:
        """Write `evaluation.json` and the two confusion matrices as PNG."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "evaluation.json", json.dumps(self.as_json(), indent=2) + "\n")
        for scores, way, file in (
            (self.plain, PLAIN, "confusion.png"),
            (self.mirrored, MIRRORED, "confusion-mirror-averaged.png"),
        ):
            draw_confusion(scores, f"{self.teacher} on {self.part}, {way}", folder / file)


def evaluate(teacher: Teacher, data: str | Path, part: str) -> Evaluation:
    """Run a teacher on the faces of one part of FERPlus, resized to its input where they differ.

    Raises:
        InputError: `data` is not FERPlus.
    """
    faces = ferplus.read(data, part)
    plain, mirrored = predict(teacher, faces.images)
    return Evaluation(
        teacher.name,
        teacher.sha256,
        part,
        score(plain, faces.targets),
        score((plain + mirrored) / 2, faces.targets),
    )


def predict(teacher: Teacher, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 `[N, 8]` of grey faces uint8 `[N, H, W]`, and of their mirror images.

    Raises:
        InputError: the teacher gives NaN or infinity.
    """
    plain, mirrored = [], []
    for chunk in _chunks(teacher, images):
        plain.append(teacher(chunk))
        mirrored.append(teacher(np.ascontiguousarray(chunk[:, :, ::-1])))
    logits = np.concatenate(plain), np.concatenate(mirrored)
    if not np.isfinite(logits).all():
        raise InputError(f"teacher {teacher.name}: gives logits that are not finite")
    return logits


def _chunks(teacher: Teacher, images: np.ndarray) -> Iterator[np.ndarray]:
    """Crops as the teacher takes them, with a progress bar where stderr is a terminal."""
    starts = range(0, len(images), CHUNK)
    for start in tqdm(starts, desc=teacher.name, unit_scale=CHUNK, unit="face", disable=None):
        grey = images[start : start + CHUNK]
        if grey.shape[1:] != (teacher.input_size, teacher.input_size):
            grey = np.stack([resize(face, teacher.input_size) for face in grey])
        yield np.repeat(grey[..., None], 3, axis=3)
