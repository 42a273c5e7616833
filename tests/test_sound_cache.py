"""Sound caches, compared with the files that they were made from; segments for other trainings."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from student_fixtures import (
    QUICK,
    Utterance,
    logits_of,
    utterances,
    voice,
    write_audio,
    write_tables,
)
from torch.utils.data import DataLoader

import emovox
from emovox.cli import main
from emovox.dataset.reader import load
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError
from emovox.media.audio import SAMPLE_RATE, read_audio
from emovox.student import sound_cache
from emovox.student.clips import Windows
from emovox.student.segments import SpeechSegments, load_batches
from emovox.student.sound_cache import SoundCache, pack_sound, to_int16
from emovox.student.training import train_student

STEP = 1 / 2**15
LENGTH = Windows(QUICK.seconds).length

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_cache, "FILE_TRACKS", 4)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A dataset of ten tracks in 16-bit WAV files."""
    found = [Utterance("train", "ida", k, "anger", 0.8 + 0.1 * k) for k in range(1, 11)]
    write_audio(tmp_path / "audio", found)
    write_tables(tmp_path / "dataset", found)
    return tmp_path


def pack(made: Path, name: str = "sound", jobs: int = 1, dataset: str = "dataset") -> list[str]:
    said: list[str] = []
    pack_sound(made / dataset, made / "audio", made / name, jobs=jobs, say=said.append)
    return said


def cached(made: Path, name: str = "sound", dataset: str = "dataset") -> dict[str, np.ndarray]:
    """The samples of every track in a cache."""
    segments = SpeechSegments(made / dataset, made / "audio", "train", max_dropped=1.0)
    found = SoundCache(made / name, segments.clips, made / "audio")
    return found._samples


def wave_samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def assert_complete(made: Path, name: str = "sound") -> None:
    """Every track is in the cache, as the module wave reads it."""
    found = cached(made, name)
    assert len(found) == 10
    for track_id, samples in found.items():
        np.testing.assert_array_equal(samples, wave_samples(made / f"audio/{track_id}.wav"))


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.glob("sound-*")}


# Samples


def test_16_bit_files_are_stored_as_they_are(made: Path) -> None:
    pack(made)
    assert_complete(made)
    assert len(list((made / "sound").glob("sound-*.pcm"))) == 3, "4, 4 and 2 tracks"


def test_samples_are_rounded_and_clipped_as_in_a_wav_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.uniform(-1, 1, 50_000), [1.0, -1.0, 0.99999, 0.0]])
    samples = samples.astype(np.float32)
    rounded = to_int16(samples)
    exact = samples.astype(np.float64) * 2**15
    assert np.abs(rounded - np.minimum(exact, 2**15 - 1)).max() <= 0.5
    assert rounded[-4:].tolist() == [32767, -32768, 32767, 0]


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_other_files_differ_by_half_a_step_at_most(made: Path, rate: int) -> None:
    path = next((made / "audio").rglob("*.wav"))
    noise = np.random.default_rng(0).uniform(-1, 1, (2 * rate, 2))
    soundfile.write(path, noise, rate, subtype="FLOAT")
    pack(made)
    track_id = path.relative_to(made / "audio").with_suffix("").as_posix()
    stored = cached(made)[track_id]
    assert np.abs(stored * STEP - read_audio(path).astype(np.float64)).max() <= STEP * 0.501


@pytest.mark.real
def test_segments_of_aac_equal_those_of_the_files(
    tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = []
    for path in sorted((real_data / "voxceleb2-clips").rglob("*.mp4")):
        identity, _, name = path.relative_to(real_data / "voxceleb2-clips/mp4").parts
        tracks.append(Utterance("train", identity, int(name[:-4]), "anger", 3.0))
        target = tmp_path / f"audio/{tracks[-1].track_id}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    tracks.sort(key=lambda u: u.track_id)
    place = write_tables(tmp_path / "dataset", tracks), tmp_path / "audio", "train", 1.0
    segments = SpeechSegments(*place, sound_cache=tmp_path / "sound")
    for position, item in enumerate(SpeechSegments(*place)):
        found = segments[position]
        assert found["start"] == item["start"] and found["track_id"] == item["track_id"]
        first = round(found["start"] * SAMPLE_RATE)
        whole = read_audio(tmp_path / f"audio/{found['track_id']}.mp4")[first:]
        whole = whole[: len(found["samples"])]
        assert np.abs(found["samples"][: len(whole)] - whole).max() <= 0.51 * STEP
        # FFmpeg fills bands that AAC codes as noise with random numbers, which depend on where
        # decoding began; few samples of these clips have such bands.
        same = np.abs(found["samples"] - item["samples"]) <= 0.51 * STEP
        assert same.mean() > 0.95


# Packing


def test_processes_store_the_same_as_one(made: Path) -> None:
    pack(made, "one")
    pack(made, "many", jobs=2)
    assert_complete(made, "many")
    one, many = cached(made, "one"), cached(made, "many")
    assert one.keys() == many.keys() and all(np.array_equal(one[k], many[k]) for k in one)


def test_second_run_changes_nothing(made: Path) -> None:
    assert len(pack(made)) == 1
    before = files_of(made / "sound")
    assert pack(made) == [] and files_of(made / "sound") == before


def test_killed_run_resumes(made: Path) -> None:
    code = (
        "import sys, time; from emovox.student import sound_cache as s; read = s.read_audio\n"
        "def slow(*arguments):\n    time.sleep(0.2)\n    return read(*arguments)\n"
        "s.read_audio, s.FILE_TRACKS = slow, 2\n"
        "s.pack_sound('dataset', 'audio', 'sound', jobs=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=made)
    folder = made / "sound"
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.json"))) < 2 or not list(folder.glob(".sound-*.tmp")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    complete = {path.stem for path in folder.glob("*.json")}
    before = {k: v for k, v in files_of(folder).items() if k.split(".")[0] in complete}
    assert 4 <= len(cached(made)) < 10 and len(before) == 2 * len(complete)
    pack(made)
    assert_complete(made)
    after = files_of(folder)
    assert after.items() > before.items() and not list(folder.glob(".sound-*.tmp"))
    assert {k for k in after if k.endswith(".pcm")} == {
        f"{p.stem}.pcm" for p in folder.glob("*.json")
    }


def test_killed_process_is_one_line(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(sound_cache, "_write", die)
        with pytest.raises(EmovoxError, match="a process that decodes was killed; rerun") as caught:
            pack(made, jobs=2)
    assert "\n" not in str(caught.value)
    pack(made, jobs=2)
    assert_complete(made)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def shift(path: Path) -> None:
    """Move a track by a sample in the index."""
    index = json.loads(path.read_text())
    index["tracks"][1][1] += 1
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("ending", "harm"),
    [
        ("pcm", lambda path: flip(path, 1000)),
        ("pcm", shorten),
        ("pcm", Path.unlink),
        ("json", shift),
        ("json", shorten),
        ("json", lambda path: path.write_text("[]")),
        ("json", lambda path: path.write_text('{"tracks": [[["a"], 0, 1]], "sha256": ""}')),
    ],
)
def test_damaged_file_is_packed_again(
    made: Path, ending: str, harm: Callable[[Path], object]
) -> None:
    pack(made)
    before = files_of(made / "sound")
    path = sorted((made / "sound").glob(f"*.{ending}"))[0]
    harm(path)
    said = pack(made)
    assert any("its tracks are packed again" in line and path.stem in line for line in said)
    assert "packing" in said[0] and all("\n" not in line for line in said)
    assert_complete(made)
    kept = {name: v for name, v in before.items() if path.stem not in name}
    assert len(kept) == 4 and files_of(made / "sound").items() >= kept.items()
    assert pack(made) == []


def test_damage_is_found_when_a_training_starts(made: Path) -> None:
    pack(made)
    flip(next((made / "sound").glob("*.pcm")), 1000)
    SpeechSegments(made / "dataset", made / "audio", "train", sound_cache=made / "sound")
    assert_complete(made)


def test_changed_source_is_packed_again(made: Path) -> None:
    pack(made)
    path = made / "audio/ida/v/00003.wav"
    changed = np.random.default_rng(1).uniform(-0.5, 0.5, 20_000).astype(np.float32)
    soundfile.write(path, changed, SAMPLE_RATE)
    assert "packing 1 tracks" in pack(made)[0]
    assert_complete(made)
    os.utime(path, ns=(1, 1))  # the same content may be another recording of the same length
    assert "packing 1 tracks" in pack(made)[0]


def test_tracks_without_sound_are_reported_and_the_others_stored(made: Path) -> None:
    (made / "audio/ida/v/00001.wav").unlink()
    (made / "audio/ida/v/00002.wav").write_bytes(b"no sound at all" * 100)
    path = made / "audio/ida/v/00003.wav"  # whose header is intact
    soundfile.write(
        path.with_suffix(".flac"), voice(Utterance("train", "ida", 3, "anger", 2)), 16_000
    )
    path.unlink()
    flip(path.with_suffix(".flac"), 20_000)
    with pytest.raises(CheckError, match="3 of 10 tracks have no usable audio"):
        pack(made)
    scan = pack_sound(made / "dataset", made / "audio", made / "sound", max_dropped=0.3)
    assert [item.track_id[-1] for item in scan.dropped] == ["1", "2", "3"]
    assert len(scan.clips) == len(cached(made)) == 7
    table = scan.to_pandas()
    assert len(table) == 10 and table["reason"].notna().sum() == 3
    assert len(list((made / "sound").glob("*.pcm"))) == 2, "none for the unreadable track alone"
    place = made / "dataset", made / "audio", "train"
    plain, segments = (
        SpeechSegments(*place, 1.0, sound_cache=cache, max_dropped=0.3)
        for cache in (None, made / "sound")
    )
    for position in range(20):
        one, other = plain.segment(position), segments.segment(position)
        assert one.failures == other.failures and one.track_id == other.track_id
    assert any(plain.segment(position).failures for position in range(8))


def test_two_datasets_share_a_cache(made: Path) -> None:
    found = [Utterance("train", "ida", k, "anger", 0.8 + 0.1 * k) for k in range(1, 6)]
    write_tables(made / "half", found, name="half")
    pack(made, dataset="half")
    before = files_of(made / "sound")
    assert "packing 5 tracks" in pack(made)[0]
    assert files_of(made / "sound").items() > before.items()
    assert_complete(made)
    assert pack(made, dataset="half") == []


def test_packing_does_not_disturb_readers(made: Path) -> None:
    place = made / "dataset", made / "audio", "train", 1
    pack(made)
    segments = SpeechSegments(*place, sound_cache=made / "sound")
    before = [item["samples"].copy() for item in segments]
    flip(next((made / "sound").glob("*.json")), 20)
    write_audio(made / "audio", [Utterance("train", "ida", 2, "anger", 1.9)])
    pack(made)
    for position, samples in enumerate(before):
        np.testing.assert_array_equal(segments[position]["samples"], samples)


def test_command(made: Path) -> None:
    arguments = ["pack-sound", str(made / "dataset"), "--audio", str(made / "audio")]
    result = CliRunner().invoke(main, [*arguments, "--out", str(made / "sound"), "--jobs", "1"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "10 of 10 tracks have usable audio\n"
    assert "packing 10 tracks" in result.stderr
    assert_complete(made)
    result = CliRunner().invoke(main, [*arguments[:-1], "none", "--out", str(made / "sound")])
    assert result.exit_code == InputError.exit_code and "folder not found" in result.stderr


# Segments


def test_segments_equal_those_of_the_files(made: Path) -> None:
    place = made / "dataset", made / "audio", "train", 1.0, "mean"
    plain, segments = SpeechSegments(*place), SpeechSegments(*place, sound_cache=made / "sound")
    assert segments.sounds is not None and plain.sounds is None
    for position in range(25):
        one, other = plain[position], segments[position]
        np.testing.assert_array_equal(one["samples"], other["samples"])
        np.testing.assert_array_equal(one["target"], other["target"])
        assert (one["track_id"], one["start"]) == (other["track_id"], other["start"])
        assert one["samples"].dtype == other["samples"].dtype == np.float32
    for workers in (0, 1, 3):
        batches = list(load_batches(segments, range(30, 90), 7, workers))
        samples = np.concatenate([batch.samples for batch in batches])
        assert samples.dtype == np.int16
        expected = [plain.segment(position).samples for position in range(30, 90)]
        np.testing.assert_array_equal(samples * np.float32(STEP), expected)


def test_items_are_the_sound_and_the_rows_of_their_time(made: Path) -> None:
    segments = SpeechSegments(made / "dataset", made / "audio", "train", 1.0, seed=3)
    assert len(segments) == len(list(segments)) == 10
    drawn = [segments[position]["track_id"] for position in range(20)]
    assert len(set(drawn[:10])) == len(set(drawn[10:])) == 10 and drawn[:10] != drawn[10:]
    for item in segments:
        first = round(item["start"] * SAMPLE_RATE)
        whole = wave_samples(made / f"audio/{item['track_id']}.wav")[first : first + LENGTH]
        np.testing.assert_allclose(item["samples"][: len(whole)], whole * STEP)
        assert len(item["samples"]) == LENGTH and not item["samples"][len(whole) :].any()
        number = int(item["track_id"][-2:])
        rows = logits_of(Utterance("train", "ida", number, "anger", 0.8 + 0.1 * number))
        start, end = item["start"], min(item["start"] + 1, (0.8 + 0.1 * number))
        inside = [r for k, r in enumerate(rows) if 0.24 * k < end and 0.24 * (k + 1) > start]
        np.testing.assert_allclose(item["target"], np.max(inside, axis=0))


def test_other_splits_give_the_middle_of_each_track(tmp_path: Path) -> None:
    found = utterances(["heard_val"])
    write_audio(tmp_path / "audio", found)
    write_tables(tmp_path / "dataset", found)
    segments = SpeechSegments(tmp_path / "dataset", tmp_path / "audio", "heard_val", 1.0)
    assert [item["track_id"] for item in segments] == [u.track_id for u in found]
    for utterance, item in zip(found, segments, strict=True):
        assert item["start"] == pytest.approx(max(utterance.duration - 1.024, 0) / 2, abs=1e-4)
    with pytest.raises(IndexError):
        segments[len(found)]
    (tmp_path / f"audio/{found[2].track_id}.wav").unlink()
    with pytest.raises(InputError, match=found[2].track_id):
        segments[2]
    with pytest.raises(ConfigError, match="split 'train' not found"):
        SpeechSegments(tmp_path / "dataset", tmp_path / "audio", "train")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [None, "sound"])
def test_loader_of_torch_makes_batches(made: Path, workers: int, cache: str | None) -> None:
    folder = made / cache if cache else None
    segments = emovox.SpeechSegments(
        made / "dataset", made / "audio", "train", 1, sound_cache=folder
    )
    spawn = "spawn" if workers else None
    loader = DataLoader(segments, 4, num_workers=workers, multiprocessing_context=spawn)
    batches = list(loader)
    assert [len(batch["samples"]) for batch in batches] == [4, 4, 2]
    batch = batches[0]
    assert batch["samples"].dtype == batch["target"].dtype == torch.float32
    assert batch["target"].shape == (4, 8) and len(batch["start"]) == 4
    np.testing.assert_array_equal(batch["samples"][3], segments[3]["samples"])
    assert len(pickle.dumps(segments)) < 20_000, "no samples"


# Training


@pytest.fixture
def whole(student_data: Path, tmp_path: Path) -> Path:
    """An uninterrupted training of three epochs, from the files."""
    learn(student_data, tmp_path / "whole", None)
    return tmp_path / "whole"


def learn(student_data: Path, out: Path, cache: Path | None, workers: int = 0) -> list[str]:
    said: list[str] = []
    train_student(
        student_data / "dataset",
        student_data / "audio",
        out,
        replace(QUICK, epochs=3, workers=workers),
        sound_cache=cache,
        say=said.append,
    )
    return said


def weights(out: Path) -> str:
    tensors = load_file(out / "best.safetensors")
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors.values())).hexdigest()


def test_training_from_a_cache_equals_that_from_16_bit_files(
    student_data: Path, tmp_path: Path, whole: Path
) -> None:
    said = learn(student_data, tmp_path / "run", tmp_path / "sound", workers=2)
    assert any("packing 60 tracks" in line for line in said)
    assert weights(tmp_path / "run") == weights(whole)
    with pytest.raises(ConfigError, match=r"sound_cache"):
        learn(student_data, tmp_path / "run", None)
    assert not any("packing" in s for s in learn(student_data, tmp_path / "2", tmp_path / "sound"))


def test_killed_training_resumes_from_the_cache(
    student_data: Path, tmp_path: Path, whole: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    values = {k: v for k, v in asdict(replace(QUICK, epochs=3, workers=2)).items() if v is not None}
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    out, cache = tmp_path / "killed", tmp_path / "sound"
    words = ["-m", "emovox", "train-student", student_data / "dataset", recipe]
    words += ["--audio", student_data / "audio", "--out", out, "--sound-cache", cache]
    command = [sys.executable, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline(), "an epoch has ended"
        process.kill()
    assert 1 <= len((out / "log.jsonl").read_text().splitlines()) < 3
    learn(student_data, out, cache)
    assert weights(out) == weights(whole)


def test_prior_and_data_do_not_depend_on_the_cache(student_data: Path, tmp_path: Path) -> None:
    data = load(student_data / "dataset")
    place = data, student_data / "audio", "train", 1.0
    plain = SpeechSegments(*place)
    segments = SpeechSegments(*place, sound_cache=tmp_path / "sound")
    assert plain.clips == segments.clips and segments.dataset is data


@pytest.mark.parametrize("option", [("--jobs", "-3"), ("--max-dropped", "7")])
def test_options_out_of_bounds_are_refused(made: Path, option: tuple[str, str]) -> None:
    place = [str(made / "dataset"), "--audio", str(made / "audio"), "--out", str(made / "sound")]
    found = CliRunner().invoke(main, ["pack-sound", *place, *option])
    assert found.exit_code == 2 and option[0] in found.stderr
    assert not (made / "sound").exists()
