"""Logits unpacked for random access: memory-mapped arrays in the cache, shared by processes.

They lie under the content hash that the manifest gives, and are written only after the rows were
found to have that hash: what is in the cache is what its name says, whichever dataset it came from.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.cache import cache_folder
from emovox.dataset import schema
from emovox.dataset.store import ContentHash, read_hdf5_frames
from emovox.errors import InputError
from emovox.files import remove_leftovers, replace_file

# What damaged tables raise while they are read.
DAMAGED = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError)


@dataclass(frozen=True)
class Arrays:
    """The frames of one split.

    Attributes:
        logits: float32 `[N, 8]`, read-only.
        frame_index: int16 `[N]`, read-only.
    """

    logits: np.ndarray
    frame_index: np.ndarray


def frames_of(root: Path, split: str, container: str) -> Iterator[pa.Table]:
    """The frames of a split, some at a time, from `parquet` or `hdf5`.

    Raises:
        InputError: the file is missing or damaged.
    """
    is_hdf5 = container == "hdf5"
    path = root / (schema.hdf5_file(split) if is_hdf5 else schema.table_file("frames", split))
    try:
        if is_hdf5:
            yield from read_hdf5_frames(path)
            return
        file = pq.ParquetFile(
            path, memory_map=True, page_checksum_verification=True, pre_buffer=False
        )
        for batch in file.iter_batches(schema.ROW_GROUP_ROWS):
            yield pa.Table.from_batches([batch]).cast(schema.FRAMES)
    except (*DAMAGED, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        kind = "HDF5" if is_hdf5 else "Parquet"
        raise InputError(f"{path}: cannot be read as {kind} frames: {reason}") from error


def open_arrays(root: Path, split: str, container: str, manifest: Mapping[str, Any]) -> Arrays:
    """The frames of a split as memory-mapped arrays, unpacked into the cache if they are not yet.

    Where the cache cannot be written, they are held in memory instead.

    Raises:
        InputError: the rows are missing, damaged, or not those that the manifest speaks of.
    """
    hashes = {f["path"]: f["content_sha256"] for f in manifest["files"]}
    digest = str(hashes.get(schema.table_file("frames", split)))
    num_rows = int(manifest["totals"]["by_split"][split]["frames"])
    folder = cache_folder() / "frames"
    paths = [folder / f"{digest}.{part}.npy" for part in ("logits", "frame_index")]
    if (mapped := _mapped(paths, num_rows)) is not None:
        return mapped
    from filelock import FileLock  # takes longer to import than a dataset to open

    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / f"{digest}.lock"))
        except OSError:
            return _unpack(root, split, container, num_rows, digest)
        if (mapped := _mapped(paths, num_rows)) is not None:
            return mapped  # another process was first
        arrays = _unpack(root, split, container, num_rows, digest)
        if not _write(arrays, paths):
            return arrays
    del arrays
    return _mapped(paths, num_rows) or _unpack(root, split, container, num_rows, digest)


def _mapped(paths: list[Path], num_rows: int) -> Arrays | None:
    """What lies in the cache; None if it is not there or damaged."""
    try:
        logits, index = (np.load(path, mmap_mode="r").view(np.ndarray) for path in paths)
    except (OSError, ValueError, EOFError):
        return None
    whole = logits.shape == (num_rows, len(schema.LOGITS)) and index.shape == (num_rows,)
    return Arrays(logits, index) if whole else None


def _unpack(root: Path, split: str, container: str, num_rows: int, digest: str) -> Arrays:
    logits = np.empty((num_rows, len(schema.LOGITS)), np.float32)
    index = np.empty(num_rows, np.int16)
    content, start = ContentHash(schema.FRAMES), 0
    for table in frames_of(root, split, container):
        stop = start + len(table)
        if stop > num_rows:
            break
        content.update(table)
        for column, name in enumerate(schema.LOGITS):
            logits[start:stop, column] = table[name].to_numpy()
        index[start:stop] = table["frame_index"].to_numpy()
        start = stop
    if start != num_rows or content.hexdigest() != digest:
        raise InputError(
            f"{root}: the frames of {split} are not those that {schema.MANIFEST} speaks of; "
            "`emovox validate` says more"
        )
    logits.setflags(write=False)
    index.setflags(write=False)
    return Arrays(logits, index)


def _write(arrays: Arrays, paths: list[Path]) -> bool:
    """Put arrays into the cache; False if it cannot be written, which only costs time later."""
    try:
        for array, path in zip((arrays.logits, arrays.frame_index), paths, strict=True):
            remove_leftovers(path)
            with replace_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, array)
    except OSError:
        return False
    return True
