"""The student: VGG-M on spectrograms, with the layer names of VGGVox (Nagrani et al., 2017).

The layers before fc6 reduce the 512 bins to one row, for any duration; fc6 is averaged over time.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emovox.checkpoints import Network
from emovox.emotions import Outputs
from emovox.media.spectrogram import BUCKETS, NUM_BINS

CHANNEL_STEP = 8  # channels of a scaled network are a multiple of it
MIN_FRAMES = BUCKETS[0]
FULL_FRAMES, FRAME_STEP = 65, 32  # of the first output of fc6, and to the next; no others are used


@dataclass(frozen=True)
class StudentConfig:
    """Shape of the network."""

    width: float = 1.0  # factor on the channels of every layer except the last
    conv3: int = 384  # channels at width 1, as in the weights of VGGVox; 256 in the paper's Table 4
    conv4: int = 256  # channels at width 1

    def channels(self, full: int) -> int:
        """Return the channels of a layer that has `full` channels at width 1."""
        return max(1, round(full * self.width / CHANNEL_STEP)) * CHANNEL_STEP


class VGGVox(Network):
    """Network from normalised spectrograms float32 `[B, 512, T >= 100]` to logits `[B, E]`.

    Its first weights are He normal, from `generator` or torch's default one; the biases are 0.
    """

    architecture = "emovox.vggvox"

    def __init__(
        self,
        config: StudentConfig | None = None,
        generator: torch.Generator | None = None,
        outputs: Outputs = Network.outputs,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.config = config = config or StudentConfig()
        widths = (96, 256, config.conv3, config.conv4, 256, 4096, 1024)
        conv1, conv2, conv3, conv4, conv5, fc6, fc7 = map(config.channels, widths)
        self.conv1: nn.Module = nn.Conv2d(1, conv1, 7, stride=2, padding=1)
        self.bn1: nn.Module = nn.BatchNorm2d(conv1)
        self.conv2: nn.Module = nn.Conv2d(conv1, conv2, 5, stride=2, padding=1)
        self.bn2: nn.Module = nn.BatchNorm2d(conv2)
        self.conv3: nn.Module = nn.Conv2d(conv2, conv3, 3, padding=1)
        self.bn3: nn.Module = nn.BatchNorm2d(conv3)
        self.conv4: nn.Module = nn.Conv2d(conv3, conv4, 3, padding=1)
        self.bn4: nn.Module = nn.BatchNorm2d(conv4)
        self.conv5: nn.Module = nn.Conv2d(conv4, conv5, 3, padding=1)
        self.bn5: nn.Module = nn.BatchNorm2d(conv5)
        self.fc6: nn.Module = nn.Conv2d(conv5, fc6, (9, 1))
        self.bn6: nn.Module = nn.BatchNorm2d(fc6)
        self.fc7: nn.Module = nn.Conv2d(fc6, fc7, 1)
        self.bn7: nn.Module = nn.BatchNorm2d(fc7)
        self.fc8 = nn.Conv2d(fc7, len(outputs), 1)
        self.embedding_size = fc7
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, spectrograms: Tensor) -> Tensor:
        logits: Tensor = self.fc8(self._features(spectrograms).to(self.fc8.weight.dtype))
        return logits.flatten(1)

    def embed(self, spectrograms: Tensor) -> Tensor:
        """Return the non-negative outputs of fc7, `[B, 1024 x width]`."""
        return self._features(spectrograms).flatten(1)

    def _features(self, spectrograms: Tensor) -> Tensor:
        if spectrograms.shape[1:2] != (NUM_BINS,) or spectrograms.shape[2:] < (MIN_FRAMES,):
            raise ValueError(
                f"expected spectrograms [B, {NUM_BINS}, T >= {MIN_FRAMES}], "
                f"got {list(spectrograms.shape)}"
            )
        x = spectrograms.unsqueeze(1)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x)), inplace=True), 3, 2)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        x = F.relu(self.bn4(self.conv4(x)), inplace=True)
        x = F.relu(self.bn5(self.conv5(x)), inplace=True)
        x = F.max_pool2d(x, (5, 3), (3, 2))
        x = F.relu(self.bn6(self.fc6(x)), inplace=True)
        x = x.mean(dim=3, keepdim=True)
        return F.relu(self.bn7(self.fc7(x)), inplace=True)
