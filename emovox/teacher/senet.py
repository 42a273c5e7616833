"""The released FERPlus networks: SE-ResNet-50 and ResNet-50 in the Caffe form of VGGFace2.

Layer names are those of the released weights (Albanie's senet50-ferplus and resnet50-ferplus), so
that a state dict needs no renaming. Two details differ from torchvision: the stride of a stage is
in the first 1 x 1 convolution of its first block, and max-pooling rounds up without padding. The
dropout inside the last gate of the released SENet has no effect at inference and is omitted.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emovox.checkpoints import FaceNetwork, to_grey
from emovox.emotions import Outputs

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
    """Network from mean-subtracted RGB `[N, 3, 224, 224]` to logits `[N, E]`."""

    architecture = "emovox.senet"
    input_size = 224

    def __init__(
        self, config: SenetConfig | None = None, outputs: Outputs = FaceNetwork.outputs
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.config = config or SenetConfig()
        self.blocks: list[tuple[str, bool]] = []  # name prefix; True if the shortcut is projected
        self._convolution("conv1_7x7_s2", 3, 64, 7, stride=2)
        inputs = 64
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=2):
            for block in range(1, depth + 1):
                stride = 2 if block == 1 and stage > 2 else 1
                self._block(f"conv{stage}_{block}", inputs, width, stride, projected=block == 1)
                inputs = width * EXPANSION
        self.classifier = nn.Conv2d(inputs, len(outputs), 1)
        self.embedding_size = inputs

    def _convolution(self, name: str, inputs: int, outputs: int, size: int, stride: int) -> None:
        layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.add_module(name, layer)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def _block(self, name: str, inputs: int, width: int, stride: int, projected: bool) -> None:
        outputs = width * EXPANSION
        self._convolution(f"{name}_1x1_reduce", inputs, width, 1, stride)
        self._convolution(f"{name}_3x3", width, width, 3, 1)
        self._convolution(f"{name}_1x1_increase", width, outputs, 1, 1)
        if projected:
            self._convolution(f"{name}_1x1_proj", inputs, outputs, 1, stride)
        if self.config.squeeze_excite:
            self.add_module(f"{name}_1x1_down", nn.Conv2d(outputs, outputs // SE_REDUCTION, 1))
            self.add_module(f"{name}_1x1_up", nn.Conv2d(outputs // SE_REDUCTION, outputs, 1))
        self.blocks.append((name, projected))

    def _apply_convolution(self, name: str, x: Tensor) -> Tensor:
        layers = self._modules
        x = layers[name](x)  # type: ignore[misc]
        return layers[f"{name}_bn"](x)  # type: ignore[misc]

    def _apply_block(self, name: str, projected: bool, x: Tensor) -> Tensor:
        y = F.relu(self._apply_convolution(f"{name}_1x1_reduce", x), inplace=True)
        y = F.relu(self._apply_convolution(f"{name}_3x3", y), inplace=True)
        y = self._apply_convolution(f"{name}_1x1_increase", y)
        shortcut = self._apply_convolution(f"{name}_1x1_proj", x) if projected else x
        if self.config.squeeze_excite:
            gate = y.mean(dim=(2, 3), keepdim=True)
            gate = F.relu(self._modules[f"{name}_1x1_down"](gate))  # type: ignore[misc]
            y = y * torch.sigmoid(self._modules[f"{name}_1x1_up"](gate))  # type: ignore[misc]
        return F.relu(y + shortcut, inplace=True)

    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and logits; see `FaceNetwork`."""
        x = F.relu(self._apply_convolution("conv1_7x7_s2", x), inplace=True)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for name, projected in self.blocks:
            x = self._apply_block(name, projected, x)
        hidden = x.float().mean(dim=(2, 3), keepdim=True)
        return hidden.flatten(1), self.classifier(hidden).flatten(1)

    @staticmethod
    def from_grey(grey: Tensor) -> Tensor:
        """Subtract the mean of VGGFace2 from three grey channels; see `FaceNetwork`."""
        return grey - torch.tensor(MEAN_RGB, device=grey.device).view(1, 3, 1, 1)

    @classmethod
    def preprocess(cls, pixels: Tensor) -> Tensor:
        """Convert to grey in three channels minus the mean of VGGFace2; see `FaceNetwork`."""
        return cls.from_grey(to_grey(pixels))
