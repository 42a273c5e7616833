"""What an HDF5 file of the contract holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emovox.dataset import schema
from emovox.validation.rule import UnavailableError

KINDS = {
    "frames/logits": "float32",
    "frames/frame_index": "int16",
    "frames/timestamp_ms": "int32",
    "tracks/track_id": "object",
    "tracks/offset": "int64",
    "tracks/n_frames": "int32",
}


def layout_faults(path: Path) -> Iterator[str]:
    """What is missing or of another form, a line each.

    Raises:
        UnavailableError: it is no HDF5 file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield from _faults(file)
    except OSError as error:
        raise UnavailableError(f"{path.name}: cannot be read as HDF5: {error}") from error


def _faults(file: Any) -> Iterator[str]:
    import h5py

    for name, kind in KINDS.items():
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            yield f"no array /{name}"
        elif found.dtype.name != kind:
            yield f"/{name} is {found.dtype.name}, expected {kind}"
        elif name == "frames/logits" and (found.chunks, found.ndim) != (schema.HDF5_CHUNK, 2):
            yield f"/{name} has chunks {found.chunks}, expected {schema.HDF5_CHUNK}"
        elif name.startswith("frames/") and not (
            (found.compression, found.compression_opts) == ("gzip", 4)
            and found.shuffle
            and found.fletcher32
        ):
            yield f"/{name} is not gzip 4 with shuffle and fletcher32"


def read_tracks(path: Path) -> dict[str, list[Any]]:
    """The arrays below /tracks as lists, with the names of the table `tracks`; and all attributes.

    Raises:
        UnavailableError: they cannot be read.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {
                "track_id": file["tracks/track_id"].asstr()[:].tolist(),
                "row_offset": np.asarray(file["tracks/offset"]).tolist(),
                "n_frames": np.asarray(file["tracks/n_frames"]).tolist(),
            }
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnavailableError(f"{path.name}: /tracks cannot be read: {error}") from error


def read_attributes(path: Path) -> dict[str, str]:
    """Attributes of the file; UnavailableError if it is no HDF5 file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {key: str(value) for key, value in file.attrs.items()}
    except OSError as error:
        raise UnavailableError(f"{path.name}: cannot be read as HDF5: {error}") from error
