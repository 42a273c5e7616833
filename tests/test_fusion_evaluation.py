"""Scores of fusions: intervals over identities, missing inputs, post-processing, pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import emovox
from emovox.dataset.reader import load
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError
from emovox.fusion import fusion_evaluation
from emovox.fusion.fusion_evaluation import _move, _post_process, _Scorer, _smooth
from emovox.fusion.sequences import Sequence, Targets
from emovox.scores import ROUNDS

TIMES = np.arange(50) * 0.24


def tracks(count: int, seed: int = 0) -> list[Sequence]:
    rng = np.random.default_rng(seed)
    none = np.empty((50, 0), np.float32)
    made = []
    for number in range(count):
        target = np.sin(TIMES * rng.uniform(0.3, 1.5) + rng.uniform(0, 6))[:, None]
        identity = f"s{number // 2}"  # two tracks each
        name = f"{identity}/v/{number}"
        made.append(Sequence(name, identity, TIMES, (none, none), target.astype(np.float32)))
    return made


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def test_intervals_are_those_of_whole_identities() -> None:
    made, rng = tracks(8), np.random.default_rng(1)
    found = [t.target + rng.normal(0, 0.5, t.target.shape).astype(np.float32) for t in made]
    scorer = _Scorer(made, Targets(("v",), {}))
    scorer.add("run", "face", found)
    assert scorer.counts == "8 tracks, 4 identities"
    kinds = [row[3] for row in scorer.rows]
    assert kinds == ["CCC", "Pearson", "RMSE"]
    drawn = np.random.default_rng(0).integers(4, size=(ROUNDS, 4))
    samples = []
    for row in drawn:
        chosen = [2 * k + j for k in row for j in (0, 1)]
        x, y = (np.concatenate([part[i].ravel() for i in chosen]).astype(float) for part in (
            found, [t.target for t in made]))  # fmt: skip
        samples.append(ccc(x, y))
    estimate = scorer.rows[0][4]
    low, high = np.quantile(samples, [0.025, 0.975])
    x, y = (
        np.concatenate(part).ravel().astype(float) for part in (found, [t.target for t in made])
    )
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((ccc(x, y), low, high))
    assert not estimate.reliable


def test_post_processing_undoes_what_is_wrong_and_nothing_else() -> None:
    dev, held = tracks(6, 0), tracks(6, 1)

    def spoil(made: list[Sequence]) -> list[np.ndarray]:
        return [_move(t.times, 0.4 * t.target + 0.7, 0.48) for t in made]

    steps = dict(_post_process(dev, spoil(dev), held, spoil(held)))
    assert [name.split()[1] for name in steps] == ["centring", "scaling", "shift"]
    assert "+ shift by -0.5 s" in steps
    before, after = (
        ccc(np.concatenate(x).ravel(), np.concatenate([t.target for t in held]).ravel())
        for x in (spoil(held), [*steps.values()][-1])
    )
    assert before < 0.5 and after > 0.97
    assert not dict(_post_process(dev, [t.target for t in dev], held, spoil(held)))


def test_smoothing_is_a_centred_mean() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    smooth = _smooth(np.arange(20.0), values, 5)
    for place in range(20):
        expected = values[max(0, place - 2) : place + 3].mean(axis=0)
        np.testing.assert_allclose(smooth[place], expected, atol=1e-6)


def test_predictions_move_in_time() -> None:
    line = np.arange(50, dtype=np.float32)[:, None]
    moved = _move(TIMES, line, 0.48)
    np.testing.assert_allclose(moved[2:, 0], line[:-2, 0], atol=1e-4)
    assert moved[0, 0] == moved[1, 0] == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of six speakers with values, and a training on their faces alone."""
    folder, rng = tmp_path_factory.mktemp("evaluation"), np.random.default_rng(0)
    rows: dict[str, list[Any]] = {"track_id": [], "frame_index": [], "logit_a": [], "logit_b": []}
    rows["value_arousal"] = []
    given: dict[str, list[Any]] = {"track_id": [], "split": []}
    for number in range(6):
        face = np.cumsum(rng.normal(0, 0.3, 30))
        given["track_id"].append(f"s{number}/v/00001")
        given["split"].append("unheard_val" if number < 2 else "train")
        rows["track_id"] += [given["track_id"][-1]] * 30
        rows["frame_index"] += range(30)
        for name, values in (("logit_a", -face), ("logit_b", face), ("value_arousal", face)):
            rows[name] += values.tolist()
    emovox.write_dataset(folder / "dataset", given, rows, name="small")
    options: dict[str, Any] = {"fusion": "video", "epochs": 3, "hidden": 8, "device": "cpu"}
    for name in ("run", "other/run", "rival"):
        emovox.train_fusion(folder / "dataset", "values", None, folder / name, delay=0, **options)
    emovox.train_fusion(folder / "dataset", "values", None, folder / "fine", step=0.12, **options)
    return folder


def evaluate(root: Path, run: str = "run", targets: str = "values", **options: Any) -> Any:
    return emovox.evaluate_fusion(root / run, root / "dataset", targets, device="cpu", **options)


def test_what_is_written_and_printed(root: Path, tmp_path: Path) -> None:
    found = evaluate(root, against=[root / "rival"])
    assert found.title == "run on unheard_val of small 1.0.0: 2 tracks, 2 identities"
    lines = found.summary().splitlines()
    assert lines[1].split()[:4] == ["run", "face", "arousal", "CCC"]
    assert any(line.startswith("run minus rival") for line in lines)
    table = found.to_pandas()
    assert [*table.columns[:4]] == ["training", "inputs", "output", "score"]
    assert table.loc[table["training"] == "run minus rival", "value"].tolist() == [0.0]
    found.write(tmp_path / "out")
    stored = pq.read_table(tmp_path / "out/predictions.parquet").to_pydict()
    assert [*stored] == ["track_id", "seconds", "target_arousal", "run_arousal", "rival_arousal"]
    truth = np.concatenate([load(root / "dataset")[f"s{n}/v/00001"].values for n in (0, 1)])
    np.testing.assert_allclose(stored["target_arousal"], truth[:, 0], rtol=1e-6)
    x, y = np.array(stored["run_arousal"]), np.array(stored["target_arousal"])
    assert found.rows[0][4].value == pytest.approx(ccc(x, y), rel=1e-5)
    saved = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert saved["scores"][0]["value"] == pytest.approx(ccc(x, y), rel=1e-5)
    page = emovox.report(root / "dataset", tmp_path / "page.html", student=[tmp_path / "out"])
    assert page.results.fusions[0]["title"] == found.title
    text = (tmp_path / "page.html").read_text()
    assert found.title in text and "Target and predictions, arousal-1" in text
    assert "These folders have no evaluation" not in text
    picture = np.asarray(Image.open(tmp_path / "out/arousal-1.png").convert("L"))
    assert picture.std() > 10  # not blank


def test_a_delay_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    (track,) = tracks(1)
    ahead = [np.roll(track.target, -5, axis=0)]  # what a network learns from targets 1.2 s later
    monkeypatch.setattr(fusion_evaluation, "predict", lambda *given: ahead)
    (found,) = fusion_evaluation._predict(None, 1.2, None, [track])  # type: ignore[arg-type]
    np.testing.assert_allclose(found[5:], track.target[5:], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"run": "missing"}, ConfigError, "fusion '.*missing' is neither a file"),
        ({"split": "heard_val"}, ConfigError, "heard_val"),
        ({"split": "train"}, ConfigError, "split 'train' is not one of"),
        ({"against": ["other/run"]}, ConfigError, "trainings run: two have the same name"),
        ({"targets": "labels"}, InputError, "run: has other targets or steps than a, b"),
        ({"against": ["fine"]}, InputError, "fine: has other targets or steps"),
        ({"run": "dataset/manifest.json"}, InputError, "not a checkpoint of train-fusion"),
    ],
)
def test_what_does_not_fit_gives_one_line(
    root: Path, options: dict[str, Any], kind: type, words: str
) -> None:
    options = {**options, "against": [root / name for name in options.get("against", [])]}
    with pytest.raises(EmovoxError, match=words) as caught:
        evaluate(root, **options)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_targets_of_other_tracks_are_no_targets(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("track_id,timestamp_ms,arousal\ns5/v/00001,0,1\ns5/v/00001,9000,1\n")
    with pytest.raises(CheckError, match=r"t.csv: no target of a track of unheard_val"):
        evaluate(root, targets=str(path))
