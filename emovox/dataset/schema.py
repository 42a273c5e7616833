"""The dataset contract, version 2; no other module defines any of it.

A dataset is a folder::

    README.md                                card, with Hugging Face front matter
    frames/<split>-00000-of-00001.parquet    one row per grid point with a face
    tracks/<split>-00000-of-00001.parquet    one row per track
    faces/<split>-00000-of-00001.parquet     position of each face; built datasets only
    embeddings/<split>-00000-of-00001.parquet  last hidden layer of the teacher, on request
    hdf5/<split>.h5                          copy of the frames, on request
    dropped.parquet                          tracks without rows, with the reason
    croissant.json                           metadata for other tools; in releases
    provenance.json  SHA256SUMS  manifest.json
    takedown.txt                             hashes of identities that must not be shown

The manifest declares the names of the emotions and of the values, if any: they are parts of the
names of columns, see `columns`. A split without rows has no files. The manifest lists every file
except itself. croissant.json and takedown.txt may be added to a finished dataset. Tracks planned =
rows of `tracks` + rows of `dropped`, not counting identities that a takedown list removed.
"""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from emovox.dataset.names import SPLITS as SPLITS
from emovox.dataset.names import STEP_MS as STEP_MS
from emovox.dataset.names import TABLES as TABLES
from emovox.emotions import EMOTIONS, PUBLISHED, Outputs

SCHEMA_VERSION = 2

_LISTED = tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))
# Type and description of each column, whichever tables have it. Of a name that ends with an
# underscore a table has one column per emotion or value.
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    name: (pa.type_for_alias(column["type"]), column["description"])
    for name, column in _LISTED.items()
}
# Columns of `tracks` for which a source may have no value.
NULLABLE = ("source", "start_ms", "end_ms", "sound_offset_ms", "duration_ms", "score")


def _pattern(name: str) -> str:
    """Return the key of `COLUMNS` for a column's name."""
    return name if name in COLUMNS else name[: name.index("_") + 1]


def description(name: str) -> str:
    """Return the description of a column."""
    if name == "embedding":
        return "Last hidden layer of the teacher."
    key = _pattern(name)
    return COLUMNS[key][1].replace("{}", name.removeprefix(key))


def _table(*names: str, nullable: Collection[str] = NULLABLE) -> pa.Schema:
    fields = [pa.field(name, COLUMNS[_pattern(name)][0], name in nullable) for name in names]
    return pa.schema(fields)


FACES = _table(
    *("track_id", "frame_index", "pts_ms", "box_x", "box_y", "box_w", "box_h", "score"),
    *("sharpness", "shot"),
)
# `source` is never null here.
DROPPED = _table("track_id", "source", "stage", "error", "message", "attempts", nullable=())


@dataclass(frozen=True)
class Columns:
    """Columns of datasets with certain outputs; see `columns`."""

    outputs: Outputs  # names of the emotions and values
    # Names of their columns in `frames`
    logits: tuple[str, ...]
    values: tuple[str, ...]
    # Names of their columns in `tracks`
    maxima: tuple[str, ...]
    means: tuple[str, ...]
    # The tables' columns
    frames: pa.Schema
    tracks: pa.Schema

    def of(self, table: str, embedding_size: int = 0) -> pa.Schema:
        """Return the columns of a table; those of `embeddings` depend on their size."""
        if table == "embeddings":
            kind = pa.list_(pa.field("element", pa.float16(), False), embedding_size)
            return _table("track_id", "frame_index").append(pa.field("embedding", kind, False))
        tables = {"frames": self.frames, "tracks": self.tracks, "faces": FACES, "dropped": DROPPED}
        return tables[table]


@lru_cache
def columns(outputs: Outputs) -> Columns:
    """Return the columns of datasets with these outputs."""
    logits, maxima = (tuple(f"{p}_{name}" for name in outputs.emotions) for p in ("logit", "max"))
    values, means = (tuple(f"{p}_{name}" for name in outputs.values) for p in ("value", "mean"))
    frames = _table("track_id", "frame_index", "timestamp_ms", *logits, *values)
    tracks = _table(
        *("track_id", "identity_id", "video_id", "track_num", "split", "source", "start_ms"),
        *("end_ms", "sound_offset_ms", "n_frames", "n_expected", "duration_ms", "row_offset"),
        *("label", "majority", *maxima, *means),
    )
    return Columns(outputs, logits, values, maxima, means, frames, tracks)


def embedding_size(table: pa.Schema) -> int:
    """Return the size of the embeddings of a table; 1 if it has none."""
    sizes = (f.type.list_size for f in table if pa.types.is_fixed_size_list(f.type))
    return next(sizes, 1)


EIGHT = columns(PUBLISHED)  # emotions, no values

# Description of each table.
ROWS = {
    "frames": "One row per grid point of a track with a visible face.",
    "tracks": "One row per speaking-face track with frames.",
    "faces": "One row per row of `frames`: the position of the face.",
    "embeddings": "One row per row of `frames`: the last hidden layer of the teacher.",
    "dropped": "One row per track without frames, with the reason.",
}


def max_frame_index(step_ms: int) -> int:
    """Return the largest grid point whose time in ms fits into int32; 24 days."""
    return (2**31 - 1) // step_ms


ROW_GROUP_ROWS = 131_072
PARQUET_OPTIONS = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["track_id"],
    "write_statistics": True,
    "write_page_index": True,
    "write_page_checksum": True,
}

# Column of each array of an HDF5 file, except frames/logits and, for values, frames/values.
HDF5_FRAMES = {"frames/frame_index": "frame_index", "frames/timestamp_ms": "timestamp_ms"}
HDF5_TRACKS = {
    "tracks/track_id": "track_id",
    "tracks/offset": "row_offset",
    "tracks/n_frames": "n_frames",
}
HDF5_CHUNK_ROWS = 1024  # of logits and values; a chunk has all columns
HDF5_FILTERS = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}

MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
CHECKSUMS = "SHA256SUMS"
CROISSANT = "croissant.json"
CARD = "README.md"
DROPPED_FILE = "dropped.parquet"
TAKEDOWN = "takedown.txt"


def table_file(table: str, split: str = "") -> str:
    """Return the path of a table's file below the dataset, as `datasets` recognises it."""
    return DROPPED_FILE if table == "dropped" else f"{table}/{split}-00000-of-00001.parquet"


def hdf5_file(split: str) -> str:
    """Return the path of a split's HDF5 file below the dataset."""
    return f"hdf5/{split}.h5"


def file_metadata(
    dataset: str, split: str, outputs: Outputs, content_sha256: str
) -> dict[str, str]:
    """Return the key-value metadata of a Parquet file, or the attributes of an HDF5 file."""
    return {
        "emovox.schema_version": str(SCHEMA_VERSION),
        "emovox.dataset": dataset,
        "emovox.split": split,
        "emovox.emotions": ",".join(outputs.emotions),
        "emovox.values": ",".join(outputs.values),
        "emovox.content_sha256": content_sha256,
    }


def describe() -> dict[str, Any]:
    """Return the tables as plain data; `schemas/` holds it as JSON for other languages.

    A column with `for_each` exists once per name in that list of the manifest; D is the size of the
    embeddings.
    """
    some = columns(Outputs(EMOTIONS[:2], ("value",)))
    return {
        table: {
            "schema_version": SCHEMA_VERSION,
            "file": table_file(table, "<split>"),
            "rows": text,
            # The columns of all emotions have the same name here, so that one remains.
            "columns": list({c["name"]: c for c in map(_describe, some.of(table, 1))}.values()),
        }
        for table, text in ROWS.items()
    }


def _describe(field: pa.Field) -> dict[str, Any]:
    entry = {
        "name": field.name,
        "type": str(field.type).replace("[1]", "[D]"),
        "nullable": field.nullable,
        "description": description(field.name),
    }
    if field.name == "embedding" or (prefix := _pattern(field.name)) == field.name:
        return entry
    one = "emotion" if prefix in ("logit_", "max_") else "value"
    text = COLUMNS[prefix][1].replace("{}", f"<{one}>")
    return entry | {"name": f"{prefix}<{one}>", "description": text, "for_each": f"{one}s"}
