"""Identities, videos and tracks by name, and text that is safe to write and to print."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from emovox.errors import InputError, TrackError
from emovox.limits import MAX_NAME

MAX_TRACK_NUMBER = 2**31 - 1  # `track_num` is an int32 column
TRACK_ID = re.compile(r"([^/]+)/([^/]+)/([0-9]{1,400})")  # int() refuses thousands of digits
# Characters that control a terminal, end a line or reverse the direction of text; halves of pairs.
CONTROL = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
# A slash that begins a path: not in a word, a URL or a tag, and not an array of an HDF5 file.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~<>*\\-])(?:~?/(?!frames/|tracks/)[\w.-]+/[\w./-]*|[A-Za-z]:\\[\w.\\-]+)|file://\S*"
)


@dataclass(frozen=True, slots=True)
class TrackKey:
    """Name of one speaking-face utterance."""

    identity_id: str  # the person who speaks; in a released dataset never a name
    video_id: str  # the video that the track was cut from
    track_num: int  # within the video

    @property
    def track_id(self) -> str:
        """`<identity>/<video>/<number>`, the number with five digits or more.

        Example:
            >>> TrackKey("id10001", "Y8hIVOBuels", 1).track_id
            'id10001/Y8hIVOBuels/00001'
        """
        return f"{self.identity_id}/{self.video_id}/{self.track_num:05d}"

    def check(self) -> None:
        """Check that the key can be written into the tables.

        Raises:
            TrackError: a name is empty, `.` or `..`, not UTF-8, or has a slash or a control
                character; or the number does not fit into its column.
        """
        for name in (self.identity_id, self.video_id):
            if not is_name(name) or printable(name) != name or len(name) > MAX_NAME:
                shown = repr(printable(name)[:MAX_NAME])
                message = (
                    f"{shown} is not valid as an identity or a video: empty, '..', not UTF-8, over "
                    f"{MAX_NAME} characters, or contains a slash or a control character"
                )
                raise TrackError("plan", "BadName", message)
        if not 0 <= self.track_num <= MAX_TRACK_NUMBER:
            message = f"track number {self.track_num} is not between 0 and {MAX_TRACK_NUMBER}"
            raise TrackError("plan", "BadName", message)


def parse_track_id(track_id: str) -> TrackKey | None:
    """Return the key of a `track_id`, with any number of digits; None for another form."""
    match = TRACK_ID.fullmatch(track_id)
    return TrackKey(match[1], match[2], int(match[3])) if match else None


def is_below(path: str) -> bool:
    """Return True if a path that comes from data stays below the folder that it is joined to.

    Symbolic links count as what they are called. A backslash separates folders, as on Windows.
    """
    try:
        is_plain = b"\0" not in os.fsencode(path) and "://" not in path
    except UnicodeEncodeError:
        return False
    parts = re.split(r"[/\\]", path)
    return is_plain and parts[0] != "" and ".." not in parts and not Path(path).anchor


def is_name(name: str) -> bool:
    """Return True if a name that comes from data can be that of one file or folder."""
    return is_below(name) and "/" not in name and name != "."


def printable(name: str) -> str:
    r"""Escape control characters and what UTF-8 cannot hold: `a\udcff` becomes `a\\udcff`."""
    return re.sub(CONTROL, lambda c: _escape(c[0]).replace(r"\u00", r"\x"), name)


def printable_text(text: str, *, has_commands: bool = False) -> str:
    """Escape control characters and, unless intended, commands of CI systems; JSON stays JSON."""
    text = re.sub(CONTROL, lambda c: c[0] if c[0] in "\n\t" else _escape(c[0]), text)
    text = re.sub(r"#(?=#\w*\[)", r"\\u0023", text)  # such as ##[error]
    return text if has_commands else re.sub(r"(?m)^(\s*):(?=:)", r"\1\\u003a", text)


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}"


def check_printable(path: object, option: str) -> None:
    """Check the name of a folder to write, passed as `option`: Arrow opens only names in UTF-8.

    Raises:
        InputError: its name is not UTF-8, or contains a control character.
    """
    shown = printable(str(path))
    if shown != str(path):
        raise InputError(
            f"{shown}: the name is not UTF-8 or contains a control character; pass another {option}"
        )
