"""Features of utterances: outputs of a student or of openSMILE on sound, of a teacher on faces."""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.errors import ConfigError, InputError, TrackError
from emovox.files import kind_of_file
from emovox.labelling.label_videos import label_videos
from emovox.media.audio import SAMPLE_RATE
from emovox.packages import explained
from emovox.probing.corpora import SpeechCorpus, Utterance
from emovox.registry import read_header
from emovox.student import STUDENTS
from emovox.student.clips import MIN_DURATION, read_ahead
from emovox.student.evaluation import read_utterance
from emovox.teacher import TEACHERS

STUDENT, TEACHER, EGEMAPS = "student", "teacher", "egemaps"

Samples = np.ndarray  # float32 [L], 16 kHz


@dataclass
class Features:
    """Features of the utterances of a corpus that could be read.

    Attributes:
        utterances: readable utterances, in the order of the corpus.
        values: features `[N, D]` by name: `STUDENT`, `TEACHER` or `EGEMAPS`.
    """

    utterances: list[Utterance] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)


def kind_of_model(name_or_path: str) -> str:
    """Return `STUDENT`, `TEACHER` or `EGEMAPS` for a registered name or a checkpoint.

    Raises:
        ConfigError: neither a registered name nor a file.
        InputError: a file that does not state its network.
    """
    path = Path(name_or_path)
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    for kind, registry in ((TEACHER, TEACHERS), (STUDENT, STUDENTS)):
        names |= dict.fromkeys([*registry.embedded, *registry.released], kind)
        files |= {file: kind for known in registry.released.values() for file in known}
    names[EGEMAPS] = EGEMAPS
    if name_or_path in names:
        return names[name_or_path]
    if not path.is_file():
        raise ConfigError(f"{name_or_path!r} is neither a checkpoint nor one of {', '.join(names)}")
    if path.name in files:
        return files[path.name]
    from emovox.student import student_checkpoint
    from emovox.teacher import teacher_checkpoint

    known = dict.fromkeys(student_checkpoint.ARCHITECTURES, STUDENT)
    known |= dict.fromkeys(teacher_checkpoint.ARCHITECTURES, TEACHER)
    architecture = read_header(path).get("architecture", "")
    if architecture in known:
        return known[architecture]
    raise InputError(
        f"{path}: its architecture is {architecture!r}, expected one of {', '.join(known)}"
        if architecture
        else f"{path}: is {kind_of_file(path)} that does not state its network; keep the original "
        f"file name of published weights: {', '.join(files)}"
    )


def audio_features(
    corpus: SpeechCorpus,
    student: Callable[[list[Samples]], np.ndarray] | None,
    baseline: Callable[[Samples], np.ndarray] | None,
    *,
    protocol: str = "standard",
    num_jobs: int = 1,
) -> Features:
    """Read the sound of every utterance once, and pass it to a student and to a baseline.

    Args:
        corpus: corpus; utterances that cannot be read are added to its dropped files.
        student: returns `[N, D]` for N utterances.
        baseline: returns `[D]` for one utterance; called in threads.
        protocol: protocol of reading sound, see `ProbeConfig`.
        num_jobs: number of threads.

    Returns:
        Features `STUDENT` and `EGEMAPS`, if requested.
    """

    def read(utterance: Utterance) -> tuple[Samples, np.ndarray] | TrackError:
        try:
            samples = _read(utterance.path, protocol)
        except TrackError as error:
            return error
        return samples, baseline(samples) if baseline else np.empty(0)

    found = Features()
    student_rows: list[np.ndarray] = []
    baseline_rows: list[np.ndarray] = []
    utterances = iter(corpus.utterances)
    for chunk in read_ahead(corpus.utterances, read, "audio", num_jobs):
        heard: list[Samples] = []
        for result in chunk:
            utterance = next(utterances)
            if isinstance(result, TrackError):
                corpus.drop(utterance.path, f"{result.stage}: {result.error}", result.message)
                continue
            found.utterances.append(utterance)
            heard.append(result[0])
            baseline_rows.append(result[1])
        if heard and student is not None:
            student_rows += [*student(heard)]
    if student is not None and student_rows:
        found.values[STUDENT] = np.stack(student_rows)
    if baseline is not None and baseline_rows:
        found.values[EGEMAPS] = np.stack(baseline_rows)
    return found


def _read(path: Path, protocol: str) -> Samples:
    """Read an utterance.

    Raises:
        TrackError: it cannot be read, or is too short.
    """
    try:
        samples = read_utterance(path, protocol)
    except InputError as error:
        raise TrackError("open", "Unreadable", str(error).removeprefix(f"{path}: ")) from error
    if len(samples) < MIN_DURATION * SAMPLE_RATE:
        seconds = len(samples) / SAMPLE_RATE
        message = f"{seconds:.2f} s of audio, shorter than {MIN_DURATION} s"
        raise TrackError("time", "TooShort", message)
    return samples


def has_opensmile() -> bool:
    """Return True if the extra `opensmile` is installed."""
    return importlib.util.find_spec("opensmile") is not None


def egemaps() -> Callable[[Samples], np.ndarray]:
    """Return a function that computes eGeMAPSv02, 88 functionals (Eyben et al., 2016).

    Raises:
        MissingPackageError: openSMILE is not installed.
    """
    with explained(EGEMAPS):
        import opensmile
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )

    def compute(samples: Samples) -> np.ndarray:
        return np.asarray(smile(samples, SAMPLE_RATE)[0, :, 0])

    return compute


def video_features(
    corpus: SpeechCorpus, teacher: str, device: str = "auto", num_jobs: int = 0
) -> Features:
    """Compute the logits of a teacher, the maximum over the frames of each utterance.

    A temporary dataset is built of the videos: frames on the 0.24 s grid, detected faces.

    Args:
        corpus: videos; those without a face, or unreadable, are added to its dropped files.
        teacher: a registered name or a checkpoint.
        device: as for `load_teacher`.
        num_jobs: worker processes; 0 for one per core.

    Returns:
        Features `TEACHER`.
    """
    with tempfile.TemporaryDirectory(prefix="emovox-probe-") as folder:
        paths = [utterance.path for utterance in corpus.utterances]
        dataset, track_ids = label_videos(
            paths, teacher, Path(folder), device=device, num_jobs=num_jobs
        )
        rows = [row for table in dataset.tracks.values() for row in table.to_pylist()]
        dropped = pq.read_table(dataset.path / schema.DROPPED_FILE).to_pylist()
    columns = [f"max_{emotion}" for emotion in dataset.emotions]
    maxima = {row["track_id"]: [row[name] for name in columns] for row in rows}
    reasons = {row["track_id"]: row for row in dropped}
    found = Features()
    for track_id, utterance in zip(track_ids, corpus.utterances, strict=True):
        if track_id in maxima:
            found.utterances.append(utterance)
        else:
            row = reasons[track_id]
            corpus.drop(utterance.path, f"{row['stage']}: {row['error']}", row["message"])
    if maxima:
        logits = [maxima[track_id] for track_id in track_ids if track_id in maxima]
        found.values[TEACHER] = np.array(logits, np.float32)
    return found
