"""Teachers of other formats: ONNX files with a sidecar, and folders of Hugging Face classifiers.

A sidecar `model.toml` beside `model.onnx` describes input and outputs; those of some public
networks are in `sidecars/`. The files of a Hugging Face classifier contain the same facts. Nothing
here imports torch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emovox.config import check_options, option, read_config
from emovox.emotions import EMOTIONS, Outputs, standard_name
from emovox.errors import ConfigError, InputError, NetworkError, first_line
from emovox.files import cache_folder, read_object, sha256_file
from emovox.packages import explained
from emovox.registry import Weights

SIDECARS = Path(__file__).parent / "sidecars"
HUB = "hf:"
MAX_SIDE = 1024  # pixels of a crop
CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class Description:
    """Input and outputs of a network in another format."""

    input_size: int = option(least=8, most=MAX_SIDE)
    outputs: tuple[str, ...] = option()
    kind: str = option(choices=("logits", "probabilities"))
    licence: str = option()
    source: str = option()
    values: tuple[str, ...] = ()
    accuracy: str | None = None

    def arrange(self) -> tuple[Outputs, list[int]]:
        """Return the names of the dataset's columns, and the position of each in the outputs.

        Emotions that are all among the published ones are put in their order.
        """
        emotions = [name for name in self.outputs if name and name not in self.values]
        if set(emotions) <= set(EMOTIONS):
            emotions.sort(key=EMOTIONS.index)
        names = [*emotions, *self.values]
        return Outputs.of(emotions, self.values), [self.outputs.index(name) for name in names]


@dataclass(frozen=True, kw_only=True)
class Sidecar(Description):
    """Content of the sidecar of an ONNX file.

    Attributes:
        input_size: side of a crop, in pixels.
        outputs: names of all outputs in order, over all output tensors; "" for one to leave out.
        kind: outputs other than values: logits, or probabilities, of which the logarithm is taken.
        licence: licence of the weights.
        source: origin of the weights and of the facts in this file.
        values: names of the outputs that are continuous values, such as valence.
        accuracy: accuracy as published, for the card.
        colour: order of the channels: rgb, bgr or grey.
        layout: order of the input's dimensions: NCHW or NHWC.
        scale: factor on the pixels 0 to 255; mean and deviation apply afterwards.
        mean: subtracted, one number or one per channel.
        deviation: divisor, one number or one per channel.
        sha256: SHA-256 of the weights that this file describes.
    """

    colour: str = option(choices=CHANNELS)
    layout: str = option(choices=("NCHW", "NHWC"))
    scale: float = option()
    mean: tuple[float, ...] = option()
    deviation: tuple[float, ...] = option()
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("mean", "deviation"):
            if len(getattr(self, name)) not in (1, CHANNELS[self.colour]):
                raise ConfigError(f"{name}: expected 1 number, or 1 per channel of {self.colour}")
        numbers = (self.scale, *self.mean, *self.deviation)
        if 0 in self.deviation or not all(map(math.isfinite, numbers)):
            raise ConfigError("scale, mean or deviation: not a finite number, or deviation 0")
        if missing := [name for name in self.values if name not in self.outputs]:
            raise ConfigError(f"values: {missing[0]!r} is not one of the outputs")
        self.arrange()


@dataclass(frozen=True, kw_only=True)
class Classifier(Description):
    """An image classifier of Hugging Face, whose processor prepares the pixels."""

    preprocessor: Mapping[str, Any]  # content of its file


@dataclass(frozen=True)
class ForeignWeights(Weights):
    """An existing file, or folder of Hugging Face, and its description."""

    sidecar: Sidecar | Classifier = field(kw_only=True)

    def read_outputs(self) -> Outputs:
        """Return the names of the network's outputs."""
        return self.sidecar.arrange()[0]


def find_onnx(path: Path) -> ForeignWeights:
    """Find an ONNX file and its sidecar.

    Raises:
        InputError: the file is missing, or differs from the one that the sidecar describes.
        ConfigError: the sidecar is missing or not valid.
    """
    if not path.is_file():
        downloaded = cache_folder() / "teachers" / path
        if not downloaded.is_file():
            raise InputError(
                f"{path}: no such file, and not downloaded; see `emovox download teacher --list`"
            )
        path = downloaded
    beside = path.with_suffix(".toml")
    described = beside if beside.is_file() else SIDECARS / beside.name
    if not described.is_file():
        raise ConfigError(
            f"{beside}: not found; write it to describe the network, see guide/teachers.md"
        )
    sidecar = read_config(Sidecar, described)
    digest = sha256_file(path)
    if sidecar.sha256 not in (None, digest):
        raise InputError(
            f"{path}: differs from the file that {described} describes; expected sha256 "
            f"{sidecar.sha256}, found {digest}"
        )
    return ForeignWeights(path.stem, path, digest, sidecar=sidecar)


def find_classifier(name: str) -> ForeignWeights:
    """Find an image classifier of Hugging Face: a folder, read offline, or an id of the Hub.

    InputError if a file is missing or not valid, NetworkError if the Hub does not answer or has no
    such repository.
    """
    folder, weights = find_folder(name, "teacher")
    sidecar = _describe(name, read_object(folder / CONFIG), read_object(folder / PREPROCESSOR))
    short = Path(name).name or folder.resolve().name
    return ForeignWeights(short, folder, sha256_file(weights), sidecar=sidecar)


def find_folder(name: str, kind: str) -> tuple[Path, Path]:
    """Find a folder of Hugging Face, or fetch it by its id; return it and its weights file."""
    folder = Path(name) if Path(name).is_dir() else _fetch(name, kind)
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise InputError(f"{folder}: expected {' or '.join(WEIGHTS)}; found neither")
    return folder, weights


def _fetch(name: str, kind: str) -> Path:
    with explained(f"--{kind} {HUB}{name}"):
        from huggingface_hub import errors, snapshot_download
    try:
        for weights in WEIGHTS:
            wanted = [CONFIG, PREPROCESSOR, "README.md", weights]
            folder = Path(snapshot_download(name, allow_patterns=wanted))
            if (folder / weights).is_file():
                break
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = f"neither a folder nor on the Hub, or offline ({first_line(error)})"
        raise NetworkError(f"{kind} {name!r}: {reason}") from error
    return folder


def _describe(name: str, config: dict[str, Any], preprocessor: dict[str, Any]) -> Classifier:
    """Return the facts in the files of an image classifier."""
    try:
        labels = {int(index): str(label) for index, label in config["id2label"].items()}
        names = [standard_name(labels[k]) for k in range(len(labels))]
        if all(re.fullmatch(r"label_\d+", label) for label in names):
            raise ConfigError("id2label: expected names of emotions, found LABEL_0 and so on")
        size = preprocessor["size"]  # 224, height and width of 224, or a shortest_edge of 224
        sides = {int(side) for side in (size.values() if isinstance(size, dict) else [size])}
        if len(sides) != 1 or not 8 <= min(sides) <= MAX_SIDE:
            raise ValueError(f"size is {size}, expected a square of 8 to {MAX_SIDE} pixels")
        found = Classifier(
            input_size=min(sides),
            outputs=tuple(names),
            kind="logits",
            licence="see the model card",
            source=Path(name).name if Path(name).is_dir() else f"https://huggingface.co/{name}",
            preprocessor=preprocessor,
        )
        found.arrange()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{name}: {CONFIG} and {PREPROCESSOR} do not describe an image classifier "
            f"({first_line(error)})"
        ) from error
    return found
