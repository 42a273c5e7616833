"""Rows that the writer of a dataset takes: tracks with frames, tracks without."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emovox.errors import TrackError, without_secrets
from emovox.ids import TrackKey, printable

if TYPE_CHECKING:
    import pyarrow as pa


MAX_LISTED = 5  # dropped tracks in a summary


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


def list_dropped(dropped: Sequence[Dropped]) -> list[str]:
    """Return lines for a summary: the reasons with their counts, and the first tracks."""
    lines = [f"dropped   {n:,} x {why}" for why, n in count_reasons(dropped).most_common()]
    lines += [f"          {d.source or d.track_id}: {d.message}" for d in dropped[:MAX_LISTED]]
    more = len(dropped) - MAX_LISTED
    return lines + ([f"          and {more:,} more, see dropped.parquet"] if more > 0 else [])


@dataclass(frozen=True)
class Chunk:
    """Some tracks of one split, and their frames end to end."""

    split: str
    tracks: list[TrackRow]  # sorted by track_id
    rows: "pa.Table"  # the columns of `frames`, and of the other tables with a row per frame
