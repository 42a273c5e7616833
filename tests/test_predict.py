"""Predictions: windows, scores of sound and faces, output formats, the Python function."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from emovox.cli import main
from emovox.demo.demo_corpus import DemoConfig, plan_demo, write_track
from emovox.emotions import EMOTIONS, PUBLISHED
from emovox.errors import ConfigError, InputError
from emovox.media.audio import read_audio
from emovox.media.spectrogram import num_samples
from emovox.student import load_student, student_checkpoint
from emovox.student.prediction import predict, prediction_schema, window_starts
from emovox.student.student_config import PredictConfig
from emovox.student.vggvox import StudentConfig, VGGVox


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "small.safetensors"
    network = VGGVox(StudentConfig(width=1 / 16), torch.Generator().manual_seed(0)).eval()
    student_checkpoint.save(path, network, {})
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
        (0.3, 4, 4, [0.0]),
        (4.0, 4, 4, [0.0]),
        (4.9, 4, 4, [0.0]),
        (5.0, 4, 4, [0.0, 4.0]),
        (8.0, 4, 4, [0.0, 4.0]),
        (5.0, 2, 1, [0.0, 1.0, 2.0, 3.0, 4.0]),
        (3.0, 1, 0.5, [0.0, 0.5, 1.0, 1.5, 2.0]),
    ],
)
def test_window_starts(duration: float, seconds: float, hop: float, expected: list[float]) -> None:
    assert window_starts(duration, seconds, hop) == expected


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
        logits = model(samples)[0].astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        scores = [row[f"student_{emotion}"] for emotion in EMOTIONS]
        np.testing.assert_allclose(scores, expected, atol=2e-3)
        assert row["student"] == EMOTIONS[int(np.argmax(scores))]
        assert not any(name.startswith("teacher") for name in row)


def test_video_is_scored_by_both_networks(student: Path, tmp_path: Path, in_process: None) -> None:
    config = DemoConfig(1, 1, 1, 2.0, 2.5)
    video = write_track(tmp_path, plan_demo(config)[0])
    out = tmp_path / "rows.parquet"
    result = emovox(video, "--student", student, "--seconds", 1, "--out", out, "--jobs", 1)
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out)
    assert list(table.columns) == prediction_schema(PUBLISHED, PUBLISHED).names
    assert len(table) == 2 and table.notna().all(axis=None)
    for who in ("student", "teacher"):
        scores = table[[f"{who}_{emotion}" for emotion in EMOTIONS]].to_numpy()
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert list(table[who]) == [EMOTIONS[k] for k in scores.argmax(axis=1)]
    unseen = emovox(video, "--student", student, "--seconds", 1, "--teacher", "none")
    assert "teacher" not in unseen.stdout and len(unseen.stdout.splitlines()) == 2


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
    assert set(table["path"]) == {str(noise)} and len(table) == 2
    alone = emovox(bad, "--student", student)
    assert alone.exit_code == 1 and "none of the files" in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no files"),
        (["{noise}", "--out", "rows.xlsx"], ".parquet"),
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
    assert len(predictions) == 2 and not predictions.unusable and not predictions.problems
    assert repr(predictions) == "<Predictions: 2 windows of 1 files>"
    table = predictions.to_pandas()
    assert list(table.columns) == prediction_schema(PUBLISHED, PUBLISHED).names and list(
        table["start"]
    ) == [0, 4]
    records = list(predictions)
    assert [record["student"] for record in records] == list(table["student"])
    assert json.loads(json.dumps(records)) == records and "teacher" not in records[0]
    predictions.write(str(tmp_path / "rows.json"))
    lines = (tmp_path / "rows.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records


def test_function_accepts_several_files_and_a_config(
    student: Path, noise: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"not audio")
    config = PredictConfig(student=str(student), teacher=None, seconds=2)
    predictions = predict([noise, str(bad)], config, seconds=1)
    assert predictions.unusable == (bad,) and "bad.mp3" in predictions.problems[0]
    assert len(predictions) == 7 and "; 1 unusable" in repr(predictions)


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
    assert found == [name for name in shown for _ in range(2)]


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
