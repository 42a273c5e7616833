"""Anonymised releases: random ids in place of those of identities and videos.

A map, which is not part of any release, keeps the ids, so that later releases have the same ones.
Numbers, times and logits stay: whoever has the original rows can match them.
"""

import csv
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.takedown import Removal, hash_identity, view_of
from emovox.errors import CheckError, InputError, first_line
from emovox.files import exclusive, replace_file
from emovox.ids import TrackKey, parse_track_id

HEADER = ["kind", "original", "id"]
KINDS = ("identity", "video", "track")  # `track`: a dropped one without identity and video
ID = re.compile("a[a-z2-7]{10}")
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

Ids = dict[tuple[str, str], str]  # by kind and original; that of a video is `<identity>/<video>`


def read_map(path: Path) -> Ids:
    """Return the ids of a map; none if it does not exist. InputError if it is not a map."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        ids = {(kind, original): name for kind, original, name in rows}
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot read as a map of ids: {first_line(error)}") from error
    is_valid = all(kind in KINDS and ID.fullmatch(name) for (kind, _), name in ids.items())
    if header != HEADER or not is_valid or not len({*ids.values()}) == len(ids) == len(rows):
        raise InputError(f"{path}: not a map of --anonymise, or damaged; restore it from a backup")
    return ids


def list_of_new(ids: Ids, listed: Collection[str]) -> frozenset[str]:
    """Return the takedown list, for the new ids that earlier releases have, of a list."""
    people = ((original, name) for (kind, original), name in ids.items() if kind == "identity")
    return frozenset(hash_identity(name) for old, name in people if hash_identity(old) in listed)


def _id(ids: Ids, kind: str, original: str) -> str:
    new = "a" + "".join(secrets.choice(LETTERS) for _ in range(10))
    return ids.setdefault((kind, original), new)


def _new_key(ids: Ids, key: TrackKey) -> TrackKey:
    video = _id(ids, "video", f"{key.identity_id}/{key.video_id}")
    return TrackKey(_id(ids, "identity", key.identity_id), video, key.track_num)


@dataclass(frozen=True)
class Anonymised(Removal):
    """The rows of a dataset that remain after a takedown, under random ids and in their order."""

    tracks: Mapping[str, pa.Table] = field(default_factory=dict)  # by split
    # By split, the first row of each track in the frames before they are sorted again
    starts: Mapping[str, np.ndarray] = field(default_factory=dict)

    def rows(self, table: str, split: str) -> Iterator[pa.Table]:
        """Yield the rows of a table of a split."""
        tracks = self.tracks[split]
        if table == "tracks":
            yield tracks
            return
        track = np.repeat(np.arange(len(tracks)), tracks["n_frames"])
        old = np.arange(len(track)) + (self.starts[split] - tracks["row_offset"].to_numpy())[track]
        rows = pa.concat_tables(super().rows(table, split)).take(pa.array(old))
        yield rows.set_column(0, rows.field(0), tracks["track_id"].take(pa.array(track)))

    def provenance(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Return provenance without what may name an identity or a video."""
        kept = {k: v for k, v in provenance.items() if k != "split_disagreements"}
        if selections := kept.get("selected_from"):
            kept["selected_from"] = [entry | {"where": None} for entry in selections]
        return kept | {"anonymised": True}


def anonymise(removal: Removal, path: Path) -> Anonymised:
    """Return rows under random ids, those of the map at `path`, which gets the new ones."""
    with exclusive(path.with_name(f".{path.name}.lock"), f"{path}: another run is using it; wait"):
        ids = read_map(path)
        listed = list_of_new(ids, removal.listed)
        views, tracks, starts = {}, {}, {}
        for split, counts in removal.manifest["totals"]["by_split"].items():
            whole = pq.read_table(removal.source / schema.table_file("tracks", split))
            everything = view_of(whole, counts["frames"], np.ones(len(whole), bool))
            views[split] = removal.views.get(split, everything)
            remaining = pa.concat_tables(views[split].select("tracks", [whole]))
            tracks[split], starts[split] = _rename(remaining, ids)
        rows = removal.dropped
        if rows is None:
            rows = pq.read_table(removal.source / schema.DROPPED_FILE)
        dropped = []
        for row in rows.to_pylist():
            key, name = parse_track_id(row["track_id"]), row["track_id"]
            new = _new_key(ids, key).track_id if key else _id(ids, "track", name)
            dropped.append(row | {"track_id": new, "source": "", "message": ""})
        with (
            replace_file(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            temporary.chmod(0o600)
            csv.writer(file).writerows([HEADER, *([*key, name] for key, name in ids.items())])
    table = pa.Table.from_pylist(dropped, schema=schema.DROPPED).sort_by("track_id")
    fields = {"listed": listed, "views": views, "dropped": table, "tracks": tracks}
    return Anonymised(**{**vars(removal), **fields, "starts": starts})


def _rename(tracks: pa.Table, ids: Ids) -> tuple[pa.Table, np.ndarray]:
    """Return `tracks` under new ids, sorted by them, and the `row_offset` before that."""
    columns = (tracks[name].to_pylist() for name in ("identity_id", "video_id", "track_num"))
    keys = [_new_key(ids, TrackKey(*row)) for row in zip(*columns, strict=True)]
    names = ("track_id", "identity_id", "video_id")
    new: dict[str, Any] = {name: [getattr(key, name) for key in keys] for name in names}
    tracks = _replace(tracks, new | {"source": [None] * len(keys)}).sort_by("track_id")
    counts = tracks["n_frames"].to_numpy()
    starts = tracks["row_offset"].to_numpy()
    return _replace(tracks, {"row_offset": counts.cumsum() - counts}), starts


def _replace(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        place = table.column_names.index(name)
        column = table.field(place)
        table = table.set_column(place, column, pa.array(values, column.type))
    return table


def check_absent(root: Path, path: Path) -> None:
    """Raise CheckError if a document of an anonymised release contains an original id.

    Ids of letters or digits alone are not looked for: they may be words and numbers.
    """
    parts = {part for _, original in read_map(path) for part in original.split("/")}
    originals = [p for p in parts if len(p) > 3 and not p.isalpha() and not p.isdigit()]
    for file in (p for p in root.rglob("*") if p.is_file() and p.suffix not in (".parquet", ".h5")):
        text = file.read_bytes().decode("utf-8", "replace")
        for found in (part for part in originals if part in text):
            if re.search(rf"(?<!\w){re.escape(found)}(?!\w)", text):
                name = file.relative_to(root).as_posix()
                raise CheckError(f"{name}: contains the original id {found}; remove it, then rerun")
