"""Teacher checkpoints: safetensors with a header that says which network they belong to."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from emovox.dataset.files import replace_file
from emovox.emotions import EMOTIONS
from emovox.errors import InputError
from emovox.teacher.compact import CompactConfig, CompactNet

ARCHITECTURE = "emovox.compact"


def save(path: Path, net: CompactNet, config: CompactConfig, training: dict[str, Any]) -> None:
    """Write weights as float16, with the network's shape and the way they were trained."""
    tensors = {
        name: tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in net.state_dict().items()
        if tensor.is_floating_point()
    }
    header = {
        "architecture": ARCHITECTURE,
        "config": json.dumps(dataclasses.asdict(config)),
        "emotions": json.dumps(EMOTIONS),
        "training": json.dumps(training),
    }
    with replace_file(path) as temporary:
        temporary.write_bytes(serialise(tensors, header))


def load(path: Path) -> tuple[CompactNet, str]:
    """Read a checkpoint written by `save`.

    Returns:
        The network in evaluation mode, and the SHA-256 of the file.

    Raises:
        InputError: the file is missing, or is something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such teacher checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = list(file.keys())
            tensors = {name: file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file ({error})") from error
    found = header.get("architecture", "none")
    if found != ARCHITECTURE:
        raise InputError(f"{path}: architecture is {found!r}, expected {ARCHITECTURE!r}")
    try:
        emotions = json.loads(header["emotions"])
        shape: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in json.loads(header["config"]).items()
        }
        net = CompactNet(CompactConfig(**shape))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: the header does not describe a network ({error})") from error
    if emotions != list(EMOTIONS):
        raise InputError(f"{path}: emotions are {emotions}, expected {list(EMOTIONS)}")
    try:
        missing, unexpected = net.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: weights do not fit the network: {reason}") from error
    absent = [name for name in missing if not name.endswith("num_batches_tracked")]
    if absent or unexpected:
        raise InputError(f"{path}: weights missing {absent}, not expected {unexpected}")
    return net.eval(), hashlib.sha256(path.read_bytes()).hexdigest()
