"""Tests of the clock of a media file: flash and beep of one moment have the same time."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from emovox.media.audio import SAMPLE_RATE, audio_duration, read_audio
from emovox.media.video import VideoTrack, first_picture

FLASH = 1.2  # seconds; flash and beep last 0.4 s

# Name -> codecs and options. The containers of the first group mark the delay of their sound's
# encoder, or their codec has none.
EXACT = {
    "a.mp4": "libx264 aac",
    "b.mp4": "libx264 aac -bf 3 -g 10",
    "a.mov": "mpeg4 pcm_s16le",
    "a.3gp": "libx264 aac",
    "a.mkv": "libx264 aac",
    "b.mkv": "libx264 flac -bf 3",
    "a.webm": "libvpx libopus -ar 48000",
    "a.ogv": "libtheora libvorbis",
    "a.avi": "mpeg4 pcm_s16le",
    "a.mpg": "mpeg2video mp2 -ar 44100",
    "a.flv": "flv pcm_s16le -ar 44100",
    "a.mxf": "mpeg2video pcm_s16le -ar 48000",
    "a.ts": "libx264 aac",
    "b.ts": "mpeg2video mp2 -bf 2",
    "a.m2ts": "libx264 ac3 -ar 48000",
    "a.MTS": "libx264 ac3 -ar 48000 -f mpegts",
    "b.flv": "libx264 aac -ar 22050",
    "a.vob": "mpeg2video ac3 -ar 48000",
    "a.wmv": "wmv2 wmav2",
}
OTHERS = {
    "b.avi": "mpeg4 libmp3lame -bf 2",
    "c.avi": "libx264 ac3 -ar 48000",
}


def ffmpeg(*arguments: str | Path) -> str:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-hide_banner", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 3 s of black and silence with a flash and a beep, without loss."""
    path = tmp_path_factory.mktemp("clock") / "source.mkv"
    during = f"between(t,{FLASH},{FLASH + 0.399})"
    picture = f"color=black:s=96x64:r=25:d=3,drawbox=c=white:t=fill:enable='{during}'"
    sound = f"aevalsrc='0.5*sin(2*PI*1000*t)*{during}':s=16000:d=3"
    inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound)
    ffmpeg(*inputs, "-c:v", "ffv1", "-c:a", "pcm_s16le", path)
    return path


def encode(source: Path, path: Path, recipe: str, *options: str | Path) -> Path:
    video, sound, *more = recipe.split()
    ffmpeg("-i", source, *options, "-c:v", video, "-c:a", sound, *more, path)
    return path


def apart(path: Path) -> float:
    """Return the seconds from flash to beep, as emovox reads them."""
    frames = [(frame.time, frame.image.mean()) for frame in VideoTrack(path, 0.04)]
    assert frames[0][0] == 0
    flash = next(time for time, mean in frames if mean > 128)
    samples = read_audio(path)
    loud = np.abs(samples) > 0.1
    beep = int(np.argmax(loud)) / SAMPLE_RATE
    assert loud.any()
    part = read_audio(path, max(0, beep - 0.1), beep + 0.1)
    expected = samples[round(max(0, beep - 0.1) * SAMPLE_RATE) :][: len(part)]
    np.testing.assert_allclose(part, expected, atol=0.02)
    assert abs(audio_duration(path) - len(samples) / SAMPLE_RATE) < 0.1
    return beep - flash


def apart_in_ffmpeg(path: Path) -> float:
    log = ffmpeg(
        *("-copyts", "-i", path, "-vf", "blackdetect=d=0.01", "-af", "silencedetect=n=-24dB:d=0.2"),
        *("-f", "null", "-"),
    )
    flash, beep = (
        re.findall(rf"{word}: ?([\d.]+)", log)[0] for word in ("black_end", "silence_end")
    )
    return float(beep) - float(flash)


@pytest.mark.parametrize("name", [*EXACT, *OTHERS])
def test_every_container(tmp_path: Path, source: Path, name: str) -> None:
    path = encode(source, tmp_path / name, (EXACT | OTHERS)[name])
    assert apart(path) == pytest.approx(apart_in_ffmpeg(path), abs=0.005)
    if name in EXACT:
        assert abs(apart(path)) < 0.005
    assert first_picture(path) == next(iter(VideoTrack(path, 0.5))).pts


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "b.flv", "a.webm", "a.mpg"])
def test_pictures_that_begin_late(tmp_path: Path, source: Path, name: str) -> None:
    late = ("-vf", "select='gte(t,0.6)'", "-fps_mode", "passthrough", "-copyts")
    path = encode(source, tmp_path / name, EXACT[name], *late)
    assert abs(apart(path)) < 0.005
    (first, *_), track = list(track := VideoTrack(path, 0.24)), track
    assert first.time == 0
    assert track.sound_offset == pytest.approx(-0.6, abs=0.07)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "b.flv", "a.webm", "a.mpg"])
@pytest.mark.parametrize("seconds", [0.7, 1.0])
def test_sound_that_begins_late(tmp_path: Path, source: Path, name: str, seconds: float) -> None:
    late = ("-af", f"aselect='gte(t,{seconds})'", "-copyts")
    path = encode(source, tmp_path / name, EXACT[name], *late)
    assert abs(apart(path)) < 0.005
    assert not read_audio(path, 0.1, 0.5).any()
    assert len(read_audio(path, 0.1, 0.5)) == 6400
    list(track := VideoTrack(path, 0.24))
    assert track.sound_offset == pytest.approx(seconds, abs=0.09)
    begin = round((track.sound_offset or 0) * SAMPLE_RATE)
    assert not read_audio(path)[:begin].any()


@pytest.mark.parametrize("bf", ["0", "3"])
@pytest.mark.parametrize("start", ["0.33", "0.5", "0.97"])
def test_edit_lists_of_pictures(tmp_path: Path, source: Path, start: str, bf: str) -> None:
    whole = encode(source, tmp_path / "whole.mp4", f"libx264 aac -g 20 -bf {bf}")
    path = tmp_path / "cut.mp4"
    ffmpeg("-ss", start, "-i", whole, "-c", "copy", path)
    assert abs(apart(path)) < 0.005


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("stream", ["0:a -map 1:v", "1:a -map 0:v"])
def test_edit_lists_of_a_late_stream(
    tmp_path: Path, source: Path, ending: str, stream: str
) -> None:
    whole = encode(source, tmp_path / "whole.mp4", "libx264 aac -bf 2")
    ffmpeg("-i", whole, "-itsoffset", "2.43", "-i", whole, "-map", *stream.split(), "-c", "copy",
           path := tmp_path / f"late.{ending}")  # fmt: skip
    late = 2.43 if stream.startswith("1:a") else -2.43
    if late > 0:
        assert apart(path) == pytest.approx(late, abs=0.005)
        assert abs(audio_duration(path) - len(read_audio(path)) / SAMPLE_RATE) < 0.1
    list(track := VideoTrack(path, 0.24))
    assert track.sound_offset == pytest.approx(late, abs=0.065)  # silence of the encoder
    if late < 0:
        assert len(read_audio(path)) == pytest.approx((3.0 - 2.43) * SAMPLE_RATE, abs=1200)


@pytest.mark.parametrize("options", ["-g 12 -bf 2 -flags -cgop", "-g 25 -bf 0"])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.15, 0.25])
@pytest.mark.parametrize("codecs", ["mpeg2video mp2", "libx264 aac"])
def test_a_transport_stream_cut_at_a_random_place(
    tmp_path: Path, source: Path, codecs: str, options: str, share: float
) -> None:
    whole = encode(source, tmp_path / "whole.ts", f"{codecs} {options} -x264opts open-gop=1"
                   if "x264" in codecs else f"{codecs} {options}")  # fmt: skip
    data = whole.read_bytes()
    place = int(len(data) * share) // 188 * 188
    path = tmp_path / "cut.ts"
    path.write_bytes(data[: 3 * 188] + data[place:])
    assert apart(path) == pytest.approx(apart_in_ffmpeg(path), abs=0.005)


def test_a_gap_in_the_sound_keeps_its_length(tmp_path: Path, source: Path) -> None:
    gap = ("-af", "aselect='not(between(t,0.3,0.8))'", "-copyts")
    for name in ("a.mkv", "a.mp4", "a.ts"):
        path = encode(source, tmp_path / name, EXACT[name], *gap)
        assert abs(apart(path)) < 0.005


def test_pictures_that_cannot_be_decoded(tmp_path: Path, source: Path) -> None:
    late = ("-af", "aselect='gte(t,0.7)'", "-copyts")
    path = encode(source, tmp_path / "a.mp4", EXACT["a.mp4"], *late)
    expected = read_audio(path)
    data = path.read_bytes()
    path.write_bytes(data[:100] + data[100:].replace(b"avc1", b"qqqq"))
    np.testing.assert_array_equal(read_audio(path), expected)


def test_a_cover_picture_has_no_time(tmp_path: Path, source: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", tmp_path / "cover.png")
    ffmpeg("-i", source, "-vn", plain := tmp_path / "plain.mp3")
    path = tmp_path / "a.mp3"
    ffmpeg("-i", plain, "-i", tmp_path / "cover.png", "-map", "0", "-map", "1", "-c", "copy", path)
    np.testing.assert_array_equal(read_audio(path), read_audio(plain))
    assert first_picture(path) is None
