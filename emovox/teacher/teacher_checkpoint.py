"""Networks of teachers, and their weights: checkpoints and the released FERPlus networks."""

import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emovox import checkpoints
from emovox.checkpoints import Architectures, FaceNetwork, fit, load
from emovox.emotions import Outputs
from emovox.errors import InputError
from emovox.files import kind_of_file
from emovox.registry import Weights
from emovox.runs import DAMAGED

MIN_DEVIATION = 1.0  # grey levels; avoids division by 0 for a face of one colour


@dataclass(frozen=True)
class CompactConfig:
    """Shape of the network: a stem, then stages of residual blocks; each stage halves the side."""

    stem: int = 16  # channels of the first convolution
    widths: tuple[int, ...] = (32, 64, 128, 192)  # channels of each stage
    depths: tuple[int, ...] = (1, 2, 2, 1)  # residual blocks of each stage
    se_reduction: int = 8  # divisor of the channels in squeeze-and-excitation
    dropout: float = 0.3  # dropout probability before the last layer


def standardise(grey: Tensor) -> Tensor:
    """Scale each face, float `[N, 1, H, W]` in 0..255, to zero mean and unit deviation."""
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    deviation = grey.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (grey - mean) / deviation.clamp_min(MIN_DEVIATION)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // reduction, 1)
        self.up = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=(2, 3), keepdim=True)))))


class Block(nn.Module):
    """Two 3 x 3 convolutions with squeeze-and-excitation and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, se_reduction: int) -> None:
        super().__init__()
        self.conv1: nn.Module = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)
        self.conv2: nn.Module = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(outputs)
        self.se = SqueezeExcite(outputs, se_reduction)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
            layers = (nn.AvgPool2d(stride), convolution, nn.BatchNorm2d(outputs))
            self.shortcut = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.se(self.bn2(self.conv2(y)))
        return F.relu(y + self.shortcut(x), inplace=True)


class CompactNet(FaceNetwork):
    """The embedded default teacher: from standardised grey `[N, 1, 48, 48]` to logits `[N, E]`.

    Trained on FERPlus by `emovox train-teacher`; its card is data_cards/teacher-compact.md.
    """

    architecture = "emovox.compact"
    input_size = 48

    def __init__(
        self, config: CompactConfig | None = None, outputs: Outputs = FaceNetwork.outputs
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.config = config = config or CompactConfig()
        convolution = nn.Conv2d(1, config.stem, 3, 1, 1, bias=False)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(config.stem), nn.ReLU(inplace=True))
        blocks: list[nn.Module] = []
        inputs = config.stem
        for width, depth in zip(config.widths, config.depths, strict=True):
            for i in range(depth):
                blocks.append(Block(inputs, width, 2 if i == 0 else 1, config.se_reduction))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(inputs, len(outputs))
        self.embedding_size = inputs

    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and logits; see `FaceNetwork`."""
        hidden = self.blocks(self.stem(x)).float().mean(dim=(2, 3))
        return hidden, self.classifier(self.dropout(hidden))

    from_grey = staticmethod(standardise)


MEAN_RGB = (131.0912, 103.8827, 91.4953)  # grey levels; mean of VGGFace2
DEPTHS = (3, 4, 6, 3)  # blocks of stages 2 to 5
WIDTHS = (64, 128, 256, 512)  # of the 3 x 3 convolutions; blocks end four times as wide
EXPANSION = 4
SE_REDUCTION = 16


@dataclass(frozen=True)
class SenetConfig:
    """Choice between the two networks."""

    squeeze_excite: bool = True  # True for SE-ResNet-50, False for ResNet-50


class Senet(FaceNetwork):
    """SE-ResNet-50 or ResNet-50: from mean-subtracted RGB `[N, 3, 224, 224]` to logits `[N, E]`.

    Layer names are those of the released weights (Albanie's senet50-ferplus and resnet50-ferplus,
    in the Caffe form of VGGFace2), so that a state dict needs no renaming. Two details differ from
    torchvision: the stride of a stage is in the first 1 x 1 convolution of its first block, and
    max-pooling rounds up without padding. The dropout inside the last gate of the released SENet
    has no effect at inference and is omitted.
    """

    architecture = "emovox.senet"
    input_size = 224

    def __init__(
        self, config: SenetConfig | None = None, outputs: Outputs = FaceNetwork.outputs
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.config = config or SenetConfig()
        self.blocks: list[str] = []  # prefixes of the names of their layers
        self._add("conv1_7x7_s2", 3, 64, 7, stride=2)
        inputs = 64
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=2):
            wide = width * EXPANSION
            for block in range(1, depth + 1):
                name, stride = f"conv{stage}_{block}", 2 if block == 1 and stage > 2 else 1
                self._add(f"{name}_1x1_reduce", inputs, width, 1, stride)
                self._add(f"{name}_3x3", width, width, 3)
                self._add(f"{name}_1x1_increase", width, wide, 1)
                if block == 1:
                    self._add(f"{name}_1x1_proj", inputs, wide, 1, stride)
                if self.config.squeeze_excite:
                    hidden = wide // SE_REDUCTION
                    self.add_module(f"{name}_1x1_down", nn.Conv2d(wide, hidden, 1))
                    self.add_module(f"{name}_1x1_up", nn.Conv2d(hidden, wide, 1))
                self.blocks.append(name)
                inputs = wide
        self.classifier = nn.Conv2d(inputs, len(outputs), 1)
        self.embedding_size = inputs

    def _add(self, name: str, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        """Add a convolution without bias and its batch normalisation."""
        self.add_module(name, nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def _normalised(self, name: str, x: Tensor) -> Tensor:
        return getattr(self, f"{name}_bn")(getattr(self, name)(x))

    def _apply_block(self, name: str, x: Tensor) -> Tensor:
        y = F.relu(self._normalised(f"{name}_1x1_reduce", x), inplace=True)
        y = F.relu(self._normalised(f"{name}_3x3", y), inplace=True)
        y = self._normalised(f"{name}_1x1_increase", y)
        if name.endswith("_1"):
            x = self._normalised(f"{name}_1x1_proj", x)
        if self.config.squeeze_excite:
            gate = getattr(self, f"{name}_1x1_down")(y.mean(dim=(2, 3), keepdim=True))
            gate = getattr(self, f"{name}_1x1_up")(F.relu(gate))
            y = y * torch.sigmoid(gate)
        return F.relu(y + x, inplace=True)

    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and logits; see `FaceNetwork`."""
        x = F.relu(self._normalised("conv1_7x7_s2", x), inplace=True)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for name in self.blocks:
            x = self._apply_block(name, x)
        hidden = x.float().mean(dim=(2, 3), keepdim=True)
        return hidden.flatten(1), self.classifier(hidden).flatten(1)

    @staticmethod
    def from_grey(grey: Tensor) -> Tensor:
        """Subtract the mean of VGGFace2 from three grey channels; see `FaceNetwork`."""
        return grey - torch.tensor(MEAN_RGB, device=grey.device).view(1, 3, 1, 1)


@dataclass(frozen=True)
class InceptionConfig:
    """Shape of the network after its backbone."""

    width: int = 512  # channels into the dense block
    growth: int = 64  # channels that each of its layers adds
    depth: int = 5  # layers
    embedding: int = 128  # numbers of the embedding
    triplet: int = 32  # numbers of the head for triplets


class Inception(FaceNetwork):
    """The face network of Schoneveld et al. (2021), RGB `[N, 3, 160, 160]` to logits `[N, E]`.

    InceptionResnetV1 (facenet-pytorch) up to mixed_7a, a 1 x 1 convolution, a dense block, and
    another 1 x 1 convolution, averaged: the embedding, from which heads compute the logits and, for
    triplets of faces, `triplet`.
    """

    architecture = "emovox.inception"
    input_size = 160

    def __init__(
        self, config: InceptionConfig | None = None, outputs: Outputs = FaceNetwork.outputs
    ) -> None:
        from facenet_pytorch import InceptionResnetV1

        super().__init__()
        self.outputs = outputs
        self.config = config = config or InceptionConfig()
        layers = dict(InceptionResnetV1().named_children())
        names = [*layers][: [*layers].index("mixed_7a") + 1]
        self.backbone = nn.Sequential(OrderedDict((name, layers[name]) for name in names))
        self.reduce = _convolution(1792, config.width, 1)
        inputs = [config.width + place * config.growth for place in range(config.depth + 1)]
        self.dense = nn.ModuleList(_convolution(n, config.growth, 3) for n in inputs[:-1])
        self.embedding = nn.Conv2d(inputs[-1], config.embedding, 1)
        self.classifier = nn.Linear(config.embedding, len(outputs))
        self.triplet = nn.Linear(config.embedding, config.triplet)
        self.embedding_size = config.embedding

    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and logits; see `FaceNetwork`."""
        x = self.reduce(self.backbone(x))
        for layer in self.dense:
            x = torch.cat([x, layer(x)], dim=1)
        hidden = self.embedding(x).float().mean(dim=(2, 3))
        return hidden, self.classifier(hidden)

    @staticmethod
    def from_grey(grey: Tensor) -> Tensor:
        """Scale three grey channels as facenet-pytorch does; see `FaceNetwork`."""
        return (grey.expand(-1, 3, -1, -1) - 127.5) / 128


def _convolution(inputs: int, outputs: int, size: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


ARCHITECTURES: Architectures[FaceNetwork] = {
    CompactNet.architecture: (CompactConfig, CompactNet),
    Senet.architecture: (SenetConfig, Senet),
    Inception.architecture: (InceptionConfig, Inception),
}


GATES = {"senet50-ferplus": True, "resnet50-ferplus": False}  # squeeze-and-excitation

# Errors of torch.load on damaged files and on files of another kind.
LOAD_ERRORS = (*DAMAGED, struct.error, AssertionError, AttributeError, MemoryError, OSError)


def load_network(weights: Weights) -> FaceNetwork:
    """Load the network of a checkpoint or of a released file, in evaluation mode.

    InputError if the file holds something else; it gives what was expected and found.
    """
    path = weights.path
    if not weights.is_released:
        return load(path, ARCHITECTURES)
    tensors = read_tensors(path)
    with_gates = any(name.endswith("_1x1_down.weight") for name in tensors)
    net = Senet(SenetConfig(squeeze_excite=GATES.get(weights.name, with_gates)))
    fit(net, tensors, str(path))
    return net.eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the weights of a `.pth` or `.mat` file; InputError for damaged and other files."""
    if path.suffix != ".mat":
        return read_pth(path)
    return checkpoints.to_state_dict(checkpoints.read_dagnn(path), path)


def read_pth(path: Path) -> dict[str, Tensor]:
    """Read a state dict, without running code in it; InputError for damaged and other files."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        # Not the error's own text, which advises to load the file unsafely.
        raise InputError(
            f"{path}: expected a PyTorch state dict; found {kind_of_file(path)}, damaged or with "
            "more than tensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # one level down in many checkpoints
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(
            f"{path}: expected a PyTorch state dict of tensors; found {type(state).__name__}"
        )
    return {str(name): tensor.float() for name, tensor in state.items()}
