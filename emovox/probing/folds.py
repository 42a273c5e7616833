"""Cross-validation folds: random, by speaker, or the corpus's own partition."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emovox.errors import InputError
from emovox.probing.corpora import Utterance
from emovox.probing.probe_config import NUM_FOLDS

RANDOM = "random folds"
BY_SPEAKER = "speaker-independent folds"
PARTITION = "train to val"


@dataclass(frozen=True)
class Folds:
    """Folds of one kind: indices of the test and of the training utterances of each fold."""

    name: str
    held_out: tuple[np.ndarray, ...]
    trained_on: tuple[np.ndarray, ...]


def make_folds(
    utterances: Sequence[Utterance], num_folds: int = NUM_FOLDS, seed: int = 0
) -> tuple[list[Folds], list[str]]:
    """Return the folds of every kind that a corpus allows, and a note on the other kinds.

    InputError if there are fewer utterances than folds.
    """
    folds, notes = [random_folds(len(utterances), num_folds, seed)], []
    speakers = [u.speaker for u in utterances if u.speaker is not None]
    num_speakers = len(set(speakers))
    if len(speakers) < len(utterances):
        unknown = f"{len(utterances) - len(speakers):,} utterances" if speakers else "the corpus"
        notes.append(f"no {BY_SPEAKER}: no speakers given for {unknown}")
    elif num_speakers < 2:
        notes.append(f"no {BY_SPEAKER}: the corpus has one speaker")
    else:
        folds.append(speaker_folds(speakers, num_folds))
        if num_speakers < num_folds:
            notes.append(f"{BY_SPEAKER}: {num_speakers}, one per speaker")
    partition = np.array([u.partition for u in utterances], object)
    train, val = np.flatnonzero(partition == "train"), np.flatnonzero(partition == "val")
    if len(train) and len(val):
        folds.append(Folds(PARTITION, (val,), (train,)))
    return folds, notes


def random_folds(num_utterances: int, num_folds: int = NUM_FOLDS, seed: int = 0) -> Folds:
    """Cut a random permutation into folds, neither stratified nor speaker-independent.

    As in the paper; `run_cross_val` of the reference code cuts at the same indices. InputError if
    there are fewer utterances than folds.
    """
    if num_utterances < num_folds:
        fact = f"{num_utterances} utterances are too few for {num_folds} folds"
        raise InputError(f"{fact}; pass fewer --folds")
    order = np.random.default_rng(seed).permutation(num_utterances)
    # Rounds halves up, unlike numpy's round.
    ends = np.floor(np.linspace(0, num_utterances, num_folds + 1) + 0.5).astype(int)
    return _complete(RANDOM, num_utterances, np.split(order, ends[1:-1]))


def speaker_folds(speakers: Sequence[str], num_folds: int = NUM_FOLDS) -> Folds:
    """Return folds of whole speakers, of similar size; one per speaker if there are fewer."""
    from sklearn.model_selection import GroupKFold

    splitter = GroupKFold(min(num_folds, len(set(speakers))))
    held_out = [test for _, test in splitter.split(np.zeros(len(speakers)), groups=speakers)]
    return _complete(BY_SPEAKER, len(speakers), held_out)


def _complete(name: str, num_utterances: int, held_out: Sequence[np.ndarray]) -> Folds:
    everything = np.arange(num_utterances)
    trained_on = tuple(np.setdiff1d(everything, test) for test in held_out)
    return Folds(name, tuple(held_out), trained_on)
