"""Prediction of the emotions in media files: one row per window of time."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emovox.config import read_config
from emovox.dataset.reader import Dataset
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, ConfigError, InputError
from emovox.files import replace_file
from emovox.labelling.label_videos import label_videos
from emovox.media.audio import SAMPLE_RATE, audio_duration, read_audio
from emovox.media.containers import open_media
from emovox.media.spectrogram import num_samples
from emovox.packages import data_frame
from emovox.scores import softmax
from emovox.student import Student, load_student
from emovox.student.clips import CHUNK
from emovox.student.student_config import (
    FRAMES_PER_SECOND,
    MIN_SECONDS,
    NO_TEACHER,
    PredictConfig,
)

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".json", ".parquet")

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("start", pa.float64()),  # seconds
        ("end", pa.float64()),
        ("student", pa.string()),  # emotion with the largest score
        *((f"student_{emotion}", pa.float32()) for emotion in EMOTIONS),
        ("teacher", pa.string()),
        *((f"teacher_{emotion}", pa.float32()) for emotion in EMOTIONS),
    ]
)


@dataclass(frozen=True, repr=False)
class Predictions:
    """Probabilities of the emotions in every window of some files.

    Iterating yields one record per window: a dict of JSON values without the missing ones.

    Attributes:
        table: one row per window, with the columns of `SCHEMA`.
        problems: one line per file, or part of a file, that could not be used.
        unusable: files without rows.
    """

    table: pa.Table
    problems: tuple[str, ...]
    unusable: tuple[Path, ...]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        num_files = len(set(self.table["path"].to_pylist()))
        unusable = f"; {len(self.unusable):,} unusable" if self.unusable else ""
        return f"<Predictions: {len(self):,} windows of {num_files:,} files{unusable}>"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.table.to_pylist():
            yield {
                name: round(value, 6) if isinstance(value, float) else value
                for name, value in row.items()
                if value is not None
            }

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table with the columns of `SCHEMA`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return data_frame({name: self.table[name].to_numpy() for name in SCHEMA.names})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV, JSON lines or Parquet file, by its suffix.

        Raises:
            ConfigError: another suffix.
        """
        path = Path(path)
        check_suffix(path)
        with replace_file(path) as temporary:
            if path.suffix == ".parquet":
                pq.write_table(self.table, temporary)
            elif path.suffix == ".csv":
                pyarrow.csv.write_csv(self.table, temporary)
            else:
                lines = "".join(json.dumps(record) + "\n" for record in self)
                temporary.write_text(lines, encoding="utf-8")


def check_suffix(path: Path) -> None:
    """Raise ConfigError unless predictions can be written to a file with this name."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: must end in one of {', '.join(SUFFIXES)}")


def predict(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    config: PredictConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Predictions:
    """Predict the emotions in every window of audio and video files.

    The student's probabilities are the softmax of its logits on the sound. The teacher's are the
    softmax of the largest logits over the frames of the window (paper, section 3.2). The
    values of a network are missing for files without sound or pictures and windows without a face.

    Args:
        paths: one file, or several.
        config: options of the prediction, or a recipe with them.
        options: fields of `PredictConfig`, which override `config`; `student` is required in one of
            the two.

    Raises:
        ConfigError: no file, or unknown student or teacher.
        InputError: a file is missing or is a folder.
        CheckError: none of the files could be used.

    Example:
        >>> import soundfile
        >>> noise = np.random.default_rng(0).normal(0, 0.1, 80_000)
        >>> soundfile.write("noise.wav", noise, 16_000)  # 5 s
        >>> predictions = predict("noise.wav", student="emovox-demo/student/best.safetensors")
        >>> predictions
        <Predictions: 2 windows of 1 files>
        >>> predictions.to_pandas()[["path", "start", "end"]]
                path  start  end
        0  noise.wav    0.0  4.0
        1  noise.wav    4.0  5.0
    """
    config = read_config(PredictConfig, config, options)
    files = [Path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not files:
        raise ConfigError("no files; pass at least one audio or video file")
    for path in files:
        if not path.is_file():
            problem = "is a folder; pass the files in it" if path.is_dir() else "not found"
            raise InputError(f"{path}: {problem}")
    student = load_student(config.student, config.device, config.precision)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="emovox-predict-") as folder:
        videos = _label_videos(files, config, Path(folder), problems)
        tables = [_predict_one(p, student, videos.get(p), config, problems) for p in files]
    usable = [table for table in tables if table is not None]
    if not usable:
        raise CheckError(f"none of the files could be used: {problems[0]}")
    unusable = tuple(path for path, table in zip(files, tables, strict=True) if table is None)
    return Predictions(pa.concat_tables(usable), tuple(problems), unusable)


def window_starts(duration: float, seconds: float, hop: float) -> list[float]:
    """Return the starts of all windows; a remainder of `MIN_SECONDS` or more gets a window too."""
    count = 1 + max(0, math.floor((duration - min(MIN_SECONDS, seconds)) / hop + 1e-9))
    return [round(number * hop, 6) for number in range(count)]


@dataclass(frozen=True)
class _Video:
    """Frames of one video, as a track of a temporary dataset."""

    dataset: Dataset
    track_id: str

    @property
    def duration(self) -> float:
        """Seconds up to the end of the last frame."""
        return float(self.dataset.times(self.track_id)[-1]) + self.dataset.step

    def logits(self, start: float, end: float) -> np.ndarray:
        """Return the largest logits of a window, float32 `[8]`; NaN without a face."""
        times = self.dataset.times(self.track_id)
        if not ((times + self.dataset.step > start) & (times < end)).any():
            return np.full(len(EMOTIONS), np.nan, np.float32)
        return self.dataset.target(self.track_id, start, end)


def _predict_one(
    path: Path,
    student: Student,
    video: _Video | None,
    config: PredictConfig,
    problems: list[str],
) -> pa.Table | None:
    """Return the rows of one file; None if it has no sound and no labelled pictures."""
    duration, has_sound = 0.0, True
    try:
        duration = audio_duration(path)
    except InputError as error:
        if video is None:
            problems.append(str(error))
            return None
        problems.append(f"{error}; scored by its pictures only")
        duration, has_sound = video.duration, False
    starts = window_starts(duration, config.seconds, config.hop or config.seconds)
    ends = [min(start + config.seconds, duration) for start in starts]
    columns: dict[str, Any] = {"path": [str(path)] * len(starts), "start": starts, "end": ends}
    if has_sound:
        try:
            columns |= _columns("student", _student_logits(path, student, starts, config.seconds))
        except InputError as error:
            problems.append(str(error))
            return None
    if video is not None:
        logits = [video.logits(*window) for window in zip(starts, ends, strict=True)]
        columns |= _columns("teacher", np.stack(logits))
    missing = [None] * len(starts)
    arrays = [pa.array(columns.get(f.name, missing), f.type, from_pandas=True) for f in SCHEMA]
    return pa.table(arrays, SCHEMA)  # from_pandas: NaN is missing


def _student_logits(
    path: Path, student: Student, starts: Sequence[float], seconds: float
) -> np.ndarray:
    """Return logits float32 `[N, 8]` of windows."""
    length = num_samples(round(seconds * FRAMES_PER_SECOND))
    logits = []
    for first in range(0, len(starts), CHUNK):
        chunk = starts[first : first + CHUNK]
        samples = read_audio(path, chunk[0], chunk[-1] + length / SAMPLE_RATE)
        offsets = [round((start - chunk[0]) * SAMPLE_RATE) for start in chunk]
        logits.append(student([samples[offset : offset + length] for offset in offsets]))
    return np.concatenate(logits)


def _label_videos(
    paths: Sequence[Path], config: PredictConfig, folder: Path, problems: list[str]
) -> dict[Path, _Video]:
    """Run the teacher on the files with pictures; return those in which it found faces."""
    teacher = None if config.teacher == NO_TEACHER else config.teacher
    videos = [path for path in paths if teacher and _has_pictures(path)]
    if not (teacher and videos):
        return {}
    dataset, track_ids = label_videos(
        videos,
        teacher,
        folder,
        device=config.device,
        precision=config.precision,
        num_jobs=config.jobs,
    )
    labelled = dict(zip(videos, track_ids, strict=True))
    for path in [path for path, track_id in labelled.items() if track_id not in dataset]:
        problems.append(f"{path}: no face found; scored by its sound only")
        del labelled[path]
    return {path: _Video(dataset, track_id) for path, track_id in labelled.items()}


def _has_pictures(path: Path) -> bool:
    """Return True for a file with a video stream that is not a cover image."""
    try:
        with open_media(path) as container:
            still = av.stream.Disposition.attached_pic
            return any(not stream.disposition & still for stream in container.streams.video)
    except (av.FFmpegError, OSError):
        return False  # reading its sound reports the error


def _columns(name: str, logits: np.ndarray) -> dict[str, Any]:
    """Return the label and the probabilities of a network; None and NaN where logits are NaN."""
    scores = softmax(logits)
    labels = [None if np.isnan(row).any() else EMOTIONS[row.argmax()] for row in scores]
    columns: dict[str, Any] = {name: labels}
    for emotion, column in zip(EMOTIONS, scores.T, strict=True):
        columns[f"{name}_{emotion}"] = column
    return columns
