"""Media files as FFmpeg opens them, the same in every release of PyAV."""

from pathlib import Path
from typing import Any

import av

# The tags of a file need not be UTF-8. PyAV 19 always reads them; earlier releases fail without
# this option.
TAGS = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


def media_url(path: Path) -> str:
    """Return the name under which FFmpeg opens a local file, whatever characters it contains.

    Without the protocol, a name with a colon is read as a URL and one with a leading hyphen as an
    option.
    """
    return f"file:{path}"


def open_media(path: Path, **options: Any) -> "av.container.InputContainer":
    """Open a media file for reading.

    Args:
        path: a local file.
        options: further arguments of `av.open`.

    Raises:
        av.error.FFmpegError, OSError: the file cannot be opened.
    """
    return av.open(media_url(path), **TAGS, **options)
