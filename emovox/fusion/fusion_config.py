"""Options of a fusion's training and evaluation."""

from dataclasses import dataclass

from emovox.config import Options, option
from emovox.student.student_config import MAX_SECONDS, MIN_SECONDS, TRAINED

FUSIONS = MODEL, FEATURE, LATE, AUDIO, VIDEO = ("model", "feature", "late", "audio", "video")
SPLITS = ("unheard_val", "heard_val")


@dataclass(frozen=True)
class FusionTrainConfig(Options):
    """Recipe of a fusion.

    Attributes:
        fusion: Place where sound and face meet: model (after a layer of each), feature (before
            any layer), late (the mean of two networks), or audio or video alone.
        sound: Network whose embeddings of the sound are used: a student (name or checkpoint), or a
            frozen encoder (hf: and a folder or an id of the Hub).
        seconds: Length in seconds of the window of sound around each step.
        step: Seconds from one prediction to the next.
        delay: Seconds by which the annotators lag behind.
        hidden: Units of every layer, and of the recurrent network in each direction.
        dropout: Probability of dropping a unit before the last layer.
        hide: Probability of hiding the face of a whole track, and likewise its sound, in a step.
        development: Fraction of the identities of train that choose delay and epoch instead.
        epochs: Number of epochs.
        batch_size: Tracks per step.
        learning_rate: Learning rate of RMSprop.
        seed: Random seed of weights, order and hidden inputs.
        device: Device: auto (CUDA if available), cpu, cuda or cuda:N.
    """

    fusion: str = option(MODEL, choices=FUSIONS)
    sound: str | None = None
    seconds: float | None = option(None, least=MIN_SECONDS, most=MAX_SECONDS, shown=TRAINED)
    step: float | None = option(None, least=0.01, most=10, shown="that of the dataset")
    delay: float | None = option(None, least=0, most=60, shown="best on the development part")
    hidden: int = option(64, least=1, most=4096)
    dropout: float = option(0.1, least=0, most=0.9)
    hide: float = option(0.15, least=0, most=0.5)
    development: float = option(0.2, least=0.01, most=0.9)
    epochs: int = option(60, least=1, most=100_000)
    batch_size: int = option(16, least=1, most=4096)
    learning_rate: float = option(1e-3, least=1e-9, most=1)
    seed: int = option(0, least=0, most=2**32 - 1)
    device: str = "auto"


@dataclass(frozen=True)
class FusionEvaluateConfig(Options):
    """Options of `emovox evaluate-fusion`.

    Attributes:
        sound: Student or encoder of the training.
        split: Split of the dataset to score.
        device: Device of both networks: auto (CUDA if available), cpu, cuda or cuda:N.
    """

    sound: str | None = None
    split: str = option(SPLITS[0], choices=SPLITS)
    device: str = "auto"
