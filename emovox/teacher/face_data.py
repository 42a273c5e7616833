"""Labelled faces in the layouts that a teacher can train on.

- FERPlus, see `ferplus`;
- a folder or a zip file with a folder of images per emotion, which may be below folders of parts
  such as `train`, `val` and `test`; numbers are those of AffectNet (from 0) or of RAF-DB (from 1);
- AffectNet as published: `train_set` and `val_set`, each with `images` and `annotations`;
- a table (CSV, TSV or Parquet) with the columns `path`; `label`, or `vote_<emotion>` for each; and
  optionally `value_<name>` and `split`. Paths are below its folder.

The names of emotions and values come from the data.
"""

import io
import math
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from emovox.corpus.splits import fraction
from emovox.corpus.track_table import read_table
from emovox.emotions import EMOTIONS, Outputs
from emovox.errors import ConfigError, InputError
from emovox.media.faces import Box, cut, resize, square
from emovox.teacher import ferplus
from emovox.teacher.face_network import GREY_WEIGHTS
from emovox.teacher.ferplus import FaceFiles, Faces
from emovox.teacher.sidecar import standard_name
from emovox.teacher.teacher_config import PARTS

TRAIN, VALIDATION, TEST = PARTS
SPLITS = {
    **dict.fromkeys(("train", "training", "train_set"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "val_set", "public_test"), VALIDATION),
    **dict.fromkeys(("test", "testing", "test_set", "private_test"), TEST),
}
HELD_OUT = 0.1  # fraction of the faces that becomes a part which the data lacks
TABLES = (".csv", ".tsv", ".parquet")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
UNLABELLED = "unlabelled"  # folder or label of faces without a label
# Numbers of the labels of AffectNet, from 0, and of RAF-DB, from 1.
AFFECTNET = (
    *("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
    *(UNLABELLED,) * 3,  # none, uncertain, no face
)
RAF_DB = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
UNKNOWN_VALUE = -2  # of valence and arousal in AffectNet


@dataclass(frozen=True)
class FaceData:
    """Labelled faces on disk, listed; `read` reads the images of a part."""

    files: FaceFiles
    listed: Faces | None = None  # without images; None for FERPlus, which has its own reader
    parts: tuple[str, ...] = ()  # of each face, one of `PARTS`

    def read(self, part: str, size: int, *, grey: bool = True, unlabelled: bool = False) -> Faces:
        """Read the faces of a part, with `unlabelled` also those without a label.

        Images become squares of `size` pixels, or of the side of the first image if that is less.

        Raises:
            ConfigError: unknown part.
            InputError: an image is missing or damaged, or the part is empty.
        """
        if self.listed is None:
            return ferplus.read(self.files, part, unlabelled=unlabelled)
        if part not in PARTS:
            raise ConfigError(f"part {part!r} is not one of {', '.join(PARTS)}")
        has_label = self.listed.votes.any(axis=1)
        chosen = np.flatnonzero((np.array(self.parts) == part) & (has_label | unlabelled))
        if not len(chosen):
            counts = dict(Counter(self.parts))
            raise InputError(f"{self.files.source}: no labelled faces of {part}; found {counts}")
        names = tuple(self.listed.names[i] for i in chosen)
        images = self._images(names, size, grey)
        return Faces(images, self.listed.targets[chosen], names, self.listed.outputs)

    def _images(self, names: Sequence[str], size: int, grey: bool) -> np.ndarray:
        side = min(size, max(self.files.read_image(names[0]).shape))

        def read(name: str) -> np.ndarray:
            image = self.files.read_image(name)
            height, width = image.shape[:2]
            face = resize(cut(image, square(Box(0, 0, width, height))), side)
            # As `face_network.to_grey`, so that training sees what labelling does.
            return np.round(face @ np.float32(GREY_WEIGHTS)) if grey else face

        images = np.empty((len(names), side, side, *(() if grey else (3,))), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV decodes outside Python's lock
            for i, image in enumerate(pool.map(read, names)):
                images[i] = image
        return images


def find_faces(source: str | os.PathLike[str]) -> FaceData:
    """List the faces of a folder, a zip file or a table, without reading the images.

    Raises:
        InputError: the source is missing or not valid.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() in TABLES:
        return _listed(FaceFiles(path.absolute().parent), read_table(path, ("path",)), path)
    files = FaceFiles(path)
    if any(map(files.find, (*ferplus.FOLDERS.values(), "fer2013new.csv"))):
        return FaceData(files)
    annotated = sorted(name for name in files.names if name.endswith("_exp.npy"))
    return _listed(files, _affectnet(files, annotated) if annotated else _folders(files), path)


def _listed(files: FaceFiles, rows: Iterable[Mapping[str, Any]], source: Path) -> FaceData:
    """Return the faces of the rows of a table, with usual names for their labels."""
    table = pd.DataFrame(list(rows))
    try:
        if table.empty or table["path"].isna().any():
            raise ConfigError("no images, or a row without a path")
        votes, values = _numbers(table, "vote_"), _numbers(table, "value_")
        if "label" in table:
            named = table["label"].map(_standard_names(set(table["label"].dropna())))
            votes = pd.get_dummies(named.where(named != UNLABELLED), dtype=float)
        rank = {name: k for k, name in enumerate(EMOTIONS)}
        votes = votes[sorted(votes, key=lambda name: (rank.get(name, len(rank)), name))].fillna(0)
        if not votes.ge(0).all(axis=None) or np.isinf([*votes.sum(), *values.sum()]).any():
            raise ConfigError("a number of votes is negative, or a number is not finite")
        outputs = Outputs.of(votes, values)
        parts = _parts(table)
    except ConfigError as error:
        raise InputError(
            f"{source}: {error}; expected FERPlus, a folder of images per emotion, AffectNet's "
            "folders, or a table, see guide/teachers.md"
        ) from error
    shares = votes.div(votes.sum(axis=1).replace(0, 1), axis=0)
    targets = np.concatenate([shares, values], axis=1).astype(np.float32)
    return FaceData(files, Faces(np.empty(0), targets, tuple(table["path"]), outputs), parts)


def _numbers(table: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Return the columns with a prefix, without it, as numbers; empty cells are NaN."""
    cells = table[[name for name in table if name.startswith(prefix)]]
    try:
        found = cells.apply(pd.to_numeric).astype(float)
    except ValueError as error:
        raise ConfigError(f"a {prefix} is not a number ({error})") from error
    return found.rename(columns=lambda name: standard_name(name.removeprefix(prefix)))


def _standard_names(labels: set[str]) -> dict[str, str]:
    """Return the name of the emotion of each label; ConfigError for an unknown number."""
    if not all(label.isdecimal() for label in labels):
        return {label: standard_name(label) for label in labels}
    first = 1 if "0" not in labels else 0
    known = {str(k): name for k, name in enumerate(RAF_DB if first else AFFECTNET, first)}
    if unknown := labels - set(known):
        raise ConfigError(f"label {min(unknown)} is not one of {', '.join(known)}")
    return known


def _parts(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the part of each face; by a hash of its path for parts that the data lacks."""
    splits = list(table["split"].fillna("")) if "split" in table else []
    stated = [SPLITS.get(split.lower(), "") for split in splits] or [""] * len(table)
    if any(splits) and not all(stated):
        raise ConfigError(f"row {stated.index('') + 2} has a split that is not in {list(SPLITS)}")
    parts = []
    for part, name in zip(stated, table["path"], strict=True):
        place = fraction(ascii(name))
        if part in ("", TRAIN) and VALIDATION not in stated and place < HELD_OUT:
            part = VALIDATION
        parts.append(part or (TEST if place < 2 * HELD_OUT else TRAIN))
    return tuple(parts)


def _folders(files: FaceFiles) -> Iterator[dict[str, Any]]:
    """Yield the images below folders of emotions, which may be below folders of parts."""
    paths = [PurePosixPath(name) for name in files.names]
    paths = [p for p in paths if p.suffix.lower() in IMAGES and not p.name.startswith(".")]
    above = posixpath.commonpath([p.parent.as_posix() for p in paths]) if paths else ""
    if posixpath.basename(above).lower() in SPLITS:  # the only part
        above = posixpath.dirname(above)
    for path in sorted(paths, key=lambda path: (path.name, path)):  # in the order of FERPlus
        label, *rest = path.relative_to(above).parts
        split = label if len(rest) > 1 and label.lower() in SPLITS else None
        if split:
            label, *rest = rest
        if rest and label.lower() not in SPLITS:  # else an image beside the folders
            yield {"path": str(path), "label": label, "split": split}


def _affectnet(files: FaceFiles, annotated: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the faces whose expression, valence and arousal are files of numpy."""

    def number(name: str) -> float:
        with files.open(name) as file:
            value = float(np.load(io.BytesIO(file.read(1000)), allow_pickle=False).item())
            return math.nan if value == UNKNOWN_VALUE else value

    for name in annotated:
        start = name.removesuffix("_exp.npy")
        folder, _, stem = start.rpartition("annotations/")
        images = [f"{folder}images/{stem}{ending}" for ending in IMAGES]
        yield {
            "path": next((image for image in images if image in files.names), images[0]),
            "label": str(int(number(name))),
            "split": PurePosixPath(folder).name,
            "value_valence": number(f"{start}_val.npy"),
            "value_arousal": number(f"{start}_aro.npy"),
        }
