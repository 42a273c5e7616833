"""Training of a student: losses, resuming, several processes and messages."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from student_fixtures import QUICK, utterances, write_tables

from emovox import runs
from emovox.cli import main
from emovox.config import read_config
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError
from emovox.registry import read_header
from emovox.student.student_config import LOSSES, StudentTrainConfig
from emovox.student.trainer import distillation_loss, join_processes
from emovox.student.training import train_epochs, train_student

Record = dict[str, Any]

CLOCK = {"seconds", "segments_per_second"}  # differ from run to run


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOVOX_CACHE", str(cache))


def learn(data: Path, out: Path, config: StudentTrainConfig = QUICK) -> list[Record]:
    return list(train_epochs(data / "dataset", data / "audio", out, config))


def timeless(records: list[Record]) -> list[Record]:
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in records]


def log_of(out: Path) -> list[Record]:
    lines = (out / "log.jsonl").read_text().splitlines()
    return timeless([json.loads(line) for line in lines])


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(out / "best.safetensors") for out in (one, other))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(scope="module")
def whole(student_data: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """An uninterrupted training of three epochs."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOVOX_CACHE", str(cache))
        torch.set_num_threads(1)
        learn(student_data, out, replace(QUICK, epochs=3))
    return out


# Losses


def naive_loss(student: list[float], teacher: list[float], config: StudentTrainConfig) -> float:
    """The paper's formulas for one segment, number by number."""
    pairs = list(zip(student, teacher, strict=True))
    if config.loss == "euclidean":
        return sum((s - t) ** 2 for s, t in pairs) / 2
    if config.loss == "huber":
        gaps = [abs(s - t) for s, t in pairs]
        return sum(g * g / 2 if g <= 1 else g - 0.5 for g in gaps)
    heat = config.temperature if config.loss == "cross-entropy" else 1.0
    powers = [np.exp(s / heat) for s in student]
    log_probabilities = [np.log(p / sum(powers)) for p in powers]
    if config.loss == "hard-label":
        return float(-log_probabilities[teacher.index(max(teacher))])
    wanted = [np.exp(t / heat) for t in teacher]
    return float(-sum(w / sum(wanted) * p for w, p in zip(wanted, log_probabilities, strict=True)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("temperature", [0.5, 2.0, 7.0])
def test_losses_equal_the_formulas(loss: str, temperature: float) -> None:
    config = StudentTrainConfig(loss=loss, temperature=temperature)
    student, teacher = torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0)) * 3
    found = distillation_loss(student, teacher, config)
    pairs = zip(student.tolist(), teacher.tolist(), strict=True)
    expected = [naive_loss(*pair, config) for pair in pairs]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_sum_reduction_is_batch_size_times_mean(student_data: Path, tmp_path: Path) -> None:
    """One step without momentum or decay moves the weights by the rate times the gradient."""
    plain = replace(QUICK, epochs=1, epoch_share=20 / 60, momentum=0.0, weight_decay=0.0)
    moves = []
    for reduction, rate in (("mean", 1e-2), ("sum", 1e-2 / 20), ("sum", 1e-2)):
        out = tmp_path / f"{reduction}{rate}"
        learn(student_data, out, replace(plain, reduction=reduction, learning_rate=rate))
        moves.append(torch.load(out / "last.pt", weights_only=True)["model"])
    mean, scaled, summed = (state["fc8.weight"] for state in moves)
    torch.testing.assert_close(mean, scaled, rtol=1e-4, atol=1e-7)
    assert (summed - mean).abs().max() > 1e-3


# Resuming


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_killed_training_resumes_to_the_same_weights(
    student_data: Path, tmp_path: Path, cache: Path, whole: Path, precision: str
) -> None:
    config = replace(QUICK, epochs=3, precision=precision)
    if precision != "fp32":
        whole = tmp_path / "whole"
        learn(student_data, whole, config)
    out = tmp_path / "killed"
    flags = {"precision": precision, "epochs": 3, "workers": 1}
    command = [sys.executable, "-m", "emovox", *command_line(student_data, out, tmp_path, **flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "EMOVOX_CACHE": str(cache)}
    process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / "last.pt").exists():
        time.sleep(0.02)
    time.sleep(0.3)  # during the second or third epoch
    process.kill()
    process.wait()
    done = torch.load(out / "last.pt", weights_only=True)["epoch"]
    records = learn(student_data, out, config)
    assert [record["epoch"] for record in records] == list(range(done, 3))
    assert log_of(out) == log_of(whole)
    assert_same_weights(out, whole)


def test_kill_between_log_and_resume_point(
    student_data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(QUICK, epochs=3)
    running = train_epochs(student_data / "dataset", student_data / "audio", tmp_path, config)
    next(running)

    def power_cut(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "replace_file", power_cut)
        next(running)
    assert len(log_of(tmp_path)) == 2
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 2, "train_')
    assert [record["epoch"] for record in learn(student_data, tmp_path, config)] == [1, 2]
    assert log_of(tmp_path) == log_of(whole)
    assert_same_weights(tmp_path, whole)
    assert learn(student_data, tmp_path, config) == [], "it is complete"


def test_workers_may_change_before_resuming(
    student_data: Path, tmp_path: Path, whole: Path
) -> None:
    config = replace(QUICK, epochs=3)
    more = replace(config, workers=2, compile="off", max_dropped=0.9)
    running = train_epochs(student_data / "dataset", student_data / "audio", tmp_path, more)
    next(running)
    running.close()
    learn(student_data, tmp_path, config)
    assert log_of(tmp_path) == log_of(whole)
    assert_same_weights(tmp_path, whole)


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x80\x02}q\x00."])
def test_damaged_resume_point_is_an_error(
    student_data: Path, tmp_path: Path, whole: Path, damage: bytes
) -> None:
    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "out/last.pt").write_bytes(damage)
    with pytest.raises(InputError, match=r"last.pt: damaged resume point \(.*remove it to start"):
        learn(student_data, tmp_path / "out", replace(QUICK, epochs=3))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 1}, "seed"), ({"epochs": 4}, "epochs"), ({"loss": "huber"}, "loss")],
)
def test_another_recipe_is_an_error(
    student_data: Path, whole: Path, change: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError, match=rf"another recipe.* \({word}\); choose another --out"):
        learn(student_data, whole, replace(QUICK, **{"epochs": 3, **change}))


def test_another_dataset_is_an_error(student_data: Path, tmp_path: Path, whole: Path) -> None:
    fewer = [u for u in utterances() if u.identity != "ide"]
    write_tables(tmp_path / "dataset", fewer)
    (tmp_path / "audio").symlink_to(student_data / "audio")
    with pytest.raises(ConfigError, match=r"\(frames_sha256, clips_sha256\)"):
        learn(tmp_path, whole, replace(QUICK, epochs=3))


def test_two_runs_do_not_share_a_folder(student_data: Path, tmp_path: Path) -> None:
    running = train_epochs(student_data / "dataset", student_data / "audio", tmp_path, QUICK)
    next(running)
    with pytest.raises(EmovoxError, match="another run is training there"):
        learn(student_data, tmp_path)
    running.close()
    assert len(learn(student_data, tmp_path)) == 1


# Log and checkpoints


def test_log_and_checkpoint_contents(student_data: Path, whole: Path) -> None:
    records = log_of(whole)
    assert [record["epoch"] for record in records] == [0, 1, 2]
    rates = [record["learning_rate"] for record in records]
    assert rates == pytest.approx(np.geomspace(0.02, 0.01, 3))
    training = json.loads(read_header(whole / "best.safetensors")["training"])
    best = min(records, key=lambda record: record["unheard_val_loss"])
    assert training.items() >= best.items()
    assert training["recipe"]["temperature"] == 2.0 and "device" not in training["recipe"]
    assert training["dataset"]["name"] == "tones"
    assert str(student_data) not in json.dumps(training) + (whole / "config.json").read_text()
    assert pq.read_table(whole / "dropped.parquet").num_rows == 0


def test_function_returns_all_epochs(student_data: Path, tmp_path: Path) -> None:
    data, audio, out = str(student_data / "dataset"), str(student_data / "audio"), str(tmp_path)
    running = train_epochs(data, audio, out, QUICK)
    first = next(running)
    running.close()
    new: list[Record] = []
    result = train_student(data, audio, out, QUICK, workers=1, on_epoch=new.append)
    assert [first, *new] == list(result.records) and len(new) == 1
    assert result.best == tmp_path / "best.safetensors" and result.best.is_file()
    assert list(result.to_pandas()["epoch"]) == [0, 1]
    lines: list[str] = []
    again = train_student(data, audio, out, QUICK, say=lines.append)
    assert again.records == result.records and "already complete" in lines[-1]


@pytest.mark.parametrize("choice", ["heard_val", "unheard_val", "last"])
def test_best_epoch(
    student_data: Path, tmp_path: Path, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"heard_val": [5.0, 1.0, 2.0, 3.0], "unheard_val": [5.0, 4.0, 1.5, 3.0]}
    expected = {"heard_val": 1, "unheard_val": 2, "last": 3}[choice]

    def planned(run: Any, segments: Any) -> float:
        split = {15: "heard_val", 60: "unheard_val"}[len(segments)]
        return losses[split][run.epoch]

    monkeypatch.setattr("emovox.student.trainer.Trainer.validate", planned)
    learn(student_data, tmp_path, replace(QUICK, epochs=4, epoch_share=0.1, choose_on=choice))
    assert json.loads(read_header(tmp_path / "best.safetensors")["training"])["epoch"] == expected


def test_missing_splits(student_data: Path, tmp_path: Path) -> None:
    (tmp_path / "audio").symlink_to(student_data / "audio")
    write_tables(tmp_path / "dataset", utterances(["train", "unheard_val"]))
    quick = replace(QUICK, epochs=1, epoch_share=0.1)
    with pytest.raises(ConfigError, match="split 'heard_val' not found; pass one of train"):
        learn(tmp_path, tmp_path / "out", replace(quick, choose_on="heard_val"))
    assert not (tmp_path / "out").exists()
    [record] = learn(tmp_path, tmp_path / "out", quick)
    assert "unheard_val_loss" in record and "heard_val_loss" not in record
    write_tables(tmp_path / "dataset", utterances(["train"]))
    [record] = learn(tmp_path, tmp_path / "out2", replace(quick, choose_on="last"))
    assert not any("val" in name for name in record)
    write_tables(tmp_path / "dataset", utterances(["unheard_val"]))
    with pytest.raises(ConfigError, match="split 'train' not found"):
        learn(tmp_path, tmp_path / "out3", quick)


def test_legacy_timing_requires_the_default_step(student_data: Path, tmp_path: Path) -> None:
    (tmp_path / "audio").symlink_to(student_data / "audio")
    write_tables(tmp_path / "dataset", utterances(), step_ms=200)
    with pytest.raises(ConfigError, match="timing 'legacy' requires a step of 240 ms"):
        learn(tmp_path, tmp_path / "out", replace(QUICK, timing="legacy"))


def test_divergence_is_an_error(student_data: Path, tmp_path: Path) -> None:
    with pytest.raises(EmovoxError, match=r"epoch 0: train_loss .* diverged; try a smaller"):
        learn(
            student_data,
            tmp_path,
            replace(QUICK, learning_rate=100.0, reduction="sum", loss="euclidean"),
        )


# Missing audio


def copied(student_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(student_data / "audio", tmp_path / "audio")
    (tmp_path / "dataset").symlink_to(student_data / "dataset")
    return tmp_path


def test_tracks_without_audio_are_dropped(student_data: Path, tmp_path: Path) -> None:
    data = copied(student_data, tmp_path)
    (data / "audio/idd/v/00001.wav").unlink()
    (data / "audio/ida/v/00003.wav").write_bytes(b"RIFF")
    lines: list[str] = []
    config = replace(QUICK, epochs=1)
    train_student(data / "dataset", data / "audio", tmp_path / "out", config, say=lines.append)
    rows = pq.read_table(tmp_path / "out/dropped.parquet").to_pylist()
    assert [(r["track_id"], r["error"]) for r in rows] == [
        ("idd/v/00001", "FileNotFound"),
        ("ida/v/00003", "Unreadable"),
    ]
    assert lines == [
        "train: 59 of 60 tracks have usable audio; dropped 1 x open: FileNotFound",
        "heard_val: 15 of 15 tracks have usable audio",
        "unheard_val: 59 of 60 tracks have usable audio; dropped 1 x open: Unreadable",
        "losses: of 1 s of a track; random in train, else its middle",
    ]


def test_too_many_tracks_without_audio(student_data: Path, tmp_path: Path) -> None:
    data = copied(student_data, tmp_path)
    for number in range(1, 5):
        (data / f"audio/idd/v/{number:05d}.wav").unlink()
    with pytest.raises(CheckError, match="4 of 60 tracks have no usable audio"):
        learn(data, tmp_path / "out")
    assert learn(data, tmp_path / "out", replace(QUICK, epochs=1, epoch_share=0.1, max_dropped=0.1))


def test_files_deleted_during_training_are_replaced_and_reported(
    student_data: Path, tmp_path: Path, whole: Path
) -> None:
    data = copied(student_data, tmp_path)
    out, config = tmp_path / "out", replace(QUICK, epochs=3, max_dropped=0.2)
    running = train_epochs(data / "dataset", data / "audio", out, config)
    first = next(running)
    (data / "audio/ide/v/00002.wav").unlink()
    (data / "audio/ida/v/00005.wav").unlink()
    records = [first, *running]
    assert [record["tracks_unreadable"] for record in records] == [0, 2, 2]
    assert log_of(out)[0] == log_of(whole)[0] and log_of(out)[1] != log_of(whole)[1]
    rows = pq.read_table(out / "dropped.parquet").to_pylist()
    assert {row["track_id"] for row in rows} == {"ide/v/00002", "ida/v/00005"}


def test_all_training_audio_deleted(student_data: Path, tmp_path: Path) -> None:
    data = copied(student_data, tmp_path)
    running = train_epochs(data / "dataset", data / "audio", tmp_path / "out", QUICK)
    next(running)
    shutil.rmtree(data / "audio/idd")
    shutil.rmtree(data / "audio/ide")
    shutil.rmtree(data / "audio/idf")
    with pytest.raises(
        EmovoxError, match=r"no track is readable any more, for example id[def]/v/000"
    ):
        next(running)


def test_all_validation_audio_deleted(student_data: Path, tmp_path: Path) -> None:
    data = copied(student_data, tmp_path)
    running = train_epochs(data / "dataset", data / "audio", tmp_path / "out", QUICK)
    next(running)
    for name in ("ida", "idb", "idc"):
        shutil.rmtree(data / "audio" / name)
    with pytest.raises(EmovoxError, match="no validation track is readable any more"):
        next(running)


def test_missing_folders_create_no_output(student_data: Path, tmp_path: Path) -> None:
    for dataset, audio in (("dataset", "none"), ("none", "audio")):
        with pytest.raises(InputError, match="folder not found"):
            train_student(student_data / dataset, student_data / audio, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


# Several processes


def command_line(data: Path, out: Path, folder: Path, **flags: Any) -> list[str]:
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f"seconds = 1.0\nepoch_share = 1.0\nvalidation_share = 1.0\nwidth = {QUICK.width}\n"
        f"last_learning_rate = {QUICK.last_learning_rate}\n"
    )
    values = {"batch_size": 20, "learning_rate": 0.02, "device": "cpu", "precision": "fp32"}
    values |= {"workers": 0, "epochs": 2, **flags}
    options = [word for k, v in values.items() for word in (f"--{k.replace('_', '-')}", v)]
    folders = ["--audio", str(data / "audio"), "--out", str(out)]
    return [
        "train-student",
        str(data / "dataset"),
        str(recipe),
        *folders,
        *(str(word) for word in options if word is not None),
    ]


def torchrun(arguments: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return subprocess.run(
        [sys.executable, *launcher, "emovox", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "EMOVOX_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_two_processes_train_like_one(student_data: Path, tmp_path: Path, cache: Path) -> None:
    config = replace(QUICK, learning_rate=1e-3)  # low: rounding errors grow tenfold per epoch
    learn(student_data, tmp_path / "one", config)
    out = tmp_path / "two"
    begun = train_epochs(student_data / "dataset", student_data / "audio", out, config)
    next(begun)
    begun.close()
    flags = {"learning_rate": config.learning_rate, "tensorboard": None}
    done = torchrun(command_line(student_data, out, tmp_path, **flags), cache)
    assert done.returncode == 0, done.stderr
    one, two = log_of(tmp_path / "one"), log_of(out)
    assert len(two) == 2
    (printed,) = timeless([json.loads(line) for line in done.stdout.splitlines()])
    assert printed == pytest.approx(two[1], rel=1e-5)  # six digits
    assert done.stderr.count("60 of 60 tracks have usable audio") == 2, "for two splits, once"
    assert len(list((out / "tensorboard").iterdir())) == 1
    for before, after in zip(one, two, strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert after[name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.slow
def test_batch_size_must_be_a_multiple_of_the_processes(
    student_data: Path, tmp_path: Path, cache: Path
) -> None:
    done = torchrun(command_line(student_data, tmp_path / "o", tmp_path, batch_size=5), cache)
    assert done.returncode != 0
    assert "batch_size 5 is not a multiple of 2 processes" in done.stderr
    assert done.stderr.count("Traceback") == 1, "from the launcher only"


@pytest.mark.slow
def test_error_of_the_main_process_ends_all(
    student_data: Path, tmp_path: Path, cache: Path
) -> None:
    data = copied(student_data, tmp_path)
    shutil.rmtree(data / "audio/ide")
    started = time.perf_counter()
    done = torchrun(command_line(data, tmp_path / "out", tmp_path), cache)
    assert done.returncode != 0 and time.perf_counter() - started < 60
    assert "20 of 60 tracks have no usable audio" in done.stderr


def test_end_of_another_process_is_named_whatever_error_follows() -> None:
    with (
        pytest.raises(EmovoxError, match="another process of this training"),
        join_processes("cpu"),
    ):
        try:
            raise RuntimeError("gloo: Connection reset by peer")
        finally:
            raise RuntimeError("unrelated")
    with pytest.raises(RuntimeError, match="a bug"), join_processes("cpu"):
        raise RuntimeError("a bug")


@pytest.mark.slow
def test_killed_process_ends_the_training_in_one_line(
    student_data: Path, tmp_path: Path, cache: Path
) -> None:
    arguments = command_line(student_data, tmp_path / "out", tmp_path, epochs=500, workers=1)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    with subprocess.Popen(
        [sys.executable, *launcher, "emovox", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "EMOVOX_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stdout is not None
        training.stdout.readline()  # the first epoch
        ranks = [p for p in psutil.Process(training.pid).children() if "emovox" in p.cmdline()]
        ranks[-1].kill()
        _, err = training.communicate(timeout=90)
    ours = [line for line in err.splitlines() if line.startswith("emovox: ")]
    assert len(ours) == 1 and ("another process" in ours[0] or "interrupted" in ours[0])
    assert err.count("Traceback") == 1, f"from the launcher only: {err}"


# The command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_command(student_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command_line(student_data, out, tmp_path, epochs=1, max_dropped=0.5)
    result = run(*arguments)
    assert result.exit_code == 0 and json.loads(result.stdout)["epoch"] == 0
    assert "train: 60 of 60 tracks have usable audio" in result.stderr
    again = run(*arguments)
    assert again.exit_code == 0 and not again.stdout
    assert "best.safetensors: training is already complete" in again.stderr
    wrong = [a.replace(str(student_data / "audio"), str(tmp_path / "none")) for a in arguments]
    result = run(*wrong)
    assert result.exit_code == 2 and "pass the folder of the tracks' audio" in result.stderr


def test_exit_codes(student_data: Path, tmp_path: Path) -> None:
    data = copied(student_data, tmp_path)
    shutil.rmtree(data / "audio/idd")
    result = run(*command_line(data, tmp_path / "out", tmp_path))
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "20 of 60 tracks have no usable audio" in result.stderr
    shutil.rmtree(data / "audio")
    (data / "audio").mkdir()
    result = run(*command_line(data, tmp_path / "out", tmp_path, max_dropped=1.0))
    assert result.exit_code == 1 and "60 of 60 tracks" in result.stderr


def test_tensorboard(student_data: Path, tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(name, reason="needs the extra tensorboard")
    arguments = command_line(student_data, tmp_path / "out", tmp_path)
    assert run(*arguments, "--tensorboard").exit_code == 0
    events = reader.EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("train_loss")]
    assert shown == pytest.approx([r["train_loss"] for r in log_of(tmp_path / "out")])
    assert [event.step for event in events.Scalars("unheard_val_loss")] == [0, 1]


def test_missing_tensorboard_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'emovox\[tensorboard\]'"):
        runs.tensorboard_writer(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rat = 1", "unknown key 'learning_rat'; valid keys: width, conv3"),
        ("epochs = 0", "epochs 0: must be 1 to"),
        ("epochs = 1.5", "epochs: expected int"),
        ("width = 0.01", "width 0.01: must be 0.0625 to 4"),
        ("seconds = 20", "seconds 20.0: must be 1 to 10"),
        ("batch_size = 1", "batch_size 1: must be 2 to"),
        ("temperature = nan", "temperature nan: must be"),
        ("loss = 'l1'", "loss 'l1' is not one of cross-entropy, euclidean, huber, hard-label"),
        ("pool = 'min'", "pool 'min' is not one of max, mean, peak"),
        ("reduction = 'none'", "reduction 'none' is not one of mean, sum"),
        ("choose_on = 'train'", "choose_on 'train' is not one of unheard_val, heard_val, last"),
        ("device = 'tpu'", "device 'tpu' is not one of"),
        ("precision = 'fp16'", "precision 'fp16' is not one of"),
        ("compile = 'maybe'", "compile 'maybe' is not one of"),
    ],
)
def test_invalid_recipes_are_errors(
    student_data: Path, tmp_path: Path, text: str, words: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    folders = ["--audio", student_data / "audio", "--out", tmp_path / "out"]
    result = run("train-student", student_data / "dataset", recipe, *folders)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_shows_the_defaults() -> None:
    text = " ".join(run("train-student", "--help").stdout.split())
    for name in ("epochs", "batch_size", "seed", "workers", "max_dropped", "choose_on"):
        assert f"[default: {getattr(StudentTrainConfig(), name)}]" in text
    assert f"[default: {StudentTrainConfig().learning_rate:.4f}]" in text
    assert read_config(StudentTrainConfig) == StudentTrainConfig()
