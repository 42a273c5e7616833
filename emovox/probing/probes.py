"""Probes: usefulness of a network's outputs on labelled corpora.

Each utterance is scored as a whole: a student hears one window of all its sound. An affine map and
a softmax then predict its label from the logits, as in the paper's external evaluation. Other
features are embeddings, and those of openSMILE on the sound.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from emovox.config import read_config
from emovox.emotions import in_order
from emovox.errors import CheckError, ConfigError, InputError, TrackError
from emovox.labelling.run import label_videos
from emovox.media.audio import SAMPLE_RATE
from emovox.packages import explained
from emovox.probing import classifiers
from emovox.probing.classifiers import Classifier
from emovox.probing.corpora import SpeechCorpus, Utterance, merge_corpora, read_speech_corpus
from emovox.probing.folds import RANDOM, Folds, cross_folds, make_folds, read_folds, write_folds
from emovox.probing.probe_config import ProbeConfig
from emovox.probing.probe_result import PUBLISHED, ProbeResult
from emovox.registry import BEST_FILE, read_header
from emovox.student import STUDENTS, clips, load_student, networks
from emovox.student.clips import read_ahead, read_utterance
from emovox.student.encoder import Encoder, HeadConfig
from emovox.student.student_config import LEGACY
from emovox.teacher import TEACHERS, find_teacher, teacher_checkpoint

BASELINE = "openSMILE eGeMAPSv02"
STUDENT, TEACHER, EGEMAPS, ENCODER = "student", "teacher", "egemaps", "encoder"

Samples = np.ndarray  # float32 [L], 16 kHz


# Utterances that could be read, in the order of the corpus, and their features `[N, D]` by name:
# `STUDENT`, `TEACHER`, `EGEMAPS` or `ENCODER`.
Features = tuple[list[Utterance], dict[str, np.ndarray]]


def kind_of_model(name_or_path: str) -> str:
    """Return `STUDENT`, `TEACHER` or `EGEMAPS` for a registered name or a checkpoint.

    ConfigError if it is neither, InputError for a file that does not state its network.
    """
    kinds = (TEACHER, TEACHERS, teacher_checkpoint), (STUDENT, STUDENTS, networks)
    names = dict[str, str]()
    for kind, registry, _ in kinds:
        names |= dict.fromkeys([*registry.embedded, *registry.released], kind)
    names[EGEMAPS] = EGEMAPS
    if name_or_path in names:
        return names[name_or_path]
    path = Path(name_or_path)
    path = path / BEST_FILE if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"{name_or_path!r} is neither a checkpoint nor one of {', '.join(names)}")
    architecture = read_header(path).get("architecture")
    for kind, registry, module in kinds:
        published = chain(*registry.released.values())
        if path.name in published or architecture in module.ARCHITECTURES:
            return kind
    raise InputError(
        f"{path}: states no network of emovox; keep the original file name of published weights"
    )


def audio_features(
    corpus: SpeechCorpus,
    networks: Mapping[str, Callable[[list[Samples]], np.ndarray]],
    baseline: Callable[[Samples], np.ndarray] | None,
    protocol: str = "standard",
    num_jobs: int = 1,
) -> Features:
    """Read the sound of every utterance once, and pass it to networks and to a baseline.

    Utterances that cannot be read are added to the dropped files of the corpus.

    A network returns the features `[N, D]` of N utterances; the baseline `EGEMAPS`, `[D]` for one
    utterance, in one of `num_jobs` threads. `ProbeConfig` has the protocols.
    """

    def read(utterance: Utterance) -> tuple[Samples, np.ndarray | None] | TrackError:
        try:
            samples = read_utterance(utterance.path, protocol)
            clips.check_duration(len(samples) / SAMPLE_RATE)
        except (InputError, TrackError) as error:
            return clips.reason_of(utterance.path, error)
        return samples, baseline(samples) if baseline else None

    found: list[Utterance] = []
    utterances = iter(corpus.utterances)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*networks, EGEMAPS)}
    for chunk in read_ahead(corpus.utterances, read, "audio", num_jobs):
        heard: list[Samples] = []
        for result in chunk:
            utterance = next(utterances)
            if isinstance(result, TrackError):
                corpus.drop(utterance.path, f"{result.stage}: {result.error}", result.message)
                continue
            heard.append(result[0])
            found.append(replace(utterance, seconds=len(result[0]) / SAMPLE_RATE))
            if result[1] is not None:
                rows[EGEMAPS].append(result[1])
        for name, network in networks.items():
            rows[name] += [*network(heard)] if heard else []
    return found, {name: np.stack(values) for name, values in rows.items() if values}


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
    found, logits = [], []
    paths = [utterance.path for utterance in corpus.utterances]
    with tempfile.TemporaryDirectory(prefix="emovox-probe-") as name:
        labelled = label_videos(paths, teacher, Path(name), device, "auto", num_jobs)
        dataset, track_ids, dropped = labelled
        for track_id, utterance in zip(track_ids, corpus.utterances, strict=True):
            if track_id in dataset:
                found.append(utterance)
                logits.append(dataset.target(track_id))
            else:
                row = dropped[track_id]
                corpus.drop(utterance.path, f"{row['stage']}: {row['error']}", row["message"])
    return found, {TEACHER: np.stack(logits)} if logits else {}


def probe(
    checkpoint: str | os.PathLike[str],
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    config: ProbeConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> ProbeResult:
    """Predict the labels of a speech corpus from the outputs of a student or a teacher.

    Args:
        checkpoint: registered name or checkpoint of a student or a teacher; `egemaps` for the
            baseline alone.
        corpus: folder of the corpus, or a table of path, label and speaker; several with `cross`.
        config: options of the probe, or a recipe with them.
        options: fields of `ProbeConfig`, which override `config`.

    Raises:
        ConfigError: an option is not valid, or not with this network.
        InputError: the checkpoint, the corpus or the folds are missing or not valid.
        CheckError: no file of the corpus is readable.

    Example:
        >>> import emovox
        >>> tracks = emovox.load("emovox-demo/dataset").to_pandas("tracks")  # with `label`
        >>> table = tracks[:24].copy()
        >>> table["path"] = "mp4/" + table["track_id"] + ".mp4"
        >>> table["speaker"] = table["identity_id"]
        >>> table.to_csv("emovox-demo/corpus/labels.csv", index=False)
        >>> student = "emovox-demo/student/best.safetensors"
        >>> result = probe(student, "emovox-demo/corpus/labels.csv", folds=2, jobs=1)
        >>> result.num_utterances, result.num_speakers
        (24, 4)
        >>> list(result.to_pandas()["folds"][:2])
        ['random folds', 'speaker-independent folds']
    """
    config = read_config(ProbeConfig, config, options)
    corpora = [corpus] if isinstance(corpus, str | os.PathLike) else list(corpus)
    checkpoint, paths = os.fspath(checkpoint), [Path(each) for each in corpora]
    if config.cross != (len(paths) > 1) or (config.cross and config.folds_from):
        raise ConfigError("cross: requires two or more corpora, and no folds_from")
    names = [path.absolute().name for path in paths]
    if len({*names}) < len(names):
        raise ConfigError(f"cross: two corpora are named {max(names, key=names.count)}; rename one")
    kind = kind_of_model(checkpoint)
    if kind == TEACHER and (config.encoder or config.features == "embedding"):
        raise ConfigError("embedding or encoder: requires a student; use logits for a teacher")
    if kind != STUDENT and config.protocol == "legacy":
        raise ConfigError("protocol 'legacy': requires a student; use standard")
    each = [read_speech_corpus(path, config.layout, video=kind == TEACHER) for path in paths]
    for path, speech in zip(paths, each, strict=True):
        if len({u.label for u in speech.utterances}) < 2:
            raise InputError(f"{path}: a probe needs utterances of two or more labels")
    speech = merge_corpora(dict(zip(names, each, strict=True))) if config.cross else each[0]
    _folds(speech, speech.utterances, config)  # fails before hours of work
    notes: list[str] = []
    model, (utterances, features), probes = _extract(checkpoint, config, kind, speech, notes)
    if not utterances:
        raise CheckError(f"{paths[0]}: no file is readable ({speech.dropped[0].message})")
    folds, impossible = _folds(speech, utterances, config)
    if config.write_folds:
        write_folds(Path(config.write_folds), speech, utterances, folds)
    if any(made.name == RANDOM for made in folds):
        impossible.append(f"{RANDOM} follow the paper: test speakers also occur in training")
    if any(corpus == speech.layout for corpus, *_ in PUBLISHED):
        impossible.append("rows marked * are quoted from papers, not measured")
    probed = tuple(
        classifiers.cross_validate(features[key], utterances, folds, method, name)
        for key, name, method in probes
    )
    speakers = {u.speaker for u in utterances}
    labels = [u.label for u in utterances]
    folders = ("encoder", "folds_from", "write_folds")
    shown = {n: Path(v).name for n, v in asdict(config).items() if n in folders and v}
    return ProbeResult(
        checkpoint=Path(checkpoint).name,
        corpus=" + ".join(names),
        config=read_config(ProbeConfig, config, shown),
        model=model,
        layout=speech.layout,
        counts={label: labels.count(label) for label in in_order(labels)},
        num_speakers=None if None in speakers else len(speakers),
        probed=probed,
        dropped=tuple(speech.dropped),
        notes=(*speech.notes, *notes, *impossible),
    )


def _folds(
    corpus: SpeechCorpus, utterances: Sequence[Utterance], config: ProbeConfig
) -> tuple[list[Folds], list[str]]:
    if config.folds_from:
        names = [corpus.shown(u.path) for u in utterances]
        given, notes = read_folds(Path(config.folds_from), names)
        return [given], notes
    return (cross_folds if config.cross else make_folds)(utterances, config.folds, config.seed)


def _extract(
    checkpoint: str, config: ProbeConfig, kind: str, corpus: SpeechCorpus, notes: list[str]
) -> tuple[dict[str, str], Features, list[tuple[str, str, Classifier]]]:
    """Return the model, the features, and for each probe its features, name and classifier."""
    num_jobs = config.jobs or joblib.cpu_count()
    baseline = (EGEMAPS, BASELINE, classifiers.random_forest(config.seed, num_jobs))
    if kind == TEACHER:
        weights = find_teacher(checkpoint)
        notes.append(f"{BASELINE} is skipped: it uses sound, the teacher faces")
        found = video_features(corpus, checkpoint, config.device, config.jobs)
        probes = [(TEACHER, f"{weights.name} logits", classifiers.affine_map())]
        return {"name": weights.name, "sha256": weights.sha256}, found, probes
    heard: dict[str, Callable[[list[Samples]], np.ndarray]] = {}
    model, smile, legacy, probes = {}, None, config.protocol == LEGACY, []
    if kind == STUDENT:
        student = load_student(checkpoint, config.device)
        model = {"name": student.name, "sha256": student.sha256}
        embeds = config.features == "embedding"
        part, run = clips.CENTRE if legacy else clips.WHOLE, student.embed if embeds else student
        heard[STUDENT] = lambda samples: run(samples, part)
        classifier = classifiers.affine_map(classifiers.EMBEDDING_PENALTY if embeds else 0.0)
        probes.append((STUDENT, f"{student.name} {config.features}", classifier))
    if config.encoder:
        encoder = Encoder(HeadConfig(config.encoder), config.device)
        heard[ENCODER] = lambda samples: encoder(samples).mean(dim=(1, 2)).cpu().numpy()
        method = classifiers.affine_map(classifiers.EMBEDDING_PENALTY)
        probes.append((ENCODER, f"{encoder.name} embedding", method))
    if kind == EGEMAPS or (find_spec("opensmile") and not legacy):
        smile = egemaps()
        probes.append(baseline)
    else:
        reason = "it needs the true sample rate" if legacy else "pip install 'emovox[opensmile]'"
        notes.append(f"{BASELINE} is skipped: {reason}")
    return model, audio_features(corpus, heard, smile, config.protocol, num_jobs), probes
