import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from emovox.errors import TrackError
from emovox.media.images import ImageTrack
from emovox.media.video import Deadline, GridFrame

STEP = 0.24


def write_jpeg(path: Path, level: int) -> Path:
    """Write a JPEG of one colour: `level` in red, 10 in green, 0 in blue."""
    picture = np.zeros((24, 32, 3), np.uint8)
    picture[..., 2], picture[..., 1] = level, 10  # OpenCV expects BGR
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
    path.write_bytes(data.tobytes())
    return path


def read(folder: Path) -> list[GridFrame]:
    return list(ImageTrack(folder, STEP, deadline=Deadline(None)))


def levels(frames: list[GridFrame]) -> list[int]:
    """Return the mean red of each frame, to the nearest ten."""
    return [round(float(frame.image[..., 0].mean()) / 10) * 10 for frame in frames]


def failure(folder: Path) -> tuple[str, str, str]:
    with pytest.raises(TrackError) as caught:
        read(folder)
    assert str(folder.parent) not in caught.value.message
    return caught.value.stage, caught.value.error, caught.value.message


def test_frames_are_sorted_by_number_not_as_text(tmp_path: Path) -> None:
    for number in (10, 2, 1, 3, 9, 4, 8, 5, 7, 6):
        write_jpeg(tmp_path / f"{number}.jpg", number * 20)
    track = ImageTrack(tmp_path, STEP, deadline=Deadline(None))
    frames = list(track)
    assert levels(frames) == [20 * k for k in range(1, 11)]
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == pytest.approx([0.24 * k for k in range(10)])
    assert [frame.pts for frame in frames] == [frame.time for frame in frames]
    assert (track.num_decoded, track.num_expected) == (10, 10)
    assert track.duration == pytest.approx(2.4)


def test_pictures_are_upright_rgb(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "1.jpg", 200)
    (frame,) = read(tmp_path)
    assert frame.image.shape == (24, 32, 3)
    assert frame.image.dtype == np.uint8
    assert np.abs(frame.image.reshape(-1, 3).mean(axis=0) - [200, 10, 0]).max() < 3


@pytest.mark.parametrize(
    ("numbers", "indices", "num_expected"),
    [
        ([1, 2, 3], [0, 1, 2], 3),
        ([0, 1, 2], [0, 1, 2], 3),
        ([1, 2, 5], [0, 1, 4], 5),
        ([0, 4], [0, 4], 5),
        ([3, 4], [2, 3], 4),
    ],
)
def test_a_missing_number_is_a_gap(
    tmp_path: Path, numbers: list[int], indices: list[int], num_expected: int
) -> None:
    for number in numbers:
        write_jpeg(tmp_path / f"{number:02d}.jpg", 20 * number + 20)
    track = ImageTrack(tmp_path, STEP, deadline=Deadline(None))
    frames = list(track)
    assert [frame.index for frame in frames] == indices
    assert levels(frames) == [20 * number + 20 for number in numbers]
    assert track.num_expected == num_expected
    assert track.num_decoded == len(numbers)


def test_other_files_are_skipped(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "01.JPG", 100)
    write_jpeg(tmp_path / "02.jpeg", 120)
    write_jpeg(tmp_path / "cover.jpg", 240)
    (tmp_path / "03.txt").write_text("no picture")
    assert levels(read(tmp_path)) == [100, 120]


def test_text_named_jpg(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "1.jpg", 100)
    (tmp_path / "2.jpg").write_text("no picture")
    assert failure(tmp_path) == ("decode", "InvalidData", "2.jpg: not an image, or too large")


def test_an_empty_jpeg(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    assert failure(tmp_path) == ("decode", "InvalidData", "1.jpg: not an image, or too large")


def test_a_jpeg_cut_short(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "1.jpg", 100)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    assert failure(tmp_path) == ("decode", "InvalidData", "1.jpg: ends inside the picture")
    path.write_bytes(data + b"\0" * 100)
    assert levels(read(tmp_path)) == [100]


@pytest.mark.parametrize("side", [65500, 65520])
def test_a_jpeg_whose_header_gives_too_many_pixels(tmp_path: Path, side: int) -> None:
    path = write_jpeg(tmp_path / "1.jpg", 50)
    data = bytearray(path.read_bytes())
    size = data.index(b"\xff\xc0") + 5  # of the frame header: height and width
    data[size : size + 4] = side.to_bytes(2, "big") * 2
    path.write_bytes(data)
    assert failure(tmp_path) == ("decode", "InvalidData", "1.jpg: not an image, or too large")


def test_a_jpeg_header_without_a_picture(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "1.jpg", 100)
    path.write_bytes(path.read_bytes()[:20] + b"\xff\xd9")
    assert failure(tmp_path)[:2] == ("decode", "InvalidData")


def test_a_folder_named_like_a_frame(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").mkdir()
    assert failure(tmp_path)[:2] == ("decode", "IsADirectory")


def test_two_files_with_one_number(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "1.jpg", 100)
    write_jpeg(tmp_path / "01.jpg", 120)
    stage, error, message = failure(tmp_path)
    assert (stage, error) == ("open", "DuplicateFrame")
    assert "01.jpg and 1.jpg" in message


def test_not_a_folder(tmp_path: Path) -> None:
    path = write_jpeg(tmp_path / "1.jpg", 100)
    assert failure(path)[:2] == ("open", "NotADirectory")


def test_a_missing_folder(tmp_path: Path) -> None:
    assert failure(tmp_path / "gone")[:2] == ("open", "FileNotFound")


def test_a_folder_without_frames(tmp_path: Path) -> None:
    assert failure(tmp_path)[:2] == ("open", "NoFrames")


def test_the_deadline(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "1.jpg", 100)
    with pytest.raises(TrackError, match="time: Timeout"):
        list(ImageTrack(tmp_path, STEP, deadline=Deadline(-1)))


@pytest.mark.parametrize("name", ["00002.jpg", "00003.png"])
def test_a_picture_of_too_many_pixels(tmp_path: Path, name: str) -> None:
    """20 gigapixels are refused by the header, before anything is allocated."""
    data = bytearray(cv2.imencode(Path(name).suffix, np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    if name.endswith("jpg"):
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    else:
        data[16:24] = struct.pack(">II", 200_000, 100_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / name).with_suffix(".jpg").write_bytes(data)
    assert failure(tmp_path)[:2] == ("decode", "InvalidData")


def test_a_picture_that_is_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "00001.jpg")
    assert failure(tmp_path)[0] == "decode"
