"""The dataset contract, version 1: its only place.

A dataset is a folder::

    README.md                                card, with Hugging Face front matter
    frames/<split>-00000-of-00001.parquet    one row per grid point with a face
    tracks/<split>-00000-of-00001.parquet    one row per track
    faces/<split>-00000-of-00001.parquet     where each face was; built datasets only
    hdf5/<split>.h5                          the frames once more, on request
    dropped.parquet                          tracks that gave no rows, with the reason
    croissant.json                           metadata for other tools; comes with a release
    provenance.json  SHA256SUMS  manifest.json
    takedown.txt                             identities that must not be shown, by their hashes

A split without rows has no files. The manifest lists all files but itself; croissant.json and
takedown.txt may join a dataset that is finished. Tracks planned = rows of `tracks` + rows of
`dropped`, whomever a takedown list took out of both aside.
"""

from typing import Any

import pyarrow as pa

from emovox.dataset.names import SPLITS as SPLITS
from emovox.dataset.names import STEP_MS as STEP_MS
from emovox.dataset.names import TABLES as TABLES
from emovox.emotions import EMOTIONS

SCHEMA_VERSION = 1

LOGITS = tuple(f"logit_{emotion}" for emotion in EMOTIONS)
MAXIMA = tuple(f"max_{emotion}" for emotion in EMOTIONS)


def _field(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


FRAMES = pa.schema(
    [
        _field("track_id", pa.string()),
        _field("frame_index", pa.int16()),
        _field("timestamp_ms", pa.int32()),
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
        _field("n_frames", pa.int32()),
        _field("n_expected", pa.int32()),
        _field("duration_ms", pa.int32(), nullable=True),
        _field("row_offset", pa.int64()),
        _field("label", pa.string()),
        *(_field(name, pa.float32()) for name in MAXIMA),
    ]
)

FACES = pa.schema(
    [
        _field("track_id", pa.string()),
        _field("frame_index", pa.int16()),
        _field("pts_ms", pa.float64()),
        *(_field(f"box_{side}", pa.float32()) for side in "xywh"),
        _field("score", pa.float32(), nullable=True),
        _field("sharpness", pa.float32()),
    ]
)

DROPPED = pa.schema(
    [
        _field("track_id", pa.string()),
        _field("source", pa.string()),
        _field("stage", pa.string()),
        _field("error", pa.string()),
        _field("message", pa.string()),
        _field("attempts", pa.int32()),
    ]
)

SCHEMAS = {"frames": FRAMES, "tracks": TRACKS, "faces": FACES, "dropped": DROPPED}

# What a table's rows are.
ROWS = {
    "frames": "One row per grid point of a track at which its face was seen.",
    "tracks": "One row per speaking-face track that gave rows.",
    "faces": "One row per row of `frames`: where the face was.",
    "dropped": "One row per track that gave no rows, with the reason.",
}

# What a column holds, in whichever tables have it.
COLUMNS = {
    "track_id": "Identity, video and number of the track, joined by slashes.",
    "frame_index": "Grid point, counted from 0; a grid point without a face leaves a gap.",
    "timestamp_ms": "Time of the grid point: step of the grid times `frame_index`, in ms.",
    **{f"logit_{emotion}": f"Logit of {emotion}, raw." for emotion in EMOTIONS},
    "identity_id": "Who speaks, by the id of the source corpus.",
    "video_id": "What the track was cut from, by the id of the source corpus.",
    "track_num": "Number of the track within its video.",
    "split": "Split of the track.",
    "n_frames": "Rows of the track in `frames`.",
    "n_expected": "Grid points of the track, with or without a face.",
    "duration_ms": "Length of the track in ms; null where the source gives none.",
    "row_offset": "First row of the track among the frames of its split, counted from 0.",
    "label": "Emotion with the largest of the maxima.",
    **{f"max_{emotion}": f"Largest logit of {emotion} in the track." for emotion in EMOTIONS},
    "pts_ms": "Presentation time of the decoded frame, by its file, in ms.",
    "box_x": "Left edge of the face, in pixels of the source frame.",
    "box_y": "Upper edge of the face, in pixels of the source frame.",
    "box_w": "Width of the face, in pixels of the source frame.",
    "box_h": "Height of the face, in pixels of the source frame.",
    "score": "Score of the face detector; null where boxes were given.",
    "sharpness": "Variance of the Laplacian of the grey face.",
    "source": "Path of the track below the root of the corpus.",
    "stage": "Step of the build that failed.",
    "error": "Kind of failure.",
    "message": "What happened, in words.",
    "attempts": "How often the track was tried.",
}

MAX_FRAME_INDEX = 2**15 - 1  # int16; 131 minutes at 0.24 s

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
CROISSANT = "croissant.json"
CARD = "README.md"
DROPPED_FILE = "dropped.parquet"
TAKEDOWN = "takedown.txt"


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
            "rows": ROWS[table],
            "columns": [
                {
                    "name": field.name,
                    "type": str(field.type),
                    "nullable": field.nullable,
                    "description": COLUMNS[field.name],
                }
                for field in columns
            ],
        }
        for table, columns in SCHEMAS.items()
    }
