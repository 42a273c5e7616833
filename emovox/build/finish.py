"""From finished shards to a dataset."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.build.plan import Shard
from emovox.build.shard import ShardReport, TrackResult, marker_file, read_report, rows_file
from emovox.build.sources import OUR_OWN
from emovox.build.tables import Chunk, Header, TrackRow, dataset_files, write_dataset
from emovox.corpus.tracks import Dropped, Track
from emovox.dataset import schema
from emovox.errors import CheckError
from emovox.paths import RemotePath, is_remote, local_copy, map_ahead


def finish(
    out: Path,
    state: Path,
    shards: Sequence[Shard],
    assigned: Mapping[str, str],
    dropped: list[Dropped],
    header: Header,
    *,
    hdf5: bool,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Write the dataset into `out` from finished shards; return its manifest.

    Args:
        assigned: split of every track.
        dropped: tracks that never reached a shard; those of the shards are added.
        header: what the dataset says of itself.
        hdf5: write each split as HDF5 too.
        check: raises if `out` is no longer ours; called before anything in it that is remote
            changes, and before the manifest.
    """
    dropped = list(dropped)
    chunks = _chunks(state, shards, assigned, dropped)
    if not is_remote(out):
        return write_dataset(out, chunks, dropped, header, hdf5=hdf5)
    with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
        manifest = write_dataset(Path(folder), chunks, dropped, header, hdf5=hdf5)
        _upload(Path(folder), out, check)
    return manifest


def _upload(folder: Path, out: RemotePath, check: Callable[[], None]) -> None:
    """Put a dataset in the place of an earlier one, whose manifest goes first; the new comes last.

    What lies in `out` is visibly no dataset meanwhile.
    """
    check()
    (out / schema.MANIFEST).unlink(missing_ok=True)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    for name in sorted(names - {schema.MANIFEST}):
        (out / name).put(folder / name)
    there = {path.name for path in out.iterdir()}
    for name in dataset_files():
        if name not in names and name.split("/")[0] in there:
            (out / name).unlink(missing_ok=True)
    check()
    (out / schema.MANIFEST).put(folder / schema.MANIFEST)


def _chunks(
    state: Path, shards: Sequence[Shard], assigned: Mapping[str, str], dropped: list[Dropped]
) -> Iterator[Chunk]:
    """The rows of all shards, and their dropped tracks into `dropped`."""

    def read(shard: Shard) -> tuple[Shard, ShardReport, pa.Table]:
        report = read_report(state, shard.fingerprint)
        if report is None:
            raise CheckError(f"{state}: a shard vanished or changed; run the same command again")
        return shard, report, _read_rows(state, shard)

    for shard, report, rows in (map_ahead if is_remote(state) else map)(read, shards):
        dropped += report.dropped
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
    with local_copy(path) as local:
        try:
            return pq.read_table(local, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) in OUR_OWN:
                raise
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
