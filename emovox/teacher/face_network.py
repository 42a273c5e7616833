"""The interface of face networks, and the greying of their crops."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from emovox.checkpoints import Network

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # of R, G, B; MATLAB's rgb2gray, as in the reference code


class FaceNetwork(Network, ABC):
    """A network that `emovox.teacher.inference` can run."""

    input_size: int  # side S of its crops, in pixels
    # From grey levels float32 `[N, 1, S, S]` to the input; of networks that can be trained.
    from_grey: Callable[[Tensor], Tensor]
    classifier: nn.Module  # the last layer; its input and output are float32 at any precision
    embedding_size: int  # D, numbers of the last hidden layer; 0 if it cannot be read

    @abstractmethod
    def preprocess(self, pixels: Tensor) -> Tensor:
        """Convert RGB crops uint8 `[N, S, S, 3]` to the network's input, float32 `[N, C, S, S]`."""

    @abstractmethod
    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the last hidden layer, `[N, D]`, and the outputs, `[N, E + V]`, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return self.embed_and_classify(x)[1]


def to_grey(pixels: Tensor) -> Tensor:
    """Convert RGB crops uint8 `[N, S, S, 3]` to whole grey levels, float32 `[N, 1, S, S]`."""
    weights = torch.tensor(GREY_WEIGHTS, device=pixels.device)
    return torch.round(pixels.float() @ weights).unsqueeze(1)
