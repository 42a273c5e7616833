"""Faces and sound of a few tracks, small enough for a page."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import soundfile
from tqdm import tqdm

from emovox.corpus.sound_files import AudioTree, Sound
from emovox.dataset import schema
from emovox.dataset.reader import Dataset
from emovox.dataset.store import reading
from emovox.errors import InputError, NoSoundError, TrackError
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
# Formats that all browsers play, the smaller first; some builds of libsndfile lack it.
SOUNDS = (("MP3", "audio/mpeg"), ("FLAC", "audio/flac"))

Boxes = Mapping[tuple[str, int], faces.Box]


@dataclass(frozen=True)
class TrackMedia:
    """Sound and faces of a track as data URIs."""

    sound: str | None  # None if it is unavailable
    pictures: Mapping[int, str]  # faces by frame index
    problems: tuple[str, ...]  # reasons for unavailable media, without paths


def collect_media(dataset: Dataset, tracks: Sequence[ReportTrack], root: Path) -> list[TrackMedia]:
    """Read sound and some faces of tracks from their corpus `root`; InputError if it has none."""
    if not root.is_dir():
        raise InputError(f"{root}: folder not found; pass the folder of the corpus with --media")
    places = {track.track_id: dataset.source(track.track_id) for track in tracks}
    boxes = _read_boxes(dataset, list(places))
    tree = AudioTree(root)

    def collect(track: ReportTrack) -> TrackMedia:
        place = places[track.track_id]
        sound, sound_problem = _sound(track, tree.locate(track.track_id, *place))
        source = None if boxes is None else tree.find_pictures(track.track_id, place)
        pictures, picture_problem = _pictures(track, source, boxes, dataset.step)
        return TrackMedia(sound, pictures, tuple(filter(None, (sound_problem, picture_problem))))

    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(collect, tracks)
        media = list(tqdm(found, total=len(tracks), desc="media", unit="track", disable=None))
    if media and not any(each.sound or each.pictures for each in media):
        raise InputError(
            f"{root}: no sound or pictures of any track; pass the folder of the corpus with --media"
        )
    return media


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _sound(track: ReportTrack, place: Sound | None) -> tuple[str | None, str]:
    """Return the sound of a track as a data URI, and the problem if there is none."""
    if place is None:
        return None, "sound file not found"
    length = SOUND_SECONDS if track.duration is None else min(track.duration, SOUND_SECONDS)
    try:
        samples = read_audio(place.path, place.start, place.start + length)
    except NoSoundError:
        return None, "the file has no sound"
    except InputError:
        return None, "the sound cannot be read"  # the message of the error has paths in it
    form, kind = next(each for each in SOUNDS if each[0] in soundfile.available_formats())
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), SAMPLE_RATE, format=form)
    return _data_uri(buffer.getvalue(), kind), ""


def _pictures(
    track: ReportTrack, source: Sound | None, boxes: Boxes | None, step: float
) -> tuple[dict[int, str], str]:
    """Return faces of a track as data URIs by frame index, and the problem if some are missing."""
    if boxes is None:
        return {}, ""
    if source is None:
        return {}, "video not found"
    kind = ImageTrack if source.path.is_dir() else VideoTrack
    frames = kind(source.path, step, source.start, source.end, Deadline(TIMEOUT))
    # Those of the peaks, and some at even distances.
    rows = np.linspace(0, len(track.frame_index) - 1, NUM_EVEN_FACES).round().astype(int)
    wanted = {peak.frame_index for peak in track.peaks} | set(track.frame_index[rows].tolist())
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    found: dict[int, str] = {}
    try:
        for frame in frames:
            box = boxes.get((track.track_id, frame.index))
            if frame.index in wanted and box is not None:
                face = np.ascontiguousarray(faces.cut(frame.image, faces.square(box)))
                _, data = cv2.imencode(".jpg", faces.resize(face, SIDE)[..., ::-1], quality)
                found[frame.index] = _data_uri(data.tobytes(), "image/jpeg")
            if frame.index >= max(wanted, default=0):
                break
    except TrackError as error:
        return found, f"cannot decode the video ({error.error})"
    return found, ""


def _read_boxes(dataset: Dataset, track_ids: Sequence[str]) -> Boxes | None:
    """Return the face boxes of tracks; None for a dataset without the table of faces."""
    columns = ["track_id", "frame_index", *(f"box_{side}" for side in "xywh")]
    files = [dataset.path / schema.table_file("faces", split) for split in dataset.splits]
    if not any(file.is_file() for file in files):
        return None
    found: dict[tuple[str, int], faces.Box] = {}
    for file in files:
        with reading(file):
            rows = pq.read_table(file, columns=columns, filters=[("track_id", "in", track_ids)])
        for track_id, index, *box in zip(*rows.to_pydict().values(), strict=True):
            found[track_id, index] = faces.Box(*box)
    return found
