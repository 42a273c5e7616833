"""Evaluation of a student: agreement with the teacher from sound alone (paper, section 5.2)."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox import scores as metrics
from emovox.charts import chart_file, draw_counts, draw_roc
from emovox.config import read_config
from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Dropped
from emovox.errors import ConfigError, InputError
from emovox.files import replace_file, write_text
from emovox.packages import DataFrame, data_frame
from emovox.scores import CLASS_SCORES, PAPER_EMOTIONS, Interval, SplitScores, main_mean, softmax
from emovox.student import Student, clips, load_student
from emovox.student.clips import CENTRE, choose_part
from emovox.student.student_config import LEGACY, EvaluateConfig

VALIDATION = ("heard_val", "unheard_val")
# Mean AUC of the paper (section 5.2, Figure 5), by split.
PUBLISHED = {"heard_val": 0.71, "unheard_val": 0.69}
PUBLISHED_DATASET = "emovoxceleb"
COLUMNS = [*("split", "sound", "score", "emotion", "positives"), *Interval.__dataclass_fields__]
# Scores besides AUC -> their labels in the summary.
OTHERS = CLASS_SCORES | {"calibration_error_fitted": "  at temperature {:.2f}"}
PUBLISHED_NOTE = (
    "quoted from the paper; its repository's own curves give about 0.72 heard and 0.71 unheard, so "
    "take both as +- 0.02"
)


@dataclass(frozen=True)
class SplitPredictions:
    """A student's predictions for the tracks of one split."""

    split: str  # name of the split
    track_ids: np.ndarray  # tracks, `[N]`
    identities: np.ndarray  # identity of each track, `[N]`
    labels: np.ndarray  # index of the teacher's emotion, int64 `[N]`
    scores: np.ndarray  # probabilities of the student, float32 `[N, E]`
    dropped: list[Dropped]  # tracks without usable audio
    # probabilities from the centre bucket of each utterance, float32 `[N, E]`; or nothing
    centre_scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of one student on the validation splits of one dataset."""

    student: Mapping[str, str]  # name and sha256 of the student
    dataset: Mapping[str, str]  # name and version of the dataset
    protocol: str  # protocol of reading sound
    timing: str  # mapping from seconds to frames
    splits: Mapping[str, SplitScores]  # scores by split
    # Difference of the mean AUC, see `main_mean`; None if a split is missing
    heard_minus_unheard: Interval | None
    predictions: Mapping[str, SplitPredictions]  # predictions by split
    sound: str = ""  # parts of the tracks that `splits` is of
    temperature: float = math.nan  # divisor of the logits, fitted on heard_val; NaN without it
    # Scores from the centre bucket of each utterance, the paper's protocol
    centre_bucket: Mapping[str, SplitScores] = field(default_factory=dict)

    def __repr__(self) -> str:
        mean = main_mean(self.emotions)
        means = (f"{name} {s.auc[mean]}" for name, s in self.splits.items())
        title = f"{self.student['name']} on {self.dataset['name']} {self.dataset['version']}"
        return f"<Evaluation of {title}: {mean}: {', '.join(means)}>"

    def to_pandas(self) -> DataFrame:
        """Return the scores as a table, one row per split, sound, score and emotion.

        Columns: `split`; `sound`, see `Evaluation.sound`, or `centre bucket`; `score`, for example
        `auc` or `uar`; `emotion` (or the name of a mean) of an AUC; its `positives` (missing for a
        mean); `value`; `low`, `high` and `reliable`, of the 95 % interval of an AUC.
        MissingPackageError without pandas.
        """
        rows: list[tuple[Any, ...]] = []
        for sound, found in ((self.sound, self.splits), (CENTRE, self.centre_bucket)):
            for split, scores in found.items():
                for name, auc in scores.auc.items():
                    positives = scores.positives.get(name)
                    rows.append((split, sound, "auc", name, positives, *astuple(auc)))
                rows += [
                    (split, sound, name, None, None, value, None, None, None)
                    for name, value in scores.others.items()
                ]
        return data_frame(rows, COLUMNS).astype({"positives": "Int64"})

    @property
    def emotions(self) -> tuple[str, ...]:
        """Names of the emotions, in the order of the scores."""
        return tuple(next(iter(self.splits.values())).positives)

    @property
    def published(self) -> Mapping[str, float]:
        """Mean AUC of the paper by split; empty for another dataset."""
        return PUBLISHED if self.dataset["name"] == PUBLISHED_DATASET else {}

    @property
    def dropped(self) -> list[Dropped]:
        """Tracks of all splits without usable audio."""
        return [item for split in self.predictions.values() for item in split.dropped]

    def summary(self) -> str:
        """Return the scores as lines of text, one column per split."""
        splits = self.splits.values()
        title = f"{self.student['name']} on {self.dataset['name']} {self.dataset['version']}"
        lines = [f"{title}: ROC AUC", _line("", self.splits), *_area_lines(self.splits)]
        for name, label in OTHERS.items():
            cells = (f"{s.others[name]:.3f}".replace("nan", "-").ljust(28) for s in splits)
            lines.append(_line(label.format(self.temperature).replace("nan", "-"), cells))
        sizes = (f"{s.num_tracks:,} ({s.num_identities:,})" for s in splits)
        lines.append(_line("tracks (identities)", sizes))
        if self.heard_minus_unheard is not None:
            lines.append(_line("heard minus unheard", [f"{self.heard_minus_unheard}{'':7}"]))
        if self.centre_bucket:
            lines += ["", f"{title}, the paper's {CENTRE} of each utterance: ROC AUC"]
            lines += _area_lines(self.centre_bucket)
        if self.published:
            quoted = (f"{self.published[split]:.2f}" for split in self.splits)
            lines += [_line("published mean of five", quoted), f"  {PUBLISHED_NOTE}"]
        return "\n".join(lines + self._notes())

    def _notes(self) -> list[str]:
        notes = [
            f"intervals: {metrics.CONFIDENCE:.0%} of {metrics.ROUNDS:,} bootstrap "
            "samples of identities, followed by the number of positives; ?: not reliable, below "
            f"{metrics.MIN_POSITIVES} positives or {metrics.MIN_IDENTITIES} people",
            f"sound: {self.sound}",
        ]
        if self.heard_minus_unheard is not None:
            names = ", ".join(metrics.common_emotions(*self.splits.values()))
            notes.append(f"heard minus unheard: mean over {names or 'no emotion'}, in both splits")
        counted_in_mean: Sequence[str] = PAPER_EMOTIONS
        if unknown := [name for name in PAPER_EMOTIONS if name not in self.emotions]:
            counted_in_mean = self.emotions
            mean = metrics.MEAN_PAPER
            notes.append(f"{mean}: not computed; the dataset has no {', '.join(unknown)}")
        for split, scores in self.splits.items():
            if absent := [name for name in counted_in_mean if not scores.positives[name]]:
                legacy = self.protocol == LEGACY
                counted = "AUC 0, as in the reference code" if legacy else "not in the mean"
                notes.append(f"no track of {split} has the label {', '.join(absent)}: {counted}")
        if self.dropped:
            notes.append(f"dropped: {clips.list_reasons(self.dropped)}")
        return notes

    def as_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        dropped = [asdict(item) for item in self.dropped]
        for row in dropped:
            del row["source"]  # in some layouts it contains a person's name
        gap = self.heard_minus_unheard
        published = {"mean_auc": dict(self.published), "note": PUBLISHED_NOTE}
        return {
            "student": dict(self.student),
            "dataset": dict(self.dataset),
            "protocol": self.protocol,
            "timing": self.timing,
            "emotions": list(self.emotions),
            "splits": {split: scores.as_json() for split, scores in self.splits.items()},
            "heard_minus_unheard": gap.as_json() if gap else None,
            "heard_minus_unheard_emotions": metrics.common_emotions(*self.splits.values()),
            "sound": self.sound,
            "temperature": Interval(self.temperature).as_json()["value"],
            "centre_bucket": {name: s.as_json() for name, s in self.centre_bucket.items()},
            "published": published if self.published else None,
            "dropped": dropped,
        }

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write `evaluation.json`, `predictions.parquet` and figures to a folder.

        `roc-<split>.png` and `labels-<split>.png` are as Figures 5 and 4 of the paper.
        """
        folder, name, emotions = Path(out), self.student["name"], self.emotions
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "evaluation.json", json.dumps(self.as_json(), indent=2) + "\n")
        with replace_file(folder / "predictions.parquet") as temporary:
            tables = []
            for split, found in self.predictions.items():
                labels = [emotions[k] for k in found.labels]
                facts = {"track_id": found.track_ids, "split": [split] * len(labels)}
                columns = zip((f"score_{name}" for name in emotions), found.scores.T, strict=True)
                tables.append(pa.table({**facts, "label": labels, **dict(columns)}))
            pq.write_table(pa.concat_tables(tables), temporary)
        for split, found in self.predictions.items():
            title, scores = f"{name} on {split} of {self.dataset['name']}", self.splits[split]
            with chart_file(folder / f"roc-{split}.png", title, 6, 6) as axes:
                curves = metrics.emotion_curves(found.labels, found.scores, emotions)
                draw_roc(axes, curves, scores.auc, scores.positives)
            with chart_file(folder / f"labels-{split}.png", title, 6, 5) as axes:
                both = {"teacher": found.labels, "student": found.scores.argmax(axis=1)}
                series = [(n, np.bincount(k, minlength=len(emotions))) for n, k in both.items()]
                draw_counts(axes, emotions, series, "tracks")


def evaluate(
    checkpoint: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    config: EvaluateConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Evaluation:
    """Score a student on the validation splits of a dataset.

    The label of a track is the largest logit of the teacher's maximum over its frames. The score is
    the softmax of the student's logits, from all sound up to the last frame: windows as `Student`
    describes them, or those of `seconds`, `hop` and `whole`; and, separately, from the centre
    bucket of the utterance, as in the paper (section 5.2).

    Args:
        checkpoint: checkpoint of the student, or a registered name.
        dataset: folder of the dataset.
        audio: folder with the tracks' audio, see `emovox.audio_path`, or of the dataset's sources.
        config: options of the evaluation, or a recipe with them.
        options: fields of `EvaluateConfig`, which override `config`.

    Raises:
        ConfigError: unknown protocol or timing, or the dataset has no validation split.
        InputError: the checkpoint, the dataset or the folder of audio is missing, or the checkpoint
            has other emotions than the dataset.
        CheckError: too many tracks have no usable audio.

    Example:
        >>> student = "emovox-demo/student/best.safetensors"
        >>> evaluation = evaluate(student, "emovox-demo/dataset", "emovox-demo/corpus")
        >>> table = evaluation.to_pandas()
        >>> table["score"].unique().tolist()  # doctest: +NORMALIZE_WHITESPACE
        ['auc', 'accuracy', 'uar', 'macro_f1', 'calibration_error', 'calibration_error_fitted']
    """
    config = read_config(EvaluateConfig, config, options)
    data, root = load(dataset), Path(audio)
    splits = [split for split in VALIDATION if split in data.splits]
    if not splits:
        names = " or ".join(VALIDATION)
        raise ConfigError(f"{data.path}: no validation split; use a dataset with {names}")
    student = load_student(checkpoint, config.device, config.precision)
    if student.emotions != data.emotions:
        raise InputError(
            f"{checkpoint}: its emotions are {', '.join(student.emotions)}; those of {data.path} "
            f"are {', '.join(data.emotions)}; use a student of this dataset"
        )
    predictions = {split: _predict(student, data, split, root, config) for split in splits}
    how = data.emotions, 0, 0.0 if config.protocol == LEGACY else math.nan
    temperature, score = math.nan, metrics.score_split
    if known := predictions.get(VALIDATION[0]):
        temperature = metrics.fit_temperature(metrics.log_scores(known.scores), known.labels)
    scores, centre_bucket = {}, {}
    for split, p in predictions.items():
        scores[split] = score(split, p.labels, p.scores, p.identities, *how, temperature)
        centre_bucket[split] = score(split, p.labels, p.centre_scores, p.identities, *how)
    gap = metrics.difference(*scores.values()) if len(scores) == len(VALIDATION) else None
    model = {"name": student.name, "sha256": student.sha256}
    source = {"name": data.name, "version": data.version}
    heard = str(choose_part(config, student.windows))
    found = scores, gap, predictions, heard, temperature, centre_bucket
    return Evaluation(model, source, config.protocol, config.timing, *found)


def _predict(
    student: Student, data: Dataset, split: str, root: Path, config: EvaluateConfig
) -> SplitPredictions:
    """Run a student on the tracks of a split; CheckError if too many have no usable audio.

    Sound after the last row of a track has no label and is not heard, except by the legacy
    protocol, whose seconds are not those of the rows.
    """
    scan = clips.find_clips(data, data.tracks[split]["track_id"].to_pylist(), root)
    scores, centre_scores = [np.empty((0, len(data.emotions)), np.float32)], []
    failures: dict[str, Dropped] = {}
    part = choose_part(config, student.windows)

    def read(clip: clips.Clip) -> np.ndarray | Dropped:
        end = clip.end if config.protocol == LEGACY else clip.start + clip.duration
        try:
            return clips.read_utterance(clip.path, config.protocol, clip.start, end)
        except InputError as error:
            return clips.unusable(clip.track_id, clip.path, root, error)

    for chunk in clips.read_ahead(scan.clips, read, split):
        heard = [item for item in chunk if not isinstance(item, Dropped)]
        failures |= {item.track_id: item for item in chunk if isinstance(item, Dropped)}
        if heard:
            scores.append(softmax(student(heard, part)))
            centre_scores.append(softmax(student(heard, CENTRE)))
    found = [clip for clip in scan.clips if clip.track_id not in failures]
    scan = clips.Scan(found, [*scan.dropped, *failures.values()])
    scan.check(root, config.max_dropped)
    tracks = [data[clip.track_id] for clip in found]
    legacy = config.timing == LEGACY
    targets = [
        data.target(clip.track_id, 0.0, clip.duration if legacy else np.inf, timing=config.timing)
        for clip in found
    ]
    names = ([track.track_id for track in tracks], [track.identity_id for track in tracks])
    ids, identities, labels = *map(np.array, names), np.stack(targets).argmax(axis=1)
    whole, centre = np.concatenate(scores), np.concatenate([*scores[:1], *centre_scores])
    return SplitPredictions(split, ids, identities, labels, whole, scan.dropped, centre)


def _area_lines(splits: Mapping[str, SplitScores]) -> Iterator[str]:
    """Yield a line of text for each AUC, with a column for each split."""
    for name in next(iter(splits.values())).auc:
        areas = (f"{s.auc[name]}{' ' * s.auc[name].reliable}" for s in splits.values())
        counts = (f"{s.positives[name]:,}" if name in s.positives else "" for s in splits.values())
        yield _line(name, map("{}{:>7}".format, areas, counts))


def _line(name: str, cells: Iterable[str]) -> str:
    return (f"{name:<26}" + "".join(f"{cell:>30}" for cell in cells)).rstrip()
