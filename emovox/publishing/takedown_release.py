"""The tables of a dataset for its release: copied, or written anew without whom a list names."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.store import ParquetTable, write_hdf5
from emovox.dataset.takedown import NAMING, Kept, cut, cut_tracks, find_kept, names_listed
from emovox.files import copy_file

# What a release writes itself.
REGENERATED = {
    *(schema.MANIFEST, schema.CARD, schema.PROVENANCE),
    *(schema.CROISSANT, schema.TAKEDOWN, schema.CHECKSUMS),
}
TABLE_OF = {schema.table_file(t, s): (t, s) for t in schema.TABLES for s in schema.SPLITS}
HDF5_OF = {schema.hdf5_file(split): split for split in schema.SPLITS}


@dataclass(frozen=True)
class Removal:
    """What a takedown list takes from a valid dataset.

    Attributes:
        source: folder of the dataset.
        manifest: content of its manifest.
        listed: hashes of identities.
        kept: what is left of each split that the list touches.
        dropped: what is left of `dropped`; None if that is everything.
    """

    source: Path
    manifest: Mapping[str, Any]
    listed: Collection[str]
    kept: Mapping[str, Kept]
    dropped: pa.Table | None

    @property
    def removed(self) -> dict[str, int]:
        """Identities, tracks, frames and dropped tracks that go, as provenance has them."""
        kept, num_dropped = self.kept.values(), self.manifest["totals"]["dropped"]
        return {
            "identities": len(frozenset().union(*(k.identities for k in kept))),
            "tracks": sum(k.num_tracks for k in kept),
            "frames": sum(k.num_frames for k in kept),
            "dropped": 0 if self.dropped is None else num_dropped - self.dropped.num_rows,
        }

    @property
    def totals(self) -> dict[str, Any]:
        """Totals of the manifest of what is left."""
        before, removed = self.manifest["totals"], self.removed
        left = {key: before[key] - removed[key] for key in ("tracks", "frames", "dropped")}
        by_split = {
            split: self._left(counts, self.kept.get(split))
            for split, counts in before["by_split"].items()
        }
        return left | {"by_split": {s: n for s, n in by_split.items() if n["tracks"]}}

    def _left(self, counts: Mapping[str, int], kept: Kept | None) -> dict[str, int]:
        if kept is None:
            return dict(counts)
        return {
            "tracks": counts["tracks"] - kept.num_tracks,
            "frames": counts["frames"] - kept.num_frames,
            "identities": counts["identities"] - len(kept.identities),
        }

    def provenance(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Provenance without the tracks that go."""
        named = provenance.get("split_disagreements")
        if not named:
            return dict(provenance)
        left = [one for one in named if not names_listed(one["track_id"], self.listed)]
        return {**provenance, "split_disagreements": left}

    def write(self, out: Path) -> list[dict[str, Any]]:
        """Write the tables, and what else the manifest lists, below `out`; return their entries."""
        # HDF5 is made of the tables, so those come first.
        files = sorted(self.manifest["files"], key=lambda file: file["path"] in HDF5_OF)
        written = [self._write(out, f) for f in files if f["path"] not in REGENERATED]
        return [entry for entry in written if entry]

    def _write(self, out: Path, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        """One file; None if nothing is left of it."""
        name, dataset = entry["path"], self.manifest["name"]
        table, split = TABLE_OF.get(name, ("", HDF5_OF.get(name, "")))
        if kept := self.kept.get(split):
            if not kept.tracks:
                return None
            if not table:
                frames, tracks = (out / schema.table_file(t, split) for t in ("frames", "tracks"))
                return asdict(write_hdf5(out, name, frames, tracks, dataset))
            rows = _read(self.source / name)
            left = cut_tracks(rows, kept.tracks) if table == "tracks" else cut(rows, kept.frames)
            return _store(left, out, name, table, dataset, split)
        if name == schema.DROPPED_FILE and self.dropped is not None:
            return _store(iter([self.dropped]), out, name, "dropped", dataset, "")
        copy_file(self.source / name, out / name)
        return dict(entry)


def find_removal(source: Path, manifest: Mapping[str, Any], listed: Collection[str]) -> Removal:
    """What a takedown list takes from a valid dataset."""
    if not listed:
        return Removal(source, manifest, listed, {}, None)
    kept = {}
    for split, counts in manifest["totals"]["by_split"].items():
        columns = ["identity_id", "row_offset"]
        tracks = pq.read_table(source / schema.table_file("tracks", split), columns=columns)
        if found := find_kept(tracks, counts["frames"], listed):
            kept[split] = found
    dropped = pq.read_table(source / schema.DROPPED_FILE)
    texts = zip(*(dropped[name].to_pylist() for name in NAMING), strict=True)
    keep = [not any(names_listed(text, listed) for text in row) for row in texts]
    left = None if all(keep) else dropped.filter(pa.array(keep, pa.bool_()))
    return Removal(source, manifest, listed, kept, left)


def _read(path: Path) -> Iterator[pa.Table]:
    file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    for batch in file.iter_batches(schema.ROW_GROUP_ROWS):
        yield pa.Table.from_batches([batch])


def _store(
    rows: Iterator[pa.Table], out: Path, name: str, table: str, dataset: str, split: str
) -> dict[str, Any]:
    with ParquetTable(out, name, table, dataset, split) as file:
        for part in rows:
            file.write(part)
    assert file.written is not None
    return asdict(file.written)
