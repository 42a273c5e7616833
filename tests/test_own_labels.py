"""Datasets of a user's own labels and values."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import emovox
from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError

LABELS: dict[str, list[Any]] = {
    "track_id": ["ann/talk/1", "ann/talk/2", "bob/lecture/00001", "cat/song/3"],
    "label": ["anger", "neutral", "calm", "anger"],
    "split": ["train", "train", "heard_val", "unheard_val"],
    "duration_ms": [1000, None, 480, 0],
}


def frames_of(tracks: dict[str, list[Any]], **more: Any) -> dict[str, list[Any]]:
    """Rows in a mixed order: grid points 3, 0 and 1 of each track."""
    rows = [(track_id, k) for k in (3, 0, 1) for track_id in tracks["track_id"]]
    values = np.random.default_rng(0).normal(size=(5, len(rows))).astype(np.float32)
    names = ("logit_happy", "logit_sad", "logit_other", "value_arousal", "value_power")
    columns: dict[str, Any] = {
        "track_id": [r[0] for r in rows],
        "frame_index": [r[1] for r in rows],
    }
    return columns | dict(zip(names, values.tolist(), strict=True)) | more


def test_labels_of_tracks_become_a_valid_dataset(tmp_path: Path) -> None:
    dataset = emovox.write_dataset(tmp_path / "own", LABELS, name="own", hdf5=True)
    assert emovox.validate(tmp_path / "own").valid
    # The published emotions come first, in their order.
    assert dataset.emotions == ("neutral", "anger", "calm") and dataset.values == ()
    track = dataset["ann/talk/00001"]
    assert track.logits.tolist() == [[0, 6, 0]] * 5 and track.label == "anger"
    assert track.times.tolist() == [0.0, 0.24, 0.48, 0.72, 0.96]
    lengths = {t.track_id: len(t.logits) for t in dataset}
    assert list(lengths.values()) == [5, 1, 3, 1]
    assert dataset.tracks["heard_val"]["split"].to_pylist() == ["heard_val"]
    assert "logit_disgust" not in dataset.frames["train"].column_names


def test_frames_are_sorted_and_kept_to_the_bit(tmp_path: Path) -> None:
    tracks: dict[str, list[Any]] = {name: LABELS[name] for name in ("track_id", "split")}
    given = frames_of(tracks)
    dataset = emovox.write_dataset(tmp_path / "own", tracks, pa.table(given))
    assert emovox.validate(tmp_path / "own").valid
    assert dataset.emotions == ("happy", "sad", "other") and dataset.values == ("arousal", "power")
    for name in tracks["track_id"]:
        identity, video, number = name.split("/")
        track = dataset[f"{identity}/{video}/{int(number):05d}"]
        assert track.frame_index.tolist() == [0, 1, 3]
        rows = [i for k in (0, 1, 3) for i in range(12)
                if given["track_id"][i] == name and given["frame_index"][i] == k]  # fmt: skip
        for column, found in zip(("happy", "sad", "other"), track.logits.T, strict=True):
            expected = [np.float32(given[f"logit_{column}"][i]) for i in rows]
            np.testing.assert_array_equal(found, expected)
        expected = [np.float32(given["value_power"][i]) for i in rows]
        np.testing.assert_array_equal(track.values[:, 1], expected)
        row = next(
            r for r in dataset.tracks[track.split].to_pylist() if r["track_id"] == track.track_id
        )
        assert row["mean_power"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_data_frames_times_embeddings_and_faces(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    tracks: dict[str, list[Any]] = {"track_id": LABELS["track_id"]}
    tracks |= {"source": [f"media/{k}.mp4" for k in range(4)]}
    tracks |= {"start_ms": [0, 1000, 0, 0], "end_ms": [960, 1960, 960, 960]}
    tracks["sound_offset_ms"] = [0.0, None, -23.2, 5.0]
    given = frames_of(tracks)
    given["timestamp_ms"] = [k * 240 for k in given.pop("frame_index")]
    given["embedding"] = [[0.5 * k, 1.0] for k in range(12)]
    numbers = dict.fromkeys(schema.FACES.names[2:], [1.0] * 12)
    given |= numbers | {"pts_ms": [float(t) for t in given["timestamp_ms"]], "shot": [0] * 12}
    frames = pd.DataFrame(given).set_index(pd.Index(range(100, 112)))
    dataset = emovox.write_dataset(tmp_path / "own", pd.DataFrame(tracks), frames)
    validation = emovox.validate(tmp_path / "own")
    assert validation.valid and not [o.rule.name for o in validation.outcomes if o.blocked]
    split = dataset.splits[0]
    embeddings = pq.read_table(tmp_path / "own" / schema.table_file("embeddings", split))
    first = dataset.tracks[split]["track_id"][0].as_py()
    names = [f"{i}/{v}/{int(n):05d}" for i, v, n in (t.split("/") for t in tracks["track_id"])]
    assert embeddings["embedding"][0].as_py() == [0.5 * (4 + names.index(first)), 1.0]
    row = dataset.tracks[split].to_pylist()[0]
    assert row["source"] == f"media/{names.index(first)}.mp4" and row["duration_ms"] == 960
    assert row["n_expected"] == 5 and row["n_frames"] == 3


def test_unusable_tracks_are_dropped_with_their_reason(tmp_path: Path) -> None:
    names = ["a/v/1", "a/v/01", "no id", "b/v/1", "c/v/1", "d/v/1", "e/v/1", "f/v/1"]
    labels = ["anger", "anger", "anger", "joy", None, "fear", "fear", "fear"]
    tracks = {"track_id": names, "label": labels, "split": [*["train"] * 5, "test", "train", None]}
    tracks["duration_ms"] = [None] * 6 + [-5, float("nan")]
    with pytest.warns(
        UserWarning, match=r"6 of 8 tracks .*; the first: a/v/01: row 0 has the same"
    ):
        dataset = emovox.write_dataset(tmp_path / "own", tracks, emotions=EMOTIONS)
    rows = pq.read_table(tmp_path / "own" / schema.DROPPED_FILE).to_pylist()
    assert "label 'joy' is not one of the emotions" in {r["message"] for r in rows}
    assert {(r["track_id"], r["error"]) for r in rows} == {
        ("a/v/01", "DuplicateTrack"),
        ("no id", "BadName"),
        ("b/v/00001", "BadLabel"),
        ("c/v/00001", "BadLabel"),
        ("d/v/00001", "NoSplit"),
        ("e/v/00001", "BadTime"),
    }
    assert len(dataset) + len(rows) == len(names)
    assert emovox.validate(tmp_path / "own").valid


@pytest.mark.filterwarnings("ignore:.*dropped.parquet")
@pytest.mark.parametrize("name", ["sound_offset_ms", "start_ms", "duration_ms", "n_expected"])
@pytest.mark.parametrize("value", ["soon", "inf", "1e300", "9" * 5000])
def test_a_number_that_is_none_drops_its_track(tmp_path: Path, name: str, value: str) -> None:
    tracks = {"track_id": ["a/v/1", "b/v/1"], "label": ["anger", "fear"], name: [None, value]}
    dataset = emovox.write_dataset(tmp_path / "own", tracks)
    rows = pq.read_table(tmp_path / "own" / schema.DROPPED_FILE).to_pylist()
    if (name, value) == ("sound_offset_ms", "1e300"):  # odd, and a number
        assert not rows
    else:
        assert [(r["track_id"], r["error"]) for r in rows] == [("b/v/00001", "BadTime")]
        assert len(dataset) == 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"start_ms": [0, 1.5], "end_ms": [480, 3]}, "BadTime", "start_ms is 1.5, not a whole"),
        ({"source": ["b.wav", "/data/a.wav"]}, "BadSource", "source is not a path below a folder"),
        ({"source": ["b.wav", "../a.wav"]}, "BadSource", "source is not a path below a folder"),
        ({"value_arousal": [0.5, None]}, "BadLabel", "value_arousal is None, not a finite number"),
        ({"duration_ms": [480, 100]}, "BadTime", "its frame at 240 ms is past its end at 100 ms"),
    ],
)
def test_what_validate_refuses_is_dropped(
    tmp_path: Path, changed: dict[str, Any], error: str, message: str
) -> None:
    tracks = {"track_id": ["b/v/1", "a/v/1"], "label": ["fear", "anger"], **changed}
    frames = None
    if error == "BadTime" and "duration_ms" in changed:
        frames = {"track_id": ["a/v/1", "b/v/1"], "frame_index": [1, 2], "label": ["fear", "anger"]}
    with pytest.warns(UserWarning, match="1 of 2 tracks are in dropped.parquet"):
        emovox.write_dataset(tmp_path / "own", tracks, frames)
    (row,) = pq.read_table(tmp_path / "own" / schema.DROPPED_FILE).to_pylist()
    assert (row["track_id"], row["error"]) == ("a/v/00001", error)
    assert row["message"].startswith(message)
    assert emovox.validate(tmp_path / "own").valid


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    tracks = {"track_id": ["a/v/1", "b/v/1"], "label": ["fear", "anger"], "start": [0, 0]}
    tracks |= {"source": ["a.wav", "b.wav"], "valence": [0.5, 0.1]}
    with pytest.warns(UserWarning, match="columns that are not read: start, valence$"):
        emovox.write_dataset(tmp_path / "own", tracks)
    with warnings.catch_warnings():  # the tables of a dataset are read without a warning
        warnings.simplefilter("error")
        own = emovox.load(tmp_path / "own")
        stored = [pa.concat_tables(part.values()) for part in (own.tracks, own.frames)]
        assert len(emovox.write_dataset(tmp_path / "again", *stored)) == 2


@pytest.mark.filterwarnings("ignore:.*dropped.parquet")
def test_rows_of_a_track_that_is_listed_twice_go_to_the_first(tmp_path: Path) -> None:
    tracks = {"track_id": ["a/v/1", "b/v/1", "a/v/1"], "duration_ms": [480, 480, 960]}
    frames = {"track_id": ["a/v/1", "b/v/1", "a/v/1"], "frame_index": [1, 0, 0]}
    frames |= {"logit_happy": [4.0, 2.0, 3.0], "logit_sad": [0.0] * 3}
    dataset = emovox.write_dataset(tmp_path / "own", tracks, frames)
    assert dataset["a/v/00001"].logits.tolist() == [[3, 0], [4, 0]]
    rows = pq.read_table(tmp_path / "own" / schema.DROPPED_FILE).to_pylist()
    assert [(r["track_id"], r["error"]) for r in rows] == [("a/v/1", "DuplicateTrack")]
    assert emovox.validate(tmp_path / "own").valid


@pytest.mark.parametrize(
    ("tracks", "frames", "options", "kind", "words"),
    [
        ({"label": ["anger"]}, None, {}, InputError, "tracks: the column track_id is missing"),
        ({"track_id": ["a/v/1"]}, None, {}, InputError, "neither columns logit_<emotion> nor"),
        ({"track_id": ["a/v/1"], "label": ["joy"]}, None, {}, ConfigError, "found 1"),
        (
            {"track_id": ["a/v/1"], "label": ["Joy", ]},
            None, {"emotions": ("Joy", "sad")}, ConfigError, "invalid name 'Joy'",
        ),
        ({"track_id": ["a/v/1"]}, {"track_id": ["a/v/1"]}, {}, InputError, "a column frame_index"),
        (
            {"track_id": ["a/v/1"]},
            {"track_id": ["a/v/2"], "frame_index": [0], "logit_a": [1.0], "logit_b": [1.0]},
            {}, InputError, "frames: track_id 'a/v/2' is not in tracks",
        ),
        (
            {"track_id": ["a/v/1"]},
            {"track_id": ["a/v/1"], "frame_index": [0], "logit_a": [1.0], "logit_b": ["x"]},
            {}, InputError, "the column logit_b holds no numbers",
        ),
        (
            {"track_id": ["a/v/1"]},
            {"track_id": ["a/v/1"], "timestamp_ms": [100], "logit_a": [1.0], "logit_b": [0]},
            {}, InputError, "timestamp_ms 100 is not a multiple of 240",
        ),
        (
            {"track_id": ["a/v/1"]},
            {"track_id": ["a/v/1"], "frame_index": [0.5], "logit_a": [1.0], "logit_b": [0]},
            {}, InputError, "frame_index holds a number that is missing or not whole",
        ),
        (
            {"track_id": ["a/v/1"]},
            {"track_id": ["a/v/1"], "frame_index": [-1], "logit_a": [1.0], "logit_b": [0]},
            {}, CheckError, "no usable track; the first: a/v/00001: a frame_index is negative",
        ),
        ({"track_id": ["a/v/1"], "label": ["anger", "x"]}, None, {}, InputError, "not a table"),
        (17, None, {}, InputError, "tracks: not a table"),
        ({"track_id": [], "label": []}, None, {"emotions": EMOTIONS}, CheckError, "no usable"),
        (
            {"track_id": ["a/v/1"], "label": ["anger"], "logit_fear": [1.0], "logit_joy": [0.0]},
            None, {}, InputError, "both label and logit_<emotion> found; remove one",
        ),
        (
            {"track_id": ["a/v/1", "a/w/1"], "label": ["x", "y"], "split": schema.SPLITS[1:]},
            None, {}, CheckError, "the split leaks: 1 identities",
        ),
        (
            {"track_id": ["a/v/1"], "label": ["anger"]}, None,
            {"emotions": EMOTIONS, "version": "1"}, ConfigError,
            "version '1' is not of the form 1.0.0",
        ),
    ],
)  # fmt: skip
def test_bad_tables_give_one_line(
    tmp_path: Path, tracks: Any, frames: Any, options: Any, kind: type, words: str
) -> None:
    with pytest.raises(EmovoxError, match=words) as caught:
        emovox.write_dataset(tmp_path / "own", tracks, frames, **options)
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    assert not (tmp_path / "own").exists()


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        emovox.write_dataset(tmp_path, LABELS)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
