"""Finished shards become a dataset."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.rows import Chunk, Dropped
from emovox.dataset.writer import Header, dataset_files, write_dataset
from emovox.errors import CheckError
from emovox.labelling.prefetch import OUR_OWN
from emovox.labelling.shard import ShardReport, marker_file, rows_file
from emovox.paths import RemotePath, is_remote, local_copy, map_ahead


def finish(
    out: Path,
    state: Path,
    reports: Sequence[ShardReport],
    assigned: Mapping[str, str],
    dropped: list[Dropped],
    header: Header,
    *,
    hdf5: bool,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Write the dataset of finished shards into `out`, and return its manifest.

    Args:
        out: folder of the dataset.
        state: folder of the shards.
        reports: of every shard, in the order of the dataset.
        assigned: split of every track.
        dropped: every track without frames.
        header: description of the dataset.
        hdf5: write each split as HDF5 too.
        check: raises if another run has taken over `out`; called before anything remote in it
            changes, and before the manifest.

    Raises:
        CheckError: the rows of a shard are damaged; its marker is removed, so that the next run
            builds it again.
    """
    chunks = _chunks(state, reports, assigned)
    if not is_remote(out):
        return write_dataset(out, chunks, dropped, header, hdf5=hdf5)
    with tempfile.TemporaryDirectory(prefix="emovox-") as folder:
        manifest = write_dataset(Path(folder), chunks, dropped, header, hdf5=hdf5)
        _upload(Path(folder), out, check)
    return manifest


def _upload(folder: Path, out: RemotePath, check: Callable[[], None]) -> None:
    """Replace the dataset in `out`: its manifest is removed first, the new one is put last."""
    check()
    (out / schema.MANIFEST).unlink(missing_ok=True)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    for name in sorted(names - {schema.MANIFEST}):
        (out / name).put(folder / name)
    existing = {path.name for path in out.iterdir()}
    for name in dataset_files():
        if name not in names and name.split("/")[0] in existing:
            (out / name).unlink(missing_ok=True)
    check()
    (out / schema.MANIFEST).put(folder / schema.MANIFEST)


def _chunks(
    state: Path, reports: Sequence[ShardReport], assigned: Mapping[str, str]
) -> Iterator[Chunk]:
    """Yield the rows of all shards, cut into runs of tracks of the same split."""

    def read(report: ShardReport) -> pa.Table:
        return _read_rows(state, report.fingerprint)

    tables = (map_ahead if is_remote(state) else map)(read, reports)
    for report, rows in zip(reports, tables, strict=True):
        start = 0
        for split, run in groupby(report.tracks, lambda track: assigned[track.track_id]):
            tracks = list(run)
            num_rows = sum(track.n_frames for track in tracks)
            yield Chunk(split, tracks, rows.slice(start, num_rows))
            start += num_rows


def _read_rows(state: Path, fingerprint: str) -> pa.Table:
    path = rows_file(state, fingerprint)
    damage: Exception
    try:
        with local_copy(path) as local:
            try:
                return pq.read_table(local, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                if getattr(error, "errno", None) in OUR_OWN:
                    raise
                damage = error
    except FileNotFoundError as error:
        damage = error
    marker_file(state, fingerprint).unlink(missing_ok=True)
    message = f"{path}: missing or damaged; rerun the same command to rebuild its tracks"
    raise CheckError(message) from damage
