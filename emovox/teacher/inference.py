"""The one way a teacher runs: uint8 in, fixed batch shapes, float32 out."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emovox.emotions import EMOTIONS
from emovox.teacher import TeacherSource
from emovox.teacher.checkpoints import load
from emovox.teacher.compact import GREY_WEIGHTS, INPUT_SIZE, Block, CompactNet, standardise
from emovox.teacher.devices import resolve_device, resolve_precision

BATCH = 64  # crops; batches are padded to it, so that a row never depends on its neighbours


class CompactTeacher:
    """The embedded network, or a checkpoint of the same architecture. See `emovox.teacher`."""

    emotions = EMOTIONS
    input_size = INPUT_SIZE

    def __init__(self, source: TeacherSource, device: str, precision: str) -> None:
        self.name = source.name
        device = resolve_device(device)
        self.device = torch.device(device)
        self.precision = resolve_precision(precision, device)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        net, self.sha256 = load(source.path)
        fold_batch_norm(net)
        net.to(self.device, self._dtype).to(memory_format=torch.channels_last)
        self._net = net
        self._grey = torch.tensor(GREY_WEIGHTS, device=self.device)

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray) -> np.ndarray:
        size = self.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3):
            raise ValueError(
                f"expected crops uint8 [N, {size}, {size}, 3], got {crops.dtype} {crops.shape}"
            )
        logits = [self._batch(crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)]
        return torch.cat(logits).numpy() if logits else np.empty((0, len(EMOTIONS)), np.float32)

    def _batch(self, crops: np.ndarray) -> Tensor:
        padded = np.zeros((BATCH, *crops.shape[1:]), np.uint8)
        padded[: len(crops)] = crops
        pixels = torch.from_numpy(padded).to(self.device)
        grey = torch.round(pixels.float() @ self._grey).unsqueeze(1)
        faces = standardise(grey).to(self._dtype, memory_format=torch.channels_last)
        logits: Tensor = self._net(faces)
        return logits[: len(crops)].float().cpu()


def fold_batch_norm(net: CompactNet) -> None:
    """Merge every batch normalisation into the convolution before it; same function, faster."""
    net.stem = nn.Sequential(*_folded(list(net.stem)))
    for block in net.blocks:
        assert isinstance(block, Block)
        [block.conv1], block.bn1 = _folded([block.conv1, block.bn1]), nn.Identity()
        [block.conv2], block.bn2 = _folded([block.conv2, block.bn2]), nn.Identity()
        block.shortcut = nn.Sequential(*_folded(list(block.shortcut)))


def _folded(layers: list[nn.Module]) -> list[nn.Module]:
    folded: list[nn.Module] = []
    for layer in layers:
        previous = folded[-1] if folded else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            folded[-1] = fuse_conv_bn_eval(previous, layer)
        else:
            folded.append(layer)
    return folded
