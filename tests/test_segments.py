"""Segments, compared with files and rows read directly; tracks without usable audio."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from student_fixtures import (
    QUICK,
    STEP,
    Utterance,
    logits_of,
    segments_of,
    utterances,
    voice,
    write_audio,
    write_tables,
)

from emovox.dataset.reader import Dataset, load
from emovox.errors import CheckError, ConfigError, InputError
from emovox.media.audio import SAMPLE_RATE
from emovox.student.clips import Clip, Scan, Windows, find_clips
from emovox.student.segments import (
    Batch,
    SpeechSegments,
    load_batches,
)
from emovox.student.student_config import StudentTrainConfig

TRACKS = utterances(["train"])
LENGTH = Windows(QUICK.seconds).length


@pytest.fixture(scope="module")
def data(student_data: Path) -> Dataset:
    return load(student_data / "dataset")


@pytest.fixture(scope="module")
def audio(student_data: Path) -> Path:
    return student_data / "audio"


def clips_of(data: Dataset, audio: Path) -> list[Clip]:
    return find_clips(data, [u.track_id for u in TRACKS], audio).clips


@pytest.fixture(scope="module")
def segments(data: Dataset, audio: Path) -> SpeechSegments:
    return segments_of(data, clips_of(data, audio), audio, QUICK)


def quantised(samples: np.ndarray) -> np.ndarray:
    """Samples after a round trip through a 16-bit WAV file."""
    return np.clip(np.rint(samples.astype(np.float64) * 2**15), -(2**15), 2**15 - 1) / 2**15


def naive_target(utterance: Utterance, start: float, seconds: float, pool: str) -> np.ndarray:
    """Pool the rows whose 0.24 s overlap the segment, one by one."""
    rows = [
        row
        for k, row in enumerate(logits_of(utterance))
        if STEP * k < start + seconds and STEP * (k + 1) > start
    ]
    if pool == "peak":
        return max(rows, key=max)
    return np.max(rows, axis=0) if pool == "max" else np.mean(rows, axis=0)


@pytest.mark.parametrize("pool", ["max", "mean", "peak"])
@pytest.mark.parametrize("start", [0.0, 0.13, 0.48, 0.7])
def test_segment_is_a_slice_of_the_file_with_its_rows(
    data: Dataset, audio: Path, start: float, pool: str
) -> None:
    utterance = max(TRACKS, key=lambda u: u.duration)
    [clip] = find_clips(data, [utterance.track_id], audio).clips
    segments = segments_of(data, [clip], audio, replace(QUICK, pool=pool))
    segment = segments.read(clip, start)
    first = round(start * SAMPLE_RATE)
    expected = quantised(voice(utterance))[first : first + LENGTH]
    assert segment.samples.shape == (LENGTH,) and segment.samples.dtype == np.float32
    np.testing.assert_allclose(segment.samples, expected, atol=1.01 / 2**15)
    np.testing.assert_allclose(segment.target, naive_target(utterance, start, 1.0, pool), rtol=1e-6)


def test_short_track_is_padded_with_silence(data: Dataset, audio: Path) -> None:
    utterance = min(TRACKS, key=lambda u: u.duration)
    [clip] = find_clips(data, [utterance.track_id], audio).clips
    for segment in (
        segments_of(data, [clip], audio, QUICK).read(clip, 0.0),
        segments_of(data, [clip], audio, QUICK, is_random=False).segment(0),
        segments_of(data, [clip], audio, QUICK).segment(5),
    ):
        count = len(voice(utterance))
        assert count < LENGTH == len(segment.samples)
        np.testing.assert_allclose(segment.samples[:count], voice(utterance), atol=1.01 / 2**15)
        assert not segment.samples[count:].any()
        np.testing.assert_array_equal(segment.target, logits_of(utterance).max(axis=0))


def test_sound_without_frames_is_not_used(tmp_path: Path) -> None:
    short = Utterance("train", "ida", 1, "anger", 0.5)  # 3 rows, up to 0.72 s
    long = Utterance("train", "ida", 2, "anger", 1.7)  # 8 rows, up to 1.92 s
    data = load(write_tables(tmp_path / "dataset", [short, long]))
    for utterance in (short, long):
        sound = np.full(10 * SAMPLE_RATE, 0.25, np.float32)
        path = tmp_path / f"audio/{utterance.track_id}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, SAMPLE_RATE)
    clips = find_clips(data, [short.track_id, long.track_id], tmp_path / "audio").clips
    assert [clip.duration for clip in clips] == pytest.approx([0.72, 1.92])
    padded = segments_of(data, clips, tmp_path / "audio", QUICK).read(clips[0], 0.0).samples
    assert np.count_nonzero(padded) == round(0.72 * SAMPLE_RATE)
    segments = segments_of(data, clips[1:], tmp_path / "audio", QUICK)
    for position in range(200):
        assert np.count_nonzero(segments.segment(position).samples) == LENGTH
    assert segments.read(clips[1], 1.92 - 1.024).samples.all()


@pytest.mark.parametrize("timing", ["grid", "legacy"])
def test_target_ends_with_the_sound(tmp_path: Path, timing: str) -> None:
    """Rows behind the end of the sound have another emotion, which the segment must not learn."""
    utterance = Utterance("train", "ida", 1, "anger", 1.9)  # 8 rows, up to 1.92 s
    data = load(write_tables(tmp_path / "dataset", [utterance]))
    path = write_audio(tmp_path / "audio", [utterance]) / f"{utterance.track_id}.wav"
    soundfile.write(path, voice(utterance)[: round(1.1 * SAMPLE_RATE)], SAMPLE_RATE)
    [clip] = find_clips(data, [utterance.track_id], tmp_path / "audio").clips
    config = replace(QUICK, seconds=2, timing=timing)
    found = segments_of(data, [clip], tmp_path / "audio", config).read(clip, 0.0).target
    heard = 5  # rows at 0, 0.24 ... 0.96 s
    np.testing.assert_array_equal(found, logits_of(utterance)[:heard].max(axis=0))
    assert not np.array_equal(found, logits_of(utterance).max(axis=0))


def test_random_starts_reach_both_ends(data: Dataset, audio: Path) -> None:
    utterance = max(TRACKS, key=lambda u: u.duration)
    [clip] = find_clips(data, [utterance.track_id], audio).clips
    segments = segments_of(data, [clip], audio, QUICK)
    whole = quantised(voice(utterance)).astype(np.float32)
    room = round(clip.duration * SAMPLE_RATE) - LENGTH
    starts = []
    for position in range(60):
        samples = segments.segment(position).samples
        window = np.lib.stride_tricks.sliding_window_view(whole, 8)
        starts.append(int(np.abs(window - samples[:8]).max(axis=1).argmin()))
        np.testing.assert_allclose(samples, whole[starts[-1] :][:LENGTH], atol=1.01 / 2**15)
    assert min(starts) < 0.1 * room and max(starts) > 0.9 * room and max(starts) <= room + 1


def test_every_track_is_drawn_once_per_pass(
    segments: SpeechSegments, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def silence(path: Path, start: float, end: float) -> np.ndarray:
        drawn.append(path)
        return np.zeros(round((end - start) * SAMPLE_RATE), np.float32)

    monkeypatch.setattr("emovox.student.segments.read_audio", silence)
    for position in range(2 * len(TRACKS)):
        _ = segments.segment(position)
    passes = drawn[: len(TRACKS)], drawn[len(TRACKS) :]
    everything = sorted(clip.path for clip in segments.clips)
    assert sorted(passes[0]) == sorted(passes[1]) == everything
    assert passes[0] != passes[1] != everything


def collect(segments: SpeechSegments, positions: list[int], size: int, workers: int) -> Batch:
    batches = list(load_batches(segments, positions, size, workers))
    assert all(len(batch.samples) == size for batch in batches)
    return Batch(
        np.concatenate([batch.samples for batch in batches]),
        np.concatenate([batch.targets for batch in batches]),
        (),
    )


def test_workers_and_order_do_not_change_segments(segments: SpeechSegments) -> None:
    positions = list(range(100, 124))
    plain = collect(segments, positions, 4, 0)
    for workers, size in ((1, 8), (2, 3)):
        found = collect(segments, positions, size, workers)
        np.testing.assert_array_equal(found.samples, plain.samples)
        np.testing.assert_array_equal(found.targets, plain.targets)
    backwards = collect(segments, positions[::-1], 4, 0)
    np.testing.assert_array_equal(backwards.samples[::-1], plain.samples)
    ranks = [collect(segments, positions[rank::2], 2, 0) for rank in range(2)]
    for rank, part in enumerate(ranks):
        np.testing.assert_array_equal(part.samples, plain.samples[rank::2])


def test_seed_determines_segments(data: Dataset, audio: Path, segments: SpeechSegments) -> None:
    same, other = (
        segments_of(data, segments.clips, audio, replace(QUICK, seed=seed)) for seed in (0, 1)
    )
    assert same.segment(7).samples.tobytes() == segments.segment(7).samples.tobytes()
    assert not np.array_equal(other.segment(7).samples, same.segment(7).samples)


def test_fixed_segments_are_the_middle_of_tracks(data: Dataset, audio: Path) -> None:
    utterance = max(TRACKS, key=lambda u: u.duration)
    clips = find_clips(data, [utterance.track_id], audio).clips
    fixed = segments_of(data, clips, audio, QUICK, is_random=False)
    before = round((len(voice(utterance)) - LENGTH) / 2)
    expected = quantised(voice(utterance))[before : before + LENGTH]
    np.testing.assert_allclose(fixed.segment(0).samples, expected, atol=1.01 / 2**15)
    np.testing.assert_array_equal(fixed.segment(0).samples, fixed.segment(0).samples)


def test_the_share_of_a_validation_split_is_repeatable_and_in_order(
    data: Dataset, audio: Path
) -> None:
    def chosen(share: float, seed: int = 0) -> list[str]:
        options: dict[str, Any] = {"validation_share": share, "seed": seed}
        found = SpeechSegments(data, audio, "unheard_val", 1.0, **options)
        return [clip.track_id for clip in found.clips]

    whole, part = data.tracks["unheard_val"]["track_id"].to_pylist(), chosen(0.2)
    assert len(part) == 12 and part == [t for t in whole if t in part] == chosen(0.2)
    assert chosen(0.2, seed=1) != part
    assert len(chosen(1e-6)) == 1 and chosen(1.0) == whole


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Dataset, Path, list[Utterance]]:
    """Ten tracks; six are missing, corrupt, truncated, empty or too short."""
    found = [Utterance("train", "ida", k, "anger", 2.0) for k in range(1, 11)]
    audio = write_audio(tmp_path / "audio", found)
    paths = [audio / f"{u.track_id}.wav" for u in found]
    paths[0].unlink()
    paths[1].write_bytes(b"no sound at all, but some bytes" * 40)
    paths[2].write_bytes(paths[2].read_bytes()[:20_000])
    paths[3].write_bytes(b"")
    soundfile.write(paths[4], voice(found[4])[: int(0.1 * SAMPLE_RATE)], SAMPLE_RATE)
    soundfile.write(paths[5], voice(found[5])[: int(0.5 * SAMPLE_RATE)], SAMPLE_RATE)
    soundfile.write(paths[6], voice(found[6])[: int(1.1 * SAMPLE_RATE)], SAMPLE_RATE)
    return load(write_tables(tmp_path / "dataset", found)), audio, found


def test_dropped_tracks_have_reasons(broken: tuple[Dataset, Path, list[Utterance]]) -> None:
    data, audio, found = broken
    scan = find_clips(data, [u.track_id for u in found], audio)
    assert [clip.track_id for clip in scan.clips] == [u.track_id for u in found[6:]]
    assert scan.clips[0].duration == pytest.approx(1.1), "half a second less is accepted"
    assert Counter(d.error for d in scan.dropped) == {
        "FileNotFound": 1,
        "Unreadable": 3,
        "TooShort": 1,
        "EndsBeforeFrames": 1,
    }
    assert [d.track_id for d in scan.dropped] == [u.track_id for u in found[:6]]
    assert all(str(audio) not in d.message + d.source for d in scan.dropped)
    assert scan.dropped[5].message == "0.50 s of audio, but frames up to 1.92 s"
    assert "4 of 10 tracks have usable audio; dropped 3 x open: Unreadable, " in scan.summary()


def test_too_many_dropped_tracks_are_an_error(
    broken: tuple[Dataset, Path, list[Utterance]],
) -> None:
    data, audio, found = broken
    scan = find_clips(data, [u.track_id for u in found], audio)
    scan.check(audio, 0.6)
    with pytest.raises(CheckError, match=r"6 of 10 tracks .* ida/v/00001: .*--max-dropped"):
        scan.check(audio, 0.59)
    with pytest.raises(CheckError, match="6 of 6 tracks"):
        Scan([], scan.dropped).check(audio, 1.0)


def test_file_damaged_after_the_scan_is_replaced(tmp_path: Path) -> None:
    found = [Utterance("train", "ida", k, "anger", 1.5) for k in range(1, 9)]
    audio = write_audio(tmp_path / "audio", found)
    data = load(write_tables(tmp_path / "dataset", found))
    clips = find_clips(data, [u.track_id for u in found], audio).clips
    segments = segments_of(data, clips, audio, QUICK)
    before = [segments.segment(i) for i in range(16)]
    clips[2].path.unlink()
    clips[5].path.write_bytes(clips[5].path.read_bytes()[:5000])
    after = [segments.segment(i) for i in range(16)]
    failed = [i for i in range(16) if after[i].failures]
    assert len(failed) == 4, "both files, in both passes"
    for i in range(16):
        assert len(after[i].samples) == LENGTH
        same = np.array_equal(after[i].samples, before[i].samples)
        assert same == (i not in failed), "the others are unchanged"
    names = {failure.track_id for i in failed for failure in after[i].failures}
    assert names == {clips[2].track_id, clips[5].track_id}
    with_workers = collect(segments, list(range(16)), 4, 2)
    np.testing.assert_array_equal(with_workers.samples, [s.samples for s in after])


def test_segments_are_empty_without_readable_tracks(tmp_path: Path) -> None:
    found = [Utterance("train", "ida", k, "anger", 1.5) for k in range(1, 4)]
    audio = write_audio(tmp_path / "audio", found)
    data = load(write_tables(tmp_path / "dataset", found))
    clips = find_clips(data, [u.track_id for u in found], audio).clips
    for clip in clips:
        clip.path.unlink()
    for chosen in (
        segments_of(data, clips, audio, QUICK),
        segments_of(data, clips, audio, QUICK, is_random=False),
    ):
        [batch] = load_batches(chosen, [0, 1], 2, 1)
        assert batch.samples.shape[0] == batch.targets.shape[0] == 0
        assert {failure.error for failure in batch.failures} == {"Unreadable"}


@pytest.mark.parametrize("workers", [0, 1])
def test_error_in_a_worker_is_one_line(tmp_path: Path, workers: int) -> None:
    found = [Utterance("train", "ida", k, "anger", 1.5) for k in range(1, 4)]
    audio = write_audio(tmp_path / "audio", found)
    data = load(write_tables(tmp_path / "dataset", found, step_ms=200))
    clips = find_clips(data, [u.track_id for u in found], audio).clips
    segments = segments_of(data, clips, audio, replace(QUICK, timing="legacy"))
    with pytest.raises(ConfigError, match="timing 'legacy' requires a step of 240 ms") as caught:
        list(load_batches(segments, [0, 1, 2], 3, workers))
    assert "\n" not in str(caught.value)


def test_missing_folder(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder not found; pass .* --audio"):
        find_clips(data, [], tmp_path / "none")


def test_segment_length_equals_the_reference() -> None:
    assert Windows(StudentTrainConfig().seconds).length == 64_384
    assert math.isclose(LENGTH, 1.024 * SAMPLE_RATE)
