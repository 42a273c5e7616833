"""Results in the folders of trainings, evaluations and probes, read for a report.

A folder may hold several of them: `log.jsonl` of a training, `evaluation.json` of a student (with
`predictions.parquet`), a fusion or a teacher, `probe.json` of a probe, and `predictions.csv` of
`emovox predict`. No network is run.
"""

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from emovox.dataset.reader import Dataset
from emovox.dataset.store import reading
from emovox.errors import InputError
from emovox.files import read_text
from emovox.packages import DataFrame, data_frame
from emovox.reporting.aggregates import Aggregates
from emovox.reporting.track_sample import SCORE, ReportTrack
from emovox.scores import CLASS_SCORES, Curve, Interval, confusion_matrix, emotion_curves

LOG, EVALUATION, PROBE = "log.jsonl", "evaluation.json", "probe.json"
PREDICTIONS, WINDOWS = "predictions.parquet", "predictions.csv"
FUSION = ("training", "inputs", "output", "score")  # of a row of a fusion's scores


@dataclass(frozen=True)
class SplitResult:
    """A student on one split; without predictions it has no curves and no confusion."""

    split: str
    num_tracks: int  # scored
    num_identities: int
    positives: Mapping[str, int]  # tracks by emotion of the label, for all emotions in order
    areas: Mapping[str, Interval]  # AUC by emotion, and the means by their names
    curves: Mapping[str, Curve]  # ROC curves by emotion
    confusion: np.ndarray | None  # int64 `[E, E]`, by label of the teacher (rows) and the student
    others: Mapping[str, float | None]  # other scores, by the names of `CLASS_SCORES`


@dataclass
class Results:
    """The results of some folders; evaluations and trainings by the folder's name."""

    students: dict[str, dict[str, Any]] = field(default_factory=dict)  # see `_student`
    trainings: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    # corpus, model, num_utterances and num_classes of each probe, and rows, those of its table
    probes: list[dict[str, Any]] = field(default_factory=list)
    # name, part and num_faces; accuracy and mirrored, in percent
    teachers: list[dict[str, Any]] = field(default_factory=list)
    # title, rows of scores, and pictures as pairs of name and PNG in base64
    fusions: list[dict[str, Any]] = field(default_factory=list)
    # Scores of students over time, by the folder's name; columns as those of `predict`
    windows: dict[str, pa.Table] = field(default_factory=dict)

    @property
    def student(self) -> dict[str, Any] | None:
        """The first student, which the page shows in full; None if none was evaluated."""
        return next(iter(self.students.values()), None)


def read_results(folders: Sequence[Path]) -> Results:
    """Read the results in some folders; InputError if one is missing, empty or damaged."""
    results = Results()
    for folder in folders:
        known = [name for name in READERS if (folder / name).is_file()]
        if not known:
            what = "has none of" if folder.is_dir() else "folder not found; expected one with"
            raise InputError(f"{folder}: {what} {', '.join(READERS)}")
        for name in known:
            with reading(folder / name):
                READERS[name](folder / name, results)
    return results


def _read_log(path: Path, results: Results) -> None:
    records = [dict(json.loads(line)) for line in read_text(path).splitlines() if line.strip()]
    results.trainings[_free_name(path, results.trainings)] = records


def _read_evaluation(path: Path, results: Results) -> None:
    found = json.loads(read_text(path))
    if "part" in found:
        plain, mirrored = found["without_mirror_averaging"], found["with_mirror_averaging"]
        teacher: dict[str, Any] = {"name": str(found["teacher"]["name"]), "part": found["part"]}
        teacher["num_faces"] = sum(plain["counts"].values())
        teacher["accuracy"] = 100 * float(plain["accuracy"])
        results.teachers.append(teacher | {"mirrored": 100 * float(mirrored["accuracy"])})
    elif "scores" in found:
        rows = [{k: row[k] for k in (*FUSION, "value", "low", "high")} for row in found["scores"]]
        fusion = {"title": str(found["title"]), "rows": rows}
        images = ((file.stem, file.read_bytes()) for file in sorted(path.parent.glob("*.png")))
        fusion["pictures"] = [(name, base64.b64encode(data).decode()) for name, data in images]
        results.fusions.append(fusion)
    else:
        file = path.with_name(PREDICTIONS)
        table = pq.read_table(file) if file.is_file() else None
        results.students[_free_name(path, results.students)] = _student(found, table)
        if table is not None and not path.with_name(WINDOWS).is_file():
            # Without `start` and `end`, a window is a whole track.
            renamed = [n.replace("score_", SCORE, 1) for n in table.column_names]
            renamed[renamed.index("track_id")] = "path"
            results.windows[_free_name(path, results.windows)] = table.rename_columns(renamed)


def _read_windows(path: Path, results: Results) -> None:
    table = pyarrow.csv.read_csv(path)
    numbers = ["start", "end", *(name for name in table.column_names if name.startswith(SCORE))]
    fields = [pa.field(name, pa.float64(), name.startswith(SCORE)) for name in numbers]
    columns = pa.schema([pa.field("path", pa.string(), nullable=False), *fields])
    results.windows[_free_name(path, results.windows)] = table.select(columns.names).cast(columns)


def _free_name(path: Path, taken: Collection[str]) -> str:
    """Return the name of the folder of a file, with a number if it is taken."""
    name = path.resolve().parent.name
    numbered = chain([name], (f"{name} {number}" for number in count(2)))
    return next(each for each in numbered if each not in taken)


def _read_probe(path: Path, results: Results) -> None:
    found = json.loads(read_text(path))
    corpus, model = found["corpus"], str(found["model"].get("name") or "egemaps")
    sizes = {"num_utterances": int(corpus["utterances"]), "num_classes": len(corpus["counts"])}
    names = {"corpus": str(corpus["layout"]), "model": model}
    results.probes.append(names | sizes | {"rows": list(found["results"])})


READERS = {LOG: _read_log, EVALUATION: _read_evaluation}
READERS |= {PROBE: _read_probe, WINDOWS: _read_windows}


def _student(found: Mapping[str, Any], predictions: pa.Table | None) -> dict[str, Any]:
    """Return an evaluation by `emovox evaluate`, for the page."""
    published = found.get("published") or {}
    gap = found.get("heard_minus_unheard") or {}
    return {
        "name": str(found["student"]["name"]),
        "dataset": f"{found['dataset']['name']} {found['dataset']['version']}",
        "protocol": str(found.get("protocol", "standard")),
        "timing": str(found.get("timing", "grid")),
        "splits": [_split(name, split, predictions) for name, split in found["splits"].items()],
        "heard_minus_unheard": None if gap.get("value") is None else Interval.from_json(gap),
        "published": {str(k): float(v) for k, v in published.get("mean_auc", {}).items()},
        "published_note": str(published.get("note", "")),  # the source of these means
        "dropped": Counter(f"{x['stage']}: {x['error']}" for x in found.get("dropped", ())),
    }


def _split(name: str, found: Mapping[str, Any], predictions: pa.Table | None) -> SplitResult:
    curves, confusion = {}, None
    positives = {str(emotion): int(num) for emotion, num in found["positives"].items()}
    emotions = list(positives)
    if predictions is not None:
        rows = predictions.filter(pc.equal(predictions["split"], name))
        labels = np.array(pc.index_in(rows["label"], pa.array(emotions)).to_pylist(), np.int64)
        scores = np.stack([rows[f"score_{emotion}"].to_numpy() for emotion in emotions], axis=1)
        curves = emotion_curves(labels, scores, emotions)
        confusion = confusion_matrix(labels, scores.argmax(axis=1), len(emotions))
    sizes = int(found["tracks"]), int(found["identities"])
    areas = {str(key): Interval.from_json(area) for key, area in found["auc"].items()}
    others = {key: None if (x := found.get(key)) is None else float(x) for key in CLASS_SCORES}
    return SplitResult(str(name), *sizes, positives, areas, curves, confusion, others)


if TYPE_CHECKING:
    from emovox.reporting.track_media import TrackMedia


@dataclass(frozen=True, repr=False)
class Report:
    """A report on a dataset."""

    dataset: Dataset
    provenance: Mapping[str, Any]  # content of its provenance.json
    aggregates: Aggregates  # counts and distributions of the dataset
    compared: Aggregates | None  # those of a second dataset
    results: Results  # of students, probes and teachers
    tracks: Sequence[ReportTrack]  # tracks that the page shows one by one
    # Faces and sound of each of `tracks`; None without the option `media`
    media: "Sequence[TrackMedia] | None"
    written: tuple[str, ...] = ()  # lines of `summary`

    def summary(self) -> str:
        """Return a line for each file that was written, and for each figure without data."""
        return "\n".join(self.written)

    def to_pandas(self) -> DataFrame:
        """Return counts, emotions and values by split; MissingPackageError without pandas."""
        rows = []
        for split in self.aggregates.splits:
            row = dataclasses.asdict(split)
            for name in ("frames", "labels"):
                by_emotion = zip(self.aggregates.emotions, row.pop(name).tolist(), strict=True)
                row |= {f"{name}_{emotion}": count for emotion, count in by_emotion}
            moments = zip(self.aggregates.value_names, row.pop("values").tolist(), strict=True)
            for name, (mean, deviation) in moments:
                row |= {f"mean_{name}": mean, f"deviation_{name}": deviation}
            rows.append(row)
        return data_frame(rows)

    def __repr__(self) -> str:
        found = self.aggregates
        return (
            f"<Report on {found.title}: {found.num_tracks:,} tracks, "
            f"{found.num_frames:,} frames; {len(self.tracks):,} tracks shown>"
        )
