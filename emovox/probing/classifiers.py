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
from emovox.probing.folds import Folds

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
