"""Small datasets and results for the tests of the report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.rows import Chunk, Dropped, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.ids import TrackKey
from emovox.labelling.run import build_dataset
from emovox.scores import difference, score_split
from emovox.student.evaluation import Evaluation, SplitPredictions
from emovox.testing import FakeTeacher, InlineEngine

TRAIN, HEARD, UNHEARD = schema.SPLITS


@dataclass(frozen=True)
class Made:
    """A track with its logits `[n, 8]` and grid points."""

    split: str
    row: TrackRow
    logits: np.ndarray
    index: np.ndarray


def made(split: str, identity: str, video: str, number: int, num: int = 12, **options: Any) -> Made:
    """Return a track of noise, with emotions that are stronger for some identities."""
    rng = np.random.default_rng([number, *identity.encode(), *video.encode()])
    logits = rng.normal(0, 1, (num, len(EMOTIONS))).astype(np.float32)
    logits[:, rng.integers(len(EMOTIONS))] += 3
    logits[: num // 2, rng.integers(len(EMOTIONS))] += 4
    index = np.arange(num)
    if options.pop("gap", False):
        index = np.delete(np.arange(num + 2), [3, 4])
    duration = options.pop("duration_ms", int((index[-1] + 1) * schema.STEP_MS))
    expected = int(index[-1]) + 1
    row = TrackRow(TrackKey(identity, video, number), num, expected, duration)
    return Made(split, row, options.pop("logits", logits), index)


def small() -> list[Made]:
    """Return sorted tracks of five identities in all splits; some have gaps."""
    found = []
    for split, identities in ((TRAIN, "abc"), (HEARD, "ab"), (UNHEARD, "xy")):
        for who in identities:
            for video in ("v1", "v2")[: 1 + (who in "ax")]:
                for k in range(1, 5):
                    number = k + 10 * schema.SPLITS.index(split)
                    track = made(split, f"id{who}", video, number, 8 + 3 * k, gap=k == 2)
                    found.append(track)
    return found


def write(
    out: Path,
    tracks: Iterable[Made],
    *,
    name: str = "small",
    dropped: Sequence[Dropped] = (),
    **provenance: Any,
) -> Path:
    """Write a dataset without faces, like an imported one."""
    info = DatasetInfo(
        name,
        "1.2.3",
        schema.STEP_MS,
        {"name": "fake", "sha256": "ab" * 32},
        {"origin": "Made by a test.", **provenance},
        ("frames", "tracks"),
    )
    chunks = (_chunk(track) for track in tracks)
    write_chunks(out, chunks, list(dropped), info, hdf5=False)
    return out


def build(layout: str, root: Path, out: Path, **options: Any) -> None:
    """Build a dataset with faces from a corpus."""
    engine = InlineEngine(FakeTeacher())
    build_dataset(layout=layout, root=root, out=out, engine=engine, show_progress=False, **options)


def _chunk(track: Made) -> Chunk:
    columns = [
        pa.array([track.row.track_id] * len(track.logits)),
        pa.array(track.index.astype(np.int16)),
        pa.array((track.index * schema.STEP_MS).astype(np.int32)),
        *map(pa.array, np.ascontiguousarray(track.logits.T)),
    ]
    return Chunk(
        track.split, [track.row], pa.Table.from_arrays(columns, schema=schema.EIGHT.frames)
    )


def evaluation(num: int = 60, name: str = "small", version: str = "1.2.3") -> Evaluation:
    """Return the evaluation of a student that is right half of the time; contempt never occurs."""
    predictions, scores = {}, {}
    for place, split in enumerate((HEARD, UNHEARD)):
        rng = np.random.default_rng(place)
        labels = rng.integers(0, len(EMOTIONS) - 1, num)
        found = rng.dirichlet(np.ones(len(EMOTIONS)), num).astype(np.float32)
        found[np.arange(num), labels] += rng.uniform(0, 1, num)
        found = (found / found.sum(axis=1, keepdims=True)).astype(np.float32)
        people = np.array([f"id{k % 5}" for k in range(num)])
        ids = np.array([f"{who}/v/{k:05d}" for k, who in enumerate(people)])
        predictions[split] = SplitPredictions(split, ids, people, labels, found, [])
        scores[split] = score_split(split, labels, found, people, EMOTIONS)
    return Evaluation(
        {"name": "student", "sha256": "0" * 64},
        {"name": name, "version": version},
        "standard",
        "grid",
        scores,
        difference(*scores.values()),
        predictions,
    )


def num_colours(image: np.ndarray) -> int:
    """Return the number of different colours in a picture uint8 `[H, W, 3]`."""
    return len(np.unique(image.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)))
