"""HDF5 files that take nothing from other files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emovox.files import regular
from emovox.limits import MAX_HDF5_OBJECTS

ELSEWHERE = "takes data from elsewhere (a link, external storage or a virtual dataset)"


def open_hdf5(path: Path, mode: str = "r", **options: Any) -> Any:
    """Open an HDF5 file without a lock, which some file systems lack; OSError if it is damaged.

    Files are written under a temporary name of this process, so nobody else opens them. ValueError
    if a file to read takes data from elsewhere, or has too many objects.
    """
    import h5py

    file = h5py.File(path if mode == "w" else regular(path), mode, locking=False, **options)
    groups, seen = [file] if mode == "r" else [], {file}  # a group may contain itself
    try:
        for count, (_, item) in enumerate(each for group in groups for each in members(group)):
            if count == MAX_HDF5_OBJECTS:
                raise ValueError(f"more than {MAX_HDF5_OBJECTS:,} arrays and groups")
            if isinstance(item, h5py.Group) and item not in seen:
                seen.add(item)
                groups.append(item)
    except BaseException:
        file.close()
        raise
    return file


def members(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and objects of a group; ValueError if one takes data from elsewhere."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} {ELSEWHERE}")
        check_storage(name, item := group[name])
        yield name, item


def check_storage(name: str, item: Any) -> None:
    """Raise ValueError for a dataset whose values are not in its own file."""
    import h5py

    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise ValueError(f"{name!r} {ELSEWHERE}")
