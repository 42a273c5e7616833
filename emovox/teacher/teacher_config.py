"""Options of a teacher's training and evaluation."""

from dataclasses import dataclass

from emovox.config import Options, option
from emovox.devices import PRECISIONS
from emovox.errors import ConfigError

PARTS = ("train", "public_test", "private_test")  # of FERPlus; in other data train, val and test
NETWORKS = ("compact", "senet50", "resnet50", "inception")
MIN_WIDTH = 8  # of a stage; squeeze-and-excitation divides the channels by 8


@dataclass(frozen=True)
class TeacherTrainConfig(Options):
    """Recipe of a training on labelled faces.

    Attributes:
        network: Network: compact (grey 48 x 48), SE-ResNet-50 or ResNet-50 (224 x 224), or
            inception, the face network of Schoneveld et al. (2021, 160 x 160).
        stem, widths, depths, dropout: Shape of the compact network: channels of its first
            convolution and of each stage, blocks of each stage, dropout before the last layer.
        start_from: Initial weights: a checkpoint of the same shape, or for senet50 and resnet50 a
            .pth or .mat file, whose last layer is dropped; for inception the .pth file of
            facenet-pytorch's InceptionResnetV1.
        triplets: CSV of triplets of faces to learn from too, see guide/teachers.md; for inception.
        class_weight: Weight of the cross-entropy beside the loss of the triplets.
        distill_from: Teacher to learn from in addition to the votes: a registered name or a
            checkpoint. Several teachers are averaged.
        distill: once: teachers label the faces before the training; online: teachers of the same
            kind of network label the augmented faces at every step.
        distill_weight: Weight of the teachers' probabilities in the target; the rest is votes.
        unlabelled: Train also on faces without usable votes, which need a teacher.
        epochs: Passes over the training faces.
        batch_size: Faces per step.
        learning_rate: Peak learning rate of SGD, after the warm-up.
        schedule: Fall of that rate: to 0 as a cosine, or by ten after each third (steps).
        warmup_epochs: Epochs of linear warm-up.
        backbone_rate: Factor on the learning rate of all layers but the last.
        momentum: Nesterov momentum of SGD.
        weight_decay: Weight decay of kernels and matrices.
        average_decay: Decay per step of the moving average of the weights, which is evaluated and
            saved.
        mirror, warp: Probability of mirroring a face, and of the following changes.
        rotation: Largest rotation in degrees, in either direction.
        zoom, shift, aspect, skew: Largest change of scale, place, width over height and slant,
            as a fraction, in either direction.
        three_levels: Rotate and skew by the largest amount, in either direction, or not at all.
        gamma: Largest |log gamma| of the brightness curve.
        cutout, cutout_side: Probability of erasing one square of a face, and its side in pixels.
        mixup, mixup_share: Parameter of the beta distribution by which two faces are mixed, and
            fraction of the steps that mix faces.
        seed: Random seed of weights, order and augmentation.
        device: Device: auto (CUDA if available), cpu, cuda or cuda:N.
        bf16: Train under bfloat16 autocast if the device has instructions for it.
    """

    network: str = option("compact", choices=NETWORKS)
    stem: int = option(16, least=1)
    widths: tuple[int, ...] = (48, 64, 128, 160)
    depths: tuple[int, ...] = (1, 2, 3, 1)
    dropout: float = option(0.2, least=0, most=0.99)
    start_from: str = ""
    triplets: str = ""
    class_weight: float = option(1.0, least=0, most=1000)
    distill_from: tuple[str, ...] = ()
    distill: str = option("once", choices=("once", "online"))
    distill_weight: float = option(0.5, least=0, most=1)
    unlabelled: bool = False
    epochs: int = option(70, least=1)
    batch_size: int = option(128, least=1)
    learning_rate: float = option(0.1, least=1e-9, most=100)
    schedule: str = option("cosine", choices=("cosine", "steps"))
    warmup_epochs: float = option(2.0, least=0, most=10**6)
    backbone_rate: float = option(1.0, least=0, most=1)
    momentum: float = option(0.9, least=1e-9, most=0.9999)  # Nesterov momentum is above 0
    weight_decay: float = option(5e-4, least=0, most=1)
    average_decay: float = option(0.999, least=0, most=0.999999)
    mirror: float = option(0.5, least=0, most=1)
    warp: float = option(1.0, least=0, most=1)
    rotation: float = option(15.0, least=0, most=180)
    zoom: float = option(0.15, least=0, most=0.9)
    shift: float = option(0.08, least=0, most=1)
    aspect: float = option(0.05, least=0, most=0.9)
    skew: float = option(0.08, least=0, most=1)
    three_levels: bool = False
    gamma: float = option(0.3, least=0, most=5)
    cutout: float = option(0.5, least=0, most=1)
    cutout_side: int = option(16, least=1)
    mixup: float = option(0.3, least=1e-3, most=100)
    mixup_share: float = option(0.0, least=0, most=1)
    seed: int = option(0, least=0, most=2**63 - 1)
    device: str = "auto"
    bf16: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        least = min(self.widths, default=0), min(self.depths, default=0)
        if len(self.widths) != len(self.depths) or least[0] < MIN_WIDTH or least[1] < 1:
            limits = f"widths of at least {MIN_WIDTH}, depths of at least 1"
            raise ConfigError(f"widths and depths must be lists of the same length, {limits}")
        if self.triplets and self.network != "inception":
            raise ConfigError("triplets: only the network inception has a head for them")
        if self.unlabelled and not self.distill_from:
            raise ConfigError("unlabelled: no teacher to learn from; pass --distill-from too")


@dataclass(frozen=True)
class TeacherEvaluateConfig(Options):
    """Options of the evaluation of a teacher on labelled faces.

    Attributes:
        part: Part of the data to score; public_test is the validation part.
        triplets: CSV of triplets of faces to score too, see guide/teachers.md.
        device: Device of the teacher: auto (CUDA if available), cpu, cuda or cuda:N.
        precision: Arithmetic of the teacher; auto selects bf16 where the hardware supports it.
    """

    part: str = option("private_test", choices=PARTS)
    triplets: str = ""
    device: str = "auto"
    precision: str = option("fp32", choices=PRECISIONS)
