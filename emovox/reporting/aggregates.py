"""What a dataset looks like as a whole: counts and distributions, in one pass over its frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.reader import Dataset
from emovox.dataset.takedown import names_listed
from emovox.emotions import EMOTIONS
from emovox.errors import InputError

NUM_EMOTIONS = len(EMOTIONS)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LOGIT_BINS = 72
REACH = 0.0005  # share of logits that lie beyond either end of the histogram's axis
LOOK = 200_000  # rows that the axis of the histograms is chosen from
COVERAGE_BINS = 20
LORENZ_POINTS = 101


@dataclass(frozen=True)
class SplitCounts:
    """One split; all zeros where it is empty.

    Attributes:
        num_expected: grid points, with or without a face.
        seconds: of all tracks; None where one gives no duration.
        frames: frames by dominant emotion, int64 `[8]`.
        labels: tracks by label, int64 `[8]`.
    """

    split: str
    num_tracks: int
    num_identities: int
    num_videos: int
    num_frames: int
    num_expected: int
    seconds: float | None
    frames: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Logits:
    """Distribution of the logits of each emotion over all frames.

    Attributes:
        edges: of the histograms' bins, `[B + 1]`; what lies beyond counts in the outermost bins.
        counts: int64 `[8, B]`.
        mean, deviation: `[8]`.
        quantiles: `[8, 5]`, at `QUANTILES`.
        num_bad: frames with a logit that is not a finite number; left out everywhere.
    """

    edges: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    quantiles: np.ndarray
    num_bad: int


@dataclass(frozen=True)
class Skew:
    """How unevenly frames are spread over groups: identities, or videos.

    Attributes:
        num_groups: that have frames.
        lorenz: share of frames that the smallest k percent of groups hold, k = 0 ... 100.
        gini: 0 where all have the same, towards 1 where one has everything.
        largest: share of the largest group.
        tenth: share of the largest tenth.
        having: groups in which an emotion is dominant at least once, `[8]`.
        top: share of an emotion's frames that lie in the group with the most, `[8]`; NaN where
            there are none.
        shares: quantiles over the groups of the share of frames of an emotion, `[8, 5]`.
    """

    num_groups: int
    lorenz: np.ndarray
    gini: float
    largest: float
    tenth: float
    having: np.ndarray
    top: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class Coverage:
    """Share of grid points with a face, by track.

    Attributes:
        counts: tracks in 20 bins of 5 percent, the last one closed; int64 `[20]`.
        num_full: tracks without a gap.
    """

    counts: np.ndarray
    num_full: int


@dataclass(frozen=True)
class DroppedReason:
    """Tracks that gave no rows for one reason, and an example of its message."""

    stage: str
    error: str
    count: int
    message: str


@dataclass(frozen=True)
class Aggregates:
    """All that a page says of a dataset, apart from single tracks."""

    name: str
    version: str
    splits: tuple[SplitCounts, ...]
    logits: Logits
    coverage: Coverage
    identities: Skew
    videos: Skew
    dropped: tuple[DroppedReason, ...] | None

    @property
    def num_frames(self) -> int:
        return sum(split.num_frames for split in self.splits)

    @property
    def num_tracks(self) -> int:
        return sum(split.num_tracks for split in self.splits)

    @property
    def frames(self) -> np.ndarray:
        """Frames by dominant emotion, int64 `[8]`."""
        return np.sum([split.frames for split in self.splits], axis=0)


def aggregate(dataset: Dataset, edges: np.ndarray | None = None) -> Aggregates:
    """Count everything; with `edges` for the histograms of logits, else with ones that fit.

    Raises:
        InputError: a table is missing or damaged, or tables do not fit each other.
    """
    edges = logit_edges([dataset]) if edges is None else edges
    counts = []
    codes: list[np.ndarray] = []
    for split in schema.SPLITS:
        found, dominant = _split(dataset, split)
        counts.append(found)
        codes.append(dominant)
    tracks = pa.concat_tables(
        [schema.TRACKS.empty_table(), *(dataset.tracks[split] for split in dataset.splits)]
    )
    n_frames = tracks["n_frames"].to_numpy()
    dominant = np.concatenate(codes)
    video = pc.binary_join_element_wise(tracks["identity_id"], tracks["video_id"], "/")
    return Aggregates(
        dataset.name,
        dataset.version,
        tuple(counts),
        _logits(dataset, edges),
        _coverage(n_frames, tracks["n_expected"].to_numpy()),
        _skew(tracks["identity_id"], n_frames, dominant),
        _skew(video, n_frames, dominant),
        dropped_reasons(dataset),
    )


def logit_edges(datasets: Sequence[Dataset]) -> np.ndarray:
    """Edges of bins that hold nearly all logits of all datasets, at round numbers."""
    low, high = [], []
    for dataset in datasets:
        for split in dataset.splits:
            logits, _ = dataset.to_numpy(split)
            some = logits[:: max(1, len(logits) // LOOK)]
            if len(some := some[np.isfinite(some).all(axis=1)]):
                ends = np.quantile(some, [REACH, 1 - REACH])
                low.append(ends[0])
                high.append(ends[1])
    if not low:
        return np.linspace(-1.0, 1.0, LOGIT_BINS + 1)
    start, stop = float(np.floor(min(low))), float(np.ceil(max(high)))
    return np.linspace(start, max(stop, start + 1), LOGIT_BINS + 1)


def dropped_reasons(dataset: Dataset) -> tuple[DroppedReason, ...] | None:
    """Reasons of `dropped`, the most frequent first; None where the table is not there."""
    path = dataset.path / schema.DROPPED_FILE
    if not path.is_file():
        return None
    try:
        rows = pq.read_table(path, columns=schema.DROPPED.names).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from error
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not names_listed(str(row["track_id"]), dataset.takedown):
            message = str(row["message"])
            shown = "" if names_listed(message, dataset.takedown) else message
            found.setdefault((row["stage"], row["error"]), []).append(shown)
    reasons = [DroppedReason(*key, len(texts), texts[0]) for key, texts in found.items()]
    return tuple(sorted(reasons, key=lambda r: (-r.count, r.stage, r.error)))


def dominant_of(logits: np.ndarray) -> np.ndarray:
    """Number of the largest logit of each frame, int64 `[N]`; -1 where one is not finite."""
    dominant = logits.argmax(axis=1)
    # A sum is finite only where all its parts are, and costs one pass.
    bad = ~np.isfinite(logits.sum(axis=1, dtype=np.float64))
    if bad.any():
        dominant[bad] = -1
    return dominant


def _split(dataset: Dataset, split: str) -> tuple[SplitCounts, np.ndarray]:
    """Counts of a split, and the dominant emotion of each of its frames."""
    if split not in dataset.splits:
        zero = np.zeros(NUM_EMOTIONS, np.int64)
        return SplitCounts(split, 0, 0, 0, 0, 0, 0.0, zero, zero), np.empty(0, np.int64)
    tracks = dataset.tracks[split]
    dominant = dominant_of(dataset.to_numpy(split)[0])
    if pc.sum(tracks["n_frames"]).as_py() != len(dominant):
        raise InputError(
            f"{dataset.path}: tables `tracks` and `frames` of {split} do not fit each other; "
            "`emovox validate` says more"
        )
    labels = pc.index_in(tracks["label"], pa.array(EMOTIONS)).to_numpy()
    duration = tracks["duration_ms"]
    video = pc.binary_join_element_wise(tracks["identity_id"], tracks["video_id"], "/")
    return SplitCounts(
        split,
        tracks.num_rows,
        pc.count_distinct(tracks["identity_id"]).as_py(),
        pc.count_distinct(video).as_py(),
        len(dominant),
        pc.sum(tracks["n_expected"]).as_py(),
        None if duration.null_count else pc.sum(duration).as_py() / 1000,
        np.bincount(dominant[dominant >= 0], minlength=NUM_EMOTIONS),
        np.bincount(labels[~np.isnan(labels)].astype(int), minlength=NUM_EMOTIONS),
    ), dominant


def _logits(dataset: Dataset, edges: np.ndarray) -> Logits:
    parts = [dataset.to_numpy(split)[0] for split in dataset.splits]
    bad = [~np.isfinite(part.sum(axis=1, dtype=np.float64)) for part in parts]
    counts = np.zeros((NUM_EMOTIONS, len(edges) - 1), np.int64)
    mean, deviation = np.full((2, NUM_EMOTIONS), np.nan)
    quantiles = np.full((NUM_EMOTIONS, len(QUANTILES)), np.nan)
    scale = (len(edges) - 1) / (edges[-1] - edges[0])
    for k in range(NUM_EMOTIONS):
        columns = [p[~b, k] if b.any() else p[:, k] for p, b in zip(parts, bad, strict=True)]
        values = np.concatenate([np.empty(0, np.float32), *columns])
        if not len(values):
            continue
        # Bins of one width are numbered by division, several times faster than by searching.
        places = ((values - edges[0]) * scale).astype(np.int64)
        places = places.clip(0, len(edges) - 2)
        counts[k] = np.bincount(places, minlength=len(edges) - 1)
        mean[k], deviation[k] = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        quantiles[k] = np.quantile(values, QUANTILES, overwrite_input=True)
    return Logits(edges, counts, mean, deviation, quantiles, int(sum(b.sum() for b in bad)))


def _coverage(n_frames: np.ndarray, n_expected: np.ndarray) -> Coverage:
    share = n_frames / np.maximum(n_expected, 1)
    # Whole numbers, so that 19 of 20 is 95 percent and not a little less.
    bins = np.minimum(n_frames * COVERAGE_BINS // np.maximum(n_expected, 1), COVERAGE_BINS - 1)
    counts = np.bincount(bins.astype(np.int64), minlength=COVERAGE_BINS)
    return Coverage(counts, int((share >= 1).sum()))


def _skew(groups: pa.ChunkedArray, n_frames: np.ndarray, dominant: np.ndarray) -> Skew:
    """Of tracks' groups, their frames, and the dominant emotion of each frame."""
    encoded = pc.dictionary_encode(groups).combine_chunks()
    codes = encoded.indices.to_numpy().astype(np.int64)
    num_groups = len(encoded.dictionary)
    if not num_groups:
        empty = np.full(NUM_EMOTIONS, np.nan)
        quantiles = np.full((NUM_EMOTIONS, len(QUANTILES)), np.nan)
        return Skew(0, np.zeros(LORENZ_POINTS), 0.0, 0.0, 0.0, np.zeros(8, int), empty, quantiles)
    of_frame = np.repeat(codes * NUM_EMOTIONS, n_frames)
    known = dominant >= 0
    table = np.bincount((of_frame + dominant)[known], minlength=num_groups * NUM_EMOTIONS)
    table = table.reshape(num_groups, NUM_EMOTIONS)
    sizes = np.bincount(codes, n_frames, num_groups)
    rising = np.sort(sizes)
    held = np.concatenate([[0], rising.cumsum() / max(rising.sum(), 1)])
    ranks = np.linspace(0, 1, num_groups + 1)
    totals = table.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = np.where(totals > 0, table.max(axis=0) / totals, np.nan)
        shares = table / table.sum(axis=1, keepdims=True)
    return Skew(
        num_groups,
        np.interp(np.linspace(0, 1, LORENZ_POINTS), ranks, held),
        float(1 - (held[1:] + held[:-1]).sum() / num_groups),
        float(rising[-1] / max(rising.sum(), 1)),
        float(rising[-max(1, round(num_groups / 10)) :].sum() / max(rising.sum(), 1)),
        (table > 0).sum(axis=0),
        top,
        np.nanquantile(shares, QUANTILES, axis=0).T,
    )


def as_shares(counts: np.ndarray) -> np.ndarray:
    """Counts as shares of their sum; zeros where there is nothing."""
    return np.asarray(counts / max(counts.sum(), 1))
