"""Features of utterances: what a student or openSMILE hears in them, what a teacher sees."""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from emovox.dataset import schema
from emovox.dataset.store import read_table
from emovox.errors import ConfigError, InputError, TrackError
from emovox.files import kind_of_file
from emovox.ids import printable
from emovox.labelling.label_videos import watch
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.packages import explained
from emovox.probing.corpora import SpeechCorpus, Utterance
from emovox.student import RELEASED as STUDENTS
from emovox.student.clips import SHORTEST
from emovox.teacher import EMBEDDED
from emovox.teacher import RELEASED as TEACHERS

STUDENT, TEACHER, EGEMAPS = "student", "teacher", "egemaps"
CHUNK = 64  # utterances that are read, then given to the student together

Samples = np.ndarray  # float32 [L], 16 kHz


@dataclass
class Features:
    """What was found in the utterances of a corpus that could be read.

    Attributes:
        utterances: those, in the order of the corpus.
        values: features `[N, D]` by their name.
    """

    utterances: list[Utterance] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)


def kind_of_model(name_or_path: str) -> str:
    """`STUDENT`, `TEACHER` or `EGEMAPS`, by a registered name or what a checkpoint says it is.

    Raises:
        ConfigError: neither a registered name nor a file.
        InputError: a file that does not say which network it holds.
    """
    path = Path(name_or_path)
    files = {file: TEACHER for known in TEACHERS.values() for file in known}
    files |= {file: STUDENT for known in STUDENTS.values() for file in known}
    names = dict.fromkeys([*EMBEDDED, *TEACHERS], TEACHER) | dict.fromkeys(STUDENTS, STUDENT)
    names[EGEMAPS] = EGEMAPS
    if kind := names.get(name_or_path):
        return kind
    if not path.is_file():
        raise ConfigError(f"{name_or_path!r} is neither a checkpoint nor one of {', '.join(names)}")
    if kind := files.get(path.name):
        return kind
    from emovox.student import student_checkpoint as students
    from emovox.teacher import teacher_checkpoint as teachers

    found = _architecture(path)
    if found in students.ARCHITECTURES:
        return STUDENT
    if found in teachers.ARCHITECTURES:
        return TEACHER
    known = ", ".join([*students.ARCHITECTURES, *teachers.ARCHITECTURES])
    raise InputError(
        f"{path}: says its architecture is {found!r}, expected one of {known}"
        if found
        else f"{path}: is {kind_of_file(path)} that does not say which network it holds; released "
        f"weights keep the name of their file: {', '.join(files)}"
    )


def _architecture(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("architecture", "")
    except (SafetensorError, OSError):
        return ""


def hear(
    corpus: SpeechCorpus,
    student: Callable[[list[Samples]], np.ndarray] | None,
    yardstick: Callable[[Samples], np.ndarray] | None,
    *,
    legacy: bool = False,
    num_jobs: int = 1,
) -> Features:
    """Read the sound of every utterance once, and give it to a student and a yardstick.

    Args:
        corpus: what cannot be read is added to its dropped files.
        student: gives `[N, D]` for N utterances.
        yardstick: gives `[D]` for one; called in threads.
        legacy: the left channel, whatever its rate as if it were 16 kHz, as the reference code.
        num_jobs: threads.

    Returns:
        Features `STUDENT` and `EGEMAPS`, where they are asked for.
    """

    def listen(utterance: Utterance) -> tuple[Samples, np.ndarray] | TrackError:
        try:
            samples = _read(utterance.path, legacy)
        except TrackError as error:
            return error
        return samples, np.empty(0) if yardstick is None else yardstick(samples)

    found = Features()
    chunks: dict[str, list[np.ndarray]] = {STUDENT: [], EGEMAPS: []}
    everyone = corpus.utterances
    bar = tqdm(total=len(everyone), unit="file", disable=None, dynamic_ncols=True)
    with ThreadPoolExecutor(num_jobs) as pool, bar:
        for start in range(0, len(everyone), CHUNK):
            chunk = everyone[start : start + CHUNK]
            heard: list[Samples] = []
            for utterance, result in zip(chunk, pool.map(listen, chunk), strict=True):
                if isinstance(result, TrackError):
                    corpus.drop(utterance.path, f"{result.stage}: {result.error}", result.message)
                    continue
                found.utterances.append(utterance)
                heard.append(result[0])
                chunks[EGEMAPS].append(result[1])
            if heard and student is not None:
                chunks[STUDENT] += list(student(heard))
            bar.update(len(chunk))
    wanted = {STUDENT: student, EGEMAPS: yardstick}
    for name, rows in chunks.items():
        if rows and wanted[name] is not None:
            found.values[name] = np.stack(rows)
    return found


def _read(path: Path, legacy: bool) -> Samples:
    try:
        samples = read_audio(path, channels="left", resample=False) if legacy else read_audio(path)
    except InputError as error:
        raise TrackError("open", "Unreadable", str(error).removeprefix(f"{path}: ")) from error
    if len(samples) < SHORTEST * SAMPLE_RATE:
        seconds = len(samples) / SAMPLE_RATE
        raise TrackError("time", "TooShort", f"{seconds:.2f} s of sound, needs {SHORTEST} s")
    return samples


def has_opensmile() -> bool:
    """Whether the extra `opensmile` is installed."""
    return importlib.util.find_spec("opensmile") is not None


def egemaps() -> Callable[[Samples], np.ndarray]:
    """The 88 functionals of eGeMAPSv02 (Eyben et al., 2016) as openSMILE computes them.

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


def see(corpus: SpeechCorpus, teacher: str, device: str = "auto", num_jobs: int = 0) -> Features:
    """Logits of a teacher, the maximum over the frames of each utterance.

    The videos go through a build: frames on the 0.24 s grid, faces detected and followed, worker
    processes. Its dataset is thrown away.

    Args:
        corpus: of videos; what shows no face, or cannot be read, is added to its dropped files.
        teacher: a registered name or a checkpoint.
        device: as for `load_teacher`.
        num_jobs: worker processes; 0 for one per core.
    """
    with tempfile.TemporaryDirectory(prefix="emovox-probe-") as name:
        folder = Path(name)
        track_ids = watch(
            [u.path for u in corpus.utterances], teacher, folder, device=device, num_jobs=num_jobs
        )
        return _read_tracks(folder / "dataset", corpus, track_ids)


def _read_tracks(dataset: Path, corpus: SpeechCorpus, track_ids: Sequence[str]) -> Features:
    rows: dict[str, list[float]] = {}
    for split in schema.SPLITS:
        table = read_table(dataset, "tracks", split)
        for row in table.select(["track_id", *schema.MAXIMA]).to_pylist():
            rows[row["track_id"]] = [row[name] for name in schema.MAXIMA]
    dropped = {
        row["track_id"]: row for row in pq.read_table(dataset / schema.DROPPED_FILE).to_pylist()
    }
    found, values = Features(), []
    for track_id, utterance in zip(track_ids, corpus.utterances, strict=True):
        if track_id in rows:
            found.utterances.append(utterance)
            values.append(rows[track_id])
        else:
            why = dropped[track_id]
            corpus.drop(
                utterance.path, f"{why['stage']}: {why['error']}", printable(why["message"])
            )
    if values:
        found.values[TEACHER] = np.array(values, np.float32)
    return found
