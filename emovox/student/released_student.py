"""Weights of the released student, from a MatConvNet file.

They are converted once to a checkpoint in the cache, named by the hash of the file they came from;
that hash stays the student's own.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from emovox.cache import cache_folder
from emovox.checkpoints import convert_once
from emovox.dagnn import Layer, read_dagnn
from emovox.errors import InputError
from emovox.student import StudentSource, student_checkpoint
from emovox.student.vggvox import StudentConfig, VGGVox
from emovox.teacher.released_teacher import from_dagnn

# The layers with weights, in the order of the network.
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
BATCH_NORMS = ("bn1", "bn2", "bn3", "bn4", "bn5", "bn6", "bn7")
NAMES_BY_TYPE = {"dagnn.Conv": CONVOLUTIONS, "dagnn.BatchNorm": BATCH_NORMS}


def load(source: StudentSource) -> VGGVox:
    """The network of a released file, converted in the cache first if it is not yet there.

    Raises:
        InputError: the file holds something else; says what was expected and what was found.
    """
    converted = cache_folder() / "students" / f"{source.sha256}.safetensors"
    return cast(VGGVox, convert_once(converted, source.path, student_checkpoint.load, read))


def read(path: Path) -> VGGVox:
    """Read a released `.mat` file into the network; it is in evaluation mode.

    Filters are `[frequency, time, in, out]` there, as here once the channels are in front.

    Raises:
        InputError: see `load`.
    """
    tensors = from_dagnn(_named(read_dagnn(path), path), path)
    for name in CONVOLUTIONS:  # a convolution before a batch normalisation may go without
        tensors.setdefault(f"{name}.bias", torch.zeros(len(tensors[f"{name}.weight"])))
    net = VGGVox(_config(tensors))
    student_checkpoint.fit(net, tensors, str(path))
    return net.eval()


def _named(layers: list[Layer], path: Path) -> list[Layer]:
    """The layers under the network's names: as they are if those are theirs, else by their order.

    Raises:
        InputError: other numbers of convolutions or batch normalisations than the network has.
    """
    expected = {*CONVOLUTIONS, *BATCH_NORMS}
    if {layer.name for layer in layers} == expected and len(layers) == len(expected):
        return layers
    found = {kind: [x for x in layers if x.type == kind] for kind in NAMES_BY_TYPE}
    others = [layer for layer in layers if layer.type not in NAMES_BY_TYPE]
    if others or any(len(found[kind]) != len(names) for kind, names in NAMES_BY_TYPE.items()):
        listed = ", ".join(f"{layer.name} ({layer.type})" for layer in layers[:4]) or "none"
        raise InputError(
            f"{path}: expected VGGVox with 8 convolutions and 7 batch normalisations, "
            f"{CONVOLUTIONS[0]}, {BATCH_NORMS[0]} to {CONVOLUTIONS[-1]}; found {len(layers)} "
            f"layers with weights: {listed}{' ...' if len(layers) > 4 else ''}"
        )
    return [
        Layer(name, kind, layer.weights)
        for kind, names in NAMES_BY_TYPE.items()
        for name, layer in zip(names, found[kind], strict=True)
    ]


def _config(tensors: dict[str, Tensor]) -> StudentConfig:
    """The widths of conv3 and conv4, of which two are in use; what else differs does not fit."""
    return StudentConfig(conv3=len(tensors["conv3.weight"]), conv4=len(tensors["conv4.weight"]))
