"""Takedown lists: whose rows must not be shown, by the SHA-256 of each identity_id.

A list is text, one hash a line; `#` begins a comment. It holds no name and no id, so that it can be
published. `takedown.txt` in a dataset's folder is its own list, which every reader honours.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.errors import InputError

HASH = re.compile("[0-9a-f]{64}")
HEADER = "# SHA-256 of the identity_id of everyone whose rows were taken out.\n"
NAMING = ("track_id", "source", "message")  # columns of `dropped` that may hold an identity_id
SEPARATORS = re.compile(r"[/\\'\"\s]+")


def hash_identity(identity_id: str) -> str:
    """The line of a takedown list that stands for an identity: SHA-256 of its UTF-8, in hex.

    Example:
        >>> hash_identity("id10001")
        'ba25cc367975d5995c129fab40122299994b4476590b157d082ddae14e8ba937'
    """
    return hashlib.sha256(identity_id.encode()).hexdigest()


def read_list(path: Path) -> frozenset[str]:
    """The hashes of a takedown list; `sha256sum` may have written its lines.

    Raises:
        InputError: it cannot be read, or a line is something else. That is no reason to go on:
            somebody may have asked for what the line was meant to say.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from error
    hashes = set()
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].lower().split()
        if not words:
            continue
        # The line itself is not shown: it may be a name.
        if not HASH.fullmatch(words[0]) or words[1:] not in ([], ["-"]):
            raise InputError(
                f"{path}: line {number} is no SHA-256 in hex; "
                "emovox.dataset.takedown.hash_identity makes one of an identity_id"
            )
        hashes.add(words[0])
    return frozenset(hashes)


def own_list(root: Path) -> frozenset[str]:
    """The list that lies with a dataset; empty where there is none."""
    path = root / schema.TAKEDOWN
    return read_list(path) if path.exists() else frozenset()


def format_list(hashes: Iterable[str]) -> str:
    """A list as text, sorted."""
    return HEADER + "".join(f"{digest}\n" for digest in sorted(hashes))


def names_listed(text: str, listed: Collection[str]) -> bool:
    """Whether a path or a message holds the id of a listed identity: as a part, word or stem."""
    if not listed:
        return False
    parts = {*text.split("/"), *SEPARATORS.split(text)}
    stems = {part.rpartition(".")[0] for part in parts} | {part.strip(".,:;()") for part in parts}
    return any(hash_identity(part) in listed for part in parts | stems)


@dataclass(frozen=True)
class Kept:
    """What is left of a split when a takedown list is applied.

    Attributes:
        tracks, frames: runs of rows, first and last + 1, in the tables `tracks` and `frames`.
        starts, ends: of each track that is left, its rows in `frames`: int64 `[T]`.
        num_tracks, num_frames, identities: that are hidden.
    """

    tracks: list[tuple[int, int]]
    frames: list[tuple[int, int]]
    starts: np.ndarray
    ends: np.ndarray
    num_tracks: int
    num_frames: int
    identities: frozenset[str]

    def rows(self, stored: np.ndarray) -> np.ndarray:
        """What is left of an array `[N, ...]` that has a row for each of `frames`; read-only."""
        left = np.concatenate([stored[start:stop] for start, stop in self.frames])
        left.setflags(write=False)
        return left


def find_kept(tracks: pa.Table, num_frames: int, listed: Collection[str]) -> Kept | None:
    """What a list leaves of a split; None if it hides nothing of it.

    Args:
        tracks: the split's `identity_id` and `row_offset`, in the order of its file.
        num_frames: rows of its `frames`.
        listed: hashes.
    """
    import pyarrow.compute as pc  # takes longer to import than a dataset to open

    identities = tracks["identity_id"].unique().to_pylist()
    hidden = [identity for identity in identities if hash_identity(identity) in listed]
    if not hidden:
        return None
    is_hidden = pc.is_in(tracks["identity_id"], pa.array(hidden, pa.string()))
    keep = ~is_hidden.to_numpy()
    bounds = np.append(tracks["row_offset"].to_numpy(), num_frames)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]])))
    runs = [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
    frames = [(int(bounds[start]), int(bounds[stop])) for start, stop in runs]
    return Kept(
        tracks=runs,
        frames=frames,
        starts=bounds[:-1][keep],
        ends=bounds[1:][keep],
        num_tracks=int((~keep).sum()),
        num_frames=num_frames - sum(stop - start for start, stop in frames),
        identities=frozenset(hidden),
    )


def cut(tables: Iterable[pa.Table], runs: list[tuple[int, int]]) -> Iterator[pa.Table]:
    """The rows of `runs` of a table that comes in parts; nothing is copied."""
    first = 0
    for table in tables:
        last = first + table.num_rows
        for start, stop in runs:
            low, high = max(start, first), min(stop, last)
            if low < high:
                yield table.slice(low - first, high - low)
        first = last


def cut_tracks(tables: Iterable[pa.Table], runs: list[tuple[int, int]]) -> Iterator[pa.Table]:
    """As `cut`, of the table `tracks`: `row_offset` counts the rows that are left."""
    offset = 0
    for table in cut(tables, runs):
        ends = offset + np.cumsum(table["n_frames"].to_numpy(), dtype=np.int64)
        place = table.schema.get_field_index("row_offset")
        starts = pa.array(np.concatenate([[offset], ends[:-1]]), pa.int64())
        yield table.set_column(place, schema.TRACKS.field("row_offset"), starts)
        offset = int(ends[-1])
