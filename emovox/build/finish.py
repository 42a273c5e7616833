"""From finished shards to a dataset: merge by streaming, describe, and the manifest last."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.build.plan import Shard, ShardSettings
from emovox.build.shard import ShardReport, TrackResult, marker_file, read_report, rows_file
from emovox.corpus.tracks import Dropped, Track
from emovox.dataset import schema
from emovox.dataset.card import render_card
from emovox.dataset.files import remove_leftovers, write_text
from emovox.dataset.store import ParquetTable, WrittenFile, describe_file, write_hdf5
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError


@dataclass
class _Split:
    """The files and counts of one split while it grows."""

    tables: dict[str, ParquetTable]
    identities: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)


def finish(
    out: Path,
    state: Path,
    shards: Sequence[Shard],
    assigned: Mapping[str, str],
    dropped: list[Dropped],
    settings: ShardSettings,
    description: Mapping[str, Any],
    hdf5: bool,
) -> dict[str, Any]:
    """Write the dataset into `out` from finished shards; return its manifest.

    Args:
        assigned: split of every track.
        dropped: tracks that never reached a shard; those of the shards are added.
        description: `name`, `version`, `layout` and the body of provenance.json.
    """
    _clear(out)
    name = str(description["name"])
    dropped = list(dropped)
    with ExitStack() as stack:
        splits: dict[str, _Split] = {}
        for shard in shards:
            report = read_report(state, shard.fingerprint)
            if report is None:
                raise CheckError(
                    f"{state}: a shard vanished or changed; run the same command again"
                )
            dropped += report.dropped
            rows = _read_rows(state, shard)
            for split, tracks, part in _by_split(shard, report, rows, assigned):
                if split not in splits:
                    splits[split] = _open_split(stack, out, name, split)
                _append(splits[split], split, tracks, part)
        splits = {split: splits[split] for split in schema.SPLITS if split in splits}
    files = [
        written
        for table in schema.TABLES
        for split in splits.values()
        if (written := split.tables[table].written)
    ]
    if hdf5:
        for split in splits:
            frames, tracks_file = (out / schema.table_file(t, split) for t in ("frames", "tracks"))
            files.append(write_hdf5(out, schema.hdf5_file(split), frames, tracks_file, name))
    files.append(_write_dropped(out, name, dropped))
    totals = {
        "tracks": sum(s.tables["tracks"].num_rows for s in splits.values()),
        "frames": sum(s.tables["frames"].num_rows for s in splits.values()),
        "dropped": len(dropped),
        "by_split": {
            split: {
                "tracks": s.tables["tracks"].num_rows,
                "frames": s.tables["frames"].num_rows,
                "identities": len(s.identities),
            }
            for split, s in splits.items()
        },
    }
    manifest = {
        "schema_version": schema.SCHEMA_VERSION,
        "name": name,
        "version": description["version"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "emotions": list(EMOTIONS),
        "step_ms": settings.step_ms,
        "teacher": {"name": settings.teacher_name, "sha256": settings.teacher_sha256},
        "totals": totals,
        "files": [],
    }
    labels = {split: s.labels for split, s in splits.items()}
    write_text(out / schema.CARD, render_card(manifest, labels, str(description["layout"])))
    write_text(out / schema.PROVENANCE, _json(description["provenance"]))
    documents = [_describe_document(out, n) for n in (schema.CARD, schema.PROVENANCE)]
    sums = "".join(f"{f['sha256']}  {f['path']}\n" for f in [*map(asdict, files), *documents])
    write_text(out / schema.CHECKSUMS, sums)
    documents.append(_describe_document(out, schema.CHECKSUMS))
    manifest["files"] = [*map(asdict, files), *documents]
    write_text(out / schema.MANIFEST, _json(manifest))
    return manifest


def _read_rows(state: Path, shard: Shard) -> pa.Table:
    path = rows_file(state, shard.fingerprint)
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        marker_file(state, shard.fingerprint).unlink(missing_ok=True)
        raise CheckError(
            f"{path}: damaged; run the same command again to build its tracks anew"
        ) from error


def _clear(out: Path) -> None:
    """Take away an earlier dataset, its manifest first: what is left is visibly no dataset."""
    names = [schema.MANIFEST, schema.CHECKSUMS, schema.CARD, schema.PROVENANCE, schema.DROPPED_FILE]
    for split in schema.SPLITS:
        names += [schema.table_file(table, split) for table in schema.TABLES]
        names.append(schema.hdf5_file(split))
    for name in names:
        (out / name).unlink(missing_ok=True)
        remove_leftovers(out / name)
    for folder in (*schema.TABLES, "hdf5"):
        if (out / folder).is_dir() and not any((out / folder).iterdir()):
            (out / folder).rmdir()


def _open_split(stack: ExitStack, out: Path, dataset: str, split: str) -> _Split:
    tables = {}
    for table in schema.TABLES:
        file = ParquetTable(out, schema.table_file(table, split), table, dataset, split)
        tables[table] = stack.enter_context(file)
    return _Split(tables)


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


def _append(
    target: _Split, split: str, tracks: list[tuple[Track, TrackResult]], rows: pa.Table
) -> None:
    counts = np.array([result.n_frames for _, result in tracks])
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    logits = np.stack([rows[name].to_numpy() for name in schema.LOGITS], axis=1)
    maxima = np.maximum.reduceat(logits, starts, axis=0)
    labels = [EMOTIONS[k] for k in maxima.argmax(axis=1)]
    columns: list[Any] = [
        [track.track_id for track, _ in tracks],
        [track.identity_id for track, _ in tracks],
        [track.video_id for track, _ in tracks],
        [track.track_num for track, _ in tracks],
        [split] * len(tracks),
        counts,
        [result.n_expected for _, result in tracks],
        [result.duration_ms for _, result in tracks],
        starts + target.tables["frames"].num_rows,
        labels,
        *np.ascontiguousarray(maxima.T),
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema.TRACKS, strict=True)]
    target.tables["tracks"].write(pa.Table.from_arrays(arrays, schema=schema.TRACKS))
    for table in ("frames", "faces"):
        target.tables[table].write(rows.select(schema.SCHEMAS[table].names))
    target.identities.update(track.identity_id for track, _ in tracks)
    target.labels.update(labels)


def _write_dropped(out: Path, name: str, dropped: list[Dropped]) -> WrittenFile:
    rows = sorted((asdict(d) for d in dropped), key=lambda row: (row["track_id"], row["source"]))
    with ParquetTable(out, schema.DROPPED_FILE, "dropped", name, "") as table:
        table.write(pa.Table.from_pylist(rows, schema=schema.DROPPED))
    assert table.written is not None
    return table.written


def _describe_document(out: Path, name: str) -> dict[str, Any]:
    described = asdict(describe_file(out, name, 0, ""))
    return {**described, "rows": None, "content_sha256": None}


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
