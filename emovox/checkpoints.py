"""Networks and their checkpoints: safetensors with a header that describes the network."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emovox.devices import resolve_device, resolve_precision
from emovox.emotions import PUBLISHED, Outputs
from emovox.errors import InputError
from emovox.files import kind_of_file, replace_file
from emovox.matfile import read as read_mat
from emovox.registry import outputs_of, read_header


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


MAX_WEIGHTS = 10**9
# Errors of a header that does not describe a network.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)

AnyNetwork = TypeVar("AnyNetwork", bound=Network)
# Architecture in the header -> config class and network class.
Architectures = Mapping[str, tuple[type, type[AnyNetwork]]]


def save(
    path: Path, net: Network, training: Mapping[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write weights as `dtype`, with the network's shape, its outputs, and its training."""
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, tensor in net.state_dict().items()
        if tensor.is_floating_point()
    }
    header = {
        "architecture": net.architecture,
        "config": json.dumps(dataclasses.asdict(net.config)),
        "emotions": json.dumps(net.outputs.emotions),
        "values": json.dumps(net.outputs.values),
        "training": json.dumps(dict(training)),
    }
    with replace_file(path) as temporary:
        temporary.write_bytes(serialise(tensors, header))


def load(path: Path, architectures: Architectures[AnyNetwork]) -> AnyNetwork:
    """Load a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing or is not a checkpoint of these architectures.
    """
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        found = kind_of_file(path)
        raise InputError(f"{path}: not a safetensors file, but {found} ({error})") from error
    header = read_header(path)
    found = header.get("architecture", "none")
    if found not in architectures:
        known = ", ".join(architectures)
        raise InputError(f"{path}: architecture is {found!r}, expected one of {known}")
    make_config, make_network = architectures[found]
    try:
        outputs = outputs_of(header)
        shape = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in json.loads(header["config"]).items()
        }
        config = make_config(**shape)
        with torch.device("meta"):  # no memory is allocated, whatever the header says
            net = make_network(config, outputs=outputs)
            num_weights = sum(p.numel() for p in net.parameters())
        if num_weights > MAX_WEIGHTS:
            raise ValueError(f"{num_weights:,} weights")
        net = make_network(config, outputs=outputs)
    except UNFIT as error:
        raise InputError(f"{path}: the header does not describe a network ({error})") from error
    fit(net, tensors, str(path))
    return net.eval()


def fit(net: Network, tensors: dict[str, Tensor], where: str) -> None:
    """Copy weights into a network; they must be exactly those of the network.

    Raises:
        InputError: a weight is missing, has another shape, or does not belong to the network.
    """
    expected = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    misfits = [f"no {name}" for name in expected if name not in tensors]
    misfits += [f"{name} does not belong" for name in tensors if name not in expected]
    misfits += [
        f"{name} is {list(tensor.shape)}, expected {list(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if misfits:
        more = f", and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        shown = "; ".join(misfits[:3])
        raise InputError(f"{where}: the weights do not fit {net.architecture}: {shown}{more}")
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise InputError(f"{where}: {bad[0]} has weights that are not finite")
    net.load_state_dict(tensors, strict=False)


GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # of R, G, B; MATLAB's rgb2gray, as in the reference code


class FaceNetwork(Network, ABC):
    """A network that `emovox.teacher.inference` can run."""

    input_size: int  # side S of its crops, in pixels
    # From grey levels float32 `[N, 1, S, S]` to the input; of networks that can be trained.
    from_grey: Callable[[Tensor], Tensor]
    classifier: nn.Module  # the last layer; its input and output are float32 at any precision
    embedding_size: int  # D, numbers of the last hidden layer; 0 if it cannot be read

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Convert RGB crops uint8 `[N, S, S, 3]` to the network's input, float32 `[N, C, S, S]`."""
        return self.from_grey(to_grey(pixels))

    @abstractmethod
    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the last hidden layer, `[N, D]`, and the outputs, `[N, E + V]`, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return self.embed_and_classify(x)[1]


def to_grey(pixels: Tensor) -> Tensor:
    """Convert RGB crops uint8 `[N, S, S, 3]` to whole grey levels, float32 `[N, 1, S, S]`."""
    weights = torch.tensor(GREY_WEIGHTS, device=pixels.device)
    return torch.round(pixels.float() @ weights).unsqueeze(1)


BN_EPSILON = 1e-5  # MatConvNet stores sqrt(variance + epsilon)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer with weights of a MatConvNet network."""

    name: str  # name of the layer; `/` becomes `_`
    type: str  # type in a DagNN, such as `dagnn.Conv`, also for layers of a SimpleNN
    # in MatConvNet's order: filters `[height, width, in, out]` and biases of a convolution; scale,
    # shift and moments `[channels, 2]` (mean, deviation) of a batch normalisation
    weights: tuple[np.ndarray, ...]


# Layer types of a SimpleNN -> layer types of a DagNN.
SIMPLE_TYPES = {"conv": "dagnn.Conv", "bnorm": "dagnn.BatchNorm"}


def read_dagnn(path: Path) -> list[Layer]:
    """Read the layers with weights of a network saved by MatConvNet's `dagnn.DagNN.saveobj`.

    Also reads a SimpleNN, whose layers contain their weights. InputError for other files.
    """
    content = read_mat(path)
    net = content.get("net", content)
    try:
        layers = _as_list(net["layers"])
        if "params" in net:
            values = {p["name"]: p["value"] for p in _as_list(net["params"])}
            weights = [[values[name] for name in _names(layer["params"])] for layer in layers]
        else:
            weights = [layer.get("weights") or [] for layer in layers]
        if not any(weights):
            raise KeyError("params")  # neither a DagNN nor a SimpleNN
        return [
            Layer(
                layer["name"].replace("/", "_"),
                SIMPLE_TYPES.get(layer["type"], layer["type"]),
                tuple(map(np.asarray, arrays)),
            )
            for layer, arrays in zip(layers, weights, strict=True)
            if arrays
        ]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}: expected a MatConvNet DagNN with layers and params; found the variables "
            f"{', '.join(content) or 'nothing'} ({type(error).__name__}: {error})"
        ) from error


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _names(value: Any) -> list[str]:
    """Return the parameter names of a layer: a cell of strings, one string, or an empty array."""
    return _as_list(value) if isinstance(value, str | list) and value else []


def to_state_dict(layers: list[Layer], path: Path) -> dict[str, Tensor]:
    """Convert the layers of a file to a PyTorch state dict with the same layer names.

    Filters `[h, w, in, out]` become `[out, in, h, w]`; moments (mean, deviation) become mean and
    variance. InputError if the weights of a layer do not match its type.
    """
    state: dict[str, Tensor] = {}
    for layer in layers:
        convert = {"dagnn.Conv": _convolution, "dagnn.BatchNorm": _batch_norm}.get(layer.type)
        if convert is None:
            raise InputError(
                f"{path}: expected weights in dagnn.Conv and dagnn.BatchNorm only; found them in "
                f"layer {layer.name}, a {layer.type}"
            )
        try:
            weights = convert([np.asarray(w, np.float32) for w in layer.weights])
        except (ValueError, IndexError) as error:
            shapes = ", ".join(str(list(w.shape)) for w in layer.weights)
            raise InputError(
                f"{path}: layer {layer.name}: expected the weights of a {layer.type}; "
                f"found {shapes}"
            ) from error
        for key, array in weights.items():
            state[f"{layer.name}.{key}"] = torch.from_numpy(np.ascontiguousarray(array))
    return state


def _convolution(weights: list[np.ndarray]) -> dict[str, np.ndarray]:
    filters, *biases = weights
    if len(biases) > 1:
        raise ValueError("more than filters and biases")
    filters = filters.reshape(filters.shape + (1,) * (4 - filters.ndim))
    converted: dict[str, np.ndarray] = {"weight": filters.transpose(3, 2, 0, 1)}
    if biases:
        converted["bias"] = biases[0].ravel()
    return converted


def _batch_norm(weights: list[np.ndarray]) -> dict[str, np.ndarray]:
    scale, shift, moments = weights
    mean, deviation = moments.reshape(-1, 2, order="F").T
    return {
        "weight": scale.ravel(),
        "bias": shift.ravel(),
        "running_mean": mean,
        "running_var": deviation**2 - BN_EPSILON,
    }
