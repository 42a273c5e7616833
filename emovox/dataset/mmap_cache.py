"""Frames of a split as memory-mapped arrays in the cache, shared by all processes.

A file carries the content hash of the manifest in its name and is written only after the rows were
found to have that hash, so that every dataset with the same rows can use it. Its checksum is
compared whenever it is opened.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emovox import files
from emovox.dataset import schema
from emovox.dataset.json_schemas import listed_hash, outputs_of
from emovox.dataset.store import ContentHash, frames_file, matrix_of, read_frames
from emovox.emotions import Outputs
from emovox.errors import InputError, first_line
from emovox.files import cache_folder


@dataclass(frozen=True)
class Arrays:
    """Frames of one split; all arrays are read-only."""

    outputs: np.ndarray  # float32 [N, E + V]: logits, then values
    frame_index: np.ndarray  # int32 [N]
    starts: np.ndarray  # int64 [T], first row of each run of rows with the same track_id
    names: np.ndarray  # uint8 [32], hash of the track_id of each run, see `hash_names`

    @cached_property
    def ends(self) -> np.ndarray:
        """Last row + 1 of each run, int64 [T]."""
        return np.append(self.starts[1:], len(self.outputs))


def hash_names(track_ids: Iterable[str]) -> np.ndarray:
    """Return the SHA-256 of names, in their order."""
    whole = hashlib.sha256()
    for name in track_ids:
        whole.update(f"{name}\n".encode())
    return np.frombuffer(whole.digest(), np.uint8)


def open_arrays(root: Path, split: str, container: str, manifest: Mapping[str, Any]) -> Arrays:
    """Return the frames of a split, mapped if the cache is writable; InputError if damaged."""
    digest = str(listed_hash(manifest, schema.table_file("frames", split)))
    if not re.fullmatch("[0-9a-f]{64}", digest):  # it becomes the name of a file
        raise InputError(f"{root}: {schema.MANIFEST} has no content hash of the frames of {split}")
    num_rows, outputs = int(manifest["totals"]["by_split"][split]["frames"]), outputs_of(manifest)
    path = cache_folder() / "frames" / f"{digest}-{num_rows}"
    if (mapped := _map(path, num_rows, outputs)) is not None:
        return mapped
    arrays = _unpack(root, split, container, num_rows, digest, outputs)
    with contextlib.suppress(OSError):  # the cache is not writable: the arrays stay in memory
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(arrays, path)
    return _map(path, num_rows, outputs) or arrays


def _map(path: Path, num_rows: int, outputs: Outputs) -> Arrays | None:
    """Return the arrays in the cache; None if they are missing or differ from their checksum."""
    try:
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    except (OSError, ValueError):
        return None
    width = len(outputs.emotions) + len(outputs.values)
    # From the end: the checksum of the rest, `names`, `frame_index` and `outputs`.
    places = len(data) - np.cumsum([32, 32, 4 * num_rows, 4 * num_rows * width])
    if places[-1] < 0 or hashlib.sha256(data[:-32].data).digest() != data[-32:].tobytes():
        return None
    starts, rows, index, names, _ = np.split(data, places[::-1])
    rows = rows.view(np.float32).reshape(num_rows, width)
    return Arrays(rows, index.view(np.int32), starts.view(np.int64), names)


def _unpack(
    root: Path, split: str, container: str, num_rows: int, digest: str, outputs: Outputs
) -> Arrays:
    import pyarrow.compute as pc  # takes longer to import than a dataset to open

    columns = schema.columns(outputs)
    names = columns.logits + columns.values
    try:
        files.check_expansion(num_rows * 4 * (len(names) + 1), frames_file(root, split, container))
        rows, index = np.empty((num_rows, len(names)), np.float32), np.empty(num_rows, np.int32)
    except (OSError, ValueError, MemoryError) as error:
        raise InputError(f"{root}: frames of {split}: {first_line(error)}") from error
    content, start = ContentHash(columns.frames), 0
    runs: list[str] = []
    starts: list[np.ndarray] = []
    for table in read_frames(root, split, container, outputs):
        stop = start + len(table)
        if stop > num_rows:
            break
        content.update(table)
        rows[start:stop] = matrix_of(table, names)
        index[start:stop] = table["frame_index"].to_numpy()
        found = pc.run_end_encode(table["track_id"].combine_chunks())
        begins, track_ids = np.append(0, found.run_ends)[:-1], found.values.to_pylist()
        if runs and track_ids and runs[-1] == track_ids[0]:  # goes on from the last piece
            begins, track_ids = begins[1:], track_ids[1:]
        runs += track_ids
        starts.append(begins + start)
        start = stop
    if start != num_rows or content.hexdigest() != digest:
        raise InputError(
            f"{root}: the frames of {split} differ from {schema.MANIFEST}; "
            f"run: emovox validate {root}"
        )
    arrays = Arrays(rows, index, np.concatenate([np.empty(0, np.int64), *starts]), hash_names(runs))
    for field in fields(arrays):
        getattr(arrays, field.name).setflags(write=False)
    return arrays


def _write(arrays: Arrays, path: Path) -> None:
    checksum = hashlib.sha256()
    with files.replace_file(path) as temporary, temporary.open("wb") as file:
        for array in (arrays.starts, arrays.outputs, arrays.frame_index, arrays.names):
            checksum.update(array.ravel().data)
            file.write(array.ravel().data)
        file.write(checksum.digest())
