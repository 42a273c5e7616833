"""Networks that a checkpoint can describe, and their preparation for inference."""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emovox.devices import resolve_device, resolve_precision
from emovox.emotions import PUBLISHED, Outputs


class Network(nn.Module):
    """A network that a checkpoint can describe; `type(self)(config, outputs=outputs)` builds it."""

    architecture: ClassVar[str]  # its name in checkpoints
    config: Any  # frozen dataclass of its shape
    outputs: Outputs = PUBLISHED  # names of its outputs


def prepare(
    net: Network, last_layer: nn.Module, device: str, precision: str
) -> tuple[torch.device, str, torch.dtype]:
    """Prepare a network in evaluation mode for inference, in place.

    Folds batch normalisation, casts, and moves to the device. `last_layer` gives the logits and
    stays in float32: logits in bfloat16 (8 bits) would tie. Returns the device, `fp32` or `bf16`,
    and the type of the other layers; ConfigError for an unknown device or precision.
    """
    place = torch.device(resolve_device(device))
    precision = resolve_precision(precision, str(place))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if dtype == torch.float32 and place.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # TF32 has fewer bits than fp32
        torch.backends.cuda.matmul.allow_tf32 = False
    fold_batch_norm(net)
    net.to(place, dtype).to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    last_layer.float()
    return place, precision, dtype


def fold_batch_norm(net: nn.Module) -> None:
    """Merge each batch normalisation into the convolution registered just before it.

    In evaluation mode the network computes the same function, faster.
    """
    for parent in list(net.modules()):
        for (before, convolution), (name, child) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(child, nn.BatchNorm2d):
                setattr(parent, before, fuse_conv_bn_eval(convolution, child))
                setattr(parent, name, nn.Identity())
