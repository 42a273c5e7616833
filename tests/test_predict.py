"""Predictions: windows, scores of sound and faces, output formats, the Python function."""

import csv
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from sklearn.metrics import roc_auc_score

from emovox import checkpoints
from emovox.cli import main
from emovox.demo.demo_corpus import DemoConfig, plan_demo, write_track
from emovox.emotions import EMOTIONS, PUBLISHED
from emovox.errors import CheckError, ConfigError, InputError
from emovox.media.audio import read_audio
from emovox.media.spectrogram import num_samples
from emovox.student import load_student, networks
from emovox.student.clips import Windows
from emovox.student.networks import StudentConfig, VGGVox
from emovox.student.prediction import _spans, predict, prediction_schema
from emovox.student.student_config import PredictConfig


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "small.safetensors"
    network = VGGVox(StudentConfig(width=1 / 16), torch.Generator().manual_seed(0)).eval()
    checkpoints.save(path, network, {})
    return path


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 * 7).astype(np.float32)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return path


def emovox(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


@pytest.mark.parametrize(
    ("duration", "seconds", "hop", "expected"),
    [
        (0.3, 4, None, [0.0]),
        (4.0, 4, None, [0.0]),  # a window has 24 ms more
        (4.1, 4, None, [0.0, 2.0]),
        (4.9, 4, 4, [0.0, 4.0]),
        (6.0, 4, None, [0.0, 2.0]),
        (60.0, 4, None, [2.0 * k for k in range(29)]),
        (5.0, 2, 1, [0.0, 1.0, 2.0, 3.0]),
        (25.0, 4, 10, [0.0, 10.0, 20.0]),
    ],
)
def test_windows_reach_the_end(
    duration: float, seconds: float, hop: float | None, expected: list[float]
) -> None:
    windows, num_heard = Windows(seconds, hop), round(16_000 * duration)
    assert [start / 16_000 for start in windows.starts(num_heard)] == expected
    starts, ends = _spans(duration, windows)
    assert starts == expected and ends[0] == min(seconds, duration)
    if hop is None or hop <= seconds:
        assert ends[-1] == duration


def test_scores_equal_the_student_on_each_window(student: Path, noise: Path) -> None:
    result = emovox(noise, "--student", student, "--seconds", 2, "--hop", 1.5)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["start"], row["end"]) for row in rows] == [
        (0, 2),
        (1.5, 3.5),
        (3, 5),
        (4.5, 6.5),
        (6, 7),
    ]
    model = load_student(student)
    for row in rows:
        samples = read_audio(noise, row["start"], row["start"] + num_samples(200) / 16_000)
        logits = model(samples, Windows(2))[0].astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        scores = [row[f"student_{emotion}"] for emotion in EMOTIONS]
        np.testing.assert_allclose(scores, expected, atol=2e-3)
        assert row["student"] == EMOTIONS[int(np.argmax(scores))] and row["sound"] == "heard"
        assert not any(name.startswith("teacher") for name in row)


def test_video_is_scored_by_both_networks(student: Path, tmp_path: Path, in_process: None) -> None:
    config = DemoConfig(1, 1, 1, 2.0, 2.5)
    video = write_track(tmp_path, plan_demo(config)[0])
    out = tmp_path / "rows.parquet"
    result = emovox(video, "--student", student, "--seconds", 1, "--out", out, "--jobs", 1)
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out)
    assert list(table.columns) == prediction_schema(PUBLISHED, PUBLISHED).names
    assert list(table["start"]) == [0, 0.5, 1, 1.5] and table.notna().all(axis=None)
    assert table["faces"].between(3, 6).all()
    for who in ("student", "teacher"):
        scores = table[[f"{who}_{emotion}" for emotion in EMOTIONS]].to_numpy()
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert list(table[who]) == [EMOTIONS[k] for k in scores.argmax(axis=1)]
    unseen = emovox(video, "--student", student, "--seconds", 1, "--teacher", "none")
    assert "teacher" not in unseen.stdout and len(unseen.stdout.splitlines()) == 4
    unheard = predict(video, student="none", whole=True, jobs=1)
    assert unheard.table.column_names == prediction_schema(None, PUBLISHED).names
    [row] = unheard
    assert (row["start"], row["end"]) == (0, pytest.approx(table["end"].iloc[-1], abs=0.1))
    assert row["faces"] >= table["faces"].max() and row["teacher"] in EMOTIONS


def test_bad_files_are_listed_and_others_scored(student: Path, noise: Path, tmp_path: Path) -> None:
    bad, empty = tmp_path / "bad.mp3", tmp_path / "empty.wav"
    bad.write_bytes(b"not audio")
    soundfile.write(empty, np.zeros(0), 16_000)
    out = tmp_path / "rows.csv"
    result = emovox(bad, noise, empty, "--student", student, "--out", out)
    assert result.exit_code == 1
    assert "bad.mp3" in result.stderr and "empty.wav" in result.stderr
    assert "Traceback" not in result.stderr
    table = pd.read_csv(out)
    assert set(table["path"]) == {str(noise)} and len(table) == 3
    alone = emovox(bad, "--student", student)
    assert alone.exit_code == 1 and "none of the files" in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no files"),
        (["{noise}", "--out", "rows.xlsx"], ".parquet"),
        (["{noise}", "--out", "none/rows.csv"], "none: folder not found"),
        (["{noise}", "--whole", "--seconds", "2"], "leave out seconds and hop"),
        (["{noise}", "--seconds", "0.5"], "must be 1 to 10"),
        (["{noise}", "--hop", "0"], "at least 0.01"),
        (["{noise}", "--student", "unknown"], "unknown"),
        (["missing.wav"], "missing.wav"),
    ],
)
def test_invalid_options(arguments: list[str], words: str, student: Path, noise: Path) -> None:
    given = [argument.format(noise=noise) for argument in arguments]
    if "--student" not in given:
        given += ["--student", str(student)]
    result = emovox(*given)
    assert result.exit_code == 2 and words in result.stderr


def test_function_returns_a_table(student: Path, noise: Path, tmp_path: Path) -> None:
    predictions = predict(str(noise), student=student, device="cpu")
    assert len(predictions) == 3 and not predictions.unusable and not predictions.problems
    assert repr(predictions) == "<Predictions: 3 windows of 1 files>"
    table = predictions.to_pandas()
    assert list(table.columns) == prediction_schema(PUBLISHED, PUBLISHED).names and list(
        table["start"]
    ) == [0, 2, 4]
    records = list(predictions)
    assert [record["student"] for record in records] == list(table["student"])
    assert json.loads(json.dumps(records)) == records and "teacher" not in records[0]
    predictions.write(str(tmp_path / "rows.json"))
    lines = (tmp_path / "rows.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    predictions.write(tmp_path)
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 1 + len(predictions)


def test_function_accepts_several_files_and_a_config(
    student: Path, noise: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"not audio")
    config = PredictConfig(student=str(student), teacher=None, seconds=2)
    predictions = predict([noise, str(bad)], config, seconds=1)
    assert predictions.unusable == (bad,) and "bad.mp3" in predictions.problems[0]
    assert len(predictions) == 13 and "; 1 unusable" in repr(predictions)


def test_invalid_paths(student: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no files"):
        predict([], student=student)
    with pytest.raises(InputError, match=r"missing\.wav: not found"):
        predict(tmp_path / "missing.wav", student=student)
    with pytest.raises(InputError, match="is a folder; pass the files in it"):
        predict(tmp_path, student=student)


AWKWARD = (b"Zo\xeb: 1.wav", b"talk: 10:30.wav", b'a,"b".wav', b"new\nline.wav")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet", ""])
def test_awkward_names_in_every_format(
    suffix: str, student: Path, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [os.fsdecode(name) for name in AWKWARD]
    for name in names:
        shutil.copy(noise, name)
    Path("cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    out = os.fsdecode(b"r\xeb: 1") + suffix
    result = emovox(
        names[0], "cut.mp4", *names[1:], "--student", student, *(["--out", out] if suffix else [])
    )
    assert result.exit_code == 1 and result.stderr.count("emovox: cut.mp4: ") == 1
    if suffix == ".parquet":
        found = pq.read_table(io.BytesIO(Path(out).read_bytes()))["path"].to_pylist()
    elif suffix == ".csv":
        found = [row["path"] for row in csv.DictReader(Path(out).read_text().splitlines())]
    else:
        lines = Path(out).read_text() if suffix else result.stdout
        found = [json.loads(line)["path"] for line in lines.splitlines()]
    shown = [r"Zo\udceb: 1.wav", "talk: 10:30.wav", 'a,"b".wav', r"new\x0aline.wav"]
    assert found == [name for name in shown for _ in range(3)]


def test_reasons_of_all_files_when_none_is_usable(student: Path, tmp_path: Path) -> None:
    bad = [tmp_path / name for name in ("a: b.mp3", "c.wav", os.fsdecode(b"\xeb.mp4"))]
    for path in bad:
        path.write_bytes(b"neither sound nor pictures")
    result = emovox(*bad, "--student", student)
    assert result.exit_code == 1 and "Traceback" not in result.stderr
    for name in ("a: b.mp3", "c.wav", r"\udceb.mp4"):
        assert result.stderr.count(f"{name}: ") == 1


@pytest.mark.parametrize("name", [b"Zo\xeb.mp4", b"talk: 10:30.mp4"])
def test_pictures_of_awkward_names(
    name: bytes,
    student: Path,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    video = write_track(tmp_path, plan_demo(DemoConfig(1, 1, 1, 2.0, 2.5))[0])
    monkeypatch.chdir(tmp_path)
    shutil.copy(video, os.fsdecode(name))
    expected, found = (
        predict(path, student=student, seconds=1, device="cpu", jobs=1).table
        for path in (video, os.fsdecode(name))
    )
    assert found.drop(["path"]).equals(expected.drop(["path"]))
    assert found["teacher"].null_count == 0


def test_silence_is_marked_and_has_no_emotion(student: Path, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000 * 3)
    sound = np.concatenate([sound, np.full(16_000 * 6, 3e-5), sound])
    soundfile.write(tmp_path / "pause.wav", sound, 16_000)
    rows = list(predict(tmp_path / "pause.wav", student=student, seconds=2, hop=2))
    heard = ["heard", "heard", "silent", "silent", "heard", "heard"]
    assert [row["sound"] for row in rows] == heard and rows[-1]["end"] == 12
    assert ["student" in row for row in rows] == [state == "heard" for state in heard]
    assert not any(name.startswith("student") for name in rows[2])


def test_rows_reach_the_end_of_the_pictures(
    student: Path, tmp_path: Path, in_process: None
) -> None:
    video = write_track(tmp_path, plan_demo(DemoConfig(1, 1, 1, 4.0, 4.0))[0])
    short = tmp_path / "short.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(video)]
    command += ["-af", "atrim=0:1.5", "-c:v", "copy", str(short)]
    subprocess.run(command, check=True)
    rows = list(predict(short, student=student, seconds=1, hop=1, jobs=1))
    assert [row["start"] for row in rows] == [0, 1, 2, 3] and rows[-1]["end"] > 3.9
    assert [row.get("sound") for row in rows] == ["heard", "heard", None, None]
    assert all(row["teacher"] in EMOTIONS and row["faces"] >= 4 for row in rows)


def with_prior(path: Path, folder: Path) -> tuple[Path, np.ndarray]:
    prior = np.array([0.7, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01])
    network = checkpoints.load(path, networks.ARCHITECTURES)
    training = {"prior": prior.tolist(), "recipe": {"seconds": 1.0, "pool": "mean"}}
    checkpoints.save(folder / "prior.safetensors", network, training)
    return folder / "prior.safetensors", prior


def test_a_prior_changes_probabilities_and_no_auc(
    student: Path, noise: Path, tmp_path: Path
) -> None:
    """AUC of one emotion depends on the order of its logit; a prior adds a constant to all rows."""
    trained, prior = with_prior(student, tmp_path)
    options: dict[str, Any] = {"student": trained, "device": "cpu", "precision": "fp32"}
    plain, uniform, raw, shifted = (
        predict(noise, **options, prior=prior_name, logits=logits).to_pandas()
        for logits in (False, True)
        for prior_name in ("dataset", "uniform")
    )
    assert len(plain) == 13, "the seconds of the training"
    names = [f"student_{emotion}" for emotion in EMOTIONS]
    divided = plain[names].to_numpy() / prior
    expected = divided / divided.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(uniform[names], expected, atol=1e-5)
    np.testing.assert_allclose(shifted[names], raw[names] - np.log(prior), atol=1e-5)
    positive = np.random.default_rng(0).random(len(plain)) < 0.5
    for name in names:
        assert roc_auc_score(positive, raw[name]) == roc_auc_score(positive, shifted[name])
    two = ("neutral", "anger")
    found = [
        predict(noise, **options, prior=p, classes=two).to_pandas() for p in ("dataset", "uniform")
    ]
    areas = [roc_auc_score(positive, table["student_anger"]) for table in found]
    assert (
        areas[0] == areas[1] and found[1]["student_anger"].mean() > found[0]["student_anger"].mean()
    )
    with pytest.raises(ConfigError, match=r"prior 'uniform': .* does not state its prior"):
        predict(noise, student=student, prior="uniform")


def test_classes_restrict_both_networks(student: Path, noise: Path) -> None:
    rows = list(predict(noise, student=student, classes=("anger", "happiness")))
    assert {row["student"] for row in rows} <= {"anger", "happiness"}
    for row in rows:
        assert [name for name in row if name.startswith("student_")] == [
            "student_happiness",
            "student_anger",
        ]
        assert row["student_happiness"] + row["student_anger"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="classes 'joy': not an emotion of the student; use neut"):
        predict(noise, student=student, classes=("joy", "anger"))


def test_a_network_is_needed(student: Path, noise: Path) -> None:
    with pytest.raises(ConfigError, match="both 'none'"):
        predict(noise, student="none", teacher="none")
    with pytest.raises(CheckError, match=r"noise\.wav: no pictures; pass a --student"):
        predict(noise, student="none")


def test_csv_on_stdout_is_that_of_a_file(
    student: Path, noise: Path, tmp_path: Path, in_process: None
) -> None:
    """In both, a number of faces beside a missing one is an integer."""
    video = write_track(tmp_path, plan_demo(DemoConfig(1, 1, 1, 2.0, 2.5))[0])
    arguments = [video, noise, "--student", student, "--jobs", "1"]
    result = emovox(*arguments, "--format", "csv")
    emovox(*arguments, "--out", tmp_path / "rows.csv")
    assert result.stdout == (tmp_path / "rows.csv").read_text()
    faces = {row["faces"] for row in csv.DictReader(result.stdout.splitlines())}
    assert "" in faces and all(value.isdecimal() for value in faces - {""})


def test_csv_on_stdout(student: Path, noise: Path) -> None:
    result = emovox(noise, "--student", student, "--format", "csv", "--teacher", "none")
    table = pd.read_csv(io.StringIO(result.stdout))
    assert list(table["start"]) == [0, 2, 4] and list(table["end"]) == [4, 6, 7]
