"""Windows of an utterance: the parts of it that a student hears.

`Student` states the rule for `student(samples)`, `emovox predict` and `emovox evaluate`.
"""

from dataclasses import dataclass

import numpy as np

from emovox.errors import ConfigError
from emovox.media.spectrogram import SAMPLE_RATE, num_samples
from emovox.student.student_config import FRAMES_PER_SECOND, EvaluateConfig, PredictConfig

WHOLE, CENTRE = "whole", "centre bucket"  # other parts that a student can hear, see `Student`
SILENT_PEAK = 1e-3  # largest sample of silence, 60 dB below full scale


@dataclass(frozen=True)
class Windows:
    """Length, distance and pooling of windows; by default those of the paper's recipe."""

    seconds: float = 4.0
    hop: float | None = None  # seconds from one start to the next; None for half a window
    pool: str = "max"  # pooling of the logits of several windows, see `Dataset.target`

    def __str__(self) -> str:
        hop = self.hop or self.seconds / 2
        return f"windows of {self.seconds:g} s every {hop:g} s, pooled by {self.pool}"

    @property
    def length(self) -> int:
        """Samples of a window, slightly more than its seconds: 64,384 for 4 s."""
        return num_samples(round(self.seconds * FRAMES_PER_SECOND))

    def starts(self, num_heard: int) -> list[int]:
        """Return the first sample of each window; they cover all of `num_heard` samples."""
        hop = round((self.hop or self.seconds / 2) * SAMPLE_RATE)
        return list(range(0, max(1, num_heard + min(0, hop - self.length)), hop))

    def cut(self, samples: np.ndarray) -> list[np.ndarray]:
        """Return the windows of samples `[L]`, each of `length` samples."""
        parts = [samples[start : start + self.length] for start in self.starts(len(samples))]
        return [np.pad(part, (0, self.length - len(part))) for part in parts]


def choose_part(config: EvaluateConfig | PredictConfig, trained: Windows) -> Windows | str:
    """Return what a student hears; ConfigError for other options of windows beside `whole`."""
    if config.whole and (config.seconds or config.hop):
        raise ConfigError("whole: hears all sound at once; leave out seconds and hop")
    seconds = config.seconds or trained.seconds
    return WHOLE if config.whole else Windows(seconds, config.hop, trained.pool)
