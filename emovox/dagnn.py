"""Networks saved by MatConvNet: layers of a DagNN or a SimpleNN, and their weights as tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emovox.errors import InputError
from emovox.matfile import read

BN_EPSILON = 1e-5  # MatConvNet stores sqrt(variance + epsilon)


@dataclass(frozen=True)
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
    content = read(path)
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
        found = ", ".join(content) or "nothing"
        raise InputError(
            f"{path}: expected a MatConvNet DagNN with layers and params; found the variables "
            f"{found} ({type(error).__name__}: {error})"
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
