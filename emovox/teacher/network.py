"""What a face network must offer, and the first and last thing done to every one of them."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emovox.checkpoints import Network

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # of R, G, B; MATLAB's rgb2gray, as in the reference code


class FaceNetwork(Network, ABC):
    """A network that `emovox.teacher.inference` can run.

    Attributes:
        input_size: side S of the crops it takes, in pixels.
        classifier: the last layer; takes and gives float32, whatever the others compute in.
    """

    input_size: ClassVar[int]
    classifier: nn.Module

    @staticmethod
    @abstractmethod
    def preprocess(pixels: Tensor) -> Tensor:
        """RGB crops uint8 `[N, S, S, 3]` to the network's input, float32 `[N, C, S, S]`."""


def to_grey(pixels: Tensor) -> Tensor:
    """RGB crops uint8 `[N, S, S, 3]` to whole grey levels, float32 `[N, 1, S, S]`."""
    weights = torch.tensor(GREY_WEIGHTS, device=pixels.device)
    return torch.round(pixels.float() @ weights).unsqueeze(1)


def fold_batch_norm(net: nn.Module) -> None:
    """Merge each batch normalisation into the convolution registered just before it.

    The same function in evaluation mode, and faster.
    """
    for parent in list(net.modules()):
        previous: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and previous is not None:
                before, convolution = previous
                if isinstance(convolution, nn.Conv2d):
                    setattr(parent, before, fuse_conv_bn_eval(convolution, child))
                    setattr(parent, name, nn.Identity())
            previous = name, child
