"""Takedown lists: identities whose rows must not be shown, by the SHA-256 of each identity_id.

A list is text with one hash per line; `#` starts a comment. It holds no names and no ids, so that
it can be published. Every reader applies the list `takedown.txt` in a dataset's folder.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.json_schemas import outputs_of
from emovox.dataset.store import FileEntry, create_table, read_pieces, write_hdf5
from emovox.errors import InputError, first_line
from emovox.files import copy_file, read_text

HASH = re.compile("[0-9a-f]{64}")
HEADER = "# SHA-256 of the identity_id of everyone whose rows were taken out.\n"
COLUMNS_WITH_IDS = ("track_id", "source", "message")  # of `dropped`: may hold an identity_id
PIECES = re.compile(r"[^\W_]+|[\W_]")  # words, and signs one by one
MAX_PIECES = 9  # of an identity_id in a text, such as `anna-maria_de.la-x`


def hash_identity(identity_id: str) -> str:
    """Return the takedown line of an identity: SHA-256 of its id in UTF-8, as hex.

    Example:
        >>> hash_identity("id10001")
        'ba25cc367975d5995c129fab40122299994b4476590b157d082ddae14e8ba937'
    """
    return hashlib.sha256(identity_id.encode()).hexdigest()


def read_list(path: str | os.PathLike[str]) -> frozenset[str]:
    """Return the hashes of a takedown list; lines written by `sha256sum` are accepted.

    Raises:
        InputError: the file is unreadable, or a line is not a SHA-256. Fails rather than skip the
            line, which may be a removal request.
    """
    try:
        lines = read_text(Path(path), encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read ({first_line(error)})") from error
    hashes = set()
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].lower().split()
        if not words:
            continue
        # The message does not show the line, which may be a name.
        if not HASH.fullmatch(words[0]) or words[1:] not in ([], ["-"]):
            raise InputError(
                f"{path}: line {number} is not a SHA-256 in hex; compute it from the identity_id "
                "with `emovox hash-identity`"
            )
        hashes.add(words[0])
    return frozenset(hashes)


def own_list(root: str | os.PathLike[str]) -> frozenset[str]:
    """Return the hashes of a dataset's own takedown.txt; empty if it has none."""
    path = Path(root) / schema.TAKEDOWN
    return read_list(path) if path.exists() else frozenset()


def format_list(hashes: Iterable[str]) -> str:
    """Return a takedown list as text, sorted."""
    return HEADER + "".join(f"{digest}\n" for digest in sorted(hashes))


def listed_in(text: str, listed: Collection[str]) -> set[str]:
    """Return the hashes of a list whose identity_id occurs in a path or a message.

    The ids are unknown, so everything that begins and ends at a word boundary is tried: parts of
    the path, and runs of up to `MAX_PIECES` words and signs.
    """
    if not listed:
        return set()
    pieces = PIECES.findall(text)
    tried = {*text.split("/")}
    for start, length in itertools.product(range(len(pieces)), range(1, MAX_PIECES + 1)):
        tried.add("".join(pieces[start : start + length]))
    return {digest for digest in map(hash_identity, tried) if digest in listed}


@dataclass(frozen=True)
class SplitView:
    """Rows of a split that remain when a takedown list is applied."""

    tracks: np.ndarray  # bool `[T]`, True for the rows of `tracks` that remain
    frames: np.ndarray  # bool `[N]`, the same for the rows of `frames` and of `faces`
    # Int64, first and last + 1 of the rows of each remaining track in the stored `frames`
    starts: np.ndarray
    ends: np.ndarray
    identities: frozenset[str]  # ids of the hidden identities

    @property
    def num_hidden_tracks(self) -> int:
        """Number of tracks that are hidden."""
        return int(np.count_nonzero(~self.tracks))

    @property
    def num_hidden_frames(self) -> int:
        """Number of frames that are hidden."""
        return int(np.count_nonzero(~self.frames))

    def select(self, name: str, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the remaining rows of a table, given as consecutive pieces.

        The `row_offset` of `tracks` then counts remaining frames.
        """
        counts, offsets = self.ends - self.starts, np.zeros(len(self.tracks), np.int64)
        offsets[self.tracks] = counts.cumsum() - counts
        mask, start = self.tracks if name == "tracks" else self.frames, 0
        for table in pieces:
            rows = slice(start, start + table.num_rows)
            start = rows.stop
            if name == "tracks":
                place = table.column_names.index("row_offset")
                table = table.set_column(place, table.field(place), pa.array(offsets[rows]))
            yield table.filter(pa.array(mask[rows]))


def view_without(tracks: pa.Table, num_frames: int, listed: Collection[str]) -> SplitView | None:
    """Return the view of a split without the listed identities; None if it has none of them.

    Args:
        tracks: the split's `identity_id` and `row_offset`, in the order of its file.
        num_frames: number of rows of its `frames`.
        listed: hashes.
    """
    import pyarrow.compute as pc  # takes longer to import than a dataset to open

    identities = tracks["identity_id"].unique().to_pylist()
    hidden = [identity for identity in identities if hash_identity(identity) in listed]
    if not hidden:
        return None
    remains = ~pc.is_in(tracks["identity_id"], pa.array(hidden, pa.string())).to_numpy()
    return view_of(tracks, num_frames, remains)


def view_of(tracks: pa.Table, num_frames: int, remains: np.ndarray) -> SplitView:
    """Return the view of a split with some of its tracks; arguments as in `view_without`.

    `remains` is bool `[T]`, True for the tracks that remain.
    """
    starts = tracks["row_offset"].to_numpy()
    ends = np.append(starts[1:], num_frames)
    frames = np.repeat(remains, ends - starts)
    left = set(tracks["identity_id"].filter(pa.array(remains)).to_pylist())
    hidden = frozenset(tracks["identity_id"].to_pylist()) - left
    return SplitView(remains, frames, starts[remains], ends[remains], hidden)


# Files that every release writes itself.
REGENERATED = (
    *(schema.MANIFEST, schema.CARD, schema.CARD_FIELDS, schema.PROVENANCE),
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
    views: Mapping[str, SplitView]  # remaining rows of each split with listed identities
    dropped: pa.Table | None  # remaining rows of `dropped`; None if all remain
    matched: frozenset[str] = frozenset()  # listed hashes that the dataset has a row or mention of
    card: str | os.PathLike[str] | None = None  # file in place of card.toml of the dataset

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
        remaining = [e for e in entries if not listed_in(e["track_id"], self.listed)]
        return {**provenance, key: remaining} if entries else dict(provenance)

    def write(self, out: Path) -> list[FileEntry]:
        """Write the listed files except `REGENERATED` below `out`; return their entries."""
        # HDF5 files are made from the Parquet files, so those come first.
        files = sorted(self.manifest["files"], key=lambda file: file["path"] in HDF5_OF)
        written = [self._write(out, f) for f in files if f["path"] not in REGENERATED]
        return [entry for entry in written if entry]

    def rows(self, table: str, split: str) -> Iterator[pa.Table]:
        """Yield the remaining rows of a table of a split with a view."""
        pieces = read_pieces(self.source / schema.table_file(table, split))
        return self.views[split].select(table, pieces)

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
            return self._store(self.rows(table, split), out, table, split, size)
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
        if view := view_without(tracks, counts["frames"], listed):
            views[split] = view
    dropped = pq.read_table(source / schema.DROPPED_FILE)
    texts = zip(*(dropped[name].to_pylist() for name in COLUMNS_WITH_IDS), strict=True)
    mentions = [set().union(*(listed_in(text, listed) for text in row)) for row in texts]
    remains = pa.array([not found for found in mentions], pa.bool_())
    remaining = dropped.filter(remains) if any(mentions) else None
    identities = frozenset().union(*(view.identities for view in views.values()))
    matched = {hash_identity(identity) for identity in identities}.union(*mentions)
    return Removal(source, manifest, listed, views, remaining, frozenset(matched))
