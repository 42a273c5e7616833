"""ROC AUC against scikit-learn, and intervals against a plain loop over drawn identities."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from emovox.emotions import EMOTIONS
from emovox.scores import Interval, roc_auc
from emovox.student.student_scores import (
    MEAN_ALL,
    MEAN_PAPER,
    PAPER_EMOTIONS,
    SplitScores,
    difference,
    score_split,
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
    return logits


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
    expected = naive_bootstrap(labels, scores, identities, 600)
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
    few = draw.normal(0, 1, (NUM_TRACKS, 8))
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
    blind = np.random.default_rng(4).normal(0, 1, scores.shape)
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
