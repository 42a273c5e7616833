"""Tests of the decoder in a child process, compared with the one in this process."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from emovox.errors import TrackError
from emovox.media.ffmpeg import FfmpegTrack, find_program
from emovox.media.video import Deadline, VideoTrack
from emovox.testing import coded_frame, write_clip

pytest.importorskip("ffmpeg", reason="needs the extra ffmpeg")

STEP = 0.24
OPEN = {"bf": "3", "g": "12", "flags": "-cgop", "x264-params": "open-gop=1"}
PROGRAMS = sorted({find_program(), imageio_ffmpeg.get_ffmpeg_exe()} - {None})


@pytest.fixture(params=PROGRAMS, ids=lambda path: Path(path).name[:16])
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_same(path: Path, program: str, start: float | None, end: float | None) -> None:
    ours = VideoTrack(path, STEP, start, end)
    child = FfmpegTrack(path, STEP, start, end, Deadline(100), program=program)
    expected, found = list(ours), list(child)
    tolerance = 1e-4 if path.suffix == ".mpg" else 1e-12  # not every frame has a time
    assert expected
    for a, b in zip(expected, found, strict=True):
        assert a.index == b.index
        assert (b.pts, b.time) == pytest.approx((a.pts, a.time), abs=tolerance, rel=1e-12)
        assert np.array_equal(a.image, b.image)
        assert b.image.flags.c_contiguous
    for name in ("num_decoded", "num_expected", "duration", "start_time", "end_time"):
        assert getattr(child, name) == pytest.approx(getattr(ours, name), abs=tolerance)
    assert child.sound_offset == pytest.approx(ours.sound_offset, abs=1e-4)
    assert child.notes == ours.notes


def write_coded(
    path: Path, count: int, fps: str = "25", codec: str = "libx264", **more: object
) -> Path:
    frames = (coded_frame(i, 96, 64) for i in range(count))
    return write_clip(path, frames, fps=Fraction(fps), codec=codec, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("mp4", "libx264", {"bf": "3", "g": "250"}),
        ("mp4", "libx264", OPEN),
        ("mkv", "libx264", OPEN),
        ("ts", "libx264", OPEN),
        ("avi", "libx264", {"bf": "0", "g": "250"}),
        ("avi", "libx264", OPEN),
        ("avi", "mpeg4", {"bf": "2", "g": "30"}),
        ("mpg", "mpeg2video", {"bf": "2", "g": "15"}),
    ],
)
def test_every_container(
    tmp_path: Path, program: str, ending: str, codec: str, options: dict[str, str]
) -> None:
    path = write_coded(tmp_path / f"a.{ending}", 100, "24000/1001", codec, options=options)
    for start, end in ((None, None), (1.05, 2.13)):
        assert_same(path, program, start, end)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_variable_rate_with_a_late_first_frame(tmp_path: Path, program: str, ending: str) -> None:
    gaps = np.random.default_rng(1).integers(10, 90, 60)
    times = [1000.0, *(1000 + np.cumsum(gaps) / 1000)]
    path = write_coded(tmp_path / f"a.{ending}", 61, times=times)
    assert_same(path, program, None, None)
    assert_same(path, program, 0.7, 1.9)


def test_one_frame(tmp_path: Path, program: str) -> None:
    assert_same(write_coded(tmp_path / "a.mp4", 1), program, None, None)


def run_ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_video(tmp_path: Path, program: str, rotation: int) -> None:
    plain, path = write_coded(tmp_path / "plain.mp4", 9), tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", str(rotation), "-i", plain, "-c", "copy", path)
    assert_same(path, program, None, None)


@pytest.mark.parametrize("flips", ["-display_hflip", "-display_vflip"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_mirrored_video(tmp_path: Path, program: str, rotation: int, flips: str) -> None:
    plain, path = write_coded(tmp_path / "plain.mp4", 9), tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", str(rotation), flips, "-i", plain, "-c", "copy", path)
    assert_same(path, program, None, None)


@pytest.mark.parametrize("aspect", ["16/15", "64/45", "8/9", "40/33", "2", "1/100", "100"])
@pytest.mark.parametrize("rotation", [0, 90])
def test_pixels_that_are_not_square(
    tmp_path: Path, program: str, rotation: int, aspect: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (7, 64, 96, 3), np.uint8)
    plain, path = write_clip(tmp_path / "plain.mp4", noise), tmp_path / "a.mp4"
    run_ffmpeg("-i", plain, "-vf", f"setsar={aspect}", tmp_path / "wide.mp4")
    turn = ("-display_rotation", str(rotation)) if rotation else ()
    run_ffmpeg(*turn, "-i", tmp_path / "wide.mp4", "-c", "copy", path)
    assert_same(path, program, None, None)


def with_sound(path: Path, video: Path, *more: str | Path, sound: str = "sine=d=3") -> Path:
    """Write a video again, with sound and the streams and options in `more`."""
    run_ffmpeg("-i", video, "-f", "lavfi", "-i", sound, "-map", "0:v", "-map", "1:a", *more, path)
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv", "avi", "mpg", "mov"])
@pytest.mark.parametrize("seconds", ["0", "0.7", "-0.5"])
def test_sound_offset(tmp_path: Path, program: str, ending: str, seconds: str) -> None:
    plain = write_coded(tmp_path / "plain.mp4", 50)
    path, sound = tmp_path / f"a.{ending}", ("-f", "lavfi", "-i", "sine=r=44100:d=2")
    video = ("-itsoffset", seconds[1:]) if seconds.startswith("-") else ()
    delay = ("-itsoffset", seconds) if not seconds.startswith("-") else ()
    codec = "mpeg2video" if ending == "mpg" else "libx264"
    options = ("-c:v", codec, "-fps_mode", "passthrough", "-enc_time_base", "1/25")
    run_ffmpeg(*video, "-i", plain, *delay, *sound, *options, path)
    assert_same(path, program, None, None)
    list(track := VideoTrack(path, STEP))
    if ending != "avi":  # has no times
        assert track.sound_offset == pytest.approx(float(seconds), abs=0.1)
    assert_same(path, program, 0.5, 99.0)


def test_edit_list_with_sound(tmp_path: Path, program: str) -> None:
    whole, path = write_coded(tmp_path / "whole.mp4", 100), tmp_path / "cut.mp4"
    with_sound(tmp_path / "sound.mp4", whole, "-c:v", "copy")
    run_ffmpeg("-ss", "1.13", "-i", tmp_path / "sound.mp4", "-c", "copy", path)
    assert_same(path, program, None, None)


@pytest.mark.parametrize("default", ["0", "1", "2", None])
def test_several_streams(tmp_path: Path, program: str, default: str | None) -> None:
    """The default stream is used, else the largest."""
    paths = [write_coded(tmp_path / f"{k}.mp4", 9 + k) for k in range(3)]
    inputs = [word for path in paths for word in ("-i", path)]
    tones = ("-f", "lavfi", "-i", "sine=d=1", "-f", "lavfi", "-i", "anullsrc=d=1")
    maps = [word for k in range(5) for word in ("-map", str(k))]
    marks = ["-disposition:v", "0", "-disposition:a", "0"]
    marks += [] if default is None else [f"-disposition:v:{default}", "default"]
    size = ("-s:v:1", "128x96", "-t", "0.5")
    path = tmp_path / "a.mkv"
    run_ffmpeg(*inputs, *tones, *maps, *size, *marks, "-default_mode", "passthrough", path)
    list(track := VideoTrack(path, STEP))
    assert track.num_decoded == 9 + int(default or 1)
    reason = "largest" if default is None else "default"
    assert track.notes == [
        f"3 video streams; used the {reason} one",
        "2 audio streams; used the first one",
    ]
    assert_same(path, program, None, None)


def test_a_cover_picture_in_front(tmp_path: Path, program: str) -> None:
    plain = write_coded(tmp_path / "plain.mp4", 9)
    path, cover = tmp_path / "a.mkv", tmp_path / "cover.png"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=640x480", "-frames:v", "1", cover)
    maps = ("-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic")
    run_ffmpeg("-i", plain, "-i", cover, *maps, path.with_suffix(".mp4"))
    list(track := VideoTrack(path.with_suffix(".mp4"), STEP))
    assert (track.num_decoded, track.notes) == (9, [])
    assert_same(path.with_suffix(".mp4"), program, None, None)
    run_ffmpeg("-i", plain, "-i", cover, "-map", "1", *maps[4:], tmp_path / "cover.mp4")
    assert failure(tmp_path / "cover.mp4", program) == ("open", "NoVideo")


@pytest.mark.parametrize("name", ["-a.mp4", "a: 10:30.mp4", "100%d 50%.mp4", "Zo\udceb.mp4"])
def test_names(tmp_path: Path, program: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_coded(tmp_path / "plain.mp4", 9).rename(tmp_path / name)
    assert_same(Path(name), program, None, None)
    assert_same(tmp_path / name, program, None, None)


def test_edit_list_that_begins_between_key_frames(tmp_path: Path, program: str) -> None:
    whole, path = write_coded(tmp_path / "whole.mp4", 100), tmp_path / "cut.mp4"
    run_ffmpeg("-ss", "1.1", "-i", whole, "-c", "copy", path)
    assert_same(path, program, None, None)


@pytest.mark.parametrize("matrix", ["bt709", "bt470bg"])
def test_colours_follow_the_tags(tmp_path: Path, program: str, matrix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (7, 64, 96, 3), np.uint8)
    plain, path = write_clip(tmp_path / "plain.mp4", noise), tmp_path / "a.mp4"
    run_ffmpeg("-i", plain, "-colorspace", matrix, "-color_range", "pc", path)
    assert_same(path, program, None, None)


@pytest.mark.real
def test_real_clips(real_data: Path, program: str) -> None:
    clips = sorted((real_data / "voxceleb2-clips").glob("mp4/*/*/*.mp4"))
    assert len(clips) == 10
    for clip in clips:
        assert_same(clip, program, None, None)
        assert_same(clip, program, 1.3, 3.1)


# Bad input


def failure(path: Path, program: str, deadline: Deadline | None = None) -> tuple[str, str]:
    with pytest.raises(TrackError) as caught:
        list(FfmpegTrack(path, STEP, deadline=deadline or Deadline(None), program=program))
    assert str(path.parent) not in caught.value.message
    return caught.value.stage, caught.value.error


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(data)


def silence(path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "sine=duration=0.5", "-c:a", "aac", path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "stage", "errors"),
    [
        (Path.unlink, "open", {"FileNotFound"}),
        (make_folder, "open", {"NotAFile"}),
        (lambda path: path.write_bytes(b""), "open", {"InvalidData"}),
        (lambda path: path.write_text("no video\n" * 100), "open", {"InvalidData"}),
        (cut, "decode", {"Truncated", "InvalidData"}),
        (damage, "decode", {"InvalidData", "Corrupt"}),
        (silence, "open", {"NoVideo"}),
    ],
    ids=["missing", "folder", "empty", "text", "cut", "damaged", "sound"],
)
def test_bad_file(
    tmp_path: Path, program: str, spoil: Callable[[Path], None], stage: str, errors: set[str]
) -> None:
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(30))
    plain, path = write_clip(tmp_path / "plain.mp4", noise), tmp_path / "a.mp4"
    run_ffmpeg("-i", plain, "-c", "copy", "-movflags", "faststart", path)
    spoil(path)
    found = failure(path, program)
    assert found[0] == stage and found[1] in errors


def test_a_stream_that_begins_between_key_frames(tmp_path: Path, program: str) -> None:
    """The program logs errors for its first frames, which cannot be told from damage."""
    options = {"bf": "0", "g": "25"}
    path = write_coded(tmp_path / "a.ts", 100, options=options)
    path.write_bytes(path.read_bytes()[188 * 40 :])
    assert len(list(VideoTrack(path, STEP))) > 5
    assert failure(path, program) == ("decode", "InvalidData")


def test_start_beyond_the_video(tmp_path: Path, program: str) -> None:
    path = write_coded(tmp_path / "a.mp4", 50)
    with pytest.raises(TrackError, match="decode: NoFrames"):
        list(FfmpegTrack(path, STEP, 9.0, 10.0, program=program))


def script(folder: Path, text: str) -> str:
    """Write a program that replaces ffmpeg; return its path."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_program_that_crashes(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 5)
    assert failure(path, script(tmp_path, "kill -SEGV $$")) == ("decode", "DecoderDied")


def test_program_that_hangs_is_killed_at_the_deadline(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 5)
    program = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    started = time.monotonic()
    assert failure(path, program, Deadline(1.0)) == ("time", "Timeout")
    assert time.monotonic() - started < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_program_ends_when_iteration_stops(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 500)
    program = script(tmp_path, f'echo $$ > {tmp_path}/pid; exec {PROGRAMS[0]} "$@"')
    frames = iter(FfmpegTrack(path, STEP, program=program))
    next(frames)
    del frames
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


def test_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script(tmp_path, "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program() == program
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "elsewhere/ffmpeg")
    assert find_program() == "elsewhere/ffmpeg"


def test_there_is_no_program_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ffmpeg", None)
    assert find_program() is None
