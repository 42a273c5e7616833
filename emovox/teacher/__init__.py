"""Teachers: networks that turn face crops into eight emotion logits.

Nothing here imports torch until a teacher is loaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from emovox.dataset.files import sha256_file
from emovox.errors import ConfigError, InputError

WEIGHTS = Path(__file__).parent / "weights"

# Teachers that come with the package: name -> file of weights.
TEACHERS = {"compact": WEIGHTS / "compact.safetensors"}
DEFAULT_TEACHER = "compact"

PRECISIONS = ("auto", "fp32", "bf16")


class Teacher(Protocol):
    """A facial-emotion network with everything it does to pixels inside.

    Attributes:
        name: short name for the manifest.
        emotions: the order of the logits; always `emovox.EMOTIONS`.
        input_size: side S of the crops it takes, in pixels.
        sha256: of its weights file.
    """

    name: str
    emotions: tuple[str, ...]
    input_size: int
    sha256: str

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Logits float32 `[N, 8]` of RGB face crops uint8 `[N, S, S, 3]`."""
        ...


@dataclass(frozen=True)
class TeacherSource:
    """A teacher that is known to be there, but is not loaded."""

    name: str
    path: Path
    sha256: str


def find_teacher(name_or_path: str | Path) -> TeacherSource:
    """Find a teacher by its registered name or as a checkpoint file, without loading it.

    Raises:
        ConfigError: neither a registered name nor a file; the message lists the names.
    """
    path = TEACHERS.get(str(name_or_path), Path(name_or_path))
    name = str(name_or_path) if str(name_or_path) in TEACHERS else path.stem
    if not path.is_file():
        raise ConfigError(
            f"teacher {str(name_or_path)!r} is neither a file nor one of {', '.join(TEACHERS)}"
        )
    try:
        return TeacherSource(name, path, sha256_file(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def load_teacher(
    name_or_path: str | Path, device: str = "auto", precision: str = "auto"
) -> Teacher:
    """Load a teacher ready to run.

    Args:
        name_or_path: a registered name, or a checkpoint written by `emovox train-teacher`.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16`, or `auto`: bf16 on CUDA and on processors with bf16
            instructions, else fp32.

    Raises:
        ConfigError: unknown name, device or precision.
        InputError: the file is not such a checkpoint.
    """
    from emovox.teacher.inference import CompactTeacher

    source = find_teacher(name_or_path)
    return CompactTeacher(source, device, precision)
