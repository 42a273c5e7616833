"""Rows that the writer of a dataset takes: tracks with frames, tracks without."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emovox.errors import TrackError, without_secrets
from emovox.ids import TrackKey, printable

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TrackRow:
    """One track with frames; the writer derives the other columns of the table `tracks`."""

    key: TrackKey
    n_frames: int  # rows in `frames`
    n_expected: int  # grid points
    duration_ms: int | None = None  # None where the source gives none
    source: str | None = None  # path of the media file below the corpus root; None if unknown
    start_ms: int | None = None  # on the clock of the media file; None if unknown
    end_ms: int | None = None
    sound_offset_ms: float | None = None  # first sample minus first picture; None without sound

    @property
    def track_id(self) -> str:
        """`<identity>/<video>/<number>`."""
        return self.key.track_id


@dataclass(frozen=True, slots=True)
class Dropped:
    """One track without frames: a row of the table `dropped`."""

    track_id: str
    source: str
    stage: str
    error: str
    message: str
    attempts: int = 1

    @classmethod
    def of(cls, track_id: str, source: str, error: TrackError, attempts: int = 1) -> "Dropped":
        """Return the row of a failed track; its texts are printable and without secrets."""
        texts = (printable(without_secrets(x)) for x in (track_id, source, error.message))
        track_id, source, message = texts
        return cls(track_id, source, error.stage, error.error, message, attempts)


def count_reasons(dropped: Iterable[Dropped]) -> Counter[str]:
    """Count dropped tracks by stage and error."""
    return Counter(f"{d.stage}: {d.error}" for d in dropped)


@dataclass(frozen=True)
class Chunk:
    """Some tracks of one split, and their frames end to end."""

    split: str
    tracks: list[TrackRow]  # sorted by track_id
    rows: "pa.Table"  # the columns of `frames`, and of the other tables with a row per frame


LEGACY_FPS, LEGACY_STEP = 25, 6  # video frames per second, and per grid point
ROUNDING = 1e-6  # of a grid step; a window's edge this close to a grid point lies on it


def pool_rows(rows: np.ndarray, pool: str) -> np.ndarray:
    """Pool logits `[n, E]` into one row `[E]`; see `Dataset.target`."""
    if pool == "peak":
        return np.array(rows[rows.max(axis=1).argmax()])
    return np.asarray(rows.max(axis=0) if pool == "max" else rows.mean(axis=0))


def grid_rows(first: float, last: float, frame_index: np.ndarray) -> slice:
    """Return the rows that overlap a window in grid steps; the nearest row if none does.

    `frame_index` has the grid points of the rows, int `[n]`, ascending.
    """
    low = math.floor(max(first + ROUNDING, 0))
    high = math.inf if math.isinf(last) else math.ceil(last - ROUNDING)
    start, stop = (int(np.searchsorted(frame_index, bound)) for bound in (low, high))
    if start < stop:
        return slice(start, stop)
    middle = (low + (low if math.isinf(high) else max(high - 1, 0))) / 2
    nearest = int(np.abs(frame_index - min(middle, int(frame_index[-1]))).argmin())
    return slice(nearest, nearest + 1)


def legacy_rows(start: float, end: float, num_rows: int) -> slice:
    """Return the rows that the reference code uses for a window in seconds."""

    def row(time: float) -> int:
        if time == math.inf:
            return num_rows - 1
        frame = max(LEGACY_FPS * time - 1, 0)
        return min(math.floor(frame / LEGACY_STEP), num_rows - 1)

    return slice(row(start), row(end) + 1)
