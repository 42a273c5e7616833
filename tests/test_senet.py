"""The released networks against a naive forward pass of functional calls."""

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emovox.teacher.teacher_checkpoint import Senet, SenetConfig

State = dict[str, Tensor]
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}  # stage -> blocks
WIDTHS = {2: 64, 3: 128, 4: 256, 5: 512}  # stage -> width of its 3 x 3 convolutions


pytestmark = pytest.mark.usefixtures("one_thread")


def expected_shapes(gates: bool) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of the released state dict, from its specification."""
    filters: dict[str, tuple[int, ...]] = {"conv1_7x7_s2": (64, 3, 7, 7)}
    affine = {"classifier": (8, 2048, 1, 1)}
    inputs = 64
    for stage, depth in BLOCKS.items():
        width, outputs = WIDTHS[stage], 4 * WIDTHS[stage]
        for block in range(1, depth + 1):
            name = f"conv{stage}_{block}"
            filters[f"{name}_1x1_reduce"] = (width, inputs, 1, 1)
            filters[f"{name}_3x3"] = (width, width, 3, 3)
            filters[f"{name}_1x1_increase"] = (outputs, width, 1, 1)
            if block == 1:
                filters[f"{name}_1x1_proj"] = (outputs, inputs, 1, 1)
            if gates:
                affine[f"{name}_1x1_down"] = (outputs // 16, outputs, 1, 1)
                affine[f"{name}_1x1_up"] = (outputs, outputs // 16, 1, 1)
            inputs = outputs
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in filters.items():
        shapes[f"{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}_bn.{part}"] = shape[:1]
    for name, shape in affine.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes


def random_state(gates: bool) -> State:
    """Return random weights and statistics under which every layer affects the logits."""
    state = {}
    for name, shape in expected_shapes(gates).items():
        # Seeded by name, so that both networks share the numbers of their common layers.
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            state[name] = noise * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        elif name.endswith("running_var") or name.endswith("bn.weight"):
            state[name] = noise.abs() / 2 + 0.5
        else:
            state[name] = noise / 5
    state["conv1_7x7_s2_bn.running_var"] *= 70.0**2  # its input is pixels
    return state


def naive_block(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    def normalised(layer: str, y: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        y = F.conv2d(y, state[f"{layer}.weight"], None, stride, padding)
        return naive_batch_norm(state, f"{layer}_bn", y)

    y = normalised(f"{name}_1x1_reduce", x, stride).clamp(min=0)
    y = normalised(f"{name}_3x3", y, padding=1).clamp(min=0)
    y = normalised(f"{name}_1x1_increase", y)
    if f"{name}_1x1_down.weight" in state:
        squeezed = y.flatten(2).mean(2)
        down, up = (state[f"{name}_1x1_{part}.weight"].flatten(1) for part in ("down", "up"))
        hidden = (squeezed @ down.T + state[f"{name}_1x1_down.bias"]).clamp(min=0)
        gate = 1 / (1 + torch.exp(-(hidden @ up.T + state[f"{name}_1x1_up.bias"])))
        y = y * gate[:, :, None, None]
    if f"{name}_1x1_proj.weight" in state:
        x = normalised(f"{name}_1x1_proj", x, stride)
    return (x + y).clamp(min=0)


def naive_batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance, scale, shift = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def naive_logits(state: State, x: Tensor) -> Tensor:
    x = F.conv2d(x, state["conv1_7x7_s2.weight"], None, 2, 3)
    x = naive_batch_norm(state, "conv1_7x7_s2_bn", x).clamp(min=0)
    # Ceil mode without padding: 112 pixels give 56; the last window extends past the edge.
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    assert x.shape[2:] == (56, 56)
    for stage, depth in BLOCKS.items():
        for block in range(1, depth + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            x = naive_block(state, f"conv{stage}_{block}", x, stride)
    assert x.shape[2:] == (7, 7)
    pooled = F.avg_pool2d(x, 7).flatten(1)
    return pooled @ state["classifier.weight"].flatten(1).T + state["classifier.bias"]


def faces(num: int, seed: int = 0) -> np.ndarray:
    """Return crops uint8 `[N, 224, 224, 3]` of random coloured squares."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 256, (num, 14, 14, 3), dtype=np.uint8)
    return squares.repeat(16, axis=1).repeat(16, axis=2)


@pytest.mark.parametrize("gates", [True, False])
def test_names_and_shapes_are_those_of_the_released_weights(gates: bool) -> None:
    state = Senet(SenetConfig(squeeze_excite=gates)).state_dict()
    found = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert found == expected_shapes(gates)


# Published sizes of SE-ResNet-50 and ResNet-50; their classifiers have 1000 classes instead of 8.
@pytest.mark.parametrize(("gates", "published"), [(True, 28_088_024), (False, 25_557_032)])
def test_number_of_layers_and_weights(gates: bool, published: int) -> None:
    net = Senet(SenetConfig(squeeze_excite=gates))
    layers = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    main = [name for name in layers if not name.endswith(("_proj", "_down", "_up"))]
    assert len(main) == 50 and len(layers) == 50 + 4 + (2 * 16 if gates else 0)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53 and {m.eps for m in norms} == {1e-5}
    assert sum(p.numel() for p in net.parameters()) == published - (1000 - 8) * (2048 + 1)


@pytest.mark.parametrize("gates", [True, False])
def test_forward_equals_the_naive_one(gates: bool) -> None:
    state = random_state(gates)
    net = Senet(SenetConfig(squeeze_excite=gates)).eval()
    missing = net.load_state_dict(state, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing)
    inputs = net.preprocess(torch.from_numpy(faces(2)))
    with torch.no_grad():
        logits, expected = net(inputs), naive_logits(state, inputs)
    assert logits.shape == (2, 8)
    spread = (expected[0] - expected[1]).abs().mean()
    assert spread > 0.01 * expected.abs().mean()  # otherwise the comparison proves nothing
    torch.testing.assert_close(logits, expected, rtol=0, atol=float(1e-3 * spread))


def test_preprocessing_is_grey_minus_the_mean() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    weighted = pixels.astype(np.int64) @ np.array([2989, 5870, 1140])  # exact, in ten-thousandths
    ties = weighted % 10_000 == 5000  # may round either way
    grey = np.where(ties, np.nan, (weighted + 5000) // 10_000)
    found = Senet().preprocess(torch.from_numpy(pixels))
    assert found.dtype == torch.float32 and found.shape == (2, 3, 224, 224)
    for channel, mean in enumerate((131.0912, 103.8827, 91.4953)):
        levels = found[:, channel].numpy() + np.float32(mean)
        np.testing.assert_allclose(levels[~ties], grey[~ties], atol=1e-4)
        assert np.isin(levels[ties].round(3) - weighted[ties] / 10_000, (-0.5, 0.5)).all()
    assert 0 < ties.sum() < 100


def test_channel_order_is_rgb() -> None:
    colours = np.zeros((3, 224, 224, 3), np.uint8)
    colours[0] = 255
    colours[1, ..., 0] = colours[2, ..., 2] = 255
    red_channel = Senet().preprocess(torch.from_numpy(colours))[:, 0, 0, 0] + 131.0912
    assert red_channel.round().tolist() == [255, 76, 29]
