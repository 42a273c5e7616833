"""The square around the face in every frame of a track, given or detected."""

from collections.abc import Callable, Iterator

from emovox.corpus.tracks import FaceSource, Track
from emovox.corpus.voxceleb import Boxes
from emovox.media import faces
from emovox.media.images import ImageTrack
from emovox.media.video import GridFrame, VideoTrack

DETECT_BATCH = 16  # frames per call of the detector


def locate(
    media: "VideoTrack | ImageTrack",
    track: Track,
    boxes: Boxes | None,
    detector: Callable[[], faces.Detector],
) -> Iterator[tuple[GridFrame, faces.Box]]:
    """Yield the frames that show the face, each with the square around it.

    Args:
        media: grid frames of the track.
        track: its `faces` says how the face is found.
        boxes: box file of the track, for `FaceSource.BOXES`.
        detector: returns the detector, for `FaceSource.DETECT`.
    """
    if track.faces is FaceSource.DETECT:
        located = _detect(media, detector)
    else:
        located = ((frame, _given_box(frame, track.faces, boxes)) for frame in media)
    for frame, box in located:
        height, width = frame.image.shape[:2]
        if box is not None and faces.is_visible(box, width, height):
            yield frame, faces.square(box)


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
