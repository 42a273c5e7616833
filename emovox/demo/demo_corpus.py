"""The demo's corpus: synthetic speaking faces in the layout of VoxCeleb2."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
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
NEUTRAL_SHARE = 0.3  # of the tracks; the other emotions share the rest evenly
SHARES = [NEUTRAL_SHARE] + [(1 - NEUTRAL_SHARE) / (len(ACTED) - 1)] * (len(ACTED) - 1)


@dataclass(frozen=True)
class DemoConfig:
    """Size of the synthetic corpus."""

    num_speakers: int = 12  # identities
    num_videos: int = 2  # of each identity, with their own background and light
    num_tracks: int = 4  # utterances of each video
    min_seconds: float = 4.0  # of an utterance
    max_seconds: float = 6.0
    seed: int = 0


@dataclass(frozen=True)
class DemoTrack:
    """One planned utterance."""

    key: TrackKey
    emotion: str  # that is acted
    seconds: float
    seeds: tuple[int, int, int, int]  # of the corpus, speaker, video and track

    @property
    def track_id(self) -> str:
        return self.key.track_id


def plan_demo(config: DemoConfig) -> list[DemoTrack]:
    """Draw emotion and duration of every utterance."""
    tracks = []
    sizes = (range(config.num_speakers), range(config.num_videos), range(config.num_tracks))
    for speaker, video, number in product(*sizes):
        seeds = (config.seed, speaker, video, number)
        rng = np.random.default_rng([*seeds, 0])
        key = TrackKey(f"demo{speaker:02d}", f"scene{speaker:02d}x{video:02d}", number + 1)
        emotion = ACTED[rng.choice(len(ACTED), p=SHARES)]
        seconds = round(rng.uniform(config.min_seconds, config.max_seconds), 2)
        tracks.append(DemoTrack(key, emotion, seconds, seeds))
    return tracks


def write_demo_corpus(root: Path, config: DemoConfig, jobs: int = -1) -> list[DemoTrack]:
    """Write `root/mp4/<identity>/<video>/<n>.mp4`, each file atomically; return the tracks.

    `jobs` is the number of worker processes; -1 means one per core.
    """
    tracks = plan_demo(config)
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    written = parallel(joblib.delayed(write_track)(root, track) for track in tracks)
    for _ in tqdm(written, total=len(tracks), desc="corpus", unit="track", disable=None):
        pass
    return tracks


def write_track(root: Path, track: DemoTrack) -> Path:
    """Draw, speak and encode one utterance; return its path below `root`."""
    path = root / "mp4" / f"{track.track_id}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    seed, speaker, _, _ = track.seeds
    voice = Speaker.draw(np.random.default_rng([seed, speaker, 3]))
    rng = np.random.default_rng([*track.seeds, 4])
    samples, jaw = speak(voice, PROSODIES[track.emotion], track.seconds, rng)
    with replace_file(path) as temporary:
        _encode(temporary, samples, _pictures(track, jaw, rng))
    return path


def _pictures(track: DemoTrack, jaw: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the pictures uint8 `[224, 224, 3]` of an utterance with this opening of the jaw."""
    seed, speaker, video, _ = track.seeds
    looks = Looks.draw(np.random.default_rng([seed, speaker, 1]))
    scene = Looks.draw(np.random.default_rng([seed, speaker, video, 2]))
    looks = replace(looks, background=scene.background, light=scene.light)
    moments = np.arange(round(track.seconds * FPS)) / FPS
    jaw = np.interp(moments, np.arange(len(jaw)) * FRAME / SAMPLE_RATE, jaw)
    energy = PROSODIES[track.emotion].energy
    # The strength of the expression varies slowly, as in real faces.
    swell = 0.8 + 0.2 * np.sin(2 * np.pi * moments / rng.uniform(2, 4) + rng.uniform(0, 6.3))
    strength = rng.uniform(0.8, 1.0) * swell
    sway = rng.uniform(0, 6.3, 3)
    blink_at = rng.uniform(0.5, track.seconds, max(1, int(track.seconds / 3)))
    for i, moment in enumerate(moments):
        blink = float(np.clip(1 - np.abs(blink_at - moment).min() / 0.08, 0, 1))
        centre = (
            112 + 2.5 * np.sin(0.9 * moment + sway[0]),
            84 + 2.0 * np.sin(0.7 * moment + sway[1]) + 1.5 * jaw[i] * energy,
        )
        roll = 0.03 * np.sin(0.6 * moment + sway[2])
        expression = EXPRESSIONS[track.emotion].scaled(strength[i])
        yield draw_face(looks, expression, jaw[i] * energy, blink, centre, roll)


def _encode(path: Path, samples: np.ndarray, images: Iterable[np.ndarray]) -> None:
    """Write an mp4 like those of VoxCeleb2: H.264 at 25 fps, AAC at 16 kHz mono."""
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        # One thread and no macroblock tree: otherwise x264 is not repeatable to the bit.
        repeatable = {"threads": "1", "x264-params": "mbtree=0"}
        video.options = {"crf": "20", "preset": "veryfast"} | repeatable
        audio = container.add_stream("aac", rate=SAMPLE_RATE)
        audio.layout = "mono"
        sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = SAMPLE_RATE, 0
        container.mux(audio.encode(sound))
        for i, image in enumerate(images):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(picture))
        for stream in (video, audio):
            container.mux(stream.encode(None))
