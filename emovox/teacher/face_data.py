"""Labelled faces in the layouts that a teacher can train on.

- FERPlus, see `ferplus`;
- a folder or zip file with a folder of images per emotion, perhaps below `train`, `val` and `test`;
  numbers are those of AffectNet, from 0, or of RAF-DB, from 1;
- AffectNet as published: `train_set` and `val_set`, each with `images` and `annotations`;
- a table (CSV, TSV or Parquet): `path` below its folder; `label`, or `vote_<emotion>` for each; and
  optionally `value_<name>` and `split`.
"""

import io
import math
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from emovox.checkpoints import GREY_WEIGHTS
from emovox.corpus.splits import fraction
from emovox.corpus.track_table import read_table
from emovox.emotions import EMOTIONS, Outputs, standard_name
from emovox.errors import ConfigError, InputError, check_choice
from emovox.limits import MAX_PIXELS
from emovox.media.faces import Box, cut, resize, square
from emovox.teacher import ferplus
from emovox.teacher.ferplus import FaceFiles, Faces
from emovox.teacher.teacher_config import PARTS

TRAIN, VALIDATION, TEST = PARTS
SPLITS = {
    **dict.fromkeys(("train", "training", "train_set"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "val_set", "public_test"), VALIDATION),
    **dict.fromkeys(("test", "testing", "test_set", "private_test"), TEST),
}
HELD_OUT = 0.1  # fraction of the faces that becomes a part which the data lacks
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
UNLABELLED = ("unlabelled", "unlabeled")  # folders or labels of faces without a label
# By the number of a label: of AffectNet, from 0 (8 to 10 are no emotions), and of RAF-DB, from 1.
AFFECTNET = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]
RAF_DB = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]


def read_faces(
    data: str | os.PathLike[str], part: str, size: int, grey: bool = True, unlabelled: bool = False
) -> Faces:
    """Read the labelled faces of a part, with `unlabelled` also those without a label.

    Names of emotions and values are those in the whole data. Images become squares of `size`
    pixels, or of the longest side among the first 100 images if that is less.

    Raises:
        ConfigError: unknown part.
        InputError: the data or an image is missing or not valid, or the part is empty.
    """
    check_choice("part", part, PARTS)
    path = Path(data)
    is_table = path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".parquet")
    files = FaceFiles(path.absolute().parent if is_table else path)
    if is_table:
        rows: Iterable[Mapping[str, Any]] = read_table(path, ("path",))
    elif any(map(files.find, (*ferplus.FOLDERS.values(), "fer2013new.csv"))):
        return ferplus.read(path, part, unlabelled=unlabelled)
    elif annotated := sorted(name for name in files.names if name.endswith("_exp.npy")):
        rows = _affectnet(files, annotated)
    else:
        rows = _folders(files)
    try:
        table = pd.DataFrame(list(rows))
        outputs, targets = _targets(table)
        parts = _parts(table)
    except (ConfigError, ValueError) as error:  # the latter for a cell that is not a number
        raise InputError(f"{path}: {error}; see guide/teachers.md for the layouts") from error
    has_label = targets[:, : len(outputs.emotions)].any(axis=1)
    chosen = (parts == part) & (has_label | unlabelled)
    if not chosen.any():
        raise InputError(f"{path}: no labelled faces of {part}; found {dict(Counter(parts))}")
    names = tuple(table["path"][chosen])
    largest = max(max(files.read_image(name).shape) for name in names[:100])  # a sample
    read = delayed(partial(read_face, files, side=min(size, largest), grey=grey))
    images = Parallel(-1, prefer="threads")(map(read, names))
    return Faces(np.stack(images), targets[chosen], names, outputs)


def read_face(
    files: FaceFiles,
    name: str,
    box: Sequence[float] = (0.0, 1.0, 0.0, 1.0),
    *,
    side: int,
    grey: bool = True,
) -> np.ndarray:
    """Read the square around a box of an image: uint8 `[side, side]`, or `[side, side, 3]` RGB.

    The box is left, right, top and bottom as fractions. InputError for a missing or damaged image.
    """
    image = files.read_image(name)
    height, width = image.shape[:2]
    left, right, top, bottom = box
    face = Box(left * width, top * height, (right - left) * width, (bottom - top) * height)
    if max(face.w, face.h) ** 2 > MAX_PIXELS:
        raise InputError(f"{files.source}: {name}: too large, or too long for its height or width")
    pixels = resize(cut(image, square(face)), side)
    # As `checkpoints.to_grey`, so that training sees what labelling does.
    return np.round(pixels @ np.array(GREY_WEIGHTS, "f4")).astype(np.uint8) if grey else pixels


def _targets(table: pd.DataFrame) -> tuple[Outputs, np.ndarray]:
    """Return the outputs, with usual names for the labels, and the targets of `Faces`."""
    if table.empty or table["path"].isna().any():
        raise ConfigError("no images in folders of emotions, or a row without a path")
    votes, values = _numbers(table, "vote_").fillna(0), _numbers(table, "value_")
    if ("label" in table) == bool(len(votes.columns)):
        raise ConfigError("needs a column label, or else columns vote_<emotion>")
    if "label" in table:
        labels = table["label"].str.removesuffix(".0")  # of pandas, for numbers beside empty cells
        named = labels.map(_standard_names(set(labels.dropna())))
        votes = pd.get_dummies(named.where(~named.isin(UNLABELLED)), dtype=float)
    votes = votes[sorted(votes, key=lambda name: ((*EMOTIONS, name).index(name), str(name)))]
    if not votes.ge(0).all(axis=None) or np.isinf([*votes.sum(), *values.sum()]).any():
        raise ConfigError("a number of votes is negative, or a number is not finite")
    shares = votes.div(votes.sum(axis=1).replace(0, 1), axis=0)
    targets = np.concatenate([shares, values], axis=1).astype(np.float32)
    return Outputs.of(map(str, votes), map(str, values)), targets


def _numbers(table: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Return the columns with a prefix, without it, as numbers; empty cells are NaN."""
    cells = table[[name for name in table if str(name).startswith(prefix)]]
    found = cells.apply(pd.to_numeric).astype(float)
    return found.rename(columns=lambda name: standard_name(name.removeprefix(prefix)))


def _standard_names(labels: set[str]) -> dict[str, str]:
    """Return the name of the emotion of each label; ConfigError for an unknown number."""
    if not all(label.isdecimal() for label in labels):
        return {label: standard_name(label) for label in labels}
    first, names = (0, [*AFFECTNET, *3 * UNLABELLED[:1]]) if "0" in labels else (1, RAF_DB)
    known = {str(k): name for k, name in enumerate(names, first)}
    if unknown := labels - set(known):
        raise ConfigError(f"label {min(unknown)} is not one of {', '.join(known)}")
    return known


def _parts(table: pd.DataFrame) -> np.ndarray:
    """Return the part of each face; by a hash of its path for parts that the data lacks."""
    splits = table.get("split", pd.Series(None, table.index, dtype=object)).fillna("")
    stated = splits.str.lower().map(SPLITS).fillna("")
    if (splits != "").any() and (stated == "").any():
        path, split = next(zip(table["path"][stated == ""], splits[stated == ""], strict=True))
        raise ConfigError(f"{path}: split {split!r} is not one of {', '.join(SPLITS)}")
    places = table["path"].map(lambda path: fraction(ascii(path)))
    if not (stated == VALIDATION).any():
        stated = stated.mask(stated.isin(["", TRAIN]) & (places < HELD_OUT), VALIDATION)
    stated = stated.mask((stated == "") & (places < 2 * HELD_OUT), TEST)
    return np.array(stated.replace("", TRAIN))


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
            return math.nan if value == -2 else value  # unknown valence and arousal

    for name in annotated:
        start = name.removesuffix("_exp.npy")
        folder, _, stem = start.rpartition("annotations/")
        yield {
            "path": f"{folder}images/{stem}.jpg",
            "label": str(int(number(name))),
            "split": PurePosixPath(folder).name,
            "value_valence": number(f"{start}_val.npy"),
            "value_arousal": number(f"{start}_aro.npy"),
        }
