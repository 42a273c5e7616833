"""Counts and distributions of a whole dataset, in one pass over its frames."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emovox.dataset import schema
from emovox.dataset.reader import Dataset
from emovox.dataset.rows import Dropped, count_reasons
from emovox.dataset.store import read_rows, reading
from emovox.dataset.takedown import COLUMNS_WITH_IDS, listed_in
from emovox.errors import InputError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LOGIT_BINS = 72
REACH = 0.0005  # share of logits beyond either end of the axis of the histograms
AXIS_ROWS = 200_000  # sample of rows that the axis is computed from
COVERAGE_BINS = 20
LORENZ_POINTS = 101


@dataclass(frozen=True)
class SplitCounts:
    """Counts of one split; all are 0 for a split without rows."""

    split: str
    num_tracks: int
    num_identities: int
    num_videos: int
    num_frames: int
    num_expected: int  # grid points, with or without a face
    seconds: float | None  # of all tracks; None if the duration of a track is unknown
    frames: np.ndarray  # by dominant emotion, int64 `[E]`
    labels: np.ndarray  # tracks by label, int64 `[E]`
    values: np.ndarray  # mean and deviation of each value, `[V, 2]`; NaN without frames


@dataclass(frozen=True)
class Logits:
    """Distribution of the logits of each emotion over all frames."""

    edges: np.ndarray  # of the bins, `[B + 1]`; logits beyond them count in the outermost bins
    counts: np.ndarray  # histograms, int64 `[E, B]`
    mean: np.ndarray  # `[E]`
    deviation: np.ndarray  # `[E]`
    quantiles: np.ndarray  # `[E, 5]`, at `QUANTILES`


@dataclass(frozen=True)
class Skew:
    """Distribution of frames over groups: identities, or videos."""

    num_groups: int  # with frames
    lorenz: np.ndarray  # share of frames in the smallest k percent of groups, k = 0 ... 100
    gini: float  # 0 for groups of equal size, near 1 if one group has all frames
    largest: float  # share of frames in the largest group


@dataclass(frozen=True)
class Aggregates:
    """Counts and distributions of a dataset."""

    title: str  # name and version of the dataset
    emotions: tuple[str, ...]
    value_names: tuple[str, ...]
    num_tracks: int  # of all splits
    num_frames: int
    frames: np.ndarray  # by dominant emotion, int64 `[E]`
    splits: tuple[SplitCounts, ...]
    logits: Logits
    # Tracks by the share of their grid points with a face, in 20 bins of 5 percent, the last one
    # closed; int64 `[20]`
    coverage: np.ndarray
    num_full: int  # tracks without gaps
    identities: Skew
    videos: Skew
    # Reason, number of tracks and the message of one, the most frequent first
    dropped: list[tuple[str, int, str]]

    def frames_of(self, emotions: Sequence[str]) -> list[tuple[int | None, float]]:
        """Return frames by dominant emotion, and their shares of 1.

        Both are 0 without frames; None and NaN for an emotion that the dataset does not have.
        """
        counts = dict(zip(self.emotions, self.frames.tolist(), strict=True))
        total = max(int(self.frames.sum()), 1)
        return [(counts.get(each), counts.get(each, math.nan) / total) for each in emotions]


def aggregate(dataset: Dataset, edges: np.ndarray | None = None) -> Aggregates:
    """Count the rows of a dataset; `edges` fit its logits by default; InputError if damaged."""
    edges = logit_edges([dataset]) if edges is None else edges
    counts, dominants = zip(*(_split(dataset, split) for split in schema.SPLITS), strict=True)
    tables = [dataset.tracks[split] for split in dataset.splits]
    tracks = pa.concat_tables([dataset.columns.tracks.empty_table(), *tables])
    n_frames, dominant = tracks["n_frames"].to_numpy(), np.concatenate(dominants)
    logits = _logits(dataset, edges)
    expected = np.maximum(tracks["n_expected"].to_numpy(), 1)
    # Integers, so that 19 of 20 is 95 percent and not slightly less.
    bins = np.minimum(n_frames * COVERAGE_BINS // expected, COVERAGE_BINS - 1)
    coverage = np.bincount(bins, minlength=COVERAGE_BINS), int((n_frames >= expected).sum())
    people, videos = (_skew(g, n_frames) for g in (tracks["identity_id"], _videos(tracks)))
    names = f"{dataset.name} {dataset.version}", dataset.emotions, dataset.values
    sums = tracks.num_rows, len(dominant), np.sum([split.frames for split in counts], axis=0)
    rows = read_dropped(dataset)
    messages = {f"{row.stage}: {row.error}": row.message for row in reversed(rows)}
    dropped = [(why, num, messages[why]) for why, num in count_reasons(rows).most_common()]
    return Aggregates(*names, *sums, counts, logits, *coverage, people, videos, dropped)


def logit_edges(datasets: Sequence[Dataset]) -> np.ndarray:
    """Return edges of bins, from integer to integer, for nearly all logits of all datasets."""
    ends = []
    for dataset in datasets:
        for split in dataset.splits:
            logits, _ = dataset.to_numpy(split)
            if len(some := logits[:: max(1, len(logits) // AXIS_ROWS)]):
                ends.append(np.quantile(some, [REACH, 1 - REACH]))
    start, stop = float(np.floor(np.min(ends or -1))), float(np.ceil(np.max(ends or 1)))
    return np.linspace(start, max(stop, start + 1), LOGIT_BINS + 1)


def read_dropped(dataset: Dataset) -> list[Dropped]:
    """Read the table of dropped tracks, without rows that mention an identity of its takedown list.

    InputError if the table is missing or damaged.
    """
    path = dataset.path / schema.DROPPED_FILE
    with reading(path):
        rows = [Dropped(**row) for row in read_rows(path, schema.DROPPED.names).to_pylist()]
    texts = ("/".join(str(getattr(row, name)) for name in COLUMNS_WITH_IDS) for row in rows)
    hidden = (listed_in(text, dataset.takedown) for text in texts)
    return [row for row, ids in zip(rows, hidden, strict=True) if not ids]


def _videos(tracks: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(tracks["identity_id"], tracks["video_id"], "/")


def _split(dataset: Dataset, split: str) -> tuple[SplitCounts, np.ndarray]:
    """Return the counts of a split, and the dominant emotion of each of its frames."""
    tracks, dominant = dataset.columns.tracks.empty_table(), np.empty(0, np.int64)
    if split in dataset.splits:
        tracks, logits = dataset.tracks[split], dataset.to_numpy(split)[0]
        if not np.isfinite(logits.sum(dtype=np.float64)):  # finite only if all terms are
            raise InputError(
                f"{dataset.path}: a logit of {split} is not finite; run `emovox validate`"
            )
        dominant = logits.argmax(axis=1)
    if tracks["n_frames"].to_numpy().sum() != len(dominant):
        raise InputError(
            f"{dataset.path}: tables `tracks` and `frames` of {split} do not match; run "
            "`emovox validate` for details"
        )
    labels = pc.index_in(tracks["label"], pa.array(dataset.emotions)).drop_null().to_numpy()
    duration = tracks["duration_ms"]
    identities, videos = map(pc.count_distinct, (tracks["identity_id"], _videos(tracks)))
    sizes = tracks.num_rows, identities.as_py(), videos.as_py(), len(dominant)
    num_expected = int(tracks["n_expected"].to_numpy().sum())
    seconds = None if duration.null_count else float(duration.to_numpy().sum() / 1000)
    num = len(dataset.emotions)
    counts = np.bincount(dominant, minlength=num), np.bincount(labels, minlength=num)
    values = np.full((len(dataset.values), 2), np.nan)
    for k, name in enumerate(dataset.values if split in dataset.splits else ()):
        column = dataset.frames[split][f"value_{name}"]
        values[k] = pc.mean(column).as_py(), pc.stddev(column).as_py()
    return SplitCounts(split, *sizes, num_expected, seconds, *counts, values), dominant


def _logits(dataset: Dataset, edges: np.ndarray) -> Logits:
    parts = [dataset.to_numpy(split)[0] for split in dataset.splits]
    num = len(dataset.emotions)
    counts = np.zeros((num, len(edges) - 1), np.int64)
    mean, deviation = np.full((2, num), np.nan)
    quantiles = np.full((num, len(QUANTILES)), np.nan)
    for k in range(num):
        values = np.concatenate([np.empty(0, np.float32), *(part[:, k] for part in parts)])
        if not len(values):
            continue
        ends = edges[0], edges[-1]
        counts[k], _ = np.histogram(values.clip(*ends), len(edges) - 1, ends)
        mean[k], deviation[k] = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        quantiles[k] = np.quantile(values, QUANTILES, overwrite_input=True)
    return Logits(edges, counts, mean, deviation, quantiles)


def _skew(groups: pa.ChunkedArray, n_frames: np.ndarray) -> Skew:
    """Return the distribution of frames over `groups` of tracks."""
    encoded = pc.dictionary_encode(groups).combine_chunks()
    num_groups = len(encoded.dictionary)
    if not num_groups:
        return Skew(0, np.zeros(LORENZ_POINTS), 0.0, 0.0)
    sizes = np.bincount(encoded.indices.to_numpy(), n_frames, num_groups)
    sizes = np.sort(sizes) / max(n_frames.sum(), 1)
    held = np.append(0, sizes.cumsum())
    lorenz = np.interp(np.linspace(0, 1, LORENZ_POINTS), np.linspace(0, 1, num_groups + 1), held)
    gini = float(1 - (held[1:] + held[:-1]).sum() / num_groups)
    return Skew(num_groups, lorenz, gini, float(sizes[-1]))
