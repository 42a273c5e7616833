"""Triplets of faces of which people said which one looks unlike the others.

The file is that of Google's Facial Expression Comparison (Vemulapalli and Agarwala, 2019), CSV
without a header: for each of three faces its URL and box (left, right, top and bottom as fractions
of the picture); the type of the triplet; and for each annotator a name and the number of the odd
face, 1 to 3. Pictures lie in the folder of the file, under the last part of their URL.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from emovox.checkpoints import GREY_WEIGHTS
from emovox.errors import InputError, first_line
from emovox.media.faces import Box, cut, resize, square
from emovox.teacher import Teacher
from emovox.teacher.ferplus import FaceFiles

BOXES, TYPE, FIRST_VOTE = (0, 5, 10), 15, 17  # columns; a face has 5, an annotator 2
# By which the odd face must be further away; two faces of other types show the same emotion.
MARGINS = {"ONE_CLASS_TRIPLET": 0.1, "TWO_CLASS_TRIPLET": 0.2, "THREE_CLASS_TRIPLET": 0.2}
BATCH = 64  # triplets scored at a time


@dataclass(frozen=True)
class Triplets:
    """Triplets whose pictures are there, and for which one answer is the most frequent.

    Attributes:
        images: grey faces, uint8 `[N, S, S]`.
        places: places of the two similar faces and of the odd one in `images`, int64 `[T, 3]`.
        margins: float32 `[T]`.
    """

    images: np.ndarray
    places: np.ndarray
    margins: np.ndarray


def read_triplets(path: Path, size: int) -> Triplets:
    """Read the triplets of a file and their faces, squares of `size` pixels.

    InputError if the file is missing or has another form, a picture is damaged, or none is left.
    """
    try:
        table = pd.read_csv(path, header=None, dtype=str)
        boxes = table[[b + i for b in BOXES for i in range(1, 5)]].astype(float).to_numpy()
        margins = table[TYPE].map(MARGINS).to_numpy(float)
        votes = table.loc[:, FIRST_VOTE::2].apply(pd.to_numeric).to_numpy(float)
    except (OSError, ValueError, LookupError) as error:  # pandas' errors are ValueErrors
        raise InputError(f"{path}: not a file of triplets ({first_line(error)})") from error
    counts = np.stack([(votes == number).sum(axis=1) for number in (1, 2, 3)], axis=1)
    is_clear = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    is_clear &= np.isfinite(margins) & np.isfinite(boxes).all(axis=1)
    names = table[[*BOXES]].map(lambda url: Path(urlsplit(str(url)).path).name).to_numpy()
    files, places, kept = FaceFiles(path.absolute().parent), [], []
    faces: dict[tuple[Any, ...], int] = {}  # name and box of each, and its place
    for row in np.flatnonzero(is_clear):
        if files.names.issuperset(names[row]):
            odd = counts[row].argmax()
            keys = zip(names[row], *boxes[row].reshape(3, 4).T.tolist(), strict=True)
            found = [faces.setdefault(key, len(faces)) for key in keys]
            places.append([*np.delete(found, odd), found[odd]])
            kept.append(row)
    if not kept:
        raise InputError(f"{path}: no triplet has its three pictures in {files.source} and a vote")

    def read_face(name: str, left: float, right: float, top: float, bottom: float) -> np.ndarray:
        image = files.read_image(name)
        height, width = image.shape[:2]
        box = Box(left * width, top * height, (right - left) * width, (bottom - top) * height)
        face = resize(cut(image, square(box)), size)
        return np.round(face @ np.array(GREY_WEIGHTS, "f4")).astype(np.uint8)

    images = np.stack([read_face(*key) for key in faces])
    return Triplets(images, np.array(places), margins[kept].astype(np.float32))


def triplet_loss(embeddings: Tensor, margins: Tensor) -> Tensor:
    """Return the mean loss of embeddings `[B, 3, D]`, the odd face last.

    Both similar faces must be nearer to each other than to the odd one, by the margin, after
    embeddings are scaled to length 1.
    """
    near, *far = _distances(embeddings)
    losses = [F.relu(near - other + margins) for other in far]
    return (losses[0] + losses[1]).mean()


def _distances(embeddings: Tensor) -> list[Tensor]:
    """Return the squared distances of the similar faces, and of each to the odd one, `[B]` each."""
    a, b, odd = F.normalize(embeddings.float(), dim=2).unbind(dim=1)
    return [(x - y).square().sum(dim=1) for x, y in ((a, b), (a, odd), (b, odd))]


def triplet_accuracy(teacher: Teacher, triplets: Triplets) -> float:
    """Return the share of triplets whose similar faces are nearest to each other.

    Distances are those of the teacher's head for triplets, or of its embeddings without one.
    """
    images = np.repeat(triplets.images[..., None], 3, axis=3)
    found = [teacher.embed(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    embeddings = torch.from_numpy(np.concatenate(found)).float()
    if head := getattr(teacher, "triplet", None):
        with torch.no_grad():
            embeddings = head.float().cpu()(embeddings)
    near, *far = _distances(embeddings[torch.from_numpy(triplets.places)])
    return float((near < torch.minimum(*far)).float().mean())
