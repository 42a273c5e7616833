"""Contents of a dataset, or of one of its tracks, as lines for a terminal."""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import count_reasons, list_dropped
from emovox.errors import InputError
from emovox.ids import parse_track_id
from emovox.packages import DataFrame, data_frame
from emovox.reporting.aggregates import read_dropped
from emovox.scores import softmax

BAR = 8  # characters of a probability of 1


@dataclass(frozen=True, repr=False)
class Shown:
    """A dataset or a track, to be printed."""

    title: str
    facts: dict[str, Any]  # JSON values
    rows: list[dict[str, Any]]  # one per split, or one per row of the track
    table: list[tuple[str, ...]]  # the same as text, with a header
    notes: tuple[str, ...] = ()  # lines below the table

    def __repr__(self) -> str:
        return f"<Shown {self.title}>"

    def summary(self) -> str:
        """Return title, table and notes as lines of text."""
        widths = [max(map(len, column)) for column in zip(*self.table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in self.table]
        return "\n".join([self.title, "", *lines, *self.notes])

    def as_json(self) -> dict[str, Any]:
        """Return all facts and the rows as JSON values."""
        return self.facts | {"rows": self.rows}

    def to_pandas(self) -> DataFrame:
        """Return the rows as a table; MissingPackageError without pandas."""
        return data_frame(self.rows)


def show(dataset: str | os.PathLike[str], track: str | None = None) -> Shown:
    """Describe a dataset, or one of its tracks.

    A dataset has a row per split: tracks, frames, identities, and tracks of each label. A track has
    a row per grid point with a face: its time in seconds, logits, values and probabilities, which
    the text draws as bars.

    Args:
        dataset: folder of the dataset.
        track: `track_id` of a track. None: the whole dataset.

    Raises:
        InputError: `dataset` is not a dataset, or has no such track.

    Example:
        >>> show("emovox-demo/dataset", "demo00/scene00x00/00001").to_pandas().shape
        (20, 17)
    """
    data = load(dataset)
    if track is None:
        return _describe(data)
    key = parse_track_id(track)
    track = key.track_id if key else track
    if track not in data:
        ids = (each for s in data.splits for each in data.tracks[s]["track_id"].to_pylist())
        some = ", ".join([each for each in ids if each.startswith(track)][:5])
        raise InputError(f"{data.path}: no track {track!r}; those that begin so: {some or 'none'}")
    return _describe_track(data, track)


def _describe(data: Dataset) -> Shown:
    rows, totals, dropped = [], Counter[str](), read_dropped(data)
    for split in data.splits:
        tracks = data.tracks[split]
        labels = Counter(tracks["label"].to_pylist())
        numbers = {"tracks": len(tracks), "frames": int(np.sum(tracks["n_frames"].to_numpy()))}
        numbers["identities"] = len(tracks["identity_id"].unique())
        numbers |= {emotion: labels[emotion] for emotion in data.emotions}
        totals.update(numbers)
        rows.append({"split": split, **numbers})
    header = ["split", "tracks", "frames", "identities"]
    header += [emotion for emotion in data.emotions if totals[emotion]]
    table = [tuple(header), *(tuple(_number(row[name]) for name in header) for row in rows)]
    teacher, step = data.manifest["teacher"]["name"], data.manifest["step_ms"]
    title = f"{data.name} {data.version}: {totals['tracks']:,} tracks, {totals['frames']:,} frames"
    facts = {"name": data.name, "version": data.version, "teacher": teacher, "step_ms": step}
    facts |= {"emotions": list(data.emotions), "values": list(data.values)}
    facts["dropped"] = count_reasons(dropped)
    title += f" every {step} ms, labelled by {teacher}"
    return Shown(title, facts, rows, table, ("", *list_dropped(dropped)) if dropped else ())


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _describe_track(data: Dataset, track_id: str) -> Shown:
    track, (split, row) = data[track_id], data.find(track_id)
    [facts] = data.tracks[split].slice(row, 1).to_pylist()
    shares = softmax(track.logits)
    names = ["seconds", *data.columns.logits, *data.columns.values]
    names += [f"probability_{emotion}" for emotion in data.emotions]
    numbers = np.column_stack([track.times, track.logits, track.values, shares])
    rows = [dict(zip(names, row_numbers, strict=True)) for row_numbers in numbers.tolist()]
    table = [("time", *(emotion.ljust(BAR) for emotion in data.emotions), *data.values)]
    for time, values, of_row in zip(track.times, track.values, shares, strict=True):
        bars = ["\u2588" * round(BAR * share) for share in of_row]
        table.append((f"{time:.2f} s", *bars, *(f"{value:.2f}" for value in values)))
    seconds = "" if (length := facts["duration_ms"]) is None else f", {length / 1000:.1f} s"
    majority = facts["majority"]
    title = f"{track_id}: {split}, label {facts['label']}"
    title += f" (most often {majority})" if majority != facts["label"] else ""
    title += f", {facts['n_frames']} of {facts['n_expected']} grid points{seconds}"
    title += f", from {facts['source']}" if facts["source"] else ""
    return Shown(title, facts, rows, table)
