"""Student checkpoints; see `emovox.checkpoints`."""

from pathlib import Path

from emovox import checkpoints
from emovox.checkpoints import UNFIT, Architectures, fit, read_training, save
from emovox.errors import ConfigError, InputError
from emovox.student.encoder import EncoderHead, HeadConfig
from emovox.student.student_config import StudentTrainConfig
from emovox.student.vggvox import StudentConfig, VGGVox
from emovox.student.windows import Windows

__all__ = ["ARCHITECTURES", "fit", "load", "read_training", "save"]

SpeechNet = VGGVox | EncoderHead
ARCHITECTURES: Architectures[SpeechNet] = {
    VGGVox.architecture: (StudentConfig, VGGVox),
    EncoderHead.architecture: (HeadConfig, EncoderHead),
}


def load(path: Path) -> SpeechNet:
    """Load a checkpoint written by `save`; the network is in evaluation mode.

    Raises:
        InputError: the file is missing or is not a student checkpoint.
    """
    return checkpoints.load(path, ARCHITECTURES)


def read_hearing(path: Path, num_emotions: int) -> tuple[Windows, tuple[float, ...] | None]:
    """Read the windows of a training, and the share of each emotion in its targets, if stated.

    InputError if the file is not a checkpoint, or if its record of the training is not valid.
    """
    training = read_training(path)
    try:
        recipe = dict(training.get("recipe", {}))
        known = {name: recipe[name] for name in ("seconds", "pool") if name in recipe}
        config = StudentTrainConfig(**known)
        prior = tuple(map(float, training["prior"])) if "prior" in training else None
        if prior and (len(prior) != num_emotions or not all(0 < share <= 1 for share in prior)):
            raise ValueError(f"prior {prior}")
    except (ConfigError, *UNFIT) as error:
        raise InputError(f"{path}: the record of the training is not valid ({error})") from error
    return Windows(config.seconds, None, config.pool), prior
