"""Rows in, a dataset out: the tables by streaming, then card, provenance, checksums, manifest."""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.card import Counts, logits_of, render_card
from emovox.dataset.rows import Chunk, Dropped
from emovox.dataset.store import ParquetTable, WrittenFile, describe_file, write_hdf5
from emovox.emotions import EMOTIONS
from emovox.files import remove_leftovers, write_text

KEY_FIELDS = ("track_id", "identity_id", "video_id", "track_num")  # as they open `tracks`


@dataclass(frozen=True)
class Header:
    """What a dataset says of itself, apart from its rows.

    Attributes:
        name, version, step_ms: as in the manifest.
        teacher: its name and the sha256 of its weights, None where it is not known.
        provenance: content of provenance.json, with `origin`, a sentence for the card on where the
            rows come from.
        tables: those with a file for each split.
    """

    name: str
    version: str
    step_ms: int
    teacher: Mapping[str, str | None]
    provenance: Mapping[str, Any]
    tables: tuple[str, ...] = schema.TABLES


@dataclass
class _Split:
    """The files and counts of one split while it grows."""

    tables: dict[str, ParquetTable]
    identities: set[str] = field(default_factory=set)
    counts: Counts = field(default_factory=Counts)


def write_dataset(
    out: Path, chunks: Iterable[Chunk], dropped: list[Dropped], header: Header, *, hdf5: bool
) -> dict[str, Any]:
    """Write a dataset into `out`; return its manifest, which is written last.

    Args:
        out: folder; an earlier dataset in it is taken away first.
        chunks: sorted by track within each split. Taken one at a time.
        dropped: tracks without frames.
        header: the rest.
        hdf5: write each split as HDF5 too.
    """
    clear(out)
    with ExitStack() as stack:
        splits: dict[str, _Split] = {}
        for chunk in chunks:
            if chunk.split not in splits:
                splits[chunk.split] = _open_split(stack, out, header, chunk.split)
            _append(splits[chunk.split], chunk)
        splits = {split: splits[split] for split in schema.SPLITS if split in splits}
    files = [
        written
        for table in header.tables
        for split in splits.values()
        if (written := split.tables[table].written)
    ]
    if hdf5:
        for split in splits:
            frames, tracks_file = (out / schema.table_file(t, split) for t in ("frames", "tracks"))
            name = schema.hdf5_file(split)
            files.append(write_hdf5(out, name, frames, tracks_file, header.name))
    files.append(_write_dropped(out, header.name, dropped))
    manifest = {
        "schema_version": schema.SCHEMA_VERSION,
        "name": header.name,
        "version": header.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "emotions": list(EMOTIONS),
        "step_ms": header.step_ms,
        "teacher": dict(header.teacher),
        "totals": _totals(splits, len(dropped)),
        "files": [asdict(f) for f in files],
    }
    write_documents(out, manifest, header.provenance, {s: splits[s].counts for s in splits})
    write_manifest(out, manifest)
    return manifest


def write_documents(
    out: Path,
    manifest: dict[str, Any],
    provenance: Mapping[str, Any],
    counts: Mapping[str, Counts],
) -> None:
    """Write card and provenance, and list them in a manifest that lists the tables already."""
    write_text(out / schema.CARD, render_card(manifest, provenance, counts))
    write_text(out / schema.PROVENANCE, _json(provenance))
    list_documents(out, manifest, schema.CARD, schema.PROVENANCE)


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write the checksums of all files that the manifest lists, and last the manifest."""
    sums = "".join(f"{file['sha256']}  {file['path']}\n" for file in manifest["files"])
    write_text(out / schema.CHECKSUMS, sums)
    list_documents(out, manifest, schema.CHECKSUMS)
    write_text(out / schema.MANIFEST, _json(manifest))


def list_documents(out: Path, manifest: dict[str, Any], *names: str) -> None:
    """Add files that are no tables to what a manifest lists."""
    for name in names:
        described = asdict(describe_file(out, name, 0, ""))
        manifest["files"].append({**described, "rows": None, "content_sha256": None})


def _totals(splits: Mapping[str, _Split], num_dropped: int) -> dict[str, Any]:
    by_split = {
        split: {
            "tracks": s.tables["tracks"].num_rows,
            "frames": s.tables["frames"].num_rows,
            "identities": len(s.identities),
        }
        for split, s in splits.items()
    }
    return {
        "tracks": sum(counts["tracks"] for counts in by_split.values()),
        "frames": sum(counts["frames"] for counts in by_split.values()),
        "dropped": num_dropped,
        "by_split": by_split,
    }


def clear(out: Path) -> None:
    """Take away an earlier dataset, its manifest first: what is left is visibly no dataset.

    A takedown list stays: it is not the dataset that says whom it must not show.
    """
    for name in dataset_files():
        (out / name).unlink(missing_ok=True)
        remove_leftovers(out / name)
    for folder in (*schema.TABLES, "hdf5"):
        if (out / folder).is_dir() and not any((out / folder).iterdir()):
            (out / folder).rmdir()


def dataset_files() -> list[str]:
    """Every file that a dataset may consist of, its manifest first."""
    names = [schema.MANIFEST, schema.CHECKSUMS, schema.CROISSANT, schema.CARD, schema.PROVENANCE]
    names.append(schema.DROPPED_FILE)
    for split in schema.SPLITS:
        names += [schema.table_file(table, split) for table in schema.TABLES]
        names.append(schema.hdf5_file(split))
    return names


def _open_split(stack: ExitStack, out: Path, header: Header, split: str) -> _Split:
    tables = {}
    for table in header.tables:
        file = ParquetTable(out, schema.table_file(table, split), table, header.name, split)
        tables[table] = stack.enter_context(file)
    return _Split(tables)


def _append(target: _Split, chunk: Chunk) -> None:
    tracks, rows = chunk.tracks, chunk.rows
    counts = np.array([track.n_frames for track in tracks])
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    logits = logits_of(rows)
    maxima = np.maximum.reduceat(logits, starts, axis=0)
    labels = [EMOTIONS[k] for k in maxima.argmax(axis=1)]
    columns: list[Any] = [
        *([getattr(track.key, name) for track in tracks] for name in KEY_FIELDS),
        [chunk.split] * len(tracks),
        counts,
        [track.n_expected for track in tracks],
        [track.duration_ms for track in tracks],
        starts + target.tables["frames"].num_rows,
        labels,
        *np.ascontiguousarray(maxima.T),
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema.TRACKS, strict=True)]
    target.tables["tracks"].write(pa.Table.from_arrays(arrays, schema=schema.TRACKS))
    for name, table in target.tables.items():
        if name != "tracks":
            table.write(rows.select(schema.SCHEMAS[name].names))
    target.identities.update(track.key.identity_id for track in tracks)
    target.counts.add(labels, logits)


def _write_dropped(out: Path, name: str, dropped: list[Dropped]) -> WrittenFile:
    rows = sorted((asdict(d) for d in dropped), key=lambda row: (row["track_id"], row["source"]))
    with ParquetTable(out, schema.DROPPED_FILE, "dropped", name, "") as table:
        table.write(pa.Table.from_pylist(rows, schema=schema.DROPPED))
    assert table.written is not None
    return table.written


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
