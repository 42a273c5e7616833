"""What trainings, evaluations and probes left in their folders, read back for a report.

A folder may hold several of them: `log.jsonl` of a training, `evaluation.json` of a student, with
`predictions.parquet` beside it, or of a teacher, `probe.json` of a probe. Nothing runs a network.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emovox.emotions import EMOTIONS
from emovox.errors import InputError

LOG, EVALUATION, PREDICTIONS, PROBE = (
    "log.jsonl",
    "evaluation.json",
    "predictions.parquet",
    "probe.json",
)
CURVE_POINTS = 160  # of a ROC curve at most; more cannot be told apart on a page
# What files that are something else make of being read.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException)


@dataclass(frozen=True)
class Area:
    """A ROC AUC and its interval; None for what is not there."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """A ROC curve, both axes rising from 0 to 1."""

    false_rate: np.ndarray
    true_rate: np.ndarray


@dataclass(frozen=True)
class SplitResult:
    """A student on one split.

    Attributes:
        positives: tracks that have an emotion as their label.
        areas: by emotion, and of the means under their names.
        curves: by emotion; empty where there are no predictions.
        confusion: tracks by the teacher's label (rows) and the student's (columns), int64 `[8, 8]`;
            None where there are no predictions.
    """

    split: str
    num_tracks: int
    num_identities: int
    positives: Mapping[str, int]
    areas: Mapping[str, Area]
    curves: Mapping[str, Curve]
    confusion: np.ndarray | None


@dataclass(frozen=True)
class StudentResult:
    """What `emovox evaluate` found.

    Attributes:
        dataset: name and version of the dataset that it was scored on.
        shortcut: heard minus unheard.
        published: mean AUC of the paper by split, where the dataset is the paper's, and a note.
        dropped: tracks that could not be heard, by reason.
    """

    name: str
    dataset: str
    protocol: str
    timing: str
    splits: tuple[SplitResult, ...]
    shortcut: Area | None
    published: Mapping[str, float]
    published_note: str
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class TeacherResult:
    """What `emovox evaluate-teacher` found: accuracies in percent."""

    name: str
    part: str
    num_faces: int
    accuracy: float
    mirrored: float


@dataclass(frozen=True)
class ProbeResult:
    """What `emovox probe` found on one corpus: the rows of its table."""

    corpus: str
    model: str
    num_utterances: int
    num_speakers: int | None
    num_classes: int
    rows: Sequence[Mapping[str, Any]]


@dataclass
class Results:
    """All that some folders hold; the first evaluation of a student counts."""

    student: StudentResult | None = None
    training: list[Mapping[str, Any]] = field(default_factory=list)
    probes: list[ProbeResult] = field(default_factory=list)
    teachers: list[TeacherResult] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.student or self.training or self.probes or self.teachers)


def read_results(folders: Sequence[Path]) -> Results:
    """Read what lies in the folders.

    Raises:
        InputError: one of them is missing, holds nothing of the kind, or a damaged file.
    """
    results = Results()
    for folder in folders:
        known = [name for name in (LOG, EVALUATION, PROBE) if (folder / name).is_file()]
        if not known:
            what = "holds none of" if folder.is_dir() else "no such folder; expected one with"
            raise InputError(f"{folder}: {what} {LOG}, {EVALUATION}, {PROBE}")
        for name in known:
            try:
                READERS[name](folder, results)
            except OSError as error:
                raise InputError(f"{folder / name}: {error.strerror}") from error
            except MALFORMED as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(f"{folder / name}: cannot be read ({reason})") from error
    return results


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> Curve:
    """The ROC curve of scores `[N]`, its corners at most `CURVE_POINTS`; ties are one step."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.append(0, positive[order].cumsum()[last])
    misses = np.append(0, (~positive[order]).cumsum()[last])
    false_rate, true_rate = misses / max(misses[-1], 1), hits / max(hits[-1], 1)
    if len(false_rate) > CURVE_POINTS:
        # Both rates rise, so that equal steps of their sum are even along the curve.
        way = false_rate + true_rate
        places = np.linspace(0, way[-1], CURVE_POINTS)
        false_rate = np.interp(places, way, false_rate)
        true_rate = places - false_rate
    return Curve(false_rate, true_rate)


def _read_log(folder: Path, results: Results) -> None:
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    if not results.training:
        results.training = [{str(key): record[key] for key in record} for record in records]


def _read_evaluation(folder: Path, results: Results) -> None:
    found = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    if "part" in found:
        results.teachers.append(_teacher(found))
    elif results.student is None:
        predictions = folder / PREDICTIONS
        table = pq.read_table(predictions) if predictions.is_file() else None
        results.student = _student(found, table)


def _read_probe(folder: Path, results: Results) -> None:
    found = json.loads((folder / PROBE).read_text(encoding="utf-8"))
    corpus = found["corpus"]
    results.probes.append(
        ProbeResult(
            str(corpus["layout"]),
            str(found["model"].get("name") or "egemaps"),
            int(corpus["utterances"]),
            corpus["speakers"],
            len(corpus["counts"]),
            list(found["results"]),
        )
    )


READERS = {LOG: _read_log, EVALUATION: _read_evaluation, PROBE: _read_probe}


def _teacher(found: Mapping[str, Any]) -> TeacherResult:
    plain, mirrored = found["without_mirror_averaging"], found["with_mirror_averaging"]
    return TeacherResult(
        str(found["teacher"]["name"]),
        str(found["part"]),
        sum(plain["counts"].values()),
        100 * float(plain["accuracy"]),
        100 * float(mirrored["accuracy"]),
    )


def _student(found: Mapping[str, Any], predictions: pa.Table | None) -> StudentResult:
    published = found.get("published") or {}
    shortcut = found.get("heard_minus_unheard")
    return StudentResult(
        str(found["student"]["name"]),
        f"{found['dataset']['name']} {found['dataset']['version']}",
        str(found.get("protocol", "standard")),
        str(found.get("timing", "grid")),
        tuple(_split(name, split, predictions) for name, split in found["splits"].items()),
        Area(**shortcut) if shortcut else None,
        {str(k): float(v) for k, v in published.get("mean_auc", {}).items()},
        str(published.get("note", "")),
        Counter(f"{item['stage']}: {item['error']}" for item in found.get("dropped", ())),
    )


def _split(name: str, found: Mapping[str, Any], predictions: pa.Table | None) -> SplitResult:
    curves: dict[str, Curve] = {}
    confusion = None
    if predictions is not None:
        rows = predictions.filter(pc.equal(predictions["split"], name))
        labels = np.array(pc.index_in(rows["label"], pa.array(EMOTIONS)).to_pylist(), np.int64)
        scores = np.stack([rows[f"score_{emotion}"].to_numpy() for emotion in EMOTIONS], axis=1)
        confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)), np.int64)
        np.add.at(confusion, (labels, scores.argmax(axis=1)), 1)
        for k, emotion in enumerate(EMOTIONS):
            if 0 < (labels == k).sum() < len(labels):
                curves[emotion] = roc_curve(labels == k, scores[:, k])
    return SplitResult(
        str(name),
        int(found["tracks"]),
        int(found["identities"]),
        {emotion: int(found["positives"][emotion]) for emotion in EMOTIONS},
        {str(key): Area(**area) for key, area in found["auc"].items()},
        curves,
        confusion,
    )
