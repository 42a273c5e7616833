"""The student: a speech network that learns the teacher's logits from audio alone.

Importing this module loads neither numpy nor torch.
"""

import os
from typing import TYPE_CHECKING, Protocol

from emovox.packages import explained
from emovox.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from emovox.student.clips import Windows

RELEASED = {"emovoxceleb": ("emovoxceleb-student.mat",)}
STUDENTS = Registry("student", RELEASED)
find_student = STUDENTS.find


class Student(Protocol):
    """A speech network, including its preprocessing.

    An utterance is 16 kHz mono samples `[L]` of any length, and all of it is heard: in windows of
    the `seconds` of the training, each half a window after the one before, the last padded with
    zeros at its end. The logits of the windows are pooled as the targets of the training were, by
    the maximum of each in the paper; embeddings by their mean.

    `part` selects something else: `Windows(seconds, hop)`; `whole`, one window of all the sound,
    at most 300 s, over which the network averages; or `centre bucket`, the paper's protocol, which
    hears only the middle 1, 2, ... or 10 s, the longest of these that fits.

    Attributes:
        name: short name for results.
        emotions: names of the logits, in order: those of the dataset that it learned from.
        sha256: SHA-256 of its weights file.
        windows: the windows of its training: `seconds`, `hop`, `pool`.
        prior: share of each emotion in the targets of its training; None if unknown.
    """

    name: str
    emotions: tuple[str, ...]
    sha256: str
    windows: "Windows"
    prior: tuple[float, ...] | None

    def __call__(
        self, samples: "np.ndarray | list[np.ndarray]", part: "Windows | str | None" = None
    ) -> "np.ndarray":
        """Return logits float32 `[N, E]` of N utterances; an array is one utterance."""

    def embed(
        self, samples: "np.ndarray | list[np.ndarray]", part: "Windows | str | None" = None
    ) -> "np.ndarray":
        """Return the outputs of the last hidden layer, float32 `[N, 1024]` at width 1."""


def load_student(
    name_or_path: str | os.PathLike[str], device: str = "auto", precision: str = "auto"
) -> Student:
    """Load a student, ready to run.

    Args:
        name_or_path: a registered name, a checkpoint written by `emovox train-student`, or the
            published network as released (`.mat`).
        device: `auto` (CUDA if available), `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16`, or `auto`: bf16 on CUDA and on processors with bf16
            instructions, otherwise fp32. Spectrograms are always computed in fp32.

    Raises:
        ConfigError: unknown name, device or precision.
        InputError: the weights are missing, or belong to another network.
        MissingPackageError: the extra `build` is not installed.

    Example:
        >>> import numpy as np
        >>> student = load_student("emovox-demo/student/best.safetensors")
        >>> seconds = [np.zeros(16_000), np.zeros(40_000)]  # 1 s and 2.5 s of silence
        >>> student(seconds).shape, student.embed(seconds).shape  # of an eighth of the width
        ((2, 8), (2, 128))
    """
    weights = find_student(name_or_path)
    with explained("load_student"):
        from emovox import checkpoints
        from emovox.student import networks
    path, read = weights.path, networks.read_released
    net = read(path) if weights.is_released else checkpoints.load(path, networks.ARCHITECTURES)
    student = networks.TorchStudent(weights.name, weights.sha256, net, device, precision)
    if not weights.is_released:
        student.windows, student.prior = networks.read_hearing(weights.path, len(student.emotions))
    return student
