"""Checkpoints of networks: safetensors with a header that says which network they belong to."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from emovox.emotions import EMOTIONS
from emovox.errors import InputError
from emovox.files import kind_of_file, remove_leftovers, replace_file

MAX_WEIGHTS = 10**9


class Network(nn.Module):
    """A network that a checkpoint can describe.

    Attributes:
        architecture: its name in checkpoints.
        config: frozen dataclass of its shape; `type(self)(config)` builds it again.
    """

    architecture: ClassVar[str]
    config: Any


# Architecture in the header -> its config and its network.
Architectures = Mapping[str, tuple[type, type[Network]]]


def save(
    path: Path, net: Network, training: Mapping[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write weights as `dtype`, with the network's shape and the way they came about."""
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous()
        for name, tensor in net.state_dict().items()
        if tensor.is_floating_point()
    }
    header = {
        "architecture": net.architecture,
        "config": json.dumps(dataclasses.asdict(net.config)),
        "emotions": json.dumps(EMOTIONS),
        "training": json.dumps(dict(training)),
    }
    with replace_file(path) as temporary:
        temporary.write_bytes(serialise(tensors, header))


def convert_once(
    converted: Path, source: Path, load: Callable[[Path], Any], read: Callable[[Path], Any]
) -> Any:
    """The network of a released file; its conversion stays in the cache for the next time.

    Args:
        converted: where the conversion is, or will be.
        source: the released file.
        load: reads a conversion; InputError if it is damaged.
        read: reads a released file.
    """
    if converted.exists():
        try:
            return load(converted)
        except InputError:  # damaged: make it anew
            converted.unlink(missing_ok=True)
    net = read(source)
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        converted.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(converted)
        save(converted, net, {"converted_from": source.name}, torch.float32)
    return net


def load(path: Path, architectures: Architectures, kind: str) -> Network:
    """Read a checkpoint written by `save`; the network is in evaluation mode.

    Args:
        path: the checkpoint.
        architectures: those that are expected.
        kind: what they are, for a message: `teacher` or `student`.

    Raises:
        InputError: the file is missing, or is something else.
    """
    header, tensors = _read(path, kind, with_tensors=True)
    net = _network(path, header, architectures)
    fit(net, tensors, str(path))
    return net.eval()


def read_training(path: Path, kind: str) -> dict[str, Any]:
    """How the weights of a checkpoint came about, as `save` was told.

    Raises:
        InputError: the file is missing, or is something else.
    """
    header, _ = _read(path, kind, with_tensors=False)
    try:
        return dict(json.loads(header["training"]))
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the header does not say how it was trained ({error})") from error


def fit(net: Network, tensors: dict[str, Tensor], where: str) -> None:
    """Put weights into a network, all of them and no others.

    Raises:
        InputError: a weight is missing, is of another shape, or does not belong to the network.
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
        raise InputError(
            f"{where}: the weights do not fit {net.architecture}: {'; '.join(misfits[:3])}{more}"
        )
    net.load_state_dict(tensors, strict=False)


def _read(path: Path, kind: str, with_tensors: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"{path}: no such {kind} checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if with_tensors else []
            tensors = {name: file.get_tensor(name).float() for name in names}
            return file.metadata() or {}, tensors
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: not a safetensors file, but {kind_of_file(path)} ({error})"
        ) from error


def _network(path: Path, header: dict[str, str], architectures: Architectures) -> Network:
    found = header.get("architecture", "none")
    if found not in architectures:
        raise InputError(
            f"{path}: architecture is {found!r}, expected one of {', '.join(architectures)}"
        )
    make_config, make_network = architectures[found]
    try:
        emotions = json.loads(header["emotions"])
        shape = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in json.loads(header["config"]).items()
        }
        config = make_config(**shape)
        with torch.device("meta"):  # costs no memory, whatever size a header claims
            num_weights = sum(p.numel() for p in make_network(config).parameters())
        if num_weights > MAX_WEIGHTS:
            raise ValueError(f"{num_weights:,} weights")
        net = make_network(config)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        raise InputError(f"{path}: the header does not describe a network ({error})") from error
    if emotions != list(EMOTIONS):
        raise InputError(f"{path}: emotions are {emotions}, expected {list(EMOTIONS)}")
    return net
