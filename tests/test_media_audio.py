"""Tests of reading audio: levels, channels, rates, parts of files, and bad files."""

import os
import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emovox.corpus.tracks import AUDIO_ENDINGS, MEDIA_ENDINGS
from emovox.errors import InputError
from emovox.media.audio import SAMPLE_RATE, audio_duration, read_audio
from emovox.media.sound_decoders import AvFile


def speechlike(num_samples: int, rate: int, num_channels: int = 1) -> np.ndarray:
    """Return float32 `[L, C]`: a rising tone with little noise, different in every channel."""
    rng = np.random.default_rng(0)
    t = np.arange(num_samples)[:, None] / rate
    tones = np.sin(2 * np.pi * (150 + 60 * t + 90 * np.arange(num_channels)) * t)
    return (0.3 * tones + 0.01 * rng.standard_normal(tones.shape)).astype(np.float32)


def encode(path: Path, codec: str, rate: int, samples: np.ndarray, **options: str) -> Path:
    """Write samples `[L, C]` with FFmpeg, in the container of the file extension."""
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(samples.T.copy(), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in (frame, None):
            container.mux(stream.encode(part))
    return path


# File name -> codec, sample rate, tolerance of the decoded samples.
CODED = {
    "aac.m4a": ("aac", 16_000, 0.05),
    "aac44.mp4": ("aac", 44_100, 0.05),
    "alac.m4a": ("alac", 48_000, 1e-4),
    "opus.webm": ("libopus", 48_000, 0.1),
    "opus.ogg": ("libopus", 48_000, 0.1),
    "mp3.mp3": ("libmp3lame", 22_050, 0.1),
    "flac.mka": ("flac", 16_000, 1e-4),
    "adts.aac": ("aac", 16_000, 0.05),
}


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a stereo file of 3.1 s in each format, without the random noise of AAC."""
    folder = tmp_path_factory.mktemp("coded")
    paths = {}
    for name, (codec, rate, _) in CODED.items():
        options = {"aac_pns": "0"} if codec == "aac" else {}
        samples = speechlike(int(3.1 * rate), rate, 2)
        paths[name] = encode(folder / name, codec, rate, samples, **options)
    return paths


# Levels and channels


@pytest.mark.parametrize(
    ("ending", "subtype", "bits"),
    [
        ("wav", "PCM_U8", 8),
        ("wav", "PCM_16", 16),
        ("wav", "PCM_24", 20),
        ("wav", "FLOAT", 20),
        ("flac", "PCM_S8", 8),
        ("flac", "PCM_16", 16),
    ],
)
def test_levels_are_fractions_of_full_scale(
    tmp_path: Path, ending: str, subtype: str, bits: int
) -> None:
    samples = speechlike(4000, SAMPLE_RATE)
    soundfile.write(tmp_path / f"a.{ending}", samples, SAMPLE_RATE, subtype)
    found = read_audio(tmp_path / f"a.{ending}")
    assert found.dtype == np.float32 and found.shape == (4000,)
    np.testing.assert_allclose(found, samples[:, 0], rtol=0, atol=1.01 / 2 ** (bits - 1))


def test_stereo_becomes_the_mean_or_the_left_channel(tmp_path: Path) -> None:
    samples = speechlike(4000, SAMPLE_RATE, 2)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, "FLOAT")
    mean, left = (read_audio(tmp_path / "a.wav", channels=name) for name in ("mean", "left"))  # type: ignore[arg-type]
    np.testing.assert_allclose(mean, samples.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(left, samples[:, 0])
    with pytest.raises(ValueError, match="'right' is not one of mean, left"):
        read_audio(tmp_path / "a.wav", channels="right")  # type: ignore[arg-type]


def test_beyond_full_scale_is_clipped(tmp_path: Path) -> None:
    samples = np.array([0.5, 1.5, -2, 1], np.float32)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, "FLOAT")
    assert read_audio(tmp_path / "a.wav").tolist() == [0.5, 1, -1, 1]


@pytest.mark.parametrize("name", CODED)
def test_every_format_returns_the_written_samples(coded: dict[str, Path], name: str) -> None:
    _, rate, tolerance = CODED[name]
    found = read_audio(coded[name])
    assert 3.1 * SAMPLE_RATE - 1 <= len(found) <= (3.1 + 0.2) * SAMPLE_RATE
    original = speechlike(int(3.1 * rate), rate, 2).mean(axis=1)
    if name == "adts.aac":  # cannot mark the silence at the start of the encoder
        found = found[1024:]
    num = int(3 * SAMPLE_RATE)
    times = np.arange(num) / SAMPLE_RATE
    expected = np.interp(times, np.arange(len(original)) / rate, original)
    error = (found[:num] - expected)[SAMPLE_RATE // 10 :]
    assert np.sqrt(np.mean(error**2)) < max(tolerance, 0.02) * 0.3
    assert abs(audio_duration(coded[name]) - len(read_audio(coded[name])) / SAMPLE_RATE) < 0.1


def test_duration_from_the_header(tmp_path: Path) -> None:
    for num in (1, 1600, 44_100):
        for ending in ("wav", "flac"):
            path = tmp_path / f"a.{ending}"
            soundfile.write(path, np.zeros(num), 44_100)
            assert audio_duration(path) == pytest.approx(num / 44_100, abs=1e-9)


# Rates


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 7999, 44_099])
def test_resampling_against_sines(tmp_path: Path, rate: int) -> None:
    """Sines below 7.2 kHz are kept, those above 8 kHz are removed."""
    rng = np.random.default_rng(rate)
    kept = rng.uniform(50, min(7200, 0.44 * rate), 10)
    lost = rng.uniform(8100, 0.5 * rate, 10) if rate > 2 * SAMPLE_RATE else np.empty(0)
    phases = rng.uniform(0, 2 * np.pi, 20)

    def sines(frequencies: np.ndarray, times: np.ndarray) -> np.ndarray:
        angles = 2 * np.pi * frequencies[:, None] * times
        waves = 0.04 * np.sin(angles + phases[: len(frequencies), None])
        return waves.sum(axis=0)

    times = np.arange(rate) / rate
    samples = (sines(kept, times) + sines(lost, times)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, "FLOAT")
    found = read_audio(tmp_path / "a.wav")
    assert abs(len(found) - SAMPLE_RATE) <= 3
    inner = slice(400, SAMPLE_RATE - 400)
    expected = sines(kept, np.arange(len(found)) / SAMPLE_RATE)
    error = np.sqrt(np.mean((found - expected)[inner] ** 2) / np.mean(expected[inner] ** 2))
    assert 20 * np.log10(error) < -75


def test_resample_false_keeps_the_samples(tmp_path: Path) -> None:
    samples = speechlike(48_000, 48_000)
    soundfile.write(tmp_path / "a.wav", samples, 48_000, "FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", resample=False), samples[:, 0])
    part = read_audio(tmp_path / "a.wav", 0.5, 0.75, resample=False)
    np.testing.assert_array_equal(part, samples[8000:12_000, 0])


# Containers and codecs


WAV_CODECS = ("g726", "adpcm_ms", "adpcm_ima_wav", "libmp3lame", "ac3", "wmav2", "g722", "flac")


def run_ffmpeg(*arguments: str | Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize("name", [*(f"{codec}.wav" for codec in WAV_CODECS), "pcm.avi", "mp3.avi"])
def test_sound_by_content(tmp_path: Path, name: str) -> None:
    """A RIFF file may be a WAV of any codec or an AVI; ffmpeg gives the expected samples."""
    codec, ending = name.split(".")
    codec = {"pcm": "pcm_s16le", "mp3": "libmp3lame"}.get(codec, codec)
    rate = "48000" if codec in ("ac3", "wmav2") else "8000"
    tone = ("-f", "lavfi", "-i", "aevalsrc='0.3*sin(2*PI*(200+100*t)*t)':d=3:s=16000")
    picture = ("-f", "lavfi", "-i", "color=s=64x64:r=25:d=3") if ending == "avi" else ()
    run_ffmpeg(*tone, *picture, "-c:a", codec, "-ar", rate, path := tmp_path / f"a.{ending}")
    raw = run_ffmpeg("-i", path, "-f", "f32le", "-ac", "1", "-ar", "16000", "-")
    expected, found = np.frombuffer(raw, np.float32), read_audio(path)
    assert abs(len(found) - len(expected)) <= 2
    num = min(len(found), len(expected))
    error = found[:num] - expected[:num]
    assert np.sqrt(np.mean(error**2)) < 0.01


@pytest.mark.parametrize("marked", [None, 0, 1])
def test_the_default_stream_of_sound(tmp_path: Path, marked: int | None) -> None:
    tones = [w for k in (1, 2) for w in ("-f", "lavfi", "-i", f"aevalsrc='0.{k}':d=1:s=16000")]
    marks = ["-disposition:a", "0"]
    marks += [] if marked is None else [f"-disposition:a:{marked}", "default"]
    path = tmp_path / "a.mka"
    passed = ("-map", "0", "-map", "1", "-c:a", "flac", "-default_mode", "passthrough")
    run_ffmpeg(*tones, *passed, *marks, path)
    assert read_audio(path)[8000] == pytest.approx(0.1 * (1 + (marked or 0)), abs=1e-3)


@pytest.mark.parametrize(
    "name", ["-a", "a: 10:30", "100%d 50%", "Zo\udceb", "concat:a|b", "file:a"]
)
@pytest.mark.parametrize("ending", ["wav", "m4a", "flac", "mp3"])
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str) -> None:
    monkeypatch.chdir(tmp_path)
    run_ffmpeg("-f", "lavfi", "-i", "sine=r=16000:d=1", tmp_path / f"a.{ending}")
    path = (tmp_path / f"a.{ending}").rename(tmp_path / f"{name}.{ending}")
    for found in (path, Path(path.name)):
        assert len(read_audio(found)) == pytest.approx(16_000, abs=2000)
        assert audio_duration(found) == pytest.approx(1, abs=0.1)


def test_endings_of_media() -> None:
    assert {".mp4", ".mts", ".m2ts", ".vob", ".3gp", ".asf", ".ogv", ".ts"} <= MEDIA_ENDINGS
    assert {".wav", ".flac", ".m4a", ".opus", ".wma", ".aiff"} <= AUDIO_ENDINGS
    assert not MEDIA_ENDINGS & AUDIO_ENDINGS
    assert all(ending == ending.lower() for ending in MEDIA_ENDINGS | AUDIO_ENDINGS)


# Parts of a file


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 11_025, 15_999])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(start=st.floats(0, 2.05), duration=st.floats(0.001, 3))
def test_part_of_a_wav_equals_a_slice_of_the_whole(
    tmp_path: Path, rate: int, start: float, duration: float
) -> None:
    path = tmp_path / f"{rate}.wav"
    if not path.exists():
        soundfile.write(path, speechlike(int(2.1 * rate), rate), rate, "FLOAT")
    check_part(path, start, duration)


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize(
    ("start", "duration"), [(0.0, 0.3), (0.4, 0.2), (1.23456, 1.0), (2.7, None), (0.0001, 9.0)]
)
def test_part_of_a_coded_file_equals_a_slice_of_the_whole(
    coded: dict[str, Path], name: str, start: float, duration: float | None
) -> None:
    check_part(coded[name], start, duration)


def check_part(path: Path, start: float, duration: float | None, tolerance: float = 1e-6) -> None:
    whole = read_audio(path)
    first = round(start * SAMPLE_RATE)
    last = None if duration is None else max(first + 1, round((start + duration) * SAMPLE_RATE))
    part = read_audio(path, start, None if duration is None else start + duration)
    np.testing.assert_allclose(part, whole[first:last], rtol=0, atol=tolerance)


def test_damage_elsewhere_does_not_affect_a_part(tmp_path: Path) -> None:
    samples = speechlike(60 * 16_000, 16_000)
    path = encode(tmp_path / "a.m4a", "aac", 16_000, samples, aac_pns="0")
    expected = read_audio(path, 30, 34)
    data = bytearray(path.read_bytes())
    for start, end in ((0.1, 0.45), (0.6, 0.9)):
        damaged = slice(int(start * len(data)), int(end * len(data)))
        data[damaged] = np.random.default_rng(0).bytes(damaged.stop - damaged.start)
    path.write_bytes(data)
    assert refusal(path)
    np.testing.assert_array_equal(read_audio(path, 30, 34), expected)


@pytest.mark.parametrize("part", [(-1.0, None), (0.0, 0.0), (0.0, -1.0), (float("nan"), None)])
def test_invalid_part(tmp_path: Path, part: tuple[float, float | None]) -> None:
    with pytest.raises(ValueError, match="not a valid part of a file"):
        read_audio(tmp_path / "a.wav", *part)


# Bad files


def refusal(path: Path, read: Callable[[Path], object] = read_audio) -> str:
    with pytest.raises(InputError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("read", [read_audio, audio_duration])
def test_missing_files_and_files_without_sound(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    assert refusal(tmp_path / "a.wav", read) == "cannot be read (No such file or directory)"
    assert "cannot be read" in refusal(tmp_path, read)
    (tmp_path / "empty.wav").touch()
    assert refusal(tmp_path / "empty.wav", read) == "the file is empty"
    for ending in ("wav", "m4a", "mp3"):
        (tmp_path / f"text.{ending}").write_text("no sound, but words " * 50)
        assert "cannot be read" in refusal(tmp_path / f"text.{ending}", read)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    assert refusal(tmp_path / "none.wav", read) == "holds no sound"
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        container.mux(stream.encode(picture) + stream.encode(None))
    assert refusal(tmp_path / "video.mp4", read) == "holds no audio stream"


def test_part_after_the_end(tmp_path: Path, coded: dict[str, Path]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    assert len(read_audio(tmp_path / "a.wav", 0.09, 4)) == 160
    for path in (tmp_path / "a.wav", *coded.values()):
        assert refusal(path, lambda path: read_audio(path, 9)) == "holds no sound from 9 s on"


@pytest.mark.parametrize("ending", ["wav", "flac", "m4a"])
def test_cut_short(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    samples = speechlike(32_000, 16_000)
    if ending == "m4a":
        encode(path, "aac", 16_000, samples)
    else:
        soundfile.write(path, samples, 16_000)
    whole = path.read_bytes()
    assert len(read_audio(path)) >= 32_000
    for fraction in (0.02, 0.3, 0.7, 0.95):
        path.write_bytes(whole[: int(len(whole) * fraction)])
        assert refusal(path)


def test_a_fast_start_file_cut_short(tmp_path: Path) -> None:
    """The index is complete, the sound is not."""
    plain = encode(tmp_path / "a.m4a", "aac", 16_000, speechlike(48_000, 16_000))
    path = tmp_path / "b.m4a"
    with (
        av.open(str(plain)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = path.read_bytes()
    assert len(read_audio(path)) >= 48_000
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert "cut short" in refusal(path)
    assert len(read_audio(path, 0.2, 0.7)) == 8000, "a part before the damage is readable"


def test_a_streamed_wav_is_not_cut_short(tmp_path: Path) -> None:
    """Programs that write to a pipe give the largest possible size."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_audio(tmp_path / "a.wav")) == 1600


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = speechlike(1600, 16_000, 2)
    samples[700, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, 16_000, "FLOAT")
    assert refusal(tmp_path / "a.wav") == "a sample is not a finite number"
    assert len(read_audio(tmp_path / "a.wav", 0, 0.01)) == 160


def test_samples_on_another_scale(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 32768 * speechlike(1600, 16_000), 16_000, "FLOAT")
    assert "floating-point audio is within -1..1" in refusal(tmp_path / "a.wav")


def test_a_damaged_file_is_read_or_refused(tmp_path: Path, coded: dict[str, Path]) -> None:
    rng = np.random.default_rng(0)
    for name in ("aac.m4a", "opus.ogg", "mp3.mp3", "flac.mka"):
        path = tmp_path / name
        whole = coded[name].read_bytes()
        for _ in range(10):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 20):
                damaged[place] ^= 0x55
            path.write_bytes(damaged)
            try:
                assert np.isfinite(read_audio(path)).all()
            except InputError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.real
def test_real_clips(real_data: Path) -> None:
    clips = sorted((real_data / "voxceleb2-clips").rglob("*.mp4"))
    assert len(clips) == 10
    for path in clips:
        whole = read_audio(path)
        assert abs(len(whole) / SAMPLE_RATE - audio_duration(path)) < 0.1
        assert 0.01 < np.abs(whole).max() <= 1
        check_part(path, 1.2345, 2.0, tolerance=0.01)  # AAC may add random noise


def _wav(rate: int = 16_000, channels: int = 1, size: int = 3200) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate & 0xFFFFFFFF, 2, 16)
    head = b"RIFF" + struct.pack("<I", 3236) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + bytes(3200)


def _flac(rate: int, num_samples: int) -> bytes:
    info = (rate << 44) | (1 << 41) | (15 << 36) | num_samples
    return b"fLaC\x80\0\0\x22" + bytes.fromhex("10001000") + bytes(6) + info.to_bytes(8) + bytes(16)


@pytest.mark.parametrize("reader", [audio_duration, read_audio, lambda p: AvFile(p).read(0, None)])
@pytest.mark.parametrize(
    "content",
    [
        *(_wav(rate=0), _wav(rate=2**32 - 1), _wav(channels=0), _wav(channels=65_535)),
        *(_wav(channels=1000), _flac(2**20 - 1, 10**6)),
    ],
)
def test_headers_of_impossible_sound(tmp_path: Path, reader: Any, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError):
        reader(tmp_path / "a.wav")


def test_lengths_that_a_file_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(_flac(44_100, 2**36 - 1))
    for reader in (audio_duration, read_audio):
        with pytest.raises(InputError, match="cut short"):
            reader(tmp_path / "a.flac")
    (tmp_path / "a.wav").write_bytes(_wav(size=2**31))
    assert len(read_audio(tmp_path / "a.wav")) == 1600  # a recorder that did not know the length


def test_a_fifo_is_no_sound(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    for reader in (audio_duration, read_audio, AvFile):
        with pytest.raises(InputError, match="FIFO"):
            reader(tmp_path / "a.wav")
