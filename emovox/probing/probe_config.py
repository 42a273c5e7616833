"""What a probe can be told."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emovox.errors import ConfigError

FEATURES = ("logits", "embedding")
PROTOCOLS = ("standard", "legacy")
NUM_FOLDS = 10


@dataclass(frozen=True)
class ProbeConfig:
    """Options of `emovox probe`.

    Attributes:
        checkpoint: a student or a teacher, by registered name or as a file; `egemaps` for the
            yardstick alone.
        corpus: folder, or table of path, label and speaker.
        layout: of `emovox.probing.corpora`; None to tell it by the names of the files.
        features: `logits`, or a student's `embedding`.
        protocol: `legacy` reads sound as the reference does, the left channel as if it were 16 kHz.
        seed: of the random folds and the forest.
        folds: of the random and of the speaker-independent kind.
        jobs: threads or processes; 0 means one per core.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        max_dropped: share of the files that may be dropped before the run counts as failed.
    """

    checkpoint: str
    corpus: Path
    layout: str | None = None
    features: str = "logits"
    protocol: str = "standard"
    seed: int = 0
    folds: int = NUM_FOLDS
    jobs: int = 0
    device: str = "auto"
    max_dropped: float = 0.05

    def __post_init__(self) -> None:
        for name, options in (("features", FEATURES), ("protocol", PROTOCOLS)):
            if (value := getattr(self, name)) not in options:
                raise ConfigError(f"--{name} {value!r} is not one of {', '.join(options)}")
        for name, least in (("folds", 2), ("jobs", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} must be at least {least}")
        if not 0 <= self.max_dropped <= 1:
            raise ConfigError("--max-dropped must lie between 0 and 1")

    def as_json(self) -> dict[str, Any]:
        """Plain values, without paths of this machine."""
        return asdict(self) | {
            "checkpoint": Path(self.checkpoint).name,
            "corpus": self.corpus.name,
        }
