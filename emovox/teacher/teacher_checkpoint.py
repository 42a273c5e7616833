"""Teacher checkpoints; `emovox.checkpoints` says what is in one."""

from pathlib import Path
from typing import cast

from emovox import checkpoints
from emovox.checkpoints import Architectures, fit, save
from emovox.teacher.compact import CompactConfig, CompactNet
from emovox.teacher.network import FaceNetwork
from emovox.teacher.senet import Senet, SenetConfig

__all__ = ["ARCHITECTURES", "fit", "load", "save"]

ARCHITECTURES: Architectures = {
    CompactNet.architecture: (CompactConfig, CompactNet),
    Senet.architecture: (SenetConfig, Senet),
}


def load(path: Path) -> FaceNetwork:
    """Read a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing, or is something else.
    """
    return cast(FaceNetwork, checkpoints.load(path, ARCHITECTURES, "teacher"))
