"""Faces and sound of a few tracks, small enough to be put into a page."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from emovox.corpus.layouts import LAYOUTS, Source, read_corpus
from emovox.corpus.sound_files import audio_path
from emovox.corpus.tracks import FaceSource, Track
from emovox.corpus.voxceleb import read_boxes
from emovox.dataset import schema
from emovox.dataset.reader import Dataset
from emovox.errors import EmovoxError, InputError, TrackError
from emovox.ids import TrackKey
from emovox.media import faces
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.media.images import ImageTrack
from emovox.media.video import Deadline, VideoTrack
from emovox.reporting.sample import Shown

SOUND_SECONDS = 60.0  # of a track at most
SIDE = 144  # pixels of a face
JPEG_QUALITY = 80
TIMEOUT = 60.0  # seconds that one track may take
THREADS = 2
ALONG = 5  # faces of a track beside those of its peaks, evenly in time
# Encoders that browsers play without exception, the smaller first; not every FFmpeg has the first.
SOUNDS = (("libmp3lame", "mp3", "audio/mpeg"), ("flac", "flac", "audio/flac"))
BIT_RATE = 32_000


@dataclass(frozen=True)
class Media:
    """What of a track can be seen and heard.

    Attributes:
        sound: as a data URI; None where there is none.
        pictures: faces as data URIs, by frame index.
        problems: what could not be had, and why, without paths.
    """

    sound: str | None
    pictures: Mapping[int, str]
    problems: tuple[str, ...]

    def pack(self) -> dict[str, Any]:
        """As JSON of the page."""
        return {"sound": self.sound, "pictures": {str(k): v for k, v in self.pictures.items()}}


def collect_media(dataset: Dataset, tracks: Sequence[Shown], root: Path) -> list[Media]:
    """Sound and peak frames of tracks, from the folder of their corpus.

    Raises:
        InputError: no such folder, or nothing of any track in it; or the table of faces is damaged.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --media is the folder of the corpus")
    boxes = _read_boxes(dataset, [track.track_id for track in tracks])
    sources = _find_sources(dataset, tracks, root)

    def collect(track: Shown) -> Media:
        source = sources.get(track.track_id)
        sound, silent = _sound(track, source, root)
        pictures, unseen = _pictures(dataset, track, source, root, boxes)
        return Media(sound, pictures, (*silent, *unseen))

    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(collect, tracks)
        media = list(tqdm(found, total=len(tracks), desc="media", unit="track", disable=None))
    if media and not any(each.sound or each.pictures for each in media):
        raise InputError(f"{root}: no sound or picture of any track; --media is the corpus folder")
    return media


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def encode_sound(samples: np.ndarray) -> str:
    """Mono samples `[L]` at 16 kHz as a data URI that browsers play."""
    codec, container_format, kind = next(s for s in SOUNDS if s[0] in av.codecs_available)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        if codec != "flac":
            stream.bit_rate = BIT_RATE
        form = stream.codec_context.format.name
        floats = np.clip(samples, -1, 1).astype(np.float32)[None]
        values = floats if form == "fltp" else (floats * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            values, format=form if form == "fltp" else "s16", layout="mono"
        )
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data_uri(buffer.getvalue(), kind)


def encode_face(image: np.ndarray) -> str:
    """A square face uint8 `[S, S, 3]` RGB as a data URI of a small JPEG."""
    small = faces.resize(np.ascontiguousarray(image), SIDE)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data_uri(data.tobytes(), "image/jpeg")


def picture_frames(track: Shown) -> set[int]:
    """Frame indices of a track whose faces are shown: its peaks, and some along the way."""
    rows = np.linspace(0, len(track.frame_index) - 1, ALONG).round().astype(int)
    return {peak.frame_index for peak in track.peaks} | set(track.frame_index[rows].tolist())


def _find_sources(dataset: Dataset, tracks: Sequence[Shown], root: Path) -> dict[str, Track]:
    """Where the pictures of tracks are, by the layout that the dataset was built from."""
    wanted = {track.track_id for track in tracks}
    found: dict[str, Track] = {}
    for track in tracks:
        for part in ("", "mp4/", "dev/mp4/", "test/mp4/", "dev/", "test/"):
            name = f"{part}{track.track_id}.mp4"
            if ".." not in name.split("/") and (root / name).is_file():
                identity, video, number = track.track_id.split("/")
                key = TrackKey(identity, video, int(number))
                found[track.track_id] = Track(key, name, FaceSource.VOXCELEB2)
                break
    layout = _layout(dataset.path / schema.PROVENANCE)
    if layout and layout != "table" and wanted - set(found):
        try:
            corpus = read_corpus(layout, Source(root))
        except EmovoxError:
            return found  # another tree than it was built from; there may be sound in it
        found |= {track.track_id: track for track in corpus.tracks if track.track_id in wanted}
    return {track_id: _timed(track, root) for track_id, track in found.items()}


def _layout(provenance: Path) -> str | None:
    try:
        layout = json.loads(provenance.read_text(encoding="utf-8"))["config"]["layout"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return layout if layout in LAYOUTS else None


def _timed(track: Track, root: Path) -> Track:
    """With the start and end that its box file gives."""
    if track.boxes is None:
        return track
    try:
        boxes = read_boxes(root / track.boxes, track.boxes)
    except TrackError:
        return track
    start = boxes.start if track.start is None else track.start
    return replace(track, start=start, end=boxes.end if track.end is None else track.end)


def _sound(track: Shown, source: Track | None, root: Path) -> tuple[str | None, tuple[str, ...]]:
    try:
        path, start = audio_path(root, track.track_id, missing_ok=True), 0.0
        if path is None and source is not None and source.faces is not FaceSource.DENSE:
            path, start = root / source.source, source.start or 0.0
        if path is None:
            return None, ("no file with its sound",)
        length = SOUND_SECONDS if track.duration is None else min(track.duration, SOUND_SECONDS)
        samples = read_audio(path, start, length)
    except InputError:
        return None, ("its sound cannot be read",)  # the message has paths in it
    if not len(samples):
        return None, ("its sound is empty",)
    return encode_sound(samples), ()


def _pictures(
    dataset: Dataset,
    track: Shown,
    source: Track | None,
    root: Path,
    boxes: Mapping[tuple[str, int], faces.Box] | None,
) -> tuple[dict[int, str], tuple[str, ...]]:
    wanted = picture_frames(track)
    if boxes is None:
        return {}, ()
    if source is None:
        return {}, ("no file with its pictures",)
    deadline = Deadline(TIMEOUT)
    place = root / source.source
    frames = (
        ImageTrack(place, dataset.step, deadline)
        if source.faces is FaceSource.DENSE
        else VideoTrack(place, dataset.step, source.start, source.end, deadline)
    )
    found: dict[int, str] = {}
    try:
        for frame in frames:
            box = boxes.get((track.track_id, frame.index))
            if frame.index in wanted and box is not None:
                found[frame.index] = encode_face(faces.cut(frame.image, faces.square(box)))
            if frame.index >= max(wanted, default=0):
                break
    except TrackError as error:
        return found, (f"its pictures: {error.error}",)
    return found, ()


def _read_boxes(
    dataset: Dataset, track_ids: Sequence[str]
) -> dict[tuple[str, int], faces.Box] | None:
    """Boxes of tracks by track and frame; None for a dataset without the table of faces."""
    columns = ["track_id", "frame_index", *(f"box_{side}" for side in "xywh")]
    found: dict[tuple[str, int], faces.Box] = {}
    files = [dataset.path / schema.table_file("faces", split) for split in dataset.splits]
    if not any(file.is_file() for file in files):
        return None
    for file in files:
        try:
            table = pq.read_table(
                file, columns=columns, filters=[("track_id", "in", list(track_ids))]
            )
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{file}: cannot be read ({type(error).__name__})") from error
        rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
        found |= {(track_id, index): faces.Box(*box) for track_id, index, *box in rows}
    return found
