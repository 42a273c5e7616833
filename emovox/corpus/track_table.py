"""Tables of users: lists of tracks and of splits, as CSV or Parquet."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from emovox.corpus.tracks import Corpus, FaceSource, Track
from emovox.errors import InputError, TrackError, first_line
from emovox.ids import parse_track_id, printable
from emovox.paths import as_path, local_copy

TRACK_COLUMNS = ("track_id", "video", "identity", "start", "end")
OPTIONAL_COLUMNS = ("split", "boxes")


def read_table(
    name: str | os.PathLike[str], required: tuple[str, ...], hint: str = ""
) -> list[dict[str, Any]]:
    """Read a CSV, TSV (header in the first line, UTF-8) or Parquet file as rows.

    Args:
        name: path or URL; a name that ends in neither .parquet nor .tsv is CSV.
        required: columns that it must have.
        hint: end of the message for a missing file.

    Raises:
        InputError: the file is missing, cannot be parsed, or lacks a required column.
    """
    path = as_path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such file{hint}")
    suffix = path.suffix.lower()
    try:
        with local_copy(path) as local:
            table = pq.read_table(local) if suffix == ".parquet" else _read_csv(local, suffix)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = first_line(error)
        raise InputError(f"{path}: not readable as CSV or Parquet: {reason}") from error
    if missing := [c for c in required if c not in table.column_names]:
        raise InputError(
            f"{path}: missing columns {', '.join(missing)}; found {', '.join(table.column_names)}"
        )
    return table.to_pylist()


def _read_csv(path: Path, suffix: str) -> pa.Table:
    delimiter = "\t" if suffix == ".tsv" else ","
    with path.open("rb") as file:
        header = file.readline().decode("utf-8-sig").strip().split(delimiter)
    texts = {name.strip().strip('"'): pa.string() for name in header}
    options = pyarrow.csv.ConvertOptions(
        column_types=texts, strings_can_be_null=True, null_values=[""]
    )
    parsing = pyarrow.csv.ParseOptions(delimiter=delimiter)
    return pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=options)


def read_track_table(path: Path, root: Path) -> Corpus:
    """Read a list of tracks.

    Columns: `track_id` as `<identity>/<video>/<number>`; `video`, path below `root`; `identity`;
    `start` and `end` in seconds of the video, empty for its first and last frame; optionally
    `split`, and `boxes`, path of a VoxCeleb box file below `root`. Faces of a row without `boxes`
    are detected.

    Args:
        path: the list.
        root: folder of the corpus.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    corpus = Corpus(root)
    for number, row in enumerate(read_table(path, TRACK_COLUMNS), start=2):
        track_id, video = str(row["track_id"] or ""), str(row["video"] or "")
        try:
            corpus.add(_track(row, track_id, video))
        except TrackError as error:
            error.message = f"{path.name}, row {number}: {error.message}"
            shown = video if not _leaves_root(video) else Path(video).name
            corpus.drop(track_id or f"row-{number}", shown, error)
    return corpus


def _track(row: dict[str, Any], track_id: str, video: str) -> Track:
    key = parse_track_id(track_id)
    if key is None or key.identity_id != str(row["identity"]):
        message = f"track_id {printable(track_id)!r} is not <identity>/<video>/<number>"
        raise TrackError("plan", "BadName", message)
    boxes = str(row.get("boxes") or "") or None
    for name in (video, boxes):
        if name is not None and (not name or _leaves_root(name)):
            message = "video and boxes are paths below the corpus root"
            raise TrackError("plan", "BadPath", message)
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise TrackError("plan", "BadTime", f"start {start} and end {end} hold no time")
    return Track(
        key,
        video,
        FaceSource.BOXES if boxes else FaceSource.DETECT,
        boxes=boxes,
        start=start,
        end=end,
        split=row.get("split") or None,
    )


def _seconds(row: dict[str, Any], column: str) -> float | None:
    value = row[column]
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not 0 <= seconds < float("inf"):
        raise TrackError("plan", "BadTime", f"{column} {value!r} is not a time in seconds")
    return seconds


def _leaves_root(name: str) -> bool:
    return Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name
