"""Scores of a teacher against scikit-learn, scipy and plain loops."""

import json

import numpy as np
import pytest
from scipy.special import rel_entr
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    recall_score,
)

from emovox.emotions import EMOTIONS
from emovox.scores import softmax
from emovox.teacher.evaluation import score


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (300, 8)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 7, 300)  # contempt never occurs


def test_against_scikit_learn(logits: np.ndarray, labels: np.ndarray) -> None:
    found = score(logits, np.eye(8)[labels])
    predicted, occurring = logits.argmax(1), [k for k in range(8) if k != 7]
    assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
    recall = recall_score(labels, predicted, labels=occurring, average=None)
    np.testing.assert_allclose(found.recall[:7], recall)
    assert np.isnan(found.recall[7]) and found.counts[7] == 0
    with pytest.warns(UserWarning, match="not in y_true"):
        balanced = balanced_accuracy_score(labels, predicted)
    assert found.mean_class_accuracy == pytest.approx(balanced)
    assert found.cross_entropy == pytest.approx(
        log_loss(labels, softmax(logits.astype(np.float64)), labels=range(8)), rel=1e-6
    )
    np.testing.assert_array_equal(
        found.confusion, confusion_matrix(labels, predicted, labels=range(8))
    )


def test_divergence_from_mixed_votes_against_scipy(logits: np.ndarray) -> None:
    targets = np.random.default_rng(2).dirichlet(np.ones(8), 300)
    targets[:, 3] = 0
    targets /= targets.sum(1, keepdims=True)
    probabilities = scipy_softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(softmax(logits), probabilities, rtol=1e-5)
    expected = rel_entr(targets, probabilities).sum(1).mean()
    assert score(logits, targets).kl_divergence == pytest.approx(expected)


def naive_calibration_error(confidence: list[float], hits: list[bool]) -> float:
    bins: dict[int, list[int]] = {}
    for i, value in enumerate(confidence):
        bins.setdefault(min(int(value * 15), 14), []).append(i)
    error = 0.0
    for members in bins.values():
        accuracy = sum(hits[i] for i in members) / len(members)
        mean = sum(confidence[i] for i in members) / len(members)
        error += len(members) / len(hits) * abs(accuracy - mean)
    return error


def test_calibration_error_against_a_loop(logits: np.ndarray, labels: np.ndarray) -> None:
    probabilities = scipy_softmax(logits.astype(np.float64), axis=1)
    hits = (logits.argmax(1) == labels).tolist()
    expected = naive_calibration_error(probabilities.max(1).tolist(), hits)
    assert score(logits, np.eye(8)[labels]).calibration_error == pytest.approx(expected)
    sure = np.eye(8) * 100
    assert score(sure, np.eye(8)).calibration_error == pytest.approx(0, abs=1e-9)
    assert score(sure, np.roll(np.eye(8), 1, 0)).calibration_error == pytest.approx(1)


def test_the_label_of_tied_votes_is_the_first() -> None:
    targets = np.array([[0, 0.5, 0, 0.5, 0, 0, 0, 0]])
    assert score(np.eye(8)[[1]], targets).accuracy == 1
    assert score(np.eye(8)[[3]], targets).accuracy == 0


def test_json_has_emotions_and_no_nan(logits: np.ndarray, labels: np.ndarray) -> None:
    found = score(logits, np.eye(8)[labels])
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain["recall"]["contempt"] is None and list(plain["counts"]) == list(EMOTIONS)
    assert plain["confusion"] == [list(row) for row in found.confusion]
