"""The student: a speech network that learns the teacher's logits from audio alone.

Nothing here imports torch until a student is loaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emovox.cache import cache_folder
from emovox.errors import ConfigError, InputError
from emovox.files import sha256_file
from emovox.packages import explained

if TYPE_CHECKING:
    import numpy as np

# Students by name -> the file of their weights in the cache, as `emovox download student` puts it.
RELEASED = {"emovoxceleb": "emovoxceleb-student.mat"}
RELEASED_SUFFIX = ".mat"


def student_file(name: str) -> Path | None:
    """Where the weights of a registered student lie; None for a name that is not one."""
    file = RELEASED.get(name)
    return cache_folder() / "students" / file if file else None


class Student(Protocol):
    """A speech network with everything it does to samples inside.

    An utterance is 16 kHz mono samples `[L]`. Its spectrogram is normalised as a whole and cut to
    the middle 1, 2, ... 10 s, whichever is the most that it has; one of less than 1 s is padded
    with zeros at its end.

    Attributes:
        name: short name for results.
        emotions: the order of the logits; always `emovox.EMOTIONS`.
        sha256: of its weights file.
    """

    name: str
    emotions: tuple[str, ...]
    sha256: str

    def __call__(self, samples: "np.ndarray | list[np.ndarray]") -> "np.ndarray":
        """Logits float32 `[N, 8]` of N utterances; of one if it is an array."""
        ...

    def embed(self, samples: "np.ndarray | list[np.ndarray]") -> "np.ndarray":
        """Outputs of the last hidden layer, float32 `[N, 1024]` at width 1."""
        ...


@dataclass(frozen=True)
class StudentSource:
    """A student that is known to be there, but is not loaded."""

    name: str
    path: Path
    sha256: str

    @property
    def is_released(self) -> bool:
        """Whether the file is one of MatConvNet, as the published student is."""
        return self.path.suffix == RELEASED_SUFFIX


def find_student(name_or_path: str | Path) -> StudentSource:
    """Find a student by its registered name or as a file of weights, without loading it.

    Raises:
        ConfigError: neither a registered name nor a file; the message lists the names.
        InputError: registered, but its weights are not here; or the file cannot be read.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if file := student_file(name):
        path = file
        if not path.is_file():
            raise InputError(
                f"student {name}: its weights are not here; fetch them with `emovox download "
                f"student`, put {path.name} into {path.parent}, or give the file itself"
            )
    elif not path.is_file():
        known = ", ".join(RELEASED)
        raise ConfigError(f"student {name!r} is neither a file nor one of {known}")
    else:
        name = next((n for n, known in RELEASED.items() if path.name == known), path.stem)
    try:
        return StudentSource(name, path, sha256_file(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def load_student(
    name_or_path: str | Path, device: str = "auto", precision: str = "auto"
) -> Student:
    """Load a student ready to run.

    Args:
        name_or_path: a registered name, a checkpoint written by `emovox train-student`, or the
            published network as released (`.mat`).
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16`, or `auto`: bf16 on CUDA and on processors with bf16
            instructions, else fp32. Spectrograms are computed in fp32 always.

    Raises:
        ConfigError: unknown name, device or precision.
        InputError: the weights are not here, or are those of another network.
        MissingPackageError: the extra `build` is not installed.

    Example:
        >>> import numpy as np
        >>> student = load_student("emovox-demo/student/best.safetensors")
        >>> seconds = [np.zeros(16_000), np.zeros(40_000)]  # 1 s and 2.5 s of silence
        >>> student(seconds).shape, student.embed(seconds).shape  # of an eighth of the width
        ((2, 8), (2, 128))
    """
    source = find_student(name_or_path)
    with explained("load_student"):
        from emovox.student import released_student, student_checkpoint
        from emovox.student.inference import TorchStudent
    net = (
        released_student.load(source)
        if source.is_released
        else student_checkpoint.load(source.path)
    )
    return TorchStudent(source.name, source.sha256, net, device, precision)
