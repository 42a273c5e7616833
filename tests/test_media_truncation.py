"""Tests of files that are cut short, and of healthy files that must not seem so."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from emovox.errors import InputError, TrackError
from emovox.media.audio import audio_duration, read_audio
from emovox.media.containers import missing_end
from emovox.media.video import VideoTrack

SOUND = {  # ending -> codec
    "mp3": "libmp3lame",
    "ogg": "libvorbis",
    "opus": "libopus",
    "mka": "flac",
    "weba": "libopus -f webm",
    "caf": "pcm_s16le",
    "w64": "pcm_s24le",
    "aiff": "pcm_s16be",
    "au": "pcm_s16be",
    "wav": "adpcm_ima_wav",
    "m4a": "aac",
    "flac": "flac",
}
VIDEO = {
    "avi": "mpeg4 -c:a mp3",
    "mkv": "libx264",
    "webm": "libvpx -c:a libopus -ar 48000",
    "flv": "libx264 -c:a aac -ar 22050",
    "ts": "libx264",
    "m2ts": "libx264",
    "mp4": "libx264 -movflags faststart",
}


def ffmpeg(*arguments: str | Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def noise(path: Path, recipe: str) -> Path:
    """Write 3 s of noise with ffmpeg; `recipe` is the codec and further options."""
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=r=48000:d=3:a=0.1", "-c:a", *recipe.split(), path)
    return path


def noisy_video(path: Path, recipe: str) -> Path:
    inputs = (
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=96x64:r=25:d=3",
        "-f",
        "lavfi",
        "-i",
        "anoisesrc=d=3",
    )
    ffmpeg(*inputs, "-c:v", *recipe.split(), path)
    return path


def refused(path: Path, shares: tuple[float, ...] = (0.3, 0.5, 0.8, 0.97)) -> None:
    """Check that the sound of a file is read, and refused if the file is cut short."""
    assert len(read_audio(path)) >= 47_000
    assert audio_duration(path) == pytest.approx(3, abs=0.3)
    assert missing_end(path) == ""
    whole = path.read_bytes()
    for share in shares:
        path.write_bytes(whole[: int(len(whole) * share) | 1])
        for read in (read_audio,) if path.suffix == ".flac" else (read_audio, audio_duration):
            if path.suffix != ".m4a" or read is read_audio:
                with pytest.raises(InputError):
                    read(path)
    path.write_bytes(whole)


@pytest.mark.parametrize("ending", SOUND)
def test_sound_cut_short(tmp_path: Path, ending: str) -> None:
    refused(noise(tmp_path / f"a.{ending}", SOUND[ending]))


@pytest.mark.parametrize("form", ["RF64", "W64", "AIFF", "AU", "WAV", "WAVEX", "CAF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_sound_of_libsndfile_cut_short(tmp_path: Path, form: str, subtype: str) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    soundfile.write(tmp_path / "a", samples, 16_000, subtype, format=form)
    refused(tmp_path / "a")


@pytest.mark.parametrize("codec", ["g726", "g722", "adpcm_ms", "adpcm_ima_wav", "libmp3lame"])
def test_coded_wav_cut_short(tmp_path: Path, codec: str) -> None:
    refused(noise(tmp_path / "a.wav", f"{codec} -ar {8000 if codec == 'g726' else 16_000}"))


@pytest.mark.parametrize("ending", VIDEO)
def test_video_cut_short(tmp_path: Path, ending: str) -> None:
    path = noisy_video(tmp_path / f"a.{ending}", VIDEO[ending])
    assert len(list(VideoTrack(path, 0.24))) == 13
    whole = path.read_bytes()
    if ending != "mp4":
        refused(path)
    for share in (0.4, 0.8):
        path.write_bytes(whole[: int(len(whole) * share) | 1])
        with pytest.raises(TrackError):
            list(VideoTrack(path, 0.24))


def test_a_stream_that_begins_midway(tmp_path: Path) -> None:
    """A tag of data in FLV, for which PyAV has no place."""
    path = noisy_video(tmp_path / "a.flv", VIDEO["flv"])
    script = b"\x02\0\x07onText\0\x08\0\0\0\x01\0\x04text\x02\0\x01a\0\0\x09"
    tag = b"\x12" + len(script).to_bytes(3, "big") + bytes(7) + script
    tag += len(tag).to_bytes(4, "big")
    path.write_bytes(path.read_bytes() + tag)
    assert len(read_audio(path)) >= 47_000 and audio_duration(path) == pytest.approx(3, abs=0.3)
    assert len(list(VideoTrack(path, 0.24))) == 13


def test_a_cluster_cut_short_in_a_segment_of_unknown_size(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(ffmpeg("-i", noisy_video(tmp_path / "b.mkv", "libx264"), "-c", "copy",
                            "-f", "matroska", "-cluster_time_limit", "500", "-"))  # fmt: skip
    refused(path)


# Healthy files


def test_healthy_files_of_unknown_length(tmp_path: Path) -> None:
    """Programs that write to a pipe do not know the sizes."""
    tone = ("-f", "lavfi", "-i", "sine=r=16000:d=3")
    video = noisy_video(tmp_path / "video.mp4", "libx264")
    for form, codec in (
        ("wav", "pcm_s16le"),
        ("w64", "pcm_s16le"),
        ("au", "pcm_s16be"),
        ("ogg", "libvorbis"),
        ("mp3", "libmp3lame -write_xing 0"),
        ("mp3", "libmp3lame -id3v2_version 3 -metadata title=a -write_id3v1 1"),
        ("flac", "flac"),
        ("asf", "wmav2"),
        ("adts", "aac"),
        ("matroska", "flac"),
        ("webm", "libopus -live 1"),
    ):
        path = tmp_path / f"a.{form}"
        path.write_bytes(ffmpeg(*tone, "-c:a", *codec.split(), "-f", form, "-"))
        assert len(read_audio(path)) >= 47_000, codec
        assert audio_duration(path) == pytest.approx(3, abs=0.15)
    for form in ("avi", "flv", "mpegts", "matroska", "asf", "mpeg"):
        path = tmp_path / f"a.{form}"
        codecs = ("-c:v", "mpeg2video", "-c:a", "mp2") if form in ("mpeg", "avi") else ()
        path.write_bytes(ffmpeg("-i", video, *codecs, "-ar", "22050", "-f", form, "-"))
        assert len(read_audio(path)) >= 47_000, form
        assert len(list(VideoTrack(path, 0.24))) == 13
    path = tmp_path / "live.mkv"
    path.write_bytes(ffmpeg("-i", video, "-c", "copy", "-f", "matroska", "-live", "1", "-"))
    assert len(read_audio(path)) >= 47_000


def test_healthy_files_with_more_around_the_sound(tmp_path: Path) -> None:
    wav = noise(tmp_path / "a.wav", "pcm_s16le -ar 16000")
    data = wav.read_bytes()
    wav.write_bytes(data + b"id3 " + (100).to_bytes(4, "little") + bytes(100))
    assert len(read_audio(wav)) == 48_000
    mp3 = noise(tmp_path / "a.mp3", "libmp3lame -ar 16000")
    mp3.write_bytes(mp3.read_bytes() + b"TAG" + bytes(125))
    assert len(read_audio(mp3)) >= 48_000
    avi = noisy_video(tmp_path / "a.avi", "mpeg4")
    avi.write_bytes(avi.read_bytes() + bytes(3))
    assert len(read_audio(avi)) >= 48_000


def test_chained_ogg(tmp_path: Path) -> None:
    parts = [noise(tmp_path / f"{k}.ogg", "libvorbis -ar 16000").read_bytes() for k in range(2)]
    path = tmp_path / "a.ogg"
    path.write_bytes(parts[0] + parts[1])
    raw = ffmpeg("-i", path, "-f", "s16le", "-")
    assert len(read_audio(path)) == len(raw) // 2 == pytest.approx(96_000, abs=500)
    assert audio_duration(path) == pytest.approx(6, abs=0.05)


def test_random_bytes_after_each_magic(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    magics = [
        *(b"RIFF____WAVE", b"RF64____WAVE", b"RIFF____AVI ", b"FORM____AIFF", b".snd", b"riff"),
        *(b"OggS\0", b"ID3", b"\xff\xfb", b"\x1a\x45\xdf\xa3", b"FLV\1", b"G"),
    ]
    for magic in magics:
        for size in (0, 1, 9, 40, 300, 5000):
            (tmp_path / "a").write_bytes(magic + rng.bytes(size))
            missing_end(tmp_path / "a")
            (tmp_path / "a").write_bytes(magic + bytes(size))
            missing_end(tmp_path / "a")
