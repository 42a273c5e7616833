"""Layout and content of the contract's HDF5 files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.dataset.store import matrices_of, open_hdf5
from emovox.emotions import Outputs
from emovox.validation.findings import reading


@contextlib.contextmanager
def _open(root: Path, name: str) -> Iterator[Any]:
    with reading(name, "HDF5"), open_hdf5(root / name) as file:
        yield file


def layout_faults(root: Path, name: str, outputs: Outputs) -> Iterator[str]:
    """Yield a line for each array that is missing or has another type, chunk shape or filter.

    Args:
        root: folder of the dataset.
        name: path of the HDF5 file below it.
        outputs: emotions and values of the dataset.

    Raises:
        UnavailableError: the file is not HDF5.
    """
    import h5py

    matrices = matrices_of(outputs)
    types = dict.fromkeys(matrices, "float32") | {
        path: str(schema.COLUMNS[column][0]).replace("string", "object")  # as h5py names it
        for path, column in (schema.HDF5_FRAMES | schema.HDF5_TRACKS).items()
    }
    with _open(root, name) as file:
        for path, expected in types.items():
            chunk = (schema.HDF5_CHUNK_ROWS, len(matrices.get(path, ())))
            array = file.get(path)
            if not isinstance(array, h5py.Dataset):
                yield f"array /{path} is missing"
            elif array.dtype.name != expected:
                yield f"/{path} is {array.dtype.name}, expected {expected}"
            elif path in matrices and (array.chunks, array.ndim) != (chunk, 2):
                yield f"/{path} has chunks {array.chunks}, expected {chunk}"
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
