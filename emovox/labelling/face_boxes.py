"""The square around the face in every frame of a track, given or detected."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice

from emovox.corpus.tracks import FaceSource, Track
from emovox.corpus.voxceleb import Boxes
from emovox.media import faces
from emovox.media.shots import number_shots
from emovox.media.video import GridFrame, VideoTrack

DETECT_BATCH = 16  # frames per call of the detector


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
