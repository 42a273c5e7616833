"""What a student hears, and a teacher sees, in media files: one row for each window of time."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from scipy.special import softmax

from emovox.dataset.reader import Dataset, load
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, ConfigError, InputError
from emovox.files import replace_file
from emovox.labelling.label_videos import watch
from emovox.media.audio import SAMPLE_RATE, audio_duration, read_audio
from emovox.media.containers import open_media
from emovox.media.spectrogram import num_samples
from emovox.student import Student, load_student

SECONDS = 4.0  # of a window, as in training
LEAST = 1.0  # seconds of a last window, unless it is the only one
CHUNK = 64  # windows that are read together
FORMATS = (".csv", ".json", ".parquet")
NO_TEACHER = "none"

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


@dataclass(frozen=True)
class PredictConfig:
    """Options of `emovox predict`.

    Attributes:
        student: a registered name or a checkpoint.
        teacher: the same, for files with pictures; `none` to leave them unseen.
        seconds: length of a window.
        hop: seconds from one window to the next; as long as a window if None.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, fp32 or bf16.
        jobs: worker processes for pictures; 0 for one per core.
    """

    student: str
    teacher: str = "compact"
    seconds: float = SECONDS
    hop: float | None = None
    device: str = "auto"
    precision: str = "auto"
    jobs: int = 0

    def __post_init__(self) -> None:
        if not LEAST <= self.seconds <= 10:
            raise ConfigError(f"seconds {self.seconds}: a window has {LEAST:g} to 10 s")
        if self.hop is not None and not 0.01 <= self.hop < math.inf:
            raise ConfigError(f"hop {self.hop}: must be at least 0.01 s")


def predict(
    paths: Sequence[Path], config: PredictConfig, say: Callable[[str], None] = lambda line: None
) -> pa.Table:
    """Probabilities of the emotions in every window of some files, by `SCHEMA`.

    The student's are the softmax of its logits. The teacher's are the softmax of the largest logits
    over the frames of the window (paper, section 3.2). Columns are null where there is nothing to
    hear, no picture, or no face.

    Args:
        paths: audio or video files.
        config: the rest.
        say: is told in a line of each file that cannot be used, and what is missing in others.

    Raises:
        ConfigError, InputError: no such student or teacher.
        CheckError: none of the files can be used.
    """
    student = load_student(config.student, config.device, config.precision)
    with tempfile.TemporaryDirectory(prefix="emovox-predict-") as folder:
        seen = _see(paths, config, Path(folder), say)
        tables = [_predict_one(path, student, seen.get(path), config, say) for path in paths]
    found = [table for table in tables if table is not None]
    if not found:
        raise CheckError("none of the files could be used")
    return pa.concat_tables(found)


def write_table(table: pa.Table, path: Path) -> None:
    """Write predictions as CSV, JSON lines or Parquet, by the ending of the name.

    Raises:
        ConfigError: another ending.
    """
    check_ending(path)
    with replace_file(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(table, temporary)
        elif path.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            temporary.write_text("".join(as_json_lines(table)), encoding="utf-8")


def check_ending(path: Path) -> None:
    """Raise ConfigError unless predictions can be written to a file of this name."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: must end in one of {', '.join(FORMATS)}")


def as_json_lines(table: pa.Table) -> Iterator[str]:
    """One object per row, without the columns that are null in it."""
    import json

    for row in table.to_pylist():
        kept = {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in row.items()
            if value is not None
        }
        yield json.dumps(kept) + "\n"


def _predict_one(
    path: Path,
    student: Student,
    seen: "_Seen | None",
    config: PredictConfig,
    say: Callable[[str], None],
) -> pa.Table | None:
    try:
        duration, heard = audio_duration(path), True
    except InputError as error:
        if seen is None:
            say(str(error))
            return None
        say(f"{error}; only seen")
        duration, heard = seen.duration, False
    starts = window_starts(duration, config.seconds, config.hop or config.seconds)
    ends = [min(start + config.seconds, duration) for start in starts]
    columns = {"path": [str(path)] * len(starts), "start": starts, "end": ends}
    if heard:
        try:
            columns |= _columns("student", _hear(path, student, starts, config.seconds))
        except InputError as error:
            say(str(error))
            return None
    if seen is not None:
        windows = zip(starts, ends, strict=True)
        columns |= _columns("teacher", np.stack([seen.logits(*window) for window in windows]))
    return pa.table(
        [pa.array(columns.get(f.name, [None] * len(starts)), f.type) for f in SCHEMA], SCHEMA
    )


def window_starts(duration: float, seconds: float, hop: float) -> list[float]:
    """Where windows begin; what is left at the end gets one too if it has `LEAST` seconds."""
    count = 1 + max(0, math.floor((duration - min(LEAST, seconds)) / hop + 1e-9))
    return [round(number * hop, 6) for number in range(count)]


def _hear(path: Path, student: Student, starts: list[float], seconds: float) -> np.ndarray:
    """Logits float32 `[N, 8]` of windows."""
    length = num_samples(round(seconds * 100))
    logits = []
    for first in range(0, len(starts), CHUNK):
        part = starts[first : first + CHUNK]
        stretch = read_audio(path, part[0], part[-1] - part[0] + length / SAMPLE_RATE)
        places = [round((start - part[0]) * SAMPLE_RATE) for start in part]
        logits.append(student([stretch[place : place + length] for place in places]))
    return np.concatenate(logits)


@dataclass(frozen=True)
class _Seen:
    """The frames of one video, as a track of a dataset that was built for it."""

    dataset: Dataset
    track_id: str

    @property
    def duration(self) -> float:
        return float(self.dataset.times(self.track_id)[-1]) + self.dataset.step

    def logits(self, start: float, end: float) -> np.ndarray:
        """The largest over the frames of a window, float32 `[8]`; NaN where no face was seen."""
        times = self.dataset.times(self.track_id)
        if not ((times + self.dataset.step > start) & (times < end)).any():
            return np.full(len(EMOTIONS), np.nan, np.float32)
        return self.dataset.target(self.track_id, start, end)


def _see(
    paths: Sequence[Path], config: PredictConfig, folder: Path, say: Callable[[str], None]
) -> dict[Path, _Seen]:
    """Build a dataset of the files that have pictures; those that gave rows."""
    videos = [path for path in paths if config.teacher != NO_TEACHER and _has_pictures(path)]
    if not videos:
        return {}
    track_ids = watch(
        videos,
        config.teacher,
        folder,
        device=config.device,
        precision=config.precision,
        num_jobs=config.jobs,
    )
    dataset = load(folder / "dataset")
    seen = {}
    for path, track_id in zip(videos, track_ids, strict=True):
        if track_id in dataset:
            seen[path] = _Seen(dataset, track_id)
        else:
            say(f"{path}: no face was found; only heard")
    return seen


def _has_pictures(path: Path) -> bool:
    try:
        with open_media(path) as container:
            still = av.stream.Disposition.attached_pic
            return any(not stream.disposition & still for stream in container.streams.video)
    except (av.FFmpegError, OSError):
        return False  # what is wrong with it is said when it is to be heard


def _columns(name: str, logits: np.ndarray) -> dict[str, list[object]]:
    """Label and probabilities of a network's logits; null where they are NaN."""
    scores = softmax(logits, axis=1)
    known = ~np.isnan(scores).any(axis=1)
    labels = [EMOTIONS[row.argmax()] if k else None for row, k in zip(scores, known, strict=True)]
    columns: dict[str, list[object]] = {name: list(labels)}
    for number, emotion in enumerate(EMOTIONS):
        values = zip(scores[:, number], known, strict=True)
        columns[f"{name}_{emotion}"] = [float(x) if k else None for x, k in values]
    return columns
