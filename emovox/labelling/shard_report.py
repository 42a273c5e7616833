"""Files of a finished shard: its rows, and the marker that describes and completes them."""

import dataclasses
import errno
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.rows import Dropped, TrackRow
from emovox.emotions import Outputs
from emovox.files import replace_file, write_text
from emovox.ids import TrackKey
from emovox.paths import is_remote


def row_columns(outputs: Outputs, embedding_size: int = 0) -> pa.Schema:
    """Return the columns of a shard's file: those of frames, of faces, and the embedding if any."""
    columns = schema.columns(outputs)
    fields = [*columns.frames, *(f for f in schema.FACES if f.name not in columns.frames.names)]
    if embedding_size:
        fields.append(columns.of("embeddings", embedding_size).field("embedding"))
    return pa.schema(fields)


@dataclass
class ShardReport:
    """Marker of a finished shard."""

    fingerprint: str  # of the shard
    rows_bytes: int = 0  # size of the file of rows; detects a damaged one
    tracks: list[TrackRow] = field(default_factory=list)  # tracks with rows, in order
    dropped: list[Dropped] = field(default_factory=list)  # tracks without rows
    notes: dict[str, list[Any]] = field(default_factory=dict)  # `{oddity: [times, example]}`
    media_seconds: float = 0.0  # time spent on decoding, faces and crops
    teacher_seconds: float = 0.0  # time that the teacher spent on these crops
    wait_seconds: float = 0.0  # time spent waiting for the teacher
    num_decoded: int = 0  # video frames decoded

    def note(self, what: str, example: str) -> None:
        """Count an oddity, and keep its first example."""
        count, first = self.notes.get(what, [0, example])
        self.notes[what] = [count + 1, first]

    @property
    def num_tracks(self) -> int:
        """Number of tracks, dropped ones included."""
        return len(self.tracks) + len(self.dropped)

    @property
    def num_frames(self) -> int:
        """Number of rows."""
        return sum(track.n_frames for track in self.tracks)


def rows_file(state: Path, fingerprint: str) -> Path:
    """Path of a shard's rows."""
    return state / f"{fingerprint[:32]}.parquet"


def marker_file(state: Path, fingerprint: str) -> Path:
    """Path of a shard's marker."""
    return state / f"{fingerprint[:32]}.json"


def write_shard(state: Path, table: pa.Table, report: ShardReport) -> None:
    """Write the rows of a shard, see `row_columns`, then its marker; set `rows_bytes` of it."""
    with replace_file(rows_file(state, report.fingerprint)) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        report.rows_bytes = temporary.stat().st_size
    marker = dataclasses.asdict(report)
    marker["tracks"] = [dataclasses.astuple(track) for track in report.tracks]
    marker["dropped"] = [dataclasses.astuple(dropped) for dropped in report.dropped]
    write_text(marker_file(state, report.fingerprint), json.dumps(marker))


def read_report(state: Path, fingerprint: str, rows_bytes: int) -> ShardReport | None:
    """Read the marker of a shard; None if it is damaged or its rows are not `rows_bytes` long."""
    try:
        marker = json.loads(marker_file(state, fingerprint).read_text(encoding="utf-8"))
        marker["tracks"] = [TrackRow(TrackKey(*key), *rest) for key, *rest in marker["tracks"]]
        marker["dropped"] = [Dropped(*values) for values in marker["dropped"]]
        report = ShardReport(**marker)
    except OSError as error:
        if is_remote(state) and error.errno != errno.ENOENT:
            raise  # a store that does not answer says nothing about the shard
        return None
    except (ValueError, TypeError, KeyError):
        return None
    is_whole = report.fingerprint == fingerprint and report.rows_bytes == rows_bytes
    return report if is_whole else None
