"""The recipe of a teacher: what pipelines/teacher-ferplus.toml may set."""

from dataclasses import dataclass

from emovox.errors import ConfigError

MIN_WIDTH = 8  # below it squeeze-and-excitation has no channel left
BOUNDS = {
    "distill_weight": (0, 1),
    "dropout": (0, 0.99),
    "learning_rate": (1e-9, 100),
    "warmup_epochs": (0, 10**6),
    "momentum": (1e-9, 0.9999),  # Nesterov's needs some
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
    """Network, targets, schedule and augmentation of a training on FERPlus.

    Attributes:
        stem, widths, depths, dropout: shape of the network, see `CompactConfig`.
        start_from: a recipe (`.toml`) that is trained first, or a checkpoint of the same shape: its
            weights are where this training begins. Empty: from random weights.
        distill_from: teachers whose averaged logits it learns from beside the votes: registered
            names, checkpoints, or recipes (`.toml`) that are trained first. Paths are relative to
            the recipe's own folder.
        distill_weight: share of the teachers' probabilities in the target; the votes have the rest.
        epochs: passes over the training faces.
        batch_size: faces per step.
        learning_rate: peak of SGD; it rises over the warm-up, then falls to 0 as a cosine.
        warmup_epochs: length of the rise.
        momentum: of SGD, Nesterov's.
        weight_decay: of kernels and matrices.
        average_decay: of the moving average of weights, per step; the average is what is kept.
        mirror: probability.
        rotation: degrees either way.
        zoom: fraction either way.
        shift: fraction of the side, either way.
        gamma: largest |log gamma| of the brightness curve.
        cutout: probability of one erased square.
        cutout_side: its side, in pixels.
        seed: of weights, order and augmentation.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        bf16: train under bfloat16 autocast.
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
                "widths and depths must be lists of the same length, of numbers from 1 up; found "
                f"{list(self.widths)} and {list(self.depths)}"
            )
        if min(self.widths) < MIN_WIDTH:
            raise ConfigError(f"widths must be at least {MIN_WIDTH}; found {list(self.widths)}")
