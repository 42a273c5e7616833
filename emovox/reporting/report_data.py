"""The numbers, results and tracks that a report shows."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emovox.dataset import schema
from emovox.dataset.documents import read_document
from emovox.dataset.reader import Dataset, load
from emovox.errors import InputError
from emovox.packages import DataFrame, data_frame, explained
from emovox.reporting.aggregates import Aggregates, aggregate, logit_edges
from emovox.reporting.report_config import ReportConfig
from emovox.reporting.run_results import Results, read_results
from emovox.reporting.track_sample import ReportTrack, choose

if TYPE_CHECKING:
    from emovox.reporting.track_media import TrackMedia


@dataclass(frozen=True, repr=False)
class Report:
    """A report on a dataset."""

    dataset: Dataset
    provenance: Mapping[str, Any]  # content of its provenance.json
    aggregates: Aggregates  # counts and distributions of the dataset
    compared: Aggregates | None  # those of a second dataset
    results: Results  # of students, probes and teachers
    tracks: Sequence[ReportTrack]  # tracks that the page shows one by one
    # Faces and sound of each of `tracks`; None without the option `media`
    media: "Sequence[TrackMedia] | None"
    written: tuple[str, ...] = ()  # lines of `summary`

    def summary(self) -> str:
        """Return a line for each file that was written, and for each figure without data."""
        return "\n".join(self.written)

    def to_pandas(self) -> DataFrame:
        """Return counts, emotions and values by split; MissingPackageError without pandas."""
        rows = []
        for split in self.aggregates.splits:
            row = dataclasses.asdict(split)
            for name in ("frames", "labels"):
                by_emotion = zip(self.aggregates.emotions, row.pop(name).tolist(), strict=True)
                row |= {f"{name}_{emotion}": count for emotion, count in by_emotion}
            moments = zip(self.aggregates.value_names, row.pop("values").tolist(), strict=True)
            for name, (mean, deviation) in moments:
                row |= {f"mean_{name}": mean, f"deviation_{name}": deviation}
            rows.append(row)
        return data_frame(rows)

    def __repr__(self) -> str:
        found = self.aggregates
        return (
            f"<Report on {found.title}: {found.num_tracks:,} tracks, "
            f"{found.num_frames:,} frames; {len(self.tracks):,} tracks shown>"
        )


def collect(path: str | os.PathLike[str], config: ReportConfig) -> Report:
    """Count, choose and read all that a report on a dataset shows; raise the errors of `report`."""
    if config.media:
        with explained("--media"):  # before minutes of counting
            from emovox.reporting.track_media import collect_media
    dataset = load(path)
    datasets = [dataset, *([load(config.compare)] if config.compare else [])]
    results = read_results(config.student)
    edges = logit_edges(datasets)
    provenance: dict[str, Any] = {"origin": ""}
    with contextlib.suppress(InputError):  # missing or damaged
        provenance |= read_document(dataset.path, schema.PROVENANCE)
    tracks = choose(dataset, config.num_tracks)
    found, *compared = [aggregate(each, edges) for each in datasets]
    other = compared[0] if compared else None
    media = collect_media(dataset, tracks, config.media) if config.media else None
    return Report(dataset, provenance, found, other, results, tracks, media)
