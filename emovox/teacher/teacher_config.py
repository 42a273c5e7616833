"""Options of a teacher's training and evaluation."""

from dataclasses import dataclass

from emovox.errors import ConfigError

MIN_WIDTH = 8  # of a stage; squeeze-and-excitation divides the channels by 8
BOUNDS = {
    "distill_weight": (0, 1),
    "dropout": (0, 0.99),
    "learning_rate": (1e-9, 100),
    "warmup_epochs": (0, 10**6),
    "momentum": (1e-9, 0.9999),  # Nesterov momentum must be above 0
    "weight_decay": (0, 1),
    "average_decay": (0, 0.999999),
    "mirror": (0, 1),
    "rotation": (0, 180),
    "zoom": (0, 0.9),
    "shift": (0, 1),
    "gamma": (0, 5),
    "cutout": (0, 1),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class TeacherTrainConfig:
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

    stem: int = 16
    widths: tuple[int, ...] = (32, 64, 128, 192)
    depths: tuple[int, ...] = (1, 2, 2, 1)
    dropout: float = 0.3
    start_from: str = ""
    distill_from: tuple[str, ...] = ()
    distill_weight: float = 0.5
    epochs: int = 70
    batch_size: int = 128
    learning_rate: float = 0.1
    warmup_epochs: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    average_decay: float = 0.999
    mirror: float = 0.5
    rotation: float = 15.0
    zoom: float = 0.15
    shift: float = 0.08
    gamma: float = 0.3
    cutout: float = 0.5
    cutout_side: int = 16
    seed: int = 0
    device: str = "auto"
    bf16: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "stem", "cutout_side"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}")
        shape = self.widths + self.depths
        if len(self.widths) != len(self.depths) or min(shape, default=0) < 1:
            raise ConfigError(
                "widths and depths must be lists of the same length with numbers of at least 1; "
                f"found {list(self.widths)} and {list(self.depths)}"
            )
        if min(self.widths) < MIN_WIDTH:
            raise ConfigError(f"widths must be at least {MIN_WIDTH}; found {list(self.widths)}")
