"""Fine-tuning of SE-ResNet-50 from VGGFace2 weights in both forms, on small faces."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from test_training import data, weights

from emovox.config import read_config
from emovox.emotions import Outputs
from emovox.errors import InputError
from emovox.teacher import load_teacher
from emovox.teacher.ferplus import Faces
from emovox.teacher.teacher_checkpoint import MEAN_RGB, Senet
from emovox.teacher.teacher_config import TeacherTrainConfig
from emovox.teacher.teacher_trainer import TeacherTrainer
from emovox.teacher.training import train_epochs

__all__ = ["data"]  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")
IDENTITIES = 40


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> TeacherTrainConfig:
    """Return the recipe on faces of 32 pixels."""
    monkeypatch.setattr(Senet, "input_size", 32)
    options = {"epochs": 3, "batch_size": 16, "device": "cpu", "bf16": False}
    return read_config(TeacherTrainConfig, "teacher-senet50", options)


def identity_network() -> dict[str, torch.Tensor]:
    """Return random weights of a network that tells identities."""
    torch.manual_seed(0)
    net = Senet(outputs=Outputs(tuple(f"n{k}" for k in range(IDENTITIES))))
    state = net.state_dict()
    return {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}


def write_mat(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """Write weights as MatConvNet's DagNN does."""
    layers, params = [], []
    for name in dict.fromkeys(key.rpartition(".")[0] for key in state):
        get = {
            k: state[f"{name}.{k}"].numpy() for k in ("weight", "bias") if f"{name}.{k}" in state
        }
        if name.endswith("_bn"):
            mean, variance = (state[f"{name}.running_{k}"].numpy() for k in ("mean", "var"))
            moments = np.stack([mean, np.sqrt(variance + 1e-5)], axis=1)
            kind, values = "dagnn.BatchNorm", [get["weight"], get["bias"], moments]
        else:
            kind, values = "dagnn.Conv", [get["weight"].transpose(2, 3, 1, 0)]
            values += [get["bias"]] if "bias" in get else []
        names = [f"{name}_{k}" for k in range(len(values))]
        layers.append({"name": name, "type": kind, "params": np.array(names, dtype=object)})
        params += [{"name": n, "value": v} for n, v in zip(names, values, strict=True)]
    scipy.io.savemat(path, {"layers": layers, "params": params})
    return path


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".mat":
        return write_mat(path, state)
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["senet50_ft_dag.pth", "senet50_ft-dag.mat"])
def test_identity_weights_start_a_training_without_their_classifier(
    recipe: TeacherTrainConfig, tmp_path: Path, name: str
) -> None:
    state = identity_network()
    path = write(tmp_path / name, state)
    faces = Faces(np.zeros((16, 48, 48), np.uint8), np.eye(8, dtype=np.float32)[[0] * 16], ())
    run = TeacherTrainer(recipe, faces, torch.device("cpu"))
    own = run.model.classifier.weight.clone()  # type: ignore[operator]
    run.start_from(path)
    for net in (run.model, run.average):
        found = net.state_dict()
        assert torch.equal(found["classifier.weight"], own)
        for key, tensor in state.items():
            if not key.startswith("classifier."):
                torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-5)


def test_weights_of_another_network_do_not_start_a_training(
    recipe: TeacherTrainConfig, tmp_path: Path
) -> None:
    path = write(tmp_path / "w.pth", identity_network())
    faces = Faces(np.zeros((16, 48, 48), np.uint8), np.eye(8, dtype=np.float32)[[0] * 16], ())
    for change, words in ((("resnet50"), "does not belong"), ("compact", "do not fit")):
        run = TeacherTrainer(replace(recipe, network=change), faces, torch.device("cpu"))
        with pytest.raises(InputError, match=words):
            run.start_from(path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_training_resumes_to_the_same_weights(
    data: Path, recipe: TeacherTrainConfig, tmp_path: Path
) -> None:
    config = replace(recipe, start_from=str(write(tmp_path / "w.pth", identity_network())))
    list(train_epochs(data, tmp_path / "whole", config))
    interrupted = train_epochs(data, tmp_path / "parts", config)
    next(interrupted)
    interrupted.close()
    assert [r["epoch"] for r in train_epochs(data, tmp_path / "parts", config)] == [1, 2]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert load_teacher(tmp_path / "whole" / "best.safetensors", "cpu", "fp32").input_size == 32


def test_all_layers_but_the_last_have_a_tenth_of_the_rate(recipe: TeacherTrainConfig) -> None:
    faces = Faces(np.zeros((16, 48, 48), np.uint8), np.eye(8, dtype=np.float32)[[0] * 16], ())
    run = TeacherTrainer(recipe, faces, torch.device("cpu"))
    rates = {id(p): g["factor"] for g in run.optimizer.param_groups for p in g["params"]}
    for name, weight in run.model.named_parameters():
        assert rates[id(weight)] == (1.0 if name.startswith("classifier.") else 0.1)


def test_grey_minus_the_mean() -> None:
    grey = torch.full((1, 1, 2, 2), 100.0)
    found = Senet.from_grey(grey)[0, :, 0, 0]
    torch.testing.assert_close(found, 100 - torch.tensor(MEAN_RGB))
    pixels = torch.full((1, 2, 2, 3), 100, dtype=torch.uint8)
    torch.testing.assert_close(Senet().preprocess(pixels)[0, :, 0, 0], found)
