from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emovox.media.grid import nearest, num_points


def naive_nearest(
    times: list[Fraction], step: Fraction, end: Fraction | None
) -> list[tuple[int, int]]:
    """Compare every grid point with every frame; return `(grid index, frame number)`."""
    if not times:
        return []
    if end is None:
        end = times[-1] + (times[-1] - times[-2]) / 2 if len(times) > 1 else times[-1]
    found = []
    index = 0
    while index * step <= end:
        point = index * step
        best = min(range(len(times)), key=lambda i: (abs(times[i] - point), i))
        if -step / 2 < times[best] - point <= step / 2:
            found.append((index, best))
        index += 1
    return found


def pick(
    times: list[Fraction], step: Fraction, end: Fraction | None = None
) -> list[tuple[int, int]]:
    frames = [(float(time), number) for number, time in enumerate(times)]
    chosen = list(nearest(frames, float(step), None if end is None else float(end)))
    for _, time, number in chosen:
        assert time == float(times[number])
    return [(index, number) for index, _, number in chosen]


def milliseconds(*values: int) -> list[Fraction]:
    return [Fraction(value, 1000) for value in values]


STEPS = st.sampled_from(milliseconds(40, 100, 240, 1000))
TIMES = st.lists(st.integers(-400, 4000), unique=True, max_size=60).map(
    lambda values: milliseconds(*sorted(values))
)
ENDS = st.none() | st.integers(-500, 5000).map(lambda value: Fraction(value, 1000))


@given(TIMES, STEPS, ENDS)
def test_nearest_matches_a_search_over_all_frames(
    times: list[Fraction], step: Fraction, end: Fraction | None
) -> None:
    assert pick(times, step, end) == naive_nearest(times, step, end)


@given(TIMES, STEPS, ENDS)
def test_grid_indices_and_frames_both_rise(
    times: list[Fraction], step: Fraction, end: Fraction | None
) -> None:
    chosen = pick(times, step, end)
    for (index, number), (next_index, next_number) in pairwise(chosen):
        assert index < next_index
        assert number < next_number


@given(st.integers(1, 3000))
def test_25_fps_gives_every_sixth_frame(num_frames: int) -> None:
    times = [Fraction(i, 25) for i in range(num_frames)]
    count = (num_frames - 1) // 6 + 1
    assert pick(times, Fraction(6, 25)) == [(k, 6 * k) for k in range(count)]


@pytest.mark.parametrize("rate", ["24000/1001", "24", "30000/1001", "30", "50", "60000/1001", "60"])
def test_other_rates_give_the_nearest_frame(rate: str) -> None:
    step = Fraction(6, 25)
    times = [i / Fraction(rate) for i in range(400)]
    chosen = pick(times, step)
    assert chosen == naive_nearest(times, step, None)
    assert len(chosen) == times[-1] // step + 1
    assert all(abs(times[i] - k * step) <= 1 / Fraction(rate) / 2 for k, i in chosen)


@given(st.integers(0, 10**7), st.integers(1, 2000))
def test_num_points_counts_both_ends(duration: int, step: int) -> None:
    assert num_points(duration / 1000, step / 1000) == duration // step + 1


def test_num_points_of_a_negative_duration() -> None:
    assert num_points(0.0, 0.24) == 1
    assert num_points(-0.001, 0.24) == 0


def test_the_earlier_of_two_frames_at_the_same_distance_is_chosen() -> None:
    assert pick(milliseconds(0, 200, 280, 480), Fraction(6, 25)) == [(0, 0), (1, 1), (2, 3)]


def test_a_frame_between_two_points_serves_the_earlier_one() -> None:
    assert pick(milliseconds(0, 360, 720), Fraction(6, 25)) == [(0, 0), (1, 1), (3, 2)]


def test_points_in_a_gap_are_skipped() -> None:
    times = milliseconds(0, 40, 80, 1000, 1040)
    assert pick(times, Fraction(6, 25)) == [(0, 0), (4, 3)]


def test_points_before_a_late_first_frame_are_skipped() -> None:
    assert pick(milliseconds(480, 520), Fraction(6, 25)) == [(2, 0)]


def test_the_grid_ends_half_an_interval_after_the_last_frame() -> None:
    step = Fraction(6, 25)
    # The second point is 20 ms after the last frame: half of the 40 ms interval.
    assert pick(milliseconds(140, 180, 220), step) == [(1, 2)]
    assert pick(milliseconds(139, 179, 219), step) == []


def test_an_explicit_end_may_be_a_point_and_none_follow_it() -> None:
    times = [Fraction(i, 25) for i in range(30)]
    step = Fraction(6, 25)
    assert pick(times, step, Fraction(48, 100)) == [(0, 0), (1, 6), (2, 12)]
    assert pick(times, step, Fraction(479, 1000)) == [(0, 0), (1, 6)]
    assert pick(times, step, Fraction(-1, 1000)) == []


def test_a_later_end_adds_at_most_half_a_step_after_the_last_frame() -> None:
    times = milliseconds(0, 120, 340)
    assert pick(times, Fraction(6, 25), Fraction(10)) == [(0, 0), (1, 2)]


def test_no_frames_give_no_points() -> None:
    assert pick([], Fraction(6, 25)) == []
    assert pick([], Fraction(6, 25), Fraction(2)) == []


def test_frames_are_read_one_by_one() -> None:
    taken = []

    def frames() -> Iterator[tuple[float, int]]:
        for number in range(100):
            taken.append(number)
            yield number / 25, number

    assert next(nearest(frames(), 0.24)) == (0, 0.0, 0)
    assert len(taken) == 1


def test_a_gap_of_a_century_takes_no_time() -> None:
    century = 100 * 365 * 86_400
    chosen = list(nearest([(0.0, "a"), (float(century), "b")], 0.24, century + 1.0))
    assert chosen == [(0, 0.0, "a"), (century * 100 // 24, float(century), "b")]
    assert list(nearest([(0.0, "a")], 0.24, float(century))) == [(0, 0.0, "a")]
