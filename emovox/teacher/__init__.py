"""Teachers: networks that map face crops to emotion logits, and to values such as valence.

Importing this module loads neither numpy nor torch.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emovox.config import read_config
from emovox.errors import ConfigError
from emovox.packages import explained
from emovox.registry import BEST_FILE, Registry, Weights, read_temperature
from emovox.teacher import sidecar

if TYPE_CHECKING:
    import numpy as np

    from emovox.checkpoints import FaceNetwork

DEFAULT_TEACHER = "compact"
EMBEDDED = {"compact": Path(__file__).parent / "weights" / "compact.safetensors"}
RELEASED = {
    "senet50-ferplus": ("senet50_ferplus_dag.pth", "senet50-ferplus.mat"),
    "resnet50-ferplus": ("resnet50_ferplus_dag.pth", "resnet50-ferplus.mat"),
}
TEACHERS = Registry("teacher", RELEASED, EMBEDDED)
# Accuracy on FERPlus PrivateTest without mirror averaging, as data cards state it.
ACCURACY = {
    "compact": "87.4 % on FERPlus PrivateTest, see the card of the teacher",
    "senet50-ferplus": "88.8 % on FERPlus PrivateTest, as published",
    "resnet50-ferplus": "87.6 % on FERPlus PrivateTest, as published",
}


class Teacher(Protocol):
    """A facial-emotion network, including its preprocessing.

    Attributes:
        name: short name for the manifest.
        emotions: names of the logits, in order; `emovox.EMOTIONS` for those of this package.
        values: names of further outputs, such as valence; often none.
        input_size: side S of its crops, in pixels.
        sha256: SHA-256 of its weights file.
        embedding_size: numbers D of an embedding; 0 if the network gives none.
        temperature: divisor of the logits for calibrated probabilities, 1 if unknown.
    """

    name: str
    emotions: tuple[str, ...]
    values: tuple[str, ...]
    input_size: int
    sha256: str
    embedding_size: int
    temperature: float

    def __call__(self, crops: "np.ndarray") -> "np.ndarray":
        """Return logits, then values, float32 `[N, E + V]`, of RGB crops uint8 `[N, S, S, 3]`."""

    def embed(self, crops: "np.ndarray") -> "np.ndarray":
        """Return the last hidden layer, float32 `[N, D]`, of RGB crops uint8 `[N, S, S, 3]`."""


def find_teacher(name_or_path: str | os.PathLike[str]) -> Weights:
    """Find the weights of a teacher without loading them; see `load_teacher`."""
    name = os.fspath(name_or_path)
    if name.endswith(".onnx"):
        return sidecar.find_onnx(Path(name))
    is_training = Path(name, BEST_FILE).is_file()
    if name.startswith(sidecar.HUB) or (Path(name, sidecar.CONFIG).is_file() and not is_training):
        return sidecar.find_classifier(name.removeprefix(sidecar.HUB))
    return TEACHERS.find(name_or_path)


def published_accuracy(name: str) -> str | None:
    """Return the accuracy of a network that emovox knows by its name, as its card states it."""
    described = sidecar.SIDECARS / f"{name}.toml"
    if described.is_file():
        return read_config(sidecar.Sidecar, described).accuracy
    return ACCURACY.get(name)


def resolve_modes(weights: Weights, precision: str, compile: str) -> tuple[str, str]:
    """Return precision and compile mode; networks of other formats run in fp32, not compiled.

    Raises:
        ConfigError: the user asked for something else.
    """
    if not isinstance(weights, sidecar.ForeignWeights):
        return precision, compile
    if precision not in ("auto", "fp32") or compile == "on":
        raise ConfigError(
            f"{weights.path}: runs in fp32 and without torch.compile; leave out --precision and "
            "--compile"
        )
    return "fp32", "off"


def load_teacher(
    name_or_path: str | os.PathLike[str],
    device: str = "auto",
    precision: str = "auto",
    *,
    compiled: bool = False,
    mirror: bool = False,
) -> Teacher:
    """Load a teacher, ready to run.

    Args:
        name_or_path: a registered name; a checkpoint written by `emovox train-teacher`; the weights
            of a published network as released (`.pth` or `.mat`); an `.onnx` file with a sidecar;
            or `hf:` and a folder or id of an image classifier of Hugging Face.
        device: `auto` (CUDA if available), `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16`, or `auto`: bf16 on CUDA and on processors with bf16
            instructions, otherwise fp32.
        compiled: run through `torch.compile`: slower to start, faster to run. Needs a compiler.
        mirror: average the outputs of each face and of its mirror image; takes twice as long.

    Raises:
        ConfigError: unknown name, device or precision.
        InputError: the weights are missing, or belong to another network.
        EmovoxError: `torch.compile` fails on this machine.
        MissingPackageError: the extra `build` is not installed.

    Example:
        >>> import numpy as np
        >>> teacher = load_teacher("compact")
        >>> crops = np.zeros((2, teacher.input_size, teacher.input_size, 3), np.uint8)
        >>> teacher(crops).shape
        (2, 8)
    """
    weights = find_teacher(name_or_path)
    precision, _ = resolve_modes(weights, precision, "on" if compiled else "off")
    with explained("load_teacher"):
        from emovox.teacher import teacher_checkpoint
        from emovox.teacher.inference import TorchTeacher, load_foreign
    if isinstance(weights, sidecar.ForeignWeights):
        net: FaceNetwork = load_foreign(weights, device)
    else:
        net = teacher_checkpoint.load_network(weights)
    options = {"compiled": compiled, "mirror": mirror}
    teacher = TorchTeacher(weights.name, weights.sha256, net, device, precision, **options)
    teacher.temperature = read_temperature(weights.path)
    return teacher
