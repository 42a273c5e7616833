"""Writer of datasets: rows are streamed into tables, then the documents and the manifest follow."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emovox.dataset import schema, store
from emovox.dataset.card import read_fields, render_card
from emovox.dataset.rows import Chunk, Dropped, TrackRow
from emovox.emotions import Outputs
from emovox.files import remove_leftovers, write_text

# Columns of `tracks` that a row's key has, and that the row has.
KEY_FIELDS = ("track_id", "identity_id", "video_id", "track_num")
TRACK_FIELDS = tuple(field.name for field in fields(TrackRow) if field.name != "key")


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset, apart from its rows."""

    name: str
    version: str
    step_ms: int  # between grid points
    teacher: Mapping[str, str | None]  # `name`, and `sha256` of the weights; None where unknown
    provenance: Mapping[str, Any]  # its `origin` is a sentence about the source of the rows
    tables: tuple[str, ...] = ("frames", "tracks", "faces")  # with a file for each split
    outputs: Outputs = field(default_factory=Outputs)


def _track_table(chunk: Chunk, first: int, columns: schema.Columns) -> pa.Table:
    """Return the rows of `tracks` for a chunk whose frames begin at row `first` of their file."""
    logits, values = (store.matrix_of(chunk.rows, n) for n in (columns.logits, columns.values))
    tracks, emotions = chunk.tracks, columns.outputs.emotions
    counts = np.array([track.n_frames for track in tracks])
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    maxima = np.maximum.reduceat(logits, starts, axis=0)
    # Frames of each track by the emotion of their largest logit, int `[T, E]`.
    cells = np.repeat(np.arange(len(tracks)), counts) * len(emotions) + logits.argmax(axis=1)
    votes = np.bincount(cells, minlength=len(tracks) * len(emotions)).reshape(-1, len(emotions))
    means = np.add.reduceat(values.astype(float), starts, axis=0) / counts[:, None]
    found: dict[str, Any] = {
        **{name: [getattr(track.key, name) for track in tracks] for name in KEY_FIELDS},
        **{name: [getattr(track, name) for track in tracks] for name in TRACK_FIELDS},
        "split": [chunk.split] * len(tracks),
        "row_offset": starts + first,
        "label": [emotions[k] for k in maxima.argmax(axis=1)],
        "majority": [emotions[k] for k in votes.argmax(axis=1)],
        **dict(zip(columns.maxima, np.ascontiguousarray(maxima.T), strict=True)),
        **dict(zip(columns.means, np.ascontiguousarray(means.T), strict=True)),
    }
    return pa.table(found, schema=columns.tracks)


def write_chunks(
    out: Path, chunks: Iterable[Chunk], dropped: Sequence[Dropped], info: DatasetInfo, *, hdf5: bool
) -> dict[str, Any]:
    """Write a dataset into the new folder `out`, its manifest last; return the manifest.

    `chunks` are sorted by track within each split, and read one at a time; `dropped` are tracks
    without frames. With `hdf5`, each split is written as HDF5 too.
    """
    splits: dict[str, dict[str, store.ParquetTable]] = {}  # tables of each split, by name
    identities: dict[str, set[str]] = defaultdict(set)
    columns = schema.columns(info.outputs)
    with ExitStack() as stack:
        for chunk in chunks:
            if chunk.split not in splits:
                size = schema.embedding_size(chunk.rows.schema)
                options = (info.name, info.outputs, chunk.split, size)
                splits[chunk.split] = {
                    table: stack.enter_context(store.create_table(out, table, *options))
                    for table in info.tables
                }
            tables = splits[chunk.split]
            tracks = _track_table(chunk, tables["frames"].num_rows, columns)
            for name, table in tables.items():
                table.write(tracks if name == "tracks" else chunk.rows.select(table.names))
            identities[chunk.split].update(track.key.identity_id for track in chunk.tracks)
    splits = {split: splits[split] for split in schema.SPLITS if split in splits}
    files = [tables[table].written for table in info.tables for tables in splits.values()]
    if hdf5:
        files += [store.write_hdf5(out, split, info.outputs) for split in splits]
    rows = sorted(map(asdict, dropped), key=lambda row: (row["track_id"], row["source"]))
    with store.create_table(out, "dropped", info.name, info.outputs) as failed:
        failed.write(pa.Table.from_pylist(rows, schema=schema.DROPPED))
    by_split = {
        split: {
            "tracks": tables["tracks"].num_rows,
            "frames": tables["frames"].num_rows,
            "identities": len(identities[split]),
        }
        for split, tables in splits.items()
    }
    totals = {key: sum(n[key] for n in by_split.values()) for key in ("tracks", "frames")}
    manifest = {
        "schema_version": schema.SCHEMA_VERSION,
        "name": info.name,
        "version": info.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "emotions": list(info.outputs.emotions),
        "values": list(info.outputs.values),
        "step_ms": info.step_ms,
        "teacher": dict(info.teacher),
        "totals": {**totals, "dropped": len(dropped), "by_split": by_split},
        "files": [*files, failed.written],
    }
    write_documents(out, manifest, info.provenance)
    write_manifest(out, manifest)
    return manifest


def write_documents(out: Path, manifest: dict[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write card and provenance of the tables in `out`; add both to the files of `manifest`."""
    write_text(out / schema.CARD, render_card(out, manifest, provenance, read_fields(out)))
    write_text(out / schema.PROVENANCE, _json(provenance))
    list_documents(out, manifest, schema.CARD, schema.PROVENANCE)


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write the checksums of all files that the manifest lists, and last the manifest."""
    sums = "".join(f"{file['sha256']}  {file['path']}\n" for file in manifest["files"])
    write_text(out / schema.CHECKSUMS, sums)
    list_documents(out, manifest, schema.CHECKSUMS)
    write_text(out / schema.MANIFEST, _json(manifest))


def list_documents(out: Path, manifest: dict[str, Any], *names: str) -> None:
    """Add files that are not tables to a manifest."""
    manifest["files"] += [store.describe_file(out, name) for name in names]


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def replace_dataset(out: Path, new: Path) -> None:
    """Move a finished dataset from a folder on the same disk to `out`, in place of the one there.

    The manifest of the old dataset is removed first and the new one moved last, so that what a
    killed process leaves behind is not taken for a dataset. takedown.txt and card.toml are
    kept: they are not part of the dataset being replaced.
    """
    for name in dataset_files():
        (out / name).unlink(missing_ok=True)
        remove_leftovers(out / name)
    for name in reversed(dataset_files()):
        if (new / name).exists():
            (out / name).parent.mkdir(exist_ok=True)
            (new / name).rename(out / name)
    for folder in (*schema.TABLES, "hdf5"):
        if (out / folder).is_dir() and not any((out / folder).iterdir()):
            (out / folder).rmdir()


def dataset_files() -> list[str]:
    """Return every file that a dataset may consist of, its manifest first."""
    names = [schema.MANIFEST, schema.CHECKSUMS, schema.CROISSANT, schema.CARD, schema.PROVENANCE]
    names.append(schema.DROPPED_FILE)
    for split in schema.SPLITS:
        names += [schema.table_file(table, split) for table in schema.TABLES]
        names.append(schema.hdf5_file(split))
    return names
