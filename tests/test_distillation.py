"""Distillation: mixed targets, and checkpoints to learn and to start from."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.special import softmax
from test_training import QUICK, data, weights

from emovox import checkpoints
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, InputError
from emovox.teacher import EMBEDDED, load_teacher, training
from emovox.teacher.ferplus import Faces, read
from emovox.teacher.teacher_checkpoint import ARCHITECTURES
from emovox.teacher.teacher_config import TeacherTrainConfig
from emovox.teacher.teacher_trainer import TeacherTrainer
from emovox.teacher.training import soft_targets, train_epochs
from emovox.testing import FakeTeacher

__all__ = ["data"]  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")


class LeftTeacher(FakeTeacher):
    """A fake teacher that sees the left half only, so that mirroring changes its logits."""

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return super().__call__(crops[:, :, : crops.shape[2] // 2])


class TwiceTeacher(LeftTeacher):
    """A fake teacher with doubled logits."""

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return 2 * super().__call__(crops)


@pytest.fixture
def faces() -> Faces:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 48, 48), dtype=np.uint8)
    targets = rng.dirichlet(np.ones(len(EMOTIONS)), 5).astype(np.float32)
    return Faces(images, targets, tuple("abcde"))


def naive_logits(images: np.ndarray) -> np.ndarray:
    """Return the mean grey level of eight bands of rows: left half and mirrored left half."""
    return np.array([[face[6 * k : 6 * k + 6].mean() for k in range(8)] for face in images])


def learning_from(*teachers: str, weight: float) -> TeacherTrainConfig:
    return TeacherTrainConfig(distill_from=teachers, distill_weight=weight, device="cpu")


def test_logits_are_averaged_over_teachers_and_mirror_images(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = {"left": LeftTeacher(48), "twice": TwiceTeacher(48)}
    monkeypatch.setattr(training, "load_teacher", lambda name, device: teachers[name])
    found = soft_targets(faces, learning_from("left", "twice", weight=1.0))
    expected = softmax(1.5 * naive_logits(faces.images), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_targets_mix_votes_and_teachers(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = LeftTeacher(48)
    monkeypatch.setattr(training, "load_teacher", lambda name, device: teacher)
    targets = soft_targets(faces, learning_from("any", weight=0.25))
    expected = 0.25 * softmax(naive_logits(faces.images), axis=1) + 0.75 * faces.targets
    np.testing.assert_allclose(targets, expected, atol=1e-5)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)


SMALL = replace(QUICK, epochs=1, stem=8, widths=(8,), depths=(1,))


@pytest.mark.slow
def test_a_teacher_to_learn_from_changes_the_training(data: Path, tmp_path: Path) -> None:
    first, out, alone = tmp_path / "first", tmp_path / "out", tmp_path / "alone"
    list(train_epochs(data, first, replace(SMALL, seed=5)))
    list(train_epochs(data, alone, SMALL))
    config = replace(SMALL, distill_from=(str(first),), distill_weight=0.9)
    assert len(list(train_epochs(data, out, config))) == 1
    assert not list(train_epochs(data, out, config)), "it is complete"

    teacher = load_teacher(first, "cpu", "fp32")
    train_set = read(data, "train")
    crops = np.repeat(train_set.images[..., None], 3, axis=3)
    logits = (teacher(crops) + teacher(np.ascontiguousarray(crops[:, :, ::-1]))) / 2
    found = soft_targets(train_set, learning_from(str(first), weight=1.0))
    assert np.abs(found - softmax(logits, axis=1)).max() < 0.02, "bf16 or not"
    losses = [
        json.loads((folder / "log.jsonl").read_text())["train_loss"] for folder in (out, alone)
    ]
    assert losses[0] != losses[1], "the teacher changes the training"
    with safe_open(out / "best.safetensors", "np") as file:
        header = json.loads(file.metadata()["training"])
    assert header["recipe"]["distill_from"] == ["first"]
    assert header["sources_sha256"] == [teacher.sha256]


def test_a_recipe_in_place_of_a_teacher_is_an_error(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "first.toml"
    recipe.write_text("stem = 8\n")
    changes = {"a": {"distill_from": (str(recipe),)}, "b": {"start_from": str(recipe)}}
    for out, change in changes.items():
        with pytest.raises(InputError, match=r"first.toml: not a safetensors file, but text"):
            next(train_epochs(data, tmp_path / out, replace(SMALL, **change)))  # type: ignore[arg-type]


@pytest.mark.slow
def test_checkpoint_and_config_hold_no_paths(data: Path, tmp_path: Path) -> None:
    list(train_epochs(data, tmp_path / "first", SMALL))
    named = replace(SMALL, distill_from=(str(tmp_path / "first" / "best.safetensors"),))
    list(train_epochs(data, tmp_path / "second", named))
    for name in ("best.safetensors", "config.json"):
        assert str(tmp_path).encode() not in (tmp_path / "second" / name).read_bytes()


def test_a_training_starts_from_the_weights_of_another(data: Path, tmp_path: Path) -> None:
    first, out = tmp_path / "first", tmp_path / "out"
    list(train_epochs(data, first, replace(SMALL, epochs=6)))
    config = replace(SMALL, start_from=str(first), learning_rate=1e-9)
    assert len(list(train_epochs(data, out, config))) == 1
    before, after = (load_file(folder / "best.safetensors") for folder in (first, out))
    for name in ("classifier.weight", "stem.0.weight", "blocks.0.se.up.bias"):
        np.testing.assert_allclose(before[name], after[name], atol=2e-3)
    assert not list(train_epochs(data, out, config)), "it is complete"
    with pytest.raises(InputError, match="needs a network of the same shape"):
        next(train_epochs(data, tmp_path / "b", replace(config, widths=(16,))))


@pytest.fixture
def online(data: Path, tmp_path: Path) -> Path:
    """Train a teacher of another shape and return its weights."""
    config = replace(QUICK, epochs=4, stem=8, widths=(16,), depths=(1,))
    list(train_epochs(data, tmp_path / "teacher", config))
    return tmp_path / "teacher" / "best.safetensors"


def test_teachers_see_the_faces_of_the_student(online: Path) -> None:
    """The loss is the cross-entropy to the mixed targets of the very inputs of the student."""
    config = replace(QUICK, dropout=0.0, distill_from=(str(online),), distill_weight=0.75)
    config = replace(config, distill="online", mixup_share=1.0, unlabelled=True)
    rng = np.random.default_rng(0)
    votes = np.eye(8, dtype=np.float32)[rng.integers(0, 8, 16)]
    votes[3:6] = 0  # without votes
    faces = Faces(rng.integers(0, 256, (16, 48, 48), dtype=np.uint8), votes, ())
    run = TeacherTrainer(config, faces, torch.device("cpu"))
    run.learn_from([online, "compact"])
    inputs, targets = run._augmented(torch.arange(16), random.Random(0))
    mixed_rows = set(np.unique(targets.numpy().round(4)).tolist())
    assert mixed_rows - {0.0, 1.0}, "faces are mixed in pairs"
    nets = [checkpoints.load(path, ARCHITECTURES) for path in (online, EMBEDDED["compact"])]
    with torch.no_grad():
        taught = sum(net(inputs).softmax(1) for net in nets) / 2
        share = 0.25 * targets.sum(1, keepdim=True)
        expected = (1 - share) * taught + 0.25 * targets  # type: ignore[operator]
        np.testing.assert_allclose(expected.sum(1), 1, rtol=1e-4)
        outputs = run.model.train()(inputs)
        log_probabilities = outputs - outputs.logsumexp(1, keepdim=True)
        loss = -(expected * log_probabilities).sum(1).mean()
        torch.testing.assert_close(run._loss(inputs, targets), loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distill", ["once", "online"])
def test_distillation_resumes_to_the_same_weights(
    data: Path, online: Path, tmp_path: Path, distill: str
) -> None:
    config = replace(QUICK, stem=8, widths=(8,), depths=(1,), distill_from=(str(online),))
    config = replace(config, distill=distill, mixup_share=0.5, unlabelled=True)
    list(train_epochs(data, tmp_path / "whole", config))
    interrupted = train_epochs(data, tmp_path / "parts", config)
    next(interrupted)
    interrupted.close()
    list(train_epochs(data, tmp_path / "parts", config))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    config = replace(config, distill="online")
    with pytest.raises(ConfigError, match="another kind of network or outputs"):
        next(train_epochs(data, tmp_path / "s", replace(config, network="senet50")))
