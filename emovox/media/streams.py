"""The streams of a file that a player shows and plays, the start of its sound, and its pictures.

Pictures are turned, mirrored and with square pixels. The filters are those of the ffmpeg program,
so that both decoders give the same pixels.
"""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.stream import Disposition

from emovox.media.containers import open_media

STILL = Disposition.attached_pic | Disposition.timed_thumbnails


def choose_stream(
    container: "av.container.InputContainer", kind: Literal["video", "audio"]
) -> tuple[Any, list[str]]:
    """Choose a stream: one marked as default, then the largest, then the first.

    Return None if there are only attached pictures; and a note if there are several streams.
    """
    streams = [s for s in getattr(container.streams, kind) if not s.disposition & STILL]
    if len(streams) < 2:
        return (streams[0] if streams else None), []
    usable = [s for s in streams if s.codec_context is not None] or streams
    marked = [s for s in usable if s.disposition & Disposition.default] or usable
    sizes = [getattr(s, "width", 0) * getattr(s, "height", 0) for s in marked]
    best = [s for s, size in zip(marked, sizes, strict=True) if size == max(sizes)]
    reason = "default" if len(marked) == 1 else "first" if len(best) > 1 else "largest"
    return best[0], [f"{len(streams)} {kind} streams; used the {reason} one"]


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


MAX_ASPECT = 4  # width to height of a pixel; a header that gives more, or less than 1/4, is wrong

# Arguments of the filter `scale` of the ffmpeg program, for pictures that it has turned already.
SQUARE_PIXELS = f"if(between(sar,1/{MAX_ASPECT},{MAX_ASPECT}),trunc(iw*sar),iw)"


def filters(
    width: int, height: int, aspect: Fraction | None, matrix: tuple[int, ...] | None
) -> list[tuple[str, str]]:
    """Return the filters that display a picture, as `(name, arguments)`; none for a plain one.

    Width and height are in pixels, as stored; `aspect` is width to height of a stored pixel, None
    or 0 if unknown; `matrix` is the display matrix, nine integers, None for the identity.
    """
    chain = []
    if matrix is not None:  # x' = a x + c y, y' = b x + d y
        a, b, _, c, d, *_ = matrix
        if abs(b) + abs(c) > abs(a) + abs(d):
            turn = {(0, 0): "cclock_flip", (0, 1): "clock", (1, 0): "cclock", (1, 1): "clock_flip"}
            chain.append(("transpose", turn[int(b < 0), int(c < 0)]))
            width, height, aspect = height, width, 1 / aspect if aspect else None
        else:
            chain += [("hflip", "")] * (a < 0) + [("vflip", "")] * (d < 0)
    if aspect and 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        scaled = int(width * (aspect.numerator / aspect.denominator))
        if scaled != width:
            chain += [("scale", f"{scaled}:{height}:flags=bilinear"), ("format", "rgb24")]
    return chain


class Display:
    """Converter of the decoded frames of one video to pictures uint8 `[H, W, 3]` RGB."""

    def __init__(self) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._graph: tuple[object, av.filter.Graph] | None = None

    def __call__(self, frame: "av.VideoFrame", aspect: Fraction | None) -> np.ndarray:
        """Return a frame as displayed; `aspect` is the width to height of its stored pixels."""
        side = frame.side_data.get(Type.DISPLAYMATRIX)
        matrix = None if side is None else struct.unpack("9i", bytes(side))
        if chain := filters(frame.width, frame.height, aspect, matrix):
            frame = self._filtered(frame, chain)
        return np.ascontiguousarray(self._reformatter.reformat(frame, format="rgb24").to_ndarray())

    def _filtered(self, frame: "av.VideoFrame", chain: list[tuple[str, str]]) -> "av.VideoFrame":
        source = (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:"
            f"colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
        )
        key = (source, tuple(chain))
        if self._graph is None or self._graph[0] != key:
            graph = av.filter.Graph()
            nodes = [graph.add("buffer", source), *(graph.add(*step) for step in chain)]
            graph.link_nodes(*nodes, graph.add("buffersink")).configure()
            self._graph = key, graph
        graph = self._graph[1]
        graph.vpush(frame)
        return graph.vpull()
