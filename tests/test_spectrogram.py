"""Tests of the spectrogram, compared with the reference code and with a naive oracle."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from emovox.media.spectrogram import (
    BUCKETS,
    batch_spectrogram,
    centre_bucket,
    normalise,
    num_frames,
    num_samples,
    spectrogram,
)


def oracle(samples: np.ndarray) -> np.ndarray:
    """Compute the spectrogram by its definition, sample by sample, in double precision."""
    x = samples.astype(float)
    if np.abs(x).max() <= 1:
        x = x * 32768
    filtered, before, output = [], 0.0, 0.0
    for value in x:
        output = value - before + 0.99 * output
        before = value
        filtered.append(output)
    y = np.array(filtered)
    y[1:] -= 0.97 * np.array(filtered)[:-1]
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    starts = range(0, len(y) - 400 + 1, 160)
    transform = np.exp(-2j * np.pi * np.outer(np.arange(512), np.arange(400)) / 512)
    return np.stack([np.abs(transform @ (y[s : s + 400] * window)) for s in starts], axis=1)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to the value, or to a hundredth of the frame's mean.

    A transform in float32 has the same rounding error in every bin; weak bins lose more digits.
    """
    floor = 1e-2 * expected.mean(axis=0, keepdims=True) + 1e-12
    return float((np.abs(found - expected) / np.maximum(expected, floor)).max())


def noise(num: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(num)).astype(np.float32)


UTTERANCES = {
    "quiet": noise(3000, level=1e-4),
    "loud": np.clip(noise(3000, level=0.8), -1, 1),
    "levels": np.round(noise(3000, level=8000)),
    "full-scale": np.sign(noise(3000)),
    "offset": noise(3000, level=0.01) + np.float32(0.5),
    "click": np.eye(1, 3000, 777, dtype=np.float32)[0],
    "one-frame": noise(400),
    "long": noise(40_000),
}


@pytest.mark.parametrize("name", UTTERANCES)
def test_against_the_oracle(name: str) -> None:
    samples = UTTERANCES[name].astype(np.float32)
    expected = oracle(samples)
    found = spectrogram(samples)
    assert found.dtype == np.float32 and found.shape == (512, num_frames(len(samples)))
    assert relative_error(found, expected) < 1e-6
    batch = batch_spectrogram(torch.from_numpy(samples)[None])
    assert batch.dtype == torch.float32 and batch.shape == (1, *expected.shape)
    assert relative_error(batch[0].numpy(), expected) < 1e-4


def test_a_batch_equals_its_utterances() -> None:
    """Include silence and 16-bit levels: each utterance is scaled separately."""
    rows = [noise(9000, seed) for seed in range(40)]
    rows[3] *= 0
    rows[5] = np.round(rows[5] * 10_000)
    batch = batch_spectrogram(torch.from_numpy(np.stack(rows))).numpy()
    for found, row in zip(batch, rows, strict=True):
        assert relative_error(found, spectrogram(row)) < 1e-4
    assert not batch[3].any()


@pytest.mark.parametrize("top", [1.0, np.nextafter(np.float32(1), np.float32(2))])
def test_samples_within_1_are_scaled(top: float) -> None:
    samples = noise(1000)
    samples[10] = top
    expected = spectrogram(32768 * samples.astype(np.float64)) / (1 if top == 1 else 32768)
    for found in (spectrogram(samples), batch_spectrogram(torch.from_numpy(samples)[None])[0]):
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_mirror_and_silence() -> None:
    found = spectrogram(noise(4000))
    np.testing.assert_array_equal(found[1:256], found[:256:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silence = spectrogram(np.zeros(4000, np.float32))
        assert not silence.any() and not normalise(silence).any()


def test_speech_before_digital_silence_stays_finite() -> None:
    samples = np.concatenate([noise(8000), np.zeros(100_000, np.float32)])
    assert np.isfinite(normalise(spectrogram(samples))).all()
    assert normalise(batch_spectrogram(torch.from_numpy(samples)[None])).isfinite().all()


def test_normalise() -> None:
    array = spectrogram(noise(20_000))
    found = normalise(array)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=1, ddof=1), 1, atol=1e-5)
    tensor = normalise(torch.from_numpy(np.stack([array, 3 * array])))
    np.testing.assert_allclose(tensor[1], found, atol=1e-5)
    one_frame = normalise(array[:, :1])
    assert not one_frame.any()


def test_autocast_changes_nothing() -> None:
    samples = torch.from_numpy(np.stack([noise(9000), noise(9000, 1)]))
    with torch.autocast("cpu", torch.bfloat16):
        found = batch_spectrogram(samples)
    torch.testing.assert_close(found, batch_spectrogram(samples), rtol=0, atol=0)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    samples = noise(64_384)
    found = batch_spectrogram(torch.from_numpy(samples).cuda()[None])[0].cpu().numpy()
    assert relative_error(found, spectrogram(samples)) < 1e-4


# Frames and samples


def test_four_seconds() -> None:
    assert num_frames(64_384) == 400 and num_samples(400) == 64_384


@given(st.integers(0, 10**7))
def test_frames_and_samples_agree(num: int) -> None:
    assert num_frames(num_samples(num)) == num
    frames = num_frames(num)
    if num < 400:
        assert frames == 0
    else:
        assert (frames - 1) * 160 + 400 <= num < frames * 160 + 400


@given(st.integers(100, 10**5))
def test_bucket_fits_and_is_central(num: int) -> None:
    start, width = centre_bucket(num)
    assert width in BUCKETS and start >= 0 and start + width <= num
    assert width == 1000 or num - width < 100
    assert abs(start - (num - width) / 2) <= 1


def test_buckets() -> None:
    assert BUCKETS == (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
    assert centre_bucket(100) == (0, 100)
    assert centre_bucket(1110) == (54, 1000)
    with pytest.raises(ValueError, match="99 frames; the smallest bucket has 100"):
        centre_bucket(99)


# Invalid input


def test_invalid_samples() -> None:
    for shape in ((399,), (2, 4000), (0,)):
        with pytest.raises(ValueError, match="expected samples"):
            spectrogram(np.zeros(shape))
    with pytest.raises(ValueError, match="not a finite number"):
        spectrogram(np.array([np.nan] * 400))
    for tensor in (torch.zeros(399), torch.zeros(1, 399), torch.zeros(1, 1, 4000)):
        with pytest.raises(ValueError, match="expected samples"):
            batch_spectrogram(tensor)


# Reference code


@pytest.mark.real
def test_output_of_the_reference_code(real_data: Path) -> None:
    folder = real_data.parent / "golden"
    if not folder.is_dir():
        pytest.skip(f"{folder}: the output of the reference code is missing")
    golden = np.load(folder / "spectrogram_Y8hIVOBuels_0000002.npz")
    samples, rate = soundfile.read(folder / "Y8hIVOBuels_0000002.wav", dtype="float32")
    assert rate == 16_000
    batch = batch_spectrogram(torch.from_numpy(samples)[None])[0].numpy()
    for found in (spectrogram(samples), batch):
        # The reference code adds a dither of a millionth, which changes weak bins.
        raw = golden["raw"]
        np.testing.assert_allclose(found, raw, rtol=1e-4, atol=5e-5 * raw.mean())
        assert np.median(np.abs(found / raw - 1)) < 1e-5
        assert np.linalg.norm(found - raw) / np.linalg.norm(raw) < 1e-5
        start, width = centre_bucket(found.shape[1])
        assert start == golden["crop_start"]
        normalised = normalise(found)[:, start : start + width]
        np.testing.assert_allclose(normalised, golden["normalised_crop"], rtol=0, atol=1e-4)
