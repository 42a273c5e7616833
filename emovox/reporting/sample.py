"""The tracks that a page shows one by one: chosen by rule, packed into few bytes."""

import base64
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.reader import Dataset
from emovox.emotions import EMOTIONS
from emovox.reporting.aggregates import dominant_of

FRAMES_IN_ALL = 100_000  # of all tracks shown; 2.2 MB of the page
NUM_PEAKS = 6  # of a track
LEVELS = 100  # steps of a stored logit per unit
NOTABLE_SHARE = 0.25  # of the tracks that are chosen for what they hold

RULE = (
    "Up to a quarter are notable: the strongest of each emotion, those that change most often, the "
    "longest, those with the most gaps. The rest are drawn in turn from every split and label, by "
    "a hash of their ids, so that rare emotions are among them and another run shows the same."
)


@dataclass(frozen=True)
class Peak:
    """The frame of a track in which an emotion is strongest."""

    emotion: str
    frame_index: int
    logit: float


@dataclass(frozen=True)
class Shown:
    """One track of the page.

    Attributes:
        logits: float32 `[n, 8]`, perhaps of its first part only.
        frame_index: int `[n]`.
        num_frames: of the whole track.
        num_expected: grid points of the whole track.
        duration: seconds; None where it is not known.
        peaks: of the emotions that are dominant somewhere, in the order of time.
        reasons: why it was chosen, where it is notable.
    """

    track_id: str
    identity_id: str
    video_id: str
    split: str
    label: str
    logits: np.ndarray
    frame_index: np.ndarray
    num_frames: int
    num_expected: int
    duration: float | None
    peaks: tuple[Peak, ...]
    reasons: tuple[str, ...]


@dataclass
class _Candidate:
    split: str
    row: int
    reasons: list[str] = field(default_factory=list)


def choose(dataset: Dataset, num_tracks: int) -> list[Shown]:
    """Choose tracks by `RULE`, notable ones first, then sorted by split and id.

    Raises:
        InputError: a table is missing or damaged.
    """
    chosen: dict[str, _Candidate] = {}
    if num_tracks <= 0 or not len(dataset):
        return []
    _add_notable(dataset, chosen, max(1, int(num_tracks * NOTABLE_SHARE)))
    _add_drawn(dataset, chosen, num_tracks)
    order = {split: place for place, split in enumerate(schema.SPLITS)}
    items = sorted(
        chosen.items(), key=lambda item: (not item[1].reasons, order[item[1].split], item[0])
    )
    lengths = [dataset.tracks[c.split]["n_frames"][c.row].as_py() for _, c in items]
    limit = water_level(lengths, FRAMES_IN_ALL)
    return [_shown(dataset, candidate, limit) for _, candidate in items]


def water_level(lengths: list[int], total: int) -> int:
    """The largest limit so that lengths cut to it sum to no more than `total`; at least 1."""
    if sum(lengths) <= total:
        return max(lengths, default=1)
    left = total
    for place, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - place)
        if length > share:
            return max(1, share)
        left -= length
    return max(lengths)


def peaks_of(logits: np.ndarray, frame_index: np.ndarray) -> tuple[Peak, ...]:
    """The strongest frame of each emotion that is dominant somewhere, the strongest few."""
    dominant = dominant_of(logits)
    found = []
    for k in np.unique(dominant[dominant >= 0]):
        rows = np.flatnonzero(dominant == k)
        row = rows[logits[rows, k].argmax()]
        found.append(Peak(EMOTIONS[k], int(frame_index[row]), float(logits[row, k])))
    strongest = sorted(found, key=lambda peak: -peak.logit)[:NUM_PEAKS]
    return tuple(sorted(strongest, key=lambda peak: peak.frame_index))


def pack(track: Shown) -> dict[str, Any]:
    """A track as JSON: logits as base64 of little-endian int16 in hundredths, row by row."""
    finite = np.nan_to_num(track.logits.astype(np.float64), posinf=0.0, neginf=0.0)
    levels = np.clip(np.rint(finite * LEVELS), -32767, 32767).astype("<i2")
    packed: dict[str, Any] = {
        "id": track.track_id,
        "who": track.identity_id,
        "split": track.split,
        "label": EMOTIONS.index(track.label) if track.label in EMOTIONS else -1,
        "frames": track.num_frames,
        "expected": track.num_expected,
        "seconds": track.duration,
        "why": list(track.reasons),
        "peaks": [
            [EMOTIONS.index(p.emotion), p.frame_index, round(p.logit, 2)] for p in track.peaks
        ],
        "logits": base64.b64encode(levels.tobytes()).decode(),
    }
    index = track.frame_index
    if len(index) and not np.array_equal(index, np.arange(len(index))):
        packed["index"] = index.tolist()
    return packed


def _add_notable(dataset: Dataset, chosen: dict[str, _Candidate], most: int) -> None:
    """Add tracks that stand out, kind by kind in turn, until there are `most`."""
    kinds: list[tuple[str, dict[tuple[str, int], float]]] = []
    for emotion, column in zip(EMOTIONS, schema.MAXIMA, strict=True):
        values = {s: dataset.tracks[s][column].to_numpy() for s in dataset.splits}
        kinds.append((f"strongest {emotion}", _best(values)))
    changes, gaps, lengths = {}, {}, {}
    for split in dataset.splits:
        table = dataset.tracks[split]
        lengths[split] = table["n_frames"].to_numpy()
        gaps[split] = table["n_expected"].to_numpy() - lengths[split]
        changes[split] = _changes(dataset.to_numpy(split)[0], table)
    kinds.append(("changes most often", _best(changes)))
    kinds.append(("longest", _best(lengths)))
    kinds.append(("most gaps", {key: v for key, v in _best(gaps).items() if v > 0}))
    for rank in range(3):
        for reason, best in kinds:
            if rank < len(best):
                split, row = list(best)[rank]
                track_id = dataset.tracks[split]["track_id"][row].as_py()
                if track_id in chosen or len(chosen) < most:
                    candidate = chosen.setdefault(track_id, _Candidate(split, row))
                    candidate.reasons.append(reason if not rank else f"{reason}, no. {rank + 1}")


def _best(values: Mapping[str, np.ndarray]) -> dict[tuple[str, int], float]:
    """The three largest, by split and row; of equals the first."""
    found = []
    for place, (split, column) in enumerate(values.items()):
        column = np.nan_to_num(column.astype(np.float64), nan=-np.inf)
        for row in np.argsort(-column, kind="stable")[:3]:
            found.append((-float(column[row]), place, int(row), split))
    return {(split, row): -value for value, _, row, split in sorted(found)[:3]}


def _changes(logits: np.ndarray, tracks: pa.Table) -> np.ndarray:
    """How often the dominant emotion of each track changes, int64 `[T]`."""
    dominant = dominant_of(logits)
    turns = np.append(dominant[1:] != dominant[:-1], False)
    ends = tracks["n_frames"].to_numpy().cumsum(dtype=np.int64)
    turns[ends - 1] = False  # the next row is another track's
    before = np.concatenate([[0], turns.cumsum()])
    return np.asarray(before[ends] - before[np.concatenate([[0], ends[:-1]])])


def _add_drawn(dataset: Dataset, chosen: dict[str, _Candidate], num_tracks: int) -> None:
    """Fill up from the cells of split and label in turn, each in the order of a hash."""
    cells: dict[tuple[str, str], list[tuple[bytes, int, str]]] = defaultdict(list)
    for split in dataset.splits:
        table = dataset.tracks[split]
        ids, labels = table["track_id"].to_pylist(), table["label"].to_pylist()
        for row, (track_id, label) in enumerate(zip(ids, labels, strict=True)):
            digest = blake2b(track_id.encode(), digest_size=8).digest()
            cells[split, label].append((digest, row, track_id))
    queues = []
    for (split, _), members in sorted(cells.items()):
        members.sort(reverse=True)
        queues.append((split, members))
    while len(chosen) < num_tracks and any(members for _, members in queues):
        for split, members in queues:
            if members and len(chosen) < num_tracks:
                _, row, track_id = members.pop()
                chosen.setdefault(track_id, _Candidate(split, row))


def _shown(dataset: Dataset, candidate: _Candidate, limit: int) -> Shown:
    row = dataset.tracks[candidate.split].slice(candidate.row, 1).to_pylist()[0]
    logits = dataset.logits(row["track_id"])[:limit]
    index = dataset.frame_index(row["track_id"])[:limit]
    duration = row["duration_ms"]
    return Shown(
        row["track_id"],
        row["identity_id"],
        row["video_id"],
        row["split"],
        row["label"],
        logits,
        index,
        row["n_frames"],
        row["n_expected"],
        None if duration is None else duration / 1000,
        peaks_of(logits, index),
        tuple(candidate.reasons),
    )
