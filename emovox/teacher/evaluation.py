"""Evaluation of a teacher on labelled faces: agreement of its logits with the votes."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from emovox.charts import save_confusion
from emovox.emotions import EMOTIONS, PUBLISHED, Outputs
from emovox.errors import InputError
from emovox.files import write_text
from emovox.media.faces import resize
from emovox.packages import DataFrame, data_frame
from emovox.scores import class_scores, softmax
from emovox.teacher import Teacher, load_teacher
from emovox.teacher.face_data import read_faces
from emovox.teacher.teacher_config import TeacherEvaluateConfig
from emovox.teacher.triplets import read_triplets, triplet_accuracy


@dataclass(frozen=True)
class Scores:
    """Scores of logits on labelled faces."""

    accuracy: float  # share of faces whose largest logit is the first maximum of the votes
    mean_class_accuracy: float  # mean of `recall` over the emotions that occur
    cross_entropy: float  # mean cross-entropy to the distribution of votes, in nats
    kl_divergence: float  # KL(votes || prediction), nats: cross-entropy minus the votes' entropy
    calibration_error: float  # expected calibration error of the largest probability, 15 equal bins
    calibration_error_fitted: float  # the same for logits divided by the teacher's temperature
    recall: tuple[float, ...]  # accuracy per emotion of the label; NaN for one that never occurs
    counts: tuple[int, ...]  # faces per emotion of the label
    confusion: tuple[tuple[int, ...], ...]  # faces by label (rows) and prediction (columns)
    emotions: tuple[str, ...] = EMOTIONS  # in the order of `recall`, `counts` and `confusion`
    rmse: Mapping[str, float] = field(default_factory=dict)  # by value, of faces where it is known
    accuracy_without_contempt: float | None = None  # with contempt ruled out; None if it is

    def as_json(self) -> dict[str, Any]:
        """Return plain values by emotion; the recall of an emotion that never occurs is None."""
        recall = [None if math.isnan(value) else value for value in self.recall]
        return asdict(self) | {
            "recall": dict(zip(self.emotions, recall, strict=True)),
            "counts": dict(zip(self.emotions, self.counts, strict=True)),
            "emotions": list(self.emotions),
        }


def score(
    logits: np.ndarray, targets: np.ndarray, outputs: Outputs = PUBLISHED, temperature: float = 1.0
) -> Scores:
    """Compare logits, then values, `[N, E + V]` with distributions of votes, then values.

    `temperature` divides the logits for `calibration_error_fitted`.
    """
    logits, targets = logits.astype(np.float64), targets.astype(np.float64)
    num = len(outputs.emotions)
    known = np.ma.masked_invalid(targets[:, num:])
    errors = np.sqrt(((logits[:, num:] - known) ** 2).mean(axis=0)).tolist()  # None if unknown
    rmse = {n: e for n, e in zip(outputs.values, errors, strict=True) if e is not None}
    logits, targets = logits[:, :num], targets[:, :num]
    labels, probabilities = targets.argmax(axis=1), softmax(logits)
    found, confusion = class_scores(labels, probabilities, softmax(logits / temperature))
    counts = confusion.sum(axis=1)
    recall = np.where(counts, confusion.diagonal() / np.maximum(counts, 1), np.nan)
    log_probs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    cross_entropy = float(-(targets * log_probs).sum(axis=1).mean())
    others, without = np.array([name != "contempt" for name in outputs.emotions]), None
    if not others.all() and (kept := others[labels]).any():
        without = float((np.where(others, logits, -np.inf).argmax(axis=1) == labels)[kept].mean())
    entropy = float(-(targets * np.log(np.where(targets > 0, targets, 1))).sum(axis=1).mean())
    return Scores(
        accuracy=found["accuracy"],
        mean_class_accuracy=found["uar"],
        cross_entropy=cross_entropy,
        kl_divergence=cross_entropy - entropy,
        calibration_error=found["calibration_error"],
        calibration_error_fitted=found["calibration_error_fitted"],
        recall=tuple(recall.tolist()),
        counts=tuple(counts.tolist()),
        confusion=tuple(map(tuple, confusion.tolist())),
        emotions=outputs.emotions,
        rmse=rmse,
        accuracy_without_contempt=without,
    )


CHUNK = 256  # faces that are resized and scored at a time

PLAIN, MIRRORED = "without_mirror_averaging", "with_mirror_averaging"  # columns and JSON keys
SCORES = (  # over all faces
    *("accuracy", "accuracy_without_contempt", "mean_class_accuracy", "cross_entropy"),
    *("kl_divergence", "calibration_error", "calibration_error_fitted"),
)


@dataclass(frozen=True, repr=False)
class TeacherEvaluation:
    """Scores of a teacher on one part of the data, without and with mirror averaging."""

    teacher: str  # name of the teacher
    sha256: str  # SHA-256 of its weights
    part: str  # `train`, `public_test` or `private_test`
    temperature: float  # divisor of the logits for calibrated probabilities; of the teacher
    plain: Scores  # scores of the logits of each face
    mirrored: Scores  # scores of the mean logits of each face and its mirror image
    triplet_accuracy: float | None = None  # see `triplets`; None without them
    triplets: str = ""  # their number, and the number of those that are left out

    def __repr__(self) -> str:
        return (
            f"<TeacherEvaluation {self.teacher} on {self.part}: accuracy "
            f"{self.plain.accuracy:.2%}, {self.mirrored.accuracy:.2%} with mirror averaging>"
        )

    def to_pandas(self) -> DataFrame:
        """Return a table with one row per score; recall has a row per emotion.

        The columns are `score`, `emotion`, `without_mirror_averaging`, `with_mirror_averaging`.
        MissingPackageError without pandas.
        """
        return data_frame(self._rows(), ["score", "emotion", PLAIN, MIRRORED])

    def summary(self) -> str:
        """Return the scores as lines of text, with one column each without and with averaging."""
        num_faces, fitted = sum(self.plain.counts), f"fitted temperature {self.temperature:.3f}"
        lines = [
            f"{self.teacher} on {self.part}, {num_faces:,} faces, {fitted}",
            f"{'':<28}{'without':>10}{'with':>10}  mirror averaging",
        ]
        for name, emotion, *both in self._rows():
            label = f"{name} {emotion or ''}".replace("_", " ")
            shown = [f"{value:.4f}".replace("nan", "-") for value in both]  # never occurs
            lines.append(f"{label:<28}{shown[0]:>10}{shown[1]:>10}")
        return "\n".join([*lines, *([self.triplets] if self.triplets else [])])

    def _rows(self) -> list[tuple[Any, ...]]:
        """Return the name, emotion, and values without and with averaging of each score."""
        both = self.plain, self.mirrored
        rows = [(name, None, *(getattr(scores, name) for scores in both)) for name in SCORES]
        rows = [row for row in rows if row[2] is not None]
        if self.triplet_accuracy is not None:
            rows.append(("triplet_accuracy", None, self.triplet_accuracy, math.nan))
        recalls = zip(self.plain.emotions, *(scores.recall for scores in both), strict=True)
        rows += [("recall", *recall) for recall in recalls]
        return rows + [(f"rmse {n}", None, *(s.rmse[n] for s in both)) for n in self.plain.rmse]

    def as_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        return {
            "teacher": {"name": self.teacher, "sha256": self.sha256},
            "part": self.part,
            "temperature": self.temperature,
            "triplet_accuracy": self.triplet_accuracy,
            "triplets": self.triplets,
            PLAIN: self.plain.as_json(),
            MIRRORED: self.mirrored.as_json(),
        }

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write `evaluation.json`, and `confusion.png` without mirror averaging, to a folder."""
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "evaluation.json", json.dumps(self.as_json(), indent=2) + "\n")
        title, matrix = f"{self.teacher} on {self.part}", np.array(self.plain.confusion)
        save_confusion(matrix, self.plain.emotions, "faces", title, folder / "confusion.png")


def evaluate_teacher(
    teacher: Teacher | str | os.PathLike[str],
    data: str | os.PathLike[str],
    config: TeacherEvaluateConfig | None = None,
    **options: Any,
) -> TeacherEvaluation:
    """Score a teacher on one part of labelled faces, which are resized to its input size.

    Emotions of the teacher that the data lacks are ruled out.

    Args:
        teacher: a loaded teacher, or its registered name, checkpoint or released file.
        data: FERPlus, a folder per emotion, AffectNet's folders, or a table; see `face_data`.
        config: options of the evaluation; device and precision do not apply to a loaded teacher.
        **options: fields of `TeacherEvaluateConfig`, which override `config`.

    Raises:
        ConfigError: unknown teacher, part, device or precision.
        InputError: `data` is none of these, has an emotion that the teacher lacks, or the teacher's
            logits are not finite.

    Example:
        >>> emovox.evaluate_teacher("compact", "ferplus.zip", part="public_test")  # doctest: +SKIP
        <TeacherEvaluation compact on public_test: accuracy 88.70%, 88.73% with mirror averaging>
    """
    config = replace(config or TeacherEvaluateConfig(), **options)
    if isinstance(teacher, str | os.PathLike):
        teacher = load_teacher(teacher, config.device, config.precision)
    faces = read_faces(data, config.part, teacher.input_size, grey=False)
    outputs = faces.outputs
    if not set(outputs.values) <= set(teacher.values):
        outputs = Outputs(outputs.emotions)  # the teacher gives emotions only
    plain, mirrored = predict(teacher, faces.images, (*outputs.emotions, *outputs.values))
    targets = faces.targets[:, : len(outputs)]
    temperature = teacher.temperature
    both = plain, (plain + mirrored) / 2
    first, second = (score(logits, targets, outputs, temperature) for logits in both)
    named = teacher.name, teacher.sha256, config.part
    found = TeacherEvaluation(*named, temperature, first, second)
    if config.triplets:
        triplets = read_triplets(Path(config.triplets), teacher.input_size)
        accuracy = triplet_accuracy(teacher, triplets)
        found = replace(found, triplet_accuracy=accuracy, triplets=triplets.note)
    return found


def predict(
    teacher: Teacher, images: np.ndarray, names: Sequence[str] = EMOTIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs of faces and of their mirror images, float32 `[N, len(names)]` each.

    Faces are uint8, grey `[N, H, W]` or RGB `[N, H, W, 3]`; `names` are emotions and values.

    Raises:
        InputError: the teacher lacks one of them, or an output is NaN or infinite.
    """
    columns = (*teacher.emotions, *teacher.values)
    if missing := [name for name in names if name not in columns]:
        found, lacks = ", ".join(columns), ", ".join(missing)
        raise InputError(f"teacher {teacher.name}: outputs are {found}; the data has {lacks} too")
    take = [columns.index(name) for name in names]
    plain, mirrored = [], []
    starts = range(0, len(images), CHUNK)
    # The progress bar is drawn in a terminal only.
    for start in tqdm(starts, desc=teacher.name, unit_scale=CHUNK, unit="face", disable=None):
        crops = images[start : start + CHUNK]
        if crops.shape[1:3] != (teacher.input_size, teacher.input_size):
            crops = np.stack([resize(face, teacher.input_size) for face in crops])
        if crops.ndim == 3:
            crops = np.repeat(crops[..., None], 3, axis=3)
        plain.append(teacher(crops)[:, take])
        mirrored.append(teacher(np.ascontiguousarray(crops[:, :, ::-1]))[:, take])
    logits = np.concatenate(plain), np.concatenate(mirrored)
    if not np.isfinite(logits).all():
        raise InputError(f"teacher {teacher.name}: logits are not finite")
    return logits
