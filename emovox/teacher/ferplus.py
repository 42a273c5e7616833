"""FERPlus: the faces of FER2013 with the votes of ten annotators (Barsoum et al., 2016).

Reads the official folders (FER2013Train, FER2013Valid, FER2013Test) with the votes of
fer2013new.csv, or of each folder's own label.csv where that file is missing, from a directory or
from inside a zip file, and cleans the votes the way the reference code of EmoVoxCeleb does.
"""

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

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

NUM_VOTES = len(EMOTIONS) + 2  # the emotions, then "unknown" and "not a face"


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
        source: a folder or a zip file that holds the three official folders, at any depth.
        part: `train`, `public_test` or `private_test`.

    Raises:
        InputError: the folders, a label file or an image is missing or malformed.
    """
    files = _Zip(source) if zipfile.is_zipfile(source) else _Folder(source)
    names, votes, folder = _read_labels(files, part)
    keep, targets = clean_votes(votes)
    kept = [name for name, k in zip(names, keep, strict=True) if k]
    images = np.empty((len(kept), SIDE, SIDE), np.uint8)
    for i, name in enumerate(kept):
        images[i] = _decode(files.read(f"{folder}/{name}"), f"{source}: {folder}/{name}")
    return FerPlus(images, targets[keep], tuple(kept))


def _read_labels(files: "_Folder | _Zip", part: str) -> tuple[list[str], np.ndarray, str]:
    """Return image names, raw votes `[N, 10]` and the folder of the images of one part."""
    own = files.find(f"{FOLDERS[part]}/label.csv")
    shared = files.find("fer2013new.csv")
    if shared is not None:
        rows = _rows(files, shared)
        chosen = [(line, row) for line, row in rows if row[:1] == [USAGES[part]]]
        folder = files.find(FOLDERS[part])
        name_column = 1
    else:
        chosen = _rows(files, own) if own is not None else []
        folder = own and own.rsplit("/", 1)[0]
        name_column = 0
    if not chosen or folder is None:
        raise InputError(
            f"{files.source}: expected {FOLDERS[part]}/ with its images and its label.csv, or "
            f"fer2013new.csv beside it with rows of usage {USAGES[part]}"
        )
    names, votes = [], []
    for line, row in chosen:
        try:
            counts = [int(v) for v in row[2:]]
        except ValueError:
            counts = []
        if len(counts) != NUM_VOTES:
            raise InputError(
                f"{files.source}: {shared or own}: line {line}: expected {NUM_VOTES} votes after "
                f"two columns, found {row!r}"
            )
        names.append(row[name_column])
        votes.append(counts)
    return names, np.array(votes), folder


def _rows(files: "_Folder | _Zip", name: str) -> list[tuple[int, list[str]]]:
    text = files.read(name).decode("utf-8-sig")
    return [(i, row) for i, row in enumerate(csv.reader(io.StringIO(text)), start=1) if row]


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


class _Zip:
    def __init__(self, source: str | Path) -> None:
        self.source = Path(source)
        self.archive = zipfile.ZipFile(source)

    def find(self, ending: str) -> str | None:
        files = self.archive.namelist()
        folders = {name.rpartition("/")[0] for name in files}
        found = (n for n in folders.union(files) if f"/{n}".endswith(f"/{ending}"))
        return min(found, default=None)

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except (KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.source}: {name}: {error}") from error
