"""Weights of teachers: checkpoints, see `emovox.checkpoints`, and the released FERPlus networks."""

import re
import struct
from pathlib import Path

import torch
from torch import Tensor

from emovox import checkpoints
from emovox.checkpoints import Architectures, FaceNetwork, fit, load_weights, read_training, save
from emovox.dagnn import read_dagnn, to_state_dict
from emovox.errors import InputError, first_line
from emovox.files import kind_of_file
from emovox.registry import Weights
from emovox.runs import DAMAGED
from emovox.teacher.compact import CompactConfig, CompactNet
from emovox.teacher.senet import Senet, SenetConfig

__all__ = ["ARCHITECTURES", "fit", "load", "read_training", "save"]

ARCHITECTURES: Architectures[FaceNetwork] = {
    CompactNet.architecture: (CompactConfig, CompactNet),
    Senet.architecture: (SenetConfig, Senet),
}


def load(path: Path) -> FaceNetwork:
    """Load a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing or is not a teacher checkpoint.
    """
    return checkpoints.load(path, ARCHITECTURES)


GATES = {"senet50-ferplus": True, "resnet50-ferplus": False}  # squeeze-and-excitation

# The reason in a message of torch.load; the rest is advice to load the file unsafely.
FINDING = re.compile(r"(?:WeightsUnpickler error:|Trying to load)\s+(.+)")
# Errors of torch.load on damaged files and on files of another kind.
LOAD_ERRORS = (*DAMAGED, struct.error, AssertionError, AttributeError, MemoryError, OSError)


def load_network(weights: Weights) -> FaceNetwork:
    """Load the network of a checkpoint or of a released file.

    InputError if the file holds something else; it gives what was expected and found.
    """
    net = load_weights(weights, load, read_released)
    gates = GATES.get(weights.name) if weights.is_released else None
    if gates is not None and gates != net.config.squeeze_excite:
        found = "no such gates" if gates else "gates of squeeze-and-excitation"
        raise InputError(f"{weights.path}: expected the weights of {weights.name}; found {found}")
    return net


def read_released(path: Path) -> FaceNetwork:
    """Read a released `.pth` or `.mat` file, in evaluation mode; InputError as `load_network`."""
    tensors = read_tensors(path)
    with_gates = any(name.endswith("_1x1_down.weight") for name in tensors)
    net = Senet(SenetConfig(squeeze_excite=with_gates))
    if "conv1_7x7_s2.weight" not in tensors:
        found = ", ".join(list(tensors)[:3]) or "nothing"
        raise InputError(
            f"{path}: expected the weights of senet50-ferplus or resnet50-ferplus, with "
            f"conv1_7x7_s2.weight to classifier.bias; found {len(tensors)} others: {found} ..."
        )
    fit(net, tensors, str(path))
    return net.eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the weights of a `.pth` or `.mat` file; InputError for damaged and other files."""
    return to_state_dict(read_dagnn(path), path) if path.suffix == ".mat" else read_pth(path)


def read_pth(path: Path) -> dict[str, Tensor]:
    """Read a state dict, without running code in it; InputError for damaged and other files."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        finding = FINDING.search(str(error))
        reason = (finding[1] if finding else first_line(error)).split(". ")[0]
        raise InputError(
            f"{path}: expected a PyTorch state dict; found {kind_of_file(path)} ({reason})"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # one level down in many checkpoints
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(
            f"{path}: expected a PyTorch state dict of tensors; found {type(state).__name__}"
        )
    return {str(name): tensor.float() for name, tensor in state.items()}
