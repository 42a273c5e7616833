"""The command line as a user meets it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from emovox.cli import main
from emovox.dataset import schema
from emovox.testing import write_clip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for name in ("a/x/1", "a/x/2", "b/y/1"):
        write_clip(root / f"mp4/{name}.mp4", 30)
    return root


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in main.commands:
        assert command in result.stdout
        assert run(command, "--help").exit_code == 0


def test_help_is_quick() -> None:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "emovox", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


def test_options_are_the_keys_of_a_pipeline() -> None:
    import dataclasses

    from emovox.labelling.build_config import BuildConfig

    options = {p.name for p in main.commands["build-dataset"].params} - {"recipe"}
    assert options == {field.name for field in dataclasses.fields(BuildConfig)}


def test_build_from_a_pipeline_file(corpus: Path, tmp_path: Path, in_process: None) -> None:
    toml = tmp_path / "p.toml"
    toml.write_text('layout = "voxceleb2"\nhdf5 = true\njobs = 1\nversion = "2.0.0"\n')
    out = tmp_path / "out"
    result = run("build-dataset", toml, "--root", corpus, "--out", out)
    assert result.exit_code == 0
    assert "3 written, 0 dropped" in result.stdout
    assert "crops/s" in result.stdout and "bound by" in result.stdout
    assert list((out / "hdf5").iterdir())
    again = run("build-dataset", toml, "--root", corpus, "--out", out)
    assert again.exit_code == 0 and " 0 built" in again.stdout


def test_dropped_tracks_make_the_exit_code(tmp_path: Path, in_process: None) -> None:
    write_clip(tmp_path / "root/mp4/a/x/1.mp4", 7)
    (tmp_path / "root/mp4/a/x/2.mp4").write_text("no video")
    arguments = ["--layout", "voxceleb2", "--root", tmp_path / "root", "--out", tmp_path / "out"]
    result = run("build-dataset", *arguments, "--jobs", 1)
    assert result.exit_code == 1
    assert "1 x open: InvalidData" in result.stdout
    assert "--max-dropped" in result.stderr
    assert run("build-dataset", *arguments, "--max-dropped", 0.5).exit_code == 0
    assert pq.read_table(tmp_path / "out" / schema.DROPPED_FILE).num_rows == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layout", "nonsense", "--root", "."], "'nonsense' is not one of 'voxceleb2'"),
        (["--layout", "voxceleb2", "--root", "missing"], "missing: no such folder"),
        (["--root", "."], "missing --layout"),
        (["--layout", "voxceleb2", "--root", ".", "--teacher", "x"], "nor one of compact"),
        (["--layout", "folder", "--root", ".", "--jobs", "-1"], "jobs -1: must be at least 0"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("build-dataset", *arguments, "--out", "out")
    assert result.exit_code == 2
    assert words in result.stderr.replace("neither a file nor one", "nor one")
    assert result.stderr.startswith("emovox: error: ") and result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.mark.parametrize("option", ["--root", "--splits", "--teacher", "--out"])
def test_name_that_the_system_refuses_is_one_line(
    option: str, corpus: Path, tmp_path: Path
) -> None:
    options = {"--layout": "voxceleb2", "--root": corpus, "--out": tmp_path / "out", "--jobs": 1}
    options |= {option: "a" * 300}
    result = run("build-dataset", *(word for pair in options.items() for word in pair))
    assert result.exit_code in (1, 2)
    # From Python 3.14 on, pathlib says of such a name that nothing is there.
    reasons = "File name too long" + "|no such |neither a file" * (sys.version_info >= (3, 14))
    assert re.search(reasons, result.stderr)
    assert result.stderr.count("\n") == 1


def test_schema_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("schema", "--out", tmp_path / "file" / "folder")
    assert result.exit_code == 2
    assert "Not a directory" in result.stderr and result.stderr.count("\n") == 1


def test_checkpoint_that_is_none(corpus: Path, tmp_path: Path, in_process: None) -> None:
    fake = tmp_path / "teacher.safetensors"
    fake.write_text("<html>404</html>")
    arguments = ["--layout", "voxceleb2", "--root", corpus, "--out", tmp_path / "out"]
    result = run("build-dataset", *arguments, "--teacher", fake)
    assert result.exit_code == 2 and "not a safetensors file" in result.stderr


def test_leak_is_exit_1(corpus: Path, tmp_path: Path) -> None:
    splits = tmp_path / "s.csv"
    splits.write_text("track_id,split\na/x/00001,train\na/x/00002,unheard_val\nb/y/00001,train\n")
    arguments = ["--layout", "voxceleb2", "--root", corpus, "--out", tmp_path / "out"]
    result = run("build-dataset", *arguments, "--splits", splits)
    assert result.exit_code == 1 and "the split leaks" in result.stderr


def is_worker(process: psutil.Process) -> bool:
    try:
        return any("popen_loky" in word for word in process.cmdline())
    except psutil.Error:
        return False


def test_workers_do_not_outlive_a_killed_driver(corpus: Path, tmp_path: Path) -> None:
    arguments = ["--layout", "voxceleb2", "--root", str(corpus), "--jobs", "1"]
    command = [sys.executable, "-m", "emovox", "build-dataset", *arguments]
    process = psutil.Popen([*command, "--out", str(tmp_path / "out")], stdout=subprocess.DEVNULL)
    workers: list[psutil.Process] = []
    while process.poll() is None and not workers:
        workers = [child for child in process.children() if is_worker(child)]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert workers and not alive


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_ctrl_c_leaves_a_state_to_go_on_from(
    tmp_path: Path, in_process: None, number: signal.Signals
) -> None:
    for k in range(15):
        write_clip(tmp_path / f"root/mp4/a/x/{k}.mp4", 50)
    arguments = ["build-dataset", "--layout", "voxceleb2", "--root", str(tmp_path / "root")]
    arguments += ["--out", str(tmp_path / "out"), "--jobs", "1", "--shard-tracks", "1"]
    command = [sys.executable, "-m", "emovox", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "out/.emovox"
    while not list(state.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "rerun the same command to resume" in errors
    assert "Traceback" not in errors and output == ""
    num_done = len(list(state.glob("*.json")))
    assert 1 <= num_done < 15
    result = run(*arguments)
    assert result.exit_code == 0
    assert f", {num_done} reused" in result.stdout or f", {num_done + 1} reused" in result.stdout
