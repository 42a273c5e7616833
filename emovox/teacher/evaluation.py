"""Evaluation of a teacher on FERPlus: agreement of its logits with the votes."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from emovox.charts import save_confusion
from emovox.emotions import EMOTIONS
from emovox.errors import InputError
from emovox.files import write_text
from emovox.media.faces import resize
from emovox.packages import data_frame
from emovox.teacher import Teacher, ferplus, load_teacher
from emovox.teacher.teacher_config import TeacherEvaluateConfig
from emovox.teacher.teacher_scores import Scores, score

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 256  # faces that are resized and scored at a time

PLAIN, MIRRORED = "without_mirror_averaging", "with_mirror_averaging"  # columns and JSON keys
# Scores over all faces -> their labels in the summary.
LABELS = {
    "accuracy": "accuracy",
    "mean_class_accuracy": "mean per-class accuracy",
    "cross_entropy": "cross-entropy, nats",
    "kl_divergence": "KL to the votes, nats",
    "calibration_error": "calibration error",
}


@dataclass(frozen=True, repr=False)
class TeacherEvaluation:
    """Scores of a teacher on one part of FERPlus, without and with mirror averaging."""

    teacher: str  # name of the teacher
    sha256: str  # SHA-256 of its weights
    part: str  # `train`, `public_test` or `private_test`
    plain: Scores  # scores of the logits of each face
    mirrored: Scores  # scores of the mean logits of each face and its mirror image

    def __repr__(self) -> str:
        return (
            f"<TeacherEvaluation {self.teacher} on {self.part}: accuracy "
            f"{self.plain.accuracy:.2%}, {self.mirrored.accuracy:.2%} with mirror averaging>"
        )

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with one row per score; recall has a row per emotion.

        The columns are `score`, `emotion`, `without_mirror_averaging`, `with_mirror_averaging`.
        MissingPackageError without pandas.
        """
        return data_frame(self._rows(), ["score", "emotion", PLAIN, MIRRORED])

    def summary(self) -> str:
        """Return the scores as lines of text, with one column each without and with averaging."""
        lines = [
            f"{self.teacher} on {self.part}, {sum(self.plain.counts):,} faces",
            f"{'':<26}{'without':>10}{'with':>10}  mirror averaging",
        ]
        counts = dict(zip(EMOTIONS, self.plain.counts, strict=True))
        for name, emotion, *values in self._rows():
            label, note = LABELS.get(name, f"  {emotion}"), ""
            if emotion:
                note = f"of {counts[emotion]:,}" if counts[emotion] else "never occurs"
            shown = [f"{v:.4f}" if "nats" in label else f"{100 * v:.2f} %" for v in values]
            lines.append(f"{label:<26}{shown[0]:>10}{shown[1]:>10}  {note}".rstrip())
        return "\n".join(lines)

    def _rows(self) -> list[tuple[Any, ...]]:
        """Return the name, emotion, and values without and with averaging of each score."""
        both = self.plain, self.mirrored
        rows = [(name, None, *(getattr(scores, name) for scores in both)) for name in LABELS]
        recalls = zip(EMOTIONS, *(scores.recall for scores in both), strict=True)
        return rows + [("recall", *recall) for recall in recalls]

    def as_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        return {
            "teacher": {"name": self.teacher, "sha256": self.sha256},
            "part": self.part,
            PLAIN: self.plain.as_json(),
            MIRRORED: self.mirrored.as_json(),
        }

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write `evaluation.json` and the two confusion matrices as PNG to a folder."""
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "evaluation.json", json.dumps(self.as_json(), indent=2) + "\n")
        for scores, key, file in (
            (self.plain, PLAIN, "confusion.png"),
            (self.mirrored, MIRRORED, "confusion-mirror-averaged.png"),
        ):
            title = f"{self.teacher} on {self.part}, {key.replace('_', ' ')}"
            save_confusion(np.array(scores.confusion), EMOTIONS, "faces", title, folder / file)


def evaluate_teacher(
    teacher: Teacher | str | os.PathLike[str],
    data: str | os.PathLike[str],
    config: TeacherEvaluateConfig | None = None,
    **options: Any,
) -> TeacherEvaluation:
    """Score a teacher on one part of FERPlus; faces are resized to its input size.

    Args:
        teacher: a loaded teacher, or its registered name, checkpoint or released file.
        data: FERPlus, a folder or a zip file, see `ferplus.read`.
        config: options of the evaluation; device and precision do not apply to a loaded teacher.
        **options: fields of `TeacherEvaluateConfig`, which override `config`.

    Raises:
        ConfigError: unknown teacher, part, device or precision.
        InputError: `data` is not FERPlus, or the teacher's logits are not finite.

    Example:
        >>> emovox.evaluate_teacher("compact", "ferplus.zip", part="public_test")  # doctest: +SKIP
        <TeacherEvaluation compact on public_test: accuracy 88.70%, 88.73% with mirror averaging>
    """
    config = replace(config or TeacherEvaluateConfig(), **options)
    if isinstance(teacher, str | os.PathLike):
        teacher = load_teacher(teacher, config.device, config.precision)
    faces = ferplus.read(data, config.part)
    plain, mirrored = predict(teacher, faces.images)
    return TeacherEvaluation(
        teacher.name,
        teacher.sha256,
        config.part,
        score(plain, faces.targets),
        score((plain + mirrored) / 2, faces.targets),
    )


def predict(teacher: Teacher, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits float32 `[N, 8]` of grey faces uint8 `[N, H, W]`, and of their mirror images.

    Raises:
        InputError: the teacher has other emotions than FERPlus, or a logit is NaN or infinite.
    """
    if teacher.emotions != EMOTIONS:
        found, expected = ", ".join(teacher.emotions), ", ".join(EMOTIONS)
        raise InputError(f"teacher {teacher.name}: emotions are {found}; FERPlus has {expected}")
    plain, mirrored = [], []
    starts = range(0, len(images), CHUNK)
    # The progress bar is drawn in a terminal only.
    for start in tqdm(starts, desc=teacher.name, unit_scale=CHUNK, unit="face", disable=None):
        grey = images[start : start + CHUNK]
        if grey.shape[1:] != (teacher.input_size, teacher.input_size):
            grey = np.stack([resize(face, teacher.input_size) for face in grey])
        crops = np.repeat(grey[..., None], 3, axis=3)
        plain.append(teacher(crops)[:, : len(EMOTIONS)])
        mirrored.append(teacher(np.ascontiguousarray(crops[:, :, ::-1]))[:, : len(EMOTIONS)])
    logits = np.concatenate(plain), np.concatenate(mirrored)
    if not np.isfinite(logits).all():
        raise InputError(f"teacher {teacher.name}: logits are not finite")
    return logits
