"""Teacher checkpoints; see `emovox.checkpoints`."""

from pathlib import Path

from emovox import checkpoints
from emovox.checkpoints import Architectures, fit, read_training, save
from emovox.teacher.compact import CompactConfig, CompactNet
from emovox.teacher.face_network import FaceNetwork
from emovox.teacher.senet import Senet, SenetConfig

__all__ = ["ARCHITECTURES", "fit", "load", "read_training", "save"]

ARCHITECTURES: Architectures[FaceNetwork] = {
    CompactNet.architecture: (CompactConfig, CompactNet),
    Senet.architecture: (SenetConfig, Senet),
}


def load(path: Path) -> FaceNetwork:
    """Load a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing or is not a teacher checkpoint.
    """
    return checkpoints.load(path, ARCHITECTURES)
