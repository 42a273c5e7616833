"""Student checkpoints; `emovox.checkpoints` says what is in one."""

from pathlib import Path
from typing import Any, cast

from emovox import checkpoints
from emovox.checkpoints import Architectures, fit, save
from emovox.student.vggvox import StudentConfig, VGGVox

__all__ = ["ARCHITECTURES", "fit", "load", "read_training", "save"]

ARCHITECTURES: Architectures = {VGGVox.architecture: (StudentConfig, VGGVox)}


def load(path: Path) -> VGGVox:
    """Read a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing, or is something else.
    """
    return cast(VGGVox, checkpoints.load(path, ARCHITECTURES, "student"))


def read_training(path: Path) -> dict[str, Any]:
    """How the weights of a checkpoint came about, as `save` was told.

    Raises:
        InputError: the file is missing, or is something else.
    """
    return checkpoints.read_training(path, "student")
