"""Teachers: networks that turn face crops into eight emotion logits.

Nothing here imports torch until a teacher is loaded.
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

DEFAULT_TEACHER = "compact"

# Teachers by name -> the files that their weights may lie in, the first that is there wins.
# The published networks are looked for in the cache, under the names of their releases.
EMBEDDED = {"compact": (Path(__file__).parent / "weights" / "compact.safetensors",)}
RELEASED = {
    "senet50-ferplus": ("senet50_ferplus_dag.pth", "senet50-ferplus.mat"),
    "resnet50-ferplus": ("resnet50_ferplus_dag.pth", "resnet50-ferplus.mat"),
}
# What is known of their accuracy on FERPlus PrivateTest, without mirror averaging; for cards.
ACCURACY = {
    "compact": "86.5 % on FERPlus PrivateTest, see the card of the teacher",
    "senet50-ferplus": "88.8 % on FERPlus PrivateTest, as published",
    "resnet50-ferplus": "87.6 % on FERPlus PrivateTest, as published",
}
RELEASED_SUFFIXES = (".pth", ".mat")


def teacher_files(name: str) -> tuple[Path, ...]:
    """Where the weights of a registered teacher may lie; nothing for a name that is not one."""
    folder = cache_folder() / "teachers"
    return EMBEDDED.get(name, tuple(folder / file for file in RELEASED.get(name, ())))


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

    def __call__(self, crops: "np.ndarray") -> "np.ndarray":
        """Logits float32 `[N, 8]` of RGB face crops uint8 `[N, S, S, 3]`."""
        ...


@dataclass(frozen=True)
class TeacherSource:
    """A teacher that is known to be there, but is not loaded."""

    name: str
    path: Path
    sha256: str

    @property
    def is_released(self) -> bool:
        """Whether the file is one of a published network, as it was released."""
        return self.path.suffix in RELEASED_SUFFIXES

    @property
    def compile_pays_from(self) -> int:
        """Crops from which on torch.compile saves more time than it takes, on two cores."""
        return 5_000 if self.is_released else 200_000


def find_teacher(name_or_path: str | Path) -> TeacherSource:
    """Find a teacher by its registered name or as a file of weights, without loading it.

    Raises:
        ConfigError: neither a registered name nor a file; the message lists the names.
        InputError: registered, but its weights are not here; or the file cannot be read.
    """
    name = str(name_or_path)
    path = Path(name_or_path)
    if files := teacher_files(name):
        path = next((file for file in files if file.is_file()), files[0])
        if not path.is_file():
            names = " or ".join(file.name for file in files)
            raise InputError(
                f"teacher {name}: its weights are not here; fetch them with `emovox download "
                f"teacher --name {name}`, put {names} into {path.parent}, or give the file itself"
            )
    elif not path.is_file():
        known = ", ".join([*EMBEDDED, *RELEASED])
        raise ConfigError(f"teacher {name!r} is neither a file nor one of {known}")
    else:
        released = (n for n, known_files in RELEASED.items() if path.name in known_files)
        name = next(released, path.stem)
    try:
        return TeacherSource(name, path, sha256_file(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def load_teacher(
    name_or_path: str | Path,
    device: str = "auto",
    precision: str = "auto",
    *,
    compiled: bool = False,
) -> Teacher:
    """Load a teacher ready to run.

    Args:
        name_or_path: a registered name, a checkpoint written by `emovox train-teacher`, or the
            weights of a published network as released (`.pth` or `.mat`).
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16`, or `auto`: bf16 on CUDA and on processors with bf16
            instructions, else fp32.
        compiled: run it through `torch.compile`: slower to start, faster to run. Needs a compiler.

    Raises:
        ConfigError: unknown name, device or precision.
        InputError: the weights are not here, or are those of another network.
        EmovoxError: `torch.compile` does not work here.
        MissingPackageError: the extra `build` is not installed.

    Example:
        >>> import numpy as np
        >>> teacher = load_teacher("compact")
        >>> crops = np.zeros((2, teacher.input_size, teacher.input_size, 3), np.uint8)
        >>> teacher(crops).shape
        (2, 8)
    """
    source = find_teacher(name_or_path)
    with explained("load_teacher"):
        from emovox.teacher import released_teacher, teacher_checkpoint
        from emovox.teacher.inference import TorchTeacher
    net = (
        released_teacher.load(source)
        if source.is_released
        else teacher_checkpoint.load(source.path)
    )
    return TorchTeacher(source.name, source.sha256, net, device, precision, compiled=compiled)
