"""Faces and sound of a few tracks, small enough for a page."""

import base64
import io
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

from emovox.corpus.layouts import LAYOUTS, read_corpus
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
from emovox.reporting.track_sample import ReportTrack

SOUND_SECONDS = 60.0  # most of one track
SIDE = 144  # pixels of a face
JPEG_QUALITY = 80
TIMEOUT = 60.0  # seconds per track
THREADS = 2
NUM_EVEN_FACES = 5  # faces at even distances in a track, in addition to those of its peaks
# Encoders whose sound all browsers play, the smaller first; some FFmpegs lack the first.
SOUNDS = (("libmp3lame", "mp3", "audio/mpeg"), ("flac", "flac", "audio/flac"))
BIT_RATE = 32_000
VIDEO_FOLDERS = ("", "mp4/", "dev/mp4/", "test/mp4/", "dev/", "test/")  # of VoxCeleb2

Boxes = Mapping[tuple[str, int], faces.Box]


@dataclass(frozen=True)
class TrackMedia:
    """Sound and faces of a track.

    Attributes:
        sound: data URI; None if it is unavailable.
        pictures: faces as data URIs, by frame index.
        problems: reasons for unavailable media, without paths.
    """

    sound: str | None
    pictures: Mapping[int, str]
    problems: tuple[str, ...]

    def pack(self) -> dict[str, Any]:
        """Return the media as JSON values of the page."""
        return {"sound": self.sound, "pictures": {str(k): v for k, v in self.pictures.items()}}


def collect_media(
    dataset: Dataset, provenance: Mapping[str, Any], tracks: Sequence[ReportTrack], root: Path
) -> list[TrackMedia]:
    """Read the sound and some faces of tracks from their corpus.

    Args:
        dataset: the dataset of the tracks.
        provenance: content of its provenance.json, with the layout of the corpus.
        tracks: tracks to read.
        root: folder of the corpus.

    Raises:
        InputError: the folder is missing or has no media of any track, or the table of faces is
            damaged.
    """
    if not root.is_dir():
        raise InputError(f"{root}: folder not found; pass the folder of the corpus with --media")
    boxes = _read_boxes(dataset, [track.track_id for track in tracks])
    sources = _find_sources(provenance, tracks, root)

    def collect(track: ReportTrack) -> TrackMedia:
        source = sources.get(track.track_id)
        sound, sound_problem = _sound(track, source, root)
        pictures, picture_problem = _pictures(track, source, root, boxes, dataset.step)
        return TrackMedia(sound, pictures, tuple(filter(None, (sound_problem, picture_problem))))

    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(collect, tracks)
        media = list(tqdm(found, total=len(tracks), desc="media", unit="track", disable=None))
    if media and not any(each.sound or each.pictures for each in media):
        raise InputError(
            f"{root}: no sound or pictures of any track; pass the folder of the corpus with --media"
        )
    return media


def encode_sound(samples: np.ndarray) -> str:
    """Return mono samples `[L]` at 16 kHz as a data URI that browsers play."""
    codec, container_format, kind = next(s for s in SOUNDS if s[0] in av.codecs_available)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        if codec != "flac":
            stream.bit_rate = BIT_RATE
        values = np.clip(samples, -1, 1).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return _data_uri(buffer.getvalue(), kind)


def encode_face(image: np.ndarray) -> str:
    """Return a square face uint8 `[S, S, 3]` RGB as a data URI of a small JPEG."""
    small = faces.resize(np.ascontiguousarray(image), SIDE)
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return _data_uri(data.tobytes(), "image/jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _find_sources(
    provenance: Mapping[str, Any], tracks: Sequence[ReportTrack], root: Path
) -> dict[str, Track]:
    """Return the media of tracks: VoxCeleb2's files, or those of the layout of the dataset."""
    wanted = {track.track_id for track in tracks}
    found: dict[str, Track] = {}
    for track_id in wanted:
        names = [f"{folder}{track_id}.mp4" for folder in VIDEO_FOLDERS]
        name = next((name for name in names if (root / name).is_file()), None)
        if name is not None and ".." not in track_id.split("/"):
            identity, video, number = track_id.split("/")
            key = TrackKey(identity, video, int(number))
            found[track_id] = Track(key, name, FaceSource.VOXCELEB2)
    config = provenance.get("config")
    layout = str(config.get("layout")) if isinstance(config, dict) else ""
    if layout in LAYOUTS and layout != "table" and wanted - set(found):
        try:
            corpus = read_corpus(layout, root)
        except EmovoxError:
            return found  # of another layout; it may still have the sound
        found |= {track.track_id: track for track in corpus.tracks if track.track_id in wanted}
    return {track_id: _timed(track, root) for track_id, track in found.items()}


def _timed(track: Track, root: Path) -> Track:
    """Return a track with the start and end of its box file."""
    if track.boxes is None:
        return track
    try:
        boxes = read_boxes(root / track.boxes, track.boxes)
    except TrackError:
        return track
    start = boxes.start if track.start is None else track.start
    return replace(track, start=start, end=boxes.end if track.end is None else track.end)


def _sound(track: ReportTrack, source: Track | None, root: Path) -> tuple[str | None, str]:
    """Return the sound of a track as a data URI, and the problem if there is none."""
    try:
        path, start = audio_path(root, track.track_id, missing_ok=True), 0.0
        if path is None and source is not None and source.faces is not FaceSource.DENSE:
            path, start = root / source.source, source.start or 0.0
        if path is None:
            return None, "sound file not found"
        length = SOUND_SECONDS if track.duration is None else min(track.duration, SOUND_SECONDS)
        samples = read_audio(path, start, start + length)
    except InputError:
        return None, "cannot read the sound"  # the message of the error has paths in it
    if not len(samples):
        return None, "the sound is empty"
    return encode_sound(samples), ""


def _pictures(
    track: ReportTrack, source: Track | None, root: Path, boxes: Boxes | None, step: float
) -> tuple[dict[int, str], str]:
    """Return faces of a track as data URIs by frame index, and the problem if some are missing."""
    if boxes is None:
        return {}, ""
    if source is None:
        return {}, "video not found"
    wanted = _picture_frames(track)
    path, deadline = root / source.source, Deadline(TIMEOUT)
    frames = (
        ImageTrack(path, step, deadline)
        if source.faces is FaceSource.DENSE
        else VideoTrack(path, step, source.start, source.end, deadline)
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
        return found, f"cannot decode the video ({error.error})"
    return found, ""


def _picture_frames(track: ReportTrack) -> set[int]:
    """Return the indices of the frames whose faces are shown: peaks, and some at even distances."""
    rows = np.linspace(0, len(track.frame_index) - 1, NUM_EVEN_FACES).round().astype(int)
    return {peak.frame_index for peak in track.peaks} | set(track.frame_index[rows].tolist())


def _read_boxes(dataset: Dataset, track_ids: Sequence[str]) -> Boxes | None:
    """Return the face boxes of tracks; None for a dataset without the table of faces."""
    columns = ["track_id", "frame_index", *(f"box_{side}" for side in "xywh")]
    files = [dataset.path / schema.table_file("faces", split) for split in dataset.splits]
    if not any(file.is_file() for file in files):
        return None
    found: dict[tuple[str, int], faces.Box] = {}
    for file in files:
        try:
            rows = pq.read_table(file, columns=columns, filters=[("track_id", "in", track_ids)])
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{file}: cannot read ({type(error).__name__})") from error
        for track_id, index, *box in zip(*rows.to_pydict().values(), strict=True):
            found[track_id, index] = faces.Box(*box)
    return found
