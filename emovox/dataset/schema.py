"""The dataset contract, version 1: its only place.

A dataset is a folder::

    README.md                                card, with Hugging Face front matter
    frames/<split>-00000-of-00001.parquet    one row per grid point with a face
    tracks/<split>-00000-of-00001.parquet    one row per track
    faces/<split>-00000-of-00001.parquet     where each face was; built datasets only
    hdf5/<split>.h5                          the frames once more, on request
    dropped.parquet                          tracks that gave no rows, with the reason
    provenance.json  SHA256SUMS  manifest.json

A split without rows has no files. Tracks planned = rows of `tracks` + rows of `dropped`.
"""

from typing import Any

import pyarrow as pa

from emovox.emotions import EMOTIONS

SCHEMA_VERSION = 1
STEP_MS = 240  # milliseconds between grid points; the published dataset's step
SPLITS = ("train", "heard_val", "unheard_val")
TABLES = ("frames", "tracks", "faces")  # one file per split each; `dropped` is a single file

LOGITS = tuple(f"logit_{emotion}" for emotion in EMOTIONS)
MAXIMA = tuple(f"max_{emotion}" for emotion in EMOTIONS)


def _field(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


FRAMES = pa.schema(
    [
        _field("track_id", pa.string()),
        _field("frame_index", pa.int16()),  # grid index k from 0; a missing face leaves a gap
        _field("timestamp_ms", pa.int32()),  # step_ms * k
        *(_field(name, pa.float32()) for name in LOGITS),
    ]
)

TRACKS = pa.schema(
    [
        _field("track_id", pa.string()),
        _field("identity_id", pa.string()),
        _field("video_id", pa.string()),
        _field("track_num", pa.int32()),
        _field("split", pa.string()),
        _field("n_frames", pa.int32()),  # rows in `frames`
        _field("n_expected", pa.int32()),  # grid points the track has
        _field("duration_ms", pa.int32(), nullable=True),  # null where the source gives none
        _field("row_offset", pa.int64()),  # first row in the frames of its split
        _field("label", pa.string()),  # argmax of the maxima
        *(_field(name, pa.float32()) for name in MAXIMA),
    ]
)

FACES = pa.schema(
    [
        _field("track_id", pa.string()),
        _field("frame_index", pa.int16()),
        _field("pts_ms", pa.float64()),  # the decoded frame's own presentation time
        *(_field(f"box_{side}", pa.float32()) for side in "xywh"),  # source pixels
        _field("score", pa.float32(), nullable=True),  # of the detector; null for given boxes
        _field("sharpness", pa.float32()),  # variance of the Laplacian of the grey face
    ]
)

DROPPED = pa.schema(
    [
        _field("track_id", pa.string()),
        _field("source", pa.string()),  # path below the corpus root
        _field("stage", pa.string()),
        _field("error", pa.string()),
        _field("message", pa.string()),
        _field("attempts", pa.int32()),
    ]
)

SCHEMAS = {"frames": FRAMES, "tracks": TRACKS, "faces": FACES, "dropped": DROPPED}

MAX_FRAME_INDEX = 2**15 - 1  # int16; 131 minutes at 0.24 s
MAX_TRACK_NUMBER = 2**31 - 1  # int32

# Parquet settings of the contract.
ROW_GROUP_ROWS = 131_072
PARQUET_OPTIONS = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["track_id"],
    "write_statistics": True,
    "write_page_index": True,
    "write_page_checksum": True,
    "store_schema": False,
}

HDF5_CHUNK = (1024, len(EMOTIONS))  # rows and columns of logits read at once

MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
CHECKSUMS = "SHA256SUMS"
CARD = "README.md"
DROPPED_FILE = "dropped.parquet"


def table_file(table: str, split: str) -> str:
    """Path of one table's file below the dataset; the spelling `datasets` recognises."""
    return f"{table}/{split}-00000-of-00001.parquet"


def hdf5_file(split: str) -> str:
    """Path of one split's HDF5 file below the dataset."""
    return f"hdf5/{split}.h5"


def file_metadata(dataset: str, split: str, content_sha256: str) -> dict[str, str]:
    """Key-value metadata of a Parquet file, or attributes of an HDF5 file."""
    return {
        "emovox.schema_version": str(SCHEMA_VERSION),
        "emovox.dataset": dataset,
        "emovox.split": split,
        "emovox.emotions": ",".join(EMOTIONS),
        "emovox.content_sha256": content_sha256,
    }


def describe() -> dict[str, Any]:
    """The tables as plain data, for readers in other languages; `schemas/` holds it as JSON."""
    return {
        table: {
            "schema_version": SCHEMA_VERSION,
            "file": DROPPED_FILE if table == "dropped" else table_file(table, "<split>"),
            "columns": [
                {"name": field.name, "type": str(field.type), "nullable": field.nullable}
                for field in columns
            ],
        }
        for table, columns in SCHEMAS.items()
    }
