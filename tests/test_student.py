"""Students: preprocessing, checkpoints, and the published network in MatConvNet files."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor

from emovox import EMOTIONS, checkpoints, load_student, spectrogram
from emovox.emotions import Outputs
from emovox.errors import ConfigError, InputError
from emovox.media.spectrogram import centre_bucket, normalise
from emovox.probing.probes import kind_of_model
from emovox.registry import read_header
from emovox.student import find_student, networks
from emovox.student.clips import CENTRE, WHOLE, Windows
from emovox.student.networks import StudentConfig, VGGVox
from emovox.teacher import find_teacher
from emovox.teacher import teacher_checkpoint as teacher_checkpoints
from emovox.teacher.teacher_checkpoint import CompactConfig, CompactNet

NARROW = StudentConfig(width=1 / 32)
State = dict[str, Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def students(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of students in a temporary cache."""
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "students"


def random_net(config: StudentConfig = NARROW) -> VGGVox:
    """A network with weights and statistics such that every layer affects the logits."""
    generator = torch.Generator().manual_seed(0)
    net = VGGVox(config, generator).eval()
    for name, tensor in net.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var") or (name.startswith("bn") and name.endswith("weight")):
            tensor.copy_(noise.abs() / 2 + 0.5)
        elif tensor.ndim == 1:
            tensor.copy_(noise / 5)
    return net


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("students") / "narrow.safetensors"
    checkpoints.save(path, random_net(), {"epochs": 3}, torch.float32)
    return path


def utterance(num_frames: int, seed: int = 0) -> np.ndarray:
    """Coloured noise of varying level, float32, `num_frames` frames and some samples more."""
    rng = np.random.default_rng(seed)
    samples = np.convolve(rng.standard_normal(num_frames * 160 + 300), rng.standard_normal(9))
    swell = 0.02 * (1.1 + np.sin(np.arange(len(samples)) / 3000 + seed))
    return (samples * swell).astype(np.float32)[: num_frames * 160 + 300]


# Running


def test_preprocessing(narrow: Path) -> None:
    """Utterances are normalised, cut to the paper's centre bucket, and scored in order."""
    student = load_student(narrow, "cpu", "fp32")
    net = checkpoints.load(narrow, networks.ARCHITECTURES)
    utterances = [utterance(n, seed) for seed, n in enumerate((250, 101, 430, 299, 1110, 100))]
    expected, embeddings = [], []
    for samples in utterances:
        whole = normalise(spectrogram(samples))
        start, width = centre_bucket(whole.shape[1])
        crop = torch.from_numpy(whole[None, :, start : start + width])
        with torch.inference_mode():
            expected.append(net(crop)[0].numpy())
            embeddings.append(net.embed(crop)[0].numpy())
    logits = student(utterances, CENTRE)
    assert logits.shape == (6, 8) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(student.embed(utterances, CENTRE), embeddings, rtol=0, atol=1e-3)
    assert np.ptp(logits, axis=0).min() > 0.01  # otherwise the comparison is void
    np.testing.assert_allclose(student(utterances[2], CENTRE), logits[2:3], atol=1e-4)
    assert student([]).shape == (0, 8) and student.embed([]).shape == (0, 32)
    assert (student.name, student.emotions) == ("narrow", EMOTIONS)
    assert student.sha256 == hashlib.sha256(narrow.read_bytes()).hexdigest()


@pytest.mark.parametrize("pool", ["max", "mean", "peak"])
def test_windows_hear_all_sound(narrow: Path, pool: str) -> None:
    """Windows of 2 s, cut, padded, scored and pooled one by one; the last hears 0.3 s more."""
    student = load_student(narrow, "cpu", "fp32")
    net = checkpoints.load(narrow, networks.ARCHITECTURES)
    samples = np.concatenate([utterance(630), utterance(30, 7)])  # 6.6 s
    rows, embeddings = [], []
    for start in (0, 1, 2, 3, 4, 5):
        window = np.zeros(32_384, np.float32)  # SPEC: 200 x 160 + 384
        part = samples[16_000 * start :][:32_384]
        window[: len(part)] = part
        crop = torch.from_numpy(normalise(spectrogram(window))[None])
        assert crop.shape[2] == 200
        with torch.inference_mode():
            rows.append(net(crop)[0].numpy())
            embeddings.append(net.embed(crop)[0].numpy())
    expected = {
        "max": np.max(rows, axis=0),
        "mean": np.mean(rows, axis=0),
        "peak": max(rows, key=max),
    }[pool]
    windows = Windows(2, pool=pool)
    np.testing.assert_allclose(student(samples, windows)[0], expected, rtol=0, atol=1e-3)
    mean = np.mean(embeddings, axis=0)
    np.testing.assert_allclose(student.embed(samples, windows)[0], mean, rtol=0, atol=1e-3)
    assert np.abs(student(samples[:98_000], windows) - expected).max() > 1e-3


def test_windows_are_those_of_the_training(narrow: Path, tmp_path: Path) -> None:
    path, samples = tmp_path / "short.safetensors", utterance(500)
    for recipe, windows in (
        ({}, Windows()),
        ({"seconds": 1.5, "pool": "mean"}, Windows(1.5, None, "mean")),
    ):
        checkpoints.save(path, random_net(), {"recipe": recipe}, torch.float32)
        student = load_student(path, "cpu", "fp32")
        assert student.windows == windows and student.prior is None
        np.testing.assert_array_equal(student(samples), student(samples, windows))
    for training in ({"recipe": {"seconds": -1}}, {"recipe": [1]}, {"prior": [1.0]}, {"prior": 3}):
        checkpoints.save(path, random_net(), training)
        assert "the record of the training is not valid" in refusal(path)


def test_whole_utterance_is_one_window(narrow: Path) -> None:
    """The network averages over time; frames of an incomplete step are not lost."""
    student = load_student(narrow, "cpu", "fp32")
    net = checkpoints.load(narrow, networks.ARCHITECTURES)
    samples = utterance(725)
    whole = normalise(spectrogram(samples))
    padded = np.pad(whole, ((0, 0), (0, (65 - whole.shape[1]) % 32)))
    with torch.inference_mode():
        expected = net(torch.from_numpy(padded[None])).numpy()
    np.testing.assert_allclose(student(samples, WHOLE), expected, rtol=0, atol=1e-3)
    changed = samples.copy()
    changed[-400:] *= -3
    assert np.abs(student(changed, WHOLE) - student(samples, WHOLE)).max() > 1e-4
    assert student([samples[:1]], WHOLE).shape == (1, 8)
    with pytest.raises(InputError, match="whole: 301 s of sound, at most 300; use windows"):
        student(np.ones(301 * 16_000, np.float32), WHOLE)
    with pytest.raises(ValueError, match="neither Windows, 'whole' nor 'centre bucket'"):
        student(samples, "half")


def test_batch_size_does_not_change_logits(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = load_student(narrow, "cpu", "fp32")
    utterances = [utterance(100 + 300 * (i % 4), i) for i in range(6)]
    together = student(utterances)
    monkeypatch.setattr(networks, "MAX_FRAMES", 400)  # one window
    np.testing.assert_allclose(student(utterances), together, rtol=0, atol=1e-4)


def test_short_utterances_are_padded_with_zeros(narrow: Path) -> None:
    student = load_student(narrow, "cpu", "fp32")
    short = utterance(40)
    padded = np.pad(short, (0, 16_384 - len(short)))
    for part in (None, CENTRE):
        np.testing.assert_allclose(student(short, part), student(padded, part), atol=1e-5)
    assert np.isfinite(student([short[:1], np.zeros(5, np.float32), np.zeros(50_000)])).all()


def test_bf16_differs_slightly(narrow: Path) -> None:
    samples = utterance(200)
    exact = load_student(narrow, "cpu", "fp32")(samples)
    rounded = load_student(narrow, "cpu", "bf16")(samples)
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("samples", [np.zeros((2, 20_000)), np.zeros(0), np.full(20_000, np.nan)])
def test_invalid_samples(narrow: Path, samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected samples|contain NaN or infinity"):
        load_student(narrow, "cpu", "fp32")(samples)


# Names


def test_a_training_is_found_by_its_folder_and_named_after_it(narrow: Path, tmp_path: Path) -> None:
    run = tmp_path / "first-run"
    run.mkdir()
    shutil.copy(narrow, run / "best.safetensors")
    (run / "config.json").write_text("{}")
    for place in (run, run / "best.safetensors"):
        found = find_student(place)
        assert (found.name, found.path) == ("first-run", run / "best.safetensors")
    assert find_teacher(run).name == "first-run"  # config.json does not make it one of the Hub
    assert kind_of_model(str(run)) == "student"


def test_student_names(students: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'unknown' is neither a file nor one of emovoxceleb"):
        load_student("unknown")
    with pytest.raises(InputError) as error:
        load_student("emovoxceleb")
    message = str(error.value)
    assert "`emovox download student`" in message and "\n" not in message
    assert f"put emovoxceleb-student.mat into {students}" in message
    students.mkdir(parents=True)
    path = students / "emovoxceleb-student.mat"
    path.write_text("x")
    source = find_student("emovoxceleb")
    assert (source.name, source.path, source.is_released) == ("emovoxceleb", path, True)
    assert find_student(path).name == "emovoxceleb"
    (tmp_path / "mine.safetensors").write_text("")
    assert find_student(tmp_path / "mine.safetensors").name == "mine"


# Checkpoints


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("config", [NARROW, StudentConfig(1 / 32, conv3=256)])
def test_checkpoint_round_trip(tmp_path: Path, dtype: torch.dtype, config: StudentConfig) -> None:
    net = random_net(config)
    checkpoints.save(tmp_path / "a.safetensors", net, {"loss": "distil", "T": 2.0}, dtype)
    found = checkpoints.load(tmp_path / "a.safetensors", networks.ARCHITECTURES)
    assert found.config == config and not found.training
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(
            tensor, net.state_dict()[name].to(tensor.dtype), rtol=1e-3, atol=1e-3
        )
    header = read_header(tmp_path / "a.safetensors")
    assert json.loads(header["training"]) == {"loss": "distil", "T": 2.0}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert str(tmp_path).encode() not in (tmp_path / "a.safetensors").read_bytes()


def refusal(path: Path, read: Callable[[Path], object] = load_student) -> str:
    """Return the error message of loading a file: one line that starts with its path."""
    with pytest.raises(InputError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_invalid_checkpoints(tmp_path: Path, narrow: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"<html>")
    assert "not a safetensors file, but an HTML page" in refusal(path)
    whole = narrow.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "not a safetensors file" in refusal(path)
    with pytest.raises(InputError, match="cannot be read"):
        checkpoints.load(tmp_path / "none", networks.ARCHITECTURES)


def test_checkpoint_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    teacher = CompactNet(CompactConfig(stem=8, widths=(8,), depths=(1,)))
    checkpoints.save(path, teacher, {})
    assert "architecture is 'emovox.compact', expected one of emovox.vggvox" in refusal(path)
    net = random_net()
    checkpoints.save(path, net, {})
    with pytest.raises(InputError, match=r"'emovox.vggvox', expected one of emovox.compact"):
        checkpoints.load(path, teacher_checkpoints.ARCHITECTURES)
    net.config = StudentConfig(width=1 / 16)
    checkpoints.save(path, net, {})
    message = refusal(path)
    assert "the weights do not fit emovox.vggvox: bn2.bias is [8], expected [16]" in message


def test_checkpoint_with_other_emotions(tmp_path: Path) -> None:
    path, emotions = tmp_path / "a.safetensors", ("calm", "joy", "awe")
    net = VGGVox(StudentConfig(width=1 / 16), outputs=Outputs(emotions))
    checkpoints.save(path, net, {})
    student = load_student(path, "cpu", "fp32")
    assert student.emotions == emotions
    assert student([np.ones(16_000), np.ones(20_000)]).shape == (2, 3)
    assert find_student(path).name == "a" and load_student(path).emotions == emotions


# The published network


def mat_layers(net: VGGVox) -> list[tuple[str, str, list[np.ndarray]]]:
    """Name, type and weights of the layers, in the form of MatConvNet."""
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    layers: list[tuple[str, str, list[np.ndarray]]] = []
    for convolution, norm in zip(networks.CONVOLUTIONS, (*networks.BATCH_NORMS, None), strict=True):
        filters = state[f"{convolution}.weight"].transpose(2, 3, 1, 0)
        layers.append((convolution, "Conv", [filters, state[f"{convolution}.bias"][None]]))
        if norm is None:
            break
        deviation = np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        moments = np.stack([state[f"{norm}.running_mean"], deviation], axis=1)
        columns = [state[f"{norm}.{part}"][:, None] for part in ("weight", "bias")]
        layers.append((norm, "BatchNorm", [*columns, moments]))
        layers.append((f"relu{norm[2:]}", "ReLU", []))
    return layers


def records(fields: tuple[str, ...], rows: list[Any]) -> np.ndarray:
    """A MATLAB struct array."""
    array = np.empty((1, len(rows)), [(field, object) for field in fields])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row)
    return array


def cell(values: list[Any]) -> np.ndarray:
    array = np.empty((1, len(values)), object)
    array[0] = values
    return array


def dagnn(layers: list[tuple[str, str, list[np.ndarray]]]) -> dict[str, Any]:
    params: list[Any] = []
    described: list[Any] = []
    for name, kind, weights in layers:
        names = [f"{name}_{i}" for i in range(len(weights))]
        params.extend(zip(names, weights, strict=True))
        described.append((name, f"dagnn.{kind}", cell(names) if names else np.empty((0, 0))))
    return {
        "params": records(("name", "value"), params),
        "layers": records(("name", "type", "params"), described),
    }


def simplenn(layers: list[tuple[str, str, list[np.ndarray]]]) -> dict[str, Any]:
    kinds = {"Conv": "conv", "BatchNorm": "bnorm", "ReLU": "relu"}
    structs: list[Any] = []
    for name, kind, weights in layers:
        struct = {"name": name, "type": kinds[kind]}
        structs.append(struct | ({"weights": cell(weights)} if weights else {}))
    return {"net": {"layers": cell(structs)}}


def naive_logits(layers: list[tuple[str, str, list[np.ndarray]]], x: np.ndarray) -> np.ndarray:
    """MatConvNet's forward pass in its own layout, `[frequency, time, channels]`."""
    geometry = {"conv1": (2, 1), "conv2": (2, 1), "conv3": (1, 1), "conv4": (1, 1), "conv5": (1, 1)}
    pools = {"relu1": (3, 3, 2, 2), "relu2": (3, 3, 2, 2), "relu5": (5, 3, 3, 2)}
    x = x[:, :, None]
    for name, kind, weights in layers:
        if kind == "Conv":
            stride, padding = geometry.get(name, (1, 0))
            x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
            filters, biases = weights
            windows = windowed(x, filters.shape[:2], (stride, stride))
            x = np.tensordot(windows, filters, ((3, 4, 2), (0, 1, 2))) + biases
        elif kind == "BatchNorm":
            scale, shift, moments = weights
            x = (x - moments[:, 0]) / moments[:, 1] * scale.ravel() + shift.ravel()
        else:
            x = np.maximum(x, 0)
        if name in pools:
            x = windowed(x, pools[name][:2], pools[name][2:]).max(axis=(3, 4))
        if name == "relu6":
            x = x.mean(axis=1, keepdims=True)
    return x.ravel()


def windowed(x: np.ndarray, size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, size[:2], axis=(0, 1))
    return windows[:: stride[0], :: stride[1]]


@pytest.fixture
def narrow_release(monkeypatch: pytest.MonkeyPatch) -> VGGVox:
    """A network with the layers of the published one, but narrow and so faster."""

    def config(tensors: State) -> StudentConfig:
        return NARROW

    monkeypatch.setattr(networks, "_config", config)
    return random_net()


@pytest.mark.parametrize("form", [dagnn, simplenn])
def test_released_form_gives_the_same_logits(
    tmp_path: Path,
    students: Path,
    narrow_release: VGGVox,
    monkeypatch: pytest.MonkeyPatch,
    form: Callable[[Any], dict[str, Any]],
) -> None:
    layers = mat_layers(narrow_release)
    students.mkdir(parents=True)
    path = students / "emovoxceleb-student.mat"
    savemat(path, form(layers))
    samples = utterance(170)
    whole = normalise(spectrogram(samples))
    start, width = centre_bucket(whole.shape[1])
    expected = naive_logits(layers, whole[:, start : start + width])
    student = load_student("emovoxceleb", "cpu", "fp32")
    np.testing.assert_allclose(student(samples, CENTRE)[0], expected, rtol=0, atol=1e-3)
    assert student.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    again = load_student(path, "cpu", "fp32")
    assert again.name == "emovoxceleb" and again.sha256 == student.sha256


def test_layers_with_other_names_or_without_biases(tmp_path: Path, narrow_release: VGGVox) -> None:
    """Layers are matched by order; a convolution before a batch normalisation needs no biases."""
    for name, tensor in narrow_release.state_dict().items():
        if name.endswith(".bias") and name.startswith(("conv", "fc6", "fc7")):
            tensor.zero_()
    layers = [
        (f"layer{i}", kind, weights[:1] if kind == "Conv" and name != "fc8" else weights)
        for i, (name, kind, weights) in enumerate(mat_layers(narrow_release))
    ]
    savemat(tmp_path / "net.mat", dagnn(layers))
    found = networks.read_released(tmp_path / "net.mat").state_dict()
    for name, tensor in narrow_release.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conv3", [384, 256])
def test_both_published_shapes_are_recognised(conv3: int) -> None:
    tensors = {"conv3.weight": torch.zeros(conv3, 1), "conv4.weight": torch.zeros(256, 1)}
    assert networks._config(tensors) == StudentConfig(conv3=conv3)


def test_other_mat_files_are_errors(tmp_path: Path, narrow_release: VGGVox) -> None:
    path = tmp_path / "net.mat"
    layers = mat_layers(narrow_release)
    savemat(path, dagnn(layers[3:]))
    message = refusal(path)
    assert "expected VGGVox with 8 convolutions and 7 batch normalisations" in message
    assert "found 13 layers with weights: conv2 (dagnn.Conv), bn2 (dagnn.BatchNorm)" in message
    savemat(path, dagnn([*layers[:-1], ("fc8", "Conv", [np.ones((1, 1, 32, 7)), np.ones((1, 7))])]))
    assert "fc8.weight is [7, 32, 1, 1], expected [8, 32, 1, 1]" in refusal(path)
    savemat(path, {"x": np.ones(3)})
    assert "expected a MatConvNet DagNN with layers and params; found the variables x" in refusal(
        path
    )
    path.write_bytes(b"<html>")
    assert "expected a MAT file" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, narrow: Path, value: float) -> None:
    net = checkpoints.load(narrow, networks.ARCHITECTURES)
    next(net.parameters()).data.view(-1)[0] = value
    checkpoints.save(tmp_path / "a.safetensors", net, {}, torch.float32)
    with pytest.raises(InputError, match="not finite"):
        checkpoints.load(tmp_path / "a.safetensors", networks.ARCHITECTURES)
