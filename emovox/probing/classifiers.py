"""Classifiers that read the labels of a corpus out of features, and their cross-validation.

The features are usually the logits of a network, used as an embedding.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emovox.emotions import in_order
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


MAX_ITERATIONS = 1000  # of the optimiser of an affine map; folds that need more are counted
TOLERANCE = 1e-6  # of the gradient of the mean cross-entropy
EMBEDDING_PENALTY = 1.0  # see `affine_map`
NUM_TREES = 200


@dataclass(frozen=True)
class Classifier:
    """A classifier of scikit-learn."""

    name: str
    estimator: Any  # unfitted; each fold fits a copy


def affine_map(penalty: float = 0.0) -> Classifier:
    """Return an affine map and a softmax: multinomial logistic regression.

    The features are standardised with the mean and the deviation of the training utterances, which
    helps the optimiser and does not change the optimum without penalty.

    The penalty is the weight of half the squared norm of the map, added to the summed
    cross-entropy. The paper uses 0. An embedding of a thousand dimensions separates the training
    utterances of any corpus of this size; without a penalty the optimum is then at infinity, and
    the result depends on where the optimiser stops.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inverse = 1 / penalty if penalty else np.inf
    regression = LogisticRegression(C=inverse, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
    name = f"affine map, L2 penalty {penalty:g}" if penalty else "affine map"
    return Classifier(name, make_pipeline(StandardScaler(), regression))


def random_forest(seed: int = 0, num_jobs: int = -1) -> Classifier:
    """Return a random forest; the number of threads, -1 for one per core, does not change it."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(NUM_TREES, random_state=seed, n_jobs=num_jobs)
    return Classifier(f"random forest, {NUM_TREES} trees", forest)


@dataclass(frozen=True)
class FoldScores:
    """Scores of a classifier on the held-out utterances of one kind of folds."""

    folds: str  # name of the folds
    accuracy: tuple[float, ...]  # accuracy per fold
    recall: tuple[float, ...]  # unweighted mean of the recall of the classes that occur, per fold
    confusion: tuple[tuple[int, ...], ...]  # utterances by label (rows) and prediction (columns)
    num_unfinished: int = 0  # folds whose optimiser stopped at its limit of iterations

    def as_json(self) -> dict[str, Any]:
        """Return JSON values, with mean and deviation; no deviation for a single fold."""
        return {
            "num_folds": len(self.accuracy),
            "accuracy": _summary(self.accuracy),
            "recall": _summary(self.recall),
            "confusion": list(map(list, self.confusion)),
            "num_unfinished": self.num_unfinished,
        }


@dataclass(frozen=True)
class FeatureScores:
    """Scores of one kind of features, for each kind of folds."""

    features: str
    classifier: str
    classes: tuple[str, ...]  # in the order of the confusion matrices
    held_out: tuple[FoldScores, ...]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "features": self.features,
            "classifier": self.classifier,
            "classes": list(self.classes),
            "folds": {scores.folds: scores.as_json() for scores in self.held_out},
        }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation (N - 1); None for the deviation of a single value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation


def cross_validate(
    features: np.ndarray,
    utterances: Sequence[Utterance],
    folds: Sequence[Folds],
    classifier: Classifier | None = None,
    name: str = "features",
) -> FeatureScores:
    """Fit and test a classifier, by default an affine map without penalty, on every fold.

    The features are `[N, D]`, one row per utterance; `name` says in the results what they are.
    InputError if there are fewer than two classes or a feature is not a finite number.
    """
    classifier = classifier or affine_map()
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise InputError(f"{name}: contain values that are not finite")
    labels = [utterance.label for utterance in utterances]
    classes = in_order(labels)
    if len(classes) < 2:
        only = repr(classes[0]) if classes else "nothing"
        raise InputError(
            f"all {len(labels):,} utterances are labelled {only}; two or more classes are required"
        )
    targets = np.array([classes.index(label) for label in labels])
    held_out = [_score(features, targets, kind, classifier) for kind in folds]
    return FeatureScores(name, classifier.name, tuple(classes), tuple(held_out))


def _score(
    features: np.ndarray, targets: np.ndarray, folds: Folds, classifier: Classifier
) -> FoldScores:
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    num_classes = targets.max() + 1
    confusion = np.zeros((num_classes, num_classes), np.int64)
    accuracy, recall, num_unfinished = [], [], 0
    for train, test in zip(folds.trained_on, folds.held_out, strict=True):
        expected = targets[test]
        if len(known := np.unique(targets[train])) == 1:  # the other classes are held out
            predicted = np.full(len(test), known[0])
        else:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                model = clone(classifier.estimator).fit(features[train], targets[train])
            num_unfinished += any(issubclass(w.category, ConvergenceWarning) for w in caught)
            predicted = model.predict(features[test])
        np.add.at(confusion, (expected, predicted), 1)
        hits = predicted == expected
        accuracy.append(float(hits.mean()))
        recall.append(float(np.mean([hits[expected == k].mean() for k in np.unique(expected)])))
    matrix = tuple(map(tuple, confusion.tolist()))
    return FoldScores(folds.name, tuple(accuracy), tuple(recall), matrix, num_unfinished)


def _summary(values: Sequence[float]) -> dict[str, Any]:
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "deviation": deviation, "per_fold": list(values)}
