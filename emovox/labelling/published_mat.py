"""The published MATLAB files of EmoVoxCeleb, read without loading a whole file into memory.

`wavLogits` is a cell of `[n x 8]` logits; the struct `images` has a name, an id and a split for
every cell, and the paths of all face images with the id of the utterance that each belongs to
(mcnCrossModalEmotions).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emovox.dataset import schema
from emovox.errors import InputError
from emovox.matfile import Node, open_mat

NUMBERS = {"id": "ids", "set": "sets", "denseFramesWavIds": "wav_ids"}  # field -> attribute
NUMBER = re.compile(rb"([0-9]{1,7})\.jpg")  # at the end of the path of every face image
LONGEST_PATH = 4096  # bytes, tags included


@dataclass
class Annotations:
    """Content of the published files, unchanged."""

    # per cell of `wavLogits`, float32 `[n, 8]` where it is correct
    logits: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # field of `images`, like the next two
    ids: np.ndarray | None = None
    sets: np.ndarray | None = None
    wav_ids: np.ndarray | None = None  # per face image, the id of its utterance, if it is given
    numbers: np.ndarray | None = None  # per face image, the number in its name; None: unreadable


def read_annotations(files: list[Path]) -> Annotations:
    """Read `wavLogits` and `images`: the first file with a field counts; InputError if none has."""
    found = Annotations()
    for path in files:
        with open_mat(path) as variables:
            for name, node in variables:
                _read_known(name, node, found)
    needed: dict[str, Any] = {"wavLogits": found.logits, "images.name": found.names}
    needed |= {"images.id": found.ids, "images.set": found.sets}
    if missing := [name for name, value in needed.items() if value is None or not len(value)]:
        where = ", ".join(map(str, files))
        fields = ", ".join(missing)
        raise InputError(f"{where}: {fields} missing; pass all files that together contain them")
    return found


def _read_known(name: str, node: Node, found: Annotations, struct: str = "images") -> None:
    """Read a variable, or a field of `struct`, if its name is known."""
    if node.kind == "struct":
        for record in node.records():
            for field_name, value in record:
                _read_known(field_name, value, found, struct=name)
    elif name == "wavLogits" and node.kind == "cell" and not found.logits:
        found.logits = [c.array() if c.kind == "number" else np.empty((0, 0)) for c in node.cells()]
    elif struct != "images":
        pass  # other structs have a field `name` too
    elif name == "name" and node.kind == "cell" and not found.names:
        found.names = ["".join(c.rows()) if c.kind == "char" else "" for c in node.cells()]
    elif name == "denseFrames" and node.kind == "cell" and found.numbers is None:
        found.numbers = _frame_numbers(node)
    elif node.kind == "number" and name in NUMBERS and getattr(found, NUMBERS[name]) is None:
        setattr(found, NUMBERS[name], node.array().ravel(order="F"))


def _frame_numbers(node: Node) -> np.ndarray | None:
    """Return the numbers of all `<number>.jpg`, without Python strings; None if one differs."""
    numbers, rest = [np.empty(0, np.int64)], b""
    for piece in node.raw():
        rest += piece.translate(None, b"\0")  # a character has one byte or two
        numbers.append(np.array(NUMBER.findall(rest), "S7").astype(np.int64))
        rest = rest.rpartition(b".jpg")[2][-LONGEST_PATH:]
    whole = np.concatenate(numbers)
    return whole if len(whole) == node.size else None


class FaceImages:
    """Face images of each track: how many there are, and the frame numbers in their names.

    Rows of logits are in the order of the images in the file, which is that of their names as
    text: names of different length are not in the order of their numbers. Numbers may have gaps.
    """

    def __init__(self, found: Annotations) -> None:
        self.counts: np.ndarray | None = None  # images of each entry of `images`, if they are given
        self._numbers: np.ndarray | None = None
        self._num_misfits = 0
        if found.wav_ids is None:
            return
        assert found.ids is not None
        owners = np.where(np.isfinite(found.wav_ids), found.wav_ids, -1)
        by_id = np.argsort(owners, kind="stable")
        owners = owners[by_id]
        self._starts = np.searchsorted(owners, found.ids, "left")
        self.counts = np.searchsorted(owners, found.ids, "right") - self._starts
        if found.numbers is not None and len(found.numbers) == len(by_id):
            self._numbers = found.numbers[by_id]

    def index(self, position: int, num_rows: int) -> np.ndarray:
        """Return the frame index of each row of an entry of `images`; 0, 1, 2 ... if unknown."""
        if self.counts is None or self._numbers is None:
            return np.arange(num_rows)
        start = self._starts[position]
        numbers = self._numbers[start : start + self.counts[position]]
        if len(numbers) == num_rows:
            index: np.ndarray = numbers - (0 if numbers.min() == 0 else 1)
            is_unique = len(np.unique(index)) == num_rows
            if is_unique and index.max() <= schema.max_frame_index(schema.STEP_MS):
                return index
        self._num_misfits += 1
        return np.arange(num_rows)

    def notes(self) -> list[str]:
        """Return lines for the user on tracks whose frames could not be numbered."""
        if self._numbers is None:
            return ["face images are not numbered in the file; frames are counted row by row"]
        fact = "tracks have face images that do not match their rows of logits"
        line = f"{self._num_misfits:,} {fact}; their frames are counted row by row"
        return [line] if self._num_misfits else []
