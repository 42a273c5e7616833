"""What the published MATLAB files of EmoVoxCeleb hold, read without holding all of it.

`wavLogits` is a cell of `[n x 8]` logits; the struct `images` has a name, an id and a split for
every cell, and the paths of all face images with the id of the utterance that each belongs to
(mcnCrossModalEmotions).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emovox.dataset import schema
from emovox.errors import InputError
from emovox.matfile import Node, open_mat

NUMBERS = {"id": "ids", "set": "sets", "denseFramesWavIds": "wav_ids"}  # field -> attribute
ENDING = b".jpg"  # of every face image; its number stands right before it
MAX_DIGITS = 7  # of such a number
LONGEST_PATH = 4096  # bytes, tags included


@dataclass
class Annotations:
    """What the files held, as they held it.

    Attributes:
        logits: per cell of `wavLogits`, float32 `[n, 8]` where it is right.
        names, ids, sets: of `images`.
        wav_ids: per face image, the id of its utterance; None if the file does not say.
        numbers: per face image, the number in its name; None if they could not be read.
    """

    logits: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ids: np.ndarray | None = None
    sets: np.ndarray | None = None
    wav_ids: np.ndarray | None = None
    numbers: np.ndarray | None = None


def read_annotations(files: list[Path]) -> Annotations:
    """Read `wavLogits` and `images`, from one file or from several; the first to have one wins.

    Raises:
        InputError: something that is needed is in none of them.
    """
    found = Annotations()
    seen: list[str] = []
    for path in files:
        with open_mat(path) as variables:
            for name, node in variables:
                seen += _take(name, node, found)
    needed: dict[str, Any] = {"wavLogits": found.logits, "images.name": found.names}
    needed |= {"images.id": found.ids, "images.set": found.sets}
    if missing := [name for name, value in needed.items() if value is None or not len(value)]:
        where = ", ".join(map(str, files))
        raise InputError(
            f"{where}: no {', '.join(missing)}; found {', '.join(seen) or 'nothing'}. Give all the "
            "files that hold them between them"
        )
    return found


def _take(name: str, node: Node, found: Annotations, struct: str = "images") -> list[str]:
    """Read what a variable or field of a struct is known to hold; return the names seen."""
    seen = [f"{name} ({node.kind} {' x '.join(map(str, node.dims))})"]
    if node.kind == "struct":
        for field_name, value in node.fields():
            seen += _take(field_name, value, found, struct=name)
    elif name == "wavLogits" and node.kind == "cell" and not found.logits:
        found.logits = [_numbers(cell) for cell in node.cells()]
    elif struct != "images":
        pass  # classes have names too
    elif name == "name" and node.kind == "cell" and not found.names:
        found.names = [cell.text() if cell.kind == "char" else "" for cell in node.cells()]
    elif name == "denseFrames" and node.kind == "cell" and found.numbers is None:
        found.numbers = _frame_numbers(node)
    elif node.kind == "number" and name in NUMBERS and getattr(found, NUMBERS[name]) is None:
        setattr(found, NUMBERS[name], node.array().ravel(order="F"))
    return seen


def _numbers(cell: Node) -> np.ndarray:
    return cell.array() if cell.kind == "number" else np.empty((0, 0))


def _frame_numbers(node: Node) -> np.ndarray | None:
    """The numbers in the names of all face images, without making strings of five million paths.

    None if some path does not end in `<number>.jpg`, or the container has no raw bytes to search.
    """
    numbers = [np.empty(0, np.int64)]
    rest = b""
    for piece in node.raw():
        rest += piece
        for width in (1, 2):  # bytes a character
            found, end = _numbers_before(ENDING, rest, width)
            if end:
                numbers.append(found)
                rest = rest[end:]
        rest = rest[-LONGEST_PATH:]
    whole = np.concatenate(numbers)
    return whole if len(whole) == node.size else None


def _numbers_before(ending: bytes, text: bytes, width: int) -> tuple[np.ndarray, int]:
    """The decimal numbers right before every `ending` in a text, and where the last one ends."""
    letters = np.frombuffer(text, np.uint8)
    places = np.flatnonzero(letters == ending[0])
    places = places[(places >= width) & (places + width * len(ending) <= len(letters))]
    for i, letter in enumerate(ending):
        places = places[letters[places + width * i] == letter]
    places = places[_is_digit(letters[places - width])]
    values, power = np.zeros(len(places), np.int64), 1
    going_on = np.ones(len(places), bool)
    for i in range(1, MAX_DIGITS + 1):
        at = places - width * i
        digits = letters[np.maximum(at, 0)]
        going_on &= (at >= 0) & _is_digit(digits)
        values += np.where(going_on, digits.astype(np.int64) - ord("0"), 0) * power
        power *= 10
    return values, int(places[-1]) + width * len(ending) if len(places) else 0


def _is_digit(letters: np.ndarray) -> np.ndarray:
    return (letters >= ord("0")) & (letters <= ord("9"))


class FaceImages:
    """What the face images say of the frames of a track: how many, and which numbers they have.

    Rows of logits are in the order of the images in the file, which is that of their names as
    text: names of different length come in another order than their numbers. A number may be
    missing.
    """

    def __init__(self, found: Annotations) -> None:
        self.order: dict[str, np.ndarray] = {}  # frame index of every row, where not 0, 1, 2 ...
        self._num_differ = 0
        self._numbers = found.numbers
        self._known = found.wav_ids is not None
        if found.wav_ids is None:
            return
        owners = np.where(np.isfinite(found.wav_ids), found.wav_ids, -1)
        by_id = np.argsort(owners, kind="stable")
        owners = owners[by_id]
        assert found.ids is not None
        ids = found.ids
        self._starts = np.searchsorted(owners, ids, "left")
        self._stops = np.searchsorted(owners, ids, "right")
        if found.numbers is not None and len(found.numbers) == len(by_id):
            self._numbers = found.numbers[by_id]
        else:
            self._numbers = None

    def counts(self) -> np.ndarray | None:
        """Face images of each entry of `images`; None if the file does not say."""
        return self._stops - self._starts if self._known else None

    def number(self, position: int, num_rows: int, track_id: str) -> None:
        """Note the frame indices of a track where they are not simply those of its rows.

        Args:
            position: of its entry in `images`.
            num_rows: of its logits.
            track_id: what `order` shall know it by.
        """
        if not self._known or self._numbers is None:
            return
        numbers = self._numbers[self._starts[position] : self._stops[position]]
        if len(numbers) != num_rows:
            self._num_differ += 1
            return
        index = numbers - (0 if numbers.min() == 0 else 1)
        if not np.array_equal(index, np.arange(num_rows)):
            if len(np.unique(index)) < num_rows or index.max() > schema.MAX_FRAME_INDEX:
                self._num_differ += 1
            else:
                self.order[track_id] = index

    def notes(self) -> list[str]:
        """Lines on what the face images could not tell."""
        if not self._known or self._numbers is None:
            return ["the file does not number its face images: frames are counted row by row"]
        if not self._num_differ:
            return []
        return [
            f"{self._num_differ:,} tracks have other face images than rows of logits: their frames "
            "are counted row by row"
        ]
