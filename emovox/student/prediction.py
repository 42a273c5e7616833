"""Prediction of the emotions in media files: one row per window of time."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emovox.config import read_config
from emovox.dataset.reader import Dataset
from emovox.emotions import Outputs
from emovox.errors import CheckError, ConfigError, InputError
from emovox.files import replace_file
from emovox.ids import printable
from emovox.labelling.run import label_videos
from emovox.media.audio import SAMPLE_RATE, audio_duration, read_audio
from emovox.media.containers import open_media
from emovox.media.streams import choose_stream
from emovox.packages import DataFrame, data_frame
from emovox.registry import read_temperature
from emovox.scores import softmax
from emovox.student import Student, load_student
from emovox.student.clips import CHUNK, SILENT_PEAK, Windows, choose_part
from emovox.student.student_config import NONE, PredictConfig
from emovox.teacher import find_teacher

SUFFIXES = (".csv", ".json", ".parquet")
HEARD, SILENT = "heard", "silent"  # values of the column `sound`; missing without sound


def prediction_schema(student: Outputs | None, teacher: Outputs | None) -> pa.Schema:
    """Return the columns of the predictions of two networks with these outputs; None: not used.

    `sound` states whether the student heard something or silence, `faces` in how many frames of the
    0.24 s grid the teacher saw a face; `student` and `teacher` are their most probable emotions.
    """
    columns = [("path", pa.string()), ("start", pa.float64()), ("end", pa.float64())]  # seconds
    for who, outputs in (("student", student), ("teacher", teacher)):
        if outputs is not None:
            columns.append(("sound", pa.string()) if who == "student" else ("faces", pa.int32()))
            columns.append((who, pa.string()))
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

    def to_pandas(self) -> DataFrame:
        """Return the columns of `prediction_schema`; MissingPackageError without pandas."""
        return data_frame({name: self.table[name].to_numpy() for name in self.table.column_names})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write .csv, .json or .parquet, else ConfigError; predictions.csv in a folder."""
        path = check_output(Path(path))
        with replace_file(path) as temporary, temporary.open("wb") as file:  # any name
            if path.suffix == ".parquet":
                pq.write_table(self.table, file)
            elif path.suffix == ".csv":
                self.write_csv(file)
            else:
                file.writelines(json.dumps(record).encode() + b"\n" for record in self)

    def write_csv(self, file: IO[bytes]) -> None:
        """Write CSV to an open file."""
        pyarrow.csv.write_csv(self.table, file)


def check_output(path: Path) -> Path:
    """Return the file of the predictions; ConfigError unless they can be written there."""
    if path.is_dir():
        return path / "predictions.csv"
    if not path.parent.is_dir():
        raise ConfigError(f"{printable(str(path.parent))}: folder not found; create it first")
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{printable(str(path))}: must end in one of {', '.join(SUFFIXES)}")
    return path


def predict(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    config: PredictConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Predictions:
    """Predict the emotions in every window of audio and video files.

    The windows are those of the student's training, each half a window after the one before, see
    `Student`; `seconds`, `hop` and `whole` change them. They reach the end of the longer of sound
    and picture. The student's probabilities are the softmax of its logits on the sound. The
    teacher's are the softmax of the largest logits over the frames of the window (paper, section
    3.2), divided by its temperature; its values, such as valence, are means over these frames. The
    results of a network are missing for files without sound or pictures, silent windows and windows
    without a face.

    Args:
        paths: one file, or several.
        config: options of the prediction, or a recipe with them.
        options: fields of `PredictConfig`, which override `config`; `student` is required in one of
            the two.

    Raises:
        ConfigError: no file, unknown student, teacher or class, or no network; or the student does
            not state the prior of its training, which `uniform` needs.
        InputError: a file is missing or is a folder.
        CheckError: none of the files could be used; the message has a line for each.

    Example:
        >>> import soundfile
        >>> noise = np.random.default_rng(0).normal(0, 0.1, 80_000)
        >>> soundfile.write("noise.wav", noise, 16_000)  # 5 s
        >>> student = "emovox-demo/student/best.safetensors"
        >>> predictions = predict("noise.wav", student=student, seconds=4)
        >>> predictions
        <Predictions: 2 windows of 1 files>
        >>> predictions.to_pandas()[["path", "start", "end", "sound"]]
                path  start  end  sound
        0  noise.wav    0.0  4.0  heard
        1  noise.wav    2.0  5.0  heard
    """
    config = read_config(PredictConfig, config, options)
    files = [Path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not files:
        raise ConfigError("no files; pass at least one audio or video file")
    for path in files:
        if not path.is_file():
            problem = "is a folder; pass the files in it" if path.is_dir() else "not found"
            raise InputError(f"{printable(str(path))}: {problem}")
    heard = seen = student = None
    if config.student != NONE:
        student = load_student(config.student, config.device, config.precision)
        heard = _Network("student", Outputs(student.emotions), config, student)
    if config.teacher not in (None, NONE):
        weights = find_teacher(str(config.teacher))
        temperature = read_temperature(weights.path)
        seen = _Network("teacher", weights.read_outputs(), config, temperature=temperature)
    if not heard and config.prior == "uniform":
        raise ConfigError("prior 'uniform': corrects a student; leave it out")
    if not (heard or seen):
        raise ConfigError("student and teacher are both 'none'; pass one of them")
    part = choose_part(config, student.windows if student else Windows())
    columns = prediction_schema(*(each.outputs if each else None for each in (heard, seen)))
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="emovox-predict-") as folder:
        videos = _label_videos(files, config, Path(folder), problems) if seen else {}
        tables = []
        for path in files:
            found = _predict_one(path, heard, seen, videos.get(path), part, problems)
            missing = [None] * len(found.get("start", ()))
            values = ((found.get(f.name, missing), f.type) for f in columns)  # NaN is missing
            arrays = [pa.array(value, kind, from_pandas=True) for value, kind in values]
            tables.append(pa.table(arrays, columns))
    problems = list(map(printable, problems))
    usable = [table for table in tables if len(table)]
    if not usable:
        raise CheckError("\n  ".join(["none of the files could be used:", *problems]))
    unusable = tuple(path for path, table in zip(files, tables, strict=True) if not len(table))
    return Predictions(pa.concat_tables(usable), tuple(problems), unusable)


class _Network:
    """The outputs of a network as the options request them; `student` is None for a teacher."""

    def __init__(
        self,
        who: str,
        outputs: Outputs,
        config: PredictConfig,
        student: Student | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.who, self.raw, self.student = who, config.logits, student
        self.temperature = temperature
        self.num = len(outputs.emotions)
        if unknown := [name for name in config.classes if name not in outputs.emotions]:
            names = ", ".join(outputs.emotions)
            raise ConfigError(f"classes {unknown[0]!r}: not an emotion of the {who}; use {names}")
        classes = config.classes or outputs.emotions
        self.outputs = Outputs.of([n for n in outputs.emotions if n in classes], outputs.values)
        self.chosen = [outputs.emotions.index(name) for name in self.outputs.emotions]
        self.shift = np.zeros(self.num)
        if student is not None and config.prior == "uniform":
            if student.prior is None:
                raise ConfigError(f"prior 'uniform': {config.student} does not state its prior")
            self.shift = np.log(student.prior)

    def columns(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the columns for outputs `[N, E + V]`; None and NaN where these are NaN."""
        logits, names = (rows[:, : self.num] - self.shift)[:, self.chosen], self.outputs.emotions
        labels = [None if np.isnan(row).any() else names[row.argmax()] for row in logits]
        scores = logits if self.raw else softmax(logits / self.temperature)
        shown = np.hstack([scores, rows[:, self.num :]])
        columns = zip((*names, *self.outputs.values), shown.T, strict=True)
        return {self.who: labels, **{f"{self.who}_{name}": column for name, column in columns}}


@dataclass(frozen=True)
class _Video:
    """Frames of one video, as a track of a temporary dataset."""

    dataset: Dataset
    track_id: str
    duration: float = 0.0  # seconds

    def faces(self, start: float, end: float) -> np.ndarray:
        """Return which frames with a face overlap a window, bool `[n]`."""
        times = self.dataset.times(self.track_id)
        return (times + self.dataset.step > start) & (times < end)

    def outputs(self, start: float, end: float) -> np.ndarray:
        """Return largest logits and mean values of a window, float32 `[E + V]`; NaN if unseen."""
        seen = self.faces(start, end)
        if not seen.any():
            return np.full(len(self.dataset.outputs), np.nan, np.float32)
        logits = self.dataset.target(self.track_id, start, end)
        return np.concatenate([logits, self.dataset[self.track_id].values[seen].mean(axis=0)])


def _predict_one(
    path: Path,
    heard: _Network | None,
    seen: _Network | None,
    video: _Video | None,
    part: Windows | str,
    problems: list[str],
) -> dict[str, Any]:
    """Return the columns of one file; nothing if it has no sound and no labelled pictures."""
    student = heard.student if heard else None
    duration, found = video.duration if video else 0.0, {}
    starts, ends = _spans(duration, part)
    if heard is not None and student is not None:
        try:
            sound = audio_duration(path)
            starts, ends = _spans(max(sound, duration), part)
            logits, state = _student_logits(path, student, starts, sound, part)
            found = heard.columns(logits) | {"sound": state}
        except InputError as error:
            message = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
            problems.append(f"{message}; scored by its pictures only" if video else message)
            starts, ends = _spans(duration, part)
    elif video is None and not any(problem.startswith(f"{path}: ") for problem in problems):
        problems.append(f"{path}: no pictures; pass a --student to score its sound")
    if video is not None and seen is not None:
        spans = list(zip(starts, ends, strict=True))
        found |= seen.columns(np.stack([video.outputs(*span) for span in spans]))
        found["faces"] = [int(video.faces(*span).sum()) for span in spans]
    if not found:
        return {}
    return found | {"path": [printable(str(path))] * len(starts), "start": starts, "end": ends}


def _spans(duration: float, part: Windows | str) -> tuple[list[float], list[float]]:
    if not isinstance(part, Windows):
        return [0.0], [duration]
    starts = [round(n / SAMPLE_RATE, 6) for n in part.starts(round(duration * SAMPLE_RATE))]
    reach = part.length / SAMPLE_RATE  # slightly more than the seconds
    ends = [duration if start + reach >= duration else start + part.seconds for start in starts]
    return starts, ends


def _student_logits(
    path: Path, student: Student, starts: Sequence[float], duration: float, part: Windows | str
) -> tuple[np.ndarray, list[str | None]]:
    """Return logits float32 `[N, E]` of windows of a file, and their states for `sound`.

    The logits are NaN for silence, and after the end of the sound at `duration` seconds.
    """
    logits = np.full((len(starts), len(student.emotions)), np.nan, np.float32)
    states: list[str | None] = [None] * len(starts)
    length = part.length if isinstance(part, Windows) else None
    audible = [start for start in starts if start < duration]
    for first in range(0, len(audible), CHUNK):
        chunk = audible[first : first + CHUNK]
        samples = read_audio(path, chunk[0], length and chunk[-1] + length / SAMPLE_RATE)
        windows = {}
        for row, start in enumerate(chunk, first):
            window = samples[round((start - chunk[0]) * SAMPLE_RATE) :][:length]
            if len(window):
                states[row] = HEARD if np.abs(window).max() > SILENT_PEAK else SILENT
            if states[row] == HEARD:
                windows[row] = window
        if windows:
            logits[[*windows]] = student([*windows.values()], part)
    return logits, states


def _label_videos(
    paths: Sequence[Path], config: PredictConfig, folder: Path, problems: list[str]
) -> dict[Path, _Video]:
    """Run the teacher on the files with pictures; return those in which it found faces."""
    if not (videos := list(filter(_has_pictures, paths))):
        return {}
    runtime = config.device, config.precision, config.jobs
    dataset, track_ids, dropped = label_videos(videos, str(config.teacher), folder, *runtime)
    rows = (row for split in dataset.splits for row in dataset.tracks[split].to_pylist())
    lengths = {row["track_id"]: (row["duration_ms"] or 0) / 1000 for row in rows}
    found = {}
    for path, track_id in zip(videos, track_ids, strict=True):
        if track_id in dataset:
            last = float(dataset.times(track_id)[-1]) + dataset.step
            found[path] = _Video(dataset, track_id, lengths[track_id] or last)
        else:
            problems.append(f"{path}: its pictures are not used: {dropped[track_id]['message']}")
    return found


def _has_pictures(path: Path) -> bool:
    try:
        with open_media(path) as container:
            return choose_stream(container, "video")[0] is not None
    except (av.FFmpegError, OSError):
        return False  # reading its sound reports the error
