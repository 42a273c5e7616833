"""Teachers: finding, loading and inference."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import emovox
from emovox import checkpoints
from emovox.checkpoints import fold_batch_norm
from emovox.devices import resolve_compile, teacher_devices
from emovox.emotions import EMOTIONS, PUBLISHED, Outputs
from emovox.errors import ConfigError, EmovoxError, InputError
from emovox.teacher import (
    EMBEDDED,
    ferplus,
    find_teacher,
    load_teacher,
    teacher_checkpoint,
)
from emovox.teacher.evaluation import predict, score
from emovox.teacher.inference import BATCH, TorchTeacher
from emovox.teacher.teacher_checkpoint import CompactConfig, CompactNet

COMPACT = EMBEDDED["compact"]


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (BATCH + 7, 48, 48, 3), dtype=np.uint8)


def random_net(seed: int = 0) -> CompactNet:
    """Return a network with trained batch normalisation."""
    torch.manual_seed(seed)
    net = CompactNet(CompactConfig(8, (8, 16), (1, 2))).train()
    for _ in range(3):
        net(torch.randn(16, 1, 48, 48))
    return net.eval()


def naive_logits(crops: np.ndarray) -> np.ndarray:
    """Return logits of the unfolded network, one face at a time, with explicit preprocessing."""
    net = checkpoints.load(COMPACT, teacher_checkpoint.ARCHITECTURES)
    logits = []
    for crop in crops.astype(np.float64):
        grey = np.round(0.2989 * crop[..., 0] + 0.5870 * crop[..., 1] + 0.1140 * crop[..., 2])
        face = (grey - grey.mean()) / grey.std()
        with torch.no_grad():
            logits.append(net(torch.tensor(face, dtype=torch.float32)[None, None]).numpy()[0])
    return np.stack(logits)


def test_compact_includes_its_preprocessing(crops: np.ndarray) -> None:
    teacher = emovox.load_teacher("compact", "cpu", "fp32")
    assert teacher.emotions == emovox.EMOTIONS and teacher.input_size == 48
    logits = teacher(crops)
    assert logits.dtype == np.float32 and logits.shape == (len(crops), 8)
    # A grey level halfway between two integers may round the other way in float32.
    np.testing.assert_allclose(logits, naive_logits(crops), atol=5e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_row_does_not_depend_on_its_batch(crops: np.ndarray, precision: str) -> None:
    teacher = load_teacher("compact", "cpu", precision)
    whole = teacher(crops)
    for start, stop in ((0, 1), (3, 10), (60, 71)):
        np.testing.assert_array_equal(teacher(crops[start:stop]), whole[start:stop])
    assert teacher(crops[:0]).shape == (0, 8)


def test_bf16_stays_close(crops: np.ndarray) -> None:
    full, half = (load_teacher("compact", "cpu", p)(crops) for p in ("fp32", "bf16"))
    assert 0 < np.abs(full - half).max() < 0.2


def test_logits_of_bf16_have_more_than_eight_bits(crops: np.ndarray) -> None:
    logits = load_teacher("compact", "cpu", "bf16")(crops)
    assert (torch.from_numpy(logits).bfloat16().float().numpy() != logits).mean() > 0.9


@pytest.mark.slow
def test_compiling_changes_only_the_last_digits(crops: np.ndarray) -> None:
    if not resolve_compile("auto", "cpu", pays=True):
        pytest.skip("needs a C++ compiler and Python's headers")
    plain = TorchTeacher("t", "0", random_net(), "cpu", "fp32")
    compiled = TorchTeacher("t", "0", random_net(), "cpu", "fp32", compiled=True)
    whole = compiled(crops)
    np.testing.assert_allclose(whole, plain(crops), atol=1e-4)
    np.testing.assert_array_equal(compiled(crops[3:10]), whole[3:10])


def test_a_failing_compiler_gives_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(forward: object, **options: object) -> object:
        def run(pixels: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("CppCompileError: no such file\nmany more lines")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(EmovoxError, match=r"machine \(CppCompileError: no such file\); use"):
        TorchTeacher("t", "0", random_net(), "cpu", "fp32", compiled=True)


def test_auto_compiles_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_compile("on", "cpu", pays=False) and not resolve_compile("off", "cpu", pays=True)
    assert not resolve_compile("auto", "cpu", pays=False)
    with pytest.raises(ConfigError, match="compile 'yes' is not one of auto, on, off"):
        resolve_compile("yes", "cpu", pays=True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not resolve_compile("auto", "cpu", pays=True)


def test_cuda_gives_a_teacher_to_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert teacher_devices("cpu") == ()
    assert teacher_devices("cuda") == ("cuda:0", "cuda:1", "cuda:2")
    assert teacher_devices("cuda:1") == ("cuda:1",)


def test_parts_of_a_batch_are_one_batch(crops: np.ndarray) -> None:
    teacher = TorchTeacher("t", "0", random_net(), "cpu", "fp32")
    whole = teacher(crops)
    parts = crops[:5], crops[5:6], crops[6:40]
    np.testing.assert_array_equal(teacher.launch(*parts)()[:, :8], whole[:40])


def test_each_batch_is_launched_before_the_wait_for_the_one_before(
    monkeypatch: pytest.MonkeyPatch, crops: np.ndarray
) -> None:
    """A GPU is busy while a batch is copied, and no more than two batches take memory."""
    teacher, order = TorchTeacher("t", "0", random_net(), "cpu", "fp32"), []
    launch = teacher.launch

    def logged(*parts: np.ndarray) -> Callable[[], np.ndarray]:
        order.append("launch")
        wait = launch(*parts)

        def logged_wait() -> np.ndarray:
            order.append("wait")
            return wait()

        return logged_wait

    expected = teacher(np.concatenate([crops, crops]))
    monkeypatch.setattr(teacher, "launch", logged)
    np.testing.assert_array_equal(teacher(np.concatenate([crops, crops])), expected)
    assert order == ["launch", "launch", "wait", "launch", "wait", "wait"]
    assert teacher(crops[:0]).shape == (0, 8)


def test_folding_batch_norm_keeps_the_function() -> None:
    net = random_net()
    faces = torch.randn(5, 1, 48, 48)
    with torch.no_grad():
        before = net(faces)
        fold_batch_norm(net)
        assert not [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        torch.testing.assert_close(net(faces), before, atol=1e-4, rtol=1e-4)


def test_wrong_crops_are_rejected(crops: np.ndarray) -> None:
    teacher = load_teacher("compact", "cpu", "fp32")
    for wrong in (crops[:, :40], crops.astype(np.float32), crops[..., 0]):
        with pytest.raises((ValueError, TypeError)):  # of numpy, which copies them to a batch
            teacher(wrong)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    net = random_net()
    checkpoints.save(tmp_path / "t.safetensors", net, {"epoch": 3})
    loaded = checkpoints.load(tmp_path / "t.safetensors", teacher_checkpoint.ARCHITECTURES)
    assert loaded.config == net.config and not loaded.training
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(loaded.state_dict()[name], tensor.half().float())
    assert load_teacher(tmp_path / "t.safetensors", "cpu").name == "t"


def test_a_file_of_another_kind_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {k: v for k, v in random_net().state_dict().items() if v.is_floating_point()}

    def check_message(words: str) -> None:
        with pytest.raises(InputError) as error:
            load_teacher(path, "cpu")
        assert words in str(error.value) and str(path) in str(error.value)
        assert "\n" not in str(error.value)

    path.write_text("<!doctype html>")
    check_message("not a safetensors file, but an HTML page")
    path.write_bytes(COMPACT.read_bytes()[:5000])
    check_message("not a safetensors file")
    save_file(tensors, path)
    check_message("architecture is 'none', expected one of emovox.compact, emovox.senet")
    save_file(tensors, path, {"architecture": "emovox.compact"})
    check_message("the header does not describe a network")
    wider = random_net()
    wider.config = CompactConfig(8, (8, 32), (1, 2))
    checkpoints.save(path, wider, {})
    check_message("blocks.1.bn1.running_mean is [16], expected [32]; ")
    checkpoints.save(path, random_net(), {})
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = file.metadata()
    del tensors["classifier.bias"]
    save_file(tensors, path, header)
    check_message("the weights do not fit emovox.compact: no classifier.bias")
    save_file(tensors, path, header | {"emotions": '["happy"]'})
    check_message(
        "the header does not describe a network (expected 2 to 64 emotions, found 1: happy)"
    )
    seven = json.dumps(EMOTIONS[:7])
    whole = random_net()
    checkpoints.save(path, whole, {}, torch.float32)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, header | {"emotions": seven})
    check_message("classifier.weight is [8, 16], expected [7, 16]")


def test_a_teacher_of_other_outputs(tmp_path: Path) -> None:
    outputs = Outputs(("calm", "joy", "awe"), ("valence", "arousal"))
    net = CompactNet(CompactConfig(8, (8, 16), (1, 2)), outputs).eval()
    path = tmp_path / "t.safetensors"
    checkpoints.save(path, net, {})
    teacher = load_teacher(path, "cpu", "fp32")
    assert (teacher.emotions, teacher.values) == (outputs.emotions, outputs.values)
    assert find_teacher(path).read_outputs() == outputs
    assert find_teacher("compact").read_outputs() == PUBLISHED
    crops = np.random.default_rng(0).integers(0, 256, (70, 48, 48, 3), np.uint8)
    assert teacher(crops).shape == (70, 5) and teacher(crops[:0]).shape == (0, 5)
    with torch.inference_mode():
        expected = net(net.preprocess(torch.from_numpy(crops))).numpy()
    np.testing.assert_allclose(teacher(crops), expected, atol=1e-4)
    with pytest.raises(InputError, match="teacher t: outputs are calm, joy, awe, valence, aro"):
        predict(teacher, crops[..., 0])


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"nor one of compact, .*; did you mean compact\?"
    ) as error:
        load_teacher("compat")
    assert "senet50-ferplus" in str(error.value)
    with pytest.raises(ConfigError, match="not one of auto, fp32, bf16"):
        load_teacher("compact", precision="fp8")
    with pytest.raises(ConfigError, match=r"device 'cuda:99'"):
        load_teacher("compact", device="cuda:99")


def test_embedded_weights_are_small() -> None:
    assert COMPACT.stat().st_size <= 3_000_000


@pytest.mark.real
def test_embedded_teacher_on_ferplus(real_data: Path) -> None:
    """The accuracy on PrivateTest is at least 86 %, and bf16 agrees with fp32."""
    faces = ferplus.read(real_data / "ferplus.zip", "private_test")
    images = np.repeat(faces.images[..., None], 3, axis=3)
    full, half = (load_teacher("compact", "cpu", p)(images) for p in ("fp32", "bf16"))
    assert score(full, faces.targets).accuracy >= 0.86
    assert (full.argmax(1) == half.argmax(1)).mean() >= 0.995


def test_the_card_has_the_hash_of_the_embedded_weights() -> None:
    card = Path(__file__).parents[1] / "data_cards" / "teacher-compact.md"
    assert find_teacher("compact").sha256 in card.read_text(encoding="utf-8")


def test_the_temperature_of_a_checkpoint_is_kept(tmp_path: Path) -> None:
    """It is in the record of the training."""
    path = tmp_path / "t.safetensors"
    net = random_net()
    for stated, expected in ({"temperature": 0.5}, 0.5), ({}, 1.0), ({"temperature": -1}, 1.0):
        checkpoints.save(path, net, stated)
        teacher = load_teacher(path, "cpu", "fp32")
        assert teacher.temperature == expected
    assert load_teacher("compact", "cpu").temperature == pytest.approx(0.639, abs=1e-3)
