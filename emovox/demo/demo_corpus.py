"""The demo's corpus: synthetic speaking faces in the layout of VoxCeleb2."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import joblib
import numpy as np
from tqdm import tqdm

from emovox.demo.face import EXPRESSIONS, SIDE, Looks, draw_face
from emovox.demo.voice import FRAME, PROSODIES, SAMPLE_RATE, Speaker, speak
from emovox.files import replace_file
from emovox.ids import TrackKey

FPS = 25
ACTED = tuple(EXPRESSIONS)
NEUTRAL_SHARE = 0.3  # of tracks; the other emotions share the rest


@dataclass(frozen=True)
class DemoConfig:
    """Size of the synthetic corpus.

    Attributes:
        num_speakers: identities.
        num_videos: videos of each; a video keeps its background and light.
        num_tracks: utterances of each video.
        min_seconds: of an utterance.
        max_seconds: of an utterance.
        seed: everything drawn follows from it.
    """

    num_speakers: int = 12
    num_videos: int = 2
    num_tracks: int = 4
    min_seconds: float = 4.0
    max_seconds: float = 6.0
    seed: int = 0


@dataclass(frozen=True)
class DemoTrack:
    """One utterance to be made."""

    identity_id: str
    video_id: str
    track_num: int
    emotion: str
    seconds: float
    seeds: tuple[int, int, int, int]  # corpus, speaker, video, track

    @property
    def track_id(self) -> str:
        return TrackKey(self.identity_id, self.video_id, self.track_num).track_id


def plan_demo(config: DemoConfig) -> list[DemoTrack]:
    """Decide who says what, and in which emotion."""
    tracks = []
    for speaker in range(config.num_speakers):
        for video in range(config.num_videos):
            for number in range(config.num_tracks):
                seeds = (config.seed, speaker, video, number)
                rng = np.random.default_rng([*seeds, 0])
                shares = [NEUTRAL_SHARE] + [(1 - NEUTRAL_SHARE) / (len(ACTED) - 1)] * 4
                tracks.append(
                    DemoTrack(
                        identity_id=f"demo{speaker:02d}",
                        video_id=f"scene{speaker:02d}x{video:02d}",
                        track_num=number + 1,
                        emotion=ACTED[rng.choice(len(ACTED), p=shares)],
                        seconds=round(rng.uniform(config.min_seconds, config.max_seconds), 2),
                        seeds=seeds,
                    )
                )
    return tracks


def write_demo_corpus(root: Path, config: DemoConfig, jobs: int = -1) -> list[DemoTrack]:
    """Write `root/mp4/<identity>/<video>/<n>.mp4`, each file whole or not at all.

    Returns:
        The tracks, with the emotion each one acts.
    """
    tracks = plan_demo(config)
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    written = parallel(joblib.delayed(write_track)(root, track) for track in tracks)
    for _ in tqdm(written, total=len(tracks), desc="corpus", unit="track", disable=None):
        pass
    return tracks


def write_track(root: Path, track: DemoTrack) -> Path:
    """Draw, speak and encode one utterance as H.264 and AAC."""
    path = root / "mp4" / f"{track.track_id}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    seed, speaker, video, _ = track.seeds
    looks = Looks.draw(np.random.default_rng([seed, speaker, 1]))
    scene = Looks.draw(np.random.default_rng([seed, speaker, video, 2]))
    looks = looks.lit_as(scene)
    voice = Speaker.draw(np.random.default_rng([seed, speaker, 3]))
    rng = np.random.default_rng([*track.seeds, 4])
    prosody = PROSODIES[track.emotion]
    utterance = speak(voice, prosody, track.seconds, rng)

    num_frames = round(track.seconds * FPS)
    moments = np.arange(num_frames) / FPS
    jaw = np.interp(moments, np.arange(len(utterance.jaw)) * FRAME / SAMPLE_RATE, utterance.jaw)
    # The expression swells and ebbs, as real ones do.
    swell = 0.8 + 0.2 * np.sin(2 * np.pi * moments / rng.uniform(2, 4) + rng.uniform(0, 6.3))
    strength = rng.uniform(0.8, 1.0) * swell
    sway = rng.uniform(0, 6.3, 3)
    blink_at = rng.uniform(0.5, track.seconds, max(1, int(track.seconds / 3)))
    with replace_file(path) as temporary, _Writer(temporary) as writer:
        writer.add_sound(utterance.samples)
        for i, moment in enumerate(moments):
            blink = float(np.clip(1 - np.abs(blink_at - moment).min() / 0.08, 0, 1))
            centre = (
                112 + 2.5 * np.sin(0.9 * moment + sway[0]),
                84 + 2.0 * np.sin(0.7 * moment + sway[1]) + 1.5 * jaw[i] * prosody.energy,
            )
            roll = 0.03 * np.sin(0.6 * moment + sway[2])
            expression = EXPRESSIONS[track.emotion].scaled(strength[i])
            writer.add_frame(
                draw_face(looks, expression, jaw[i] * prosody.energy, blink, centre, roll)
            )
    return path


class _Writer:
    """An mp4 like those of VoxCeleb2: H.264 at 25 fps, AAC at 16 kHz mono."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w", format="mp4")
        self._video = self._container.add_stream("libx264", rate=FPS)
        self._video.width = self._video.height = SIDE
        self._video.pix_fmt = "yuv420p"
        # One thread and no macroblock tree: otherwise x264 is not repeatable to the bit.
        self._video.options = {
            "crf": "20",
            "preset": "veryfast",
            "threads": "1",
            "x264-params": "mbtree=0",
        }
        self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE)
        self._audio.layout = "mono"
        self._num_frames = 0

    def __enter__(self) -> "_Writer":
        return self

    def add_frame(self, image: np.ndarray) -> None:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = self._num_frames
        frame.time_base = Fraction(1, FPS)
        self._num_frames += 1
        self._container.mux(self._video.encode(frame))

    def add_sound(self, samples: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = 0
        self._container.mux(self._audio.encode(frame))

    def __exit__(self, *exception: object) -> None:
        for stream in (self._video, self._audio):
            self._container.mux(stream.encode(None))
        self._container.close()
