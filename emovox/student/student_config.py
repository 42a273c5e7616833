"""What decides the outcome of a student's training; what the paper used stands in pipelines/."""

from dataclasses import dataclass

from emovox.dataset.names import POOLS, TIMINGS
from emovox.errors import ConfigError

LOSSES = ("cross-entropy", "euclidean", "huber", "hard-label")
REDUCTIONS = ("mean", "sum")
LAST = "last"
CHOICES = ("unheard_val", "heard_val", LAST)
FRAMES_PER_SECOND = 100  # of spectrograms; `media.spectrogram` has the rest

# Smallest and largest sensible value of each number.
BOUNDS = {
    "width": (1 / 16, 4),
    "conv3": (8, 4096),
    "conv4": (8, 4096),
    "seconds": (1, 10),
    "temperature": (1e-3, 1e3),
    "epochs": (1, 100_000),
    "epoch_share": (1e-6, 1e6),
    "batch_size": (2, 65_536),
    "learning_rate": (1e-9, 100),
    "last_learning_rate": (1e-12, 100),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "validation_share": (1e-6, 1),
    "seed": (0, 2**32 - 1),
    "workers": (0, 1024),
    "max_dropped": (0, 1),
}


@dataclass(frozen=True)
class StudentTrainConfig:
    """The recipe of a student. The defaults are the paper's (sections 3.2 and 5).

    Attributes:
        width: factor on the channels of every layer of the network.
        conv3, conv4: channels of these two layers at width 1; the paper's Table 4 says 256 and 256,
            its released network has 384 and 256.
        seconds: length of a segment, from a random place of the track; shorter tracks are padded
            with silence at their end.
        pool, timing: how the logits under a segment become its target, see `Dataset.target`.
        loss: cross-entropy between softened probabilities, euclidean (half the squared distance) or
            huber between logits, or hard-label (cross-entropy against the largest logit).
        temperature: divides the logits of both networks; cross-entropy only.
        reduction: of the loss over a batch, mean or sum.
        epochs: rounds of training, each followed by a validation.
        epoch_share: passes over the train split in one epoch, less than one for a part of it;
            tracks are drawn without replacement until all were there.
        batch_size: segments per step, over all processes.
        learning_rate, last_learning_rate: of the first and the last epoch, on a log scale between.
        momentum, weight_decay: of the SGD.
        validation_share: share of each validation split that is scored, always the same tracks.
        choose_on: the split on which the epoch with the lowest loss is kept; or `last`.
        seed: of weights, order and segments.
        device: auto, cpu, cuda or cuda:N; of each process when there are several.
        precision: auto, fp32 or bf16 (autocast).
        compile: auto (on a GPU), on or off.
        workers: processes that read audio, per training process.
        max_dropped: share of the tracks without usable audio above which nothing is trained.
    """

    width: float = 1.0
    conv3: int = 384
    conv4: int = 256
    seconds: float = 4.0
    pool: str = "max"
    timing: str = "grid"
    loss: str = "cross-entropy"
    temperature: float = 2.0
    reduction: str = "mean"
    epochs: int = 250
    epoch_share: float = 0.2
    batch_size: int = 64
    learning_rate: float = 1e-4
    last_learning_rate: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 5e-4
    validation_share: float = 0.2
    choose_on: str = "unheard_val"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: str = "auto"
    workers: int = 2
    max_dropped: float = 0.05

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:  # also what is not a number
                raise ConfigError(f"{name} {value}: must be {least} to {most}")
        for name, options in (
            ("pool", POOLS),
            ("timing", TIMINGS),
            ("loss", LOSSES),
            ("reduction", REDUCTIONS),
            ("choose_on", CHOICES),
        ):
            if getattr(self, name) not in options:
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is not one of {', '.join(options)}"
                )

    @property
    def num_frames(self) -> int:
        """Width of a segment's spectrogram."""
        return round(self.seconds * FRAMES_PER_SECOND)

    @property
    def num_samples(self) -> int:
        """Samples of a segment: a little more than its seconds, see `spectrogram.num_samples`."""
        from emovox.media.spectrogram import num_samples

        return num_samples(self.num_frames)
