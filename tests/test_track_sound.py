"""Tracks that are parts of one file: their sound in training, evaluation, prediction and report."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from student_fixtures import QUICK, segments_of

import emovox
from emovox.dataset.reader import Dataset, load
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.student.clips import find_clips, read_utterance
from emovox.testing import FakeTeacher, InlineEngine, write_clip

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH, LATE = 2.0, 0.5  # seconds of a track; start of the sound after the first picture
NUM = 12  # tracks
RECORDING = "films/long talk.mov"


def pitch(number: int) -> float:
    """Return the frequency of the tone in a track."""
    return 400.0 + 250 * number


def loudest(samples: np.ndarray) -> float:
    """Return the strongest frequency of samples at 16 kHz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film whose sound starts late: a tone for every 2 s of the pictures, another each time."""
    root = tmp_path_factory.mktemp("table")
    clip = write_clip(root / "clip.mp4", round(25 * NUM * LENGTH))
    time = np.arange(round(LATE * SAMPLE_RATE), round(NUM * LENGTH * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(400 + 250 * np.floor(time / LENGTH)) / SAMPLE_RATE
    soundfile.write(root / "tones.wav", 0.5 * np.sin(phase), SAMPLE_RATE)
    (root / "films").mkdir()
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(clip)]
    command += ["-itsoffset", str(LATE), "-i", str(root / "tones.wav"), "-c:v", "copy"]
    command += ["-c:a", "pcm_s16le", str(root / RECORDING)]
    subprocess.run(command, check=True)
    clip.unlink()
    (root / "tones.wav").unlink()
    lines = ["track_id,video,identity,start,end,split"]
    for number in range(NUM):
        split = ("train", "train", "heard_val", "unheard_val")[number % 4]
        who = "ann" if split != "unheard_val" else "bob"
        start = LENGTH * number
        lines.append(f"{who}/long/{number:05d},{RECORDING},{who},{start},{start + LENGTH},{split}")
    (root / "tracks.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def dataset(root: Path) -> Dataset:
    emovox.build_dataset(
        layout="table",
        root=root,
        table=root / "tracks.csv",
        out=root / "dataset",
        engine=InlineEngine(FakeTeacher()),
    )
    return load(root / "dataset")


def number_of(track_id: str) -> int:
    return int(track_id.rpartition("/")[2])


def test_clips_are_parts_of_the_file(dataset: Dataset, root: Path) -> None:
    track_ids = [track.track_id for track in dataset]
    scan = find_clips(dataset, track_ids, root)
    assert [clip.track_id for clip in scan.clips] == track_ids and not scan.dropped
    for clip in scan.clips:
        assert clip.path == root / RECORDING and clip.start == LENGTH * number_of(clip.track_id)
        assert clip.duration == pytest.approx(LENGTH, abs=0.25)
        samples = read_utterance(clip.path, "standard", clip.start, clip.end)
        assert len(samples) == pytest.approx(LENGTH * SAMPLE_RATE, abs=0.05 * SAMPLE_RATE)
        assert loudest(samples) == pytest.approx(pitch(number_of(clip.track_id)), abs=2)


def test_segments_have_the_sound_of_their_track(dataset: Dataset, root: Path) -> None:
    scan = find_clips(dataset, [track.track_id for track in dataset], root)
    fixed = segments_of(dataset, scan.clips, root, QUICK, is_random=False)
    for clip in scan.clips:
        segment = fixed.read(clip, 0.75)
        assert loudest(segment.samples) == pytest.approx(pitch(number_of(clip.track_id)), abs=2)
    assert all(len(fixed.segment(k).samples) for k in range(NUM))
    first = fixed.read(scan.clips[0], 0.0).samples  # of the track from 0 s on
    silent = np.abs(first[: round((LATE - 0.01) * SAMPLE_RATE)])
    assert number_of(scan.clips[0].track_id) == 0 and silent.max() < 0.01
    assert np.abs(first[round((LATE + 0.005) * SAMPLE_RATE) :]).max() > 0.3


def test_training_and_evaluation_without_files_cut_by_hand(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    result = emovox.train_student(
        dataset.path, root, tmp_path, QUICK, epochs=1, batch_size=2, say=said.append
    )
    assert "train: 6 of 6 tracks have usable audio" in said
    found = emovox.evaluate(result.best, dataset.path, root, device="cpu")
    assert {name: s.num_tracks for name, s in found.splits.items()} == {
        "heard_val": 3,
        "unheard_val": 3,
    }
    student = emovox.load_student(result.best, "cpu")
    split = found.predictions["unheard_val"]
    for track_id, scores in zip(split.track_ids, split.scores, strict=True):
        start = LENGTH * number_of(track_id)
        logits = student(read_audio(root / RECORDING, start, start + LENGTH))[0]
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_report_has_the_sound_and_the_faces_of_every_track(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    found = emovox.report(dataset.path, media=root)
    assert found.media is not None and len(found.media) == NUM
    for track, media in zip(found.tracks, found.media, strict=True):
        assert media.problems == () and len(media.pictures) >= 5 and media.sound is not None
        path = tmp_path / "sound"
        path.write_bytes(base64.b64decode(media.sound.partition(",")[2]))
        samples = read_audio(path)
        assert len(samples) / SAMPLE_RATE == pytest.approx(LENGTH, abs=0.2)
        assert loudest(samples) == pytest.approx(pitch(number_of(track.track_id)), abs=3)


def test_prediction_counts_from_the_first_picture(dataset: Dataset, root: Path) -> None:
    from emovox.student.clips import Windows
    from emovox.student.prediction import _student_logits

    heard: list[np.ndarray] = []

    class Listener:
        name, sha256, emotions, values = "listener", "0" * 64, ("calm", "joy"), ()

        def __call__(self, samples: list[np.ndarray], part: object) -> np.ndarray:
            heard.extend(samples)
            return np.zeros((len(samples), 2), np.float32)

        embed = __call__

    starts = [LENGTH * number for number in range(NUM)]
    listener: Any = Listener()
    logits, sound = _student_logits(
        root / RECORDING, listener, [*starts, 90.0], NUM * LENGTH, Windows(LENGTH)
    )
    assert len(heard) == NUM and np.isnan(logits[-1]).all() and not np.isnan(logits[:-1]).any()
    assert sound == ["heard"] * NUM + [None]
    for number, samples in enumerate(heard):
        assert loudest(samples[: round(LENGTH * SAMPLE_RATE)]) == pytest.approx(
            pitch(number), abs=2
        )
