"""The student's network: shapes, forward pass compared with a naive one, first weights."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn

from emovox.student.networks import StudentConfig, VGGVox

NARROW = StudentConfig(width=1 / 32)


pytestmark = pytest.mark.usefixtures("one_thread")


def convolve(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """Convolve `[C, H, W]`, one output channel at a time."""
    padding, stride = int(layer.padding[0]), layer.stride[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    filters, biases = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[union-attr]
    planes = [
        correlate(x, f, "valid", "direct")[0] + b for f, b in zip(filters, biases, strict=True)
    ]
    return np.stack(planes)[:, ::stride, ::stride]


def norm_relu(x: np.ndarray, layer: nn.BatchNorm2d) -> np.ndarray:
    mean, variance, scale, shift = (
        layer.state_dict()[name].numpy()[:, None, None]
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)


def max_pool(x: np.ndarray, size: tuple[int, int], stride: tuple[int, int]) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))
    return windows[:, :: stride[0], :: stride[1]].max(axis=(3, 4))


def naive_logits(net: VGGVox, spectrogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embedding of one spectrogram `[512, T]`."""
    layers = dict(net.named_children())
    x = spectrogram[None]
    for name, pool in zip(
        "12345", ((3, 3, 2, 2), (3, 3, 2, 2), None, None, (5, 3, 3, 2)), strict=True
    ):
        x = norm_relu(convolve(x, layers[f"conv{name}"]), layers[f"bn{name}"])  # type: ignore[arg-type]
        if pool:
            x = max_pool(x, pool[:2], pool[2:])
    x = norm_relu(convolve(x, net.fc6), net.bn6)  # type: ignore[arg-type]
    x = x.mean(axis=2, keepdims=True)
    embedding = norm_relu(convolve(x, net.fc7), net.bn7)  # type: ignore[arg-type]
    return convolve(embedding, net.fc8).ravel(), embedding.ravel()


def randomise_norms(net: nn.Module) -> None:
    """Set statistics and scales such that every batch normalisation has an effect."""
    generator = torch.Generator().manual_seed(7)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5  # type: ignore[union-attr]
            for tensor in (layer.bias, layer.running_mean):
                tensor.data = torch.randn(tensor.shape, generator=generator) / 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "size"),
    [(StudentConfig(), 16_637_192), (StudentConfig(conv3=256, conv4=256), 16_046_984)],
)
def test_number_of_parameters(config: StudentConfig, size: int) -> None:
    with torch.device("meta"):
        net = VGGVox(config)
    assert sum(p.numel() for p in net.parameters()) == size
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 7 and {m.eps for m in norms} == {1e-5}


@pytest.mark.parametrize("width", [0.03, 0.25, 0.5, 1.5])
def test_width_scales_all_layers_but_the_last(width: float) -> None:
    with torch.device("meta"):
        layers = [m for m in VGGVox(StudentConfig(width)).modules() if isinstance(m, nn.Conv2d)]
    for layer, full in zip(layers, (96, 256, 384, 256, 256, 4096, 1024, None), strict=True):
        if full is None:
            assert layer.out_channels == 8
        else:
            assert layer.out_channels % 8 == 0 and layer.out_channels >= 8
            assert abs(layer.out_channels - full * width) <= 8


def test_fc6_has_the_widths_of_the_paper() -> None:
    net = VGGVox(NARROW).eval()
    widths = []
    net.fc6.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[2:]))
    with torch.inference_mode():
        for frames in range(100, 1001, 100):
            assert net(torch.zeros(1, 512, frames)).shape == (1, 8)
    assert widths == [(1, n) for n in (2, 5, 8, 11, 14, 17, 20, 23, 27, 30)]


@pytest.mark.parametrize("num_frames", [100, 131])
def test_forward_equals_naive_forward(num_frames: int) -> None:
    net = VGGVox(NARROW, torch.Generator().manual_seed(0)).eval()
    randomise_norms(net)
    spectrograms = torch.randn(2, 512, num_frames, generator=torch.Generator().manual_seed(1))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        net.to(memory_format=memory_format)  # type: ignore[call-overload]
        with torch.inference_mode():
            logits, embeddings = net(spectrograms).numpy(), net.embed(spectrograms).numpy()
        assert logits.shape == (2, 8) and embeddings.shape == (2, net.embedding_size)
        for i in range(2):
            expected, embedding = naive_logits(net, spectrograms[i].numpy())
            np.testing.assert_allclose(logits[i], expected, rtol=0, atol=1e-4)
            np.testing.assert_allclose(embeddings[i], embedding, rtol=0, atol=1e-4)
    assert np.abs(logits[0] - logits[1]).max() > 0.01  # otherwise the comparison is void


def test_first_weights_are_he_normal_and_repeatable() -> None:
    config = StudentConfig(width=0.25)
    nets = [VGGVox(config, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    torch.manual_seed(5)
    nets += [VGGVox(config)]
    torch.manual_seed(5)
    nets += [VGGVox(config)]
    for layer in nets[0].modules():
        if isinstance(layer, nn.Conv2d):
            deviation = (2 / layer.weight[0].numel()) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.15)
            assert layer.bias is not None and not layer.bias.any()
    weights = [net.conv3.weight for net in nets]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[3], weights[4])  # type: ignore[arg-type]
    assert not torch.equal(weights[0], weights[2])  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 512, 99), (1, 257, 400), (512, 400), (1, 1, 512, 400)])
def test_invalid_spectrograms(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected spectrograms \[B, 512, T >= 100\], got"):
        VGGVox(NARROW)(torch.zeros(shape))
