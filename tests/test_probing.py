"""Probes: folds, classifiers compared with scikit-learn, and the command."""

import csv
import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict, cross_val_score

from emovox.cli import main
from emovox.demo.demo_corpus import DemoConfig, write_demo_corpus
from emovox.errors import InputError
from emovox.media.audio import SAMPLE_RATE
from emovox.probing.classifiers import (
    LEAST,
    TEMPERATURE_FOLDS,
    Classifier,
    FeatureScores,
    FoldScores,
    affine_map,
    cross_validate,
    mean_and_deviation,
    random_forest,
)
from emovox.probing.corpora import SpeechCorpus, Utterance
from emovox.probing.folds import (
    BY_SESSION,
    BY_SPEAKER,
    PARTITIONS,
    RANDOM,
    Folds,
    cross_folds,
    make_folds,
    random_folds,
    read_folds,
)
from emovox.probing.probe_config import ProbeConfig
from emovox.probing.probes import (
    EGEMAPS,
    STUDENT,
    audio_features,
    egemaps,
    kind_of_model,
    probe,
    video_features,
)
from emovox.testing import write_clip

LABELS = ("anger", "fear", "neutral", "sadness")


def people(num: int, num_speakers: int = 12, labels: tuple[str, ...] = LABELS) -> list[Utterance]:
    """Utterances whose labels and speakers are drawn independently."""
    draw = np.random.default_rng(7)
    return [
        Utterance(Path(f"{k}.wav"), labels[draw.integers(len(labels))], f"s{k % num_speakers}")
        for k in range(num)
    ]


def targets(utterances: list[Utterance]) -> np.ndarray:
    return np.array([u.label for u in utterances])


def held_out(folds: Folds) -> np.ndarray:
    return np.concatenate([test for _, test in folds.splits])


def found(probed: FeatureScores, folds: str) -> FoldScores:
    return next(scores for scores in probed.held_out if scores.folds == folds)


def test_random_folds_are_a_permutation_cut_evenly() -> None:
    folds = random_folds(1293, 10, seed=3)
    sizes = [len(test) for _, test in folds.splits]
    assert sum(sizes) == 1293 and set(sizes) == {129, 130}
    assert sorted(held_out(folds)) == list(range(1293))
    for train, test in folds.splits:
        assert sorted([*train, *test]) == list(range(1293))
    again, other = random_folds(1293, 10, seed=3), random_folds(1293, 10, seed=4)
    np.testing.assert_array_equal(held_out(folds), held_out(again))
    assert held_out(folds).tolist() != held_out(other).tolist()


def test_speaker_folds_keep_a_speaker_on_one_side() -> None:
    utterances = people(300, num_speakers=24)
    [_, by_speaker], notes = make_folds(utterances)
    assert by_speaker.name == BY_SPEAKER and len(by_speaker.splits) == 10 and not notes
    assert sorted(held_out(by_speaker)) == list(range(300))
    for train, test in by_speaker.splits:
        assert not {utterances[i].speaker for i in train} & {utterances[i].speaker for i in test}


def test_fewer_speakers_than_folds() -> None:
    [_, by_speaker], notes = make_folds(people(100, num_speakers=4))
    assert [len(test) for _, test in by_speaker.splits] == [25] * 4
    assert not notes


def test_no_speaker_folds_without_speakers() -> None:
    unknown = [Utterance(Path(f"{k}"), LABELS[k % 4], None, "train") for k in range(20)]
    folds, notes = make_folds(unknown)
    assert [kind.name for kind in folds] == [RANDOM]
    assert notes == [f"no {BY_SPEAKER}: the corpus gives 0 speakers, for 0 of 20 utterances"]
    folds, notes = make_folds([*unknown, *people(20, 1)])
    assert len(folds) == 1 and "gives 1 speakers, for 20 of " in notes[0]
    folds, notes = make_folds(people(20, num_speakers=1))
    assert len(folds) == 1 and "gives 1 speakers, for 20 of " in notes[0]
    with pytest.raises(InputError, match="5 utterances are too few for 10 folds"):
        make_folds(people(5))


def test_partition_of_a_corpus() -> None:
    films = [Utterance(Path(f"{k}"), "fear", None, "val" if k % 3 else "train") for k in range(30)]
    [_, partition], _ = make_folds(films)
    assert partition.name == PARTITIONS["val"]
    [[train, val]] = partition.splits
    np.testing.assert_array_equal(train, np.arange(0, 30, 3))
    assert len(val) == 20


def test_scores_equal_cross_val_score_and_a_loop() -> None:
    utterances, draw = people(200), np.random.default_rng(0)
    labels = targets(utterances)
    centres = {label: draw.normal(0, 1, 8) for label in LABELS}
    features = np.stack([centres[label] for label in labels]) + draw.normal(0, 2, (200, 8))
    folds, _ = make_folds(utterances, num_folds=4, seed=5)
    probed = cross_validate(features * 10 + 3, utterances, folds)
    for kind, scores in zip(folds, probed.held_out, strict=True):
        splits = list(kind.splits)
        bare = LogisticRegression(C=np.inf, max_iter=5000, tol=1e-8)
        expected = cross_val_score(bare, features, labels, cv=splits)
        np.testing.assert_allclose(scores.scores["accuracy"], expected, atol=1e-9)
        balanced = cross_val_score(bare, features, labels, cv=splits, scoring="balanced_accuracy")
        np.testing.assert_allclose(scores.scores["recall"], balanced, atol=1e-9)
        f1 = cross_val_score(bare, features, labels, cv=splits, scoring="f1_macro")
        np.testing.assert_allclose(scores.scores["macro_f1"], f1, atol=1e-9)
        confusion = [[0] * 4 for _ in LABELS]
        for train, test in splits:
            predicted = bare.fit(features[train], labels[train]).predict(features[test])
            for label, guess in zip(labels[test], predicted, strict=True):
                confusion[probed.classes.index(label)][probed.classes.index(guess)] += 1
        assert [list(row) for row in scores.confusion] == confusion


def naive_calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error over 15 bins, example by example."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, target in zip(probabilities, targets, strict=True):
        best = max(range(len(row)), key=lambda k: row[k])
        bins.setdefault(min(int(row[best] * 15), 14), []).append((row[best], best == target))
    gaps = (sum(hit for _, hit in each) - sum(sure for sure, _ in each) for each in bins.values())
    return sum(map(abs, gaps)) / len(targets)


@pytest.mark.parametrize("kind", [RANDOM, BY_SPEAKER])
def test_calibration_equals_a_naive_oracle(kind: str) -> None:
    """The temperature is that of predictions for training utterances whose group was left out."""
    utterances, draw = people(600, num_speakers=12), np.random.default_rng(3)
    numbers = np.array([LABELS.index(u.label) for u in utterances])
    features = np.eye(4)[numbers] + draw.normal(0, 0.7, (600, 4))
    features = np.hstack([features, draw.normal(0, 1, (600, 36))])  # too many: too certain
    folds = [each for each in make_folds(utterances, 4)[0] if each.name == kind]
    [scores] = cross_validate(features, utterances, folds).held_out
    speakers = np.array([u.speaker for u in utterances])
    plain, fitted, expected, temperatures = [], [], [], []
    _, model = affine_map()
    order = [LABELS.index(label) for label in ("neutral", "sadness", "anger", "fear")]
    numbers = np.array([order.index(k) for k in numbers])
    for train, test in folds[0].splits:
        names, groups = np.unique(
            speakers[train] if kind == BY_SPEAKER else train, return_inverse=True
        )
        part = np.random.default_rng(0).permutation(len(names))[groups] % TEMPERATURE_FOLDS
        inner = cross_val_predict(
            model, features[train], numbers[train], cv=PredefinedSplit(part), method="predict_proba"
        )
        logits, right = np.log(np.maximum(inner, LEAST)), (np.arange(len(train)), numbers[train])
        grid = np.linspace(0.5, 5, 4501)
        losses = []
        for t in grid:
            powers = np.exp(logits / t)
            losses.append(-np.log(powers[right] / powers.sum(axis=1)).mean())
        temperatures.append(grid[int(np.argmin(losses))])
        found = model.fit(features[train], numbers[train]).predict_proba(features[test])
        sharp = np.maximum(found, LEAST) ** (1 / temperatures[-1])
        plain.append(found)
        fitted.append(sharp / sharp.sum(axis=1, keepdims=True))
        expected.append(numbers[test])
    truth = np.concatenate(expected)
    np.testing.assert_allclose(scores.scores["temperature"], temperatures, atol=0.01)
    error = naive_calibration_error(np.concatenate(plain), truth)
    assert scores.calibration_error == pytest.approx(error, abs=1e-6)
    error = naive_calibration_error(np.concatenate(fitted), truth)
    assert scores.calibration_error_fitted == pytest.approx(error, abs=5e-3)
    assert scores.calibration_error_fitted < 0.7 * scores.calibration_error


def test_deviation_divides_by_n_minus_one() -> None:
    assert mean_and_deviation([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, 1.5275252))
    assert mean_and_deviation([0.5]) == (0.5, None)


@pytest.mark.parametrize("classifier", [affine_map(), affine_map(1.0), random_forest(num_jobs=1)])
def test_noise_scores_chance_and_labels_score_one(classifier: Classifier) -> None:
    utterances = people(600)
    folds, _ = make_folds(utterances, num_folds=3)
    noise = np.random.default_rng(1).normal(size=(600, 8))
    for scores in cross_validate(noise, utterances, folds, classifier).held_out:
        accuracy, _ = mean_and_deviation(scores.scores["accuracy"])
        assert accuracy == pytest.approx(0.25, abs=0.06)
    perfect = np.eye(4)[[LABELS.index(u.label) for u in utterances]]
    for scores in cross_validate(perfect, utterances, folds, classifier).held_out:
        for name in ("accuracy", "recall", "macro_f1"):
            assert set(scores.scores[name]) == {1.0}
        assert np.trace(scores.confusion) == 600


def test_knowing_the_speaker_helps_random_folds_only() -> None:
    """Every speaker prefers one label, and the features encode the speaker only."""
    draw = np.random.default_rng(2)
    utterances = [
        Utterance(
            Path(f"{k}"), LABELS[(k % 24) % 4] if draw.random() < 0.7 else "fear", f"{k % 24}"
        )
        for k in range(480)
    ]
    features = np.eye(24)[[int(u.speaker or 0) for u in utterances]]
    features += draw.normal(0, 0.01, features.shape)
    folds, _ = make_folds(utterances, num_folds=4)
    probed = cross_validate(features, utterances, folds, affine_map(1.0))
    assert np.mean(found(probed, RANDOM).scores["recall"]) > 0.6
    assert np.mean(found(probed, BY_SPEAKER).scores["recall"]) < 0.35


def test_class_with_one_speaker_is_never_predicted() -> None:
    utterances = [
        Utterance(Path(f"{k}"), "boredom" if k % 6 == 0 else LABELS[k % 4], f"{k % 6}")
        for k in range(120)
    ]
    folds, _ = make_folds(utterances)
    probed = cross_validate(np.random.default_rng(0).normal(size=(120, 8)), utterances, folds)
    row = found(probed, BY_SPEAKER).confusion[probed.classes.index("boredom")]
    assert sum(row) == 20 and row[probed.classes.index("boredom")] == 0


def test_two_speakers_with_one_class_each() -> None:
    utterances = [Utterance(Path(f"{k}"), LABELS[k % 2], f"{k % 2}") for k in range(40)]
    folds, _ = make_folds(utterances)
    probed = cross_validate(np.random.default_rng(0).normal(size=(40, 8)), utterances, folds)
    assert found(probed, BY_SPEAKER).scores["accuracy"] == (0.0, 0.0)


def test_one_class_or_bad_features_are_errors() -> None:
    alike = people(30, labels=("fear",))
    folds, _ = make_folds(alike)
    with pytest.raises(InputError, match="all 30 utterances are labelled 'fear'"):
        cross_validate(np.zeros((30, 2)), alike, folds)
    with pytest.raises(InputError, match="logits: contain values that are not finite"):
        cross_validate(np.full((30, 2), np.nan), people(30), folds, name="logits")


# The command, on sound in which each emotion has its pitch.


class PitchStudent:
    """A `Student` that measures the pitch by the rate of sign changes."""

    name, sha256 = "pitch", "0" * 64

    def __call__(self, samples: list[np.ndarray], part: str) -> np.ndarray:
        assert part == "whole"
        rates = [np.mean(np.diff(np.signbit(s)) != 0) for s in samples]
        return np.outer(rates, np.arange(1, 9)).astype(np.float32)

    def embed(self, samples: list[np.ndarray], part: str) -> np.ndarray:
        return np.tile(self(samples, part), 4)


def write_tone(path: Path, pitch: float, rate: int = SAMPLE_RATE, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(rate * seconds)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * times), rate)


@pytest.fixture
def emo_db(tmp_path: Path) -> Path:
    root = tmp_path / "Berlin é 1" / "wav"
    for speaker in range(3, 8):
        for text in range(1, 4):
            for letter, pitch in (("W", 200), ("T", 800), ("N", 2000)):
                name = f"{speaker:02d}a{text:02d}{letter}a.wav"
                write_tone(root / name, pitch * (1 + speaker / 200))
    return root


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register `pitch` as a student; pretend that openSMILE is not installed."""
    monkeypatch.setattr("emovox.probing.probes.kind_of_model", lambda name: STUDENT)
    monkeypatch.setattr("emovox.probing.probes.load_student", lambda name, device: PitchStudent())
    monkeypatch.setattr("emovox.probing.probes.find_spec", lambda name: None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["probe", *map(str, arguments)], catch_exceptions=False)


def test_command(emo_db: Path, student: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("pitch", emo_db, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("emo-db: 45 utterances, 5 speakers, 3 classes")
    lines = result.stdout.splitlines()
    assert sum("pitch logits" in line and "100.0 +- 0.0" in line for line in lines) == 2
    assert any(line.split() == ["chance", "33.3", "33.3"] for line in lines)
    assert "largest class (neutral)" in result.stdout and "emovox[opensmile]" in result.stdout
    record = json.loads((out / "probe.json").read_text())
    assert record["config"]["corpus"] == "wav" and str(tmp_path) not in json.dumps(record)
    assert record["probed"][0]["classes"] == ["neutral", "sadness", "anger"]
    with (out / "probe.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["folds"] for row in rows] == [RANDOM, BY_SPEAKER, "", ""]
    assert float(rows[0]["accuracy"]) == 1.0 and rows[0]["num_folds"] == "10"
    assert float(rows[0]["macro_f1"]) == 1.0 and rows[2]["macro_f1"] == ""
    assert 0 <= float(rows[0]["calibration_error_fitted"]) < 0.05
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == [
        "confusion-1-random-folds.png",
        "confusion-1-speaker-independent-folds.png",
    ]
    picture = cv2.imread(str(out / pictures[0]))
    assert picture is not None and picture.shape[0] > 300
    assert run("pitch", emo_db, "--features", "embedding", "--seed", 1).exit_code == 0


def test_result_as_a_table(emo_db: Path, student: None) -> None:
    result = probe("pitch", str(emo_db), ProbeConfig(folds=5), seed=2)
    assert (result.config.folds, result.config.seed) == (5, 2) and not result.too_many_dropped
    table = result.to_pandas()
    assert list(table["what"]) == ["pitch logits"] * 2 + ["largest class (neutral)", "chance"]
    assert list(table["accuracy"]) == pytest.approx([1, 1, 1 / 3, 1 / 3])
    assert repr(result).startswith("<ProbeResult on emo-db: 45 utterances; pitch logits, random")


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_folds_from_files_repeat_the_figures_exactly(
    emo_db: Path, student: None, tmp_path: Path
) -> None:
    config = ProbeConfig(folds=4, seed=3, features="embedding")
    first = probe("pitch", emo_db, config, write_folds=str(tmp_path / "folds"))
    [probed] = first.probed
    for scores, name in zip(
        probed.held_out, ("random-folds", "speaker-independent-folds"), strict=True
    ):
        place = tmp_path / "folds" / name
        assert len(list(place.iterdir())) == 4
        again = probe("pitch", emo_db, folds_from=str(place), features="embedding")
        [[given]] = [each.held_out for each in again.probed]
        assert given.folds == "given folds"
        assert dataclasses.replace(given, folds=scores.folds) == scores
        assert again.config.folds_from == name and not any("folds" in n for n in again.notes[1:])
    rows = lines_of(place / "fold_1/emo-db_test_fold_1.jsonl")
    assert rows[0] | {"wav": ""} == {
        **{"key": rows[0]["key"], "dataset": "emo-db", "wav": "", "type": "raw", "channel": 1},
        **{"task": "category", "length": 0.5, "emo": rows[0]["emo"], "spk": rows[0]["spk"]},
    }
    assert (emo_db / str(rows[0]["wav"])).is_file()


def write_lines(path: Path, paths: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"wav": each, "emo": "W"}) + "\n" for each in paths))


def test_folds_of_emobox(emo_db: Path, student: None, tmp_path: Path) -> None:
    """Its paths start at its own folder of downloads and may end in another format."""
    names = sorted(path.stem for path in emo_db.iterdir())
    paths = [f"downloads/emodb/wav/{name}.flac" for name in names]
    write_lines(tmp_path / "fold_1/emodb_train_fold_1.jsonl", [*paths[:30], "downloads/x.wav"])
    write_lines(tmp_path / "fold_1/emodb_test_fold_1.jsonl", paths[30:40])
    write_lines(tmp_path / "fold_1/emodb_valid_fold_1.jsonl", paths[:40])
    write_lines(tmp_path / "fold_1/emodb.jsonl", paths)
    result = run("pitch", emo_db, "--folds-from", tmp_path)
    assert result.exit_code == 0, result.output
    assert "5 utterances of the corpus are not in the folds" in result.stdout
    assert "1 of the folds are not readable in the corpus, for example downloads/x.wav" in (
        result.stdout
    )
    folds, _ = read_folds(tmp_path, [f"{name}.wav" for name in names])
    [[train, test]] = folds.splits
    assert (train.tolist(), test.tolist()) == ([*range(30)], [*range(30, 40)])


def test_a_path_of_folds_is_matched_by_its_folders(tmp_path: Path) -> None:
    """SAVEE has a01.wav of four speakers."""
    write_lines(tmp_path / "fold_1/train_fold_1.jsonl", ["x/DC/a01.wav", "x/XX/a01.wav"])
    write_lines(tmp_path / "fold_1/test_fold_1.jsonl", ["x/JE/a01.wav"])
    folds, notes = read_folds(tmp_path, ["AudioData/DC/a01.wav", "AudioData/JE/a01.wav"])
    assert [[part.tolist() for part in split] for split in folds.splits] == [[[0], [1]]]
    assert len(notes) == 1 and "x/XX/a01.wav" in notes[0]


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (None, None, "fold 1 has 0 utterances of the corpus to train and 0 to test"),
        (["a.wav"], ["x.wav"], "fold 1 has 1 utterances of the corpus to train and 0 to test"),
        (["a.wav"], ["a.wav"], "1 to test, 1 different ones"),
        (["a.wav", "x/a.wav"], ["b.wav"], "2 utterances of the corpus to train and 1 to test, 2"),
        (["a.wav"], "[1]", "has a line that is not an object with wav"),
        (["a.wav"], "{", "has a line that is not an object with wav"),
    ],
)
def test_wrong_folds_are_errors(
    train: list[str] | None, test: list[str] | str | None, words: str, tmp_path: Path
) -> None:
    for part, content in (("train", train), ("test", test)):
        path = tmp_path / f"fold_1/x_{part}_fold_1.jsonl"
        if isinstance(content, list):
            write_lines(path, content)
        elif content:
            path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_folds(tmp_path, ["a.wav", "b.wav"])


def test_misspelt_labels_are_noted_and_kept(student: None, tmp_path: Path) -> None:
    rows = []
    for k, label in enumerate(["anger"] * 10 + ["hapiness"] * 9 + ["happy", "joy", "zeal"] * 3):
        write_tone(tmp_path / f"{k}.wav", 200 + 10 * k)
        rows.append(f"{k}.wav,{label}\n")
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(rows))
    result = run("pitch", tmp_path / "t.csv", "--folds", 2)
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stdout.splitlines() if "label '" in line]
    assert notes == [
        "note      label 'hapiness': not an emotion emovox knows; did you mean happiness? "
        "(9 utterances)"
    ]
    assert "hapiness 9" in result.stdout and "happy 3" in result.stdout


def test_bad_files_are_dropped_with_a_reason(emo_db: Path, student: None, tmp_path: Path) -> None:
    (emo_db / "03a01Fa.wav").write_text("no sound")
    write_tone(emo_db / "03a02Fa.wav", 100, seconds=0.1)
    (emo_db / "what.wav").touch()
    result = run("pitch", emo_db, "--layout", "emo-db", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "--max-dropped allows" in result.stderr
    dropped = json.loads((tmp_path / "out/probe.json").read_text())["dropped"]
    assert {d["path"]: d["error"] for d in dropped} == {
        "what.wav": "BadName",
        "03a01Fa.wav": "open: Unreadable",
        "03a02Fa.wav": "time: TooShort",
    }
    assert "dropped   1 x time: TooShort" in result.stdout
    assert "03a02Fa.wav: 0.10 s of audio, shorter than 0.24 s" in result.stdout
    arguments = ("pitch", emo_db, "--layout", "emo-db", "--max-dropped", 0.1)
    assert run(*arguments).exit_code == 0


def test_legacy_reads_the_left_channel_as_16_khz(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000, 2))
    soundfile.write(path, noise, 48_000, subtype="FLOAT")
    corpus = SpeechCorpus("table", tmp_path, [Utterance(path, "fear")])
    heard: list[np.ndarray] = []

    def keep(samples: list[np.ndarray]) -> np.ndarray:
        heard.extend(samples)
        return np.zeros((len(samples), 8))

    audio_features(corpus, {"student": keep}, None)
    audio_features(corpus, {"student": keep}, None, protocol="legacy")
    assert len(heard[0]) == pytest.approx(16_000, abs=16)
    np.testing.assert_allclose(heard[1], noise[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense", "."], "neither a checkpoint nor one of compact"),
        (["compact", ".", "--features", "embedding"], "requires a student; use logits"),
        (["compact", ".", "--protocol", "legacy"], "requires a student; use standard"),
        (["compact", ".", "--protocol", "old"], "'old' is not one of standard, legacy"),
        (["compact", ".", "--folds", "1"], "folds 1: must be at least 2"),
        (["compact", "."], "contains neither audio nor video"),
        (["compact", "missing"], "not found; pass a folder or a table"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2 and words in result.stderr
    assert result.stderr.count("\n") == 1 and not result.stdout


def test_single_label_fails_before_reading(student: None, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{k}.wav,joy\n" for k in range(20)))
    result = run("pitch", tmp_path / "t.csv")
    assert result.exit_code == 2 and "two or more labels" in result.stderr


def test_kind_of_model(tmp_path: Path) -> None:
    import torch

    from emovox.checkpoints import save
    from emovox.student.networks import StudentConfig, VGGVox
    from emovox.teacher import EMBEDDED

    assert kind_of_model("compact") == kind_of_model(str(EMBEDDED["compact"])) == "teacher"
    assert kind_of_model("emovoxceleb") == "student" and kind_of_model("egemaps") == EGEMAPS
    save(tmp_path / "s.safetensors", VGGVox(StudentConfig(width=0.02)), {}, torch.float32)
    assert kind_of_model(str(tmp_path / "s.safetensors")) == "student"
    for name, kind in (("emovoxceleb-student.mat", "student"), ("senet50-ferplus.mat", "teacher")):
        (tmp_path / name).touch()
        assert kind_of_model(str(tmp_path / name)) == kind
    (tmp_path / "other.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(InputError, match="states no network of emovox"):
        kind_of_model(str(tmp_path / "other.mat"))


def test_untrained_student(emo_db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained network, through checkpoint, sound and probe."""
    import torch

    from emovox.checkpoints import save
    from emovox.student.networks import StudentConfig, VGGVox

    monkeypatch.setattr("emovox.probing.probes.find_spec", lambda name: None)
    net = VGGVox(StudentConfig(width=0.05), torch.Generator().manual_seed(0))
    (tmp_path / "run").mkdir()
    save(tmp_path / "run/best.safetensors", net, {}, torch.float32)
    for features in ("logits", "embedding"):
        result = probe(tmp_path / "run", str(emo_db), features=features)
        assert result.num_utterances == 45 and result.model["name"] == "run"
        assert result.probed[0].features == f"run {features}"


def test_teacher_features_of_videos(tmp_path: Path, in_process: None) -> None:
    """A synthetic face is found by MTCNN; videos without a face, or unreadable, are dropped."""
    config = DemoConfig(
        num_speakers=1, num_videos=1, num_tracks=1, min_seconds=1.0, max_seconds=1.0
    )
    write_demo_corpus(tmp_path / "demo", config, jobs=1)
    [face] = (tmp_path / "demo").rglob("*.mp4")
    folder = tmp_path / "a corpus/DC"
    folder.mkdir(parents=True)
    (folder / "a01.mp4").write_bytes(face.read_bytes())
    write_clip(folder / "a02.mp4", 10)
    (folder / "n03.mp4").write_text("no video")
    write_tone(folder / "n04.wav", 200)
    utterances = [Utterance(path, "anger", "DC") for path in sorted(folder.iterdir())]
    corpus = SpeechCorpus("savee", folder.parent, utterances)
    found, values = video_features(corpus, "compact", "cpu", 1)
    assert found == utterances[:1] and values["teacher"].shape == (1, 8)
    assert {d.path: d.error for d in corpus.dropped} == {
        "DC/a02.mp4": "faces: NoFace",
        "DC/n03.mp4": "open: InvalidData",
        "DC/n04.wav": "open: NoVideo",
    }


def test_egemaps_baseline(emo_db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emovox.probing.classifiers.NUM_TREES", 20)
    pytest.importorskip("opensmile", reason="openSMILE is not installed")
    result = run("egemaps", emo_db, "--folds", 3, "--jobs", 2)
    assert result.exit_code == 0, result.output
    [row, _] = [r for r in result.stdout.splitlines() if r.startswith("openSMILE eGeMAPSv02")]
    assert "random forest" in row and RANDOM in row and "100.0 +- 0.0" in row
    assert egemaps()(np.zeros(8000, np.float32)).shape == (88,)


def test_egemaps_without_opensmile_is_an_error(
    emo_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    result = run("egemaps", emo_db)
    assert result.exit_code == 2 and "pip install 'emovox[opensmile]'" in result.stderr


def test_quoted_rows_are_marked(tmp_path: Path, student: None) -> None:
    for speaker in range(1, 4):
        for code, pitch in (("an", 200), ("sa", 900)):
            for number in range(3):
                write_tone(tmp_path / f"s{speaker}/{code}{number}.wav", pitch)
    result = run("pitch", tmp_path)
    assert result.exit_code == 0
    assert "* student (Albanie et al. 2018)" in result.stdout and "49.7 +- 5.4" in result.stdout
    assert "rows marked * are quoted from papers" in result.stdout


AVI_NAMES = {
    "enterface": "subject {speaker}/{word}/sentence {number}/s{speaker}_{code}_{number}.avi",
    "rml": "s{speaker}/Mandarin/{code}{number}.avi",
    "afew": "{part}/{Word}/00{speaker}{number}.avi",
}


@pytest.fixture(scope="module")
def avi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One AVI with pictures and a tone per emotion, as these corpora are distributed."""
    folder = tmp_path_factory.mktemp("avi")
    for code, pitch in (("an", 200), ("sa", 900)):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i"]
        command += ["testsrc2=s=64x48:r=25:d=1", "-f", "lavfi", "-i", f"sine={pitch}:r=48000:d=1"]
        command += ["-c:v", "mpeg4", "-c:a", "pcm_s16le", str(folder / f"{code}.avi")]
        subprocess.run(command, check=True)
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("corpus", AVI_NAMES)
def test_corpora_of_avi_files(
    corpus: str, avi: dict[str, Path], tmp_path: Path, student: None
) -> None:
    for speaker, number in itertools.product(range(1, 4), range(1, 4)):
        for code, word in (("an", "anger"), ("sa", "sadness")):
            name = AVI_NAMES[corpus].format(
                speaker=speaker,
                number=number,
                code=code,
                word=word,
                Word={"an": "Angry", "sa": "Sad"}[code],
                part="Train" if number < 3 else "Val",
            )
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(avi[code].read_bytes())
    result = run("pitch", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{corpus}: 18 utterances")
    assert "100.0" in result.stdout and "dropped" not in result.stdout


def test_cross_folds_use_the_labels_that_two_corpora_have() -> None:
    def corpus(name: str, labels: str) -> list[Utterance]:
        return [
            Utterance(Path(f"{k}"), label, f"{name}/{k % 3}", corpus=name)
            for k, label in enumerate(labels * 3)
        ]

    utterances = [*corpus("A", "afnn"), *corpus("B", "afs"), *corpus("C", "cn")]
    folds, notes = cross_folds(utterances, num_folds=2)
    by_name = {each.name: each for each in folds}
    # A and C have neutral only, B and C nothing.
    assert list(by_name) == ["A to A", "A to B", "B to A", "B to B", "C to C"]
    assert "A to C: 1 labels, n" in notes and "C to B: 0 labels, none" in notes
    assert "A to A: speaker-independent folds, 3 labels, a, f, n" in notes
    for a, b in (("A", "B"), ("B", "A")):
        [[train, test]] = by_name[f"{a} to {b}"].splits
        for rows, name in ((train, a), (test, b)):
            assert [utterances[k] for k in rows] == [
                u for u in utterances if u.corpus == name and u.label in "af"
            ]
    for train, test in by_name["C to C"].splits:
        assert {utterances[k].corpus for k in (*train, *test)} == {"C"}
        assert not {utterances[k].speaker for k in train} & {utterances[k].speaker for k in test}


def test_cross_command(emo_db: Path, student: None, tmp_path: Path) -> None:
    """Pitches of the second corpus rise in the other order, so that nothing carries over."""
    rows = []
    for k in range(24):
        label, pitch = [("Happy", 2000), ("angry", 200), ("calm", 600)][k % 3]
        if k % 3 == 0:
            pitch = 800
        write_tone(tmp_path / f"{k}.wav", pitch * (1 + k / 500))
        rows.append(f"{k}.wav,{label},{k % 4}\n")
    (tmp_path / "b.csv").write_text("path,label,speaker\n" + "".join(rows))
    (emo_db / "03a01Wa.wav").write_text("no sound")
    out = tmp_path / "out"
    arguments = ("pitch", emo_db, tmp_path / "b.csv", "--cross", "--folds", 3)
    result = run(*arguments, "--out", out, "--write-folds", tmp_path / "folds")
    assert result.exit_code == 0, result.output
    assert "wav to b.csv: 1 labels, anger" in result.stdout
    assert [line.split() for line in result.stdout.splitlines() if line.startswith("b.csv  ")] == [
        ["b.csv", "-", "100.0"]
    ]
    assert "03a01Wa.wav" in result.stdout and "chance" not in result.stdout
    record = json.loads((out / "probe.json").read_text())
    assert record["corpus"]["layout"] == "wav + b.csv" and str(tmp_path) not in json.dumps(record)
    assert [row["folds"] for row in record["results"]] == ["wav to wav", "b.csv to b.csv"]
    assert [path.name for path in out.glob("*.png")] == ["cross-1.png"]
    assert (tmp_path / "folds/wav-to-wav/fold_1").is_dir()


def test_cross_trains_on_one_corpus_and_tests_on_the_other(student: None, tmp_path: Path) -> None:
    """Speakers 1 and 2 of both corpora are different people; the second swaps two pitches."""
    for name, pitches in (("x", (200, 800)), ("y", (200, 820)), ("z", (900, 210))):
        for k in range(12):
            write_tone(tmp_path / name / f"{k}.wav", pitches[k % 2] * (1 + k / 500))
        rows = (f"{k}.wav,{['angry', 'happy'][k % 2]},{k % 3}\n" for k in range(12))
        (tmp_path / name / f"{name}.csv").write_text("path,label,speaker\n" + "".join(rows))
    tables = [tmp_path / name / f"{name}.csv" for name in "xyz"]
    result = probe("pitch", tables, cross=True, folds=3)
    assert list(result.counts) == ["happiness", "anger"] and result.num_speakers == 9
    matrix = result.matrix(result.probed[0])
    assert matrix.to_numpy().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert list(matrix.index) == list(matrix.columns) == ["x.csv", "y.csv", "z.csv"]
    assert list(result.to_pandas()["num_folds"]) == [3, 1, 1, 1, 3, 1, 1, 1, 3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x/a.csv", "--cross"], "cross: requires two or more corpora"),
        (["x/a.csv", "x/b.csv"], "cross: requires two or more corpora"),
        (["x/a.csv", "x/b.csv", "--cross", "--folds-from", "x"], "and no folds_from"),
        (["x/a.csv", "y/a.csv", "--cross"], "two corpora are named a.csv; rename one"),
    ],
)
def test_wrong_use_of_cross(arguments: list[str], words: str, student: None) -> None:
    result = run("pitch", *arguments)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1


def test_sessions_and_test_partition_of_a_corpus() -> None:
    turns = [
        Utterance(Path(f"{k}"), LABELS[k % 4], f"{k % 6}", session=f"{k % 3}") for k in range(30)
    ]
    [_, _, by_session], _ = make_folds(turns)
    assert by_session.name == BY_SESSION and len(by_session.splits) == 3
    for train, test in by_session.splits:
        assert len({turns[k].session for k in test}) == 1 and len(train) == 20
    parts = ("train", "val", "test")
    scenes = [Utterance(Path(f"{k}"), "fear", None, parts[k % 3]) for k in range(30)]
    [_, val, test_folds], _ = make_folds(scenes)
    assert [val.name, test_folds.name] == list(PARTITIONS.values())
    assert {scenes[k].partition for k in test_folds.splits[0][1]} == {"test"}
