import gc
import math
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import imageio_ffmpeg
import numpy as np
import pytest
from oracles import read_code

from emovox.errors import TrackError
from emovox.media import video
from emovox.media.video import Deadline, GridFrame, VideoTrack
from emovox.testing import coded_frame, write_clip

STEP = 0.24
SIZE = (96, 64)
RATES = ["24000/1001", "24", "25", "30000/1001", "30", "50", "60"]

CLOSED = {"bf": "0", "g": "250"}
B_FRAMES = {"bf": "3", "g": "250"}
OPEN = {"bf": "3", "g": "12", "flags": "-cgop", "x264-params": "open-gop=1"}


def write_coded(
    path: Path,
    count: int,
    fps: str = "25",
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: Sequence[float] | None = None,
) -> Path:
    """Write a clip of small frames that encode their number."""
    frames = (coded_frame(i, *SIZE) for i in range(count))
    return write_clip(path, frames, fps=Fraction(fps), codec=codec, options=options, times=times)


def noisy_frames(count: int) -> Iterator[np.ndarray]:
    """Yield coded frames with noise, which make a file large enough to damage."""
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = rng.integers(-30, 30, (SIZE[1], SIZE[0], 3))
        yield np.clip(coded_frame(i, *SIZE) + noise, 0, 255).astype(np.uint8)


def naive_codes(
    times: Sequence[Fraction], start: Fraction = Fraction(0), end: Fraction | None = None
) -> list[tuple[int, int]]:
    """Compare every grid point with every frame; return `(grid index, frame number)`."""
    step = Fraction(6, 25)
    times = [time - times[0] - start for time in times]
    last = times[-1] + (times[-1] - times[-2]) / 2 if end is None else end - start
    found = []
    for index in range(int(last // step) + 1):
        best = min(range(len(times)), key=lambda i: (abs(times[i] - index * step), i))
        if -step / 2 < times[best] - index * step <= step / 2:
            found.append((index, best))
    return found


def codes(track: VideoTrack) -> list[tuple[int, int]]:
    return [(frame.index, read_code(frame.image)) for frame in track]


def failure(path: Path, deadline: Deadline | None = None) -> tuple[str, str]:
    with pytest.raises(TrackError) as caught:
        list(VideoTrack(path, STEP, deadline=deadline or Deadline(None)))
    assert str(path.parent) not in caught.value.message
    return caught.value.stage, caught.value.error


def ffmpeg(*arguments: str | Path) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def ffmpeg_frames(path: Path, width: int, height: int) -> np.ndarray:
    """Decode every frame with the ffmpeg program: uint8 `[N, H, W, 3]`."""
    raw = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


# Time


@pytest.mark.parametrize("count", [1, 2, 6, 7, 12, 13, 61])
def test_25_fps_gives_frames_0_6_12(tmp_path: Path, count: int) -> None:
    track = VideoTrack(write_coded(tmp_path / "a.mp4", count), STEP)
    expected = (count - 1) // 6 + 1
    assert codes(track) == [(k, 6 * k) for k in range(expected)]
    assert track.num_decoded == count
    assert track.num_expected == expected
    if count > 1:
        assert track.duration == pytest.approx(count / 25)


@pytest.mark.parametrize("fps", RATES)
def test_every_rate_gives_the_nearest_frame(tmp_path: Path, fps: str) -> None:
    count = 100
    track = VideoTrack(write_coded(tmp_path / "a.mp4", count, fps), STEP)
    times = [i / Fraction(fps) for i in range(count)]
    expected = naive_codes(times)
    assert codes(track) == expected
    assert track.num_decoded == count
    assert track.num_expected == expected[-1][0] + 1
    assert track.duration == pytest.approx(count / float(Fraction(fps)), abs=1e-3)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_variable_rate_gives_the_nearest_frames_with_gaps(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(1)
    gaps = rng.integers(10, 90, 60)
    gaps[30] = 1000
    milliseconds = np.concatenate([[0], np.cumsum(gaps)])
    times = [float(t) / 1000 for t in milliseconds]
    track = VideoTrack(write_coded(tmp_path / f"a.{ending}", 61, times=times), STEP)
    expected = naive_codes([Fraction(int(t), 1000) for t in milliseconds])
    assert codes(track) == expected
    indices = [index for index, _ in expected]
    assert len(set(range(indices[-1] + 1)) - set(indices)) >= 3
    assert track.num_expected == indices[-1] + 1


@pytest.mark.parametrize("ending", ["ts", "mkv", "mp4"])
def test_the_grid_begins_at_the_first_frame(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    times = [1000 + i / 25 for i in range(120)]
    frames = list(VideoTrack(write_coded(path, 120, times=times), STEP))
    assert [(f.index, read_code(f.image)) for f in frames] == [(k, 6 * k) for k in range(20)]
    assert [f.pts for f in frames] == pytest.approx([1000 + 0.24 * k for k in range(20)])
    assert [f.time for f in frames] == pytest.approx([0.24 * k for k in range(20)])

    within = list(VideoTrack(path, STEP, 2.0, 3.0))
    assert [read_code(f.image) for f in within] == [50, 56, 62, 68, 74]
    assert [f.pts for f in within] == pytest.approx([1002 + 0.24 * k for k in range(5)])
    assert [f.time for f in within] == pytest.approx([2 + 0.24 * k for k in range(5)])


@pytest.mark.parametrize("fps", ["24000/1001", "25", "60"])
@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("mp4", "libx264", CLOSED),
        ("mp4", "libx264", B_FRAMES),
        ("mp4", "libx264", OPEN),
        ("mkv", "libx264", B_FRAMES),
        ("mkv", "libx264", OPEN),
        ("ts", "libx264", CLOSED),
        ("ts", "libx264", B_FRAMES),
        ("ts", "libx264", OPEN),
        ("avi", "libx264", CLOSED),
        ("avi", "libx264", B_FRAMES),
        ("avi", "libx264", OPEN),
        ("avi", "mpeg4", {"bf": "2", "g": "30"}),
        ("mpg", "mpeg2video", {"bf": "2", "g": "15"}),
        ("mpg", "mpeg2video", CLOSED),
    ],
)
def test_a_track_in_the_middle_is_cut_to_the_frame(
    tmp_path: Path, ending: str, codec: str, options: dict[str, str], fps: str
) -> None:
    count = 140
    path = write_coded(tmp_path / f"a.{ending}", count, fps, codec=codec, options=options)
    times = [i / Fraction(fps) for i in range(count)]
    if ending == "mkv":  # holds milliseconds
        times = [Fraction(int(time * 1000 + Fraction(1, 2)), 1000) for time in times]
    for start, end in [("0", "1.1"), ("0.3", "1"), ("1.05", "2.13"), ("1.71", "2.3")]:
        track = VideoTrack(path, STEP, float(start), float(end))
        assert codes(track) == naive_codes(times, Fraction(start), Fraction(end)), (start, end)
        assert track.duration == pytest.approx(float(end) - float(start))


def test_a_large_step_finds_its_frames_after_a_seek(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 300, options={"g": "10"})
    track = VideoTrack(path, 2.0, start=4.0, end=8.0)
    assert codes(track) == [(0, 100), (1, 150), (2, 200)]


class CountingDeadline(Deadline):
    """A deadline that counts the decoded frames."""

    def __init__(self) -> None:
        super().__init__(None)
        self.count = 0

    def check(self) -> None:
        self.count += 1


@pytest.mark.parametrize("options", [{"bf": "0", "g": "12"}, OPEN])
def test_a_seek_avoids_decoding_earlier_frames(tmp_path: Path, options: dict[str, str]) -> None:
    path = write_coded(tmp_path / "a.mp4", 400, options=options)
    deadline = CountingDeadline()
    track = VideoTrack(path, STEP, 12.0, 13.0, deadline)
    assert codes(track) == [(0, 300), (1, 306), (2, 312), (3, 318), (4, 324)]
    assert deadline.count < 80


def test_an_end_beyond_the_video_is_its_end(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 50)
    track = VideoTrack(path, STEP, start=1.0, end=99.0)
    assert codes(track) == [(0, 25), (1, 31), (2, 37), (3, 43), (4, 49)]
    assert (track.num_expected, track.start_time) == (5, 1.0)
    assert [track.duration, track.end_time] == pytest.approx([1.0, 2.0])
    assert track.notes == ["end 99 s is past the end of the file; used 2.000 s"]
    whole, beyond = VideoTrack(path, 0.3), VideoTrack(path, 0.3, end=2.2)
    assert codes(whole) == codes(beyond), "no point after the last frame"
    assert whole.num_expected == beyond.num_expected == 7
    assert not whole.notes


def test_an_absurd_end_is_an_error(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 13)
    with pytest.raises(TrackError, match="time: TooLong"):
        list(VideoTrack(path, STEP, end=1e12))


@pytest.mark.parametrize(
    ("start", "end"),
    [(math.nan, None), (-1.0, 2.0), (1.5, 0.5), (0.0, math.nan), (math.inf, None), (1e300, 2e300)],
)
def test_bad_times_are_errors(tmp_path: Path, start: float, end: float | None) -> None:
    path = write_coded(tmp_path / "a.mp4", 50)
    with pytest.raises(TrackError, match=r"time: (BadTimes|TooLong)"):
        list(VideoTrack(path, STEP, start, end))


@pytest.mark.parametrize("start", [2.0, 2.05, 9.0])
def test_a_start_just_beyond_the_video_is_an_error(tmp_path: Path, start: float) -> None:
    path = write_coded(tmp_path / "a.mp4", 50)
    with pytest.raises(TrackError, match="decode: NoFrames"):
        list(VideoTrack(path, STEP, start, 10.0))


def test_a_start_beyond_the_video_is_an_error(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 50)
    with pytest.raises(TrackError, match=r"decode: NoFrames: .* from 9 s on"):
        list(VideoTrack(path, STEP, start=9.0, end=10.0))


# Pictures


def test_pixels_match_the_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noisy_frames(20))
    with av.open(str(path)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    shown = ffmpeg_frames(path, *SIZE)
    assert len(shown) == len(every) == 20
    for frame in VideoTrack(path, STEP):
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (SIZE[1], SIZE[0], 3)
        assert np.array_equal(frame.image, every[6 * frame.index])
        difference = np.abs(frame.image.astype(int) - shown[6 * frame.index])
        assert difference.mean() < 1.5
        assert np.abs(frame.image.astype(int) - shown[6 * frame.index + 1]).mean() > 5


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_is_turned_upright(tmp_path: Path, rotation: int) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:] = (220, 30, 30), (30, 220, 30)
    picture[32:, :48], picture[32:, 48:] = (30, 30, 220), (220, 220, 30)
    plain = write_clip(tmp_path / "plain.mp4", [picture] * 2)
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", str(rotation), "-i", plain, "-c", "copy", path)
    width, height = (96, 64) if rotation == 180 else (64, 96)
    (frame,) = VideoTrack(path, STEP)
    assert frame.image.shape == (height, width, 3)
    assert frame.image.flags.c_contiguous
    expected = ffmpeg_frames(path, width, height)[0]
    assert np.abs(frame.image.astype(int) - expected).mean() < 2
    unturned = next(iter(VideoTrack(plain, STEP))).image
    assert not np.array_equal(frame.image, unturned)


# Bad input


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert failure(tmp_path / "a.mp4") == ("open", "InvalidData")


def test_text_named_mp4(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("This is text.\n" * 100)
    assert failure(tmp_path / "a.mp4") == ("open", "InvalidData")


def cut_at(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def test_an_mp4_cut_short_with_its_index_at_the_end(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noisy_frames(50))
    data = path.read_bytes()
    assert data.find(b"moov") > data.find(b"mdat")
    assert failure(cut_at(path, 0.3)) == ("open", "InvalidData")


def test_an_mp4_cut_short_with_its_index_in_front(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    plain = write_clip(tmp_path / "plain.mp4", noisy_frames(50))
    ffmpeg("-i", plain, "-c", "copy", "-movflags", "faststart", path)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")
    assert failure(cut_at(path, 0.3)) == ("decode", "Truncated")


def patched(path: Path, kind: bytes, offset: int, value: int) -> Path:
    """Overwrite a 4-byte field, `offset` bytes after the name of the first atom of a kind."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, data.index(kind) + offset, value)
    path.write_bytes(data)
    return path


def test_an_mp4_cut_between_two_frames(tmp_path: Path) -> None:
    """The file ends after a complete frame."""
    path = tmp_path / "a.mp4"
    plain = write_clip(tmp_path / "plain.mp4", noisy_frames(50), options=CLOSED)
    ffmpeg("-i", plain, "-c", "copy", "-movflags", "faststart", path)
    with av.open(str(path)) as container:
        positions = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    path.write_bytes(path.read_bytes()[: positions[20]])
    assert failure(path) == ("decode", "Truncated")
    within = list(VideoTrack(path, STEP, 0.0, 0.5))  # ends before the damage
    assert [frame.index for frame in within] == [0, 1, 2]
    with pytest.raises(TrackError, match="decode: Truncated"):
        list(VideoTrack(path, STEP, 0.6, 1.0))


def test_damaged_sound_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    plain = write_coded(tmp_path / "plain.mp4", 100)
    streams = ["-map", "1:v", "-map", "0:a", "-c:v", "copy", "-t", "4"]
    ffmpeg("-f", "lavfi", "-i", "sine", "-i", plain, *streams, path)
    data = path.read_bytes()
    assert data.count(b"stco") == 2
    sound = data.rindex(b"stco")
    count = struct.unpack_from(">I", data, sound + 8)[0]
    places = struct.pack(f">{count}I", *[len(data) + 100] * count)
    path.write_bytes(data[: sound + 12] + places + data[sound + 12 + len(places) :])
    assert codes(VideoTrack(path, STEP)) == [(k, 6 * k) for k in range(17)]


def test_times_that_run_backwards(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 40, options=B_FRAMES)
    assert failure(patched(path, b"ctts", 12 + 8 * 10 + 4, 12800)) == ("decode", "BadTimes")


def test_a_header_without_a_time_scale(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 40)
    assert failure(patched(path, b"mdhd", 16, 0)) == ("open", "BadHeader")  # the time scale


def test_an_edit_list_is_not_damage(tmp_path: Path) -> None:
    whole = write_coded(tmp_path / "whole.mp4", 100, options=B_FRAMES)
    for start in ("0.3", "1.1", "1.13"):
        ffmpeg("-ss", start, "-i", whole, "-t", "1.5", "-c", "copy", tmp_path / "cut.mp4")
        assert len(list(VideoTrack(tmp_path / "cut.mp4", STEP))) in (6, 7)


def test_log_level_of_ffmpeg_is_restored(tmp_path: Path) -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    list(VideoTrack(write_coded(tmp_path / "a.mp4", 7), STEP))
    assert failure(patched(tmp_path / "a.mp4", b"mdhd", 16, 0)) == ("open", "BadHeader")
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def test_a_damaged_middle(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noisy_frames(50))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(data)
    assert failure(path) in [("decode", "InvalidData"), ("decode", "Corrupt")]


def test_random_damage_raises_only_track_errors(tmp_path: Path) -> None:
    whole = write_coded(tmp_path / "whole.mp4", 40).read_bytes()
    rng = np.random.default_rng(2)
    path = tmp_path / "a.mp4"
    num_errors = 0
    for _ in range(60):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), 8):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            list(VideoTrack(path, STEP, start=float(rng.choice([0, 1])), deadline=Deadline(20)))
        except TrackError as error:
            assert error.stage in ("open", "decode")
            num_errors += 1
    assert num_errors > 10


def test_audio_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.5", "-c:a", "aac", path)
    assert failure(path) == ("open", "NoVideo")


def test_an_unknown_codec(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 5)
    data = path.read_bytes()
    assert data.count(b"avc1") == 2  # in the brands and in the description of the stream
    path.write_bytes(data[:100] + data[100:].replace(b"avc1", b"qqqq"))
    assert failure(path) == ("open", "UnknownCodec")


def test_zero_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    source = write_coded(tmp_path / "source.mp4", 5)
    ffmpeg("-i", source, "-c", "copy", "-frames:v", "0", path)
    assert failure(path) == ("open", "NoVideo")
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        container.start_encoding()
    assert failure(tmp_path / "a.mkv") == ("open", "EOF")


def test_a_missing_file(tmp_path: Path) -> None:
    assert failure(tmp_path / "a.mp4") == ("open", "FileNotFound")


def test_a_folder_named_like_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    assert failure(tmp_path / "a.mp4") == ("open", "NotAFile")


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    assert failure(tmp_path / "a.mp4") == ("open", "NotAFile")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that other users can read, unlike the folders of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def ordinary_user(open_folder: Path) -> Iterator[None]:
    """Run the test as another user if it runs as root, who ignores permissions."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_permission_denied(open_folder: Path, request: pytest.FixtureRequest) -> None:
    path = write_coded(open_folder / "a.mp4", 5)
    path.chmod(0o000)
    request.getfixturevalue("ordinary_user")
    assert failure(path) == ("open", "Permission")


def test_permission_denied_to_the_folder(open_folder: Path, request: pytest.FixtureRequest) -> None:
    path = write_coded(open_folder / "closed" / "a.mp4", 5)
    path.parent.chmod(0o000)
    request.getfixturevalue("ordinary_user")
    assert failure(path) == ("open", "Permission")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    source = write_coded(tmp_path / "a.mp4", 13)
    path = source.rename(tmp_path / os.fsdecode(b"\xff\xe9 b.mp4"))
    assert codes(VideoTrack(path, STEP)) == [(0, 0), (1, 6), (2, 12)]


def test_too_many_open_files_is_not_an_error_of_the_track(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = write_coded(tmp_path / "a.mp4", 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        files.callback(gc.enable)
        gc.disable()  # would close files of other tests
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                files.enter_context(path.open("rb"))
        with pytest.raises(OSError, match="Too many open files"):
            list(VideoTrack(path, STEP))


def test_the_deadline_ends_a_track_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_coded(tmp_path / "a.mp4", 100)
    clock = iter(range(1000))
    monkeypatch.setattr(video, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    track = VideoTrack(path, STEP, deadline=Deadline(30))
    frames: list[GridFrame] = []
    with pytest.raises(TrackError, match="time: Timeout: took longer than 30 s"):
        frames.extend(track)
    assert 20 < next(clock) < 40
    assert track.num_decoded < 40


def test_a_deadline_that_passes_while_the_file_opens(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 5)
    assert failure(path, Deadline(1e-9)) == ("time", "Timeout")


def test_a_deadline_in_time_changes_nothing(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", 13)
    assert len(list(VideoTrack(path, STEP, deadline=Deadline(60)))) == 3
