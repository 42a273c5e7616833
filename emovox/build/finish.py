"""From finished shards to a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.build.plan import Shard
from emovox.build.shard import ShardReport, TrackResult, marker_file, read_report, rows_file
from emovox.build.tables import Chunk, Header, TrackRow, write_dataset
from emovox.corpus.tracks import Dropped, Track
from emovox.errors import CheckError


def finish(
    out: Path,
    state: Path,
    shards: Sequence[Shard],
    assigned: Mapping[str, str],
    dropped: list[Dropped],
    header: Header,
    *,
    hdf5: bool,
) -> dict[str, Any]:
    """Write the dataset into `out` from finished shards; return its manifest.

    Args:
        assigned: split of every track.
        dropped: tracks that never reached a shard; those of the shards are added.
        header: what the dataset says of itself.
        hdf5: write each split as HDF5 too.
    """
    dropped = list(dropped)
    chunks = _chunks(state, shards, assigned, dropped)
    return write_dataset(out, chunks, dropped, header, hdf5=hdf5)


def _chunks(
    state: Path, shards: Sequence[Shard], assigned: Mapping[str, str], dropped: list[Dropped]
) -> Iterator[Chunk]:
    """The rows of all shards, and their dropped tracks into `dropped`."""
    for shard in shards:
        report = read_report(state, shard.fingerprint)
        if report is None:
            raise CheckError(f"{state}: a shard vanished or changed; run the same command again")
        dropped += report.dropped
        rows = _read_rows(state, shard)
        for split, tracks, part in _by_split(shard, report, rows, assigned):
            yield Chunk(split, [_track_row(*track) for track in tracks], part)


def _track_row(track: Track, result: TrackResult) -> TrackRow:
    return TrackRow(
        track.identity_id,
        track.video_id,
        track.track_num,
        result.n_frames,
        result.n_expected,
        result.duration_ms,
    )


def _read_rows(state: Path, shard: Shard) -> pa.Table:
    path = rows_file(state, shard.fingerprint)
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        marker_file(state, shard.fingerprint).unlink(missing_ok=True)
        raise CheckError(
            f"{path}: damaged; run the same command again to build its tracks anew"
        ) from error


def _by_split(
    shard: Shard, report: ShardReport, rows: pa.Table, assigned: Mapping[str, str]
) -> Iterator[tuple[str, list[tuple[Track, TrackResult]], pa.Table]]:
    """Cut a shard's rows into runs of tracks of the same split."""
    tracks = {track.track_id: track for track in shard.tracks}
    run: list[tuple[Track, TrackResult]] = []
    start = stop = 0
    for result in report.tracks:
        split = assigned[result.track_id]
        if run and assigned[run[-1][1].track_id] != split:
            yield assigned[run[-1][1].track_id], run, rows.slice(start, stop - start)
            run, start = [], stop
        run.append((tracks[result.track_id], result))
        stop += result.n_frames
    if run:
        yield assigned[run[-1][1].track_id], run, rows.slice(start, stop - start)
