"""Numbers of the shots of a track, on drawn scenes and joined real clips."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from emovox.corpus.tracks import FaceSource, Track
from emovox.corpus.voxceleb import read_boxes
from emovox.ids import TrackKey
from emovox.labelling.shard import DETECT_BATCH, locate
from emovox.media.faces import Box
from emovox.media.images import CUT, ImageTrack, dissimilarity, number_shots, thumbnail
from emovox.media.video import Deadline, GridFrame, VideoTrack
from emovox.testing import write_clip


def scene(seed: int, side: int = 224) -> np.ndarray:
    """Return a picture of large and small patches of colour, always the same for a seed."""
    rng = np.random.default_rng(seed)
    large = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (side, side))
    small = cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (side, side))
    return cv2.addWeighted(large, 0.7, small, 0.3, 0)


def moved(picture: np.ndarray, x: float = 0, y: float = 0, zoom: float = 1) -> np.ndarray:
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0, zoom)
    matrix[:, 2] += x, y
    return cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


def shots_of(pictures: Sequence[np.ndarray]) -> list[int]:
    frames = [GridFrame(k, 0.24 * k, 0.24 * k, picture) for k, picture in enumerate(pictures)]
    numbered = list(number_shots(frames))
    assert [frame for frame, _ in numbered] == frames
    return [shot for _, shot in numbered]


A, B, C = (scene(seed) for seed in (1, 2, 3))
BLACK, WHITE = np.zeros_like(A), np.full_like(A, 255)


def test_each_cut_begins_a_shot() -> None:
    assert shots_of([]) == []
    assert shots_of([A]) == [0]
    assert shots_of([A, A, A, B, B, C, C, C]) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert shots_of([A, B, B, A, A]) == [0, 1, 1, 2, 2]
    assert shots_of([A, A, B]) == [0, 0, 1]
    assert shots_of([A, B, C]) == [0, 1, 2]


@pytest.mark.parametrize("odd", [B, BLACK, WHITE])
def test_a_single_odd_picture_does_not_end_a_shot(odd: np.ndarray) -> None:
    assert shots_of([A, A, odd, A, A, odd, A]) == [0] * 7


def test_blank_pictures_belong_to_the_shot_before_them() -> None:
    assert shots_of([BLACK, BLACK, A, A, WHITE, WHITE, A]) == [0] * 7
    assert shots_of([A, BLACK, BLACK, B, B, BLACK]) == [0, 0, 0, 1, 1, 1]
    assert shots_of([A, B, BLACK, B]) == [0, 1, 1, 1]
    assert shots_of([BLACK, WHITE, BLACK]) == [0, 0, 0]


def noisy(picture: np.ndarray, k: int) -> np.ndarray:
    noise = np.random.default_rng(k).normal(0, 25, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def subtitled(picture: np.ndarray, k: int) -> np.ndarray:
    shown = picture.copy()
    if k % 2:
        shown[180:210, 20:204] = 0
        cv2.putText(shown, f"so I told {k}", (24, 202), 0, 0.8, (255, 255, 0), 2)
    return shown


def gesture(picture: np.ndarray, k: int) -> np.ndarray:
    shown = picture.copy()
    cv2.ellipse(shown, (60 + 20 * (k % 5), 190), (30, 50), 20, 0, 360, (205, 150, 120), -1)
    return shown


CHANGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "shake": lambda picture, k: moved(picture, 16 * (-1) ** k, 10 * (k % 3 - 1)),
    "pan": lambda picture, k: moved(picture, 20 * k),
    "zoom": lambda picture, k: moved(picture, zoom=1.12**k),
    "exposure": lambda picture, k: np.clip(picture * (0.5, 1.4)[k % 2], 0, 255).astype(np.uint8),
    "noise": noisy,
    "darkness": lambda picture, k: (noisy(picture, k) * 0.1).astype(np.uint8),
    "subtitles": subtitled,
    "gesture": gesture,
    "fade": lambda picture, k: (picture * (1 - k / 8)).astype(np.uint8),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_inside_a_shot_are_no_cuts(name: str) -> None:
    assert shots_of([CHANGES[name](A, k) for k in range(8)]) == [0] * 8


@pytest.mark.parametrize("name", ["shake", "exposure", "noise", "darkness", "subtitles"])
def test_cuts_are_found_among_changes(name: str) -> None:
    pictures = [CHANGES[name](picture, k) for k, picture in enumerate([A] * 4 + [B] * 4)]
    assert shots_of(pictures) == [0] * 4 + [1] * 4


@pytest.mark.parametrize(("width", "height"), [(16, 16), (96, 40), (224, 224), (1920, 1080)])
def test_pictures_of_any_size(width: int, height: int) -> None:
    sized = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in (A, A, B, B)]
    assert shots_of(sized) == [0, 0, 1, 1]
    assert shots_of([sized[0], A, A, sized[2]]) == [0, 0, 0, 1]  # the size may change


def test_bars_around_the_picture_hide_no_cut() -> None:
    def barred(picture: np.ndarray) -> np.ndarray:
        frame = np.full((1080, 1920, 3), 3, np.uint8)
        frame[:, 690:1230] = cv2.resize(picture, (540, 1080))
        return frame

    assert shots_of([barred(p) for p in (A, moved(A, 20), A, B, B)]) == [0, 0, 0, 1, 1]


def test_dissimilarity_is_small_for_one_scene_and_near_one_for_two() -> None:
    small = [thumbnail(scene(seed)) for seed in range(20)]
    assert {dissimilarity(picture, picture) for picture in small} == {0.0}
    between = [dissimilarity(first, second) for first, second in pairwise(small)]
    assert min(between) > CUT and 0.85 < np.mean(between) < 1.1


def talk(faces: FaceSource) -> Track:
    return Track(TrackKey("ann", "talk", 1), "talk.mp4", faces)


def no_detector() -> None:
    raise AssertionError("the detector is not needed")


def located(media: object, track: Track, *rest: object) -> list[tuple[int, int]]:
    """Return index and shot of the frames that show the face."""
    return [(frame.index, shot) for frame, _, shot in locate(media, track, *rest)]  # type: ignore[arg-type]


def test_frames_of_given_boxes_have_their_shots(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "talk.mp4", [A] * 24 + [B] * 24 + [C] * 24)
    numbers = [*enumerate([0] * 4 + [1] * 4 + [2] * 4)]
    track = talk(FaceSource.VOXCELEB2)
    assert located(VideoTrack(video, 0.24), track, None, no_detector) == numbers
    # The second shot has no box; it counts all the same.
    rows = "".join(f"{k:06d} \t10 \t10 \t99 \t99\n" for k in (*range(24), *range(48, 72)))
    path = tmp_path / "boxes.txt"
    path.write_text(f"Identity  : \tann\n\nFRAME \tX \tY \tW \tH\n{rows}")
    found = located(
        VideoTrack(video, 0.24), talk(FaceSource.BOXES), read_boxes(path, "boxes.txt"), no_detector
    )
    assert {shot for _, shot in found} >= {0, 2}
    assert set(found) <= set(numbers)


def test_dense_frames_have_their_shots(tmp_path: Path) -> None:
    for number, picture in enumerate([A, A, B, B], start=1):
        cv2.imwrite(str(tmp_path / f"{number:02d}.jpg"), picture)
    media = ImageTrack(tmp_path, 0.24, deadline=Deadline(None))
    numbers = [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert located(media, talk(FaceSource.DENSE), None, no_detector) == numbers


class Faces:
    """A `Detector`: a large face on the left of scene A, and two other faces in scene B."""

    first = (Box(10, 10, 90, 90, 0.9),)
    second = (Box(20, 20, 60, 60, 0.9), Box(120, 100, 100, 100, 0.9))

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[Box]]:
        assert len(frames) <= DETECT_BATCH
        is_a = [dissimilarity(thumbnail(A), thumbnail(frame)) < CUT for frame in frames]
        return [list(self.first if a else self.second) for a in is_a]


@pytest.mark.parametrize("length", [3, DETECT_BATCH, 2 * DETECT_BATCH + 1])
def test_after_a_cut_the_largest_face_is_followed(length: int) -> None:
    """Without the cut, the box that overlaps the last one would be followed: another person."""
    pictures = [A] * length + [B] * length
    frames = [GridFrame(k, 0.24 * k, 0.24 * k, picture) for k, picture in enumerate(pictures)]
    boxes = [
        (box, shot)
        for _, box, shot in locate(frames, talk(FaceSource.DETECT), None, Faces)  # type: ignore[arg-type]
    ]
    assert boxes == [(Faces.first[0], 0)] * length + [(Faces.second[1], 1)] * length


@pytest.mark.real
def test_real_clips_joined_have_one_cut_and_alone_none(real_data: Path) -> None:
    paths = sorted((real_data / "voxceleb2-clips").glob("mp4/*/*/*.mp4"))
    clips = [[frame.image for frame in VideoTrack(path, 0.24)] for path in paths]
    assert all(set(shots_of(clip)) == {0} for clip in clips)
    for first, second in pairwise([*clips, clips[0]]):
        pictures = first[:12] + second[:12]
        assert shots_of(pictures) == [0] * 12 + [1] * 12
