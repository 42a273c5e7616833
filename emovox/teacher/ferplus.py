"""FERPlus: the faces of FER2013 with the votes of ten annotators (Barsoum et al., 2016).

Reads a folder or a zip file with either

- the official folders (FER2013Train, FER2013Valid, FER2013Test), with the votes in fer2013new.csv
  or, if it is missing, in the label.csv of each folder; or
- fer2013.csv (the pixels, as on Kaggle) and fer2013new.csv.

The votes are cleaned as in the reference code of EmoVoxCeleb.
"""

import contextlib
import csv
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from emovox.emotions import EMOTIONS, PUBLISHED, Outputs
from emovox.errors import InputError, check_choice, first_line
from emovox.files import regular
from emovox.ids import is_below
from emovox.limits import MAX_PICTURE, MAX_TEXT
from emovox.media.images import JPEG_END, JPEG_START
from emovox.teacher.teacher_config import PARTS

SIDE = 48  # pixels; every FER2013 image is a grey square of this side
FOLDERS = dict(zip(PARTS, ("FER2013Train", "FER2013Valid", "FER2013Test"), strict=True))
USAGES = dict(zip(PARTS, ("Training", "PublicTest", "PrivateTest"), strict=True))

VOTE_NAMES = (*EMOTIONS, "unknown", "NF")  # the last is "not a face"
MAX_VOTES = 1000  # of one face for one emotion; there were ten annotators

# Errors of a damaged or unusual zip file or table.
READ_ERRORS = (
    *(csv.Error, zipfile.BadZipFile, zlib.error, struct.error, KeyError, OSError, EOFError),
    # zipfile raises these for encryption, for a compression that Python lacks, and for a header
    # with impossible numbers.
    *(RuntimeError, ValueError),  # NotImplementedError is a RuntimeError
)


@dataclass(frozen=True)
class Faces:
    """One part of a set of labelled faces."""

    images: np.ndarray  # uint8 `[N, S, S]`, grey, or `[N, S, S, 3]`, RGB
    # float32 `[N, E + V]`: a distribution over the emotions, or zeros, then the values, or NaN
    targets: np.ndarray
    names: tuple[str, ...]  # file name of each image, such as `fer0000000.png`
    outputs: Outputs = PUBLISHED  # names of the columns of `targets`

    def __len__(self) -> int:
        return len(self.images)


class FaceFiles:
    """Files of a folder or a zip file, by their paths relative to it; InputError for others."""

    def __init__(self, source: Path) -> None:
        self.source, self._archive = source, None
        if source.is_file() and zipfile.is_zipfile(source):
            try:
                self._archive = zipfile.ZipFile(source)
            except READ_ERRORS as error:
                raise InputError(f"{source}: damaged zip file ({error})") from error
        elif not source.is_dir():
            raise InputError(f"{source}: neither a folder nor a zip file of faces, nor a table")

    @cached_property
    def names(self) -> set[str]:
        """Paths of all files and folders."""
        if self._archive is None:
            source = self.source
            return {path.relative_to(source).as_posix() for path in source.rglob("*")}
        files = self._archive.namelist()
        return {*files, *(name.rpartition("/")[0] for name in files)}

    def find(self, ending: str) -> str | None:
        """Return the first file or folder whose path ends with these components."""
        found = (name for name in self.names if f"/{name}".endswith(f"/{ending}"))
        return min(found, default=None)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file; errors of reading it inside the block become InputError."""
        if not is_below(name):
            raise InputError(f"{self.source}: {name!r} is not a relative path below it")
        try:
            path = self.source / name
            with self._archive.open(name) if self._archive else regular(path).open("rb") as file:
                yield file
        except READ_ERRORS as error:
            where = f"{self.source}: {name}"
            raise InputError(f"{where}: cannot be read ({first_line(error)})") from error

    def rows(self, name: str) -> Iterator[list[str]]:
        """Yield the rows of a CSV file."""
        with self.open(name) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
            yield from csv.reader(iter(partial(text.readline, 4 * MAX_TEXT), ""))  # no endless line

    def read_image(self, name: str, kind: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
        """Read an image as uint8 `[H, W, 3]` RGB; InputError if it is missing or damaged."""
        with self.open(name) as file:
            data = file.read(MAX_PICTURE)
        image = None
        if data.startswith(JPEG_START) and JPEG_END not in data:  # OpenCV fills the rest with grey
            raise InputError(f"{self.source}: {name}: ends inside the picture")
        with contextlib.suppress(cv2.error):  # empty, or more pixels than OpenCV allows
            image = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
        if image is None:
            raise InputError(f"{self.source}: {name}: not an image, or too large")
        return image


def clean_votes(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clean raw votes as the reference code does.

    Single votes become 0. A face is dropped if its top vote is, or ties with, "unknown" or "not a
    face", if three or more emotions tie at the top, or if the tied emotions together have at most
    half of all remaining votes.

    `votes` are integers `[N, 10]`: `EMOTIONS`, then unknown, then not-a-face. Returns `keep` bool
    `[N]`, and `targets` float32 `[N, 8]`: votes for the emotions, each row with sum one (rows that
    are not kept are meaningless).

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


def read(source: str | os.PathLike[str], part: str, *, unlabelled: bool = False) -> Faces:
    """Read and clean one part of FERPlus.

    `source` contains the files at any depth; `part` is `train`, `public_test` or `private_test`.
    With `unlabelled`, faces without usable votes are kept, with a target of zeros.

    Raises:
        ConfigError: unknown part.
        InputError: a folder, a table, a column, a vote or an image is missing or malformed.
    """
    check_choice("part", part, PARTS)
    files = FaceFiles(Path(source))
    folder = files.find(FOLDERS[part])
    shared, pixels = files.find("fer2013new.csv"), files.find("fer2013.csv")
    own = None if folder is None else files.find(f"{FOLDERS[part]}/label.csv")
    labels: list[_Label] = []
    if shared is not None and (folder is not None or pixels is not None):
        labels = _read_shared_labels(files, shared, part, folder is None)
    elif own is not None:
        labels = _read_own_labels(files, own)
    if not labels:
        raise InputError(
            f"{source}: no faces of FERPlus for {part}: expected {FOLDERS[part]}/ with its "
            f"images and its label.csv, or fer2013new.csv (with rows of usage {USAGES[part]}) "
            "beside those folders or beside fer2013.csv"
        )
    keep, targets = clean_votes(np.array([label.votes for label in labels]))
    targets[~keep] = 0
    if not keep.any():
        raise InputError(f"{source}: no usable faces in {part} after vote cleaning")
    chosen = keep | unlabelled
    kept = [label for label, k in zip(labels, chosen, strict=True) if k]
    if folder is not None:
        images = np.stack([_read_image(files, f"{folder}/{label.name}") for label in kept])
    else:
        assert pixels is not None
        images = _read_pixels(files, pixels, kept, USAGES[part])
    return Faces(images, targets[chosen], tuple(label.name for label in kept))


@dataclass(frozen=True)
class _Label:
    """One face of a table of votes; `row` counts from 0 over all faces of FER2013."""

    row: int
    name: str
    votes: list[int]


def _read_shared_labels(files: FaceFiles, name: str, part: str, nameless: bool) -> list[_Label]:
    """Return the rows of fer2013new.csv of one part; the official folders lack nameless ones."""
    where, rows = f"{files.source}: {name}", files.rows(name)
    usage, image, *votes = _columns(next(rows, []), ("Usage", "Image name", *VOTE_NAMES), where)
    return [
        _Label(i, row[image] or f"fer{i:07d}.png", _votes(row, votes, f"{where}: line {i + 2}"))
        for i, row in enumerate(rows)
        if len(row) > max(usage, image) and row[usage] == USAGES[part] and (nameless or row[image])
    ]


def _read_own_labels(files: FaceFiles, name: str) -> list[_Label]:
    """Return the rows of a folder's label.csv: name, box, votes; no header."""
    columns = range(2, 2 + len(VOTE_NAMES))
    return [
        _Label(i, row[0], _votes(row, columns, f"{files.source}: {name}: line {i + 1}"))
        for i, row in enumerate(files.rows(name))
        if row
    ]


def _columns(header: list[str], names: Sequence[str], where: str) -> list[int]:
    """Return the positions of named columns; case and surrounding blanks do not matter."""
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
            f"{where}: expected {len(columns)} votes after two columns, found {row!r}"
        ) from None


def _read_pixels(files: FaceFiles, name: str, labels: list[_Label], usage_name: str) -> np.ndarray:
    """Return the images uint8 `[N, 48, 48]` of some rows of fer2013.csv, one row per face."""
    where, rows = f"{files.source}: {name}", files.rows(name)
    wanted = {label.row for label in labels}
    usage, pixels = _columns(next(rows, []), ("Usage", "pixels"), where)
    images = []
    for number, row in enumerate(rows):
        if number not in wanted:
            continue
        line = f"{where}: line {number + 2}"
        if len(row) <= max(usage, pixels) or row[usage].strip() != usage_name:
            raise InputError(
                f"{line}: usage is not {usage_name}, as in fer2013new.csv; use two files of the "
                "same release"
            )
        images.append(_grey_levels(row[pixels], line))
    if len(images) < len(labels):
        raise InputError(
            f"{where}: ends after {len(images)} of {len(labels)} faces of {usage_name}"
        )
    return np.stack(images)


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


def _read_image(files: FaceFiles, name: str) -> np.ndarray:
    grey = files.read_image(name, cv2.IMREAD_GRAYSCALE)
    if grey.shape != (SIDE, SIDE):
        height, width = grey.shape
        raise InputError(f"{files.source}: {name}: is {width} x {height}, expected {SIDE} x {SIDE}")
    return grey
