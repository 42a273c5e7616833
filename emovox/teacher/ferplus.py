"""FERPlus: the faces of FER2013 with the votes of ten annotators (Barsoum et al., 2016).

Reads the official folders (FER2013Train, FER2013Valid, FER2013Test) with the votes of
fer2013new.csv, or of each folder's own label.csv where that file is missing; where there are no
such folders, fer2013.csv (the pixels, as Kaggle has them) with fer2013new.csv. Either from a
directory or from inside a zip file. The votes are cleaned the way the reference code of EmoVoxCeleb
does it.
"""

import contextlib
import csv
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from emovox.emotions import EMOTIONS
from emovox.errors import InputError

SIDE = 48  # pixels; every FER2013 image is a grey square of this side
FOLDERS = {
    "train": "FER2013Train",
    "public_test": "FER2013Valid",
    "private_test": "FER2013Test",
}
USAGES = {"train": "Training", "public_test": "PublicTest", "private_test": "PrivateTest"}
# Faces left per part once the votes of fer2013new.csv are cleaned: 3,079 of 35,887 are dropped.
CLEAN_COUNTS = {"train": 26_196, "public_test": 3_318, "private_test": 3_294}

VOTE_NAMES = (*EMOTIONS, "unknown", "NF")  # the last is "not a face"
NUM_VOTES = len(VOTE_NAMES)
MAX_VOTES = 1000  # of one face for one emotion; there were ten annotators
# What a damaged or odd zip file raises when it is opened or read.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, KeyError, OSError, EOFError),
    # encrypted; a compression that Python lacks; a header with impossible numbers
    *(RuntimeError, NotImplementedError, ValueError),
)


@dataclass(frozen=True)
class FerPlus:
    """One part of FERPlus.

    Attributes:
        images: uint8 `[N, 48, 48]`, grey.
        targets: float32 `[N, 8]`, the cleaned votes as a distribution over `EMOTIONS`.
        names: file name of each image, such as `fer0000000.png`.
    """

    images: np.ndarray
    targets: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        """Hard labels int64 `[N]`: the first maximum of the votes."""
        return self.targets.argmax(axis=1)


def clean_votes(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Apply the reference code's cleaning to raw votes.

    Single votes become 0. A face is dropped if its top vote is, or ties with, "unknown" or "not a
    face", if three or more emotions tie at the top, or if the tied emotions together hold at most
    half of all remaining votes.

    Args:
        votes: integers `[N, 10]`: `EMOTIONS`, then unknown, then not-a-face.

    Returns:
        `keep` bool `[N]`, and `targets` float32 `[N, 8]`: votes for the emotions, each row summing
        to one (rows that are not kept are meaningless).

    Example:
        >>> keep, targets = clean_votes(np.array([[6, 2, 0, 0, 0, 0, 0, 0, 1, 1]]))
        >>> keep.tolist(), targets.tolist()
        ([True], [[0.75, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    """
    votes = np.where(votes == 1, 0, votes)
    top = votes.max(axis=1)
    num_top = (votes == top[:, None]).sum(axis=1)
    is_face = votes[:, len(EMOTIONS) :].max(axis=1) < top
    keep = is_face & (num_top < 3) & (num_top * top > 0.5 * votes.sum(axis=1))
    emotions = votes[:, : len(EMOTIONS)].astype(np.float32)
    return keep, emotions / np.maximum(emotions.sum(axis=1, keepdims=True), 1)


def read(source: str | Path, part: str) -> FerPlus:
    """Read and clean one part of FERPlus.

    Args:
        source: a folder or a zip file that holds, at any depth, the official folders, or
            fer2013.csv and fer2013new.csv.
        part: `train`, `public_test` or `private_test`.

    Raises:
        InputError: a folder, a table, a column, a vote or an image is missing or malformed.
    """
    files = _Zip(source) if zipfile.is_zipfile(source) else _Folder(source)
    folder = files.find(FOLDERS[part])
    shared, pixels = files.find("fer2013new.csv"), files.find("fer2013.csv")
    own = None if folder is None else files.find(f"{FOLDERS[part]}/label.csv")
    if shared is not None and (folder is not None or pixels is not None):
        labels = _read_shared_labels(files, shared, part)
    elif own is not None:
        labels = _read_own_labels(files, own)
    else:
        labels = []
    if not labels:
        raise InputError(
            f"{source}: no faces of FERPlus for {part}: expected {FOLDERS[part]}/ with its images "
            f"and its label.csv, or fer2013new.csv (with rows of usage {USAGES[part]}) beside "
            "those folders or beside fer2013.csv"
        )
    keep, targets = clean_votes(np.array([label.votes for label in labels]))
    kept = [label for label, k in zip(labels, keep, strict=True) if k]
    if not kept:
        raise InputError(f"{source}: the votes leave no face of {part} that can be used")
    if folder is not None:
        images = np.empty((len(kept), SIDE, SIDE), np.uint8)
        for i, label in enumerate(kept):
            name = f"{folder}/{label.name}"
            images[i] = _decode(files.read(name), f"{source}: {name}")
    else:
        assert pixels is not None
        images = _read_pixels(files, pixels, kept, USAGES[part])
    return FerPlus(images, targets[keep], tuple(label.name for label in kept))


@dataclass(frozen=True)
class _Label:
    """One face of a table of votes; `row` counts from 0 over all faces of FER2013."""

    row: int
    name: str
    votes: list[int]


def _read_shared_labels(files: "_Folder | _Zip", name: str, part: str) -> list[_Label]:
    """The rows of fer2013new.csv that belong to one part."""
    where = f"{files.source}: {name}"
    with _reading(files, name) as text:
        rows = csv.reader(text)
        usage, image, *votes = _columns(next(rows, []), ("Usage", "Image name", *VOTE_NAMES), where)
        return [
            # Faces without a name are those that the official folders leave out.
            _Label(i, row[image] or f"fer{i:07d}.png", _votes(row, votes, f"{where}: line {i + 2}"))
            for i, row in enumerate(rows)
            if len(row) > max(usage, image) and row[usage] == USAGES[part]
        ]


def _read_own_labels(files: "_Folder | _Zip", name: str) -> list[_Label]:
    """The rows of a folder's label.csv: name, box, votes; no header."""
    columns = range(2, 2 + NUM_VOTES)
    with _reading(files, name) as text:
        return [
            _Label(i, row[0], _votes(row, columns, f"{files.source}: {name}: line {i + 1}"))
            for i, row in enumerate(csv.reader(text))
            if row
        ]


@contextlib.contextmanager
def _reading(files: "_Folder | _Zip", name: str) -> Iterator[TextIO]:
    """Open a table, and turn what is wrong with its bytes into an InputError."""
    with files.open(name) as text:
        try:
            yield text
        except InputError:
            raise
        except (csv.Error, *ZIP_ERRORS) as error:
            raise InputError(f"{files.source}: {name}: cannot be read ({error})") from error


def _columns(header: list[str], names: Sequence[str], where: str) -> list[int]:
    """Positions of named columns, whatever their case and the blanks around them."""
    found = [cell.strip().lower() for cell in header]
    if missing := [name for name in names if name.lower() not in found]:
        raise InputError(
            f"{where}: no column {', '.join(missing)}; the first line is {','.join(header)[:200]!r}"
        )
    return [found.index(name.lower()) for name in names]


def _votes(row: list[str], columns: Sequence[int], where: str) -> list[int]:
    try:
        votes = [int(row[column]) for column in columns]
        if min(votes) < 0 or max(votes) > MAX_VOTES:
            raise ValueError
        return votes
    except (ValueError, IndexError):
        raise InputError(
            f"{where}: expected {NUM_VOTES} votes after two columns, found {row!r}"
        ) from None


def _read_pixels(
    files: "_Folder | _Zip", name: str, labels: list[_Label], usage_name: str
) -> np.ndarray:
    """The images uint8 `[N, 48, 48]` of some rows of fer2013.csv, which has one row per face."""
    where = f"{files.source}: {name}"
    wanted = {label.row: i for i, label in enumerate(labels)}
    images = np.empty((len(labels), SIDE, SIDE), np.uint8)
    num_read = 0
    with _reading(files, name) as text:
        rows = csv.reader(text)
        usage, pixels = _columns(next(rows, []), ("Usage", "pixels"), where)
        for number, row in enumerate(rows):
            if number not in wanted:
                continue
            line = f"{where}: line {number + 2}"
            if len(row) <= max(usage, pixels) or row[usage].strip() != usage_name:
                raise InputError(
                    f"{line}: fer2013new.csv calls this face {usage_name}; the two files do not "
                    "belong together"
                )
            images[wanted[number]] = _grey_levels(row[pixels], line)
            num_read += 1
    if num_read < len(labels):
        raise InputError(f"{where}: ends after {num_read} of {len(labels)} faces of {usage_name}")
    return images


def _grey_levels(text: str, where: str) -> np.ndarray:
    try:
        levels = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        levels = np.array([-1])
    if len(levels) != SIDE * SIDE or levels.min() < 0 or levels.max() > 255:
        raise InputError(
            f"{where}: expected {SIDE * SIDE} grey levels from 0 to 255, found {text[:40]!r} ..."
        )
    return levels.reshape(SIDE, SIDE).astype(np.uint8)


def _decode(data: bytes, where: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is None:
        raise InputError(f"{where}: is not an image")
    if image.shape != (SIDE, SIDE):
        raise InputError(
            f"{where}: is {image.shape[1]} x {image.shape[0]}, expected {SIDE} x {SIDE}"
        )
    return image


class _Folder:
    def __init__(self, source: str | Path) -> None:
        self.source = Path(source)
        if not self.source.is_dir():
            raise InputError(f"{source}: neither a folder nor a zip file with FERPlus in it")

    def find(self, ending: str) -> str | None:
        found = min(self.source.glob(f"**/{ending}"), default=None)
        return None if found is None else found.relative_to(self.source).as_posix()

    def read(self, name: str) -> bytes:
        try:
            return (self.source / name).read_bytes()
        except OSError as error:
            raise InputError(f"{self.source / name}: {error.strerror}") from error

    def open(self, name: str) -> TextIO:
        try:
            return (self.source / name).open(encoding="utf-8-sig", errors="replace", newline="")
        except OSError as error:
            raise InputError(f"{self.source / name}: {error.strerror}") from error


class _Zip:
    def __init__(self, source: str | Path) -> None:
        self.source = Path(source)
        try:
            self.archive = zipfile.ZipFile(source)
        except ZIP_ERRORS as error:
            raise InputError(f"{source}: damaged zip file ({error})") from error

    def find(self, ending: str) -> str | None:
        files = self.archive.namelist()
        folders = {name.rpartition("/")[0] for name in files}
        found = (n for n in folders.union(files) if f"/{n}".endswith(f"/{ending}"))
        return min(found, default=None)

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except ZIP_ERRORS as error:
            raise InputError(f"{self.source}: {name}: {error}") from error

    def open(self, name: str) -> TextIO:
        try:
            binary = self.archive.open(name)
        except ZIP_ERRORS as error:
            raise InputError(f"{self.source}: {name}: {error}") from error
        return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
