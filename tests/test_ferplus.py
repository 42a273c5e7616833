"""FERPlus: its official forms, and the cleaning of votes."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emovox.errors import InputError
from emovox.teacher import ferplus

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)
CLEAR = [10, 0, 0, 0, 0, 0, 0, 0, 0, 0]
VOTES = {
    "fer0000000.png": CLEAR,
    "fer0000001.png": [0, 6, 4, 0, 0, 0, 0, 0, 0, 0],
    "fer0000002.png": [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
}

# Faces per part after cleaning the votes of fer2013new.csv: 3,079 of 35,887 are dropped.
CLEAN_COUNTS = {"train": 26_196, "public_test": 3_318, "private_test": 3_294}


def write_ferplus(
    root: Path, *, shared_labels: bool = True, votes: dict[str, list[int]] = VOTES
) -> Path:
    """Write a tiny FERPlus in the official layout."""
    lines = [HEADER]
    for part, folder in ferplus.FOLDERS.items():
        (root / folder).mkdir(parents=True)
        own = []
        for i, (name, counts) in enumerate(votes.items()):
            cv2.imwrite(str(root / folder / name), np.full((48, 48), 10 + i, np.uint8))
            text = ",".join(map(str, counts))
            own.append(f'{name},"(0, 0, 48, 48)",{text}')
            lines.append(f"{ferplus.USAGES[part]},{name},{text}")
        (root / folder / "label.csv").write_text("\n".join(own))
    if shared_labels:
        (root / "fer2013new.csv").write_text("\n".join(lines))
    return root


def zipped(root: Path, target: Path, *, with_folders: bool) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() or with_folders:
                archive.write(path, Path("ferplus") / path.relative_to(root))
    return target


@pytest.mark.parametrize("shared_labels", [True, False])
def test_folder_and_zip_give_the_same_faces(tmp_path: Path, shared_labels: bool) -> None:
    root = write_ferplus(tmp_path / "root", shared_labels=shared_labels)
    sources = [root, *(zipped(root, tmp_path / f"{f}.zip", with_folders=f) for f in (True, False))]
    for source in sources:
        part = ferplus.read(source, "public_test")
        assert part.names == ("fer0000000.png", "fer0000001.png")
        assert part.images.shape == (2, 48, 48) and part.images[:, 0, 0].tolist() == [10, 11]
        np.testing.assert_allclose(part.targets[1], [0, 0.6, 0.4, 0, 0, 0, 0, 0])
        assert part.targets.argmax(axis=1).tolist() == [0, 1]


def write_csvs(root: Path) -> Path:
    """Write the faces of `write_ferplus` as the two tables, without image files."""
    write_ferplus(root)
    pixels = ["emotion,pixels,Usage"]
    for part in ferplus.FOLDERS:
        for i in range(len(VOTES)):
            pixels.append(f"0,{' '.join([str(10 + i)] * 48 * 48)},{ferplus.USAGES[part]}")
    for folder in ferplus.FOLDERS.values():
        shutil.rmtree(root / folder)
    (root / "fer2013.csv").write_text("\n".join(pixels))
    return root


def test_the_two_tables_give_the_same_faces_as_the_folders(tmp_path: Path) -> None:
    folders = write_ferplus(tmp_path / "folders")
    tables = write_csvs(tmp_path / "tables")
    for source in (tables, zipped(tables, tmp_path / "tables.zip", with_folders=False)):
        for part in ferplus.FOLDERS:
            expected, found = ferplus.read(folders, part), ferplus.read(source, part)
            assert found.names == expected.names
            np.testing.assert_array_equal(found.images, expected.images)
            np.testing.assert_array_equal(found.targets, expected.targets)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    """Kaggle's other edition has the columns ` Usage` and ` pixels`."""
    root = write_csvs(tmp_path)
    text = (root / "fer2013.csv").read_text().splitlines()
    swapped = [",".join(line.split(",")[i] for i in (0, 2, 1)) for line in text]
    (root / "fer2013.csv").write_text("\n".join(["emotion, Usage, pixels", *swapped[1:]]))
    assert ferplus.read(root, "train").images[:, 0, 0].tolist() == [10, 11]


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(root: Path) -> object:
        text = (root / name).read_text()
        assert old in text
        return (root / name).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (edit("fer2013.csv", "pixels", "picture"), "fer2013.csv: no column pixels; the first line"),
        (edit("fer2013new.csv", "NF", "nf?"), "fer2013new.csv: no column NF; the first line is"),
        (edit("fer2013.csv", "10 10", "10 300"), "fer2013.csv: line 2: expected 2304 grey levels"),
        (edit("fer2013.csv", "10 10 ", ""), "fer2013.csv: line 2: expected 2304 grey levels"),
        (edit("fer2013.csv", "10 10", "ten 10"), "fer2013.csv: line 2: expected 2304 grey levels"),
        (edit("fer2013.csv", "Training", "PublicTest"), "line 2: usage is not Training"),
        (lambda root: (root / "fer2013.csv").write_text("emotion,pixels,Usage"), "ends after 0 of"),
        (lambda root: (root / "fer2013.csv").unlink(), "no faces of FERPlus for train"),
        (lambda root: (root / "fer2013new.csv").unlink(), "no faces of FERPlus for train"),
        (edit("fer2013new.csv", "10,0", "ten,0"), "line 2: expected 10 votes"),
        (edit("fer2013new.csv", "10,0", "-10,0"), "line 2: expected 10 votes"),
        (edit("fer2013.csv", "10 10", "1" * 200_000), "cannot be read (field larger than"),
    ],
)
def test_a_malformed_table_is_an_error_with_file_and_line(
    tmp_path: Path, breaking: Callable[[Path], object], words: str
) -> None:
    root = write_csvs(tmp_path / "root")
    breaking(root)
    with pytest.raises(InputError) as error:
        ferplus.read(root, "train")
    assert words in str(error.value) and str(root) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_part_without_usable_faces_is_an_error(tmp_path: Path) -> None:
    root = write_ferplus(tmp_path, votes={"fer0000002.png": VOTES["fer0000002.png"]})
    with pytest.raises(InputError, match="no usable faces in train after vote cleaning"):
        ferplus.read(root, "train")


def test_a_damaged_zip_is_an_error_with_its_path(tmp_path: Path) -> None:
    target = zipped(write_ferplus(tmp_path / "root"), tmp_path / "f.zip", with_folders=False)
    whole = bytearray(target.read_bytes())
    for start in range(100, len(whole), 997):
        broken = whole.copy()
        broken[start : start + 40] = b"\xff" * 40
        target.write_bytes(broken)
        try:
            ferplus.read(target, "train")
        except InputError as error:
            assert str(target) in str(error)


def naive_keep(votes: list[int]) -> bool:
    """Return the reference code's decision for one face."""
    votes = [0 if v == 1 else v for v in votes]
    top = max(votes)
    winners = [k for k, v in enumerate(votes) if v == top]
    if 8 in winners or 9 in winners or len(winners) >= 3:
        return False
    return len(winners) * top > sum(votes) / 2


@given(st.lists(st.lists(st.integers(0, 10), min_size=10, max_size=10), min_size=1, max_size=20))
def test_cleaning_equals_the_naive_rule(votes: list[list[int]]) -> None:
    keep, targets = ferplus.clean_votes(np.array(votes))
    assert keep.tolist() == [naive_keep(row) for row in votes]
    for row, kept, target in zip(votes, keep, targets, strict=True):
        if kept:
            emotions = np.array([0 if v == 1 else v for v in row[:8]])
            np.testing.assert_allclose(target, emotions / emotions.sum(), rtol=1e-6)


@pytest.mark.real
def test_cleaning_gives_the_published_counts(real_data: Path) -> None:
    for part, count in CLEAN_COUNTS.items():
        assert len(ferplus.read(real_data / "ferplus.zip", part)) == count
    every = ferplus.read(real_data / "ferplus.zip", "train", unlabelled=True)
    assert len(every) == 28_561 and every.targets.any(axis=1).sum() == CLEAN_COUNTS["train"]


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (lambda root: shutil.rmtree(root), "neither a folder nor a zip"),
        (lambda root: shutil.rmtree(root / "FER2013Train"), "expected FER2013Train/"),
        (
            lambda root: (root / "fer2013new.csv").write_text(f"{HEADER}\nTraining,a.png,1,2"),
            "line 2: expected 10 votes after two columns, found",
        ),
        (
            lambda root: (root / "FER2013Train/fer0000001.png").unlink(),
            "fer0000001.png: cannot be read (No such file",
        ),
        (
            lambda root: (root / "FER2013Train/fer0000001.png").write_text("<html>"),
            "fer0000001.png: cannot be read (not an image",
        ),
        (
            lambda root: cv2.imwrite(
                str(root / "FER2013Train/fer0000001.png"), np.zeros((64, 32), np.uint8)
            ),
            "is 32 x 64, expected 48 x 48",
        ),
    ],
)
def test_a_missing_or_malformed_file_is_an_error_with_its_path(
    tmp_path: Path, breaking: object, words: str
) -> None:
    root = write_ferplus(tmp_path / "root")
    breaking(root)  # type: ignore[operator]
    with pytest.raises(InputError) as error:
        ferplus.read(root, "train")
    assert words in str(error.value) and str(root) in str(error.value)
