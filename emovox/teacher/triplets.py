"""Triplets of faces of which people said which one looks unlike the others.

The file is that of Google's Facial Expression Comparison (Vemulapalli and Agarwala, 2019), CSV
without a header: for each of three faces its URL and box (left, right, top and bottom as fractions
of the picture); the type of the triplet; and for each annotator a name and the number of the odd
face, 1 to 3. Pictures lie in the folder of the file, under the last part of their URL.
"""

import contextlib
import re
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from torch import Tensor

from emovox.errors import ConfigError, InputError, first_line
from emovox.files import regular
from emovox.teacher import Teacher
from emovox.teacher.face_data import read_face
from emovox.teacher.ferplus import FaceFiles

BOXES, TYPE, FIRST_VOTE = (0, 5, 10), 15, 17  # columns; a face has 5, an annotator 2
# By which the odd face must be further away; two faces of other types show the same emotion.
MARGINS = {"ONE_CLASS_TRIPLET": 0.1, "TWO_CLASS_TRIPLET": 0.2, "THREE_CLASS_TRIPLET": 0.2}
BATCH = 256  # faces scored at a time


@dataclass(frozen=True)
class Triplets:
    """Triplets whose pictures are readable, and for which one answer is the most frequent.

    Attributes:
        images: grey faces, uint8 `[N, S, S]`.
        places: places of the two similar faces and of the odd one in `images`, int64 `[T, 3]`.
        margins: float32 `[T]`.
        note: number of triplets, and of those that are left out by reason, as a line of text.
    """

    images: np.ndarray
    places: np.ndarray
    margins: np.ndarray
    note: str


def read_triplets(path: Path, size: int) -> Triplets:
    """Read the triplets of a file and their faces, squares of `size` pixels.

    InputError if the file is missing or has another form, or none of its triplets can be used.
    """
    names, boxes, odd, margins = _read_table(path)
    files, places, kept = FaceFiles(path.absolute().parent), [], []
    faces: dict[tuple[str, tuple[float, ...]], int] = {}  # place of each name and box
    is_clear = odd >= 0
    for row in np.flatnonzero(is_clear):
        if files.names.issuperset(names[row]):
            keys = zip(names[row], map(tuple, boxes[row].tolist()), strict=True)
            found = [faces.setdefault(key, len(faces)) for key in keys]
            places.append([*np.delete(found, odd[row]), found[odd[row]]])
            kept.append(row)

    def read(name: str, box: tuple[float, ...]) -> np.ndarray | None:
        with contextlib.suppress(InputError):
            return read_face(files, name, box, side=size)
        return None

    images = Parallel(-1, prefer="threads")(starmap(delayed(read), faces))
    is_whole = np.array([image is not None for image in images], bool)
    rows = np.array(places, int).reshape(-1, 3)
    used = is_whole[rows].all(axis=1)
    reasons = {
        "of another form or without a most frequent answer": (~is_clear).sum(),
        "without their pictures": is_clear.sum() - len(kept),
        "with damaged pictures": (~used).sum(),
    }
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    note = f"{path.name}: {used.sum():,} of {len(odd):,} triplets; left out: {left_out or 'none'}"
    if not used.any():
        raise InputError(f"{note}; pictures are looked for in {files.source}")
    blank = np.zeros((size, size), np.uint8)
    faces_read = np.stack([blank if image is None else image for image in images])
    return Triplets(faces_read, rows[used], margins[kept][used].astype(np.float32), note)


def _read_table(path: Path) -> tuple[np.ndarray, ...]:
    """Return names `[T, 3]`, boxes `[T, 3, 4]`, places of the odd face `[T]`, and margins `[T]`.

    The place is -1 for a triplet without a most frequent answer or of another form.
    """
    try:
        with regular(path).open(encoding="utf-8-sig", errors="replace") as file:
            num = 1 + max((line.count(",") for line in file), default=0)  # rows differ in votes
            if num <= FIRST_VOTE:
                raise ValueError(f"expected {FIRST_VOTE + 1} or more columns, found {num}")
            file.seek(0)
            table = pd.read_csv(file, names=range(num), dtype=str, skipinitialspace=True)
        boxes = _numbers(table[[b + i for b in BOXES for i in range(1, 5)]])
        margins = table[TYPE].map(lambda kind: MARGINS.get(str(kind).strip())).to_numpy(float)
        votes = _numbers(table.loc[:, FIRST_VOTE::2])
    except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
        raise InputError(f"{path}: not a file of triplets ({first_line(error)})") from error
    counts = np.stack([(votes == number).sum(axis=1) for number in (1, 2, 3)], axis=1)
    is_clear = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    is_clear &= np.isfinite(margins) & (np.abs(boxes - 0.5) <= 1).all(axis=1)
    is_clear &= (boxes[:, 1::2] > boxes[:, ::2]).all(axis=1)
    # The last part of a URL, without a query.
    names = table[[*BOXES]].map(lambda u: re.split("[?#]", str(u).strip())[0].rpartition("/")[2])
    odd = np.where(is_clear, counts.argmax(axis=1), -1)
    return names.to_numpy(), boxes.reshape(-1, 3, 4), odd, margins


def _numbers(table: pd.DataFrame) -> np.ndarray:
    """Return cells as float64 `[N, C]`, NaN for other text."""
    return table.apply(pd.to_numeric, errors="coerce").to_numpy(float)


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
    if not teacher.embedding_size:
        raise ConfigError(f"triplets: teacher {teacher.name} gives no embeddings; use another one")
    batches = (triplets.images[i : i + BATCH] for i in range(0, len(triplets.images), BATCH))
    found = [teacher.embed(np.repeat(batch[..., None], 3, axis=3)) for batch in batches]
    embeddings = torch.from_numpy(np.concatenate(found)).float()
    if head := getattr(teacher, "triplet", None):
        with torch.no_grad():
            embeddings = head.float().cpu()(embeddings)
    near, *far = _distances(embeddings[torch.from_numpy(triplets.places)])
    return float((near < torch.minimum(*far)).float().mean())
