"""The time grid of a track: one point every step, and the frame nearest to each point.

All times are seconds from the start of the track.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

EPSILON = 1e-6  # steps; tolerance for times that are exact only in decimal


def num_points(duration: float, step: float) -> int:
    """Return the number of points in `duration` seconds, both ends included.

    Example:
        >>> num_points(4.0, 0.24)
        17
    """
    return int(duration / step + EPSILON) + 1 if duration >= 0 else 0


def nearest(
    frames: Iterable[tuple[float, Item]], step: float, end: float | None = None
) -> Iterator[tuple[int, float, Item]]:
    """Choose the frame nearest in time to each grid point, in one pass.

    A point more than half a step from every frame is skipped, so no frame is chosen twice. Of two
    frames at the same distance the earlier is chosen. Without an `end`, the grid ends half a frame
    interval after the last frame. At 25 frames per second and 0.24 s this gives frames 0, 6, 12,
    ..., floor((N - 1) / 6) + 1 of N.

    Args:
        frames: `(time, frame)` with rising times.
        step: seconds between grid points.
        end: time of the last possible point.

    Yields:
        `(grid index, time, frame)`, in order.

    Example:
        >>> video = ((k / 25, f"frame {k}") for k in range(14))
        >>> list(nearest(video, 0.24))
        [(0, 0.0, 'frame 0'), (1, 0.24, 'frame 6'), (2, 0.48, 'frame 12')]
    """
    previous: tuple[float, Item] | None = None
    interval = 0.0
    index = 0
    for time, item in frames:
        while end is None or index < num_points(end, step):
            point = index * step
            if time < point - EPSILON * step:
                break
            if previous is None or time - point < point - previous[0] - EPSILON * step:
                chosen = (time, item)
            else:
                chosen = previous
            if _serves(chosen[0], point, step):
                yield index, *chosen
                index += 1
            else:  # skip all points more than half a step before this frame
                index = max(index + 1, int(time / step - 0.5))
        if previous is not None:
            interval = time - previous[0]
        previous = (time, item)
    if previous is None:
        return
    last = previous[0] + interval / 2 if end is None else end
    if index < num_points(last, step) and _serves(previous[0], index * step, step):
        yield index, *previous


def _serves(time: float, point: float, step: float) -> bool:
    """Return True if a frame is within half a step; a frame midway serves the earlier point."""
    return -0.5 + EPSILON < (time - point) / step <= 0.5 + EPSILON
