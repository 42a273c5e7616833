"""Errors that FFmpeg logs while it opens a file; some damage is reported only there."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import av

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
