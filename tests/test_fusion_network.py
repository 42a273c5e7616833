"""The recurrent network on face and sound, its loss and its scores."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score

from emovox.fusion.fusion_config import FUSIONS
from emovox.fusion.fusion_network import (
    FusionConfig,
    FusionNetwork,
    from_sums,
    fusion_loss,
    pad,
    predict,
    score,
    sums,
)
from emovox.fusion.sequences import Sequence

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def make(length: int, seed: int = 0, values: int = 2) -> Sequence:
    rng = np.random.default_rng(seed)
    face, sound, target = (
        rng.normal(size=(length, size)).astype(np.float32) for size in (3, 4, values)
    )
    return Sequence("a/v/1", "a", np.arange(length) * 0.24, (face, sound), target)


def network(fusion: str = "model", **more: Any) -> FusionNetwork:
    torch.manual_seed(0)
    return FusionNetwork(FusionConfig(("x", "y"), (3, 4), fusion, 8, **more))


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    """The formula of the AVEC challenges, written out."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    var_x, var_y = sum((a - mean_x) ** 2 for a in x) / n, sum((b - mean_y) ** 2 for b in y) / n
    return float(2 * covariance / (var_x + var_y + (mean_x - mean_y) ** 2))


def test_scores_of_values_equal_the_formulas() -> None:
    rng = np.random.default_rng(0)
    found = [rng.normal(0.3, 1, (n, 2)).astype(np.float32) for n in (20, 33)]
    targets = [x + rng.normal(0, 0.5, x.shape).astype(np.float32) for x in found]
    targets[0][:5, 0] = np.nan
    parts = [sums(x, y, False) for x, y in zip(found, targets, strict=True)]
    scores = from_sums(np.sum(parts, axis=0), False)
    for value in range(2):
        x, y = (np.concatenate(each)[:, value].astype(float) for each in (found, targets))
        x, y = x[~np.isnan(y)], y[~np.isnan(y)]
        pearson, rmse = np.corrcoef(x, y)[0, 1], math.sqrt(np.mean((x - y) ** 2))
        np.testing.assert_allclose(scores[:, value], [ccc(x, y), pearson, rmse], rtol=1e-9)
    assert score(found, targets, False) == pytest.approx(scores[0].mean())


def test_scores_of_classes_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    found = [rng.normal(size=(5, 4)) + 0.6 * np.eye(4)[k] for k in labels]
    targets = [np.eye(4)[[k] * 5] for k in labels]
    parts = [sums(x, y, True) for x, y in zip(found, targets, strict=True)]
    named = [x.mean(axis=0).argmax() for x in found]
    accuracy, uar = from_sums(np.sum(parts, axis=0), True)[:, 0]
    assert accuracy == pytest.approx(accuracy_score(labels, named))
    seen = np.isin(named, labels)  # scikit-learn leaves out classes that are never true
    assert uar == pytest.approx(recall_score(labels, named, labels=[0, 1, 2], average="macro"))
    assert not seen.all()


def test_loss_of_values_is_one_minus_ccc() -> None:
    found, target = (torch.randn(3, 7, 2, generator=torch.manual_seed(s)) for s in (0, 1))
    target[0, 3:, 0] = math.nan
    expected = []
    for value in range(2):
        x, y = found[..., value].flatten(), target[..., value].flatten()
        x, y = x[~y.isnan()], y[~y.isnan()]
        expected.append(1 - ccc(x.double().numpy(), y.double().numpy()))
    assert float(fusion_loss(found, target, False)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_loss_of_classes_is_that_of_the_mean_logits() -> None:
    found = torch.randn(2, 5, 3, generator=torch.manual_seed(0))
    target = torch.eye(3)[[2, 0]][:, None].repeat(1, 5, 1)
    target[1, 3:] = math.nan  # two steps of padding
    means = torch.stack([found[0].mean(dim=0), found[1, :3].mean(dim=0)])
    expected = torch.nn.functional.cross_entropy(means, torch.tensor([2, 0]))
    assert float(fusion_loss(found, target, True)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_padding_and_neighbours_change_nothing(fusion: str) -> None:
    net, tracks = network(fusion), [make(9, 0), make(4, 1)]
    together = predict(net, tracks, CPU)
    for track, found in zip(tracks, together, strict=True):
        assert found.shape == (len(track.times), 2)
        np.testing.assert_allclose(predict(net, [track], CPU)[0], found, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_missing_input_is_learned(fusion: str) -> None:
    net, track = network(fusion), make(6)
    track.features[0][2:] = math.nan
    features, lengths, target = pad([track], CPU)
    loss: Any = fusion_loss(net(features, lengths), target, False)
    loss.backward()
    face: Any = net.parts[0]
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    if 0 in net.config.inputs:
        assert face.missing.grad.abs().sum() > 0
        before = predict(net, [track], CPU)[0]
        with torch.no_grad():
            face.missing += 1
        assert not np.allclose(predict(net, [track], CPU)[0], before)
    else:
        assert sum(p.numel() for p in face.parameters()) == 0


def test_an_input_is_hidden() -> None:
    net, track = network(), make(6)
    for place in (0, 1):
        features = [
            np.full_like(f, np.nan) if i == place else f for i, f in enumerate(track.features)
        ]
        expected = predict(net, [replace(track, features=(features[0], features[1]))], CPU)[0]
        np.testing.assert_array_equal(predict(net, [track], CPU, place)[0], expected)
        assert not np.allclose(expected, predict(net, [track], CPU)[0])
    assert np.isfinite(track.features[0]).all()


def test_inputs_of_each_fusion() -> None:
    uses = {fusion: network(fusion).config.inputs for fusion in FUSIONS}
    expected = {"model": [0, 1], "feature": [0, 1], "late": [0, 1], "audio": [1], "video": [0]}
    assert uses == expected
    sizes = {fusion: network(fusion).recurrent[0].input_size for fusion in FUSIONS}
    assert sizes == {"model": 16, "feature": 7, "late": 8, "audio": 8, "video": 8}


def test_inputs_are_standardised_without_the_missing_ones() -> None:
    face: Any = network().parts[0]
    frames = torch.tensor([[1.0, 2.0, 5.0], [3.0, 2.0, 5.0], [math.nan] * 3])
    face.fit(frames)
    assert face.mean.tolist() == [2, 2, 5]
    assert face.deviation.tolist() == [1, pytest.approx(1e-3), pytest.approx(1e-3)]
