"""Folds of a corpus, and files of folds in the form of EmoBox (Ma et al., 2024).

A folder of folds has `fold_1/<corpus>_train_fold_1.jsonl`, `fold_1/<corpus>_test_fold_1.jsonl` and
so on, with one JSON object per utterance; its `wav` is the path of the utterance.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np

from emovox.emotions import in_order
from emovox.errors import InputError
from emovox.files import parse_json, read_text, write_text
from emovox.packages import data_frame
from emovox.probing.corpora import SpeechCorpus, Utterance
from emovox.probing.probe_config import NUM_FOLDS

RANDOM = "random folds"
BY_SPEAKER = "speaker-independent folds"
BY_SESSION = "leave one session out"
PARTITIONS = {"val": "train to val", "test": "train to test"}
GIVEN = "given folds"


@dataclass(frozen=True)
class Folds:
    """Folds of one kind: indices of the training and of the test utterances of each fold."""

    name: str
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]


def make_folds(
    utterances: Sequence[Utterance], num_folds: int = NUM_FOLDS, seed: int = 0
) -> tuple[list[Folds], list[str]]:
    """Return the folds of every kind that a corpus allows, and a note on the other kinds.

    InputError if there are fewer utterances than folds.
    """
    folds, notes = [random_folds(len(utterances), num_folds, seed)], []
    speakers = [u.speaker for u in utterances if u.speaker is not None]
    num_speakers = len(set(speakers))
    if len(speakers) < len(utterances) or num_speakers < 2:
        known = f"{len(speakers):,} of {len(utterances):,} utterances"
        notes.append(f"no {BY_SPEAKER}: the corpus gives {num_speakers:,} speakers, for {known}")
    else:
        folds.append(group_folds(BY_SPEAKER, speakers, num_folds))
    sessions = [u.session for u in utterances if u.session is not None]
    if len(sessions) == len(utterances) and len(set(sessions)) > 1:
        folds.append(group_folds(BY_SESSION, sessions, len(set(sessions))))
    parts = np.array([u.partition for u in utterances], object)
    train = np.flatnonzero(parts == "train")
    for part, name in PARTITIONS.items():
        if len(train) and len(test := np.flatnonzero(parts == part)):
            folds.append(Folds(name, ((train, test),)))
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
    everything = np.arange(num_utterances)
    held_out = map(np.sort, np.split(order, ends[1:-1]))
    return Folds(RANDOM, tuple((np.setdiff1d(everything, test), test) for test in held_out))


def group_folds(name: str, groups: Sequence[str], num_folds: int = NUM_FOLDS) -> Folds:
    """Return folds of whole groups, of similar size; one per group if there are fewer."""
    from sklearn.model_selection import GroupKFold

    splitter = GroupKFold(min(num_folds, len(set(groups))))
    return Folds(name, tuple(splitter.split(np.zeros(len(groups)), groups=groups)))


def cross_folds(
    utterances: Sequence[Utterance], num_folds: int = NUM_FOLDS, seed: int = 0
) -> tuple[list[Folds], list[str]]:
    """Return folds `A to B` that train on one corpus and test on another, and notes on labels.

    A pair of corpora uses the labels that both have, and has no folds if these are fewer than two.
    Within a corpus the folds are speaker-independent, or random where these are impossible.
    """
    labels, corpora = (np.array([getattr(u, n) for u in utterances]) for n in ("label", "corpus"))
    folds, notes = [], []
    for a, b in product(dict.fromkeys(corpora.tolist()), repeat=2):
        train, test = np.flatnonzero(corpora == a), np.flatnonzero(corpora == b)
        shared = in_order(set(labels[train]) & set(labels[test]))
        note = f"{len(shared)} labels, {', '.join(shared) or 'none'}"
        if a == b:
            kinds, _ = make_folds([utterances[k] for k in train.tolist()], num_folds, seed)
            kind = next((kind for kind in kinds if kind.name == BY_SPEAKER), kinds[0])
            folds.append(Folds(f"{a} to {b}", tuple((train[x], train[y]) for x, y in kind.splits)))
            note = f"{kind.name}, {note}"
        elif len(shared) > 1:
            train, test = (rows[np.isin(labels[rows], shared)] for rows in (train, test))
            folds.append(Folds(f"{a} to {b}", ((train, test),)))
        notes.append(f"{a} to {b}: {note}")
    return folds, notes


def write_folds(
    folder: Path, corpus: SpeechCorpus, utterances: Sequence[Utterance], folds: Sequence[Folds]
) -> None:
    """Write each kind of folds of a corpus to a folder of its name."""
    columns = ["key", "wav", "length", "emo", "spk"]
    rows = [(u.path.stem, corpus.shown(u.path), u.seconds, u.label, u.speaker) for u in utterances]
    name = re.sub(r"[^\w-]+", "-", corpus.layout)
    table = data_frame(rows, columns).assign(dataset=name, type="raw", task="category", channel=1)
    for kind in folds:
        for number, parts in enumerate(kind.splits, start=1):
            place = folder / kind.name.replace(" ", "-") / f"fold_{number}"
            place.mkdir(parents=True, exist_ok=True)
            for part, rows_of_part in zip(("train", "test"), parts, strict=True):
                text = table.iloc[np.sort(rows_of_part)].to_json(orient="records", lines=True)
                write_text(place / f"{name}_{part}_fold_{number}.jsonl", text)


def read_folds(folder: Path, names: Sequence[str]) -> tuple[Folds, list[str]]:
    """Read folds, and return them with notes on utterances that are left out.

    `names` are the paths of the utterances below their corpus. A `wav` is the utterance that agrees
    with it in the most parts of the path, from the end and without the file ending.

    Raises:
        InputError: there are no folds, a file is not valid, or in a fold an utterance occurs twice
            or one of the parts has none.
    """
    tails: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for k, name in enumerate(names):
        for tail in _tails(name):
            tails[tail].append(k)
    parts: dict[tuple[int, str], list[int]] = defaultdict(list)
    missing = set()
    for path in sorted(folder.glob("fold_*/*.jsonl")):
        if match := re.fullmatch(r"(?:.*_)?(train|test)_fold_(\d+)", path.stem):
            for wav in _read_paths(path):
                found = next((tails[tail] for tail in _tails(wav) if tail in tails), [])
                parts[int(match[2]), match[1]] += found if len(found) == 1 else []
                missing |= {wav} if len(found) != 1 else set()
    numbers = sorted({number for number, _ in parts})
    for number in numbers or [1]:
        train, test = parts[number, "train"], parts[number, "test"]
        if not train or not test or len({*train, *test}) < len(train + test):
            raise InputError(
                f"{folder}: fold {number} has {len(train)} utterances of the corpus to train and "
                f"{len(test)} to test, {len({*train, *test})} different ones; expected files such "
                "as fold_1/<corpus>_train_fold_1.jsonl"
            )
    unused = len(names) - len({k for rows in parts.values() for k in rows})
    notes = [f"{unused:,} utterances of the corpus are not in the folds"] * bool(unused)
    if missing:
        example = f"for example {min(missing)}"
        notes.append(f"{len(missing):,} of the folds are not readable in the corpus, {example}")
    splits = ((np.sort(parts[k, "train"]), np.sort(parts[k, "test"])) for k in numbers)
    return Folds(GIVEN, tuple(splits)), notes


def _read_paths(path: Path) -> list[str]:
    try:
        return [str(parse_json(line)["wav"]) for line in read_text(path).splitlines()]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: has a line that is not an object with wav") from error


def _tails(path: str) -> list[tuple[str, ...]]:
    parts = PurePosixPath(path).with_suffix("").parts
    return [parts[k:] for k in range(len(parts))]
