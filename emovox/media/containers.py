"""Media files as FFmpeg opens them, the same in every release of PyAV, and their logged errors."""

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import av

from emovox.files import regular
from emovox.limits import MAX_BOXES

# FFmpeg's names of the containers that are opened. Others may name files to read: playlists (HLS,
# DASH), ffconcat, SDP, VobSub, pictures by number, scripts.
CONTAINERS = (
    "mov mp4 m4a 3gp 3g2 mj2 matroska webm avi asf flv live_flv mpeg mpegts mpegvideo mxf nut ogg "
    "rm dv h264 hevc vvc m4v h263 vc1 ivf obu av1 yuv4mpegpipe "
    "wav w64 aiff au caf flac mp3 aac loas ac3 eac3 amr amrnb amrwb wv ape tta tak mpc mpc8 dts "
    "truehd nistsphere voc"
)
OWN_DATA_ONLY = {"format_whitelist": CONTAINERS.replace(" ", ","), "protocol_whitelist": "file"}
NESTING = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")  # of data references in MP4

FILES_OF_TRACK = 32  # open at the same time, at most

REFUSED = "not a container that emovox opens, or damaged; convert it to MP4 or WAV"
ELSEWHERE = "its pictures or sound are in other files; save it with its data"

# The tags of a file need not be UTF-8. PyAV 19 always reads them; earlier releases fail without
# this option.
TAGS = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


class ContainerError(OSError):
    """A file is not of a container that emovox opens, or refers to other files."""


def media_url(path: Path) -> str:
    """Return the name under which FFmpeg opens a local file, whatever characters it contains.

    Without the protocol, a name with a colon is read as a URL and one with a leading hyphen as an
    option.
    """
    return f"file:{path}"


def open_media(path: Path, **options: Any) -> "av.container.InputContainer":
    """Open a local media file for reading; `options` are further arguments of `av.open`.

    Raises:
        av.error.FFmpegError, OSError: the file cannot be opened.
        ContainerError: it is not one of `CONTAINERS`, or its data is in other files.
    """
    check_own_data(path)
    options["options"] = OWN_DATA_ONLY | options.get("options", {})
    try:
        return av.open(media_url(path), **TAGS, **options)
    except av.error.ArgumentError as error:  # of no value from here, so the container's
        raise ContainerError(errno.EINVAL, REFUSED) from error


def check_own_data(path: Path) -> None:
    """Raise ContainerError for a QuickTime or MP4 file whose pictures or sound are in other files.

    FFmpeg does not open those, but may decode what lies at the same places in this file.
    """
    with regular(path).open("rb", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if any(_places(file, 0, end, NESTING, iter(range(MAX_BOXES)))):
            raise ContainerError(errno.EINVAL, ELSEWHERE)


def can_open_files() -> bool:
    """Return True if this process can open as many files as a track needs."""
    with ExitStack() as files:
        try:
            for _ in range(FILES_OF_TRACK):
                files.enter_context(Path(os.devnull).open("rb"))
        except OSError:
            return False
    return True


def _places(
    file: IO[bytes], at: int, end: int, nesting: tuple[bytes, ...], budget: Iterator[int]
) -> Iterator[bool]:
    """Yield for each data reference if it leads to another file; reads at most `budget` boxes."""
    for _ in budget:
        if at + 8 > end:
            return
        file.seek(at)
        header = file.read(16)
        size, start = int.from_bytes(header[:4], "big"), 8
        if size == 1:
            size, start = int.from_bytes(header[8:], "big"), 16
        if 0 < size < start:
            return
        size = size or end - at
        if not nesting:
            yield size > 12 and not header[11] & 1  # the flag says: in this file
        elif header[4:8] == nesting[0]:
            start += 8 * (nesting[0] == b"dref")  # its version and number of entries
            yield from _places(file, at + start, min(at + size, end), nesting[1:], budget)
            if nesting is NESTING:  # fragments follow
                return
        at += size


# Errors in the log of FFmpeg's MP4 reader that healthy files cause as well: edit lists that begin
# between key frames.
HARMLESS = ("Missing key frame while searching", "Cannot find an index entry before")

_LogLine = tuple[int, str, str]  # level, component, message
_log_lock = threading.Lock()


@contextmanager
def error_log() -> Iterator[list[_LogLine]]:
    """Collect the errors that FFmpeg logs in this thread; some damage is reported only there.

    One thread at a time, since PyAV has one log level for all threads.
    """
    with _log_lock:
        level, skip_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(max(level or 0, av.logging.ERROR))
        av.logging.set_skip_repeated(False)
        try:
            with av.logging.Capture() as log:
                yield log
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skip_repeated)


def complaint(stream: "av.VideoStream", log: list[_LogLine]) -> str:
    """Return the first logged error of the container or of this stream; empty if none."""
    container = stream.container.format.name
    for level, name, message in log:
        if level <= av.logging.ERROR and concerns(name, message, container, stream.index):
            return message.strip()
    return ""


def concerns(name: str, message: str, container: str, stream: int | None) -> bool:
    """Return True if a component's error is one of the container or of this stream."""
    about = re.match(r"stream (\d+), ", message)
    ours = about is None or about[1] == str(stream)
    return ours and name in (container, "IMGUTILS") and not message.startswith(HARMLESS)
