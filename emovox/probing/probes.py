"""Students and teachers on other people's corpora, by a probe of their logits.

An utterance is heard or seen whole, and an affine map and a softmax read its label out of the eight
logits, as in the paper's external evaluation.
"""

from collections.abc import Iterator

import joblib

from emovox.errors import CheckError, ConfigError, InputError
from emovox.probing.classifiers import (
    EMBEDDING_PENALTY,
    AffineMap,
    Classifier,
    Probed,
    RandomForest,
    probe,
)
from emovox.probing.corpora import SpeechCorpus, class_order, read_speech_corpus
from emovox.probing.features import (
    EGEMAPS,
    STUDENT,
    TEACHER,
    Features,
    egemaps,
    has_opensmile,
    hear,
    kind_of_model,
    see,
)
from emovox.probing.folds import RANDOM, make_folds
from emovox.probing.probe_config import ProbeConfig
from emovox.probing.yardsticks import PUBLISHED, ExternalEvaluation
from emovox.student import load_student
from emovox.teacher import find_teacher

YARDSTICK = "openSMILE eGeMAPSv02"


def evaluate_external(config: ProbeConfig) -> ExternalEvaluation:
    """Probe a student or a teacher on a corpus.

    Raises:
        ConfigError: an option or a combination of them makes no sense.
        InputError: the checkpoint or the corpus is not what it should be.
        CheckError: nothing in the corpus could be read.
    """
    kind = kind_of_model(config.checkpoint)
    if kind == TEACHER and config.features == "embedding":
        raise ConfigError("--features embedding is a student's; a teacher gives logits")
    if kind != STUDENT and config.protocol == "legacy":
        raise ConfigError("--protocol legacy is a way of reading sound for a student")
    corpus = read_speech_corpus(config.corpus, config.layout, video=kind == TEACHER)
    if len({u.label for u in corpus.utterances}) < 2:
        raise InputError(f"{config.corpus}: a probe needs utterances of two labels or more")
    make_folds(corpus.utterances, config.folds)  # too few are said before hours of work
    notes: list[str] = []
    model, features, probes = _extract(config, kind, corpus, notes)
    if not features.utterances:
        raise CheckError(f"{config.corpus}: nothing could be read ({corpus.dropped[0].message})")
    folds, impossible = make_folds(features.utterances, config.folds, config.seed)
    probed = tuple(
        probe(features.values[what], features.utterances, folds, classifier, name)
        for what, name, classifier in probes
    )
    speakers = {u.speaker for u in features.utterances}
    labels = [u.label for u in features.utterances]
    return ExternalEvaluation(
        config=config,
        model=model,
        layout=corpus.layout,
        counts={label: labels.count(label) for label in class_order(labels)},
        num_speakers=None if None in speakers else len(speakers),
        probed=probed,
        dropped=tuple(corpus.dropped),
        notes=(*corpus.notes, *notes, *impossible, *_notes(probed, corpus.layout)),
    )


def _extract(
    config: ProbeConfig, kind: str, corpus: SpeechCorpus, notes: list[str]
) -> tuple[dict[str, str], Features, list[tuple[str, str, Classifier]]]:
    """The model, features, and what to read out of them: their key, name and classifier."""
    num_jobs = config.jobs or joblib.cpu_count()
    forest = (EGEMAPS, YARDSTICK, RandomForest(config.seed, num_jobs))
    if kind == TEACHER:
        found = find_teacher(config.checkpoint)
        notes.append(f"{YARDSTICK} is left out: it hears, and a teacher sees")
        model = {"name": found.name, "sha256": found.sha256}
        features = see(corpus, config.checkpoint, config.device, config.jobs)
        return model, features, [(TEACHER, f"{found.name} logits", AffineMap())]
    if kind == EGEMAPS:
        return {}, hear(corpus, None, egemaps(), num_jobs=num_jobs), [forest]
    student = load_student(config.checkpoint, config.device)
    model = {"name": student.name, "sha256": student.sha256}
    embeds = config.features == "embedding"
    legacy = config.protocol == "legacy"
    with_yardstick = has_opensmile() and not legacy
    if not with_yardstick:
        reason = "it needs the true rate" if legacy else "pip install 'emovox[opensmile]'"
        notes.append(f"{YARDSTICK} is left out: {reason}")
    features = hear(
        corpus,
        student.embed if embeds else student,
        egemaps() if with_yardstick else None,
        legacy=legacy,
        num_jobs=num_jobs,
    )
    affine = AffineMap(EMBEDDING_PENALTY if embeds else 0.0)
    probes = [(STUDENT, f"{student.name} {config.features}", affine)]
    return model, features, probes + [forest] * with_yardstick


def _notes(probed: tuple[Probed, ...], layout: str) -> Iterator[str]:
    for each in probed:
        for held_out in each.held_out:
            if held_out.num_unfinished:
                yield (
                    f"{each.features}, {held_out.folds}: the optimiser had not finished on "
                    f"{held_out.num_unfinished} of {len(held_out.accuracy)}; the features may "
                    "separate the classes"
                )
    if any(way.folds == RANDOM for each in probed for way in each.held_out):
        yield f"{RANDOM} are the paper's: a speaker is on both sides of them"
    if layout in PUBLISHED:
        yield "rows marked * are quoted from the papers, not measured here"
