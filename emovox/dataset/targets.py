"""Rows of a window of a track, and their logits pooled into one target."""

import math

import numpy as np

LEGACY_FPS, LEGACY_STEP = 25, 6  # video frames per second, and per grid point
ROUNDING = 1e-6  # of a grid step; a window's edge this close to a grid point lies on it


def pool_rows(rows: np.ndarray, pool: str) -> np.ndarray:
    """Pool logits `[n, E]` into one row `[E]`; see `Dataset.target`."""
    if pool == "peak":
        return np.array(rows[rows.max(axis=1).argmax()])
    return np.asarray(rows.max(axis=0) if pool == "max" else rows.mean(axis=0))


def grid_rows(first: float, last: float, frame_index: np.ndarray) -> slice:
    """Return the rows that overlap a window in grid steps; the nearest row if none does.

    `frame_index` has the grid points of the rows, int `[n]`, ascending.
    """
    low = math.floor(max(first + ROUNDING, 0))
    high = math.inf if math.isinf(last) else math.ceil(last - ROUNDING)
    start, stop = (int(np.searchsorted(frame_index, bound)) for bound in (low, high))
    if start < stop:
        return slice(start, stop)
    middle = (low + (low if math.isinf(high) else max(high - 1, 0))) / 2
    nearest = int(np.abs(frame_index - min(middle, int(frame_index[-1]))).argmin())
    return slice(nearest, nearest + 1)


def legacy_rows(start: float, end: float, num_rows: int) -> slice:
    """Return the rows that the reference code uses for a window in seconds."""

    def row(time: float) -> int:
        if time == math.inf:
            return num_rows - 1
        return min(math.floor(max(LEGACY_FPS * time - 1, 0) / LEGACY_STEP), num_rows - 1)

    return slice(row(start), row(end) + 1)
