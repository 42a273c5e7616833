"""What changed between two versions of a dataset, and which version number that asks for.

Semantic versioning, for data (`changes.RULE` has it as the output states it):

- major: a track is removed or moved to another split, a frame is removed, a value that both
  versions have differs, or the step, the teacher, the emotions or the schema version does. Whoever
  reads the data may get other numbers.
- minor: tracks, frames or the table of faces are added, and all common rows are equal.
- patch: only documents or containers differ: card, provenance, compression, HDF5, `dropped`.
- none: every file is equal.

`row_offset` and `n_frames` follow from the other rows and are not compared; the maxima and
`n_expected` only of tracks with the same frames. A teacher whose checksum was unknown and is now
known is the same teacher. Datasets of another schema version or with other emotions cannot be read
side by side and are refused.

Frames are aligned by track_id and grid point (`frame_index`; where the steps differ, by the time
`step_ms * frame_index`), wherever a track's split is. Both files are sorted, so they are read row
group by row group, one of each at a time. A split whose frames have the same content hash in both
manifests is read from OLD alone. The hashes are taken from the manifests as they stand: that they
are true is for `emovox validate` to check.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.comparison.alignment import HEADER, INVALID, Block, Pair, Side
from emovox.comparison.bump import find_bump
from emovox.comparison.changes import Difference, FrameChanges, TrackChanges
from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.errors import InputError

NUM_WORST = 20  # tracks
TRACK_VALUES = ("identity_id", "video_id", "track_num", "duration_ms", "label")
FRAME_SUMMARIES = ("n_expected", *schema.MAXIMA)  # may change where a track's frames do


def diff(old: Path, new: Path) -> Difference:
    """Compare two datasets.

    Memory holds both tables of tracks and a few row groups; frames are never all there.

    Raises:
        InputError: a folder holds no dataset of this version of the contract, or tables in it
            contradict each other.
    """
    pair = Pair(Side(old), Side(new))
    frames = _FrameTotals(pair)
    for block in pair.blocks("frames"):
        frames.add(block)
    tracks = _track_changes(pair, frames)
    header = [key for key in HEADER if pair.old.header[key] != pair.new.header[key]]
    changes = frames.changes()
    faces = _faces_changed(pair)
    files = _files(pair)
    bump = find_bump(pair, tracks, changes, faces, files)
    return Difference(pair.old.header, pair.new.header, header, tracks, changes, faces, files, bump)


class _FrameTotals:
    """Sums over the common frames, as blocks come in."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.argmax = np.zeros((8, 8), int)
        self.terms, self.absolute, self.largest = np.zeros((3, len(EMOTIONS)))
        self.where: dict[str, Any] | None = None  # the largest change of all
        self.common, self.changed, self.flips = np.zeros((3, len(pair)), int)  # by track
        self.divergence, self.track_largest = np.zeros((2, len(pair)))
        self.added: defaultdict[int, list[int]] = defaultdict(list)  # grid points by track
        self.removed: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, block: Block) -> None:
        """Take in the rows of further tracks."""
        for points, lists in ((block.added, self.added), (block.removed, self.removed)):
            for track, index in points.T.tolist():
                lists[track].append(index)
        changed = (block.old != block.new).any(axis=0)
        old = block.old.argmax(axis=0)
        new = old.copy()
        new[changed] = block.new[:, changed].argmax(axis=0)
        self.argmax += np.bincount(old * 8 + new, minlength=64).reshape(8, 8)
        num_tracks = len(block.tracks)
        self.common[block.tracks] += np.bincount(block.owner, minlength=num_tracks)
        self.changed[block.tracks] += np.bincount(block.owner[changed], minlength=num_tracks)
        self.flips[block.tracks] += np.bincount(block.owner[old != new], minlength=num_tracks)
        if changed.any():
            self._add_changed(block, changed)

    def _add_changed(self, block: Block, changed: np.ndarray) -> None:
        old, new = block.old[:, changed].astype(float), block.new[:, changed].astype(float)
        owner, change = block.owner[changed], np.abs(new - old)
        terms = _kl_terms(old, new)
        self.terms += terms.sum(axis=1)
        self.absolute += change.sum(axis=1)
        largest = change.max(axis=0)
        np.maximum.at(self.track_largest, block.tracks[owner], largest)
        self.divergence[block.tracks] += np.bincount(owner, terms.sum(axis=0), len(block.tracks))
        if largest.max() > self.largest.max():
            row = int(largest.argmax())
            emotion = int(change[:, row].argmax())
            self.where = {
                "track_id": self._pair.ids([block.tracks[owner[row]]])[0],
                "frame_index": int(block.frame_index[changed][row]),
                "emotion": EMOTIONS[emotion],
                "old": float(old[emotion, row]),
                "new": float(new[emotion, row]),
            }
        self.largest = np.maximum(self.largest, change.max(axis=1))

    @property
    def same_grid(self) -> np.ndarray:
        """Which common tracks have the same frames on both sides: bool `[T]`."""
        same = np.ones(len(self._pair), bool)
        same[[*self.added, *self.removed]] = False
        return same

    def other_frames(self) -> list[dict[str, Any]]:
        """Tracks that have frames on one side only, and which."""
        numbers = sorted({*self.added, *self.removed})
        found = [
            {"track_id": i, "added": self.added.get(n, []), "removed": self.removed.get(n, [])}
            for n, i in zip(numbers, self._pair.ids(np.array(numbers, int)), strict=True)
        ]
        return sorted(found, key=lambda track: track["track_id"])

    def changes(self) -> FrameChanges:
        """What the sums say."""
        pair, common = self._pair, int(self.common.sum())
        added, removed = (sum(map(len, lists.values())) for lists in (self.added, self.removed))
        means = np.stack([self.terms, self.absolute]) / common if common else None
        return FrameChanges(
            common=common,
            changed=int(self.changed.sum()),
            argmax_flips=int(self.flips.sum()),
            added=int(pair.new.count.sum()) - common,
            removed=int(pair.old.count.sum()) - common,
            added_in_common_tracks=added,
            removed_in_common_tracks=removed,
            argmax=self.argmax.tolist(),
            divergence=None if means is None else float(means[0].sum()),
            emotions={
                emotion: {
                    "divergence": None if means is None else float(means[0, i]),
                    "mean_change": None if means is None else float(means[1, i]),
                    "largest_change": None if means is None else float(self.largest[i]),
                }
                for i, emotion in enumerate(EMOTIONS)
            },
            largest=self.where,
            worst_tracks=self._worst(),
        )

    def _worst(self) -> list[dict[str, Any]]:
        tracks = np.flatnonzero(self.changed)
        divergence = self.divergence[tracks] / self.common[tracks]
        order = np.lexsort((-self.track_largest[tracks], -divergence))[:NUM_WORST]
        return [
            {
                "track_id": track_id,
                "divergence": float(mean),
                "frames": int(self.common[track]),
                "changed": int(self.changed[track]),
                "argmax_flips": int(self.flips[track]),
                "largest_change": float(self.track_largest[track]),
            }
            for track_id, track, mean in zip(
                self._pair.ids(tracks[order]), tracks[order], divergence[order], strict=True
            )
        ]


def _kl_terms(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Terms of KL(softmax(old) || softmax(new)) of logits `[8, n]`; a column sums to its KL."""
    old, new = (x - x.max(axis=0) for x in (old, new))
    old, new = (x - np.log(np.exp(x).sum(axis=0)) for x in (old, new))
    return np.exp(old) * (old - new)


def _track_changes(pair: Pair, totals: _FrameTotals) -> TrackChanges:
    old, new = (
        side.tracks.take(pa.array(rows))
        for side, rows in ((pair.old, pair.in_old), (pair.new, pair.in_new))
    )
    labels = [_label_numbers(side.path, t) for side, t in ((pair.old, old), (pair.new, new))]
    matrix = np.bincount(labels[0] * 8 + labels[1], minlength=64).reshape(8, 8)
    return TrackChanges(
        common=len(pair),
        added=_others(pair.new, pair.in_new),
        removed=_others(pair.old, pair.in_old),
        moved=_flips(old, new, "split"),
        other_frames=totals.other_frames(),
        values=_changed_values(old, new, totals.same_grid),
        labels=matrix.tolist(),
        label_flips=_flips(old, new, "label"),
    )


def _label_numbers(path: Path, tracks: pa.Table) -> np.ndarray:
    numbers = pc.index_in(tracks["label"], value_set=pa.array(EMOTIONS))
    if numbers.null_count:
        raise InputError(f"{path}: a label is not one of {', '.join(EMOTIONS)}; {INVALID}")
    return numbers.to_numpy().astype(int)


def _others(side: Side, common: np.ndarray) -> list[str]:
    rows = np.setdiff1d(np.arange(len(side.ids)), common)
    return sorted(side.ids.take(pa.array(rows)).to_pylist())


def _differs(old: pa.Table, new: pa.Table, column: str) -> np.ndarray:
    """In which rows a column differs; null equals null."""
    one, other = old[column], new[column]
    nulls = pc.not_equal(pc.is_null(one), pc.is_null(other))
    return pc.coalesce(pc.not_equal(one, other), nulls).to_numpy()


def _flips(old: pa.Table, new: pa.Table, column: str) -> list[dict[str, str]]:
    """Tracks whose value in a column differs, and both values."""
    rows = pa.array(np.flatnonzero(_differs(old, new, column)))
    columns = (t.take(rows).to_pylist() for t in (old["track_id"], old[column], new[column]))
    found = sorted(zip(*columns, strict=True))
    return [{"track_id": track_id, "old": a, "new": b} for track_id, a, b in found]


def _changed_values(old: pa.Table, new: pa.Table, same_grid: np.ndarray) -> dict[str, int]:
    counts = {column: int(_differs(old, new, column).sum()) for column in TRACK_VALUES}
    for column in FRAME_SUMMARIES:
        counts[column] = int((_differs(old, new, column) & same_grid).sum())
    return {column: count for column, count in counts.items() if count}


def _faces_changed(pair: Pair) -> int | None:
    if not (pair.old.has("faces") and pair.new.has("faces")):
        return None
    blocks = pair.blocks("faces")
    return sum(int((block.old != block.new).any(axis=0).sum()) for block in blocks)


def _files(pair: Pair) -> list[str]:
    """Paths of files that only one manifest has, or whose checksums differ."""
    old, new = (
        {p: f.get("sha256") for p, f in side.files.items()} for side in (pair.old, pair.new)
    )
    return sorted(path for path in {**old, **new} if old.get(path) != new.get(path))
