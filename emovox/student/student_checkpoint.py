"""Student checkpoints; see `emovox.checkpoints`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emovox import checkpoints
from emovox.checkpoints import UNFIT, Architectures, fit, read_training, save
from emovox.errors import ConfigError, InputError
from emovox.student.student_config import StudentTrainConfig
from emovox.student.vggvox import StudentConfig, VGGVox
from emovox.student.windows import Windows

__all__ = ["ARCHITECTURES", "Training", "fit", "load", "read_training", "save"]


@dataclass(frozen=True)
class Training:
    """Facts of a student's training that its use depends on; by default, those of the paper."""

    windows: Windows = Windows(StudentTrainConfig.seconds, StudentTrainConfig.seconds / 2, "max")
    # Share of each emotion in the targets of the training, in order; None if unknown
    prior: tuple[float, ...] | None = None


ARCHITECTURES: Architectures[VGGVox] = {VGGVox.architecture: (StudentConfig, VGGVox)}


def load(path: Path) -> VGGVox:
    """Load a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing or is not a student checkpoint.
    """
    return checkpoints.load(path, ARCHITECTURES)


def read_facts(path: Path, num_emotions: int) -> Training:
    """Read how a student was trained from its checkpoint.

    InputError if the file is not a checkpoint, or if what it states is not valid.
    """
    record = read_training(path)
    try:
        recipe: Mapping[str, Any] = record.get("recipe", {})
        known = {name: recipe[name] for name in ("seconds", "pool") if name in recipe}
        config = StudentTrainConfig(**known)
        prior = record.get("prior")
        if prior is not None:
            prior = tuple(map(float, prior))
            if len(prior) != num_emotions or not all(0 < p <= 1 for p in prior):
                raise ValueError(f"prior {prior}")
    except (ConfigError, *UNFIT) as error:
        raise InputError(f"{path}: the record of the training is not valid ({error})") from error
    return Training(Windows(config.seconds, config.seconds / 2, config.pool), prior)
