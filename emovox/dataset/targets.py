"""Logits of a window of a track, pooled into one target."""

import math

import numpy as np

from emovox.dataset.names import POOLS, TIMINGS
from emovox.errors import ConfigError

LEGACY_FPS, LEGACY_STEP = 25, 6  # video frames per second, and per grid point
ROUNDING = 1e-6  # of a grid step; a window's edge this close to a grid point lies on it


def pool_window(
    logits: np.ndarray,
    frame_index: np.ndarray,
    step: float,
    window: tuple[float, float],
    pool: str,
    timing: str,
) -> np.ndarray:
    """Pool the logits of a window of a track into one target; see `Dataset.target`.

    `logits` are float32 `[n, E]`, `frame_index` int32 `[n]`, ascending; `step` and `window` (start
    and end) in seconds. ConfigError if `pool` or `timing` is unknown, or the window is empty.
    """
    start, end = window
    if pool not in POOLS:
        raise ConfigError(f"pool {pool!r} is not one of {', '.join(POOLS)}")
    if timing not in TIMINGS:
        raise ConfigError(f"timing {timing!r} is not one of {', '.join(TIMINGS)}")
    if not end > start:
        raise ConfigError(f"window from {start} to {end} s: empty; pass an end after the start")
    if timing == "legacy":
        chosen = logits[_legacy_rows(start, end, len(logits))]
    else:
        chosen = logits[_grid_rows(start / step, end / step, frame_index)]
    return pool_rows(chosen, pool)


def pool_rows(rows: np.ndarray, pool: str) -> np.ndarray:
    """Pool logits `[n, E]` into one row `[E]`; see `Dataset.target`."""
    if pool == "peak":
        return np.array(rows[rows.max(axis=1).argmax()])
    return np.asarray(rows.max(axis=0) if pool == "max" else rows.mean(axis=0))


def _grid_rows(first: float, last: float, frame_index: np.ndarray) -> slice:
    """Return the rows that overlap a window in grid steps; the nearest row if none does."""
    low = math.floor(max(first + ROUNDING, 0))
    high = math.inf if math.isinf(last) else math.ceil(last - ROUNDING)
    start, stop = (int(np.searchsorted(frame_index, bound)) for bound in (low, high))
    if start < stop:
        return slice(start, stop)
    middle = (low + (low if math.isinf(high) else max(high - 1, 0))) / 2
    nearest = int(np.abs(frame_index - min(middle, int(frame_index[-1]))).argmin())
    return slice(nearest, nearest + 1)


def _legacy_rows(start: float, end: float, num_rows: int) -> slice:
    """Return the rows that the reference code uses for a window in seconds."""

    def row(time: float) -> int:
        if time == math.inf:
            return num_rows - 1
        frame = max(LEGACY_FPS * time - 1, 0)
        return min(math.floor(frame / LEGACY_STEP), num_rows - 1)

    return slice(row(start), row(end) + 1)
