"""Tests of pictures as a player displays them, compared with the ffmpeg program."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from emovox.media.video import VideoTrack
from emovox.testing import write_clip

SIZE = (96, 64)


def ffmpeg(*arguments: str | Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def shown_by_ffmpeg(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    square = ("-vf", "scale=iw*sar:ih:flags=bilinear")
    raw = ffmpeg("-i", path, *square, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(shape).astype(int)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a picture with four different corners and noise."""
    picture = np.random.default_rng(0).integers(0, 40, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    picture[:32, :48] += np.array([200, 0, 0], np.uint8)
    picture[:32, 48:] += np.array([0, 200, 0], np.uint8)
    picture[32:, :48] += np.array([0, 0, 200], np.uint8)
    return write_clip(tmp_path_factory.mktemp("display") / "plain.mp4", [picture] * 3)


def check(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    (frame,) = VideoTrack(path, 0.24)
    assert frame.image.shape == shape
    assert frame.image.flags.c_contiguous and frame.image.dtype == np.uint8
    assert np.abs(frame.image - shown_by_ffmpeg(path, shape)).mean() < 1
    return frame.image


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", ["", "-display_hflip", "-display_vflip"])
@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_turned_and_mirrored(
    tmp_path: Path, plain: Path, rotation: int, flips: str, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    ffmpeg("-display_rotation", str(rotation), *flips.split(), "-i", plain, "-c", "copy", path)
    width, height = SIZE[::-1] if rotation % 180 else SIZE
    image = check(path, (height, width, 3))
    stored = check(plain, (SIZE[1], SIZE[0], 3))
    turned = np.rot90(stored, rotation // 90)
    turned = {"": turned, "-display_hflip": turned[:, ::-1], "-display_vflip": turned[::-1]}[flips]
    corners = (np.s_[5, 5], np.s_[5, -5], np.s_[-5, 5], np.s_[-5, -5])
    if not (flips and rotation % 180):  # the program applies the flip to the stored picture
        for corner in corners:
            assert np.abs(image[corner].astype(int) - turned[corner]).max() < 60


@pytest.mark.parametrize(
    ("aspect", "width"), [("16/15", 102), ("64/45", 136), ("8/9", 85), ("2", 192), ("1/2", 48)]
)
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_square_pixels(tmp_path: Path, plain: Path, aspect: str, width: int, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    ffmpeg("-i", plain, "-vf", f"setsar={aspect}", "-c:v", "libx264", path)
    check(path, (SIZE[1], width, 3))


@pytest.mark.parametrize("aspect", ["1", "0", "1/50", "50"])
def test_plain_pixels_are_not_touched(tmp_path: Path, plain: Path, aspect: str) -> None:
    path = tmp_path / "a.mp4"
    ffmpeg("-i", plain, "-vf", f"setsar={aspect}", path)
    (frame,) = VideoTrack(path, 0.24)
    assert frame.image.shape == (SIZE[1], SIZE[0], 3)


def test_a_size_that_changes_midway(tmp_path: Path, plain: Path) -> None:
    ffmpeg("-i", plain, "-vf", "scale=128:96,setsar=2", "-f", "h264", tmp_path / "a.h264")
    ffmpeg("-i", plain, "-vf", "setsar=2", "-f", "h264", tmp_path / "b.h264")
    path = tmp_path / "c.h264"
    path.write_bytes(b"".join((tmp_path / f"{name}.h264").read_bytes() for name in "ab"))
    shapes = {frame.image.shape for frame in VideoTrack(path, 0.04)}
    assert shapes == {(96, 256, 3), (64, 192, 3)}
