"""One shard: tracks in, faces located, rows out. Pixels stay in memory and in this process."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from emovox.corpus.tracks import FaceSource, Track
from emovox.corpus.voxceleb import Boxes, read_boxes
from emovox.dataset import schema
from emovox.dataset.rows import Dropped, TrackRow
from emovox.dataset.store import embedding_array
from emovox.errors import InputError, TrackError
from emovox.labelling.plan import (
    MAX_DEATHS,
    ShardJob,
    ShardReport,
    ShardSettings,
    row_columns,
    write_shard,
)
from emovox.labelling.teacher_process import BATCH, Feed
from emovox.media import faces
from emovox.media.ffmpeg import FfmpegTrack, find_program
from emovox.media.images import ImageTrack, number_shots
from emovox.media.video import Deadline, GridFrame, VideoTrack
from emovox.paths import OUR_OWN, error_name, is_remote, local_copy, map_ahead

AHEAD = 2  # remote sources fetched before they are needed
DETECT_BATCH = 16  # frames per call of the detector


def fetch_ahead(root: Path, tracks: Iterable[Track]) -> Generator[Path | TrackError, None, None]:
    """Yield the local path of each track's video or JPEGs, or the error of fetching them.

    Local media stay where they are. A remote file is kept until a track needs the next one, so
    that a video with many tracks is fetched once.
    """
    groups = [list(same) for _, same in groupby(tracks, lambda track: track.source)]
    with ExitStack() as copies:

        def fetch(group: list[Track]) -> tuple[ExitStack, Path | TrackError]:
            copy, path = copies.enter_context(ExitStack()), root / group[0].source
            try:
                is_folder = group[0].faces is FaceSource.DENSE
                return copy, copy.enter_context(local_copy(path, is_folder=is_folder))
            except OSError as error:
                if error.errno in OUR_OWN:
                    raise
                name = error_name(error, root)
                return copy, TrackError("open", name, error.strerror or "cannot be fetched")

        fetched = map_ahead(fetch, groups, ThreadPoolExecutor(AHEAD), AHEAD + 1)
        with closing(fetched):  # no copy may appear after its removal
            for group, (copy, found) in zip(groups, fetched, strict=True):
                yield from [found] * len(group)
                copy.close()


def locate(
    media: VideoTrack, track: Track, boxes: Boxes | None, detector: Callable[[], faces.Detector]
) -> Iterator[tuple[GridFrame, faces.Box, int]]:
    """Yield the frames that show the face, each with the square around it and its shot, from 0.

    `track.faces` says how the face is found: BOXES needs `boxes`, DETECT calls `detector`.
    """
    numbered = number_shots(media)
    if track.faces is FaceSource.DETECT:
        located = _detect(numbered, detector)
    else:
        located = ((f, _given_box(f, track.faces, boxes), shot) for f, shot in numbered)
    for frame, box, shot in located:
        height, width = frame.image.shape[:2]
        if box is not None and faces.is_visible(box, width, height):
            yield frame, faces.square(box), shot


def _given_box(frame: GridFrame, kind: FaceSource, boxes: Boxes | None) -> faces.Box | None:
    height, width = frame.image.shape[:2]
    if kind is FaceSource.VOXCELEB2:
        return faces.voxceleb2_box(width, height)
    if kind is FaceSource.DENSE:
        return faces.dense_box(width, height)
    assert boxes is not None
    xywh = boxes.at(frame.time, width, height)
    return faces.Box(*xywh) if xywh else None


def _detect(
    numbered: Iterable[tuple[GridFrame, int]], detector: Callable[[], faces.Detector]
) -> Iterator[tuple[GridFrame, faces.Box | None, int]]:
    follow, current = faces.Follower(), 0
    for _, same in groupby(numbered, lambda pair: pair[0].image.shape):
        while batch := list(islice(same, DETECT_BATCH)):
            found = detector()([frame.image for frame, _ in batch])
            for (frame, shot), boxes in zip(batch, found, strict=True):
                if shot != current:  # the face of the last shot is another person's, or elsewhere
                    follow, current = faces.Follower(), shot
                yield frame, follow(boxes, frame.time), shot


WORKER_DIED = (
    "the process died or hung on this track; the program ffmpeg and emovox[ffmpeg] allow another "
    "try in a child process, if it is a video"
)


def build_shard(
    job: ShardJob,
    feed: Feed,
    detector: Callable[[], faces.Detector],
    on_track: Callable[[str], None] = lambda track_id: None,
) -> ShardReport:
    """Turn the tracks of a shard into rows, and write them and the marker.

    `detector` is called once, for the first track that needs it; `on_track` with each `track_id`
    before its work begins, and with "" at the end. InputError if the root of the corpus disappears.
    """
    cv2.setNumThreads(1)
    report = ShardReport(job.shard.fingerprint)
    rows = _Rows(feed, job.settings)
    began, waited, taught = time.perf_counter(), feed.wait_seconds, feed.teacher_seconds
    get_detector = cache(detector)
    with closing(fetch_ahead(job.root, job.shard.tracks)) as paths:
        for track in job.shard.tracks:
            num_deaths = job.lost.get(track.track_id, 0)
            on_track(track.track_id)
            path = next(paths)
            try:
                row = _build_track(job, track, rows, get_detector, report, path)
            except TrackError as error:
                if not is_remote(job.root) and not job.root.is_dir():
                    raise InputError(
                        f"{job.root}: folder not found any more; restore it and rerun to resume"
                    ) from error
                source, attempts = track.shown(track.source), num_deaths or 1
                report.dropped.append(Dropped.of(track.track_id, source, error, attempts))
            else:
                report.tracks.append(row)
                if num_deaths:
                    what = "tracks were decoded in a child process after their decoder died"
                    report.note(what, track.track_id)
    on_track("")
    table = rows.finish({track.track_id for track in report.tracks})
    report.wait_seconds = feed.wait_seconds - waited
    report.teacher_seconds = feed.teacher_seconds - taught
    report.media_seconds = time.perf_counter() - began - report.wait_seconds
    write_shard(job.state, table, report)
    return report


def _build_track(
    job: ShardJob,
    track: Track,
    rows: "_Rows",
    detector: Callable[[], faces.Detector],
    report: ShardReport,
    path: Path | TrackError,
) -> TrackRow:
    boxes = None
    if track.boxes is not None:
        boxes = read_boxes(job.root / track.boxes, track.shown(track.boxes))
        if boxes.bad_lines:
            where = f"{track.track_id}, line {boxes.bad_lines[0]}"
            report.note("box files with unreadable rows", where)
    if isinstance(path, TrackError):
        raise path
    media = _open(job, track, boxes, path)
    count, most, shots = 0, schema.max_frame_index(job.settings.step_ms), set()
    for frame, box, shot in locate(media, track, boxes, detector):
        if frame.index > most:
            message = f"more than {most} grid points; cut it into shorter tracks"
            raise TrackError("time", "TooLong", message)
        rows.add(track.track_id, frame, box, shot)
        shots.add(shot)
        count += 1
    report.num_decoded += media.num_decoded
    if not count:
        raise TrackError("faces", "NoFace", "no face was found in any frame")
    for note in media.notes:
        several = "media files with several streams of a kind"
        what = several if " streams; " in note else "tracks that end after their file"
        report.note(what, f"{track.track_id}, {note}")
    if len(shots) > 1:
        report.note("tracks hold several shots", track.track_id)
    times = (media.duration, media.start_time, media.end_time)
    duration, start, end = (round(seconds * 1000) for seconds in times)
    offset = None if media.sound_offset is None else media.sound_offset * 1000
    expected, source = media.num_expected, track.shown(track.source)
    return TrackRow(track.key, count, expected, duration, source, start, end, offset)


def _open(job: ShardJob, track: Track, boxes: Boxes | None, path: Path) -> VideoTrack:
    deadline, step = Deadline(job.timeout), job.settings.step_ms / 1000
    num_deaths, program = job.lost.get(track.track_id, 0), None
    is_dense = track.faces is FaceSource.DENSE
    if 0 < num_deaths <= MAX_DEATHS and not is_dense:
        program = find_program()
    if num_deaths and program is None:
        raise TrackError("decode", "WorkerDied", WORKER_DIED)
    if is_dense:
        return ImageTrack(path, step, deadline=deadline)
    start, end = track.start, track.end
    if boxes is not None:
        start = boxes.start if start is None else start
        end = boxes.end if end is None else end
    if program is not None:
        return FfmpegTrack(path, step, start, end, deadline, program=program)
    return VideoTrack(path, step, start, end, deadline)


class _Rows:
    """Crops of many tracks in batches for the teacher, and the rows of the shard."""

    def __init__(self, feed: Feed, settings: ShardSettings) -> None:
        feed.drain()  # discards what a failed shard left
        self._feed, self._step_ms = feed, settings.step_ms
        self._outputs = settings.outputs
        self._crops, self._num_crops = feed.buffer(), 0
        self._rows: list[tuple[str, int, float, faces.Box, float, int]] = []

    def add(self, track_id: str, frame: GridFrame, box: faces.Box, shot: int) -> None:
        face = faces.cut(frame.image, box)
        self._crops[self._num_crops] = faces.resize(face, self._feed.input_size)
        self._num_crops += 1
        pts_ms = round(frame.pts * 1000, 6)
        self._rows.append((track_id, frame.index, pts_ms, box, faces.sharpness(face), shot))
        if self._num_crops == BATCH:
            self._feed.put(BATCH)
            self._crops, self._num_crops = self._feed.buffer(), 0

    def finish(self, kept: set[str]) -> pa.Table:
        """Return the rows of the tracks to keep, see `row_columns`."""
        if self._num_crops:
            self._feed.put(self._num_crops)
        keep = [i for i, row in enumerate(self._rows) if row[0] in kept]
        rows = [self._rows[i] for i in keep]
        logits, embeddings = np.split(self._feed.drain()[keep], [len(self._outputs)], axis=1)
        indices = np.array([row[1] for row in rows], np.int32)
        columns: list[Any] = [
            [row[0] for row in rows],
            indices,
            indices * self._step_ms,
            *np.ascontiguousarray(logits.T),
            [row[2] for row in rows],
            *([getattr(row[3], side) for row in rows] for side in "xywh"),
            [row[3].score for row in rows],
            [row[4] for row in rows],
            [min(row[5], 2**15 - 1) for row in rows],  # int16
        ]
        fields = row_columns(self._outputs, embeddings.shape[1])
        arrays = [pa.array(c, f.type) for c, f in zip(columns, fields, strict=False)]
        if embeddings.size:
            arrays.append(embedding_array(embeddings))
        return pa.Table.from_arrays(arrays, schema=fields)
