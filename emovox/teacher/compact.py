"""The embedded default teacher: a small residual network on grey 48 x 48 faces.

Trained on FERPlus by `emovox train-teacher`; its card is data_cards/teacher-compact.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emovox.checkpoints import FaceNetwork, to_grey
from emovox.emotions import Outputs

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
        gate = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.up(F.relu(self.down(gate))))


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
    """Network from standardised grey faces `[N, 1, 48, 48]` to logits `[N, E]`."""

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

    @staticmethod
    def preprocess(pixels: Tensor) -> Tensor:
        """Convert to grey with zero mean and unit deviation per face; see `FaceNetwork`."""
        return standardise(to_grey(pixels))
