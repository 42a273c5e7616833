"""Datasets of other emotions, and with values, from their rows to a student and a report."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from student_fixtures import HEARD, QUICK, Utterance, utterances, write_audio

import emovox
from emovox import checkpoints
from emovox.cli import main
from emovox.dataset import schema
from emovox.demo.demo_corpus import DemoConfig, plan_demo, write_track
from emovox.emotions import EMOTIONS, Outputs
from emovox.errors import InputError
from emovox.labelling.teacher_process import InlineFeed
from emovox.scores import MEAN_ALL, MEAN_PAPER, roc_auc
from emovox.student.evaluation import Evaluation
from emovox.teacher.teacher_checkpoint import CompactConfig, CompactNet
from emovox.testing import FakeTeacher

pytestmark = pytest.mark.usefixtures("one_thread")

SEVEN = Outputs(("neutral", "joy", "awe", "pride", "guilt", "envy", "anger"))
VALUES = Outputs(EMOTIONS, ("valence", "arousal"))
BOTH = Outputs(("calm", "joy", "awe"), ("valence", "arousal"))
# Few, but with every emotion in every split.
FOUND = [u for k, u in enumerate(utterances()) if u.split == "heard_val" or k % 3 == 0]
VALUE_OF = {emotion: k / 4 for k, emotion in enumerate(HEARD)}  # the valence of an utterance


def outputs_of(utterance: Utterance, outputs: Outputs) -> np.ndarray:
    """Return logits, 5 for the emotion, and values of an utterance, float32 `[n, E + V]`."""
    rng = np.random.default_rng([utterance.number, *utterance.identity.encode()])
    rows = rng.normal(0, 0.5, (utterance.row.n_frames, len(outputs)))
    rows[:, HEARD.index(utterance.emotion)] += 5
    if outputs.values:
        rows[:, len(outputs.emotions)] = VALUE_OF[utterance.emotion]
        rows[:, -1] = np.linspace(-1, 1, len(rows))
    return rows.astype(np.float32)


def write(out: Path, outputs: Outputs) -> None:
    """Write the dataset of all utterances."""
    found = FOUND
    tracks = {"track_id": [u.track_id for u in found], "split": [u.split for u in found]}
    rows = np.concatenate([outputs_of(u, outputs) for u in found])
    frames: dict[str, Any] = {
        "track_id": np.repeat(tracks["track_id"], [u.row.n_frames for u in found]),
        "frame_index": np.concatenate([np.arange(u.row.n_frames) for u in found]),
    }
    columns = schema.columns(outputs)
    frames |= dict(zip((*columns.logits, *columns.values), rows.T, strict=True))
    options: Any = {"emotions": outputs.emotions, "values": outputs.values, "hdf5": True}
    emovox.write_dataset(out, tracks, frames, name="mine", **options)


@dataclass(frozen=True)
class Made:
    """A dataset, its sound, a student of it, and its evaluation, also written to `run`."""

    outputs: Outputs
    dataset: Path
    audio: Path
    student: Path
    said: list[str]
    evaluation: Evaluation
    run: Path

    @property
    def checkpoint(self) -> Path:
        return self.student / "best.safetensors"


@pytest.fixture(scope="module", params=[SEVEN, VALUES], ids=["seven", "values"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    outputs, root = request.param, tmp_path_factory.mktemp("outputs")
    write(root / "dataset", outputs)
    write_audio(root / "audio", FOUND)
    said: list[str] = []
    dataset, audio, student = root / "dataset", root / "audio", root / "student"
    emovox.train_student(dataset, audio, student, QUICK, epochs=1, say=said.append)
    found = emovox.evaluate(student / "best.safetensors", dataset, audio, device="cpu")
    found.write(root / "run")
    return Made(outputs, dataset, audio, student, said, found, root / "run")


def test_rows_are_valid_and_read(made: Made) -> None:
    validation = emovox.validate(made.dataset)
    assert validation.valid, validation.failed()
    data = emovox.load(made.dataset)
    assert (data.emotions, data.values) == (made.outputs.emotions, made.outputs.values)
    num = len(made.outputs.emotions)
    for utterance in FOUND[::7]:
        track, expected = data[utterance.track_id], outputs_of(utterance, made.outputs)
        np.testing.assert_array_equal(track.logits, expected[:, :num])
        np.testing.assert_array_equal(track.values, expected[:, num:])
        assert track.label == made.outputs.emotions[HEARD.index(utterance.emotion)]
        assert data.target(utterance.track_id).shape == (num,)


def test_student_learns_the_emotions_of_the_dataset(made: Made) -> None:
    student = emovox.load_student(made.checkpoint, "cpu")
    assert student.emotions == made.outputs.emotions
    assert student(np.ones(16_000, np.float32)).shape == (1, len(made.outputs.emotions))
    config = json.loads((made.student / "config.json").read_text())
    assert config["dataset"]["emotions"] == list(made.outputs.emotions)
    lines = [line for line in made.said if "not learned" in line]
    assert lines == ["values (valence, arousal): not learned; a student learns emotions"] * bool(
        made.outputs.values
    )


def test_evaluation_names_the_emotions_of_the_dataset(made: Made) -> None:
    found = made.evaluation
    emotions, has_five = made.outputs.emotions, made.outputs == VALUES
    written = json.loads((made.run / "evaluation.json").read_text())
    assert found.emotions == emotions and written["emotions"] == list(emotions)
    rows = pd.read_parquet(made.run / "predictions.parquet")
    names = [f"score_{e}" for e in emotions]
    assert list(rows.columns) == ["track_id", "split", "label", *names]
    by_track = {utterance.track_id: utterance for utterance in FOUND}
    heard = [by_track[track_id] for track_id in rows["track_id"]]
    assert list(rows["label"]) == [emotions[HEARD.index(u.emotion)] for u in heard]
    for split, scores in found.splits.items():
        assert list(scores.auc) == [*emotions, MEAN_PAPER, MEAN_ALL]
        part, areas = rows[rows["split"] == split], []
        for emotion in emotions[:5]:
            values = part[f"score_{emotion}"].to_numpy()
            positive = (part["label"] == emotion).to_numpy()
            areas.append(roc_auc(positive, values, np.ones((1, len(part))))[0])
            assert scores.auc[emotion].value == pytest.approx(areas[-1])
        assert all(np.isnan(scores.auc[emotion].value) for emotion in emotions[5:])
        assert scores.auc[MEAN_ALL].value == pytest.approx(np.mean(areas))
        five = scores.auc[MEAN_PAPER]
        assert five.value == pytest.approx(np.mean(areas)) if has_five else np.isnan(five.value)
        assert written["splits"][split]["auc"][MEAN_PAPER]["value"] == (
            pytest.approx(np.mean(areas)) if has_five else None
        )
    text, gap = found.summary(), found.heard_minus_unheard
    absent = "not computed; the dataset has no happiness, surprise, sadness"
    assert (f"{MEAN_PAPER}: {absent}" in text) is not has_five
    first, second = (scores.auc[MEAN_ALL].value for scores in found.splits.values())
    assert gap is not None and gap.value == pytest.approx(first - second) and gap.low < gap.high
    assert ("contempt" in text) is has_five


def test_student_of_other_emotions_is_refused_in_one_line(made: Made, tmp_path: Path) -> None:
    from emovox.student.networks import StudentConfig, VGGVox

    path = tmp_path / "other.safetensors"
    net = VGGVox(StudentConfig(width=1 / 16), outputs=Outputs(("bored", "alert")))
    checkpoints.save(path, net, {})
    with pytest.raises(InputError) as refusal:
        emovox.evaluate(path, made.dataset, made.audio)
    message = str(refusal.value)
    assert "its emotions are bored, alert; those of " in message and "\n" not in message
    assert f"are {', '.join(made.outputs.emotions)}; use a student of this dataset" in message


def test_prediction_of_two_networks_with_different_outputs(
    made: Made, tmp_path: Path, in_process: None
) -> None:
    video = write_track(tmp_path, plan_demo(DemoConfig(1, 1, 1, 2.0, 2.5))[0])
    teacher = tmp_path / "teacher.safetensors"
    checkpoints.save(teacher, CompactNet(CompactConfig(8, (8, 16), (1, 2)), BOTH), {})
    sound = made.audio / f"{FOUND[0].track_id}.wav"
    options: Any = {"student": str(made.checkpoint), "teacher": str(teacher), "jobs": 1}
    found = emovox.predict([video, sound], **options, device="cpu", seconds=1)
    alone = emovox.predict(sound, **options, device="cpu", seconds=1)
    emotions = made.outputs.emotions
    columns = ["path", "start", "end", "sound", "student", *(f"student_{e}" for e in emotions)]
    columns += ["faces", "teacher"]
    columns += [f"teacher_{name}" for name in (*BOTH.emotions, *BOTH.values)]
    assert found.table.column_names == alone.table.column_names == columns
    table = found.to_pandas()
    rows = table[table["path"] == str(video)]
    assert len(rows) and rows.notna().all(axis=None) and set(rows["teacher"]) <= set(BOTH.emotions)
    sums = rows[[f"teacher_{name}" for name in BOTH.emotions]].sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert set(found.to_pandas()["student"]) <= set(emotions)
    assert alone.table["teacher_valence"].null_count == len(alone)
    assert not any(name.startswith("teacher") for name in next(iter(alone)))


def test_values_of_a_window_are_means_over_its_frames(made: Made) -> None:
    from emovox.student.prediction import _Video

    data = emovox.load(made.dataset)
    track = max(data, key=lambda track: len(track.times))
    found = _Video(data, track.track_id).outputs(0.3, 0.9)  # overlaps the frames 1, 2 and 3
    num = len(data.emotions)
    np.testing.assert_array_equal(found[:num], track.logits[1:4].max(axis=0))
    np.testing.assert_allclose(found[num:], track.values[1:4].mean(axis=0), rtol=1e-6)
    assert np.isnan(_Video(data, track.track_id).outputs(100.0, 101.0)).all()


def test_probe_uses_the_outputs_of_the_student(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emovox.probing.probes.find_spec", lambda name: None)
    some = [u for u in FOUND if u.split == "train"][:20]
    table = tmp_path / "labels.csv"
    with table.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "speaker"])
        writer.writerows([made.audio / f"{u.track_id}.wav", u.emotion, u.identity] for u in some)
    found = emovox.probe(made.checkpoint, table, folds=2, jobs=1, device="cpu")
    assert found.num_utterances == 20 and set(found.counts) == set(HEARD)


def test_probe_of_a_teacher_with_other_outputs(tmp_path: Path, in_process: None) -> None:
    from emovox.probing.corpora import read_speech_corpus
    from emovox.probing.probes import TEACHER, video_features

    videos = [write_track(tmp_path, track) for track in plan_demo(DemoConfig(1, 1, 2, 2.0, 2.5))]
    teacher = tmp_path / "teacher.safetensors"
    checkpoints.save(teacher, CompactNet(CompactConfig(8, (8, 16), (1, 2)), BOTH), {})
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{video},a\n" for video in videos))
    corpus = read_speech_corpus(table, video=True)
    _, features = video_features(corpus, str(teacher), "cpu", 1)
    assert features[TEACHER].shape == (len(videos), 3)


def test_difference_of_versions(made: Made) -> None:
    assert emovox.diff(made.dataset, made.dataset).bump.level == "none"


class Words:
    """Names in a page, apart from longer words that contain them."""

    def __init__(self, page: str) -> None:
        self.found = set(re.findall(r"[a-z_]+", page))


def test_report_names_the_emotions_of_the_dataset(made: Made, tmp_path: Path) -> None:
    page, figures = tmp_path / "page.html", tmp_path / "figures"
    found = emovox.report(made.dataset, page, figures=figures, student=(made.run, made.student))
    words, emotions = Words(page.read_text()).found, set(made.outputs.emotions)
    assert emotions <= words
    assert not (set(EMOTIONS) - emotions) & words
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page.read_text())[0])
    assert data["emotions"] == list(made.outputs.emotions)
    headers = {
        "figure-2": ["frame_index", "time_s", *made.outputs.emotions, "dominant"],
        "figure-5-confusion": [
            "split",
            "teacher",
            *(f"student_{emotion}" for emotion in made.outputs.emotions),
        ],
    }
    for name, header in headers.items():
        assert next(csv.reader((figures / f"{name}.csv").open())) == header
    rows = list(csv.reader((figures / "figure-4.csv").open()))
    assert [row[0] for row in rows[1:]] == list(made.outputs.emotions)
    table = found.to_pandas().set_index("split")
    if not made.outputs.values:
        assert "Mean ± deviation" not in page.read_text()
        return
    frames = emovox.load(made.dataset).to_pandas("frames", "unheard_val")
    for name in made.outputs.values:
        mean, deviation = frames[f"value_{name}"].mean(), frames[f"value_{name}"].std(ddof=0)
        assert table.loc["unheard_val", f"mean_{name}"] == pytest.approx(mean, abs=1e-5)
        assert table.loc["unheard_val", f"deviation_{name}"] == pytest.approx(deviation, abs=1e-5)
        assert f"{mean:z.3f} ± {deviation:.3f}" in page.read_text()


def test_report_on_datasets_with_different_emotions(
    made: Made, student_data: Path, tmp_path: Path
) -> None:
    page, figures = tmp_path / "page.html", tmp_path / "figures"
    emovox.report(made.dataset, page, figures=figures, compare=student_data / "dataset")
    rows = list(csv.reader((figures / "figure-4.csv").open()))[1:]
    shares = {row[0]: row[1:] for row in rows}
    both = dict.fromkeys([*made.outputs.emotions, *EMOTIONS])
    assert list(shares) == list(both)
    for emotion, row in shares.items():
        assert (row[0] == "") is (emotion not in made.outputs.emotions)
        assert (row[2] == "") is (emotion not in EMOTIONS)


def test_fake_teacher_builds_a_dataset_of_its_outputs(tmp_path: Path) -> None:
    from emovox.testing import InlineEngine, write_clip

    outputs = Outputs(SEVEN.emotions, BOTH.values)
    teacher = tmp_path / "teacher.safetensors"
    checkpoints.save(teacher, CompactNet(CompactConfig(8, (8, 16), (1, 2)), outputs), {})
    engine = InlineEngine(FakeTeacher(emotions=outputs.emotions, values=outputs.values))
    assert InlineFeed(engine.teacher).drain().shape == (0, 9)
    write_clip(tmp_path / "talks/ann/talk.mp4", 30)
    options: Any = {"layout": "folder", "root": tmp_path / "talks", "teacher": str(teacher)}
    emovox.build_dataset(out=tmp_path / "out", engine=engine, **options)
    data = emovox.load(tmp_path / "out")
    assert data.outputs == outputs
    assert emovox.validate(data.path).failed() == ["logit-range"]  # grey levels
    track = data["ann/talk/00000"]
    assert track.logits.shape == (5, 7) and track.values.shape == (5, 2)


def test_help_of_predict_names_no_number_of_emotions() -> None:
    text = CliRunner().invoke(main, ["predict", "--help"]).output
    assert "eight" not in text
