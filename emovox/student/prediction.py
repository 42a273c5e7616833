"""Prediction of the emotions in media files: one row per window of time."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emovox.config import read_config
from emovox.dataset.reader import Dataset
from emovox.emotions import PUBLISHED, Outputs
from emovox.errors import CheckError, ConfigError, InputError
from emovox.files import replace_file
from emovox.ids import printable
from emovox.labelling.label_videos import label_videos
from emovox.media.audio import SAMPLE_RATE, audio_duration, read_audio
from emovox.media.containers import open_media
from emovox.media.spectrogram import num_samples
from emovox.media.streams import choose_stream
from emovox.packages import data_frame
from emovox.scores import softmax
from emovox.student import Student, load_student
from emovox.student.clips import CHUNK
from emovox.student.student_config import FRAMES_PER_SECOND, MIN_SECONDS, NO_TEACHER, PredictConfig
from emovox.teacher import find_teacher

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".json", ".parquet")


def prediction_schema(student: Outputs, teacher: Outputs) -> pa.Schema:
    """Return the columns of the predictions of two networks with these outputs."""
    columns = [("path", pa.string()), ("start", pa.float64()), ("end", pa.float64())]  # seconds
    for who, outputs in (("student", student), ("teacher", teacher)):
        columns.append((who, pa.string()))  # emotion with the largest score
        names = (*outputs.emotions, *outputs.values)
        columns += [(f"{who}_{name}", pa.float32()) for name in names]
    return pa.schema(columns)


@dataclass(frozen=True, repr=False)
class Predictions:
    """Probabilities of the emotions in every window of some files.

    Iterating yields one record per window: a dict of JSON values without the missing ones.
    """

    # One row per window, with the columns of `prediction_schema`; what is not UTF-8 in a path is
    # escaped
    table: pa.Table
    problems: tuple[str, ...]  # one line per file, or part of a file, that could not be used
    unusable: tuple[Path, ...]  # files without rows

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
        """Return the columns of `prediction_schema`; MissingPackageError without pandas."""
        return data_frame({name: self.table[name].to_numpy() for name in self.table.column_names})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV, JSON lines or Parquet file, by its suffix; ConfigError for another one."""
        path = Path(path)
        check_suffix(path)
        with replace_file(path) as temporary, temporary.open("wb") as file:  # any name
            if path.suffix == ".parquet":
                pq.write_table(self.table, file)
            elif path.suffix == ".csv":
                pyarrow.csv.write_csv(self.table, file)
            else:
                file.writelines(json.dumps(record).encode() + b"\n" for record in self)


def check_suffix(path: Path) -> None:
    """Raise ConfigError unless predictions can be written to a file with this name."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{printable(str(path))}: must end in one of {', '.join(SUFFIXES)}")


def predict(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    config: PredictConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Predictions:
    """Predict the emotions in every window of audio and video files.

    The student's probabilities are the softmax of its logits on the sound. The teacher's are the
    softmax of the largest logits over the frames of the window (paper, section 3.2); its values,
    such as valence, are means over these frames. The results of a network are missing for files
    without sound or pictures and windows without a face.

    Args:
        paths: one file, or several.
        config: options of the prediction, or a recipe with them.
        options: fields of `PredictConfig`, which override `config`; `student` is required in one of
            the two.

    Raises:
        ConfigError: no file, or unknown student or teacher.
        InputError: a file is missing or is a folder.
        CheckError: none of the files could be used; the message has a line for each.

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
    if config.teacher == NO_TEACHER:
        config = replace(config, teacher=None)
    files = [Path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not files:
        raise ConfigError("no files; pass at least one audio or video file")
    for path in files:
        if not path.is_file():
            problem = "is a folder; pass the files in it" if path.is_dir() else "not found"
            raise InputError(f"{printable(str(path))}: {problem}")
    student = load_student(config.student, config.device, config.precision)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="emovox-predict-") as folder:
        videos = _label_videos(files, config, Path(folder), problems)
        teacher = find_teacher(config.teacher).read_outputs() if config.teacher else PUBLISHED
        columns = prediction_schema(Outputs(student.emotions), teacher)
        tables = [_predict_one(p, student, videos.get(p), config, columns, problems) for p in files]
    problems = list(map(printable, problems))
    usable = [table for table in tables if table is not None]
    if not usable:
        raise CheckError("\n  ".join(["none of the files could be used:", *problems]))
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

    def outputs(self, start: float, end: float) -> np.ndarray:
        """Return largest logits and mean values of a window, float32 `[E + V]`; NaN if unseen."""
        track = self.dataset[self.track_id]
        seen = (track.times + self.dataset.step > start) & (track.times < end)
        if not seen.any():
            return np.full(len(self.dataset.outputs), np.nan, np.float32)
        logits = self.dataset.target(self.track_id, start, end)
        return np.concatenate([logits, track.values[seen].mean(axis=0)])


def _predict_one(
    path: Path,
    student: Student,
    video: _Video | None,
    config: PredictConfig,
    columns: pa.Schema,
    problems: list[str],
) -> pa.Table | None:
    """Return the rows of one file; None if it has no sound and no labelled pictures."""
    seconds, hop = config.seconds, config.hop or config.seconds
    found: dict[str, Any] = {}
    try:
        duration = audio_duration(path)
        starts = window_starts(duration, seconds, hop)
        logits = _student_logits(path, student, starts, seconds)
        found = _columns("student", Outputs(student.emotions), logits)
    except InputError as error:
        problems.append(f"{error}; scored by its pictures only" if video else str(error))
        if video is None:
            return None
        duration = float(video.dataset.times(video.track_id)[-1]) + video.dataset.step
        starts = window_starts(duration, seconds, hop)
    ends = [min(start + seconds, duration) for start in starts]
    found |= {"path": [printable(str(path))] * len(starts), "start": starts, "end": ends}
    if video is not None:
        outputs = [video.outputs(*window) for window in zip(starts, ends, strict=True)]
        found |= _columns("teacher", video.dataset.outputs, np.stack(outputs))
    missing = [None] * len(starts)
    arrays = [pa.array(found.get(f.name, missing), f.type, from_pandas=True) for f in columns]
    return pa.table(arrays, columns)  # from_pandas: NaN is missing


def _student_logits(
    path: Path, student: Student, starts: Sequence[float], seconds: float
) -> np.ndarray:
    """Return logits float32 `[N, E]` of windows; NaN for those after the end of the sound."""
    length = num_samples(round(seconds * FRAMES_PER_SECOND))
    logits = []
    for first in range(0, len(starts), CHUNK):
        chunk = starts[first : first + CHUNK]
        samples = read_audio(path, chunk[0], chunk[-1] + length / SAMPLE_RATE)
        offsets = [round((start - chunk[0]) * SAMPLE_RATE) for start in chunk]
        heard = [samples[offset : offset + length] for offset in offsets if offset < len(samples)]
        logits.append(student(heard))
        after = len(chunk) - len(heard)
        logits.append(np.full((after, len(student.emotions)), np.nan, np.float32))
    return np.concatenate(logits)


def _label_videos(
    paths: Sequence[Path], config: PredictConfig, folder: Path, problems: list[str]
) -> dict[Path, _Video]:
    """Run the teacher on the files with pictures; return those in which it found faces."""
    if not config.teacher or not (videos := list(filter(_has_pictures, paths))):
        return {}
    dataset, track_ids, dropped = label_videos(
        videos, config.teacher, folder, config.device, config.precision, config.jobs
    )
    found = {}
    for path, track_id in zip(videos, track_ids, strict=True):
        if track_id in dataset:
            found[path] = _Video(dataset, track_id)
        else:
            problems.append(f"{path}: its pictures are not used: {dropped[track_id]['message']}")
    return found


def _has_pictures(path: Path) -> bool:
    """Return True for a file with a video stream that is not a cover image."""
    try:
        with open_media(path) as container:
            return choose_stream(container, "video")[0] is not None
    except (av.FFmpegError, OSError):
        return False  # reading its sound reports the error


def _columns(name: str, outputs: Outputs, rows: np.ndarray) -> dict[str, Any]:
    """Return label, probabilities and values of a network; None and NaN where rows are NaN."""
    num, names = len(outputs.emotions), (*outputs.emotions, *outputs.values)
    scores = softmax(rows[:, :num])
    labels = [None if np.isnan(row).any() else names[row.argmax()] for row in scores]
    columns = zip(names, np.concatenate([scores, rows[:, num:]], axis=1).T, strict=True)
    return {name: labels, **{f"{name}_{output}": column for output, column in columns}}
