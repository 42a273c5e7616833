"""Targets over time, and the sequences of face and sound that a fusion reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import emovox
from emovox.dataset.reader import Dataset
from emovox.emotions import EMOTIONS
from emovox.errors import ConfigError, EmovoxError, InputError
from emovox.files import cache_folder
from emovox.fusion import sequences
from emovox.fusion.fusion_config import FusionTrainConfig
from emovox.fusion.sequences import Reader, divide_identities, read_targets
from emovox.media.spectrogram import SAMPLE_RATE
from emovox.student.clips import Windows

TRACKS = ["ann/talk/1", "ann/talk/2", "bob/song/1"]
RATE = SAMPLE_RATE


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three tracks of 2 s, with the grid points 0 to 8 except 3; two values."""
    rows = [(name, k) for name in TRACKS for k in range(9) if k != 3]
    numbers = np.arange(len(rows), dtype=float)
    frames: dict[str, Any] = {"track_id": [r[0] for r in rows], "frame_index": [r[1] for r in rows]}
    frames |= {"logit_calm": numbers, "logit_angry": -numbers, "value_arousal": numbers / 10}
    tracks = {"track_id": TRACKS, "split": ["train"] * 3, "duration_ms": [2000] * 3}
    return emovox.write_dataset(tmp_path / "dataset", tracks, frames)


def write_table(path: Path, rows: list[str], head: str = "track_id,timestamp_ms,arousal") -> Path:
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_table_gives_the_mean_of_its_raters(data: Dataset, tmp_path: Path) -> None:
    rows = ["ann/talk/00001,0,1.0,x", "ann/talk/00001,1000,3.0,x", "ann/talk/00001,0,0.0,y"]
    rows += ["ann/talk/00001,500,2.0,y", "ann/talk/00001,250,,y", "bob/song/00001,0,5,x"]
    head = "track_id,timestamp_ms,arousal,rater"
    found = read_targets(write_table(tmp_path / "t.csv", rows, head), data)
    assert found.names == ("arousal",) and not found.are_classes
    times = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.01])
    # x: 1, 1.5, 2, 2.5, 3, none. y, linear over its missing value: 0, 1, 2, then none.
    expected = [0.5, 1.25, 2.0, 2.5, 3.0, np.nan]
    np.testing.assert_allclose(found.at("ann/talk/00001", times)[:, 0], expected)
    assert np.isnan(found.at("ann/talk/00002", times)).all()


ARFF = """% made by a tool
@relation 'gold'
@ATTRIBUTE name string
@attribute 'time' numeric
@attribute GoldStandard numeric

@data
P1,0.00,0.5
P1,0.04,0.7
"""


def test_ratings_in_the_forms_of_recola(data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "ratings"
    for name, text in (
        ("arousal/ann-talk-00001.arff", ARFF),
        ("valence/ann-talk-00001.csv", "time;FM1;FM2\n0.00;-0.5;0.1\n0.04;0.0;0.2\n"),
        ("valence/bob.csv", "time,gold\n0.04,2\n0.00,1\n"),
        ("valence/somebody.csv", "no rating"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    found = read_targets(folder, data)
    assert found.names == ("arousal", "valence")
    times = np.array([0.0, 0.04])
    np.testing.assert_allclose(found.at("ann/talk/00001", times), [[0.5, -0.2], [0.7, 0.1]])
    nan = np.nan
    np.testing.assert_allclose(found.at("bob/song/00001", times), [[nan, 1], [nan, 2]])
    (folder / "valence/talk.csv").write_text("time,gold\n0,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"talk.csv: several tracks have this name"):
        read_targets(folder, data)


def test_targets_of_the_dataset_itself(data: Dataset, tmp_path: Path) -> None:
    values = read_targets("values", data)
    assert values.names == ("arousal",)
    np.testing.assert_allclose(
        values.at("ann/talk/00001", np.array([0.48, 0.72]))[:, 0], [0.2, 0.25]
    )
    labels = read_targets("labels", data)
    assert labels.are_classes and labels.names == ("calm", "angry")
    assert labels.at("bob/song/00001", np.array([0.0, 99.0])).tolist() == [[1, 0], [1, 0]]
    tracks = {"track_id": TRACKS, "label": ["anger"] * 3}
    plain = emovox.write_dataset(tmp_path / "plain", tracks, emotions=EMOTIONS)
    with pytest.raises(ConfigError, match="has no values; pass a table of targets"):
        read_targets("values", plain)


@pytest.mark.parametrize(
    ("head", "rows", "words"),
    [
        ("track_id,valence", ["ann/talk/00001,1"], "timestamp_ms"),
        ("track_id,timestamp_ms", ["ann/talk/00001,1"], "a column of values"),
        ("track_id,timestamp_ms,v", ["ann/talk/00001,soon,1"], "expected numbers"),
        ("track_id,timestamp_ms,v", ["ann/talk/00001,0,high"], "expected numbers"),
        ("track_id,timestamp_ms,v", ["ann/talk/00001,,1"], "or a timestamp_ms, is missing"),
        ("track_id,timestamp_ms,v", ["eve/talk/00001,0,1"], "no target of a track of .*ann/talk"),
    ],
)
def test_tables_that_cannot_be_used_give_one_line(
    data: Dataset, tmp_path: Path, head: str, rows: list[str], words: str
) -> None:
    path = write_table(tmp_path / "t.csv", rows, head)
    with pytest.raises(EmovoxError, match=words) as caught:
        read_targets(path, data)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"missing\.csv"):
        read_targets(tmp_path / "missing.csv", data)


class Ear:
    """Student whose embedding of a window is the time of its loudest sample, in seconds."""

    sha256, windows = "0" * 64, Windows(1.0)
    calls = 0

    def embed(self, samples: list[np.ndarray], part: Windows) -> np.ndarray:
        Ear.calls += 1
        assert all(len(each) == part.length for each in samples)
        return np.array([[np.argmax(each) / RATE] for each in samples], np.float32)


@pytest.fixture
def audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sound of each track: 1.6 s of silence with a click at 1.0 s; Ann's second has none."""
    monkeypatch.setattr(sequences, "load_student", lambda name, device: Ear())
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    samples = np.zeros(int(1.6 * RATE), np.float32)
    samples[RATE] = 0.9
    for name in ("ann/talk/00001", "bob/song/00001"):
        path = tmp_path / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    return tmp_path / "audio"


def test_sequences_of_face_and_sound(data: Dataset, audio: Path) -> None:
    lines: list[str] = []
    reader = Reader(
        data, read_targets("values", data), audio, FusionTrainConfig(sound="ear"), lines.append
    )
    first, second, _ = reader.read("train")
    assert (first.track_id, first.identity) == ("ann/talk/00001", "ann")
    np.testing.assert_allclose(first.times, np.arange(9) * 0.24)
    face, sound = first.features
    assert np.isnan(face[3]).all() and np.isfinite(np.delete(face, 3, axis=0)).all()
    np.testing.assert_allclose(face[4], [3, -3, 0.3])  # logits and value of the row of point 4
    # A window of 1 s around each step: at 1 s, the click is 0.5 s into the window.
    heard = (first.times > 0.5) & (first.times < 1.5)
    half = Windows(1.0).length // 2 / RATE
    np.testing.assert_allclose(sound[heard, 0], 1.0 - first.times[heard] + half, atol=1e-4)
    assert np.isnan(sound[first.times >= 1.6]).all()
    assert np.isnan(second.features[1]).all() and np.isfinite(second.features[0][0]).all()
    assert lines == ["train: 2 of 3 tracks have usable audio; dropped 1 x open: FileNotFound"]


def test_embeddings_are_kept_and_damage_is_noticed(data: Dataset, audio: Path) -> None:
    config = FusionTrainConfig(sound="ear")
    goals = read_targets("values", data)
    first = Reader(data, goals, audio, config).read("train")
    calls = Ear.calls
    again = Reader(data, goals, audio, config).read("train")
    assert Ear.calls == calls
    for path in (cache_folder() / "fusion").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    third = Reader(data, goals, audio, config).read("train")
    assert Ear.calls > calls
    for other in (again, third):
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a.features[1], b.features[1])


def test_a_finer_step_repeats_the_nearest_face(data: Dataset) -> None:
    config = FusionTrainConfig(fusion="video", step=0.08)
    (sequence, *_) = Reader(data, read_targets("values", data), None, config).read("train", {"ann"})
    assert len(sequence.times) == 27 and sequence.features[1].shape == (27, 0)
    nearest = [0, 0, 1, 1, 1, 2, 2, 2, None, None, None, 3, 3]  # rows; the grid point 3 has none
    found = [None if np.isnan(x) else int(x) for x in sequence.features[0][:13, 0]]
    assert found == nearest


def test_the_face_is_the_embedding_where_there_is_one(tmp_path: Path) -> None:
    frames = {"track_id": ["a/v/1"] * 2, "frame_index": [0, 2], "logit_x": [1.0, 2.0]}
    frames |= {"logit_y": [0.0, 0.0], "embedding": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}
    tracks = {"track_id": ["a/v/1"], "split": ["train"], "duration_ms": [700]}
    data = emovox.write_dataset(tmp_path / "dataset", tracks, frames)
    found = data.embeddings("train")
    assert found is not None and found.dtype == np.float16
    config = FusionTrainConfig(fusion="video")
    (sequence,) = Reader(data, read_targets("labels", data), None, config).read("train")
    expected = [[1, 2, 3], [np.nan] * 3, [4, 5, 6]]
    np.testing.assert_array_equal(sequence.features[0], expected)


@pytest.mark.parametrize("fusion", ["model", "audio"])
def test_sound_needs_a_network_and_a_folder(data: Dataset, tmp_path: Path, fusion: str) -> None:
    config = FusionTrainConfig(fusion=fusion)
    with pytest.raises(
        ConfigError, match=f"fusion '{fusion}' hears sound: pass --sound and --audio"
    ):
        Reader(data, read_targets("values", data), tmp_path, config)


def test_identities_are_divided_by_their_names(data: Dataset) -> None:
    own, others = divide_identities(data, 0.01)
    assert len(own) == len(others) == 1 and own | others == {"ann", "bob"}
    assert divide_identities(data, 0.9) == (own, others)
