"""Features of utterances: outputs of a student or of openSMILE on sound, of a teacher on faces."""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from emovox.errors import ConfigError, InputError, TrackError
from emovox.files import kind_of_file
from emovox.labelling.run import label_videos
from emovox.media.audio import SAMPLE_RATE
from emovox.packages import explained
from emovox.probing.corpora import SpeechCorpus, Utterance
from emovox.registry import BEST_FILE, read_header
from emovox.student import STUDENTS
from emovox.student.clips import check_duration, read_ahead, read_utterance, reason_of
from emovox.teacher import TEACHERS

STUDENT, TEACHER, EGEMAPS, ENCODER = "student", "teacher", "egemaps", "encoder"

Samples = np.ndarray  # float32 [L], 16 kHz


@dataclass
class Features:
    """Features of the utterances of a corpus that could be read."""

    utterances: list[Utterance] = field(default_factory=list)  # in the order of the corpus
    # features `[N, D]` by name: `STUDENT`, `TEACHER`, `EGEMAPS` or `ENCODER`
    values: dict[str, np.ndarray] = field(default_factory=dict)


def kind_of_model(name_or_path: str) -> str:
    """Return `STUDENT`, `TEACHER` or `EGEMAPS` for a registered name or a checkpoint.

    ConfigError if it is neither, InputError for a file that does not state its network.
    """
    path = Path(name_or_path)
    names, files = dict[str, str](), dict[str, str]()
    for kind, registry in ((TEACHER, TEACHERS), (STUDENT, STUDENTS)):
        names |= dict.fromkeys([*registry.embedded, *registry.released], kind)
        files |= dict.fromkeys(chain(*registry.released.values()), kind)
    names[EGEMAPS] = EGEMAPS
    if name_or_path in names:
        return names[name_or_path]
    path = path / BEST_FILE if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"{name_or_path!r} is neither a checkpoint nor one of {', '.join(names)}")
    from emovox.student import networks
    from emovox.teacher import teacher_checkpoint

    known = dict.fromkeys(networks.ARCHITECTURES, STUDENT)
    known |= dict.fromkeys(teacher_checkpoint.ARCHITECTURES, TEACHER)
    architecture = read_header(path).get("architecture", "")
    if found := files.get(path.name) or known.get(architecture):
        return found
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
    encoder: Callable[[list[Samples]], np.ndarray] | None = None,
    protocol: str = "standard",
    num_jobs: int = 1,
) -> Features:
    """Read the sound of every utterance once, and pass it to a student and to a baseline.

    Utterances that cannot be read are added to the dropped files of the corpus.

    Student and encoder return the features `[N, D]` of N utterances; the baseline `EGEMAPS`,
    `[D]` for one utterance, in one of `num_jobs` threads. `ProbeConfig` has the protocols.
    """

    def read(utterance: Utterance) -> tuple[Samples, np.ndarray | None] | TrackError:
        try:
            samples = read_utterance(utterance.path, protocol)
            check_duration(len(samples) / SAMPLE_RATE)
        except (InputError, TrackError) as error:
            return reason_of(utterance.path, error)
        return samples, baseline(samples) if baseline else None

    found, utterances = Features(), iter(corpus.utterances)
    rows: dict[str, list[np.ndarray]] = {STUDENT: [], ENCODER: [], EGEMAPS: []}
    for chunk in read_ahead(corpus.utterances, read, "audio", num_jobs):
        heard: list[Samples] = []
        for result in chunk:
            utterance = next(utterances)
            if isinstance(result, TrackError):
                corpus.drop(utterance.path, f"{result.stage}: {result.error}", result.message)
                continue
            heard.append(result[0])
            seconds = len(result[0]) / SAMPLE_RATE
            found.utterances.append(replace(utterance, seconds=seconds))
            if result[1] is not None:
                rows[EGEMAPS].append(result[1])
        for name, network in ((STUDENT, student), (ENCODER, encoder)):
            rows[name] += [*network(heard)] if heard and network else []
    found.values = {name: np.stack(values) for name, values in rows.items() if values}
    return found


def has_opensmile() -> bool:
    """Return True if the extra `opensmile` is installed."""
    return importlib.util.find_spec("opensmile") is not None


def egemaps() -> Callable[[Samples], np.ndarray]:
    """Return a function that computes eGeMAPSv02, 88 functionals (Eyben et al., 2016)."""
    with explained(EGEMAPS):
        import opensmile
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    return lambda samples: np.asarray(smile(samples, SAMPLE_RATE)[0, :, 0])


def video_features(
    corpus: SpeechCorpus, teacher: str, device: str = "auto", num_jobs: int = 0
) -> Features:
    """Compute the logits of a teacher, the maximum over the frames of each utterance.

    A temporary dataset is built of the videos, in `num_jobs` processes, 0 for one per core: frames
    on the 0.24 s grid, detected faces. Videos without a face, or unreadable, are added to the
    dropped files of the corpus.
    """
    found, logits = Features(), []
    paths = [utterance.path for utterance in corpus.utterances]
    with tempfile.TemporaryDirectory(prefix="emovox-probe-") as name:
        labelled = label_videos(paths, teacher, Path(name), device, "auto", num_jobs)
        dataset, track_ids, dropped = labelled
        for track_id, utterance in zip(track_ids, corpus.utterances, strict=True):
            if track_id in dataset:
                found.utterances.append(utterance)
                logits.append(dataset.target(track_id))
            else:
                row = dropped[track_id]
                corpus.drop(utterance.path, f"{row['stage']}: {row['error']}", row["message"])
    if logits:
        found.values[TEACHER] = np.stack(logits)
    return found
