"""Takedown lists: identities whose rows must not be shown, by the SHA-256 of each identity_id.

A list is text with one hash per line; `#` starts a comment. It holds no names and no ids, so that
it can be published. Every reader applies the list `takedown.txt` in a dataset's folder.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.errors import InputError, first_line
from emovox.files import read_text

HASH = re.compile("[0-9a-f]{64}")
HEADER = "# SHA-256 of the identity_id of everyone whose rows were taken out.\n"
COLUMNS_WITH_IDS = ("track_id", "source", "message")  # of `dropped`: may hold an identity_id
PIECES = re.compile(r"[^\W_]+|[\W_]")  # words, and signs one by one
MAX_PIECES = 9  # of an identity_id in a text, such as `anna-maria_de.la-x`


def hash_identity(identity_id: str) -> str:
    """Return the takedown line of an identity: SHA-256 of its id in UTF-8, as hex.

    Example:
        >>> hash_identity("id10001")
        'ba25cc367975d5995c129fab40122299994b4476590b157d082ddae14e8ba937'
    """
    return hashlib.sha256(identity_id.encode()).hexdigest()


def read_list(path: str | os.PathLike[str]) -> frozenset[str]:
    """Return the hashes of a takedown list; lines written by `sha256sum` are accepted.

    Raises:
        InputError: the file is unreadable, or a line is not a SHA-256. Fails rather than skip the
            line, which may be a removal request.
    """
    try:
        lines = read_text(Path(path), encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read ({first_line(error)})") from error
    hashes = set()
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].lower().split()
        if not words:
            continue
        # The message does not show the line, which may be a name.
        if not HASH.fullmatch(words[0]) or words[1:] not in ([], ["-"]):
            raise InputError(
                f"{path}: line {number} is not a SHA-256 in hex; compute it from the identity_id "
                "with `emovox hash-identity`"
            )
        hashes.add(words[0])
    return frozenset(hashes)


def own_list(root: str | os.PathLike[str]) -> frozenset[str]:
    """Return the hashes of a dataset's own takedown.txt; empty if it has none."""
    path = Path(root) / schema.TAKEDOWN
    return read_list(path) if path.exists() else frozenset()


def format_list(hashes: Iterable[str]) -> str:
    """Return a takedown list as text, sorted."""
    return HEADER + "".join(f"{digest}\n" for digest in sorted(hashes))


def listed_in(text: str, listed: Collection[str]) -> set[str]:
    """Return the hashes of a list whose identity_id occurs in a path or a message.

    The ids are unknown, so everything that begins and ends at a word boundary is tried: parts of
    the path, and runs of up to `MAX_PIECES` words and signs.
    """
    if not listed:
        return set()
    pieces = PIECES.findall(text)
    tried = {*text.split("/")}
    for start, length in itertools.product(range(len(pieces)), range(1, MAX_PIECES + 1)):
        tried.add("".join(pieces[start : start + length]))
    return {digest for digest in map(hash_identity, tried) if digest in listed}


@dataclass(frozen=True)
class SplitView:
    """Rows of a split that remain when a takedown list is applied."""

    tracks: np.ndarray  # bool `[T]`, True for the rows of `tracks` that remain
    frames: np.ndarray  # bool `[N]`, the same for the rows of `frames` and of `faces`
    # Int64, first and last + 1 of the rows of each remaining track in the stored `frames`
    starts: np.ndarray
    ends: np.ndarray
    identities: frozenset[str]  # ids of the hidden identities

    @property
    def num_hidden_tracks(self) -> int:
        """Number of tracks that are hidden."""
        return int(np.count_nonzero(~self.tracks))

    @property
    def num_hidden_frames(self) -> int:
        """Number of frames that are hidden."""
        return int(np.count_nonzero(~self.frames))

    def select(self, name: str, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the remaining rows of a table, given as consecutive pieces.

        The `row_offset` of `tracks` then counts remaining frames.
        """
        counts, offsets = self.ends - self.starts, np.zeros(len(self.tracks), np.int64)
        offsets[self.tracks] = counts.cumsum() - counts
        mask, start = self.tracks if name == "tracks" else self.frames, 0
        for table in pieces:
            rows = slice(start, start + table.num_rows)
            start = rows.stop
            if name == "tracks":
                place = table.column_names.index("row_offset")
                table = table.set_column(place, table.field(place), pa.array(offsets[rows]))
            yield table.filter(pa.array(mask[rows]))


def view_without(tracks: pa.Table, num_frames: int, listed: Collection[str]) -> SplitView | None:
    """Return the view of a split without the listed identities; None if it has none of them.

    Args:
        tracks: the split's `identity_id` and `row_offset`, in the order of its file.
        num_frames: number of rows of its `frames`.
        listed: hashes.
    """
    import pyarrow.compute as pc  # takes longer to import than a dataset to open

    identities = tracks["identity_id"].unique().to_pylist()
    hidden = [identity for identity in identities if hash_identity(identity) in listed]
    if not hidden:
        return None
    remains = ~pc.is_in(tracks["identity_id"], pa.array(hidden, pa.string())).to_numpy()
    return view_of(tracks, num_frames, remains)


def view_of(tracks: pa.Table, num_frames: int, remains: np.ndarray) -> SplitView:
    """Return the view of a split with some of its tracks; arguments as in `view_without`.

    `remains` is bool `[T]`, True for the tracks that remain.
    """
    starts = tracks["row_offset"].to_numpy()
    ends = np.append(starts[1:], num_frames)
    frames = np.repeat(remains, ends - starts)
    left = set(tracks["identity_id"].filter(pa.array(remains)).to_pylist())
    hidden = frozenset(tracks["identity_id"].to_pylist()) - left
    return SplitView(remains, frames, starts[remains], ends[remains], hidden)
