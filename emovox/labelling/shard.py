"""One shard: tracks in, rows out. Pixels stay in memory and in this process."""

import dataclasses
import errno
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.corpus.tracks import FaceSource, Track
from emovox.corpus.voxceleb import read_boxes
from emovox.dataset import schema
from emovox.dataset.rows import Dropped, TrackRow
from emovox.errors import InputError, TrackError
from emovox.files import replace_file, write_text
from emovox.ids import TrackKey
from emovox.labelling.face_boxes import locate
from emovox.labelling.plan import Shard, ShardSettings
from emovox.labelling.prefetch import Sources
from emovox.labelling.teacher_client import BATCH, Feed
from emovox.media import faces
from emovox.media.ffmpeg import FfmpegTrack, find_program
from emovox.media.images import ImageTrack
from emovox.media.video import Deadline, GridFrame, VideoTrack
from emovox.paths import file_state, is_remote

# Added to a track_id in hand while a child process decodes the track; it is in no track_id itself.
IN_CHILD = "\n(in a child process)"

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
        lost: tracks over which workers died, and how many did. Their decoder is tried once more, in
            a child process; those with `IN_CHILD` after their name are lost there too.
    """

    shard: Shard
    settings: ShardSettings
    root: Path
    state: Path
    teacher_path: Path
    timeout: float | None = None
    lost: Mapping[str, int] = field(default_factory=dict)


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
        teacher_seconds: spent by the teacher on these crops.
        wait_seconds: spent waiting for the teacher.
        num_decoded: video frames decoded.
    """

    fingerprint: str
    rows_bytes: int = 0
    tracks: list[TrackRow] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: dict[str, list[Any]] = field(default_factory=dict)
    media_seconds: float = 0.0
    teacher_seconds: float = 0.0
    wait_seconds: float = 0.0
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


def read_report(state: Path, fingerprint: str, rows_bytes: int | None = None) -> ShardReport | None:
    """The report of a finished shard; None if it is not finished, damaged or of another run.

    Args:
        rows_bytes: size of its file of rows; looked up if None.
    """
    try:
        marker = json.loads(marker_file(state, fingerprint).read_text(encoding="utf-8"))
        marker["tracks"] = [TrackRow(TrackKey(*key), *rest) for key, *rest in marker["tracks"]]
        marker["dropped"] = [Dropped(*d) for d in marker["dropped"]]
        report = ShardReport(**marker)
        if rows_bytes is None:
            rows_bytes = (file_state(rows_file(state, fingerprint)) or (0,))[0]
    except OSError as error:
        if is_remote(state) and error.errno != errno.ENOENT:
            raise  # a service that does not answer says nothing about the shard
        return None
    except (ValueError, TypeError, KeyError):
        return None
    whole = report.fingerprint == fingerprint and report.rows_bytes == rows_bytes
    return report if whole else None


def build_shard(
    job: ShardJob,
    feed: Feed,
    detector: Callable[[], faces.Detector],
    on_track: Callable[[str], None] = lambda track_id: None,
) -> ShardReport:
    """Turn the tracks of a shard into rows, and write them and the marker.

    Args:
        feed: takes the crops to a teacher.
        detector: called once, when the first track needs detection.
        on_track: called with each `track_id` before its work begins, and with nothing at the end.

    Raises:
        InputError: the whole corpus is gone.
    """
    cv2.setNumThreads(1)
    report = ShardReport(job.shard.fingerprint)
    rows = _Rows(feed, job.settings.step_ms)
    began, waited, taught = time.perf_counter(), feed.wait_seconds, feed.teacher_seconds
    get_detector = _once(detector)
    with Sources(job.root, job.shard.tracks) as sources:
        for ordinal, track in enumerate(job.shard.tracks):
            in_child = track.track_id in job.lost
            on_track(track.track_id + IN_CHILD * in_child)
            try:
                if in_child:
                    _check_child(job, track)
                result = _build_track(job, track, ordinal, rows, get_detector, report, sources)
            except TrackError as error:
                if not is_remote(job.root) and not job.root.is_dir():
                    raise InputError(f"{job.root}: is gone; bring it back to go on") from error
                if in_child and error.stage in ("open", "decode", "time"):
                    error = _worker_died(error)
                rows.forget(ordinal)
                source, attempts = track.shown(track.source), _num_attempts(job, track)
                report.dropped.append(Dropped.of(track.track_id, source, error, attempts))
            else:
                report.tracks.append(result)
                if in_child:
                    what = "tracks were decoded in a child process after their decoder died"
                    report.note(what, track.track_id)
    on_track("")
    table = rows.finish(job.shard.tracks)
    report.wait_seconds = feed.wait_seconds - waited
    report.teacher_seconds = feed.teacher_seconds - taught
    report.media_seconds = time.perf_counter() - began - report.wait_seconds
    write_shard(job, table, report)
    return report


def _check_child(job: ShardJob, track: Track) -> None:
    """Raise `TrackError` if a track that workers died over cannot be tried in a child process."""
    if track.faces is FaceSource.DENSE:
        raise TrackError("decode", "WorkerDied", "")
    if track.track_id + IN_CHILD in job.lost:
        message = "and again while a child process decoded it"
        raise TrackError("decode", "WorkerDied", message)
    if find_program() is None:
        message = "with emovox[ffmpeg] and the ffmpeg program it is tried in a child process too"
        raise TrackError("decode", "WorkerDied", message)


def _worker_died(error: TrackError) -> TrackError:
    """The end of a track that workers died over, with the reason that there is no way round."""
    message = "the process died or hung while it worked on this track"
    if error.error != "WorkerDied":
        message += f"; in a child process: {error.error}: {error.message}"
    elif error.message:
        message += f"; {error.message}"
    return TrackError("decode", "WorkerDied", message)


def _num_attempts(job: ShardJob, track: Track) -> int:
    in_worker = job.lost.get(track.track_id, 0)
    return in_worker + job.lost.get(track.track_id + IN_CHILD, 0) or 1


def _build_track(
    job: ShardJob,
    track: Track,
    ordinal: int,
    rows: "_Rows",
    detector: Callable[[], faces.Detector],
    report: ShardReport,
    sources: Sources,
) -> TrackRow:
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

    path, deadline = sources.local(track), Deadline(job.timeout)
    media: VideoTrack | ImageTrack
    if track.faces is FaceSource.DENSE:
        media = ImageTrack(path, step, deadline)
    elif track.track_id in job.lost and (program := find_program()):
        media = FfmpegTrack(path, step, start, end, deadline, program=program)
    else:
        media = VideoTrack(path, step, start, end, deadline)
    count = 0
    for frame, box in locate(media, track, boxes, detector):
        if frame.index > schema.MAX_FRAME_INDEX:
            message = f"more than {schema.MAX_FRAME_INDEX} grid points; cut it into shorter tracks"
            raise TrackError("time", "TooLong", message)
        rows.add(ordinal, frame, box)
        count += 1
    report.num_decoded += media.num_decoded
    if not count:
        reasons = {
            FaceSource.DETECT: "no face was found in any frame",
            FaceSource.BOXES: "no box lies inside a frame of the video",
        }
        raise TrackError("faces", "NoFace", reasons.get(track.faces, "no frame shows the face"))
    return TrackRow(track.key, count, media.num_expected, round(media.duration * 1000))


class _Rows:
    """Collects crops across tracks into batches, and the rows that come back."""

    def __init__(self, feed: Feed, step_ms: int) -> None:
        feed.drain()  # what a shard left there that an error ended
        self._feed, self._step_ms = feed, step_ms
        self._crops, self._num_crops = feed.buffer(), 0
        self._rows: list[tuple[int, int, float, faces.Box, float]] = []
        self._forgotten: set[int] = set()

    def add(self, ordinal: int, frame: GridFrame, box: faces.Box) -> None:
        face = faces.cut(frame.image, box)
        self._crops[self._num_crops] = faces.resize(face, self._feed.input_size)
        self._num_crops += 1
        pts_ms = round(frame.pts * 1000, 6)
        self._rows.append((ordinal, frame.index, pts_ms, box, faces.sharpness(face)))
        if self._num_crops == BATCH:
            self._hand_over()

    def forget(self, ordinal: int) -> None:
        """Leave out all rows of a track that failed half-way."""
        self._forgotten.add(ordinal)

    def _hand_over(self) -> None:
        self._feed.put(self._num_crops)
        self._crops, self._num_crops = self._feed.buffer(), 0

    def finish(self, tracks: tuple[Track, ...]) -> pa.Table:
        """The rows of all tracks that were not forgotten, with the schema `ROWS`."""
        if self._num_crops:
            self._feed.put(self._num_crops)
        keep = [i for i, row in enumerate(self._rows) if row[0] not in self._forgotten]
        rows = [self._rows[i] for i in keep]
        logits = self._feed.drain()[keep]
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


def write_shard(job: ShardJob, table: pa.Table, report: ShardReport) -> None:
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
