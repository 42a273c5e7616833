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
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import compress
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from emovox.emotions import EMOTIONS, PUBLISHED, Outputs
from emovox.errors import InputError, check_choice, first_line
from emovox.files import regular
from emovox.ids import is_below
from emovox.limits import MAX_PICTURE, MAX_TEXT
from emovox.media.images import decode
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
        return min((name for name in self.names if f"/{name}".endswith(f"/{ending}")), default=None)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file; errors of reading it inside the block become InputError."""
        if not is_below(name):
            raise InputError(f"{self.source}: {name!r} is not a relative path below it")
        try:
            path = self.source / name
            with self._archive.open(name) if self._archive else regular(path).open("rb") as file:
                yield file
        except InputError:
            raise  # a ValueError too
        except READ_ERRORS as error:
            where = f"{self.source}: {name}"
            raise InputError(f"{where}: cannot be read ({first_line(error)})") from error

    def rows(
        self, name: str, needed: Collection[str], header: Sequence[str] | None = None
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the place of each row of a CSV file, for messages, and its cells by column.

        The first line is the header, unless one is passed. Columns are in lower case, without
        surrounding blanks; missing cells are empty. InputError if a `needed` column is missing.
        """
        where = f"{self.source}: {name}"
        with self.open(name) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
            lines = iter(partial(text.readline, 4 * MAX_TEXT), "")  # no endless line
            rows = csv.DictReader(lines, header, restval="")
            first = rows.fieldnames or []
            rows.fieldnames = [cell.strip().lower() for cell in first]
            if missing := [name for name in needed if name.lower() not in rows.fieldnames]:
                fact = f"no column {', '.join(missing)}"
                raise InputError(f"{where}: {fact}; the first line is {','.join(first)[:200]!r}")
            for row in rows:
                yield f"{where}: line {rows.line_num}", row

    def read_image(self, name: str, kind: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
        """Read an image as uint8 `[H, W, 3]` RGB; InputError if it is missing or damaged."""
        with self.open(name) as file:
            return decode(file.read(MAX_PICTURE), kind)


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
    labels: dict[int, tuple[str, list[int]]] = {}
    if shared is not None and (folder is not None or pixels is not None):
        labels = _read_labels(files, shared, part, nameless=folder is None)
    elif own is not None:
        labels = _read_labels(files, own, part, ("Image name", "box", *VOTE_NAMES))
    if not labels:
        raise InputError(
            f"{source}: no faces of FERPlus for {part}: expected {FOLDERS[part]}/ with its "
            f"images and its label.csv, or fer2013new.csv (with rows of usage {USAGES[part]}) "
            "beside those folders or beside fer2013.csv"
        )
    keep, targets = clean_votes(np.array([votes for _, votes in labels.values()]))
    targets[~keep] = 0
    if not keep.any():
        raise InputError(f"{source}: no usable faces in {part} after vote cleaning")
    chosen = keep | unlabelled
    names = {row: labels[row][0] for row in compress(labels, chosen)}
    if folder is not None:
        images = [_read_image(files, f"{folder}/{name}") for name in names.values()]
    else:
        assert pixels is not None
        images = _read_pixels(files, pixels, names, USAGES[part])
    return Faces(np.stack(images), targets[chosen], tuple(names.values()))


def _read_labels(
    files: FaceFiles,
    table: str,
    part: str,
    header: Sequence[str] | None = None,
    nameless: bool = False,
) -> dict[int, tuple[str, list[int]]]:
    """Return names and votes of the faces of a part, by their row in a table.

    Faces without a name, which the official folders lack, are left out unless `nameless`.
    """
    found, usage = {}, USAGES[part]
    needed = header or ("Usage", "Image name", *VOTE_NAMES)
    for i, (where, row) in enumerate(files.rows(table, needed, header)):
        name = row["image name"] or (nameless and f"fer{i:07d}.png")
        if not name or row.get("usage", usage) != usage:
            continue
        try:
            votes = [int(row[name.lower()]) for name in VOTE_NAMES]
        except ValueError:
            votes = [-1]
        if min(votes) < 0 or max(votes) > MAX_VOTES:
            expected = f"{len(VOTE_NAMES)} votes after two columns"
            raise InputError(f"{where}: expected {expected}, found {[*row.values()]!r}")
        found[i] = name, votes
    return found


def _read_pixels(
    files: FaceFiles, table: str, wanted: Collection[int], usage: str
) -> list[np.ndarray]:
    """Return the images uint8 `[48, 48]` of some rows of fer2013.csv, one row per face."""
    images = []
    for number, (where, row) in enumerate(files.rows(table, ("Usage", "pixels"))):
        if number not in wanted:
            continue
        if row["usage"].strip() != usage:
            raise InputError(
                f"{where}: usage is not {usage}, as in fer2013new.csv; use two files of the same "
                "release"
            )
        try:
            levels = bytes(map(int, row["pixels"].split()))
            images.append(np.frombuffer(levels, np.uint8).reshape(SIDE, SIDE))
        except ValueError:
            fact = f"expected {SIDE * SIDE} grey levels from 0 to 255"
            raise InputError(f"{where}: {fact}, found {row['pixels'][:40]!r} ...") from None
    if len(images) < len(wanted):
        raise InputError(
            f"{files.source}: {table}: ends after {len(images)} of {len(wanted)} faces of {usage}"
        )
    return images


def _read_image(files: FaceFiles, name: str) -> np.ndarray:
    grey = files.read_image(name, cv2.IMREAD_GRAYSCALE)
    if grey.shape != (SIDE, SIDE):
        height, width = grey.shape
        raise InputError(f"{files.source}: {name}: is {width} x {height}, expected {SIDE} x {SIDE}")
    return grey
