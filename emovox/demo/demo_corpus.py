"""The demo's corpus: synthetic speaking faces and voices in the layout of VoxCeleb2.

A voice is glottal pulses through formants, with the prosody of an emotion.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import cv2
import joblib
import numpy as np
from scipy.signal import lfilter
from tqdm import tqdm

from emovox.demo.face import EXPRESSIONS, SIDE, Looks, draw_face
from emovox.files import replace_file
from emovox.ids import TrackKey

SAMPLE_RATE = 16_000  # Hz, as in VoxCeleb
FRAME = 80  # samples per value of pitch and formants, 5 ms

# First three formants in Hz of five vowels, for a vocal tract of average length.
VOWELS = np.array(
    [[730, 1090, 2440], [530, 1840, 2480], [390, 1990, 2550], [570, 840, 2410], [440, 1020, 2240]]
)
BANDWIDTHS = (80.0, 110.0, 160.0)  # Hz


@dataclass(frozen=True)
class Prosody:
    """Prosody of an emotion, relative to neutral speech of the same speaker."""

    pitch: float  # factor on the mean pitch
    pitch_range: float  # factor on the variation of the pitch
    rate: float  # factor on syllables per second
    energy: float  # factor on the amplitude and on the opening of the jaw
    tilt: float  # 0..1; loss of the high harmonics
    breath: float  # standard deviation of the noise in the source; its pulses have height 1


PROSODIES = {
    "neutral": Prosody(1.0, 1.0, 1.0, 0.4, 0.80, 0.01),
    "happiness": Prosody(1.3, 1.9, 1.15, 0.7, 0.60, 0.01),
    "surprise": Prosody(1.55, 2.4, 0.95, 0.85, 0.65, 0.02),
    "sadness": Prosody(0.85, 0.5, 0.72, 0.3, 0.93, 0.03),
    "anger": Prosody(1.2, 1.4, 1.25, 1.0, 0.35, 0.01),
}


@dataclass(frozen=True)
class Speaker:
    """One synthetic voice."""

    pitch: float  # mean, in Hz
    tract: float  # factor on the formants
    rate: float  # syllables per second

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Speaker":
        """Draw a low or a high voice at random."""
        low = rng.random() < 0.5
        pitch = rng.uniform(95, 135) if low else rng.uniform(170, 225)
        return cls(pitch, rng.uniform(0.92, 1.02) if low else rng.uniform(1.05, 1.18), 4.2)


def speak(
    voice: Speaker, prosody: Prosody, seconds: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Synthesize nonsense syllables.

    Return the samples, float32 `[L]` at 16 kHz within -1..1, and the opening of the jaw, float64
    `[L / 80]` within 0..1, one value per 5 ms.
    """
    num_frames = round(seconds * SAMPLE_RATE / FRAME)
    time = np.arange(num_frames) * FRAME / SAMPLE_RATE
    rate = voice.rate * prosody.rate
    num_syllables = int(seconds * rate / 0.75) + 2  # enough even if all are short
    lengths = rng.uniform(0.75, 1.25, num_syllables) / rate
    onsets = np.concatenate([[0.0], lengths.cumsum()])
    syllable = np.searchsorted(onsets, time, side="right") - 1
    phase = (time - onsets[syllable]) / lengths[syllable]
    stress = rng.uniform(0.6, 1.0, num_syllables)
    stress[rng.random(num_syllables) < 0.12] = 0.0  # pauses
    jaw = np.sin(np.pi * phase) ** 1.5 * stress[syllable]

    accents = rng.normal(0, 0.10, num_syllables)[syllable] * np.sin(np.pi * phase)
    phrase = 0.08 * np.sin(2 * np.pi * time / rng.uniform(1.4, 2.2)) - 0.03 * (time % 2.0)
    pitch = voice.pitch * prosody.pitch * np.exp(prosody.pitch_range * (accents + phrase))

    vowels = VOWELS[rng.integers(len(VOWELS), size=num_syllables)] * voice.tract
    source = _glottis(pitch, prosody, rng)
    sound = _through_formants(source, vowels[syllable]) * np.repeat(0.02 + jaw, FRAME)
    level = 0.1 * prosody.energy / max(float(np.sqrt(np.mean(sound**2))), 1e-9)
    return (np.tanh(sound * level) + rng.normal(0, 5e-4, len(sound))).astype(np.float32), jaw


def _glottis(pitch: np.ndarray, prosody: Prosody, rng: np.random.Generator) -> np.ndarray:
    """Return the sound of the vocal folds: one pulse per period, low-passed, with noise."""
    jitter = 1 + 0.01 * rng.normal(size=len(pitch))
    phase = np.repeat(pitch * jitter, FRAME).cumsum() / SAMPLE_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    noise = rng.normal(size=len(pulses)) * prosody.breath
    return np.asarray(lfilter([1 - prosody.tilt], [1, -prosody.tilt], pulses + noise))


def _through_formants(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Filter a source through resonators with time-varying frequencies `[frames, 3]` in Hz."""
    sound = source
    for k, bandwidth in enumerate(BANDWIDTHS):
        # Smoothing over half a syllable makes the vowels glide into each other.
        window = np.hanning(25)
        smooth = np.convolve(np.pad(formants[:, k], 12, "edge"), window / window.sum(), "valid")
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
        filtered = np.empty_like(sound)
        state = np.zeros(2)
        for i, frequency in enumerate(smooth):
            cos = np.cos(2 * np.pi * frequency / SAMPLE_RATE)
            denominator = [1.0, -2 * radius * cos, radius**2]
            part, gain = slice(i * FRAME, (i + 1) * FRAME), sum(denominator)
            filtered[part], state = lfilter([gain], denominator, sound[part], zi=state)
        sound = filtered
    return sound


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


def write_demo_corpus(root: Path, config: DemoConfig, jobs: int = -1) -> None:
    """Write `root/mp4/<identity>/<video>/<n>.mp4`, each file atomically.

    `jobs` is the number of worker processes; -1 means one per core.
    """
    tracks = plan_demo(config)
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    written = parallel(joblib.delayed(write_track)(root, track) for track in tracks)
    for _ in tqdm(written, total=len(tracks), desc="corpus", unit="track", disable=None):
        pass


def write_track(root: Path, track: DemoTrack) -> Path:
    """Draw, speak and encode one utterance; return its path below `root`."""
    path = root / "mp4" / f"{track.key.track_id}.mp4"
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
