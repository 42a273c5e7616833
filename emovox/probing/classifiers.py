"""Classifiers that read the labels of a corpus out of features, and their cross-validation.

The features are usually the logits of a network, used as an embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emovox import scores as metrics
from emovox.emotions import in_order
from emovox.errors import InputError
from emovox.probing.corpora import Utterance
from emovox.probing.folds import Folds

MAX_ITERATIONS = 1000  # of the optimiser of an affine map; scikit-learn warns if more are needed
TOLERANCE = 1e-6  # of the gradient of the mean cross-entropy
EMBEDDING_PENALTY = 1.0  # see `affine_map`
NUM_TREES = 200
TEMPERATURE_FOLDS = 3  # of the training utterances of a fold, to fit its temperature
LEAST = 1e-4  # probability of a logit; a class may have no vote of a forest


# A classifier of scikit-learn: its name, and an unfitted estimator, of which each fold fits a copy.
Classifier = tuple[str, Any]


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
    return name, make_pipeline(StandardScaler(), regression)


def random_forest(seed: int = 0, num_jobs: int = -1) -> Classifier:
    """Return a random forest; the number of threads, -1 for one per core, does not change it."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(NUM_TREES, random_state=seed, n_jobs=num_jobs)
    return f"random forest, {NUM_TREES} trees", forest


SCORES = ("accuracy", "recall", "macro_f1", "temperature")  # of each fold


@dataclass(frozen=True)
class FoldScores:
    """Scores of a classifier on the held-out utterances of one kind of folds."""

    folds: str  # name of the folds
    # Scores per fold: accuracy; recall and macro_f1, unweighted means over the classes that occur;
    # temperature, the divisor of the logits fitted to training utterances
    scores: Mapping[str, tuple[float, ...]]
    # Expected calibration error over the utterances of all folds, as it is and with temperatures
    calibration_error: float
    calibration_error_fitted: float
    confusion: tuple[tuple[int, ...], ...]  # utterances by label (rows) and prediction (columns)


@dataclass(frozen=True)
class FeatureScores:
    """Scores of one kind of features, for each kind of folds."""

    features: str
    classifier: str
    classes: tuple[str, ...]  # in the order of the confusion matrices
    held_out: tuple[FoldScores, ...]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


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
    method, estimator = classifier or affine_map()
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
    speakers = np.array([str(u.speaker) for u in utterances])
    held_out = [_score(features, targets, speakers, kind, estimator) for kind in folds]
    return FeatureScores(name, method, tuple(classes), tuple(held_out))


def _score(
    features: np.ndarray,
    targets: np.ndarray,
    speakers: np.ndarray,
    folds: Folds,
    estimator: Any,
) -> FoldScores:
    from sklearn.base import clone

    num_classes = int(targets.max()) + 1

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Return probabilities of the test utterances, float64 `[N, C]`."""
        probabilities = np.zeros((len(test), num_classes))
        if len(known := np.unique(targets[train])) == 1:  # the other classes are held out
            probabilities[:, known] = 1
            return probabilities
        model = clone(estimator).fit(features[train], targets[train])
        probabilities[:, model.classes_] = model.predict_proba(features[test])
        return probabilities

    def fit_temperature(train: np.ndarray, groups: np.ndarray) -> float:
        """Fit to predictions for training utterances by models that learn without their groups."""
        names, numbers = np.unique(groups[train], return_inverse=True)
        places = np.random.default_rng(0).permutation(len(names))[numbers] % TEMPERATURE_FOLDS
        parts = [train[places == k] for k in np.unique(places)]
        found = np.concatenate([predict(np.setdiff1d(train, part), part) for part in parts])
        return metrics.fit_temperature(logits(found), targets[np.concatenate(parts)])

    def logits(probabilities: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(probabilities, LEAST))

    rows, plain, fitted = [], [], []
    total = np.zeros((num_classes, num_classes), np.int64)
    for train, test in folds.splits:
        plain.append(predict(train, test))
        found, confusion = metrics.class_scores(targets[test], plain[-1])
        total += confusion
        apart = len({*speakers[train]}) > 1 and not {*speakers[train]} & {*speakers[test]}
        temperature = fit_temperature(train, speakers if apart else np.arange(len(targets)))
        fitted.append(metrics.softmax(logits(plain[-1]) / temperature))
        rows.append((found["accuracy"], found["uar"], found["macro_f1"], temperature))
    expected = targets[np.concatenate([test for _, test in folds.splits])]
    error, fitted_error = (
        metrics.calibration_error(np.concatenate(parts), expected) for parts in (plain, fitted)
    )
    scores = dict(zip(SCORES, zip(*rows, strict=True), strict=True))
    return FoldScores(folds.name, scores, error, fitted_error, tuple(map(tuple, total.tolist())))
