"""Media files as FFmpeg opens them, its logged errors, and files that end too early."""

import errno
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import av

from emovox.files import regular

# FFmpeg's names of the containers that are opened. Others may name files to read: playlists (HLS,
# DASH), ffconcat, SDP, VobSub, pictures by number, scripts.
CONTAINERS = (
    "mov mp4 m4a 3gp 3g2 mj2 matroska webm avi asf flv live_flv mpeg mpegts mpegvideo mxf nut ogg "
    "rm dv h264 hevc vvc m4v h263 vc1 ivf obu av1 yuv4mpegpipe "
    "wav w64 aiff au caf flac mp3 aac loas ac3 eac3 amr amrnb amrwb wv ape tta tak mpc mpc8 dts "
    "truehd nistsphere voc"
)
OWN_DATA_ONLY = {"format_whitelist": CONTAINERS.replace(" ", ","), "protocol_whitelist": "file"}

REFUSED = "not a container that emovox opens, or damaged; convert it to MP4 or WAV"

# The tags of a file need not be UTF-8. PyAV 19 always reads them; earlier releases fail without
# this option.
TAGS = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


class ContainerError(OSError):
    """A file is not of a container that emovox opens."""


def media_url(path: Path) -> str:
    """Return the name under which FFmpeg opens a local file, whatever characters it contains.

    Without the protocol, a name with a colon is read as a URL and one with a leading hyphen as an
    option.
    """
    return f"file:{path}"


def open_media(path: Path, **options: Any) -> "av.container.InputContainer":
    """Open a local media file for reading; `options` are further arguments of `av.open`.

    FFmpeg does not follow the data references of MP4 and MOV: it reads this file alone.

    Raises:
        av.error.FFmpegError, OSError: the file cannot be opened.
        ContainerError: it is not one of `CONTAINERS`.
    """
    options["options"] = OWN_DATA_ONLY | options.get("options", {})
    try:
        return av.open(media_url(regular(path)), **TAGS, **options)
    except av.error.ArgumentError as error:  # of no value from here, so the container's
        raise ContainerError(errno.EINVAL, REFUSED) from error


def read_packets(container: "av.container.InputContainer", *streams: Any) -> Iterator[av.Packet]:
    """Yield the packets of some streams as `container.demux`, which fails in some files.

    That is after the last packet, if one more stream began in the middle of the file.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


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
    for level, name, message in log:
        about = re.match(r"stream (\d+), ", message)
        ours = about is None or about[1] == str(stream.index)
        known = name in (stream.container.format.name, "IMGUTILS")
        if level <= av.logging.ERROR and ours and known and not message.startswith(HARMLESS):
            return message.strip()
    return ""


STREAMED = 0x7FFFFF00  # bytes; writers that do not know a 32-bit size give 0 or more than this
MAX_OGG_PAGE = 65_307  # bytes
SEGMENT = bytes.fromhex("18538067")  # of Matroska


def missing_end(path: Path, *, with_mp4: bool = False) -> str:
    """Return how a file is cut short; empty if it is complete or this cannot be told.

    MP4 is left to its decoders unless `with_mp4`, and what libsndfile reads to libsndfile.

    Raises:
        OSError: the file cannot be read.
    """
    with regular(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(1024)
        if not size:
            return "empty"
        for pattern, find_end in ((MP4 if with_mp4 else {}) | FORMATS).items():
            if re.match(pattern, head, re.DOTALL):
                try:
                    end = find_end(file, head, size)
                except IndexError:  # the header itself is incomplete
                    return ""
                return f"cut short: {end - size:,} bytes are missing" if end > size else ""
    return ""


def _riff_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Return the end of the lists of an AVI, or of a WAV that libsndfile does not read."""
    at, limit = 0, STREAMED if head[8:12] == b"WAVE" else 0xFFFFFF00
    while at < size:  # a large AVI has several lists
        file.seek(at)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or not 0 < length < limit:
            return 0
        at += 8 + length + length % 2
    return at - 9  # some writers count the header, some leave out the last byte


def _matroska_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Return the end of the segment, or of the last cluster in a segment of unknown size."""
    at = head.index(SEGMENT) if SEGMENT in head else size
    while at < size:
        file.seek(at)
        header = file.read(12)
        id_bytes = 9 - header[0].bit_length()
        start = id_bytes + 9 - header[id_bytes].bit_length()
        unknown = (1 << 7 * (start - id_bytes)) - 1
        length = int.from_bytes(header[id_bytes:start], "big") & unknown
        if start > len(header) or (length == unknown and header[:4] != SEGMENT):
            return 0
        at += start + (0 if length == unknown else length)
    return at


def _ogg_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Return the end of the last page, or more if the page that ends the stream is missing."""
    file.seek(max(0, size - 2 * MAX_OGG_PAGE))
    page = file.read()
    page = page[max(0, page.rfind(b"OggS\0")) :]
    if len(page) < 27 + page[26]:
        return size + 1
    end = size - len(page) + 27 + page[26] + sum(page[27 : 27 + page[26]])
    return end if page[5] & 4 else max(end, size + 1)


def _mp3_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Return the end by the Xing, Info or VBRI header of the first frame."""
    start = 0
    if head[:3] == b"ID3":
        start = 10 + sum(digit << 7 * (3 - i) for i, digit in enumerate(head[6:10]))
    file.seek(start)
    frame = file.read(1024)
    found = re.search(rb"\xff[\xe0-\xff].{2,60}?(Xing|Info|VBRI)", frame, re.DOTALL)
    if found is None:
        return 0
    place = found.end() + 6  # of the number of bytes
    if found[1] != b"VBRI":
        flags = frame[found.end() + 3]
        place = found.end() + 4 + 4 * (flags & 1)
        if not flags & 2:
            return 0
    return start + found.start() + int.from_bytes(frame[place : place + 4], "big")


def _flv_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Return more than the size unless the file ends with the size of a whole tag."""
    first = 13 + 11 + int.from_bytes(head[14:17], "big")
    file.seek(first)
    if int.from_bytes(file.read(4), "big") != first - 13:
        return first + 4  # the writer does not give the sizes, or the first tag is incomplete
    file.seek(size - 4)
    tag = int.from_bytes(file.read(4), "big")
    file.seek(max(0, size - 4 - tag))
    return size + int(int.from_bytes(file.read(4)[1:], "big") != tag - 11)


def _ts_end(file: BinaryIO, head: bytes, size: int) -> int:
    start = head.index(b"G")
    packet = 192 if head[start + 192 : start + 577 : 192] == b"GGG" else 188
    is_stream = head[start + packet : start + 3 * packet + 1 : packet] == b"GGG"
    return size + (start - 4 * (packet == 192) - size) % packet if is_stream else 0


def _mp4_end(file: BinaryIO, head: bytes, size: int) -> int:
    """Return the end of the last box, or more than the size if the index is missing."""
    at, kinds = 0, set()
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[8:] if header[:4] == b"\0\0\0\1" else header[:4], "big")
        kinds.add(header[4:8])
        at = at + length if length >= 8 else size  # the last box may give no length
    return at if b"moov" in kinds else max(at, size + 1)


MP4 = {rb".{4}(ftyp|moov|mdat|free|skip|wide)": _mp4_end}
FORMATS = {
    rb"RIFF": _riff_end,
    rb"\x1a\x45\xdf\xa3": _matroska_end,
    rb"OggS": _ogg_end,
    rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa\xfb]": _mp3_end,
    rb"FLV": _flv_end,
    rb".{0,191}G": _ts_end,
}
