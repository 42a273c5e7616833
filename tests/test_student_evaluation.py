"""Evaluation of a student: recomputed scores, figures and errors."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from PIL import Image
from report_fixtures import num_colours
from sklearn.metrics import roc_auc_score
from student_fixtures import HEARD, QUICK, Utterance, utterances, voice, write_audio, write_tables

from emovox import checkpoints
from emovox.cli import main
from emovox.dataset.reader import load
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, ConfigError, InputError
from emovox.media.audio import SAMPLE_RATE
from emovox.scores import MEAN_ALL, MEAN_PAPER, fit_temperature, score_split, softmax
from emovox.student import load_student
from emovox.student.clips import CENTRE, WHOLE, Windows, read_utterance
from emovox.student.evaluation import Evaluation, SplitPredictions, evaluate
from emovox.student.networks import StudentConfig, VGGVox
from emovox.student.student_config import EvaluateConfig
from emovox.student.training import train_student
from emovox.teacher import EMBEDDED

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(student_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    config = replace(QUICK, epoch_share=4.0, batch_size=10, learning_rate=0.05)
    torch.set_num_threads(1)
    return train_student(student_data / "dataset", student_data / "audio", out, config).best


def score(checkpoint: Path, data: Path, **options: Any) -> Evaluation:
    options = {"device": "cpu", "precision": "fp32", **options}
    return evaluate(checkpoint, data / "dataset", data / "audio", **options)


@pytest.fixture(scope="module")
def evaluation(student_data: Path, trained: Path) -> Evaluation:
    return score(trained, student_data)


@pytest.fixture
def data(student_data: Path, tmp_path: Path) -> Path:
    """A copy that tests may change."""
    shutil.copytree(student_data, tmp_path, dirs_exist_ok=True)
    return tmp_path


def untrained(folder: Path) -> Path:
    net = VGGVox(StudentConfig(width=1 / 16), torch.Generator().manual_seed(3))
    checkpoints.save(folder / "untrained.safetensors", net, {})
    return folder / "untrained.safetensors"


def test_trained_student_recognises_unheard_speakers(
    student_data: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    for scores in evaluation.splits.values():
        assert scores.auc[MEAN_PAPER].value > 0.9
    chance = score(untrained(tmp_path), student_data).splits["unheard_val"].auc[MEAN_PAPER]
    assert 0.35 < chance.value < 0.65


def test_scores_follow_from_the_predictions(
    student_data: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    evaluation.write(tmp_path)
    text = (tmp_path / "evaluation.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    table = pq.read_table(tmp_path / "predictions.parquet").to_pandas()
    assert sorted(table["track_id"]) == sorted(
        u.track_id for u in utterances(["heard_val", "unheard_val"])
    )
    for split, rows in table.groupby("split"):
        areas = []
        for k, emotion in enumerate(EMOTIONS):
            interval = found["splits"][split]["auc"][emotion]
            positive = rows["label"] == emotion
            assert found["splits"][split]["positives"][emotion] == positive.sum()
            if emotion in HEARD:
                areas.append(roc_auc_score(positive, rows[f"score_{EMOTIONS[k]}"]))
                assert interval["value"] == pytest.approx(areas[-1])
                assert interval["low"] <= interval["value"] <= interval["high"]
            else:
                assert interval == {"value": None, "low": None, "high": None}
        for name in (MEAN_PAPER, MEAN_ALL):
            assert found["splits"][split]["auc"][name]["value"] == pytest.approx(np.mean(areas))
        assert found["splits"][split]["tracks"] == len(rows)
        assert found["splits"][split]["identities"] == 3
    heard, unheard = (found["splits"][s]["auc"][MEAN_PAPER]["value"] for s in found["splits"])
    assert found["heard_minus_unheard"]["value"] == pytest.approx(heard - unheard)
    assert found["student"]["sha256"] == evaluation.student["sha256"]
    assert found["dataset"] == {"name": "tones", "version": "1.0.0"}
    assert str(student_data) not in text


def test_labels_of_teacher_and_scores_of_student(
    student_data: Path, trained: Path, evaluation: Evaluation
) -> None:
    emotion_of = {u.track_id: u.emotion for u in utterances()}
    dataset, student = load(student_data / "dataset"), load_student(trained, "cpu", "fp32")
    found = evaluation.predictions["unheard_val"]
    assert [EMOTIONS[k] for k in found.labels] == [emotion_of[name] for name in found.track_ids]
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-5)
    for i in (0, 17):
        name = found.track_ids[i]
        assert dataset[name].identity_id == found.identities[i]
        logits = student(read_utterance(student_data / f"audio/{name}.wav"))[0]
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(found.scores[i], expected, rtol=1e-3)


def test_figures_are_drawn(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.write(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    splits = ("heard_val", "unheard_val")
    assert names == sorted(f"{kind}-{split}.png" for kind in ("roc", "labels") for split in splits)
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert picture.width >= 800
            assert num_colours(np.asarray(picture.convert("RGB"))) > 50


def test_figures_of_extreme_inputs(tmp_path: Path) -> None:
    """A single class has no curve; `$` in a name is not math."""
    labels, scores = np.zeros(5, int), np.eye(8, dtype=np.float32)[:5]
    found = score_split("heard_val", labels, scores, np.arange(5), EMOTIONS)
    ids = np.array([f"id/v/{k:05d}" for k in range(5)])
    predictions = SplitPredictions("heard_val", ids, ids, labels, scores, [])
    of = {"name": "a $b"}, {"name": "c_d", "version": "1.0.0"}, "standard", "grid"
    Evaluation(*of, {found.split: found}, None, {found.split: predictions}).write(tmp_path)
    assert (tmp_path / "roc-heard_val.png").stat().st_size > 5000


def columns_of(line: str) -> list[int]:
    """Columns at which the words of a line end."""
    return [
        i for i in range(1, len(line) + 1) if line[i - 1] != " " and line[i : i + 1] in ("", " ")
    ]


def test_summary_is_a_table(evaluation: Evaluation, trained: Path) -> None:
    lines = evaluation.summary().splitlines()
    assert lines[0] == f"{trained.parent.name} on tones 1.0.0: ROC AUC"
    rows = {line[:26].strip(): line for line in lines[2:]}
    ends = {tuple(columns_of(rows[name])[-5:]) for name in HEARD}
    assert len(ends) == 1, "columns are aligned"
    assert columns_of(rows["fear"])[-1] in next(iter(ends))
    assert lines[1].split() == ["heard_val", "unheard_val"]
    assert rows["tracks (identities)"].split()[2:] == ["15", "(3)", "60", "(3)"]
    assert not any(line != line.rstrip() for line in lines)
    assert "no track of" not in "\n".join(lines) and "published" not in "\n".join(lines)


def test_scores_as_a_table(evaluation: Evaluation, trained: Path) -> None:
    table = evaluation.to_pandas()
    assert len(table) == 2 * 2 * (len(EMOTIONS) + 2 + 5)
    windows = table[(table["sound"] == evaluation.sound) & (table["score"] == "auc")]
    for row in windows.to_dict("records"):
        interval = evaluation.splits[str(row["split"])].auc[str(row["emotion"])]
        expected = [interval.value, interval.low, interval.high]
        np.testing.assert_equal([row["value"], row["low"], row["high"]], expected)
    positives = windows.set_index(["split", "emotion"])["positives"]
    assert positives["heard_val", "anger"] == 3 and positives[:, MEAN_PAPER].isna().all()
    [uar] = table[
        (table["sound"] == CENTRE) & (table["split"] == "heard_val") & (table["score"] == "uar")
    ]["value"]
    assert uar == evaluation.centre_bucket["heard_val"].others["uar"]
    assert repr(evaluation).startswith(f"<Evaluation of {trained.parent.name} on tones 1.0.0: ")


def test_centre_bucket_is_scored_beside_the_windows(
    student_data: Path, trained: Path, evaluation: Evaluation
) -> None:
    student = load_student(trained, "cpu", "fp32")
    assert evaluation.sound == "windows of 1 s every 0.5 s, pooled by max", "those of the training"
    found = evaluation.predictions["unheard_val"]
    sounds = [read_utterance(student_data / f"audio/{name}.wav") for name in found.track_ids]
    centre = softmax(student(sounds, CENTRE))
    np.testing.assert_allclose(found.centre_scores, centre, rtol=1e-3)
    assert np.abs(found.scores - centre).max() > 0.01
    for k, emotion in enumerate(HEARD):
        area = roc_auc_score(found.labels == k, centre[:, k])
        assert evaluation.centre_bucket["unheard_val"].auc[emotion].value == pytest.approx(area)
    text = evaluation.summary()
    assert "tones 1.0.0, the paper's centre bucket of each utterance: ROC AUC" in text
    assert "sound: windows of 1 s every 0.5 s" in text
    assert f"heard minus unheard: mean over {', '.join(HEARD)}, in both splits" in text
    whole = score(trained, student_data, whole=True)
    expected = softmax(student(sounds, WHOLE))
    np.testing.assert_allclose(whole.predictions["unheard_val"].scores, expected, rtol=1e-3)
    other = score(trained, student_data, seconds=2, hop=0.3)
    assert (whole.sound, other.sound) == (WHOLE, "windows of 2 s every 0.3 s, pooled by max")
    expected = softmax(student(sounds, Windows(2, 0.3)))
    np.testing.assert_allclose(other.predictions["unheard_val"].scores, expected, rtol=1e-3)


def test_sound_after_the_last_row_is_not_heard(tmp_path: Path, trained: Path) -> None:
    """Rows to 0.72 s, 3 s of sound: the rest has no label."""
    found = [Utterance("unheard_val", "ida", number, "anger", 0.5) for number in (1, 2)]
    write_tables(tmp_path / "dataset", found)
    audio, student = write_audio(tmp_path / "audio", found), load_student(trained, "cpu", "fp32")
    sounds = []
    for utterance in found:
        sounds.append(np.tile(voice(utterance), 6))
        soundfile.write(audio / f"{utterance.track_id}.wav", sounds[-1], SAMPLE_RATE)
    evaluation = score(trained, tmp_path).predictions["unheard_val"]
    heard = [sound[: round(0.72 * SAMPLE_RATE)] for sound in sounds]
    np.testing.assert_allclose(evaluation.scores, softmax(student(heard)), rtol=0.01)
    np.testing.assert_allclose(evaluation.centre_scores, softmax(student(heard, CENTRE)), rtol=0.01)


def test_temperature_is_fitted_on_heard_val(student_data: Path, evaluation: Evaluation) -> None:
    found = evaluation.predictions["heard_val"]
    expected = fit_temperature(np.log(found.scores), found.labels)
    assert evaluation.temperature == pytest.approx(expected, rel=1e-3)  # of float32 scores
    assert evaluation.as_json()["temperature"] == evaluation.temperature
    for name, scores in evaluation.splits.items():
        fitted = evaluation.as_json()["splits"][name]["calibration_error_fitted"]
        assert fitted == scores.others["calibration_error_fitted"] < 0.5
    assert f"at temperature {evaluation.temperature:.2f}" in evaluation.summary()


def test_config_options_and_strings(student_data: Path, trained: Path) -> None:
    config = EvaluateConfig(device="cpu", precision="fp32", protocol="legacy")
    data, audio = str(student_data / "dataset"), str(student_data / "audio")
    found = evaluate(str(trained), data, audio, config, timing="legacy")
    assert (found.protocol, found.timing) == ("legacy", "legacy")
    with pytest.raises(TypeError, match="sneed"):
        evaluate(str(trained), data, audio, sneed=3)


def test_published_scores_for_the_published_dataset_only(
    student_data: Path, data: Path, evaluation: Evaluation, trained: Path
) -> None:
    assert evaluation.published == {} and evaluation.as_json()["published"] is None
    write_tables(data / "dataset", utterances(), name="emovoxceleb")
    found = score(trained, data)
    assert found.as_json()["published"]["mean_auc"] == {"heard_val": 0.71, "unheard_val": 0.69}
    [line] = [x for x in found.summary().splitlines() if x.startswith("published mean of five")]
    assert line.split()[-2:] == ["0.71", "0.69"]


def test_missing_emotion(data: Path, trained: Path) -> None:
    without = [u for u in utterances() if u.emotion != "anger" or u.split == "train"]
    write_tables(data / "dataset", without)
    standard, legacy = score(trained, data), score(trained, data, protocol="legacy")
    assert math.isnan(standard.splits["unheard_val"].auc["anger"].value)
    assert legacy.splits["unheard_val"].auc["anger"].value == 0
    means = [e.splits["unheard_val"].auc[MEAN_PAPER].value for e in (standard, legacy)]
    assert means[1] == pytest.approx(means[0] * 4 / 5)
    assert "no track of unheard_val has the label anger: not in the mean" in standard.summary()
    note = "no track of unheard_val has the label anger: AUC 0, as in the reference code"
    assert note in legacy.summary()


def test_legacy_reads_the_left_channel_at_its_own_rate(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    stereo = draw.uniform(-0.5, 0.5, (44_100, 2))
    soundfile.write(tmp_path / "a.wav", stereo, 44_100, subtype="FLOAT")
    legacy = read_utterance(tmp_path / "a.wav", "legacy")
    np.testing.assert_allclose(legacy, stereo[:, 0], atol=1e-6)
    assert len(read_utterance(tmp_path / "a.wav")) == pytest.approx(SAMPLE_RATE, abs=2)


def test_legacy_timing_is_one_video_frame_late(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 0.5 s, floor(max(25 x 0.5 - 1, 0) / 6) = 1: the row of 0.48 s is not included."""

    def turning(utterance: Utterance) -> np.ndarray:
        logits = np.zeros((utterance.row.n_frames, len(EMOTIONS)), np.float32)
        logits[:, EMOTIONS.index("anger")] = 5
        logits[-1, EMOTIONS.index("sadness")] = 9
        return logits

    monkeypatch.setattr("student_fixtures.logits_of", turning)
    found = [Utterance("unheard_val", "ida", number, "anger", 0.5) for number in (1, 2)]
    assert found[0].row.n_frames == 3
    write_tables(tmp_path / "dataset", found)
    write_audio(tmp_path / "audio", found)
    for timing, emotion in (("grid", "sadness"), ("legacy", "anger")):
        evaluation = score(trained, tmp_path, timing=timing)
        assert evaluation.as_json()["timing"] == timing
        labels = evaluation.predictions["unheard_val"].labels
        assert labels.tolist() == [EMOTIONS.index(emotion)] * 2


def test_unreadable_audio_is_dropped(
    data: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (data / "audio/ida/v/00001.wav").unlink()
    damaged = data / "audio/idb/v/00002.flac"
    soundfile.write(damaged, voice(utterances()[0]), SAMPLE_RATE)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])  # with an intact header
    damaged.with_suffix(".wav").unlink()
    found = score(trained, data, max_dropped=0.1)
    assert [d.track_id for d in found.dropped] == ["ida/v/00001", "idb/v/00002"]
    assert found.splits["unheard_val"].num_tracks == 58
    assert found.splits["heard_val"].num_tracks == 15
    assert "dropped: 1 x open: FileNotFound, 1 x open: Unreadable" in found.summary()
    listed = json.loads(json.dumps(found.as_json(), allow_nan=False))["dropped"]
    assert [item["error"] for item in listed] == ["FileNotFound", "Unreadable"]
    assert str(data) not in json.dumps(listed)
    with pytest.raises(CheckError, match="2 of 60 tracks have no usable audio"):
        score(trained, data, max_dropped=0.01)


def test_single_validation_split(data: Path, trained: Path) -> None:
    write_tables(data / "dataset", utterances(["train", "unheard_val"]))
    found = score(trained, data)
    assert found.heard_minus_unheard is None and found.as_json()["heard_minus_unheard"] is None
    assert "heard minus unheard" not in found.summary()
    write_tables(data / "dataset", utterances(["train"]))
    with pytest.raises(ConfigError, match="no validation split; use a dataset with heard_val or"):
        score(trained, data)


def test_invalid_inputs(student_data: Path, trained: Path, tmp_path: Path) -> None:
    teacher = EMBEDDED["compact"]
    with pytest.raises(InputError, match=r"architecture is 'emovox\..*', expected one of"):
        score(teacher, student_data)
    with pytest.raises(ConfigError, match="neither a file nor one of emovoxceleb"):
        score(tmp_path / "none", student_data)
    with pytest.raises(InputError, match=r"folder not found; pass .* --audio"):
        evaluate(trained, student_data / "dataset", tmp_path / "none")
    for option in ("protocol", "timing"):
        with pytest.raises(ConfigError, match=f"{option} 'old' is not one of"):
            score(trained, student_data, **{option: "old"})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_command(student_data: Path, trained: Path, tmp_path: Path) -> None:
    folders = [student_data / "dataset", "--audio", student_data / "audio"]
    result = run("evaluate", trained, *folders, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0 and "heard minus unheard" in result.stdout
    assert (tmp_path / "out/evaluation.json").is_file()
    plain = run("evaluate", trained, *folders, "--device", "cpu", "--format", "json").stdout
    assert json.loads(plain) == json.loads((tmp_path / "out/evaluation.json").read_text())
    table = run("evaluate", trained, *folders, "--device", "cpu", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == 60 and {row["score"] for row in rows} >= {"auc", "uar", "macro_f1"}
    result = run("evaluate", trained, student_data / "dataset", "--audio", tmp_path / "none")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert run("evaluate", "--help").exit_code == 0
