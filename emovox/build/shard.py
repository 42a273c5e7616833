"""One shard: tracks in, rows out. Pixels stay in memory and in this process."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.build.plan import Shard, ShardSettings
from emovox.corpus.tracks import Dropped, Faces, Track, printable
from emovox.corpus.voxceleb import Boxes, read_boxes
from emovox.dataset import schema
from emovox.dataset.files import replace_file, write_text
from emovox.errors import TrackError
from emovox.media import faces
from emovox.media.images import ImageTrack
from emovox.media.video import Deadline, GridFrame, VideoTrack
from emovox.teacher import Teacher

BATCH = 64  # crops per call of the teacher
DETECT_BATCH = 16  # frames per call of the detector

# Rows of a shard's file: frames and faces side by side.
ROWS = pa.schema([*schema.FRAMES, *(f for f in schema.FACES if f.name not in schema.FRAMES.names)])


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to know.

    Attributes:
        shard: the tracks.
        settings: what decides their rows.
        root: folder of the corpus.
        state: folder of finished shards.
        teacher_path: file of weights.
        timeout: seconds per track; None for no limit.
        lost: tracks whose worker died, with the number of attempts; they are dropped.
    """

    shard: Shard
    settings: ShardSettings
    root: Path
    state: Path
    teacher_path: Path
    timeout: float | None = None
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackResult:
    """What a track gave."""

    track_id: str
    n_frames: int
    n_expected: int
    duration_ms: int | None


@dataclass
class ShardReport:
    """The marker of a finished shard.

    Attributes:
        fingerprint: the shard's.
        rows_bytes: size of the file of rows, to tell a damaged one.
        tracks: those with rows, in order.
        dropped: those without.
        notes: oddities that did not cost a track, `{what: (times, first example)}`.
        media_seconds: spent on decoding, faces and crops.
        teacher_seconds: spent in the teacher.
        num_decoded: video frames decoded.
    """

    fingerprint: str
    rows_bytes: int = 0
    tracks: list[TrackResult] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: dict[str, list[Any]] = field(default_factory=dict)
    media_seconds: float = 0.0
    teacher_seconds: float = 0.0
    num_decoded: int = 0

    def note(self, what: str, example: str) -> None:
        count, first = self.notes.get(what, [0, example])
        self.notes[what] = [count + 1, first]

    @property
    def num_frames(self) -> int:
        return sum(track.n_frames for track in self.tracks)


def rows_file(state: Path, fingerprint: str) -> Path:
    return state / f"{fingerprint[:32]}.parquet"


def marker_file(state: Path, fingerprint: str) -> Path:
    return state / f"{fingerprint[:32]}.json"


def read_report(state: Path, fingerprint: str) -> ShardReport | None:
    """The report of a finished shard; None if it is not finished, damaged or of another run."""
    try:
        marker = json.loads(marker_file(state, fingerprint).read_text(encoding="utf-8"))
        marker["tracks"] = [TrackResult(*t) for t in marker["tracks"]]
        marker["dropped"] = [Dropped(*d) for d in marker["dropped"]]
        report = ShardReport(**marker)
        size = rows_file(state, fingerprint).stat().st_size
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = report.fingerprint == fingerprint and report.rows_bytes == size
    return report if whole else None


def build_shard(
    job: ShardJob,
    teacher: Teacher,
    detector: Callable[[], faces.Detector],
    on_track: Callable[[str], None] = lambda track_id: None,
) -> ShardReport:
    """Turn the tracks of a shard into rows, and write them and the marker.

    Args:
        detector: called once, when the first track needs detection.
        on_track: called with each `track_id` before its work begins.
    """
    cv2.setNumThreads(1)
    report = ShardReport(job.shard.fingerprint)
    rows = _Rows(teacher, job.settings.step_ms)
    get_detector = _once(detector)
    for ordinal, track in enumerate(job.shard.tracks):
        on_track(track.track_id)
        started, in_teacher = time.perf_counter(), rows.teacher_seconds
        try:
            if attempts := job.lost.get(track.track_id):
                message = "the process died or hung while it worked on this track"
                raise TrackError("decode", "WorkerDied", message)
            result = _build_track(job, track, ordinal, rows, get_detector, report)
        except TrackError as error:
            rows.forget(ordinal)
            dropped = Dropped(
                track.track_id,
                track.shown(track.source),
                error.stage,
                error.error,
                printable(error.message),
                attempts or 1,
            )
            report.dropped.append(dropped)
        else:
            report.tracks.append(result)
        spent = time.perf_counter() - started
        report.media_seconds += spent - (rows.teacher_seconds - in_teacher)
    table = rows.finish(job.shard.tracks)
    report.teacher_seconds = rows.teacher_seconds
    _write(job, table, report)
    return report


def _build_track(
    job: ShardJob,
    track: Track,
    ordinal: int,
    rows: "_Rows",
    detector: Callable[[], faces.Detector],
    report: ShardReport,
) -> TrackResult:
    deadline = Deadline(job.timeout)
    step = job.settings.step_ms / 1000
    boxes = None
    start, end = track.start, track.end
    if track.boxes is not None:
        boxes = read_boxes(job.root / track.boxes, track.shown(track.boxes))
        if boxes.bad_lines:
            where = f"{track.track_id}, line {boxes.bad_lines[0]}"
            report.note("box files with rows that cannot be read", where)
        start = boxes.start if start is None else start
        end = boxes.end if end is None else end

    media: VideoTrack | ImageTrack
    if track.faces is Faces.DENSE:
        media = ImageTrack(job.root / track.source, step, deadline)
    else:
        media = VideoTrack(job.root / track.source, step, start, end, deadline)
    count = 0
    for frame, box in _locate(media, track, boxes, detector):
        if frame.index > schema.MAX_FRAME_INDEX:
            message = f"more than {schema.MAX_FRAME_INDEX} grid points; cut it into shorter tracks"
            raise TrackError("time", "TooLong", message)
        rows.add(ordinal, frame, box)
        count += 1
    report.num_decoded += media.num_decoded
    if not count:
        reasons = {
            Faces.DETECT: "no face was found in any frame",
            Faces.BOXES: "no box lies inside a frame of the video",
        }
        raise TrackError("faces", "NoFace", reasons.get(track.faces, "no frame shows the face"))
    return TrackResult(track.track_id, count, media.num_expected, round(media.duration * 1000))


def _locate(
    media: "VideoTrack | ImageTrack",
    track: Track,
    boxes: Boxes | None,
    detector: Callable[[], faces.Detector],
) -> Iterator[tuple[GridFrame, faces.Box]]:
    """Yield the frames that show the face, each with the square around it."""
    if track.faces is Faces.DETECT:
        located = _detect(media, detector)
    else:
        located = ((frame, _given_box(frame, track.faces, boxes)) for frame in media)
    for frame, box in located:
        height, width = frame.image.shape[:2]
        if box is not None and faces.is_visible(box, width, height):
            yield frame, faces.square(box)


def _given_box(frame: GridFrame, kind: Faces, boxes: Boxes | None) -> faces.Box | None:
    height, width = frame.image.shape[:2]
    if kind is Faces.VOXCELEB2:
        return faces.voxceleb2_box(width, height)
    if kind is Faces.DENSE:
        return faces.dense_box(width, height)
    assert boxes is not None
    xywh = boxes.at(frame.time, width, height)
    return faces.Box(*xywh) if xywh else None


def _detect(
    frames: "VideoTrack | ImageTrack", detector: Callable[[], faces.Detector]
) -> Iterator[tuple[GridFrame, faces.Box | None]]:
    follow = faces.Follower()
    batch: list[GridFrame] = []

    def located() -> Iterator[tuple[GridFrame, faces.Box | None]]:
        for frame, found in zip(batch, detector()([f.image for f in batch]), strict=True):
            yield frame, follow(found, frame.time)

    for frame in frames:
        if batch and (len(batch) == DETECT_BATCH or batch[0].image.shape != frame.image.shape):
            yield from located()
            batch = []
        batch.append(frame)
    if batch:
        yield from located()


class _Rows:
    """Collects crops across tracks into batches, and the rows that come back."""

    def __init__(self, teacher: Teacher, step_ms: int) -> None:
        self._teacher, self._step_ms = teacher, step_ms
        size = teacher.input_size
        self._crops = np.empty((BATCH, size, size, 3), np.uint8)
        self._num_crops = 0
        self._logits: list[np.ndarray] = []
        self._rows: list[tuple[int, int, float, faces.Box, float]] = []
        self._forgotten: set[int] = set()
        self.teacher_seconds = 0.0

    def add(self, ordinal: int, frame: GridFrame, box: faces.Box) -> None:
        face = faces.cut(frame.image, box)
        self._crops[self._num_crops] = faces.resize(face, self._teacher.input_size)
        self._num_crops += 1
        pts_ms = round(frame.pts * 1000, 6)
        self._rows.append((ordinal, frame.index, pts_ms, box, faces.sharpness(face)))
        if self._num_crops == BATCH:
            self._run_teacher()

    def forget(self, ordinal: int) -> None:
        """Leave out all rows of a track that failed half-way."""
        self._forgotten.add(ordinal)

    def _run_teacher(self) -> None:
        started = time.perf_counter()
        self._logits.append(self._teacher(self._crops[: self._num_crops]))
        self.teacher_seconds += time.perf_counter() - started
        self._num_crops = 0

    def finish(self, tracks: tuple[Track, ...]) -> pa.Table:
        """The rows of all tracks that were not forgotten, with the schema `ROWS`."""
        if self._num_crops:
            self._run_teacher()
        keep = [i for i, row in enumerate(self._rows) if row[0] not in self._forgotten]
        rows = [self._rows[i] for i in keep]
        empty = np.empty((0, len(schema.LOGITS)), np.float32)
        logits = np.concatenate([empty, *self._logits])[keep]
        indices = np.array([row[1] for row in rows], np.int16)
        columns: list[Any] = [
            [tracks[row[0]].track_id for row in rows],
            indices,
            indices.astype(np.int32) * self._step_ms,
            *np.ascontiguousarray(logits.T),
            [row[2] for row in rows],
            *([getattr(row[3], side) for row in rows] for side in "xywh"),
            [row[3].score for row in rows],
            [row[4] for row in rows],
        ]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, ROWS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=ROWS)


def _write(job: ShardJob, table: pa.Table, report: ShardReport) -> None:
    """Write rows, then the marker that says they are whole."""
    path = rows_file(job.state, report.fingerprint)
    with replace_file(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", store_schema=False, write_page_checksum=True
        )
        report.rows_bytes = temporary.stat().st_size
    marker = dataclasses.asdict(report)
    marker["tracks"] = [dataclasses.astuple(t) for t in report.tracks]
    marker["dropped"] = [dataclasses.astuple(d) for d in report.dropped]
    write_text(marker_file(job.state, report.fingerprint), json.dumps(marker))


def _once(make: Callable[[], faces.Detector]) -> Callable[[], faces.Detector]:
    made: list[faces.Detector] = []

    def get() -> faces.Detector:
        if not made:
            made.append(make())
        return made[0]

    return get


def count_reasons(dropped: list[Dropped]) -> Counter[str]:
    """Dropped tracks by stage and error."""
    return Counter(f"{d.stage}: {d.error}" for d in dropped)
