"""Scores of a student over time, for the tracks of a page."""

import math
from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from emovox.dataset.reader import Dataset
from emovox.reporting.track_sample import ReportTrack

SCORE = "student_"  # of a column of `predict`, before the name of an emotion
Trace = list[list[float | None]]  # of each window, start and end in seconds, score by emotion


def traces_of(
    windows: pa.Table, dataset: Dataset, tracks: Sequence[ReportTrack]
) -> dict[str, Trace]:
    """Return the trace of each track that `windows`, in the columns of `predict`, contains.

    A path belongs to the tracks whose source it ends with, else to the track with its last names.
    """
    places = defaultdict(list)  # track, and its start and end in the file, by the end of the path
    for track in tracks:
        source, milliseconds, _ = dataset.source(track.track_id)
        length = track.duration or track.num_expected * dataset.step
        for name, first in ((track.track_id, 0.0), (source, (milliseconds or 0) / 1000)):
            places[name].append((track.track_id, first, first + length))
    found = {}
    for path in windows["path"].unique().to_pylist():
        ends = [path, *(path[k + 1 :] for k, letter in enumerate(path) if letter == "/")]
        ends += [end.rpartition(".")[0] for end in ends]
        if name := next((end for end in ends if end in places), ""):
            found[path] = places[name]
    traces: dict[str, Trace] = {}
    known = pa.array([*found], pa.string())
    for row in windows.filter(pc.is_in(windows["path"], known)).to_pylist():
        scores = [row.get(f"{SCORE}{emotion}") for emotion in dataset.emotions]
        scores = [x if x is not None and math.isfinite(x) else None for x in scores]
        for track_id, start, end in found[row["path"]]:
            first, last = max(row.get("start", 0.0), start), min(row.get("end", math.inf), end)
            if first < last:
                span = round(first - start, 3), round(last - start, 3)
                traces.setdefault(track_id, []).append([*span, *scores])
    return traces
