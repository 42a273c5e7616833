"""Compare two versions of a dataset, and find the version bump that the differences require.

Semantic versioning for data; `changes.RULE` is the short form that the output shows:

- major: readers may get other values. A track is removed or moved to another split, a frame is
  removed, a value of a common row differs, or the step, the teacher, the emotions or the schema
  version differs.
- minor: tracks, frames or the table of faces are added, and all common rows are equal.
- patch: only documents or containers differ: card, provenance, compression, HDF5, `dropped`.
- none: every file is equal.

`row_offset` and `n_frames` follow from other rows and are not compared; the maxima and `n_expected`
are compared only for tracks with the same frames. A teacher whose checksum was unknown and is now
known counts as the same teacher. Datasets of another schema version or with other emotions are
refused: their rows cannot be compared.

Frames are aligned by track_id and grid point (`frame_index`, or the time `step_ms * frame_index` if
the steps differ), even if the track changed its split. Both files are sorted and are read in
parallel, one row group at a time. If both manifests give the same content hash for the frames of a
split, only OLD's are read. The hashes are taken from the manifests; `emovox validate` checks them.
"""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.comparison.alignment import HEADER, INVALID, Block, Pair, Side
from emovox.comparison.bump import find_bump
from emovox.comparison.changes import Difference, FrameChanges, TrackChanges, list_changes
from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.errors import InputError
from emovox.scores import confusion_matrix

NUM_WORST = 20  # tracks
TRACK_VALUES = ("identity_id", "video_id", "track_num", "duration_ms", "label")
FRAME_SUMMARIES = ("n_expected", *schema.MAXIMA)  # may differ if the frames of a track do


def diff(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Difference:
    """Compare two datasets.

    Holds both tables of tracks and a few row groups of frames in memory.

    Args:
        old: folder of the earlier dataset.
        new: folder of the later dataset.

    Raises:
        InputError: a folder is not a dataset of this contract version, or its tables contradict
            each other.

    Example:
        >>> found = diff("emovox-demo/dataset", "emovox-demo/dataset")
        >>> found.bump.level, found.tracks.common, found.frames.changed
        ('none', 96, 0)
    """
    pair = Pair(Side(Path(old)), Side(Path(new)))
    totals = _FrameTotals(pair)
    for block in pair.blocks("frames"):
        totals.add(block)
    tracks, frames = _track_changes(pair, totals), totals.changes()
    faces, files = _count_changed_faces(pair), _changed_files(pair)
    changes = list_changes(tracks, frames, faces, files)
    return Difference(
        old=pair.old.header,
        new=pair.new.header,
        header=[key for key in HEADER if pair.old.header[key] != pair.new.header[key]],
        tracks=tracks,
        frames=frames,
        faces_changed=faces,
        files=files,
        bump=find_bump(pair, changes, files),
        changes=changes,
    )


class _FrameTotals:
    """Sums over the common frames, block by block."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.argmax = np.zeros((len(EMOTIONS), len(EMOTIONS)), int)
        self.terms, self.absolute, self.largest = np.zeros((3, len(EMOTIONS)))
        self.where: dict[str, Any] | None = None  # the largest change so far
        self.common, self.changed, self.flips = np.zeros((3, len(pair)), int)  # by track
        self.divergence, self.track_largest = np.zeros((2, len(pair)))
        self.added: defaultdict[int, list[int]] = defaultdict(list)  # grid points by track
        self.removed: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, block: Block) -> None:
        """Add the rows of further tracks."""
        for points, lists in ((block.added, self.added), (block.removed, self.removed)):
            for track, index in points.T.tolist():
                lists[track].append(index)
        changed = (block.old != block.new).any(axis=0)
        old = block.old.argmax(axis=0)
        new = old.copy()
        new[changed] = block.new[:, changed].argmax(axis=0)
        self.argmax += confusion_matrix(old, new)
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
        """True for common tracks with the same frames in both datasets: bool `[T]`."""
        same = np.ones(len(self._pair), bool)
        same[[*self.added, *self.removed]] = False
        return same

    def other_frames(self) -> list[dict[str, Any]]:
        """Return the common tracks with other frames, with the added and removed grid points."""
        numbers = np.flatnonzero(~self.same_grid)
        found = [
            {"track_id": i, "added": self.added.get(n, []), "removed": self.removed.get(n, [])}
            for n, i in zip(numbers.tolist(), self._pair.ids(numbers), strict=True)
        ]
        return sorted(found, key=lambda track: track["track_id"])

    def changes(self) -> FrameChanges:
        """Return the totals and means."""
        pair, common = self._pair, int(self.common.sum())
        added, removed = (sum(map(len, lists.values())) for lists in (self.added, self.removed))
        divergence, by_emotion = None, np.full((len(EMOTIONS), 3), None).tolist()
        if common:
            divergence = float((self.terms / common).sum())
            means = [self.terms / common, self.absolute / common, self.largest]
            by_emotion = np.stack(means, axis=1).tolist()
        keys = ("divergence", "mean_change", "largest_change")
        return FrameChanges(
            common=common,
            changed=int(self.changed.sum()),
            argmax_flips=int(self.flips.sum()),
            added=int(pair.new.count.sum()) - common,
            removed=int(pair.old.count.sum()) - common,
            added_in_common_tracks=added,
            removed_in_common_tracks=removed,
            argmax=self.argmax.tolist(),
            divergence=divergence,
            emotions={
                emotion: dict(zip(keys, values, strict=True))
                for emotion, values in zip(EMOTIONS, by_emotion, strict=True)
            },
            largest=self.where,
            worst_tracks=self._worst(),
        )

    def _worst(self) -> list[dict[str, Any]]:
        tracks = np.flatnonzero(self.changed)
        divergence = self.divergence[tracks] / self.common[tracks]
        order = np.lexsort((-self.track_largest[tracks], -divergence))[:NUM_WORST]
        worst = tracks[order]
        table = {
            "track_id": self._pair.ids(worst),
            "divergence": divergence[order],
            "frames": self.common[worst],
            "changed": self.changed[worst],
            "argmax_flips": self.flips[worst],
            "largest_change": self.track_largest[worst],
        }
        return pa.table(table).to_pylist()


def _kl_terms(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the terms of KL(softmax(old) || softmax(new)) of logits `[8, n]`, by emotion."""
    old, new = (x - x.max(axis=0) for x in (old, new))
    old, new = (x - np.log(np.exp(x).sum(axis=0)) for x in (old, new))
    return np.exp(old) * (old - new)


def _track_changes(pair: Pair, totals: _FrameTotals) -> TrackChanges:
    old = pair.old.tracks.take(pa.array(pair.in_old))
    new = pair.new.tracks.take(pa.array(pair.in_new))
    labels = [_label_numbers(side.path, t) for side, t in ((pair.old, old), (pair.new, new))]
    values = {column: _differs(old, new, column) for column in TRACK_VALUES}
    for column in FRAME_SUMMARIES:
        values[column] = _differs(old, new, column) & totals.same_grid
    return TrackChanges(
        common=len(pair),
        added=_others(pair.new, pair.in_new),
        removed=_others(pair.old, pair.in_old),
        moved=_flips(old, new, "split"),
        other_frames=totals.other_frames(),
        values={column: int(differs.sum()) for column, differs in values.items() if differs.any()},
        labels=confusion_matrix(*labels).tolist(),
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
    """Return True for rows whose value in a column differs, bool `[T]`; null equals null."""
    one, other = old[column], new[column]
    nulls = pc.not_equal(pc.is_null(one), pc.is_null(other))
    return pc.coalesce(pc.not_equal(one, other), nulls).to_numpy()


def _flips(old: pa.Table, new: pa.Table, column: str) -> list[dict[str, str]]:
    """Return the tracks whose value in a column differs, with both values."""
    values = {"track_id": old["track_id"], "old": old[column], "new": new[column]}
    differs = pa.array(_differs(old, new, column))
    return pa.table(values).filter(differs).sort_by("track_id").to_pylist()


def _count_changed_faces(pair: Pair) -> int | None:
    if not (pair.old.has("faces") and pair.new.has("faces")):
        return None
    blocks = pair.blocks("faces")
    return sum(int((block.old != block.new).any(axis=0).sum()) for block in blocks)


def _changed_files(pair: Pair) -> list[str]:
    """Return the paths of files whose checksums differ or that only one manifest lists."""
    old, new = (
        {p: f.get("sha256") for p, f in side.files.items()} for side in (pair.old, pair.new)
    )
    return sorted(path for path in {**old, **new} if old.get(path) != new.get(path))
