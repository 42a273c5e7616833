"""Options of a report."""

from dataclasses import dataclass
from pathlib import Path

from emovox.config import Options, option

NUM_TRACKS, NUM_TRACKS_WITH_MEDIA = 300, 40
MAX_TRACKS = 2000  # keeps a page without media below 5 MB


@dataclass(frozen=True)
class ReportConfig(Options):
    """Options of `emovox report`.

    Attributes:
        figures: Folder for the paper's figures and tables, as PNG, SVG and CSV.
        compare: Folder of a second dataset, plotted over the first.
        student: Output folder of train-student, evaluate, predict, probe, evaluate-teacher or
            evaluate-fusion.
        media: Folder of the corpus, to include faces and sound of the tracks shown.
        tracks: Number of tracks shown.
    """

    figures: Path | None = None
    compare: Path | None = None
    student: tuple[Path, ...] = ()
    media: Path | None = None
    tracks: int | None = option(
        None, least=0, most=MAX_TRACKS, shown=f"{NUM_TRACKS}; {NUM_TRACKS_WITH_MEDIA} with --media"
    )
