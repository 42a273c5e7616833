"""The dataset contract, version 2: this module, and the columns of tables in `schemas/`.

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
    card.toml                                facts for the card that a maintainer states

The manifest declares the names of the emotions and of the values, if any: they are parts of the
names of columns, see `columns`. A split without rows has no files. The manifest lists every file
except itself. croissant.json, takedown.txt and card.toml may be added later. Tracks planned = rows
of `tracks` + rows of `dropped`, not counting identities that a takedown list removed.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from emovox.dataset.names import SPLITS as SPLITS
from emovox.dataset.names import STEP_MS as STEP_MS
from emovox.dataset.names import TABLES as TABLES
from emovox.emotions import PUBLISHED, Outputs

SCHEMA_VERSION = 2

SCHEMAS = Path(__file__).parents[1] / "schemas"
if not SCHEMAS.is_dir():  # a checkout, whose schemas/ is beside the package
    SCHEMAS = Path(__file__).parents[2] / "schemas"


def read_schema(name: str) -> dict[str, Any]:
    """Return the description of a table, or the JSON Schema of a document, in `schemas/`."""
    return dict(json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))


# Tables as plain data, as other languages read it. A column with `for_each` exists once per name in
# that list of the manifest; D is the size of the embeddings.
DESCRIBED = {name: read_schema(name) for name in (*TABLES, "dropped")}
ROWS: dict[str, str] = {name: table["rows"] for name, table in DESCRIBED.items()}
# Description of each column, whichever tables have it.
COLUMNS = {column["name"]: column for table in DESCRIBED.values() for column in table["columns"]}


def description(name: str) -> str:
    """Return the description of a column."""
    if name not in COLUMNS:  # one of several, such as `logit_<emotion>`
        prefix, _, output = name.partition("_")
        pattern = next(key for key in COLUMNS if key.startswith(f"{prefix}_<"))
        return re.sub("<.*>", output, description(pattern))
    return str(COLUMNS[name]["description"])


@lru_cache
def _table(name: str, outputs: Outputs, embedding_size: int = 0) -> pa.Schema:
    fields = []
    for column in DESCRIBED[name]["columns"]:
        if column["name"] == "embedding":
            kind = pa.list_(pa.field("element", pa.float16(), False), embedding_size)
        else:
            kind = pa.type_for_alias(column["type"])
        for output in getattr(outputs, column.get("for_each", ""), [""]):
            name = re.sub("<.*>", output, column["name"])
            fields.append(pa.field(name, kind, column["nullable"]))
    return pa.schema(fields)


FACES, DROPPED = _table("faces", PUBLISHED), _table("dropped", PUBLISHED)


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
        return _table(table, self.outputs, embedding_size)


@lru_cache
def columns(outputs: Outputs) -> Columns:
    """Return the columns of datasets with these outputs."""
    logits, maxima = (tuple(f"{p}_{name}" for name in outputs.emotions) for p in ("logit", "max"))
    values, means = (tuple(f"{p}_{name}" for name in outputs.values) for p in ("value", "mean"))
    frames, tracks = (_table(name, outputs) for name in ("frames", "tracks"))
    return Columns(outputs, logits, values, maxima, means, frames, tracks)


def embedding_size(table: pa.Schema) -> int:
    """Return the size of the embeddings of a table; 1 if it has none."""
    return next((f.type.list_size for f in table if pa.types.is_fixed_size_list(f.type)), 1)


EIGHT = columns(PUBLISHED)  # emotions, no values


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
CARD_FIELDS = "card.toml"
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
