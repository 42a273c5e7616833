"""Files that end before their header says, in the containers from which this can be told."""

import re
from pathlib import Path
from typing import BinaryIO

from emovox.files import regular

STREAMED = 0x7FFFFF00  # bytes; writers that do not know a 32-bit size give 0 or more than this
MAX_OGG_PAGE = 65_307  # bytes
SEGMENT = bytes.fromhex("18538067")  # of Matroska


def missing_end(path: Path) -> str:
    """Return how a file is cut short; empty if it is complete or this cannot be told.

    MP4 is left to its decoders, and what libsndfile reads to libsndfile.

    Raises:
        OSError: the file cannot be read.
    """
    with regular(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(1024)
        for pattern, find_end in FORMATS.items():
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


FORMATS = {
    rb"RIFF": _riff_end,
    rb"\x1a\x45\xdf\xa3": _matroska_end,
    rb"OggS": _ogg_end,
    rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa\xfb]": _mp3_end,
    rb"FLV": _flv_end,
    rb".{0,191}G": _ts_end,
}
