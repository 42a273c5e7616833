"""Weights of the released FERPlus networks, from PyTorch and from MatConvNet files.

Either form is converted once to a checkpoint in the cache, named by the hash of the file it came
from; that hash stays the teacher's own.
"""

import pickle
import re
import struct
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from emovox.cache import cache_folder
from emovox.checkpoints import convert_once
from emovox.dagnn import Layer, read_dagnn
from emovox.errors import InputError
from emovox.files import kind_of_file
from emovox.teacher import TeacherSource, teacher_checkpoint
from emovox.teacher.network import FaceNetwork
from emovox.teacher.senet import Senet, SenetConfig

GATES = {"senet50-ferplus": True, "resnet50-ferplus": False}  # squeeze-and-excitation
BN_EPSILON = 1e-5  # MatConvNet stores sqrt(variance + epsilon)

# What torch.load objects to; around it stands advice to load the file unsafely.
FINDING = re.compile(r"(?:WeightsUnpickler error:|Trying to load)\s+(.+)")
# What torch.load raises on files that are damaged or something else.
DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load(source: TeacherSource) -> FaceNetwork:
    """The network of a released file, converted in the cache first if it is not yet there.

    Raises:
        InputError: the file holds something else; says what was expected and what was found.
    """
    net = _converted(source)
    if (gates := GATES.get(source.name)) not in (None, net.config.squeeze_excite):
        found = "no such gates" if gates else "gates of squeeze-and-excitation"
        raise InputError(f"{source.path}: expected the weights of {source.name}; found {found}")
    return net


def _converted(source: TeacherSource) -> FaceNetwork:
    converted = cache_folder() / "teachers" / f"{source.sha256}.safetensors"
    return cast(FaceNetwork, convert_once(converted, source.path, teacher_checkpoint.load, read))


def read(path: Path) -> FaceNetwork:
    """Read a released `.pth` or `.mat` file into the network that it belongs to.

    Raises:
        InputError: see `load`.
    """
    tensors = from_dagnn(read_dagnn(path), path) if path.suffix == ".mat" else read_pth(path)
    with_gates = any(name.endswith("_1x1_down.weight") for name in tensors)
    net = Senet(SenetConfig(squeeze_excite=with_gates))
    if "conv1_7x7_s2.weight" not in tensors:
        found = ", ".join(list(tensors)[:3]) or "nothing"
        raise InputError(
            f"{path}: expected the weights of senet50-ferplus or resnet50-ferplus, with "
            f"conv1_7x7_s2.weight to classifier.bias; found {len(tensors)} others: {found} ..."
        )
    teacher_checkpoint.fit(net, tensors, str(path))
    return net.eval()


def read_pth(path: Path) -> dict[str, Tensor]:
    """A PyTorch state dict, read without running anything that the file may hold.

    Raises:
        InputError: it is something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        finding = FINDING.search(str(error))
        reason = (finding[1] if finding else str(error).strip() or "cut short").splitlines()[0]
        reason = reason.split(". ")[0]
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


def from_dagnn(layers: list[Layer], path: Path) -> dict[str, Tensor]:
    """A MatConvNet network as a state dict of the same layer names.

    Filters `[h, w, in, out]` become `[out, in, h, w]`, moments (mean, deviation) become mean and
    variance.

    Raises:
        InputError: a layer has other weights than its type has.
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
        for part, array in weights.items():
            state[f"{layer.name}.{part}"] = torch.from_numpy(np.ascontiguousarray(array))
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
