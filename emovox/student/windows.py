"""Windows of an utterance: the parts of it that a student hears.

One rule holds for `student(samples)`, `emovox predict` and `emovox evaluate`: windows of the
`seconds` of the student's training, the last one padded with zeros at its end, each half a window
after the one before; the logits of the windows are pooled as the targets of the training were.
"""

from dataclasses import dataclass

import numpy as np

from emovox.media.spectrogram import SAMPLE_RATE, num_samples
from emovox.student.student_config import FRAMES_PER_SECOND

# Parts of an utterance that a student can hear. `WHOLE`: one window of all its sound; the network
# averages over time. `CENTRE`: its middle 1, 2, ... or 10 s, the longest of these that fits,
# normalised with the rest; the protocol of the paper, which ignores the other sound.
PARTS = WINDOWS, WHOLE, CENTRE = "windows", "whole", "centre bucket"
SILENT_PEAK = 1e-3  # largest sample of silence, 60 dB below full scale


@dataclass(frozen=True)
class Windows:
    """Length, distance and pooling of windows."""

    seconds: float
    hop: float  # seconds from the start of a window to the start of the next
    pool: str  # pooling of logits, see `Dataset.target`

    def __str__(self) -> str:
        return f"windows of {self.seconds:g} s every {self.hop:g} s, pooled by {self.pool}"

    @property
    def length(self) -> int:
        """Samples of a window, slightly more than its seconds: 64,384 for 4 s."""
        return num_samples(round(self.seconds * FRAMES_PER_SECOND))

    def starts(self, num_heard: int) -> list[int]:
        """Return the first sample of each window; they cover all of `num_heard` samples.

        Example:
            >>> Windows(4.0, 2.0, "max").starts(5 * 16_000)  # 0 to 4 s, 2 to 5 s and a pad
            [0, 32000]
        """
        hop = max(1, round(self.hop * SAMPLE_RATE))
        return list(range(0, max(1, num_heard + min(0, hop - self.length)), hop))

    def cut(self, samples: np.ndarray) -> list[np.ndarray]:
        """Return the windows of samples `[L]`, each of `length` samples."""
        parts = [samples[start : start + self.length] for start in self.starts(len(samples))]
        return [np.pad(part, (0, self.length - len(part))) for part in parts]


def choose_windows(trained: Windows, seconds: float | None, hop: float | None) -> Windows:
    """Return the windows of a training with other seconds or hop; the hop is half a window."""
    seconds = seconds or trained.seconds
    return Windows(seconds, hop or seconds / 2, trained.pool)


def is_silent(samples: np.ndarray) -> bool:
    """Return True for samples `[L]` of silence."""
    return float(np.abs(samples).max(initial=0)) <= SILENT_PEAK
