"""Options of a probe."""

from dataclasses import dataclass

from emovox.config import Options, option
from emovox.probing.filenames import LAYOUTS
from emovox.student.student_config import PROTOCOLS

FEATURES = ("logits", "embedding")
NUM_FOLDS = 10


@dataclass(frozen=True)
class ProbeConfig(Options):
    """Options of `emovox probe`.

    Attributes:
        layout: Layout of the corpus: the form of its file names, or a table.
        features: Outputs of the network to probe; only a student has an embedding.
        encoder: Frozen speech encoder to probe on the same folds, hf: and a folder or an id.
        protocol: Sound protocol; legacy reads the left channel as if its rate were 16 kHz, and a
            student hears the centre bucket of an utterance only, as in the reference code.
        seed: Random seed of the random folds and of the random forest.
        folds: Number of random and of speaker-independent folds.
        folds_from: Folder of folds to use instead, from --write-folds or of EmoBox.
        write_folds: Folder to write the folds to, in a folder for each kind.
        cross: Train on each of several corpora and test on each, on the labels that two have.
        jobs: Threads, or worker processes for video files.
        device: Device of the network: auto (CUDA if available), cpu, cuda or cuda:N.
        max_dropped: Largest fraction of files that may be dropped; above it the exit code is 1.
    """

    layout: str | None = option(None, choices=LAYOUTS, shown="detected from the file names")
    features: str = option("logits", choices=FEATURES)
    encoder: str | None = None
    protocol: str = option("standard", choices=PROTOCOLS)
    seed: int = option(0, least=0)
    folds: int = option(NUM_FOLDS, least=2)
    folds_from: str | None = None
    write_folds: str | None = None
    cross: bool = False
    jobs: int = option(0, least=0, shown="one per core")
    device: str = "auto"
    max_dropped: float = option(0.05, least=0, most=1)
