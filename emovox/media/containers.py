"""Media files as FFmpeg opens them, alike in every release of PyAV."""

from pathlib import Path
from typing import Any

import av

# Tags of a file need not be UTF-8. PyAV 19 always reads them; earlier releases raise an error
# unless they are told not to.
TAGS = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


def open_media(path: Path, **options: Any) -> "av.container.InputContainer":
    """Open a media file for reading.

    Args:
        path: of a local file.
        options: of `av.open`.

    Raises:
        av.error.FFmpegError, OSError: it cannot be opened.
    """
    return av.open(str(path), **TAGS, **options)
