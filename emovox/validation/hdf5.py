"""Layout and content of the contract's HDF5 files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.validation.findings import reading

# Type of each array as h5py names it; a string is an object.
TYPES = {"frames/logits": "float32"} | {
    path: str(schema.COLUMNS[column][0]).replace("string", "object")
    for path, column in (schema.HDF5_FRAMES | schema.HDF5_TRACKS).items()
}


@contextlib.contextmanager
def _open(root: Path, name: str) -> Iterator[Any]:
    import h5py

    with reading(name, "HDF5"), h5py.File(root / name, "r") as file:
        yield file


def layout_faults(root: Path, name: str) -> Iterator[str]:
    """Yield a line for each array that is missing or has another type, chunk shape or filter.

    Args:
        root: folder of the dataset.
        name: path of the HDF5 file below it.

    Raises:
        UnavailableError: the file is not HDF5.
    """
    import h5py

    with _open(root, name) as file:
        for path, expected in TYPES.items():
            array = file.get(path)
            if not isinstance(array, h5py.Dataset):
                yield f"array /{path} is missing"
            elif array.dtype.name != expected:
                yield f"/{path} is {array.dtype.name}, expected {expected}"
            elif path == "frames/logits" and (array.chunks, array.ndim) != (schema.HDF5_CHUNK, 2):
                yield f"/{path} has chunks {array.chunks}, expected {schema.HDF5_CHUNK}"
            elif path.startswith("frames/") and any(
                getattr(array, key) != value for key, value in schema.HDF5_FILTERS.items()
            ):
                yield f"/{path} does not use gzip 4, shuffle and fletcher32"


def read_tracks(root: Path, name: str) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Return the arrays below /tracks, by their column in `tracks`, and the file's attributes.

    Raises:
        UnavailableError: they are unreadable.
    """
    with _open(root, name) as file:
        arrays = {column: file[path][:] for path, column in schema.HDF5_TRACKS.items()}
        arrays["track_id"] = file["tracks/track_id"].asstr()[:]
        attributes = {key: str(value) for key, value in file.attrs.items()}
    return {column: values.tolist() for column, values in arrays.items()}, attributes
