"""Options of a teacher's training and evaluation."""

from dataclasses import dataclass

from emovox.config import Options, option
from emovox.devices import PRECISIONS
from emovox.errors import ConfigError

PARTS = ("train", "public_test", "private_test")  # of FERPlus

MIN_WIDTH = 8  # of a stage; squeeze-and-excitation divides the channels by 8


@dataclass(frozen=True)
class TeacherTrainConfig(Options):
    """Recipe of a training on FERPlus. The defaults are pipelines/teacher-ferplus-first.toml.

    Attributes:
        stem: Channels of the network's first convolution.
        widths: Channels of each stage of the network.
        depths: Residual blocks of each stage.
        dropout: Dropout probability before the last layer.
        start_from: Initial weights: a checkpoint of the same shape, or a recipe (.toml) that is
            trained first; random weights if empty.
        distill_from: Teacher to learn from in addition to the votes: a registered name, a
            checkpoint, or a recipe (.toml) that is trained first. The logits of several teachers
            are averaged. Paths in a recipe are relative to its folder.
        distill_weight: Weight of the teachers' probabilities in the target; the rest is votes.
        epochs: Passes over the training faces.
        batch_size: Faces per step.
        learning_rate: Peak learning rate of SGD, after the warm-up; it then falls to 0 as a cosine.
        warmup_epochs: Epochs of linear warm-up.
        momentum: Nesterov momentum of SGD.
        weight_decay: Weight decay of kernels and matrices.
        average_decay: Decay per step of the moving average of the weights, which is evaluated and
            saved.
        mirror: Probability of mirroring a face.
        rotation: Largest rotation in degrees, in either direction.
        zoom: Largest change of scale, as a fraction, in either direction.
        shift: Largest shift as a fraction of the side, in either direction.
        gamma: Largest |log gamma| of the brightness curve.
        cutout: Probability of erasing one square of a face.
        cutout_side: Side of that square in pixels.
        seed: Random seed of weights, order and augmentation.
        device: Device: auto (CUDA if available), cpu, cuda or cuda:N.
        bf16: Train under bfloat16 autocast.
    """

    stem: int = option(16, least=1)
    widths: tuple[int, ...] = (32, 64, 128, 192)
    depths: tuple[int, ...] = (1, 2, 2, 1)
    dropout: float = option(0.3, least=0, most=0.99)
    start_from: str = ""
    distill_from: tuple[str, ...] = ()
    distill_weight: float = option(0.5, least=0, most=1)
    epochs: int = option(70, least=1)
    batch_size: int = option(128, least=1)
    learning_rate: float = option(0.1, least=1e-9, most=100)
    warmup_epochs: float = option(2.0, least=0, most=10**6)
    momentum: float = option(0.9, least=1e-9, most=0.9999)  # Nesterov momentum is above 0
    weight_decay: float = option(5e-4, least=0, most=1)
    average_decay: float = option(0.999, least=0, most=0.999999)
    mirror: float = option(0.5, least=0, most=1)
    rotation: float = option(15.0, least=0, most=180)
    zoom: float = option(0.15, least=0, most=0.9)
    shift: float = option(0.08, least=0, most=1)
    gamma: float = option(0.3, least=0, most=5)
    cutout: float = option(0.5, least=0, most=1)
    cutout_side: int = option(16, least=1)
    seed: int = option(0, least=0, most=2**63 - 1)
    device: str = "auto"
    bf16: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.widths + self.depths
        if len(self.widths) != len(self.depths) or min(shape, default=0) < 1:
            raise ConfigError(
                "widths and depths must be lists of the same length with numbers of at least 1; "
                f"found {list(self.widths)} and {list(self.depths)}"
            )
        if min(self.widths) < MIN_WIDTH:
            raise ConfigError(f"widths must be at least {MIN_WIDTH}; found {list(self.widths)}")


@dataclass(frozen=True)
class TeacherEvaluateConfig(Options):
    """Options of the evaluation of a teacher on FERPlus.

    Attributes:
        part: Part of FERPlus to score.
        device: Device of the teacher: auto (CUDA if available), cpu, cuda or cuda:N.
        precision: Arithmetic of the teacher; auto selects bf16 where the hardware supports it.
    """

    part: str = option("private_test", choices=PARTS)
    device: str = "auto"
    precision: str = option("fp32", choices=PRECISIONS)
