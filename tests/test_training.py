"""Training of a teacher: learning, resuming, log and errors."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from test_ferplus import HEADER

from emovox.cli import main
from emovox.errors import ConfigError, EmovoxError, InputError
from emovox.teacher import ferplus, load_teacher
from emovox.teacher.evaluation import evaluate_teacher
from emovox.teacher.teacher_checkpoint import standardise
from emovox.teacher.teacher_config import TeacherTrainConfig
from emovox.teacher.teacher_trainer import augment, cut_out
from emovox.teacher.training import Record, train_epochs, train_teacher

QUICK = TeacherTrainConfig(epochs=2, batch_size=16, device="cpu", bf16=False, learning_rate=0.05)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces that are easy to separate: bright above for happiness, bright below for anger."""
    root = tmp_path_factory.mktemp("ferplus")
    rng = np.random.default_rng(0)
    lines = [HEADER]
    for part, folder in ferplus.FOLDERS.items():
        (root / folder).mkdir()
        for i in range(64):
            image = rng.integers(0, 60, (48, 48)).astype(np.uint8)
            happy = i % 2 == 0
            image[: 20 if happy else 48][0 if happy else 28 :] += 120
            cv2.imwrite(str(root / folder / f"{i}.png"), image)
            votes = "0,10,0,0,0,0,0,0,0,0" if happy else "0,0,0,0,10,0,0,0,0,0"
            lines.append(f"{ferplus.USAGES[part]},{i}.png,{votes}")
    (root / "fer2013new.csv").write_text("\n".join(lines))
    return root


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "last.pt", weights_only=True)
    return {**state["model"], **{f"average {k}": v for k, v in state["average"].items()}}


def test_training_learns_and_writes_a_log(data: Path, tmp_path: Path) -> None:
    records = list(train_epochs(data, tmp_path, replace(QUICK, epochs=8)))
    assert records[-1]["train_loss"] < 0.5 * records[0]["train_loss"]
    assert max(r["public_test_accuracy"] for r in records) >= 0.95
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log == records
    teacher = load_teacher(tmp_path / "best.safetensors", "cpu", "fp32")
    assert evaluate_teacher(teacher, data).plain.accuracy >= 0.9


def test_the_result_has_all_epochs_also_when_none_is_left(data: Path, tmp_path: Path) -> None:
    new_records: list[Record] = []
    messages: list[str] = []
    for _ in range(2):
        result = train_teacher(
            str(data),
            str(tmp_path),
            QUICK,
            seed=3,
            say=messages.append,
            on_epoch=new_records.append,
        )
        assert result.best == tmp_path / "best.safetensors" and result.best.is_file()
        assert list(result.records) == new_records
    assert messages == [f"{result.best}: training is already complete"]
    table = result.to_pandas()
    assert table["epoch"].tolist() == [0, 1]
    assert table["train_loss"].tolist() == [record["train_loss"] for record in new_records]
    assert repr(result).startswith(f"<TrainingResult {result.best}: 2 epochs; last: train_loss ")


def test_resumed_training_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    list(train_epochs(data, tmp_path / "whole", QUICK))
    interrupted = train_epochs(data, tmp_path / "parts", QUICK)
    next(interrupted)
    interrupted.close()
    assert [r["epoch"] for r in train_epochs(data, tmp_path / "parts", QUICK)] == [1]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    best = [load_file(tmp_path / p / "best.safetensors") for p in ("whole", "parts")]
    assert all(torch.equal(best[0][k], best[1][k]) for k in best[0])


def test_an_epoch_trained_twice_is_logged_once(data: Path, tmp_path: Path) -> None:
    next(train_epochs(data, tmp_path, QUICK))
    with (tmp_path / "log.jsonl").open("a") as log:  # killed between the log and the resume point
        log.write('{"epoch": 1, "train_loss": 0}\n')
    list(train_epochs(data, tmp_path, QUICK))
    log_lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in log_lines] == [0, 1] and log_lines[1]["train_loss"] > 0


def test_a_diverging_training_stops(data: Path, tmp_path: Path) -> None:
    with pytest.raises(EmovoxError, match=r"training diverged \(loss .*smaller learning_rate"):
        list(train_epochs(data, tmp_path, replace(QUICK, learning_rate=100.0)))


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x80\x02}q\x00."])
def test_a_damaged_resume_point_is_an_error(data: Path, tmp_path: Path, damage: bytes) -> None:
    next(train_epochs(data, tmp_path, QUICK))
    (tmp_path / "last.pt").write_bytes(damage)
    with pytest.raises(InputError, match=r"last.pt: damaged resume point \(.*remove it to start"):
        next(train_epochs(data, tmp_path, QUICK))


def test_a_folder_of_other_faces_is_an_error(data: Path, tmp_path: Path) -> None:
    next(train_epochs(data, tmp_path / "out", QUICK))
    shutil.copytree(data, tmp_path / "data")
    face = next((tmp_path / "data" / "FER2013Train").iterdir())
    cv2.imwrite(str(face), np.full((48, 48), 7, np.uint8))
    with pytest.raises(ConfigError, match="another recipe, data or teacher"):
        next(train_epochs(tmp_path / "data", tmp_path / "out", QUICK))


def test_two_runs_in_one_folder_are_an_error(data: Path, tmp_path: Path) -> None:
    running = train_epochs(data, tmp_path, QUICK)
    next(running)
    with pytest.raises(EmovoxError, match="another run is training there"):
        next(train_epochs(data, tmp_path, QUICK))
    running.close()
    assert len(list(train_epochs(data, tmp_path, QUICK))) == 1


def test_a_resumed_training_can_change_the_device(data: Path, tmp_path: Path) -> None:
    next(train_epochs(data, tmp_path, replace(QUICK, device="auto")))
    assert len(list(train_epochs(data, tmp_path, QUICK))) == 1


def test_a_folder_of_another_recipe_is_an_error(data: Path, tmp_path: Path) -> None:
    next(train_epochs(data, tmp_path, QUICK))
    with pytest.raises(ConfigError, match="another recipe"):
        next(train_epochs(data, tmp_path, replace(QUICK, seed=1)))
    (tmp_path / "config.json").write_text('{"recipe"')
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        next(train_epochs(data, tmp_path, QUICK))


def test_augmentation_that_does_nothing_changes_nothing() -> None:
    still = replace(QUICK, mirror=0.0, warp=0.0, gamma=0.0)
    faces = torch.randint(0, 256, (4, 1, 48, 48)).float()
    torch.testing.assert_close(augment(faces, still, 48), faces, atol=1e-2, rtol=0)
    mirrored = augment(faces, replace(still, mirror=1.0), 48)
    torch.testing.assert_close(mirrored, faces.flip(3), atol=1e-2, rtol=0)


def test_augmentation_moves_faces_within_its_limits() -> None:
    dot = torch.zeros(200, 1, 48, 48)
    dot[:, :, 23:25, 23:25] = 255
    still = replace(QUICK, rotation=0.0, zoom=0.0, gamma=0.0, mirror=0.0, aspect=0.0, skew=0.0)
    torch.manual_seed(0)
    moved = augment(dot, replace(still, shift=0.1), 48)
    columns = (moved.sum(dim=(1, 2)) * torch.arange(48)).sum(1) / moved.sum(dim=(1, 2, 3))
    assert (columns - 23.5).abs().max() <= 4.8 + 0.1
    assert (columns - 23.5).abs().max() > 4.0


def test_three_levels_of_rotation_for_half_of_the_faces() -> None:
    still = replace(QUICK, mirror=0.0, zoom=0.0, shift=0.0, gamma=0.0, aspect=0.0, skew=0.0)
    face = torch.arange(48.0).expand(1, 1, 48, 48).contiguous()
    torch.manual_seed(0)
    many = replace(still, warp=0.5, rotation=10.0, three_levels=True)
    turned = augment(face.expand(3000, -1, -1, -1).contiguous(), many, 48)[:, 0, 16:32, 16:32]
    slopes = (turned[:, -1] - turned[:, 0]).mean(dim=1) / 15  # -tan(angle) where x is the level
    angles = torch.rad2deg(torch.asin(slopes.clamp(-1, 1))).round()
    counts = {angle: (angles == angle).float().mean().item() for angle in (-10, 0, 10)}
    assert counts == pytest.approx({-10: 1 / 6, 0: 2 / 3, 10: 1 / 6}, abs=0.03)


def test_faces_are_enlarged_for_a_larger_network() -> None:
    face = torch.rand(2, 1, 48, 48) * 255
    found = augment(face, replace(QUICK, mirror=0.0, warp=0.0, gamma=0.0), 224)
    expected = [cv2.resize(image, (224, 224)) for image in face[:, 0].numpy()]
    inner = np.s_[:, 4:-4, 4:-4]  # the border is mirrored by one, repeated by the other
    np.testing.assert_allclose(found[:, 0].numpy()[inner], np.stack(expected)[inner], atol=0.05)


def test_cut_out_erases_one_square() -> None:
    faces = torch.ones(500, 1, 48, 48)
    cut = cut_out(faces, replace(QUICK, cutout=0.5, cutout_side=16))
    erased = (cut == 0).sum(dim=(1, 2, 3))
    assert erased.max() <= 16 * 16 and 0.4 < (erased > 0).float().mean() < 0.6


def test_standardise() -> None:
    faces = torch.rand(3, 1, 48, 48) * 100 + 50
    done = standardise(faces)
    torch.testing.assert_close(done.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(done.std(dim=(1, 2, 3), correction=0), torch.ones(3))
    assert standardise(torch.full((1, 1, 48, 48), 7.0)).abs().max() == 0, "one colour stays finite"


def test_missing_data_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        next(train_epochs(tmp_path / "none.zip", tmp_path / "out", QUICK))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs 0: must be at least 1"),
        ({"mirror": 1.5}, "mirror 1.5: must be 0 to 1"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: must be"),
        ({"widths": (8, 16)}, "lists of the same length"),
        ({"widths": (4,), "depths": (1,)}, "widths of at least 8"),
        ({"momentum": 0.0}, "momentum 0.0: must be"),
        ({"seed": 10**20}, "seed 1.*0: must be 0 to"),
        ({"batch_size": 1000}, "has only 64 training faces"),
        ({"distill_from": ("unknown",)}, "'unknown' is neither a file nor one of"),
        ({"start_from": "absent.toml"}, "'absent.toml' is neither a file nor one of"),
    ],
)
def test_an_invalid_recipe_is_an_error(
    data: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        next(train_epochs(data, tmp_path / "out", replace(QUICK, **change)))  # type: ignore[arg-type]


def test_command(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("stem = 8\nwidths = [8]\ndepths = [1]\nbatch_size = 16\nbf16 = false\n")
    command = ["train-teacher", str(recipe), "--data", str(data), "--out", str(tmp_path / "out")]
    run = CliRunner().invoke(main, [*command, "--epochs", "1", "--device", "cpu"])
    assert run.exit_code == 0 and json.loads(run.stdout)["epoch"] == 0
    run = CliRunner().invoke(main, [*command, "--epochs", "1", "--device", "cpu"])
    assert run.exit_code == 0 and not run.stdout and "training is already complete" in run.stderr
    run = CliRunner().invoke(main, [*command, "--distill-weight", "0.3"])
    assert run.exit_code == 2 and "no teacher to learn from" in run.stderr
