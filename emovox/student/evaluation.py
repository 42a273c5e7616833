"""A student on a dataset: how well it finds the teacher's emotion in sound alone (paper, 5.2)."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax
from tqdm import tqdm

from emovox.dataset.names import TIMINGS
from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Dropped
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, InputError
from emovox.files import replace_file, write_text
from emovox.media.audio import read_audio
from emovox.student import Student, load_student
from emovox.student.clips import Clip, count_reasons, find_clips, unreadable
from emovox.student.student_figures import draw_labels, draw_roc
from emovox.student.student_scores import (
    CONFIDENCE,
    MEAN_ALL,
    MEAN_PAPER,
    PAPER_EMOTIONS,
    ROUNDS,
    Interval,
    SplitScores,
    difference,
    score_split,
)

Read = Callable[[Clip], np.ndarray | Dropped]

VALIDATION = ("heard_val", "unheard_val")
PROTOCOLS = ("standard", "legacy")
CHUNK = 64  # utterances read ahead and given to the student at a time
THREADS = 2  # that read them
# Mean AUC of the paper (section 5.2, Figure 5), by split, and what to hold of it.
PUBLISHED = {"heard_val": 0.71, "unheard_val": 0.69}
PUBLISHED_DATASET = "emovoxceleb"
PUBLISHED_NOTE = (
    "quoted from the paper; its repository's own curves give about 0.72 heard and 0.71 unheard, so "
    "take both as +- 0.02"
)


@dataclass(frozen=True)
class Predictions:
    """What a student made of the tracks of one split.

    Attributes:
        split: name.
        track_ids, identities: of the tracks, `[N]`.
        labels: number of the teacher's emotion, int64 `[N]`.
        scores: probabilities of the student, float32 `[N, 8]`.
        dropped: tracks that could not be heard.
    """

    split: str
    track_ids: np.ndarray
    identities: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    dropped: list[Dropped]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one student on the validation splits of one dataset.

    Attributes:
        student, dataset: name and hash or version of each, for the record.
        protocol, timing: how it was read.
        splits: scores by split.
        shortcut: heard minus unheard; None where one of them is not there.
        predictions: by split.
    """

    student: Mapping[str, str]
    dataset: Mapping[str, str]
    protocol: str
    timing: str
    splits: Mapping[str, SplitScores]
    shortcut: Interval | None
    predictions: Mapping[str, Predictions]

    @property
    def published(self) -> Mapping[str, float]:
        """The paper's figures, where the dataset is the paper's."""
        return PUBLISHED if self.dataset["name"] == PUBLISHED_DATASET else {}

    @property
    def dropped(self) -> list[Dropped]:
        """Tracks of all splits that could not be heard."""
        return [item for found in self.predictions.values() for item in found.dropped]

    def summary(self) -> str:
        """The figures as lines of text, one column for each split."""
        lines = [
            f"{self.student['name']} on {self.dataset['name']} {self.dataset['version']}: ROC AUC",
            f"{'':<26}" + "".join(f"{split:>28}" for split in self.splits),
        ]
        for name in (*EMOTIONS, MEAN_PAPER, MEAN_ALL):
            cells = []
            for scores in self.splits.values():
                count = f"{scores.positives[name]:>7,}" if name in scores.positives else " " * 7
                cells.append(f"{_shown(scores.auc[name])}{count}")
            lines.append(f"{name:<26}" + "".join(f"{cell:>28}" for cell in cells))
        sizes = (f"{s.num_tracks:,} ({s.num_identities:,})" for s in self.splits.values())
        lines.append(f"{'tracks (identities)':<26}" + "".join(f"{size:>28}" for size in sizes))
        if self.published:
            quoted = (f"{self.published[split]:.2f}" for split in self.splits)
            lines.append(f"{'published mean of five':<26}" + "".join(f"{q:>28}" for q in quoted))
            lines.append(f"  {PUBLISHED_NOTE}")
        if self.shortcut is not None:
            lines.append(f"{'heard minus unheard':<26}{_shown(self.shortcut):>21}")
        lines += self._notes()
        return "\n".join(line.rstrip() for line in lines)

    def _notes(self) -> list[str]:
        notes = [
            f"intervals: {CONFIDENCE:.0%} of {ROUNDS:,} bootstrap samples of identities; behind "
            "them: positives"
        ]
        for split, scores in self.splits.items():
            if absent := [name for name in PAPER_EMOTIONS if not scores.positives[name]]:
                counted = "has 0, as in the reference" if self.protocol == "legacy" else "left out"
                notes.append(f"no track of {split} has {', '.join(absent)}: {counted}")
        if self.dropped:
            notes.append(f"not heard: {count_reasons(self.dropped)}")
        return notes

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "student": dict(self.student),
            "dataset": dict(self.dataset),
            "protocol": self.protocol,
            "timing": self.timing,
            "splits": {split: scores.as_json() for split, scores in self.splits.items()},
            "heard_minus_unheard": self.shortcut.as_json() if self.shortcut else None,
            "published": {"mean_auc": dict(self.published), "note": PUBLISHED_NOTE}
            if self.published
            else None,
            "dropped": [_without_source(item) for item in self.dropped],
        }

    def write(self, folder: Path) -> None:
        """Write `evaluation.json`, `predictions.parquet` and the figures as PNG."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "evaluation.json", json.dumps(self.as_json(), indent=2) + "\n")
        with replace_file(folder / "predictions.parquet") as temporary:
            pq.write_table(pa.concat_tables(map(_table, self.predictions.values())), temporary)
        for split, found in self.predictions.items():
            title = f"{self.student['name']} on {split} of {self.dataset['name']}"
            draw_roc(found.labels, found.scores, title, folder / f"roc-{split}.png")
            draw_labels(found.labels, found.scores, title, folder / f"labels-{split}.png")


def evaluate(
    checkpoint: str | Path,
    dataset: str | Path,
    audio: str | Path,
    *,
    protocol: str = "standard",
    timing: str = "grid",
    device: str = "auto",
    precision: str = "auto",
    max_dropped: float = 0.05,
    seed: int = 0,
) -> Evaluation:
    """Score a student on the validation splits: labels of the teacher, scores of the student.

    The label is the largest logit of the track's maximum over its frames; the score is the softmax
    of the student on the centre bucket of the utterance (paper, section 5.2).

    Args:
        checkpoint: of the student, or a registered name.
        dataset: folder of the contract.
        audio: folder with the tracks' audio.
        protocol: `legacy` reads sound as the reference does, the left channel as if it were 16 kHz,
            and gives an emotion that no track has an AUC of 0.
        timing: `legacy` takes the label from the rows that the reference's mapping of time gives.
        device, precision: of the student.
        max_dropped: share of tracks without usable audio above which there are no figures.
        seed: of the bootstrap.

    Raises:
        ConfigError: an unknown protocol or timing, or no validation split.
        InputError: no such checkpoint, dataset or folder.
        CheckError: too many tracks have no usable audio.
    """
    for name, value, options in (("protocol", protocol, PROTOCOLS), ("timing", timing, TIMINGS)):
        if value not in options:
            raise ConfigError(f"{name} {value!r} is not one of {', '.join(options)}")
    data, root = load(dataset), Path(audio)
    splits = [split for split in VALIDATION if split in data.splits]
    if not splits:
        raise ConfigError(f"{data.path}: has neither of the splits {', '.join(VALIDATION)}")
    student = load_student(checkpoint, device, precision)
    predictions = {}
    for split in splits:
        track_ids = data.tracks[split]["track_id"].to_pylist()
        scan = find_clips(data, track_ids, root, progress=True)
        found, failures = _predict(student, scan.clips, root, split, protocol)
        scan = scan.without(failures)
        scan.check(root, max_dropped)
        labels = _labels(data, scan.clips, timing)
        identities = np.array([data[clip.track_id].identity_id for clip in scan.clips])
        names = np.array([clip.track_id for clip in scan.clips])
        predictions[split] = Predictions(split, names, identities, labels, found, scan.dropped)
    absent = 0.0 if protocol == "legacy" else np.nan
    scores = {
        split: score_split(split, p.labels, p.scores, p.identities, seed, absent)
        for split, p in predictions.items()
    }
    return Evaluation(
        {"name": student.name, "sha256": student.sha256},
        {"name": data.name, "version": data.version},
        protocol,
        timing,
        scores,
        difference(*scores.values()) if len(scores) == len(VALIDATION) else None,
        predictions,
    )


def read_utterance(path: Path, protocol: str = "standard") -> np.ndarray:
    """Samples of a whole file as the protocol hears it; InputError if it cannot be read."""
    if protocol == "legacy":
        return read_audio(path, channels="left", resample=False)
    return read_audio(path)


def _predict(
    student: Student, clips: Sequence[Clip], root: Path, split: str, protocol: str
) -> tuple[np.ndarray, dict[str, Dropped]]:
    """Probabilities float32 `[N, 8]` of the clips that can be read, and the others by track."""
    scores = [np.empty((0, len(EMOTIONS)), np.float32)]
    failures: dict[str, Dropped] = {}

    def read(clip: Clip) -> np.ndarray | Dropped:
        try:
            return read_utterance(clip.path, protocol)
        except InputError as error:
            return unreadable(clip.track_id, clip.path, root, error)

    for chunk in _read_ahead(clips, read, split):
        heard = [item for item in chunk if not isinstance(item, Dropped)]
        failures |= {item.track_id: item for item in chunk if isinstance(item, Dropped)}
        if heard:
            scores.append(softmax(student(heard), axis=1))
    return np.concatenate(scores), failures


def _read_ahead(
    clips: Sequence[Clip], read: Read, what: str
) -> Iterator[list[np.ndarray | Dropped]]:
    """Chunks of what `read` gives, the next one being read while one is worked on."""
    bar = tqdm(total=len(clips), desc=what, unit=" tracks", disable=None, leave=False)
    with ThreadPoolExecutor(THREADS) as pool, bar:
        reading = pool.map(read, clips[:CHUNK])
        for start in range(0, len(clips), CHUNK):
            chunk = list(reading)
            reading = pool.map(read, clips[start + CHUNK : start + 2 * CHUNK])
            yield chunk
            bar.update(len(chunk))


def _labels(data: Dataset, clips: Sequence[Clip], timing: str) -> np.ndarray:
    """Number of the teacher's emotion for each track, int64 `[N]`."""
    targets = [
        data.target(
            clip.track_id, 0.0, clip.duration if timing == "legacy" else np.inf, timing=timing
        )
        for clip in clips
    ]
    return np.array([target.argmax() for target in targets], np.int64)


def _without_source(item: Dropped) -> dict[str, Any]:
    """A dropped track as plain values; in some trees the source has a person's name in it."""
    values = asdict(item)
    del values["source"]
    return values


def _table(found: Predictions) -> pa.Table:
    columns: dict[str, Any] = {
        "track_id": pa.array(found.track_ids.tolist(), pa.string()),
        "split": pa.array([found.split] * len(found.labels), pa.string()),
        "label": pa.array([EMOTIONS[k] for k in found.labels], pa.string()),
    }
    for k, emotion in enumerate(EMOTIONS):
        columns[f"score_{emotion}"] = pa.array(found.scores[:, k], pa.float32())
    return pa.table(columns)


def _shown(interval: Interval) -> str:
    if np.isnan(interval.value):
        return "-"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
