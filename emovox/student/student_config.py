"""Options of a student's training, evaluation and prediction."""

from dataclasses import dataclass

from emovox.config import Options, option
from emovox.dataset.names import POOLS, TIMINGS
from emovox.devices import COMPILE_MODES, PRECISIONS
from emovox.errors import ConfigError

LOSSES = ("cross-entropy", "euclidean", "huber", "hard-label")
REDUCTIONS = ("mean", "sum")
LAST = "last"
PROTOCOLS = STANDARD, LEGACY = ("standard", "legacy")
NONE = "none"  # in place of a network
HEADS = LINEAR, ATTENTION = ("linear", "attention")
TRAINED = "as in the training"
MIN_SECONDS, MAX_SECONDS = 1, 10  # of a window


@dataclass(frozen=True)
class StudentTrainConfig(Options):
    """Recipe of a student. The defaults are the paper's (sections 3.2 and 5).

    Attributes:
        width: Factor on the number of channels of every layer.
        conv3: Channels of layer conv3 at width 1: 384 in the released network, 256 in the paper's
            Table 4.
        conv4: Channels of layer conv4 at width 1.
        encoder: Frozen encoder under a head, not the paper's network: hf: and a folder or an id.
        layer: Layer of the encoder that the head sees; 0 is the input of the first.
        head: Head of the encoder: linear on the mean over time, or attention over each 0.24 s.
        seconds: Length of a segment in seconds; it starts at a random time of its track (encoder: a
            multiple of half a segment), and silence is appended to tracks that are shorter.
        pool: Pooling of the logits of a segment into its target, see `Dataset.target`.
        timing: Mapping from seconds to frames, see `Dataset.target`.
        loss: Cross-entropy between softened probabilities, euclidean (half the squared distance) or
            huber between logits, or hard-label (cross-entropy with the largest logit).
        temperature: Divisor of the logits of teacher and student; for cross-entropy only.
        reduction: Reduction of the loss over a batch.
        epochs: Number of epochs, each followed by a validation.
        epoch_share: Fraction of the train split in one epoch, also above 1; a track is drawn again
            only after all others.
        batch_size: Segments per step, over all processes.
        learning_rate: Learning rate of the first epoch.
        last_learning_rate: Learning rate of the last epoch; it changes exponentially in between.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        validation_share: Fraction of each validation split that is scored, the same tracks in every
            epoch.
        choose_on: Validation split whose lowest loss selects the best epoch, or last for the last
            epoch.
        seed: Random seed of weights, order and segments.
        device: Device of each process: auto (CUDA if available), cpu, cuda or cuda:N.
        precision: Arithmetic of the network; auto selects bf16 where the hardware supports it.
        compile: Use of torch.compile; auto compiles on a GPU.
        workers: Threads that read audio, per training process.
        max_dropped: Largest fraction of tracks without usable audio; above it the training stops.
    """

    width: float = option(1.0, least=1 / 16, most=4)
    conv3: int = option(384, least=8, most=4096)
    conv4: int = option(256, least=8, most=4096)
    encoder: str | None = None
    layer: int | None = option(None, least=0, shown="weighted sum of all")
    head: str = option(LINEAR, choices=HEADS)
    seconds: float = option(4.0, least=MIN_SECONDS, most=MAX_SECONDS)
    pool: str = option("max", choices=POOLS)
    timing: str = option("grid", choices=TIMINGS)
    loss: str = option("cross-entropy", choices=LOSSES)
    temperature: float = option(2.0, least=1e-3, most=1e3)
    reduction: str = option("mean", choices=REDUCTIONS)
    epochs: int = option(250, least=1, most=100_000)
    epoch_share: float = option(0.2, least=1e-6, most=1e6)
    batch_size: int = option(64, least=2, most=65_536)
    learning_rate: float = option(1e-4, least=1e-9, most=100)
    last_learning_rate: float = option(1e-5, least=1e-12, most=100)
    momentum: float = option(0.9, least=0, most=0.9999)
    weight_decay: float = option(5e-4, least=0, most=1)
    validation_share: float = option(0.2, least=1e-6, most=1)
    choose_on: str = option("unheard_val", choices=("unheard_val", "heard_val", LAST))
    seed: int = option(0, least=0, most=2**32 - 1)
    device: str = "auto"
    precision: str = option("auto", choices=PRECISIONS)
    compile: str = option("auto", choices=COMPILE_MODES)
    workers: int = option(2, least=0, most=1024)
    max_dropped: float = option(0.05, least=0, most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.encoder and (self.layer is not None or self.head != LINEAR):
            raise ConfigError("layer and head belong to an encoder; pass --encoder too")


@dataclass(frozen=True)
class EvaluateConfig(Options):
    """Options of `emovox evaluate`.

    Attributes:
        seconds: Length in seconds of the windows into which each track is cut; the last is padded.
        hop: Seconds from the start of a window to the start of the next; their logits are pooled as
            the targets of the training were.
        whole: Hear each track as one window, over which the network averages.
        protocol: Evaluation protocol; legacy follows the reference code: it reads the left channel
            as if its rate were 16 kHz, and an emotion that no track has gets an AUC of 0.
        timing: Mapping from seconds to frames; legacy is that of the reference code.
        device: Device of the student: auto (CUDA if available), cpu, cuda or cuda:N.
        precision: Arithmetic of the student; auto selects bf16 where the hardware supports it.
        max_dropped: Largest fraction of tracks without usable audio; above it the evaluation fails.
    """

    seconds: float | None = option(None, least=MIN_SECONDS, most=MAX_SECONDS, shown=TRAINED)
    hop: float | None = option(None, least=0.01, shown="half of --seconds")
    whole: bool = False
    protocol: str = option("standard", choices=PROTOCOLS)
    timing: str = option("grid", choices=TIMINGS)
    device: str = "auto"
    precision: str = option("auto", choices=PRECISIONS)
    max_dropped: float = option(0.05, least=0, most=1)


@dataclass(frozen=True)
class PredictConfig(Options):
    """Options of `emovox predict`.

    Attributes:
        student: Student that scores the sound: a registered name or a checkpoint, or 'none' to skip
            the sound.
        teacher: Teacher that scores the faces in video files: a registered name or a checkpoint, or
            'none' to skip the pictures.
        seconds: Length of a window in seconds; the last one of a file is padded with silence.
        hop: Seconds from the start of a window to the start of the next.
        whole: One row for each file, over which the student averages.
        logits: Give the raw outputs of both networks in place of probabilities.
        prior: Shares of the emotions that the student's probabilities assume: those of the dataset
            that it learned from, where most tracks are neutral, or uniform.
        classes: Emotion to choose from; without this option all of both networks.
        device: Device of both networks: auto (CUDA if available), cpu, cuda or cuda:N.
        precision: Arithmetic of both networks; auto selects bf16 where the hardware supports it.
        jobs: Worker processes for video files.
    """

    student: str = option()
    teacher: str | None = "compact"
    seconds: float | None = option(None, least=MIN_SECONDS, most=MAX_SECONDS, shown=TRAINED)
    hop: float | None = option(None, least=0.01, shown="half of --seconds")
    whole: bool = False
    logits: bool = False
    prior: str = option("dataset", choices=("dataset", "uniform"))
    classes: tuple[str, ...] = ()
    device: str = "auto"
    precision: str = option("auto", choices=PRECISIONS)
    jobs: int = option(0, least=0, shown="one per core")
