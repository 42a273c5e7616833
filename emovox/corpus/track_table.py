"""Tables of users: lists of tracks and of splits, as CSV or Parquet."""

import contextlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from emovox.corpus.tracks import Corpus, FaceSource, Track
from emovox.dataset.store import read_rows
from emovox.errors import InputError, TrackError, first_line
from emovox.files import LFS_HINT, is_lfs_pointer, regular
from emovox.ids import is_below, parse_track_id, printable
from emovox.limits import MAX_TABLE, MAX_TEXT
from emovox.paths import as_path, local_copy

TRACK_COLUMNS = ("track_id", "video", "identity", "start", "end")
OPTIONAL_COLUMNS = ("split", "boxes")
MAX_SECONDS = 2**31 / 1000  # 24 days; `duration_ms` is an int32 column
MAX_SHOWN = 60  # characters of a wrong value


def read_table(
    name: str | os.PathLike[str], required: tuple[str, ...], hint: str = ""
) -> list[dict[str, str | None]]:
    """Read a CSV, TSV (header in the first line, UTF-8) or Parquet file as rows of text and None.

    Columns that are not text, such as lists, are left out.

    A name (path or URL) that ends in neither .parquet nor .tsv is CSV. `hint` is the end of the
    message for a missing file.

    Raises:
        InputError: the file is missing, cannot be parsed, or lacks a required column.
    """
    path = as_path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such file{hint}")
    suffix = path.suffix.lower()
    try:
        with local_copy(path) as local:
            if is_lfs_pointer(local):
                raise InputError(f"{path}: {LFS_HINT}")
            if regular(local).stat().st_size > MAX_TABLE:
                raise ValueError(f"has more than {MAX_TABLE:,} bytes")
            table = read_rows(local) if suffix == ".parquet" else _read_csv(local, suffix)
        names = table.column_names
        texts = {name: _as_text(column) for name, column in zip(names, table.columns, strict=True)}
    except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
        raise InputError(f"{path}: not readable as CSV or Parquet: {first_line(error)}") from error
    if missing := [c for c in required if c not in names]:
        raise InputError(f"{path}: missing columns {', '.join(missing)}; found {', '.join(names)}")
    for column in (*required, *OPTIONAL_COLUMNS):
        if names.count(column) > 1 or (column in names and texts[column] is None):
            raise InputError(f"{path}: expected one column {column}, of text or numbers")
    columns = {name: values for name, values in texts.items() if values is not None}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _as_text(column: pa.ChunkedArray) -> list[str | None] | None:
    """Return the values of a column as text; None for a column that has no text."""
    with contextlib.suppress(pa.ArrowNotImplementedError):  # lists and structs have no text
        if not pa.types.is_duration(column.type):  # would be numbers of any unit
            values: list[str | None] = column.cast(pa.string()).to_pylist()
            return values
    return None


def _read_csv(path: Path, suffix: str) -> pa.Table:
    delimiter = "\t" if suffix == ".tsv" else ","
    with path.open("rb") as file:
        header = file.readline(MAX_TEXT).decode("utf-8-sig").strip().split(delimiter)
    texts = {name.strip().strip('"'): pa.string() for name in header}
    options = pyarrow.csv.ConvertOptions(
        column_types=texts, strings_can_be_null=True, null_values=[""]
    )
    parsing = pyarrow.csv.ParseOptions(delimiter=delimiter)
    return pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=options)


def read_track_table(path: Path, corpus: Corpus) -> None:
    """Add the tracks of a list to a corpus.

    Columns: `track_id` as `<identity>/<video>/<number>`; `video`, path below the root; `identity`;
    `start` and `end` in seconds of the video, empty for its first and last frame; optionally
    `split`, and `boxes`, path of a VoxCeleb box file below the root. Faces of a row without `boxes`
    are detected.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    for number, row in enumerate(read_table(path, TRACK_COLUMNS), start=2):
        track_id, video = row["track_id"] or "", row["video"] or ""
        try:
            corpus.add(_track(row, track_id, video))
        except TrackError as error:
            error.message = f"{path.name}, row {number}: {error.message}"
            shown = video if is_below(video) else Path(video).name.partition("?")[0]
            corpus.drop(track_id or f"row-{number}", shown, error)


def _track(row: dict[str, str | None], track_id: str, video: str) -> Track:
    key = parse_track_id(track_id)
    if key is None or key.identity_id != row["identity"]:
        shown = printable(f"{track_id}, {row['identity']}")[:MAX_SHOWN]
        message = f"expected a track_id <identity>/<video>/<number> and its identity, found {shown}"
        raise TrackError("plan", "BadName", message)
    boxes = row.get("boxes") or None
    if not all(is_below(name) for name in (video, boxes) if name is not None):
        raise TrackError("plan", "BadPath", "video and boxes are paths below the corpus root")
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise TrackError("plan", "BadTime", f"start {start} and end {end} hold no time")
    faces = FaceSource.BOXES if boxes else FaceSource.DETECT
    return Track(key, video, faces, boxes, start, end, row.get("split") or None)


def _seconds(row: dict[str, str | None], column: str) -> float | None:
    value = (row[column] or "").strip()
    if not value:
        return None
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(value)) <= MAX_SECONDS:
            return seconds
    raise TrackError("plan", "BadTime", f"{column} {value[:MAX_SHOWN]!r} is not a time in seconds")
