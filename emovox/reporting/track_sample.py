"""The tracks that a page shows one by one: chosen by rule, packed into few bytes.

Scores of a student over time are drawn over them.
"""

import base64
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.dataset.reader import Dataset

FRAMES_IN_ALL = 100_000  # of all tracks shown; 2.2 MB of the page
SCORE = "student_"  # of a column of `predict`, before the name of an emotion
NUM_PEAKS = 6  # of a track
LEVELS = 100  # steps of a stored logit per unit
# Columns of `tracks` in a `ReportTrack`.
COLUMNS = ["track_id", "identity_id", "split", "label", "majority"]
COLUMNS += ["n_frames", "n_expected", "duration_ms"]

RULE = (
    "The first are notable: the strongest of each emotion, and those that change most often, are "
    "longest and have the most gaps. The others are drawn in turn from each split and label, by a "
    "hash of their ids, so that rare emotions are included and every run shows the same tracks."
)


class Peak(NamedTuple):
    """The frame of a track in which an emotion is strongest."""

    emotion: int  # its number in the dataset
    frame_index: int
    logit: float


Trace = list[list[float | None]]  # of each window, start and end in seconds, score by emotion


@dataclass(frozen=True)
class ReportTrack:
    """One track of the page."""

    track_id: str
    identity_id: str
    split: str
    label: str
    majority: str  # emotion that is dominant in the most frames
    n_frames: int  # of the whole track
    n_expected: int  # grid points of the whole track
    duration_ms: int | None
    logits: np.ndarray  # float32 `[n, E]`; only the first frames of a long track
    frame_index: np.ndarray  # int `[n]`
    reasons: list[str]  # why the track is notable; empty if it was drawn

    @property
    def duration(self) -> float | None:
        """Duration of the whole track in seconds, None if unknown."""
        return None if self.duration_ms is None else self.duration_ms / 1000

    @property
    def peaks(self) -> list[Peak]:
        """The strongest frame of each dominant emotion, up to `NUM_PEAKS`, in order of time."""
        dominant, found = self.logits.argmax(axis=1), []
        for k in np.unique(dominant):
            rows = np.flatnonzero(dominant == k)
            row = rows[self.logits[rows, k].argmax()]
            found.append(Peak(int(k), int(self.frame_index[row]), float(self.logits[row, k])))
        strongest = sorted(found, key=lambda peak: -peak.logit)[:NUM_PEAKS]
        return sorted(strongest, key=lambda peak: peak.frame_index)


def choose(dataset: Dataset, num_tracks: int) -> list[ReportTrack]:
    """Choose tracks by `RULE`, notable ones first, then by split and id; InputError if damaged."""
    if num_tracks <= 0 or not len(dataset):
        return []
    tracks = pa.concat_tables([dataset.tracks[split] for split in dataset.splits])
    reasons = _notable(dataset, tracks)
    rows = [*dict.fromkeys((*reasons, *_drawn(tracks)))][:num_tracks]
    rows.sort(key=lambda row: (row not in reasons, row))
    chosen = tracks.select(COLUMNS).take(rows).to_pylist()
    is_large = sum(track["n_frames"] for track in chosen) > FRAMES_IN_ALL
    limit = FRAMES_IN_ALL // len(chosen) if is_large else FRAMES_IN_ALL
    return [
        ReportTrack(
            **track,
            logits=dataset.logits(track["track_id"])[:limit],
            frame_index=dataset.frame_index(track["track_id"])[:limit],
            reasons=reasons.get(row, []),
        )
        for row, track in zip(rows, chosen, strict=True)
    ]


def pack(track: ReportTrack, emotions: Sequence[str]) -> dict[str, Any]:
    """Return a track as JSON; logits are base64 of little-endian int16 hundredths, by row."""
    levels = np.clip(np.rint(track.logits * LEVELS), -32767, 32767).astype("<i2")
    packed: dict[str, Any] = {
        "id": track.track_id,
        "who": track.identity_id,
        "split": track.split,
        "label": emotions.index(track.label) if track.label in emotions else -1,
        "majority": emotions.index(track.majority) if track.majority in emotions else -1,
        "frames": track.n_frames,
        "expected": track.n_expected,
        "seconds": track.duration,
        "why": track.reasons,
        "peaks": [(*place, round(logit, 2)) for *place, logit in track.peaks],
        "logits": base64.b64encode(levels.tobytes()).decode(),
    }
    index = track.frame_index
    if not np.array_equal(index, np.arange(len(index))):
        packed["index"] = index.tolist()
    return packed


def traces_of(
    windows: pa.Table, dataset: Dataset, tracks: Sequence[ReportTrack]
) -> dict[str, Trace]:
    """Return the trace of each track that `windows`, in the columns of `predict`, contains.

    A path belongs to the tracks whose source it ends with, else to the track with its last names.
    """
    places = defaultdict(list)  # track, and its start and end in the file, by the end of the path
    for track in tracks:
        source, milliseconds, _ = dataset.source(track.track_id)
        length = track.duration or track.n_expected * dataset.step
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


def _notable(dataset: Dataset, tracks: pa.Table) -> dict[int, list[str]]:
    """Return the rows of notable tracks with the reasons."""
    lengths = tracks["n_frames"].to_numpy()
    splits = ((dataset.to_numpy(split)[0], dataset.tracks[split]) for split in dataset.splits)
    kinds = {"changes most often": np.concatenate([_changes(*each) for each in splits])}  # Figure 2
    kinds |= {f"strongest {e}": tracks[f"max_{e}"].to_numpy() for e in dataset.emotions}
    kinds |= {"longest": lengths, "most gaps": tracks["n_expected"].to_numpy() - lengths}
    reasons: dict[int, list[str]] = {}
    for reason, values in kinds.items():
        if values.max() > 0 or reason.startswith("strongest"):
            reasons.setdefault(int(values.argmax()), []).append(reason)
    return reasons


def _changes(logits: np.ndarray, tracks: pa.Table) -> np.ndarray:
    """Return how often the dominant emotion of each track changes, int64 `[T]`."""
    dominant = logits.argmax(axis=1)
    turns = dominant != np.roll(dominant, -1)
    last = tracks["n_frames"].to_numpy().cumsum(dtype=np.int64) - 1
    turns[last] = False  # the next row is of another track
    return np.diff(turns.cumsum()[last], prepend=0)


def _drawn(tracks: pa.Table) -> Iterator[int]:
    """Yield all rows: one of each split and label in turn, in the order of a hash of the ids."""
    cells: dict[tuple[str, str], list[tuple[bytes, int]]] = defaultdict(list)
    columns = (tracks[name].to_pylist() for name in ("track_id", "split", "label"))
    for row, (track_id, split, label) in enumerate(zip(*columns, strict=True)):
        cells[split, label].append((blake2b(track_id.encode(), digest_size=8).digest(), row))
    for turn in zip_longest(*(sorted(cells[key]) for key in sorted(cells))):
        yield from (member[1] for member in turn if member)
