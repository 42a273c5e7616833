"""The dataset contract, version 1; no other module defines any of it.

A dataset is a folder::

    README.md                                card, with Hugging Face front matter
    frames/<split>-00000-of-00001.parquet    one row per grid point with a face
    tracks/<split>-00000-of-00001.parquet    one row per track
    faces/<split>-00000-of-00001.parquet     position of each face; built datasets only
    hdf5/<split>.h5                          copy of the frames, on request
    dropped.parquet                          tracks without rows, with the reason
    croissant.json                           metadata for other tools; in releases
    provenance.json  SHA256SUMS  manifest.json
    takedown.txt                             hashes of identities that must not be shown

A split without rows has no files. The manifest lists every file except itself. croissant.json and
takedown.txt may be added to a finished dataset. Tracks planned = rows of `tracks` + rows of
`dropped`, not counting identities that a takedown list removed.
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

# Type and description of each column, whichever tables have it.
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "track_id": (pa.string(), "Identity, video and number of the track, joined by slashes."),
    "identity_id": (pa.string(), "Id of the speaker in the source corpus."),
    "video_id": (pa.string(), "Id, in the source corpus, of the video that holds the track."),
    "track_num": (pa.int32(), "Number of the track within its video."),
    "split": (pa.string(), "Split of the track."),
    "frame_index": (pa.int16(), "Grid point, from 0; a grid point without a face leaves a gap."),
    "timestamp_ms": (pa.int32(), "Time of the grid point in ms: grid step times `frame_index`."),
    **{f"logit_{name}": (pa.float32(), f"Raw logit of {name}.") for name in EMOTIONS},
    "n_frames": (pa.int32(), "Rows of the track in `frames`."),
    "n_expected": (pa.int32(), "Grid points of the track, with or without a face."),
    "duration_ms": (pa.int32(), "Length of the track in ms; null if the source gives none."),
    "row_offset": (pa.int64(), "First row of the track in the frames of its split, from 0."),
    "label": (pa.string(), "Emotion with the largest of the `max_` columns."),
    **{f"max_{name}": (pa.float32(), f"Largest {name} logit of the track.") for name in EMOTIONS},
    "pts_ms": (pa.float64(), "Presentation time of the decoded frame in its file, in ms."),
    "box_x": (pa.float32(), "Left edge of the face, in pixels of the source frame."),
    "box_y": (pa.float32(), "Upper edge of the face, in pixels of the source frame."),
    "box_w": (pa.float32(), "Width of the face, in pixels of the source frame."),
    "box_h": (pa.float32(), "Height of the face, in pixels of the source frame."),
    "score": (pa.float32(), "Score of the face detector; null for given boxes."),
    "sharpness": (pa.float32(), "Variance of the Laplacian of the grey face."),
    "source": (pa.string(), "Path of the track below the corpus root."),
    "stage": (pa.string(), "Build step that failed."),
    "error": (pa.string(), "Kind of failure."),
    "message": (pa.string(), "Description of the failure."),
    "attempts": (pa.int32(), "Number of attempts."),
}
NULLABLE = ("duration_ms", "score")


def _table(*names: str) -> pa.Schema:
    return pa.schema([pa.field(name, COLUMNS[name][0], name in NULLABLE) for name in names])


FRAMES = _table("track_id", "frame_index", "timestamp_ms", *LOGITS)
TRACKS = _table(
    *("track_id", "identity_id", "video_id", "track_num", "split", "n_frames", "n_expected"),
    *("duration_ms", "row_offset", "label", *MAXIMA),
)
FACES = _table(
    *("track_id", "frame_index", "pts_ms", "box_x", "box_y", "box_w", "box_h", "score", "sharpness")
)
DROPPED = _table("track_id", "source", "stage", "error", "message", "attempts")
SCHEMAS = {"frames": FRAMES, "tracks": TRACKS, "faces": FACES, "dropped": DROPPED}

# Description of each table.
ROWS = {
    "frames": "One row per grid point of a track with a visible face.",
    "tracks": "One row per speaking-face track with frames.",
    "faces": "One row per row of `frames`: the position of the face.",
    "dropped": "One row per track without frames, with the reason.",
}

MAX_FRAME_INDEX = 2**15 - 1  # int16; 131 minutes at 0.24 s

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

# Column of each array of an HDF5 file, except frames/logits.
HDF5_FRAMES = {"frames/frame_index": "frame_index", "frames/timestamp_ms": "timestamp_ms"}
HDF5_TRACKS = {
    "tracks/track_id": "track_id",
    "tracks/offset": "row_offset",
    "tracks/n_frames": "n_frames",
}
HDF5_CHUNK = (1024, len(EMOTIONS))  # rows and columns of the logits
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


def file_metadata(dataset: str, split: str, content_sha256: str) -> dict[str, str]:
    """Return the key-value metadata of a Parquet file, or the attributes of an HDF5 file."""
    return {
        "emovox.schema_version": str(SCHEMA_VERSION),
        "emovox.dataset": dataset,
        "emovox.split": split,
        "emovox.emotions": ",".join(EMOTIONS),
        "emovox.content_sha256": content_sha256,
    }


def describe() -> dict[str, Any]:
    """Return the tables as plain data; `schemas/` holds it as JSON for other languages."""
    return {
        table: {
            "schema_version": SCHEMA_VERSION,
            "file": table_file(table, "<split>"),
            "rows": ROWS[table],
            "columns": [
                {
                    "name": field.name,
                    "type": str(field.type),
                    "nullable": field.nullable,
                    "description": COLUMNS[field.name][1],
                }
                for field in columns
            ],
        }
        for table, columns in SCHEMAS.items()
    }
