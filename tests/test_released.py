"""The published networks: finding them, and reading them from PyTorch and MatConvNet files."""

import contextlib
import hashlib
import os
import pickle
import shutil
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor

from emovox.errors import ConfigError, InputError
from emovox.teacher import find_teacher, inference, load_teacher, teacher_checkpoint
from emovox.teacher.teacher_checkpoint import Senet, SenetConfig

State = OrderedDict[str, Tensor]
GATES = {"senet50-ferplus": True, "resnet50-ferplus": False}
NAMES = pytest.mark.parametrize("name", GATES)
FORMS = pytest.mark.parametrize("form", ["zip.pth", "legacy.pth", "dagnn.mat"])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of teachers in a temporary cache. Small batches make the tests faster."""
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inference, "LARGE_INPUT_BATCH", 2)
    return tmp_path / "cache" / "teachers"


@dataclass(frozen=True)
class Release:
    """A network with random weights: its files by form, and its logits for `crops()`."""

    files: dict[str, Path]
    logits: np.ndarray


def crops() -> np.ndarray:
    """Return two crops of random coloured squares, uint8 `[2, 224, 224, 3]`."""
    squares = np.random.default_rng(0).integers(0, 256, (2, 14, 14, 3), dtype=np.uint8)
    return squares.repeat(16, axis=1).repeat(16, axis=2)


def random_state(net: Senet) -> State:
    """Return random weights and statistics that keep all outputs of order one."""
    state: State = OrderedDict()
    for name, tensor in net.state_dict().items():
        noise = torch.randn(tensor.shape, generator=_generator(name))
        if tensor.ndim == 4:
            state[name] = noise * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("_var", "bn.weight")):
            state[name] = noise.abs() / 2 + 0.5
        elif not name.endswith("num_batches_tracked"):
            state[name] = noise / 5
    state["conv1_7x7_s2_bn.running_var"] *= 70.0**2  # its input is pixels
    return state


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def dagnn(state: State) -> dict[str, Any]:
    """Convert a state dict to the form in which MatConvNet saves the network."""
    params: list[Any] = []
    layers: list[Any] = []

    def add(name: str, kind: str, *weights: np.ndarray) -> None:
        names = [f"weight{len(params) + i}" for i in range(len(weights))]
        params.extend(zip(names, weights, strict=True))
        for part in ("1x1", "3x3", "7x7", "bn"):
            name = name.replace(f"_{part}", f"/{part}")
        layers.append((name, kind, np.array(names, object)[None]))

    for weight in [key for key in state if key.endswith(".weight")]:
        name = weight.removesuffix(".weight")
        part = {key.rpartition(".")[2]: state[key].numpy() for key in state if _is_of(key, name)}
        if name.endswith("_bn"):
            deviation = np.sqrt(part["running_var"] + 1e-5)
            moments = np.stack([part["running_mean"], deviation], axis=1)
            add(name, "dagnn.BatchNorm", part["weight"][:, None], part["bias"][:, None], moments)
            add(f"{name}_relu", "dagnn.ReLU")
        else:
            biases = [part["bias"][None]] if "bias" in part else []
            add(name, "dagnn.Conv", part["weight"].transpose(2, 3, 1, 0), *biases)
    add("pool1_3x3_s2", "dagnn.Pooling")
    add("conv2_1_axpy", "dagnn.Axpy")
    return {
        "params": records(("name", "value"), params),
        "layers": records(("name", "type", "params"), layers),
    }


def _is_of(key: str, layer: str) -> bool:
    return key.rpartition(".")[0] == layer


def records(fields: tuple[str, ...], rows: list[Any]) -> np.ndarray:
    """Return a MATLAB struct array."""
    array = np.empty((1, len(rows)), [(field, object) for field in fields])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row)
    return array


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Release]]:
    folder = tmp_path_factory.mktemp("releases")
    found = {}
    for name, gates in GATES.items():
        net = Senet(SenetConfig(squeeze_excite=gates)).eval()
        state = random_state(net)
        net.load_state_dict(state, strict=False)
        with torch.no_grad():
            state["classifier.weight"] /= net(net.preprocess(torch.from_numpy(crops()))).std()
            net.load_state_dict(state, strict=False)
            logits = net(net.preprocess(torch.from_numpy(crops()))).numpy()
        forms = ("zip.pth", "legacy.pth", "dagnn.mat")
        files = {form: folder / f"{name}-{form}" for form in forms}
        torch.save(state, files["zip.pth"])
        torch.save(state, files["legacy.pth"], _use_new_zipfile_serialization=False)
        savemat(files["dagnn.mat"], dagnn(state))
        found[name] = Release(files, logits)
    yield found
    shutil.rmtree(folder)  # large, and pytest keeps the folders of three runs


@NAMES
@FORMS
def test_every_form_gives_the_same_logits(
    releases: dict[str, Release], name: str, form: str
) -> None:
    release, path = releases[name], releases[name].files[form]
    assert 0.3 < release.logits.std() < 3 and np.ptp(release.logits, axis=0).max() > 0.05
    teacher = load_teacher(path, "cpu", "fp32")
    logits = teacher(crops())
    np.testing.assert_allclose(logits, release.logits, rtol=0, atol=1e-4)
    assert teacher.name == path.stem and teacher.input_size == 224
    assert teacher.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_registered_name_loads_the_released_file(
    releases: dict[str, Release], teachers: Path
) -> None:
    release = releases["resnet50-ferplus"]
    teachers.mkdir(parents=True)
    (teachers / "resnet50-ferplus.mat").symlink_to(release.files["dagnn.mat"])
    teacher = load_teacher("resnet50-ferplus", "cpu", "fp32")
    assert teacher.name == "resnet50-ferplus"
    np.testing.assert_allclose(teacher(crops()), release.logits, rtol=0, atol=1e-4)
    (teachers / "senet50-ferplus.mat").symlink_to(release.files["dagnn.mat"])
    with pytest.raises(InputError, match=r"do not fit emovox.senet: no conv2_1_1x1_down"):
        load_teacher("senet50-ferplus", "cpu", "fp32")


def test_a_checkpoint_with_a_registered_name_can_hold_any_network(tmp_path: Path) -> None:
    path = tmp_path / "senet50-ferplus.safetensors"
    shutil.copy(find_teacher("compact").path, path)
    assert load_teacher(path, "cpu", "fp32").input_size == 48


@NAMES
def test_files_of_a_registered_name(teachers: Path, tmp_path: Path, name: str) -> None:
    files = (f"{name.replace('-', '_')}_dag.pth", f"{name}.mat")
    with pytest.raises(InputError) as error:
        find_teacher(name)
    message = str(error.value)
    assert name in message and f"put {files[0]} or {files[1]} into {teachers}" in message
    assert "\n" not in message
    teachers.mkdir(parents=True)
    for file in reversed(files):  # the first of the two is used
        (teachers / file).write_text(file)
        source = find_teacher(name)
        assert (source.name, source.path) == (name, teachers / file)
        assert source.sha256 == hashlib.sha256(file.encode()).hexdigest()
    for file in files:  # a released file keeps its registered name in any folder
        (tmp_path / file).write_text(file)
        assert find_teacher(tmp_path / file).name == name
    (tmp_path / "mine.pth").write_text("")
    assert find_teacher(tmp_path / "mine.pth").name == "mine"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="one of compact, senet50-ferplus, resnet50-ferplus"):
        find_teacher("senet50")


def rejection(path: Path) -> str:
    """Return the message of a rejected file: one line with its path."""
    with pytest.raises(InputError) as error:
        load_teacher(path, "cpu", "fp32")
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<!DOCTYPE html>\n<html><body>Not Found", "an HTML page"),
        (b"", "an empty file"),
        (b"Moved Permanently", "text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "a MAT 5 file"),
    ],
)
def test_a_pth_of_another_kind_is_rejected(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    message = rejection(tmp_path / "net.pth")
    assert "expected a PyTorch state dict" in message and f"found {found}" in message


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"<!DOCTYPE html>\n<html>", "an HTML page"), (b"PK\x03\x04", "a zip archive")],
)
def test_a_mat_of_another_kind_is_rejected(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "net.mat").write_bytes(content)
    message = rejection(tmp_path / "net.mat")
    assert f"expected a MAT file of level 5 or 7.3; found {kind}" in message


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_truncated_pth_is_rejected(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "net.pth"
    state = OrderedDict((f"layer{i}.weight", torch.randn(20, i + 1)) for i in range(5))
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for size in (*range(0, len(whole), len(whole) // 150), len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "expected a PyTorch state dict; found" in rejection(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("is_zip", "step"), [(True, 5), (False, 1)])
def test_a_damaged_pth_is_read_or_rejected(tmp_path: Path, is_zip: bool, step: int) -> None:
    """Torch raises many errors for one changed byte; a user sees an InputError."""
    path = tmp_path / "net.pth"
    torch.save(OrderedDict(weight=torch.ones(2)), path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    num_rejected = 0
    for place in range(0, len(whole), step):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert teacher_checkpoint.read_pth(path).keys()
        except InputError as error:
            num_rejected += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert num_rejected > len(whole) / step / 10


class Malicious:
    """An object that makes a folder when it is unpickled unsafely."""

    def __init__(self, function: Callable[..., object], argument: str) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return self.function, (self.argument,)


def save_legacy(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_pickle])
@pytest.mark.parametrize("function", [os.mkdir, eval])
def test_code_in_a_pth_does_not_run(
    tmp_path: Path, save: Callable[..., None], function: Callable[..., object]
) -> None:
    path, folder = tmp_path / "net.pth", tmp_path / "folder"
    argument = f"__import__('os').mkdir({str(folder)!r})" if function is eval else str(folder)
    save(OrderedDict({"conv1_7x7_s2.weight": Malicious(function, argument)}), path)
    message = rejection(path)
    assert not folder.exists()
    assert "expected a PyTorch state dict" in message
    for advice in ("weights_only", "safe_globals"):  # torch's advice to run the code
        assert advice not in message
    with contextlib.suppress(RuntimeError):  # a bare pickle is not a file of torch
        torch.load(path, weights_only=False)  # proves that the file contains code
    assert folder.exists()


def flat_state(gates: bool = True) -> State:
    """Return weights of the right shapes that need almost no space in a file."""
    with torch.device("meta"):
        shapes = Senet(SenetConfig(squeeze_excite=gates)).state_dict()
    return OrderedDict((name, torch.ones(()).expand(t.shape)) for name, t in shapes.items())


def torchvision_state() -> State:
    names = ("conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight", "fc.weight")
    return OrderedDict((name, torch.zeros(2)) for name in names)


def without(state: State, *names: str) -> State:
    return OrderedDict((name, tensor) for name, tensor in state.items() if name not in names)


def replaced(state: State, name: str, *shape: int) -> State:
    return OrderedDict({**state, name: torch.ones(()).expand(shape)})


GATE = "conv5_3_1x1_up"
STATES: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "torchvision": (
        torchvision_state,
        ("the weights do not fit emovox.senet: no conv1_7x7_s2.weight; ", "more"),
    ),
    "seven-emotions": (
        lambda: replaced(flat_state(), "classifier.weight", 7, 2048, 1, 1),
        ("classifier.weight is [7, 2048, 1, 1], expected [8, 2048, 1, 1]",),
    ),
    "linear-classifier": (
        lambda: replaced(flat_state(), "classifier.weight", 8, 2048),
        ("classifier.weight is [8, 2048], expected [8, 2048, 1, 1]",),
    ),
    "a-layer-less": (
        lambda: without(flat_state(), f"{GATE}.weight", f"{GATE}.bias"),
        (f"no {GATE}.weight; no {GATE}.bias",),
    ),
    "a-layer-more": (
        lambda: replaced(flat_state(False), f"{GATE}.weight", 2048, 128, 1, 1),
        (f"{GATE}.weight does not belong",),
    ),
    "nothing": (OrderedDict, ("do not fit emovox.senet: no conv1_7x7_s2.weight",)),
    "nested": (lambda: {"state_dict": torchvision_state()}, ("no conv1_7x7_s2.weight",)),
    "with-an-epoch": (lambda: {"epoch": 3, "model": {}}, ("of tensors", "found dict")),
    "list": (lambda: [torch.zeros(2)], ("of tensors", "found list")),
}


@pytest.mark.parametrize("name", STATES)
def test_another_network_is_rejected(tmp_path: Path, name: str) -> None:
    make, words = STATES[name]
    torch.save(make(), tmp_path / "net.pth")
    message = rejection(tmp_path / "net.pth")
    assert [word for word in words if word not in message] == []


def test_flat_weights_of_the_right_shapes_are_accepted(tmp_path: Path) -> None:
    """The rejected files above differ from these only in the tested defect."""
    for i, state in enumerate((flat_state(), {"state_dict": flat_state()})):
        torch.save(state, tmp_path / f"{i}.pth")
        net = teacher_checkpoint.load_network(find_teacher(tmp_path / f"{i}.pth"))
        assert isinstance(net, Senet) and net.config.squeeze_excite and not net.training


FILTERS, COLUMN = np.ones((7, 7, 3, 64), np.float32), np.ones((64, 1), np.float32)
LAYERS: dict[str, tuple[str, str, list[np.ndarray], tuple[str, ...]]] = {
    "weighted-relu": (
        "conv1/relu",
        "dagnn.ReLU",
        [COLUMN],
        ("expected weights in dagnn.Conv and", "found them in layer conv1_relu, a dagnn.ReLU"),
    ),
    "no-moments": (
        "conv1/7x7_s2/bn",
        "dagnn.BatchNorm",
        [COLUMN, COLUMN],
        (
            "layer conv1_7x7_s2_bn: expected the weights of a dagnn.BatchNorm",
            "found [64, 1], [64, 1]",
        ),
    ),
    "odd-moments": (
        "conv1/7x7_s2/bn",
        "dagnn.BatchNorm",
        [COLUMN, COLUMN, np.ones((63, 1))],
        ("layer conv1_7x7_s2_bn: expected the weights of a dagnn.BatchNorm", "[63, 1]"),
    ),
    "too-many-axes": (
        "conv1/7x7_s2",
        "dagnn.Conv",
        [FILTERS[None]],
        ("layer conv1_7x7_s2: expected the weights of a dagnn.Conv", "[1, 7, 7, 3, 64]"),
    ),
    "too-many-weights": (
        "conv1/7x7_s2",
        "dagnn.Conv",
        [FILTERS, COLUMN, COLUMN],
        ("layer conv1_7x7_s2: expected the weights of a dagnn.Conv",),
    ),
    "text": (
        "conv1/7x7_s2",
        "dagnn.Conv",
        [np.array("filters")],
        ("layer conv1_7x7_s2: expected the weights of a dagnn.Conv",),
    ),
    "vgg": (
        "conv1_1",
        "dagnn.Conv",
        [FILTERS, COLUMN],
        ("the weights do not fit emovox.senet: no conv1_7x7_s2.weight; ",),
    ),
    "one-layer": (
        "conv1/7x7_s2",
        "dagnn.Conv",
        [FILTERS],
        ("no conv1_7x7_s2_bn.weight", "and 263 more"),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_another_dagnn_is_rejected(tmp_path: Path, name: str) -> None:
    layer, kind, weights, words = LAYERS[name]
    names = [f"weight{i}" for i in range(len(weights))]
    network = {
        "params": records(("name", "value"), list(zip(names, weights, strict=True))),
        "layers": records(("name", "type", "params"), [(layer, kind, np.array(names, object))]),
    }
    savemat(tmp_path / "net.mat", {"net": network})
    message = rejection(tmp_path / "net.mat")
    assert [word for word in words if word not in message] == []
