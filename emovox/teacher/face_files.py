"""Faces in memory with their targets, and the files that they are read from."""

import contextlib
import csv
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from emovox.emotions import PUBLISHED, Outputs
from emovox.errors import InputError, first_line
from emovox.files import regular
from emovox.ids import is_below
from emovox.limits import MAX_DOCUMENT, MAX_TEXT
from emovox.teacher.face_network import GREY_WEIGHTS

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
    # float32 `[N, E + V]`: a distribution over the emotions (zeros for a face without a label),
    # then the values (NaN where unknown)
    targets: np.ndarray
    names: tuple[str, ...]  # file name of each image, such as `fer0000000.png`
    outputs: Outputs = PUBLISHED  # names of the columns of `targets`

    def __len__(self) -> int:
        return len(self.images)

    @property
    def votes(self) -> np.ndarray:
        """Targets of the emotions: float32 `[N, E]`."""
        return self.targets[:, : len(self.outputs.emotions)]

    @property
    def labels(self) -> np.ndarray:
        """Emotion with the most votes, the first one in a tie: int64 `[N]`."""
        return self.votes.argmax(axis=1)


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
            raise InputError(f"{self.source}: {name!r} is not a path below it")
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

    def read_image(self, name: str) -> np.ndarray:
        """Read an image as uint8 `[H, W, 3]` RGB; InputError if it is missing or damaged."""
        with self.open(name) as file:
            data = file.read(MAX_DOCUMENT)
        image = None
        with contextlib.suppress(cv2.error):  # empty, or more pixels than OpenCV allows
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise InputError(f"{self.source}: {name}: not an image")
        return image


def to_grey(image: np.ndarray) -> np.ndarray:
    """Convert RGB uint8 `[..., 3]` to grey levels, as `face_network.to_grey` does: uint8."""
    return np.round(image @ np.array(GREY_WEIGHTS, np.float32)).astype(np.uint8)
