"""Media of strangers: only listed containers are opened, and none that names other files."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import emovox
from emovox.corpus.tracks import AUDIO_ENDINGS, MEDIA_ENDINGS
from emovox.errors import InputError, TrackError
from emovox.media.audio import audio_duration, read_audio
from emovox.media.ffmpeg import FfmpegTrack
from emovox.media.video import VideoTrack, first_picture
from emovox.testing import FakeTeacher, InlineEngine, write_clip

PROGRAM = imageio_ffmpeg.get_ffmpeg_exe()
TARGETS = (
    "in.mp4",
    "in.ts",
    "../secret.ts",
    "{}/secret.ts",
    "file:{}/secret.ts",
    "http://127.0.0.1:1/",
)

# In place of `{0}`: a file beside it, one outside, or the file itself.
LISTS = {
    "concat": "ffconcat version 1.0\nfile '{0}'\nfile '{0}'\n",
    "concat with options": "ffconcat version 1.0\nfile '{0}'\noption safe 0\nduration 1\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{0}\n#EXT-X-ENDLIST\n",
    "hls with a map": '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI="{0}"\n#EXTINF:1,\n{0}\n',
    "hls of hls": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{0}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation '
    'id="1" bandwidth="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "asx": '<ASX version="3.0"><Entry><Ref href="{0}"/></Entry></ASX>',
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/'
    '2067-3/2016"><Id>{0}</Id></CompositionPlaylist>',
    "ram": "{0}\n",
    "reference": "[Reference]\nRef1={0}\n",
}
TEXTS = {
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "vobsub": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n"
    "timestamp: 00:00:00:000, filepos: 000000000\n",
    "avisynth": "Version()\n",
    "lavfi": "testsrc=duration=1\n",
    "metadata": ";FFMETADATA1\ntitle=x\n",
    "ansi": "\x1b[2J\x1b[31mhello" * 99,
    "subtitles": "WEBVTT\n\n00:00.000 --> 00:01.000\nx\n",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`root/in` and `secret`, a video and its sound in several containers; `secret` is outside."""
    place = tmp_path_factory.mktemp("place")
    for name in (place / "root" / "in", place / "secret"):
        write_clip(video := name.with_suffix(".mp4"), 25)
        sound = name.with_suffix(".wav")
        soundfile.write(sound, 0.3 * np.sin(np.arange(16_000) / 5), 16_000)
        make = [PROGRAM, "-loglevel", "error", "-i", str(video), "-i", str(sound)]
        subprocess.run([*make, "-c:v", "mpeg2video", name.with_suffix(".ts")], check=True)
        make += ["-c:v", "copy", "-c:a", "pcm_s16le"]
        subprocess.run([*make, name.with_suffix(".mov")], check=True)
    return place


def refusals(path: Path) -> list[str]:
    """Return the message of each way to read a file, all of which refuse it."""
    messages = []
    for track in (VideoTrack(path, 0.24), FfmpegTrack(path, 0.24, program=PROGRAM)):
        with pytest.raises(TrackError) as dropped:
            list(track)
        assert dropped.value.stage == "open"
        messages.append(dropped.value.message)
    for read in (read_audio, audio_duration):
        with pytest.raises(InputError) as refused:
            read(path)
        messages.append(str(refused.value))
    assert first_picture(path) is None
    assert not any("\n" in message for message in messages)
    return messages


@pytest.mark.parametrize("ending", [".mp4", ".wav"])
@pytest.mark.parametrize("target", [*TARGETS, "itself"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_file_that_names_others(place: Path, kind: str, target: str, ending: str) -> None:
    path = place / "root" / f"list{ending}"
    path.write_text(LISTS[kind].format(path.name if target == "itself" else target.format(place)))
    refusals(path)


@pytest.mark.parametrize("kind", TEXTS)
def test_other_text(place: Path, kind: str) -> None:
    path = place / "root" / "text.mkv"
    path.write_text(TEXTS[kind])
    refusals(path)


@pytest.mark.parametrize("name", ["a%03d.png", "a%03d.jpg", "*.png", "picture.mp4"])
def test_pictures_by_number(place: Path, name: str) -> None:
    picture = [PROGRAM, "-y", "-loglevel", "error", "-i", place / "root/in.mp4", "-frames:v", "1"]
    for file in ("a001.png", "a002.png", "a001.jpg"):
        subprocess.run([*picture, place / "root" / file], check=True)
    (place / "root" / name).write_bytes((place / "root/a001.png").read_bytes())
    assert "not a container that emovox opens" in refusals(place / "root" / name)[0]


def alias(target: str) -> bytes:
    """Return a data reference of QuickTime: a Macintosh alias with a path."""
    head, path = bytearray(150), target.encode()
    head[:8] = struct.pack(">IHH", 0, 0, 2)
    body = bytes(head) + struct.pack(">hH", 18, len(path)) + path + b"\0" * (len(path) % 2)
    return (
        b"alis" + b"\0" * 4 + body + struct.pack(">hH", 19, 1) + b"/\0" + struct.pack(">hH", -1, 0)
    )


NESTING = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")


def with_reference(boxes: bytes, entry: bytes, *, with_data: bool = True) -> bytes:
    """Return the boxes of an MP4 whose `moov` is last, with another data reference."""
    at, result = 0, b""
    while at < len(boxes):
        size, kind = int.from_bytes(boxes[at : at + 4], "big"), boxes[at + 4 : at + 8]
        body = boxes[at + 8 : at + size]
        if kind == b"dref":
            body = body[:8] + (len(entry) + 4).to_bytes(4, "big") + entry
        elif kind in NESTING:
            body = with_reference(body, entry)
        if kind != b"mdat" or with_data:
            result += (len(body) + 8).to_bytes(4, "big") + kind + body
        at += size
    return result


REFERENCES: dict[str, Callable[[str], bytes]] = {
    "url": lambda target: b"url \0\0\0\0" + target.encode() + b"\0",
    "urn": lambda target: b"urn \0\0\0\0name\0" + target.encode() + b"\0",
    "alias": alias,
    "resource": lambda target: b"rsrc\0\0\0\0" + target.encode(),
}


@pytest.mark.parametrize("target", [*TARGETS, "itself"])
@pytest.mark.parametrize("kind", REFERENCES)
def test_a_mov_that_names_other_files_is_read_alone(place: Path, kind: str, target: str) -> None:
    path, own = place / "root" / "reference.mov", place / "root" / "in.mov"
    name = path.name if target == "itself" else target.format(place)
    entry = REFERENCES[kind](name)
    path.write_bytes(with_reference(own.read_bytes(), entry))
    expected = [frame.image for frame in VideoTrack(own, 0.24)]
    for track in (VideoTrack(path, 0.24), FfmpegTrack(path, 0.24, program=PROGRAM)):
        assert np.array_equal([frame.image for frame in track], expected)
    assert np.array_equal(read_audio(path), read_audio(own))
    path.write_bytes(with_reference(own.read_bytes(), entry, with_data=False))
    with pytest.raises(TrackError):
        list(VideoTrack(path, 0.24))
    with pytest.raises(InputError):
        read_audio(path)


@pytest.mark.parametrize("entry", [b"url \0\0\0\1", b"alis\0\0\0\1", b"url \0\0\0\0"])
def test_an_mp4_with_its_own_data(place: Path, entry: bytes) -> None:
    path = place / "root" / "own.mov"
    path.write_bytes(with_reference((place / "root/in.mov").read_bytes(), entry))
    assert len(list(VideoTrack(path, 0.24))) == 5 and len(read_audio(path)) == 16_000


@pytest.mark.parametrize("size", [0, 1, 7, 8, 2**31, 2**32 - 1])
def test_boxes_of_any_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.mp4"
    for kind in (b"moov", b"free"):
        path.write_bytes((size.to_bytes(4, "big") + kind) * 200_000)
        refusals(path)


@pytest.mark.parametrize("name", ["in.mp4", "in.mov", "in.ts"])
def test_a_file_by_its_content_and_not_its_name(place: Path, tmp_path: Path, name: str) -> None:
    for ending in ("", ".m3u8", ".txt", ".ffconcat"):
        path = tmp_path / f"other{ending}"
        path.write_bytes((place / "root" / name).read_bytes())
        assert len(list(VideoTrack(path, 0.24))) == 5
        assert len(list(FfmpegTrack(path, 0.24, program=PROGRAM))) == 5


def test_every_ending_has_a_container_that_is_opened(place: Path, tmp_path: Path) -> None:
    codecs = {".3g2": "h263", ".3gp": "h263", ".amv": "amv", ".dv": "dvvideo", ".ogv": "libtheora"}
    tried = 0
    for ending in sorted(MEDIA_ENDINGS | AUDIO_ENDINGS):
        path = tmp_path / f"a{ending}"
        source = place / "root" / ("in.wav" if ending in AUDIO_ENDINGS else "in.mp4")
        make = [PROGRAM, "-loglevel", "error", "-i", str(source)]
        if ending in codecs:
            make += ["-c:v", codecs[ending], "-s", "352x288"]
        if subprocess.run([*make, path], capture_output=True).returncode:
            continue  # this ffmpeg cannot write it
        tried += 1
        if ending in AUDIO_ENDINGS:
            assert len(read_audio(path)), ending
        else:
            assert list(VideoTrack(path, 0.24)), ending
    assert tried > 30


def test_a_build_drops_a_file_that_includes_itself(place: Path, tmp_path: Path) -> None:
    for number in range(8):
        write_clip(tmp_path / f"corpus/ann/talk/{number}.mp4", 25)
    path = tmp_path / "corpus/ann/talk/9.mp4"
    path.write_text("ffconcat version 1.0\n" + f"file '{path.name}'\n" * 9)
    table = tmp_path / "tracks.csv"
    rows = [f"ann/talk/{n:05d},ann/talk/{n}.mp4,ann,,,train" for n in (*range(8), 9)]
    table.write_text("\n".join(["track_id,video,identity,start,end,split", *rows]) + "\n")
    emovox.build_dataset(
        layout="table",
        root=tmp_path / "corpus",
        table=table,
        out=tmp_path / "out",
        max_dropped=0.5,
        engine=InlineEngine(FakeTeacher()),
    )
    (row,) = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert row["track_id"] == "ann/talk/00009" and row["error"] == "Container"
    assert row["message"].startswith("not a container that emovox opens")
