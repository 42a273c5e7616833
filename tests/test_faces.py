import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emovox.demo.face import EXPRESSIONS, Looks, draw_face
from emovox.media.faces import (
    Box,
    Follower,
    Mtcnn,
    cut,
    dense_box,
    is_visible,
    overlap,
    resize,
    sharpness,
    square,
    voxceleb2_box,
)

RNG = np.random.default_rng(0)


def test_voxceleb2_box_of_a_clip() -> None:
    box = voxceleb2_box(224, 224)
    assert (box.x, box.y) == pytest.approx((32, 0))
    assert (box.x + box.w, box.y + box.h) == pytest.approx((192, 160))
    assert cut(np.zeros((224, 224, 3), np.uint8), box).shape == (160, 160, 3)


def test_voxceleb2_box_follows_the_size() -> None:
    box = voxceleb2_box(448, 448)
    assert (box.x, box.y, box.w, box.h) == pytest.approx((64, 0, 320, 320))
    wide = voxceleb2_box(300, 140)
    assert (wide.x, wide.y, wide.w, wide.h) == pytest.approx((100, 0, 100, 100))


@given(st.integers(8, 400), st.integers(8, 400))
def test_dense_box_is_the_central_square(width: int, height: int) -> None:
    # In integers: 0.625 is 5/8, and halves are rounded up.
    side = (5 * min(width, height) + 4) // 8
    expected = ((width - side) // 2, (height - side) // 2, side, side)
    box = dense_box(width, height)
    assert (box.x, box.y, box.w, box.h) == expected


def test_dense_box_of_known_sizes() -> None:
    assert dense_box(256, 256) == Box(48, 48, 160, 160)
    assert dense_box(100, 100) == Box(18, 18, 63, 63)
    assert dense_box(301, 200) == Box(88, 37, 125, 125)


def test_square_keeps_the_centre_and_the_longer_side() -> None:
    assert square(Box(10, 20, 40, 60, 0.9)) == Box(0, 20, 60, 60, 0.9)
    assert square(Box(10, 20, 60, 40)) == Box(10, 10, 60, 60)


@pytest.mark.parametrize(
    ("box", "visible"),
    [
        (Box(10, 10, 20, 20), True),
        (Box(-10, 10, 20, 20), True),  # half of the box
        (Box(-10, -10, 20, 20), True),  # exactly a quarter
        (Box(-10.1, -10, 20, 20), False),
        (Box(90, 70, 20, 20), True),
        (Box(90.1, 70, 20, 20), False),
        (Box(-30, 10, 20, 20), False),
        (Box(-30, -30, 20, 20), False),
        (Box(200, 200, 20, 20), False),
        (Box(0, 0, 200, 160), True),  # the frame is a quarter of the box
        (Box(0, 0, 201, 160), False),
    ],
)
def test_a_box_is_visible_if_a_quarter_lies_inside_the_frame(box: Box, visible: bool) -> None:
    assert is_visible(box, 100, 80) is visible


@given(
    st.integers(-40, 60), st.integers(-40, 60), st.integers(1, 80), st.integers(1, 80), st.data()
)
def test_cut_repeats_the_edge(x: int, y: int, w: int, h: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    image = RNG.integers(0, 256, (height, width, 3), np.uint8)
    padded = np.pad(image, ((200, 200), (200, 200), (0, 0)), mode="edge")
    expected = padded[200 + y : 200 + y + h, 200 + x : 200 + x + w]
    assert np.array_equal(cut(image, Box(x, y, w, h)), expected)


def test_cut_rounds_both_edges_and_is_never_empty() -> None:
    image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, axis=2)
    assert np.array_equal(cut(image, Box(1.4, 2.6, 3.3, 2.2)), image[3:5, 1:5])
    assert np.array_equal(cut(image, Box(4.1, 4.1, 0.2, 0.2)), image[4:5, 4:5])


def smooth_picture(side: int) -> np.ndarray:
    coarse = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("side", [49, 95, 101, 331])
def test_resize_down_is_an_area_average(side: int) -> None:
    picture = smooth_picture(side)
    # Share of each source pixel in each of 48 intervals of side / 48 pixels.
    edges = np.arange(49)[:, None] * side / 48
    low, high = np.maximum(edges[:-1], np.arange(side)), np.minimum(edges[1:], np.arange(side) + 1)
    shares = np.clip(high - low, 0, None) * 48 / side
    means = np.einsum("iy,yxc,jx->ijc", shares, picture, shares, optimize=True)
    small = resize(picture, 48)
    assert small.shape == (48, 48, 3)
    assert small.dtype == np.uint8
    assert np.abs(small - means).max() <= 0.75


@pytest.mark.parametrize("side", [96, 192, 384])
def test_resize_down_matches_the_box_filter_of_pillow(side: int) -> None:
    picture = smooth_picture(side)
    box = np.asarray(Image.fromarray(picture).resize((48, 48), Image.Resampling.BOX))
    assert np.abs(resize(picture, 48).astype(int) - box).max() <= 1


def test_a_face_of_more_than_twice_the_size_is_halved_first() -> None:
    picture = RNG.integers(0, 256, (160, 160, 3), np.uint8)
    halved = np.round(picture.reshape(80, 2, 80, 2, 3).mean(axis=(1, 3))).astype(np.uint8)
    assert np.abs(resize(picture, 48).astype(int) - resize(halved, 48)).max() <= 1


def test_halving_is_close_to_the_antialiased_bilinear_filter_of_the_reference() -> None:
    picture = smooth_picture(160)
    noise = RNG.normal(0, 20, picture.shape)
    picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    reference = np.asarray(Image.fromarray(picture).resize((48, 48), Image.Resampling.BILINEAR))
    plain = np.asarray(Image.fromarray(picture).resize((48, 48), Image.Resampling.BOX))
    error = np.abs(resize(picture, 48).astype(int) - reference).mean()
    assert error < 3
    assert error < np.abs(plain.astype(int) - reference).mean()


def test_resize_up_is_bilinear() -> None:
    picture = smooth_picture(20)
    large = np.asarray(Image.fromarray(picture).resize((48, 48), Image.Resampling.BILINEAR))
    assert np.abs(resize(picture, 48).astype(int) - large).max() <= 2


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    picture = RNG.integers(0, 256, (20, 20, 3), np.uint8)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(int)
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    )
    assert sharpness(picture) == pytest.approx(laplacian.var(), rel=1e-6)
    assert sharpness(np.full((20, 20, 3), 77, np.uint8)) == 0
    assert sharpness(cv2.GaussianBlur(picture, (5, 5), 2)) < sharpness(picture) / 10


def test_overlap() -> None:
    assert overlap(Box(0, 0, 10, 10), Box(0, 0, 10, 10)) == 1
    assert overlap(Box(0, 0, 10, 10), Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap(Box(0, 0, 10, 10), Box(2, 2, 5, 5)) == pytest.approx(0.25)
    assert overlap(Box(0, 0, 10, 10), Box(10, 0, 10, 10)) == 0
    assert overlap(Box(0, 0, 10, 10), Box(50, 50, 10, 10)) == 0


def test_follower_keeps_the_face_that_was_largest_at_first() -> None:
    follow = Follower()
    assert follow([Box(0, 0, 20, 20), Box(50, 0, 40, 40)], 0.0) == Box(50, 0, 40, 40)
    # Another face is larger now, but the followed face is still in the frame.
    assert follow([Box(0, 0, 90, 90), Box(55, 2, 38, 38)], 0.24) == Box(55, 2, 38, 38)
    assert follow([], 0.48) is None
    assert follow([Box(0, 0, 30, 30)], 0.72) is None
    assert follow([Box(60, 4, 38, 38)], 0.96) == Box(60, 4, 38, 38)


def test_follower_switches_after_a_second_without_the_face() -> None:
    follow = Follower()
    follow([Box(0, 0, 40, 40)], 0.0)
    other = [Box(200, 0, 20, 20), Box(300, 0, 30, 30)]
    assert follow(other, 1.0) is None
    assert follow(other, 1.2) == Box(300, 0, 30, 30)
    assert follow(other, 1.44) == Box(300, 0, 30, 30)


def test_follower_before_the_first_face() -> None:
    follow = Follower()
    assert follow([], 0.0) is None
    assert follow([Box(1, 1, 9, 9)], 0.24) == Box(1, 1, 9, 9)


@pytest.fixture(scope="module")
def mtcnn() -> Mtcnn:
    return Mtcnn("cpu")


def drawn_face() -> np.ndarray:
    looks = Looks.draw(np.random.default_rng([0, 0, 1]))
    return draw_face(looks, EXPRESSIONS["neutral"], 0.0, 0.0, (112.0, 84.0), 0.0)


def assert_is_the_face(box: Box, left: float, top: float) -> None:
    """Check that a box surrounds a drawn face whose picture begins at `(left, top)`."""
    assert box.x + box.w / 2 == pytest.approx(left + 112, abs=15)
    assert box.y + box.h / 2 == pytest.approx(top + 84, abs=25)
    assert 80 < box.w < 150
    assert 100 < box.h < 190
    assert box.score is not None and box.score >= 0.9


def test_mtcnn_finds_a_drawn_face_and_none_in_an_empty_frame(mtcnn: Mtcnn) -> None:
    picture = drawn_face()
    empty = np.full_like(picture, 90)
    found = mtcnn([picture, empty, picture])
    assert [len(boxes) for boxes in found] == [1, 0, 1]
    assert_is_the_face(found[0][0], 0, 0)
    assert found[2] == found[0]


def test_mtcnn_boxes_are_in_pixels_of_a_large_frame(mtcnn: Mtcnn) -> None:
    frame = np.full((720, 1280, 3), 90, np.uint8)
    frame[300:524, 700:924] = drawn_face()
    ((box,),) = mtcnn([frame])
    assert_is_the_face(box, 700, 300)


def test_mtcnn_with_only_empty_frames(mtcnn: Mtcnn) -> None:
    assert mtcnn([np.full((120, 160, 3), 90, np.uint8)] * 2) == [[], []]


def test_smallest_face_that_is_found(mtcnn: Mtcnn) -> None:
    """A face of 50 pixels in 1080p needs `min_face`; its box is in pixels of the frame."""
    small = cv2.resize(drawn_face(), (88, 88), interpolation=cv2.INTER_AREA)
    frame = np.full((1080, 1920, 3), 90, np.uint8)
    frame[500:588, 900:988] = small
    assert mtcnn([frame]) == [[]]
    ((box,),) = Mtcnn("cpu", 60)([frame])
    assert box.x + box.w / 2 == pytest.approx(900 + 44, abs=6)
    assert box.y + box.h / 2 == pytest.approx(500 + 33, abs=10)
    assert 40 < box.h < 75


def test_min_face_of_the_default_scale_gives_the_default_boxes(mtcnn: Mtcnn) -> None:
    frame = np.full((640, 640, 3), 90, np.uint8)
    frame[300:524, 300:524] = drawn_face()
    assert Mtcnn("cpu", 40)([frame]) == mtcnn([frame])
    assert Mtcnn("cpu", 5000)([frame]) == [[]]


@pytest.mark.parametrize("size", [(1, 1), (39, 39), (40, 40), (30, 1920)])
def test_frames_too_small_for_a_face(mtcnn: Mtcnn, size: tuple[int, int]) -> None:
    assert mtcnn([np.full((*size, 3), 90, np.uint8)] * 2) == [[], []]
