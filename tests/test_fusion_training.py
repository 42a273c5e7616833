"""Training of a fusion: the delay of the annotators, resuming, and what the network learns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import emovox
from emovox import checkpoints
from emovox.cli import main
from emovox.errors import CheckError, ConfigError, InputError
from emovox.fusion.fusion_config import FusionTrainConfig
from emovox.fusion.fusion_network import predict, score
from emovox.fusion.fusion_training import _Run, find_delay
from emovox.fusion.sequences import Sequence, Targets
from emovox.student.networks import StudentConfig, VGGVox

pytestmark = pytest.mark.usefixtures("one_thread")

STEP, RATE = 0.24, 16_000


def curve(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    frequencies, phases = rng.uniform(0.05, 0.3, 3), rng.random(3)
    waves = np.sin(2 * np.pi * (times[:, None] * frequencies + phases))
    return np.asarray(waves.mean(axis=1))


def make(count: int, delay: float, seed: int = 0) -> tuple[list[Sequence], Targets]:
    """Tracks of 24 s whose value, some seconds later, is half the face and half the sound."""
    rng, tracks, curves = np.random.default_rng(seed), [], {}
    times, marks = np.arange(100) * STEP, np.arange(0, 30, 0.04)
    for number in range(count):
        name, fine = f"s{number}/v/00001", np.arange(-10, 40, 0.01)
        face, sound = curve(rng, fine), curve(rng, fine)
        features = [
            (np.interp(times, fine, each)[:, None] + rng.normal(0, 0.1, (100, 1))).astype(
                np.float32
            )
            for each in (face, sound)
        ]
        value = np.interp(marks - delay, fine, 0.5 * face + 0.5 * sound)
        curves[name] = [(marks, value[:, None])]
        unknown = np.full((100, 1), np.nan, np.float32)
        tracks.append(Sequence(name, f"s{number}", times, (features[0], features[1]), unknown))
    return tracks, Targets(("valence",), curves)


@pytest.mark.parametrize("delay", [0.0, 2.0, 3.3])
def test_the_delay_of_the_annotators_is_found(delay: float) -> None:
    tracks, targets = make(8, delay)
    assert find_delay(tracks[:6], tracks[6:], targets) == pytest.approx(delay, abs=0.1)


def test_both_inputs_are_better_than_either() -> None:
    tracks, targets = make(24, 0.0)
    tracks = [
        Sequence(t.track_id, t.identity, t.times, t.features, targets.at(t.track_id, t.times))
        for t in tracks
    ]
    scores = {}
    for fusion in ("model", "late", "audio", "video"):
        config = FusionTrainConfig(fusion=fusion, hidden=16, learning_rate=5e-3, batch_size=4)
        run = _Run(config, targets, tracks[:16], tracks[16:])
        for _ in range(12):
            run.train_epoch()
        found = predict(run.model, tracks[16:], torch.device("cpu"))
        scores[fusion] = score(found, [t.target for t in tracks[16:]], False)
    assert scores["model"] > 0.8
    assert min(scores["model"], scores["late"]) > max(scores["audio"], scores["video"]) + 0.1


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight speakers with a track of 4 s, their sound, two values, and a tiny student."""
    root = tmp_path_factory.mktemp("fusion")
    rng, times = np.random.default_rng(0), np.arange(17) * STEP
    rows: dict[str, list[Any]] = {
        "track_id": [],
        "frame_index": [],
        "logit_low": [],
        "logit_high": [],
    }
    values = ["track_id,timestamp_ms,arousal,valence"]
    tracks: dict[str, list[Any]] = {"track_id": [], "split": [], "duration_ms": []}
    for number in range(8):
        name = f"speaker{number}/v/00001"
        face = curve(rng, times) + 0.8 * (-1) ** number
        rows["track_id"] += [name] * len(times)
        rows["frame_index"] += range(len(times))
        rows["logit_low"] += (-face).tolist()
        rows["logit_high"] += face.tolist()
        values += [f"{name},{240 * k},{face[k]:.4f},{1 - face[k]:.4f}" for k in range(len(times))]
        tracks["track_id"].append(name)
        tracks["split"].append("unheard_val" if number < 2 else "train")
        tracks["duration_ms"].append(4000)
        path = root / "sound" / f"{name}.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, rng.normal(0, 0.1, 4 * RATE), RATE)
    emovox.write_dataset(root / "dataset", tracks, rows, name="small", synthetic=True)
    (root / "targets.csv").write_text("\n".join(values) + "\n", encoding="utf-8")
    net = VGGVox(StudentConfig(1 / 32), torch.Generator().manual_seed(0))
    checkpoints.save(root / "student.safetensors", net, {"recipe": {"seconds": 1.0}})
    return root


@pytest.fixture(autouse=True)
def cache(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOVOX_CACHE", str(corpus / "cache"))


def train(corpus: Path, out: Path, **options: Any) -> Any:
    """Train on the corpus; `targets` and `epochs` may differ."""
    options = {"sound": str(corpus / "student.safetensors"), "epochs": 4, "hidden": 8, **options}
    targets = options.pop("targets", corpus / "targets.csv")
    options |= {"device": "cpu", "delay": 0.0}
    return emovox.train_fusion(corpus / "dataset", targets, corpus / "sound", out, **options)


def without_seconds(result: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in result.records]


def test_a_training_resumes_and_repeats_to_the_bit(corpus: Path, tmp_path: Path) -> None:
    whole, again = (train(corpus, tmp_path / name) for name in ("whole", "again"))

    class StoppedError(Exception):
        pass

    def stop(record: Any) -> None:
        if record["epoch"] == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(corpus, tmp_path / "parts", on_epoch=stop)
    parts = train(corpus, tmp_path / "parts")
    assert len(whole.records) == 4
    assert without_seconds(whole) == without_seconds(again) == without_seconds(parts)
    first, *others = (load_file(result.best) for result in (whole, again, parts))
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    with pytest.raises(ConfigError, match=r"holds a training with another recipe.*\(hidden\)"):
        train(corpus, tmp_path / "parts", hidden=9)
    lines: list[str] = []
    train(corpus, tmp_path / "parts", say=lines.append)
    assert lines[-1].endswith("training is already complete")


def test_train_and_evaluate_from_the_command_line(corpus: Path, tmp_path: Path) -> None:
    common = ["--targets", str(corpus / "targets.csv"), "--audio", str(corpus / "sound")]
    common += ["--sound", str(corpus / "student.safetensors"), "--device", "cpu"]
    data, run = str(corpus / "dataset"), str(tmp_path / "run")
    words = ["train-fusion", data, "fusion", *common, "--out", run, "--epochs", "2"]
    done = CliRunner().invoke(main, [*words, "--tensorboard"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len([*(tmp_path / "run/tensorboard").iterdir()]) == 1
    assert [json.loads(line)["epoch"] for line in done.stdout.splitlines()] == [0, 1]
    recipe = json.loads((tmp_path / "run/config.json").read_text())
    assert 0 <= recipe["recipe"]["delay"] <= 6 and recipe["outputs"] == ["arousal", "valence"]
    assert "student.safetensors" not in json.dumps(recipe)
    words = ["evaluate-fusion", run, data, *common, "--out", str(tmp_path / "scores")]
    done = CliRunner().invoke(main, [*words, "--format", "json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["scores"]
    inputs = [*dict.fromkeys(row["inputs"] for row in rows)]
    assert inputs[:3] == ["face and sound", "without face", "without sound"]
    assert {row["score"] for row in rows} == {"CCC", "Pearson", "RMSE"}
    assert {row["output"] for row in rows} == {"arousal", "valence"}
    written = {path.name for path in (tmp_path / "scores").iterdir()}
    assert written >= {"evaluation.json", "predictions.parquet", "arousal-1.png", "valence-2.png"}


def test_classes_of_tracks_are_learned(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "run", targets="labels", fusion="video", epochs=20, learning_rate=0.01)
    found = emovox.evaluate_fusion(tmp_path / "run", corpus / "dataset", "labels", device="cpu")
    assert [row[3] for row in found.rows] == ["accuracy", "UAR"]
    assert found.rows[0][4].value == 1.0  # the label is the sign of the face
    found.write(tmp_path / "scores")
    written = {path.name for path in (tmp_path / "scores").iterdir()}
    assert written == {"evaluation.json", "predictions.parquet"}  # no picture per class and track


def test_targets_must_be_known_on_both_parts(corpus: Path, tmp_path: Path) -> None:
    rows = (corpus / "targets.csv").read_text().splitlines()
    path = tmp_path / "some.csv"
    path.write_text("\n".join([rows[0], *(r for r in rows if r.startswith("speaker0"))]) + "\n")
    with pytest.raises(CheckError, match="no targets to train on"):
        train(corpus, tmp_path / "run", targets=path)
    with pytest.raises(InputError, match=r"nothing\.csv"):
        train(corpus, tmp_path / "run", targets=tmp_path / "nothing.csv")
    assert not (tmp_path / "run").exists()
