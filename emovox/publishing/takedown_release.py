"""Tables of a dataset for its release: copied, or rewritten without the listed identities."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema, takedown
from emovox.dataset.json_schemas import outputs_of
from emovox.dataset.store import FileEntry, create_table, read_pieces, write_hdf5
from emovox.files import copy_file

# Files that every release writes itself.
REGENERATED = (
    *(schema.MANIFEST, schema.CARD, schema.PROVENANCE),
    *(schema.CROISSANT, schema.TAKEDOWN, schema.CHECKSUMS),
)
TABLE_OF = {schema.table_file(t, s): (t, s) for t in schema.TABLES for s in schema.SPLITS}
HDF5_OF = {schema.hdf5_file(split): ("hdf5", split) for split in schema.SPLITS}


@dataclass(frozen=True)
class Removal:
    """Rows that a takedown list removes from a valid dataset."""

    source: Path  # folder of the dataset
    manifest: Mapping[str, Any]
    listed: Collection[str]  # hashes of identities
    views: Mapping[str, takedown.SplitView]  # remaining rows of each split with listed identities
    dropped: pa.Table | None  # remaining rows of `dropped`; None if all remain
    matched: frozenset[str] = frozenset()  # listed hashes that the dataset has a row or mention of

    @property
    def removed(self) -> dict[str, int]:
        """Numbers of removed identities, tracks, frames and dropped tracks, for provenance."""
        views, num_dropped = self.views.values(), self.manifest["totals"]["dropped"]
        return {
            "identities": len(frozenset().union(*(view.identities for view in views))),
            "tracks": sum(view.num_hidden_tracks for view in views),
            "frames": sum(view.num_hidden_frames for view in views),
            "dropped": 0 if self.dropped is None else num_dropped - self.dropped.num_rows,
        }

    @property
    def totals(self) -> dict[str, Any]:
        """Totals of the manifest without the removed rows."""
        before, removed = self.manifest["totals"], self.removed
        by_split = {split: dict(counts) for split, counts in before["by_split"].items()}
        for split, view in self.views.items():
            by_split[split]["tracks"] -= view.num_hidden_tracks
            by_split[split]["frames"] -= view.num_hidden_frames
            by_split[split]["identities"] -= len(view.identities)
        return {
            **{key: before[key] - removed[key] for key in ("tracks", "frames", "dropped")},
            "by_split": {split: n for split, n in by_split.items() if n["tracks"]},
        }

    def provenance(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Return provenance without the removed tracks."""
        key = "split_disagreements"
        entries = provenance.get(key, ())
        remaining = [e for e in entries if not takedown.listed_in(e["track_id"], self.listed)]
        return {**provenance, key: remaining} if entries else dict(provenance)

    def write(self, out: Path) -> list[FileEntry]:
        """Write the listed files except `REGENERATED` below `out`; return their entries."""
        # HDF5 files are made from the Parquet files, so those come first.
        files = sorted(self.manifest["files"], key=lambda file: file["path"] in HDF5_OF)
        written = [self._write(out, f) for f in files if f["path"] not in REGENERATED]
        return [entry for entry in written if entry]

    def _write(self, out: Path, entry: FileEntry) -> FileEntry | None:
        """Write one file; return None if no row of it remains."""
        name = entry["path"]
        table, split = (TABLE_OF | HDF5_OF).get(name, ("", ""))
        if view := self.views.get(split):
            if not view.tracks.any():
                return None
            if table == "hdf5":
                return write_hdf5(out, split, outputs_of(self.manifest))
            size = schema.embedding_size(pq.read_schema(self.source / name))
            rows = view.select(table, read_pieces(self.source / name))
            return self._store(rows, out, table, split, size)
        if name == schema.DROPPED_FILE and self.dropped is not None:
            return self._store([self.dropped], out, "dropped")
        copy_file(self.source / name, out / name)
        return entry

    def _store(
        self, rows: Iterable[pa.Table], out: Path, table: str, split: str = "", size: int = 0
    ) -> FileEntry:
        name, outputs = self.manifest["name"], outputs_of(self.manifest)
        with create_table(out, table, name, outputs, split, size) as file:
            for piece in rows:
                file.write(piece)
        return file.written


def find_removal(source: Path, manifest: Mapping[str, Any], listed: Collection[str]) -> Removal:
    """Return the rows that a takedown list removes from a valid dataset."""
    if not listed:
        return Removal(source, manifest, listed, {}, None)
    views = {}
    for split, counts in manifest["totals"]["by_split"].items():
        columns = ["identity_id", "row_offset"]
        tracks = pq.read_table(source / schema.table_file("tracks", split), columns=columns)
        if view := takedown.view_without(tracks, counts["frames"], listed):
            views[split] = view
    dropped = pq.read_table(source / schema.DROPPED_FILE)
    texts = zip(*(dropped[name].to_pylist() for name in takedown.COLUMNS_WITH_IDS), strict=True)
    mentions = [set().union(*(takedown.listed_in(text, listed) for text in row)) for row in texts]
    remains = pa.array([not found for found in mentions], pa.bool_())
    remaining = dropped.filter(remains) if any(mentions) else None
    identities = frozenset().union(*(view.identities for view in views.values()))
    matched = {takedown.hash_identity(identity) for identity in identities}.union(*mentions)
    return Removal(source, manifest, listed, views, remaining, frozenset(matched))
