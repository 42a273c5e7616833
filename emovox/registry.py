"""Registered networks: names of teachers and students, and the files of their weights.

Nothing here imports torch.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emovox.emotions import PUBLISHED, Outputs
from emovox.errors import ConfigError, InputError, list_names
from emovox.files import cache_folder, sha256_file

BEST_FILE = "best.safetensors"  # the result of a training, in its folder


@dataclass(frozen=True)
class Weights:
    """An existing weights file; nothing is loaded."""

    name: str  # registered name, folder of the training, or the file's name without its extension
    path: Path
    sha256: str
    is_released: bool = False  # True if it is in the form in which its authors published it

    def read_outputs(self) -> Outputs:
        """Return the names of the network's outputs; the published ones if the file states none."""
        with contextlib.suppress(LookupError, TypeError, ValueError):  # loading it reports them
            return outputs_of(read_header(self.path))
        return PUBLISHED


@dataclass(frozen=True)
class Registry:
    """Registered networks of one kind."""

    kind: str  # `teacher` or `student`
    # Published networks -> file names in the cache; the first existing one is used.
    released: Mapping[str, tuple[str, ...]]
    # Networks that are part of the package -> their files.
    embedded: Mapping[str, Path] = field(default_factory=dict)

    def find(self, name_or_path: str | os.PathLike[str]) -> Weights:
        """Find weights by registered name, file or folder of a training, without loading them.

        Raises:
            ConfigError: neither a registered name nor a file; the message lists the names.
            InputError: registered, but the weights are missing; or the file cannot be read.
        """
        name, path = os.fspath(name_or_path), Path(name_or_path)
        if name in self.embedded:
            path = self.embedded[name]
        elif name in self.released:
            path = self._released_file(name)
        elif (run := path.parent if path.name == BEST_FILE else path).joinpath(BEST_FILE).is_file():
            name, path = run.resolve().name or path.stem, run / BEST_FILE
        elif path.is_file():
            name = next((n for n, files in self.released.items() if path.name in files), path.stem)
        else:
            known = list_names(name, [*self.embedded, *self.released])
            other = f" nor one of {known}" if known else " nor the folder of a training"
            raise ConfigError(f"{self.kind} {name!r} is neither a file{other}")
        try:
            sha256 = sha256_file(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        suffixes = {Path(file).suffix for files in self.released.values() for file in files}
        return Weights(name, path, sha256, path.suffix in suffixes)

    def _released_file(self, name: str) -> Path:
        folder = cache_folder() / f"{self.kind}s"
        files = [folder / file for file in self.released[name]]
        if found := next(filter(Path.is_file, files), None):
            return found
        download = f"emovox download {self.kind}"
        if len(self.released) > 1:
            download += f" --name {name}"
        names = " or ".join(path.name for path in files)
        raise InputError(
            f"{self.kind} {name}: weights not found; run `{download}`, put {names} into "
            f"{folder}, or pass the path of the file"
        )


def read_header(path: Path) -> dict[str, str]:
    """Return the header of a checkpoint; empty for another file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def read_temperature(path: Path) -> float:
    """Return the divisor of logits for calibrated probabilities; 1 if a file states none."""
    with contextlib.suppress(LookupError, TypeError, ValueError):
        temperature = float(json.loads(read_header(path)["training"])["temperature"])
        if 0 < temperature < math.inf:
            return temperature
    return 1.0


def outputs_of(header: Mapping[str, str]) -> Outputs:
    """Return the names of the outputs in the header of a checkpoint."""
    return Outputs.of(json.loads(header["emotions"]), json.loads(header.get("values", "[]")))
