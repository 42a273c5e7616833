"""The streams of a file that a player shows and plays, and the start of its sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
from av.stream import Disposition

from emovox.media.containers import open_media

STILL = Disposition.attached_pic | Disposition.timed_thumbnails


@dataclass(frozen=True)
class StreamInfo:
    """Properties of a stream that decide which one is used."""

    index: int  # number of the stream in the file
    is_default: bool  # the file marks it as the default
    can_decode: bool  # a decoder for it exists
    num_pixels: int = 0  # size of a picture; 0 for sound


def choose(streams: Sequence[StreamInfo], kind: str) -> tuple[int | None, list[str]]:
    """Choose a stream: one marked as default, then the largest, then the first.

    The streams are of one kind (`video` or `audio`, for the note), without attached pictures.
    Return the index of the stream, None if there are none; and a note if there are several.
    """
    if len(streams) < 2:
        return (streams[0].index if streams else None), []
    usable = [s for s in streams if s.can_decode] or streams
    marked = [s for s in usable if s.is_default] or usable
    largest = max(s.num_pixels for s in marked)
    best = [s for s in marked if s.num_pixels == largest]
    reason = "default" if len(marked) == 1 else "first" if len(best) > 1 else "largest"
    return best[0].index, [f"{len(streams)} {kind} streams; used the {reason} one"]


def choose_stream(
    container: "av.container.InputContainer", kind: Literal["video", "audio"]
) -> tuple[Any, list[str]]:
    """Return the stream of a kind to use, None if there are only attached pictures; and notes."""
    found = []
    for stream in getattr(container.streams, kind):
        if not stream.disposition & STILL:
            codec, is_default = stream.codec_context, bool(stream.disposition & Disposition.default)
            num_pixels = getattr(codec, "width", 0) * getattr(codec, "height", 0)
            found.append(StreamInfo(stream.index, is_default, codec is not None, num_pixels))
    index, notes = choose(found, kind)
    return (None if index is None else container.streams[index]), notes


def first_sound(path: Path, timeout: float | None = None) -> tuple[float | None, list[str]]:
    """Return the time of a file's first sample in seconds, None if it has none; and notes."""
    try:
        with open_media(path, timeout=timeout) as container:
            stream, notes = choose_stream(container, "audio")
            if stream is None or stream.codec_context is None:
                return None, notes
            frame = next(container.decode(stream), None)
            return (None if frame is None else frame.time), notes
    except (av.error.FFmpegError, OSError):
        return None, []


def edit_shift(path: Path) -> float:
    """Return by how many seconds FFmpeg shows the pictures of an edited MP4 file too early.

    Where an edit list begins between two frames, FFmpeg moves the pictures, but not the sound, so
    that the first whole frame is at the start of the edit.
    """
    with open_media(path, options={"advanced_editlist": "0"}) as container:
        stream, _ = choose_stream(container, "video")
        best: int | None = None
        for packet in container.demux(stream):
            if best is not None and (packet.dts is None or packet.dts >= best):
                return float(best * packet.time_base)
            if packet.pts is not None and packet.pts >= 0:
                best = packet.pts if best is None else min(best, packet.pts)
    return 0.0
