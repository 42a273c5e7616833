"""Weights of students: checkpoints, see `emovox.checkpoints`, and the released file."""

from pathlib import Path

import torch
from torch import Tensor

from emovox import checkpoints
from emovox.checkpoints import UNFIT, Architectures, fit, read_training, save
from emovox.dagnn import Layer, read_dagnn, to_state_dict
from emovox.errors import ConfigError, InputError
from emovox.student.clips import Windows
from emovox.student.encoder import EncoderHead, HeadConfig
from emovox.student.student_config import StudentTrainConfig
from emovox.student.vggvox import StudentConfig, VGGVox

__all__ = ["ARCHITECTURES", "fit", "load", "read_training", "save"]

SpeechNet = VGGVox | EncoderHead
ARCHITECTURES: Architectures[SpeechNet] = {
    VGGVox.architecture: (StudentConfig, VGGVox),
    EncoderHead.architecture: (HeadConfig, EncoderHead),
}


def load(path: Path) -> SpeechNet:
    """Load a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing or is not a student checkpoint.
    """
    return checkpoints.load(path, ARCHITECTURES)


def read_hearing(path: Path, num_emotions: int) -> tuple[Windows, tuple[float, ...] | None]:
    """Read the windows of a training, and the share of each emotion in its targets, if stated.

    InputError if the file is not a checkpoint, or if its record of the training is not valid.
    """
    training = read_training(path)
    try:
        recipe = dict(training.get("recipe", {}))
        known = {name: recipe[name] for name in ("seconds", "pool") if name in recipe}
        config = StudentTrainConfig(**known)
        prior = tuple(map(float, training["prior"])) if "prior" in training else None
        if prior and (len(prior) != num_emotions or not all(0 < share <= 1 for share in prior)):
            raise ValueError(f"prior {prior}")
    except (ConfigError, *UNFIT) as error:
        raise InputError(f"{path}: the record of the training is not valid ({error})") from error
    return Windows(config.seconds, None, config.pool), prior


# Layers of the released file with weights, in the order of the network.
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
BATCH_NORMS = ("bn1", "bn2", "bn3", "bn4", "bn5", "bn6", "bn7")
NAMES_BY_TYPE = {"dagnn.Conv": CONVOLUTIONS, "dagnn.BatchNorm": BATCH_NORMS}


def read_released(path: Path) -> VGGVox:
    """Read a released `.mat` file into the network, in evaluation mode.

    Filters in the file are `[frequency, time, in, out]`. InputError if it holds something else; the
    message gives what was expected and found.
    """
    tensors = to_state_dict(_named(read_dagnn(path), path), path)
    for name in CONVOLUTIONS:  # optional before a batch normalisation
        tensors.setdefault(f"{name}.bias", torch.zeros(len(tensors[f"{name}.weight"])))
    net = VGGVox(_config(tensors))
    fit(net, tensors, str(path))
    return net.eval()


def _named(layers: list[Layer], path: Path) -> list[Layer]:
    """Rename layers to the network's names, by their order; keep names that already match."""
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
    """Return the config with the widths of conv3 and conv4, which differ between releases."""
    return StudentConfig(conv3=len(tensors["conv3.weight"]), conv4=len(tensors["conv4.weight"]))
