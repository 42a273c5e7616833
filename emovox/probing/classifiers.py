"""A probe: how much of a corpus' labels one affine map and a softmax read out of features.

The features are usually the eight logits of a network, which serve as an embedding.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from emovox.errors import InputError
from emovox.probing.corpora import Utterance, class_order
from emovox.probing.folds import Folds

MAX_ITERATIONS = 1000  # of the optimiser of an affine map; a fold that takes more is counted
TOLERANCE = 1e-6  # of the gradient of the mean cross-entropy
EMBEDDING_PENALTY = 1.0  # see `AffineMap`
NUM_TREES = 200


class Model(Protocol):
    """What scikit-learn calls a classifier."""

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Any: ...

    def predict(self, features: np.ndarray) -> np.ndarray: ...


class Classifier(Protocol):
    """A kind of classifier, with its options; gives a new one for every fold."""

    @property
    def name(self) -> str: ...

    def make(self) -> Model: ...


@dataclass(frozen=True)
class AffineMap:
    """One affine map and a softmax: multinomial logistic regression.

    Features are standardised with the mean and deviation of what a fold is fitted to, which helps
    the optimiser and leaves the optimum of a map without penalty where it is.

    Attributes:
        penalty: weight of half the squared norm of the map beside the summed cross-entropy. The
            paper's is 0. A thousand dimensions, though, separate the training part of any corpus
            of that size; the optimum then lies at infinity, and the result would be where the
            optimiser happened to stop. `EMBEDDING_PENALTY` gives it one that is finite.
    """

    penalty: float = 0.0

    @property
    def name(self) -> str:
        return "affine map" if not self.penalty else f"affine map, L2 penalty {self.penalty:g}"

    def make(self) -> Model:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        inverse = 1 / self.penalty if self.penalty else np.inf
        regression = LogisticRegression(C=inverse, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
        return make_pipeline(StandardScaler(), regression)


@dataclass(frozen=True)
class RandomForest:
    """A random forest.

    Attributes:
        seed: of its draws.
        num_jobs: threads; -1 for one per core. It does not change the result.
    """

    seed: int = 0
    num_jobs: int = -1

    @property
    def name(self) -> str:
        return f"random forest, {NUM_TREES} trees"

    def make(self) -> Model:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(NUM_TREES, random_state=self.seed, n_jobs=self.num_jobs)


@dataclass(frozen=True)
class HeldOut:
    """What a classifier reaches on utterances that it was not fitted to.

    Attributes:
        folds: which way of splitting, as `Folds.name`.
        accuracy: per fold.
        recall: unweighted mean of the recall of the classes that occur, per fold.
        confusion: utterances of all folds by label (rows) and prediction (columns).
        num_unfinished: folds whose optimiser stopped at its limit of iterations.
    """

    folds: str
    accuracy: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    num_unfinished: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values, with mean and deviation; None for the deviation of a single fold."""
        return {
            "num_folds": len(self.accuracy),
            "accuracy": _summary(self.accuracy),
            "recall": _summary(self.recall),
            "confusion": [list(row) for row in self.confusion],
            "num_unfinished": self.num_unfinished,
        }


@dataclass(frozen=True)
class Probed:
    """What was read out of one kind of features.

    Attributes:
        features: their name.
        classifier: its name.
        classes: labels in the order of the confusion matrices.
        held_out: one for each way of splitting.
    """

    features: str
    classifier: str
    classes: tuple[str, ...]
    held_out: tuple[HeldOut, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "features": self.features,
            "classifier": self.classifier,
            "classes": list(self.classes),
            "folds": {held_out.folds: held_out.as_json() for held_out in self.held_out},
        }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (N - 1); NaN for the deviation of a single value."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), spread


def probe(
    features: np.ndarray,
    utterances: Sequence[Utterance],
    folds: Sequence[Folds],
    classifier: Classifier | None = None,
    name: str = "features",
) -> Probed:
    """Fit a new classifier for every fold of every way of splitting, and test it.

    Args:
        features: `[N, D]`, one row for each utterance.
        utterances: with their labels.
        folds: ways of splitting, of `make_folds`.
        classifier: an `AffineMap` if None.
        name: of the features.

    Raises:
        InputError: there is one class only, or a feature is not a finite number.
    """
    classifier = classifier or AffineMap()
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise InputError(f"{name}: holds values that are not finite")
    labels = [utterance.label for utterance in utterances]
    classes = class_order(labels)
    if len(classes) < 2:
        only = repr(classes[0]) if classes else "nothing"
        raise InputError(
            f"all {len(labels):,} utterances are labelled {only}; two classes or more are needed"
        )
    targets = np.array([classes.index(label) for label in labels])
    held_out = tuple(_run(features, targets, len(classes), way, classifier) for way in folds)
    return Probed(name, classifier.name, tuple(classes), held_out)


def _run(
    features: np.ndarray,
    targets: np.ndarray,
    num_classes: int,
    folds: Folds,
    classifier: Classifier,
) -> HeldOut:
    confusion = np.zeros((num_classes, num_classes), np.int64)
    accuracy, recall, num_unfinished = [], [], 0
    for train, test in zip(folds.trained_on, folds.held_out, strict=True):
        predicted, finished = _fit_and_predict(features, targets, train, test, classifier)
        counts = np.zeros_like(confusion)
        np.add.at(counts, (targets[test], predicted), 1)
        confusion += counts
        accuracy.append(float(np.trace(counts) / len(test)))
        occurs = counts.sum(axis=1) > 0
        recall.append(float((np.diag(counts)[occurs] / counts.sum(axis=1)[occurs]).mean()))
        num_unfinished += not finished
    matrix = tuple(tuple(map(int, row)) for row in confusion)
    return HeldOut(folds.name, tuple(accuracy), tuple(recall), matrix, num_unfinished)


def _fit_and_predict(
    features: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    classifier: Classifier,
) -> tuple[np.ndarray, bool]:
    """Predictions for `test`, and whether the optimiser came to its end."""
    from sklearn.exceptions import ConvergenceWarning

    known = np.unique(targets[train])
    if len(known) == 1:  # the held-out speakers have all utterances of the others
        return np.full(len(test), known[0]), True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = classifier.make()
        model.fit(features[train], targets[train])
    finished = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return model.predict(features[test]), finished


def _summary(values: Sequence[float]) -> dict[str, Any]:
    mean, deviation = mean_and_deviation(values)
    shown = None if math.isnan(deviation) else deviation
    return {"mean": mean, "deviation": shown, "per_fold": list(values)}
