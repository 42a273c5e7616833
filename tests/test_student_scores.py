"""ROC AUC against scikit-learn, and intervals against a plain loop over drawn identities."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
)

from emovox.emotions import EMOTIONS
from emovox.scores import (
    MEAN_ALL,
    MEAN_PAPER,
    PAPER_EMOTIONS,
    Interval,
    SplitScores,
    common_emotions,
    difference,
    fit_temperature,
    roc_auc,
    score_split,
    softmax,
)

NUM_TRACKS = 240


@pytest.fixture
def labels() -> np.ndarray:
    """Six emotions, the last of which occurs once; two never occur."""
    numbers = np.random.default_rng(0).integers(0, 5, NUM_TRACKS)
    numbers[7] = 5
    return numbers


@pytest.fixture
def scores(labels: np.ndarray) -> np.ndarray:
    logits = np.random.default_rng(1).normal(0, 1, (NUM_TRACKS, 8))
    logits[np.arange(NUM_TRACKS), labels] += 1
    return softmax(logits)


@pytest.fixture
def identities() -> np.ndarray:
    """Twenty identities with 1 to 30 tracks."""
    numbers = np.random.default_rng(2).geometric(0.12, NUM_TRACKS) % 20
    return np.array([f"id{number:05d}" for number in numbers])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_area_against_scikit_learn(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 40))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    levels = data.draw(st.integers(1, 50))  # few of them make ties
    positive = draw.random(count) < 0.5
    values = draw.integers(0, levels, count) / levels
    weights = draw.integers(0, 4, (3, count)).astype(float)
    found = roc_auc(positive, values, weights)
    for area, weight in zip(found, weights, strict=True):
        if weight[positive].sum() and weight[~positive].sum():
            expected = roc_auc_score(positive, values, sample_weight=weight)
            assert area == pytest.approx(expected, abs=1e-12)
        else:
            assert math.isnan(area)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["cube", "exp", "rank", "shift"]))
def test_area_is_invariant_to_monotone_maps_and_mirrored_by_negation(seed: int, name: str) -> None:
    draw = np.random.default_rng(seed)
    positive, values = draw.random(30) < 0.4, np.round(draw.normal(0, 1, 30), 1)
    maps: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "cube": lambda x: x**3,
        "exp": np.exp,
        "rank": lambda x: np.unique(x, return_inverse=True)[1],
        "shift": lambda x: 5 * x - 100,
    }
    weights = draw.integers(0, 3, (2, 30)).astype(float)
    area = roc_auc(positive, values, weights)
    np.testing.assert_allclose(roc_auc(positive, maps[name](values), weights), area)
    np.testing.assert_allclose(roc_auc(positive, -values, weights), 1 - area)
    np.testing.assert_allclose(roc_auc(~positive, values, weights), 1 - area)


def test_area_of_perfect_reversed_and_constant_scores() -> None:
    positive, once = np.array([True, False, True, False]), np.ones((1, 4))
    assert roc_auc(positive, np.array([3, 1, 2, 0]), once) == [1]
    assert roc_auc(positive, np.array([0, 2, 1, 3]), once) == [0]
    assert roc_auc(positive, np.zeros(4), once) == [0.5]


def test_split_against_scikit_learn(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    found = score_split("unheard_val", labels, scores, identities, EMOTIONS)
    expected = [roc_auc_score(labels == k, scores[:, k]) for k in range(6)]
    for k in range(6):
        assert found.auc[EMOTIONS[k]].value == pytest.approx(expected[k])
    assert math.isnan(found.auc["fear"].value) and math.isnan(found.auc["contempt"].value)
    assert found.auc[MEAN_PAPER].value == pytest.approx(np.mean(expected[:5]))
    assert found.auc[MEAN_ALL].value == pytest.approx(np.mean(expected))
    assert found.positives == dict(
        zip(EMOTIONS, np.bincount(labels, minlength=8).tolist(), strict=True)
    )
    assert (found.num_tracks, found.num_identities) == (NUM_TRACKS, len(set(identities)))


def test_an_absent_emotion_counts_as_0_in_the_reference(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    present = labels != 4
    chosen = labels[present], scores[present], identities[present]
    left_out = score_split("unheard_val", *chosen, EMOTIONS)
    legacy = score_split("unheard_val", *chosen, EMOTIONS, absent=0.0)
    assert math.isnan(left_out.auc["anger"].value) and legacy.auc["anger"].value == 0
    assert left_out.auc[MEAN_PAPER].value == pytest.approx(legacy.auc[MEAN_PAPER].value * 5 / 4)
    assert legacy.auc[MEAN_ALL].value == pytest.approx(left_out.auc[MEAN_ALL].value * 5 / 8)


def won_pairs(hits: np.ndarray, misses: np.ndarray) -> float:
    """Return the share of pairs in order, with ties counted half."""
    pairs = np.sign(hits[:, None] - misses[None])
    return float((1 + pairs.mean()) / 2)


def naive_bootstrap(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray, rounds: int
) -> dict[str, np.ndarray]:
    """Return scores of samples: identities drawn with replacement, each with all its tracks."""
    draw = np.random.default_rng(99)
    people = sorted(set(identities))
    samples: dict[str, list[float]] = {name: [] for name in (*EMOTIONS[:5], MEAN_PAPER)}
    for _ in range(rounds):
        rows = np.concatenate(
            [np.flatnonzero(identities == who) for who in draw.choice(people, len(people))]
        )
        areas = []
        for k in range(5):
            positive = labels[rows] == k
            if positive.any() and not positive.all():
                areas.append(won_pairs(scores[rows[positive], k], scores[rows[~positive], k]))
                samples[EMOTIONS[k]].append(areas[-1])
        samples[MEAN_PAPER].append(float(np.mean(areas)))
    return {name: np.array(values) for name, values in samples.items()}


def test_intervals_against_a_plain_bootstrap(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    found = score_split("unheard_val", labels, scores, identities, EMOTIONS)
    expected = naive_bootstrap(labels, scores, identities, 2000)
    for name, samples in expected.items():
        interval = found.auc[name]
        # The standard error of this quantile is about a fifth of the samples' deviation.
        margin = 0.6 * samples.std()
        assert interval.low == pytest.approx(np.quantile(samples, 0.025), abs=margin), name
        assert interval.high == pytest.approx(np.quantile(samples, 0.975), abs=margin), name
        assert interval.low <= interval.value <= interval.high
    means = expected[MEAN_PAPER]
    assert found.samples.std() == pytest.approx(means.std(), rel=0.15)
    assert found.samples.mean() == pytest.approx(means.mean(), abs=0.2 * means.std())


def test_copies_of_tracks_do_not_narrow_intervals(labels: np.ndarray) -> None:
    draw = np.random.default_rng(3)
    few = softmax(draw.normal(0, 1, (NUM_TRACKS, 8)))
    people = np.array([f"id{k:05d}" for k in range(NUM_TRACKS)])
    plain = score_split("unheard_val", labels, few, people, EMOTIONS)
    fivefold = [np.repeat(x, 5, axis=0) for x in (labels, few, people, EMOTIONS)]
    copied = score_split("unheard_val", fivefold[0], fivefold[1], fivefold[2], EMOTIONS)
    assert copied.auc[MEAN_PAPER] == plain.auc[MEAN_PAPER]


def test_seed_fixes_the_samples(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    first, again, other = (
        score_split("unheard_val", labels, scores, identities, EMOTIONS, seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.samples, again.samples)
    assert not np.array_equal(first.samples, other.samples)


def test_heard_minus_unheard(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    blind = softmax(np.random.default_rng(4).normal(0, 1, scores.shape))
    heard = score_split("heard_val", labels, scores, identities, EMOTIONS)
    unheard = score_split("unheard_val", labels, blind, identities, EMOTIONS)
    gap = difference(heard, unheard)
    assert gap.value == pytest.approx(heard.auc[MEAN_PAPER].value - unheard.auc[MEAN_PAPER].value)
    assert 0 < gap.low < gap.value < gap.high
    spread = math.hypot(heard.samples.std(), unheard.samples.std())
    assert (gap.high - gap.low) / spread == pytest.approx(2 * 1.96, rel=0.1)
    same = difference(heard, score_split("unheard_val", labels, scores, identities, EMOTIONS))
    assert same.value == 0
    assert same.low < 0 < same.high, "bootstraps of the splits are independent"


def strict(found: SplitScores) -> dict[str, object]:
    loaded = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert isinstance(loaded, dict)
    return loaded


def test_json_has_emotions_and_no_nan(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    plain = strict(score_split("heard_val", labels, scores, identities, EMOTIONS))
    assert list(plain["positives"]) == list(EMOTIONS)  # type: ignore[call-overload]
    auc = plain["auc"]
    assert isinstance(auc, dict) and list(auc) == [*EMOTIONS, MEAN_PAPER, MEAN_ALL]
    assert auc["contempt"] == {"value": None, "low": None, "high": None}
    assert set(PAPER_EMOTIONS) < set(auc)


def test_interval_is_read_back() -> None:
    for interval in (Interval(0.5, 0.25, 0.75), Interval(math.nan)):
        assert str(Interval.from_json(interval.as_json())) == str(interval)
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_single_emotion_and_single_identity(scores: np.ndarray, identities: np.ndarray) -> None:
    same = score_split("heard_val", np.zeros(NUM_TRACKS, int), scores, identities, EMOTIONS)
    assert all(math.isnan(interval.value) for interval in same.auc.values())
    strict(same)
    assert math.isnan(difference(same, same).value)
    alone = score_split(
        "heard_val", np.arange(NUM_TRACKS) % 5, scores, np.full(NUM_TRACKS, "a"), EMOTIONS
    )
    interval = alone.auc[MEAN_PAPER]
    assert interval.low == pytest.approx(interval.value) == interval.high


def test_difference_is_over_the_emotions_of_both_splits(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    """The same student on a split without anger: a difference of two means would not be 0."""
    heard = score_split("heard_val", labels, scores, identities, EMOTIONS)
    without = labels != 4
    unheard = score_split(
        "unheard_val", labels[without], scores[without], identities[without], EMOTIONS
    )
    assert common_emotions(heard, unheard) == EMOTIONS[:4]
    expected = np.mean([heard.auc[e].value - unheard.auc[e].value for e in EMOTIONS[:4]])
    gap = difference(heard, unheard)
    assert gap.value == pytest.approx(expected)
    rounds = np.nanmean(heard.areas[:, :4] - unheard.areas[:, :4], axis=1)
    assert [gap.low, gap.high] == pytest.approx(np.nanquantile(rounds, [0.025, 0.975]).tolist())


def rare(count: int, num_people: int) -> SplitScores:
    """Scores of a student that finds anger, which `count` tracks have."""
    numbers = np.arange(NUM_TRACKS) % 4
    numbers[:count] = 4
    found = softmax(np.random.default_rng(0).normal(0, 1, (NUM_TRACKS, 8)) + np.eye(8)[numbers])
    return score_split("unheard_val", numbers, found, np.arange(NUM_TRACKS) % num_people, EMOTIONS)


def test_an_emotion_that_a_round_does_not_draw_is_left_out_of_it() -> None:
    """Also under the protocol that counts an emotion of no track as 0."""
    numbers = np.arange(NUM_TRACKS) % 4
    numbers[0] = 4
    found = softmax(np.random.default_rng(0).normal(0, 1, (NUM_TRACKS, 8)) + 3 * np.eye(8)[numbers])
    legacy, standard = (
        score_split("unheard_val", numbers, found, np.arange(NUM_TRACKS), EMOTIONS, absent=absent)
        for absent in (0.0, np.nan)
    )
    assert 0.2 < np.isnan(legacy.areas[:, 4]).mean() < 0.5, "exp(-1) of the rounds have no anger"
    assert legacy.auc["anger"] == standard.auc["anger"] and legacy.auc["anger"].low > 0.5
    assert legacy.auc["fear"].value == 0 and math.isnan(standard.auc["fear"].value)


@pytest.mark.parametrize(
    ("count", "num_people", "reliable"),
    [(1, 60, False), (9, 60, False), (10, 60, True), (10, 39, False), (10, 40, True)],
)
def test_intervals_of_few_examples_are_marked(count: int, num_people: int, reliable: bool) -> None:
    found = rare(count, num_people)
    for name in ("anger", MEAN_PAPER, MEAN_ALL):
        assert found.auc[name].reliable is reliable, name
        assert str(found.auc[name]).endswith("]" if reliable else "]?")
    assert found.auc["neutral"].reliable is (num_people >= 40), "enough of its own"
    assert ("reliable" in found.auc["anger"].as_json()) is not reliable
    assert Interval.from_json(found.auc["anger"].as_json()) == found.auc["anger"]
    assert difference(found, rare(20, 60)).reliable is reliable


def test_other_scores_against_scikit_learn(
    labels: np.ndarray, scores: np.ndarray, identities: np.ndarray
) -> None:
    found = score_split("heard_val", labels, scores, identities, EMOTIONS)
    predicted, occurring = scores.argmax(axis=1), range(6)
    options: dict[str, Any] = {"labels": occurring, "average": "macro", "zero_division": 0}
    assert found.others["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found.others["uar"] == pytest.approx(recall_score(labels, predicted, **options))
    assert found.others["macro_f1"] == pytest.approx(f1_score(labels, predicted, **options))
    expected = confusion_matrix(labels, predicted, labels=range(8))
    np.testing.assert_array_equal(found.confusion, expected)
    assert math.isnan(found.others["calibration_error_fitted"])
    assert strict(found)["calibration_error_fitted"] is None


def test_fitted_temperature_calibrates() -> None:
    """Labels drawn from probabilities; logits three times too large are too sure of themselves."""
    draw = np.random.default_rng(5)
    logits = draw.normal(0, 1.5, (4000, 8))
    labels = np.array([draw.choice(8, p=row) for row in softmax(logits)])
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.05)
    temperature = fit_temperature(3 * logits, labels)
    assert temperature == pytest.approx(3, abs=0.15)
    losses = [
        log_loss(labels, softmax(3 * logits / t)) for t in temperature * np.array([0.9, 1, 1.1])
    ]
    assert losses[1] == min(losses)
    others = score_split(
        "heard_val", labels, softmax(3 * logits), np.arange(4000), EMOTIONS, temperature=temperature
    ).others
    assert others["calibration_error"] > 0.3 and others["calibration_error_fitted"] < 0.03
