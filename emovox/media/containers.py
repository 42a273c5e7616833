"""Media files as FFmpeg opens them, and the endings of their names."""

from pathlib import Path
from typing import Any

import av

# The tags of a file need not be UTF-8. PyAV 19 always reads them; earlier releases fail without
# this option.
TAGS = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}

_MEDIA = (
    "3g2 3gp amv asf avi divx dv f4v flv m2t m2ts m2v m4v mj2 mkv mod mov mp4 mpe mpeg mpg mts mxf "
    "nut ogm ogv ogx qt rm rmvb tod ts vob webm wmv"
)
_AUDIO = (
    "aac ac3 aif aifc aiff amr au caf eac3 flac m4a m4b mka mp2 mp3 oga ogg opus rf64 snd sph w64 "
    "wav wave weba wma wv"
)
# Endings of names, in lower case, of files that may hold pictures and of files of sound alone.
MEDIA_ENDINGS = frozenset(f".{name}" for name in _MEDIA.split())
AUDIO_ENDINGS = frozenset(f".{name}" for name in _AUDIO.split())


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
