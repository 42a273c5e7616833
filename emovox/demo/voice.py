"""A synthetic voice: glottal pulses through formants, with the prosody of an emotion."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

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
    samples = np.tanh(sound * level) + rng.normal(0, 5e-4, len(sound))
    return samples.astype(np.float32), jaw


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
