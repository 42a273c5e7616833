"""Student checkpoints; see `emovox.checkpoints`."""

from pathlib import Path

from emovox import checkpoints
from emovox.checkpoints import Architectures, fit, read_training, save
from emovox.student.vggvox import StudentConfig, VGGVox

__all__ = ["ARCHITECTURES", "fit", "load", "read_training", "save"]

ARCHITECTURES: Architectures[VGGVox] = {VGGVox.architecture: (StudentConfig, VGGVox)}


def load(path: Path) -> VGGVox:
    """Load a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing or is not a student checkpoint.
    """
    return checkpoints.load(path, ARCHITECTURES)
