from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emovox.corpus.voxceleb import (
    Boxes,
    read_boxes,
    read_names,
    read_official_split,
)
from emovox.errors import InputError, TrackError
from emovox.ids import TrackKey

HEADER = "Identity  : \tid10001\nReference : \tvideo\nOffset    : \t0\nFV Conf   : \t20.7\n"
VOXCELEB1 = (
    HEADER
    + "ASD Conf  : \t5.6\n\nFRAME X Y W H\n"
    + "002316 \t223 \t80 \t130 \t130\n002317 \t225 \t82 \t130 \t131\n002319 \t229 \t84 \t132 \t131"
)
VOXCELEB2 = (
    HEADER
    + "ASD Conf  : \t5.6\n\nFRAME \tX \tY \tW \tH \n"
    + "000349 \t0.319 \t0.067 \t0.424 \t0.753 \n000350 \t0.321 \t0.069 \t0.424 \t0.753 \n"
)


def read(folder: Path, text: str | bytes) -> Boxes:
    path = folder / "00001.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_boxes(path, "txt/id10001/video/00001.txt")


def rows(*lines: str) -> str:
    return "\n".join(["FRAME X Y W H", *lines])


# Box files


def test_boxes_in_pixels(tmp_path: Path) -> None:
    boxes = read(tmp_path, VOXCELEB1)
    assert boxes.frames.tolist() == [2316, 2317, 2319]
    assert boxes.xywh.tolist() == [[223, 80, 130, 130], [225, 82, 130, 131], [229, 84, 132, 131]]
    assert not boxes.are_fractions
    assert boxes.bad_lines == ()
    assert (boxes.start, boxes.end) == pytest.approx((92.64, 92.76))
    assert boxes.at(92.64, 640, 360) == (223, 80, 130, 130)
    assert boxes.at(92.72, 640, 360) == pytest.approx((227, 83, 131, 131))


def test_boxes_in_fractions_of_the_frame(tmp_path: Path) -> None:
    boxes = read(tmp_path, VOXCELEB2)
    assert boxes.frames.tolist() == [349, 350]
    assert boxes.are_fractions
    assert boxes.at(13.96, 1000, 200) == pytest.approx((319, 13.4, 424, 150.6))
    assert boxes.at(13.98, 1000, 200) == pytest.approx((320, 13.6, 424, 150.6))


@given(
    st.lists(st.integers(0, 400), min_size=2, max_size=30, unique=True).map(sorted),
    st.floats(0, 16),
    st.integers(0, 2**32 - 1),
)
def test_boxes_are_interpolated_linearly(frames: list[int], time: float, seed: int) -> None:
    xywh = np.random.default_rng(seed).uniform(10, 100, (len(frames), 4))
    found = Boxes(np.array(frames), xywh, False).at(time, 640, 480)
    frame = round(time * 25, 6)
    if not frames[0] - 3 <= frame <= frames[-1] + 3:
        assert found is None
        return
    before = max((f for f in frames if f <= frame), default=frames[0])
    after = min((f for f in frames if f >= frame), default=frames[-1])
    if after - before > 25:
        assert found is None
    else:
        expected = [np.interp(frame, frames, xywh[:, k]) for k in range(4)]
        assert found == pytest.approx(expected)


def test_a_gap_of_more_than_a_second_has_no_box(tmp_path: Path) -> None:
    boxes = read(tmp_path, rows("0 10 10 50 50", "7 10 10 50 50", "33 36 10 50 50", "58 9 9 9 9"))
    for frame in (0, 7, 33, 58):  # 7 / 25 * 25 is not 7 in binary
        assert boxes.at(frame / 25, 100, 100) is not None
    assert boxes.at(8 / 25, 100, 100) is None
    assert boxes.at(32 / 25, 100, 100) is None
    assert boxes.at(34 / 25, 100, 100) is not None


def test_the_first_and_last_box_extend_half_a_step(tmp_path: Path) -> None:
    boxes = read(tmp_path, rows("100 10 10 50 50", "101 20 10 50 50"))
    assert boxes.at(97 / 25, 100, 100) == (10, 10, 50, 50)
    assert boxes.at(104 / 25, 100, 100) == (20, 10, 50, 50)
    assert boxes.at(96.9 / 25, 100, 100) is None
    assert boxes.at(104.1 / 25, 100, 100) is None


@pytest.mark.parametrize(
    "row",
    [
        "000101",
        "000101 1 2 3",
        "000101 1 2 30 40 5",
        "000101 a b c d",
        "x 1 2 30 40",
        "1.5 1 2 30 40",
        "-1 1 2 30 40",
        "000101 1 2 0 40",
        "000101 1 2 30 -40",
        "000101 nan 2 30 40",
        "000101 1 inf 30 40",
        "99999999999999999999 1 2 30 40",
        "\u5929 1 2 30 40",
    ],
)
def test_a_broken_row_is_skipped_and_listed(tmp_path: Path, row: str) -> None:
    boxes = read(tmp_path, rows("100 10 10 50 50", row, "", "102 20 10 50 50"))
    assert boxes.frames.tolist() == [100, 102]
    assert boxes.bad_lines == (3,)
    assert boxes.at(101 / 25, 100, 100) == (15, 10, 50, 50)


def test_one_odd_row_does_not_turn_fractions_into_pixels(tmp_path: Path) -> None:
    fine = [f"{i} 0.3 0.1 0.4 0.7" for i in range(5)]
    boxes = read(tmp_path, rows(*fine, "5 80 70 100 100"))
    assert boxes.at(0.0, 100, 100) == pytest.approx((30, 10, 40, 70))


def test_rows_are_sorted_and_the_last_of_a_frame_is_used(tmp_path: Path) -> None:
    boxes = read(tmp_path, rows("12 3 3 9 9", "10 1 1 9 9", "12 5 5 9 9"))
    assert boxes.frames.tolist() == [10, 12]
    assert boxes.xywh[:, 0].tolist() == [1, 5]


@pytest.mark.parametrize(
    "text",
    [
        b"FRAME X Y W H\n7 1 2 30 40\n",
        b"\xef\xbb\xbfFRAME X Y W H\n7 1 2 30 40\n",
        b"FRAME \tX \tY \tW \tH \r\n7\t1\t2\t30\t40\r\n",
        b"Identity  : \tid10001\n\n\nFRAME X Y W H\n\n 7   1 2 30 40 \n\n",
        b"Identity : \xff\xfe\nFRAME X Y W H\n7 1 2 30 40",
        b"1 2 3 4 5\nFRAME X Y W H\n7 1 2 30 40",
    ],
)
def test_headers_in_other_forms(tmp_path: Path, text: bytes) -> None:
    boxes = read(tmp_path, text)
    assert boxes.frames.tolist() == [7]
    assert boxes.xywh.tolist() == [[1, 2, 30, 40]]
    assert boxes.bad_lines == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line starting with FRAME"),
        ("7 1 2 30 40\n", "no line starting with FRAME"),
        (HEADER, "no line starting with FRAME"),
        (HEADER + "\nFRAME X Y W H\n", "no readable row after line 6"),
        ("FRAME X Y W H\nbroken\n", "no readable row after line 1"),
        (b"\x00\xff\x00\xff" * 50, "no line starting with FRAME"),
    ],
)
def test_a_file_without_boxes(tmp_path: Path, text: str | bytes, why: str) -> None:
    with pytest.raises(TrackError) as caught:
        read(tmp_path, text)
    assert (caught.value.stage, caught.value.error) == ("boxes", "NoBoxes")
    assert caught.value.message.startswith(f"txt/id10001/video/00001.txt: {why}")


def test_a_missing_box_file(tmp_path: Path) -> None:
    with pytest.raises(TrackError) as caught:
        read_boxes(tmp_path / "gone.txt", "txt/gone.txt")
    assert (caught.value.stage, caught.value.error) == ("boxes", "FileNotFound")
    with pytest.raises(TrackError) as caught:
        read_boxes(tmp_path, "txt/folder.txt")
    assert (caught.value.stage, caught.value.error) == ("boxes", "IsADirectory")
    assert str(tmp_path) not in caught.value.message


# Lists

VOX1_META = """VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet
id10001\tAnna_One\tf\tIreland\tdev
id10002\tB.J._Two\tm\tUSA\tdev
id10003\tCarl_Three_Jr.\tm\tUSA\tdev
id10004\tZoë_Four\tf\tUK\ttest
"""
SPLITS = "Anna_One 1 \nB.J._Two 2\n\nCarl_Three_Jr. 1 \nZoë_Four 4 \n"
VOICES = """id,voice-speaker-id,face-speaker-id,label,voice-path,face-path
1,1,1,1,Anna_One/a_b_c_0000001.wav,Anna_One/a_b_c/0006000.jpg
2,1,4,0,Anna_One/a_b_c_0000001.wav,Zoe/x/0002050.jpg
3,3,3,1,Carl_Three_Jr/-x__0000012.wav,Carl_Three_Jr/x/0002050.jpg
"""


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "vox1_meta.csv").write_text(VOX1_META, encoding="utf-8")
    (tmp_path / "identity_splits.txt").write_text(SPLITS, encoding="utf-8")
    path = tmp_path / "veriflist_test_random_seenheard.txt"
    path.write_text(VOICES, encoding="utf-8")
    return tmp_path


def test_names_with_and_without_their_final_dot(lists: Path) -> None:
    assert read_names(lists) == {
        "Anna_One": "id10001",
        "B.J._Two": "id10002",
        "Carl_Three_Jr.": "id10003",
        "Carl_Three_Jr": "id10003",
        "Zoë_Four": "id10004",
    }


@pytest.mark.parametrize("blanks", [" ", "", "  "])
def test_meta_has_blanks_and_a_byte_order_mark(tmp_path: Path, blanks: str) -> None:
    text = "VoxCeleb1 ID\tVGGFace1 ID\tSet\nid10012\tAnn\tdev\nid10017\tBo\ttest\n\n"
    text = text.replace("\t", f"{blanks}\t").replace("\nid", f"{blanks}\nid")
    (tmp_path / "vox1_meta.csv").write_text(text + f"{blanks}\n", encoding="utf-8-sig")
    assert read_names(tmp_path) == {"Ann": "id10012", "Bo": "id10017"}


def test_vox1_meta_saved_with_commas(tmp_path: Path) -> None:
    (tmp_path / "vox1_meta.csv").write_text(VOX1_META.replace("\t", ","), encoding="utf-8")
    assert read_names(tmp_path)["Anna_One"] == "id10001"


def test_vox1_meta_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "vox1_meta.csv").write_text(VOX1_META, encoding="utf-8-sig", newline="\r\n")
    assert read_names(tmp_path)["Anna_One"] == "id10001"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ID\tName\nid1\tx\n",
        VOX1_META.replace("\t", ";").encode(),
        VOX1_META.encode() + b"id10005\n",
        VOX1_META.encode() + b"\tNobody\tm\n",
        b"VoxCeleb1 ID\tVGGFace1 ID\nid10001\t\xff\xfe\n",
    ],
)
def test_a_malformed_meta_file_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vox1_meta.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"vox1_meta\.csv"):
        read_names(tmp_path)


def test_a_missing_meta_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vox1_meta\.csv"):
        read_names(tmp_path)


def test_official_lists_written_by_hand(lists: Path) -> None:
    official = read_official_split(lists)
    assert official.identities == {"id10001", "id10002", "id10003", "id10004"}
    assert official.unheard_identities == {"id10004"}
    assert official.heard_tracks == {"id10001/a_b_c/00001", "id10003/-x_/00012"}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("identity_splits.txt", "Anna_One 3\n"),
        ("identity_splits.txt", "Anna_One\n"),
        ("identity_splits.txt", "Nobody_Known 1\n"),
        ("veriflist_test_random_seenheard.txt", "4,1,1,1,Nobody/a_0000001.wav,x\n"),
        ("veriflist_test_random_seenheard.txt", "4,1,1,1,Anna_One/a.wav,x\n"),
        ("veriflist_test_random_seenheard.txt", "4,1,1,1,x/Anna_One/a_1.wav,x\n"),
        ("veriflist_test_random_seenheard.txt", "4,1\n"),
    ],
)
def test_an_odd_line_in_a_list_is_an_input_error(lists: Path, name: str, line: str) -> None:
    with (lists / name).open("a") as file:
        file.write(line)
    with pytest.raises(InputError, match=name):
        read_official_split(lists)


@pytest.mark.parametrize(
    "name", ["identity_splits.txt", "veriflist_test_random_seenheard.txt", "vox1_meta.csv"]
)
def test_a_missing_list_is_an_input_error(lists: Path, name: str) -> None:
    (lists / name).unlink()
    with pytest.raises(InputError, match=name):
        read_official_split(lists)


def test_track_ids_have_five_digits() -> None:
    assert TrackKey("id10001", "Y8hIVOBuels", 1).track_id == "id10001/Y8hIVOBuels/00001"


@pytest.mark.real
def test_official_lists_as_published(real_data: Path) -> None:
    official = read_official_split(real_data / "voxceleb-meta")
    assert len(official.identities) == 1251
    assert len(official.unheard_identities) == 250
    assert len(official.heard_tracks) == 4505
    heard = [track_id.split("/")[0] for track_id in official.heard_tracks]
    assert len(set(heard)) == 901
    assert all(heard.count(identity) == 5 for identity in set(heard))
    assert not set(heard) & official.unheard_identities


@pytest.mark.real
def test_meta_as_published(real_data: Path) -> None:
    names = read_names(real_data / "voxceleb-meta")
    assert len(set(names.values())) == 1251
    assert len(names) == 1251 + 5
    assert names["A.J._Buckley"] == "id10001"
