"""Networks that MatConvNet saved: the layers of a DagNN or a SimpleNN and their weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emovox.errors import InputError
from emovox.matfile import read


@dataclass(frozen=True)
class Layer:
    """One layer with weights of a MatConvNet network.

    Attributes:
        name: with `_` where the file has `/`.
        type: such as `dagnn.Conv`, which stands for the `conv` of a SimpleNN too.
        weights: in MatConvNet's order and layout: filters `[height, width, in, out]` and biases of
            a convolution; scale, shift and moments `[channels, 2]` (mean, deviation) of a batch
            normalisation.
    """

    name: str
    type: str
    weights: tuple[np.ndarray, ...]


# Types of a SimpleNN's layers -> those of a DagNN.
SIMPLE_TYPES = {"conv": "dagnn.Conv", "bnorm": "dagnn.BatchNorm"}


def read_dagnn(path: Path) -> list[Layer]:
    """Read the layers with weights of a network saved by MatConvNet's `dagnn.DagNN.saveobj`.

    A SimpleNN, whose layers hold their weights themselves, is read as well.

    Raises:
        InputError: no MAT file, or no such network in it.
    """
    content = read(path)
    net = content.get("net", content)
    try:
        if "params" not in net:
            return _simple_layers(_records(net["layers"]))
        values = {p["name"]: np.asarray(p["value"]) for p in _records(net["params"])}
        layers = [(x["name"], x["type"], _names(x["params"])) for x in _records(net["layers"])]
        return [
            Layer(name.replace("/", "_"), kind, tuple(values[p] for p in parameters))
            for name, kind, parameters in layers
            if parameters
        ]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        found = ", ".join(content) or "nothing"
        raise InputError(
            f"{path}: expected a MatConvNet DagNN with layers and params; found the variables "
            f"{found} ({type(error).__name__}: {error})"
        ) from error


def _simple_layers(records: list[dict[str, Any]]) -> list[Layer]:
    layers = [
        Layer(
            record["name"],
            SIMPLE_TYPES.get(record["type"], record["type"]),
            tuple(map(np.asarray, record["weights"])),
        )
        for record in records
        if record.get("weights")
    ]
    if not layers:
        raise KeyError("params")  # nor weights in the layers, as a SimpleNN has them
    return layers


def _records(value: Any) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else [value]


def _names(value: Any) -> list[str]:
    """The parameter names of a layer: a cell of strings, one string, or an empty array."""
    if isinstance(value, str):
        return [value] if value else []
    return list(value) if isinstance(value, list) else []
