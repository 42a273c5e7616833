"""VoxCeleb's own files: names and ids, face boxes, and the published lists of splits."""

import csv
import io
import math
import os
import re
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emovox.errors import InputError, TrackError, first_line
from emovox.files import LFS_HINT, LFS_POINTER, cache_folder, read_text
from emovox.ids import TrackKey, is_name
from emovox.paths import as_path, error_name

if TYPE_CHECKING:
    import numpy as np

FRAMES_PER_SECOND = 25  # of the frame numbers in box files
MAX_BOX_GAP = 25  # frames; boxes further apart are not interpolated
MAX_FRAME = 2**31 - 1  # larger frame numbers are treated as damage
END_SLACK = 3  # frames, half a step of 0.24 s, that the first and last boxes extend

IDENTITY = re.compile(r"id\d{5}")
META = "vox1_meta.csv"
META2 = "vox2_meta.csv"  # of VoxCeleb2; `emovox download splits vox2_meta.csv`
SETS_LIST = "identity_splits.txt"
VOICES_LIST = "veriflist_test_random_seenheard.txt"
LISTS = (META, SETS_LIST, VOICES_LIST)  # of the official split; `emovox download splits`


@dataclass(frozen=True)
class Boxes:
    """Face boxes of one track."""

    frames: "np.ndarray"  # int64 `[n]`, increasing; frame numbers at 25 fps
    xywh: "np.ndarray"  # float64 `[n, 4]`: left, top, width, height
    are_fractions: bool  # True for fractions of the frame's width and height, False for pixels
    bad_lines: tuple[int, ...] = ()  # numbers of unreadable lines

    @property
    def start(self) -> float:
        """Time of the first box in seconds of the video."""
        return float(self.frames[0]) / FRAMES_PER_SECOND

    @property
    def end(self) -> float:
        """Time of the last box in seconds of the video."""
        return float(self.frames[-1]) / FRAMES_PER_SECOND

    def at(self, time: float, width: int, height: int) -> tuple[float, float, float, float] | None:
        """Return the box in pixels at `time` seconds, interpolated between its neighbours.

        Return None in a gap of more than a second, and more than half a grid step before the first
        box or after the last one.
        """
        frame = round(time * FRAMES_PER_SECOND, 6)  # times of frames are not exact in binary
        first, last = self.frames[0], self.frames[-1]
        if not first - END_SLACK <= frame <= last + END_SLACK:
            return None
        frame = min(max(frame, first), last)
        after = bisect_left(self.frames, frame)
        before = after if self.frames[after] == frame else after - 1
        gap = self.frames[after] - self.frames[before]
        if gap > MAX_BOX_GAP:
            return None
        weight = (frame - self.frames[before]) / gap if gap else 0.0
        x, y, w, h = (1 - weight) * self.xywh[before] + weight * self.xywh[after]
        if self.are_fractions:
            x, y, w, h = x * width, y * height, w * width, h * height
        return float(x), float(y), float(w), float(h)


def read_boxes(path: Path, name: str) -> Boxes:
    """Read a VoxCeleb box file, VoxCeleb1 (pixels) or VoxCeleb2 (fractions).

    Unreadable rows are skipped and listed in `bad_lines`; the boxes around them are interpolated.

    Raises:
        TrackError: the file is missing, unreadable, or has no usable row.
    """
    try:
        lines = read_text(path, encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise TrackError("boxes", error_name(error, path), f"{name}: {error.strerror}") from error
    if lines and lines[0].startswith(LFS_POINTER):
        raise TrackError("boxes", "GitLfsPointer", f"{name}: {LFS_HINT}")
    import numpy as np

    rows: dict[int, list[float]] = {}
    bad_lines, body = [], 0
    for number, line in enumerate(lines, start=1):
        if line.startswith("FRAME"):
            body = number
        elif body and line.strip():
            if row := _box_row(line):
                rows[row[0]] = row[1]
            else:
                bad_lines.append(number)
    if not rows:
        why = f"no readable row after line {body}" if body else "no line starting with FRAME"
        raise TrackError("boxes", "NoBoxes", f"{name}: {why}; expected FRAME X Y W H")
    frames = np.array(sorted(rows))
    xywh = np.array([rows[f] for f in frames])
    # No face has 4 pixels or less. The median tolerates single odd rows.
    are_fractions = bool(np.median(xywh[:, 2:]) <= 4)
    return Boxes(frames, xywh, are_fractions, tuple(bad_lines))


def _box_row(line: str) -> tuple[int, list[float]] | None:
    number, *fields = line.split()
    try:
        frame, box = int(number), list(map(float, fields))
    except ValueError:
        return None
    is_box = len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) > 0
    return (frame, box) if is_box and 0 <= frame <= MAX_FRAME else None


def lists_folder(meta: Path | None, root: Path, name: str = META) -> Path:
    """Return the folder of the list `name` and the other official lists.

    `meta` if given, else `root` if it contains them, else the folder of `emovox download splits`.
    """
    fetched = cache_folder() / "splits"
    if meta is not None or (root / name).is_file() or not (fetched / name).is_file():
        return meta or root
    return fetched


def read_names(folder: Path) -> dict[str, str]:
    """Map names of VoxCeleb1 to ids, from vox1_meta.csv in `folder`.

    Five names end in a dot that some copies of the corpus omit: both spellings are keys.

    Raises:
        InputError: the file is missing, has other columns, or a name is not that of a folder.
    """
    names = {}
    for row in read_meta(folder / META, "VoxCeleb1 ID", "VGGFace1 ID"):
        identity, name = row["VoxCeleb1 ID"], row["VGGFace1 ID"]
        if not is_name(identity) or not is_name(name):
            raise InputError(f"{folder / META}: {identity!r}, {name!r}: not names of folders")
        names[name] = identity
        names.setdefault(name.rstrip("."), identity)
    return names


def read_people(folder: Path) -> list[dict[str, str]]:
    """Return `identity_id`, `gender` (m or f) and `nationality` of everyone in vox1_meta.csv.

    Raises:
        InputError: the file is missing or has other columns.
    """
    columns = {"identity_id": "VoxCeleb1 ID", "gender": "Gender", "nationality": "Nationality"}
    rows = read_meta(folder / META, *columns.values())
    return [{name: row[column] for name, column in columns.items()} for row in rows]


def read_meta(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of vox1_meta.csv or vox2_meta.csv; InputError if it lacks a column."""
    header = _read_text(path).partition("\n")[0]
    delimiter = "\t" if "\t" in header else ","  # a copy that was saved again
    return _read_csv(path, delimiter, columns)


def _read_csv(path: Path, delimiter: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    lines = csv.reader(io.StringIO(_read_text(path)), delimiter=delimiter)
    header = [field.strip() for field in next(lines, [])]
    if missing := [c for c in columns if c not in header]:
        raise InputError(f"{path}: missing columns {', '.join(missing)}; found {', '.join(header)}")
    rows = []
    for fields in lines:
        row = dict(zip(header, (field.strip() for field in fields), strict=False))
        if all(row.get(column) for column in columns):
            rows.append(row)
        elif any(row.values()):
            where = f"{path}: line {lines.line_num}"
            raise InputError(f"{where}: empty value; needs {', '.join(columns)}")
    return rows


@dataclass(frozen=True)
class OfficialSplit:
    """The published split of EmoVoxCeleb, in VoxCeleb1 ids."""

    identities: frozenset[str]  # every identity in the lists
    unheard_identities: frozenset[str]  # those whose tracks are all `unheard_val`
    heard_tracks: frozenset[str]  # those of `heard_val`; all others of the lists are `train`


def read_official_split(folder: str | os.PathLike[str]) -> OfficialSplit:
    """Read identity_splits.txt, veriflist_test_random_seenheard.txt and vox1_meta.csv.

    Identities of sets 1 and 2 are heard, those of set 4 unheard; the voices in the list of seen
    and heard pairs are `heard_val` (Nagrani, Albanie and Zisserman, "Learnable PINs", 2018).

    Raises:
        InputError: a list is missing or malformed, or contains a name that vox1_meta.csv lacks.

    Example:
        >>> lists = read_official_split("lists")  # as `emovox download splits` has them
        >>> len(lists.identities), len(lists.unheard_identities), len(lists.heard_tracks)
        (1251, 250, 4505)
    """
    folder = as_path(folder)
    names = read_names(folder)
    heard, unheard = set(), set()
    lines = filter(str.strip, _read_text(folder / SETS_LIST).splitlines())
    for number, line in enumerate(lines, start=1):
        match line.split():
            case [name, ("1" | "2")] if name in names:
                heard.add(names[name])
            case [name, "4"] if name in names:
                unheard.add(names[name])
            case _:
                raise InputError(
                    f"{folder / SETS_LIST}: line {number}: expected a name of vox1_meta.csv and "
                    f"a set 1, 2 or 4, found {line!r}"
                )
    tracks = set()
    for row in _read_csv(folder / VOICES_LIST, ",", ("voice-path",)):
        voice = re.fullmatch(r"([^/]+)/(.+)_(\d+)\.wav", row["voice-path"])
        if voice is None or voice[1] not in names:
            raise InputError(f"{folder / VOICES_LIST}: unknown voice {row['voice-path']!r}")
        tracks.add(TrackKey(names[voice[1]], voice[2], int(voice[3])).track_id)
    return OfficialSplit(frozenset(heard | unheard), frozenset(unheard), frozenset(tracks))


def _read_text(path: Path) -> str:
    try:
        text = read_text(path, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); pass the folder of the lists as "
            f"--meta, or run `emovox download splits{f' {META2}' if path.name == META2 else ''}`"
        ) from error
    if text.startswith(LFS_POINTER):
        raise InputError(f"{path}: {LFS_HINT}")
    return text
