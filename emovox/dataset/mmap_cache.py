"""Frames of a split as memory-mapped arrays in the cache, shared by all processes.

The files carry the content hash of the manifest in their name and are written only after the rows
were found to have that hash, so that every dataset with the same rows can use them.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emovox.cache import cache_folder
from emovox.dataset import schema
from emovox.dataset.store import ContentHash, logits_of, read_frames
from emovox.errors import InputError
from emovox.files import remove_leftovers, replace_file


@dataclass(frozen=True)
class Arrays:
    """Frames of one split.

    Attributes:
        logits: float32 `[N, 8]`, read-only.
        frame_index: int16 `[N]`, read-only.
    """

    logits: np.ndarray
    frame_index: np.ndarray


def open_arrays(root: Path, split: str, container: str, manifest: Mapping[str, Any]) -> Arrays:
    """Return the frames of a split as memory-mapped arrays, after unpacking them if necessary.

    Without a writable cache the arrays are in memory instead.

    Raises:
        InputError: the rows are missing, damaged, or differ from the manifest.
    """
    hashes = {f["path"]: f["content_sha256"] for f in manifest["files"]}
    digest = str(hashes.get(schema.table_file("frames", split)))
    num_rows = int(manifest["totals"]["by_split"][split]["frames"])
    folder = cache_folder() / "frames"
    paths = [folder / f"{digest}.{array}.npy" for array in ("logits", "frame_index")]
    if (mapped := _map(paths, num_rows)) is not None:
        return mapped
    from filelock import FileLock  # takes longer to import than a dataset to open

    unpacked = None
    with contextlib.suppress(OSError):  # the cache is not writable
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{digest}.lock"):
            if _map(paths, num_rows) is None:  # no other process was faster
                unpacked = _unpack(root, split, container, num_rows, digest)
                _write(unpacked, paths)
    return _map(paths, num_rows) or unpacked or _unpack(root, split, container, num_rows, digest)


def _map(paths: list[Path], num_rows: int) -> Arrays | None:
    """Return the arrays in the cache; None if they are missing or damaged."""
    try:
        logits, index = (np.load(path, mmap_mode="r").view(np.ndarray) for path in paths)
    except (OSError, ValueError, EOFError):
        return None
    is_complete = logits.shape == (num_rows, len(schema.LOGITS)) and index.shape == (num_rows,)
    return Arrays(logits, index) if is_complete else None


def _unpack(root: Path, split: str, container: str, num_rows: int, digest: str) -> Arrays:
    logits = np.empty((num_rows, len(schema.LOGITS)), np.float32)
    index = np.empty(num_rows, np.int16)
    content, start = ContentHash(schema.FRAMES), 0
    for table in read_frames(root, split, container):
        stop = start + len(table)
        if stop > num_rows:
            break
        content.update(table)
        logits[start:stop] = logits_of(table)
        index[start:stop] = table["frame_index"].to_numpy()
        start = stop
    if start != num_rows or content.hexdigest() != digest:
        raise InputError(
            f"{root}: the frames of {split} differ from {schema.MANIFEST}; "
            f"run: emovox validate {root}"
        )
    logits.setflags(write=False)
    index.setflags(write=False)
    return Arrays(logits, index)


def _write(arrays: Arrays, paths: list[Path]) -> None:
    for array, path in zip((arrays.logits, arrays.frame_index), paths, strict=True):
        remove_leftovers(path)
        with replace_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, array)
