"""The command line as a user meets it."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from test_architecture import HEAVY

from emovox.cli import _explain, main
from emovox.dataset import schema
from emovox.labelling.build_config import BuildConfig
from emovox.probing.probe_config import ProbeConfig
from emovox.reporting.report_config import ReportConfig
from emovox.student.student_config import EvaluateConfig, PredictConfig
from emovox.teacher.teacher_config import TeacherEvaluateConfig
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


def test_short_helps_are_complete() -> None:
    """Click ends a first sentence that does not fit into the list with dots."""
    lines = run("--help").stdout.partition("Commands:\n")[2].splitlines()
    assert len(lines) == len(main.commands)
    assert all(line.endswith(".") and not line.endswith("..") for line in lines), lines


def test_every_option_has_a_help() -> None:
    for command in main.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (command.name, parameter.name)
                assert "`" not in parameter.help


def test_help_is_quick(tmp_path: Path) -> None:
    """CPU time beside that of click; the first run compiles the modules, as installing does."""
    resource = pytest.importorskip("resource", reason="needs a POSIX system")
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return float(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    rounds = [(seconds("-m", "emovox", "--help"), seconds("-c", "import click")) for _ in range(5)]
    ours, of_click = map(min, zip(*rounds, strict=True))
    assert ours < 5 * of_click, rounds


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from emovox.cli import main\n"
        "for name in main.commands:\n"
        "    assert CliRunner().invoke(main, [name, '--help']).exit_code == 0, name\n"
        "print(*sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not (HEAVY | {"requests", "jinja2", "h5py", "tqdm"}) & set(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        ("build-dataset", [BuildConfig]),
        ("evaluate-teacher", [TeacherEvaluateConfig]),
        ("evaluate", [EvaluateConfig]),
        ("predict", [PredictConfig]),
        ("probe", [ProbeConfig]),
        ("report", [ReportConfig]),
    ],
)
def test_every_field_of_a_config_is_an_option(command: str, kinds: list[type]) -> None:
    options = {parameter.name for parameter in main.commands[command].params}
    assert {f.name for kind in kinds for f in dataclasses.fields(kind)} <= options


def test_options_show_default_choices_and_help_of_their_field() -> None:
    text = " ".join(run("build-dataset", "--help").stdout.split())
    for words in (
        "--engine [joblib|ray] Engine that runs the shards",
        "[default: joblib]",
        "--step-ms INTEGER Milliseconds between grid points. [default: 240]",
        "[default: OUT/.emovox]",
        "Number of worker processes. [default: one per core]",
        "--hdf5 / --no-hdf5",
        "Folder of the corpus, or its URL. [required]",
    ):
        assert words in text
    text = " ".join(run("train-teacher", "--help").stdout.split())
    assert "May be repeated." in text and "[default: 0.5]" in text and "[default: ]" not in text


def test_a_default_does_not_override_a_recipe(
    corpus: Path, tmp_path: Path, in_process: None
) -> None:
    toml = tmp_path / "p.toml"
    toml.write_text('layout = "voxceleb2"\nstep_ms = 480\n')
    assert run("build-dataset", toml, "--root", corpus, "--out", tmp_path / "out").exit_code == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text())["step_ms"] == 480


def test_an_unknown_recipe_lists_the_installed_ones(tmp_path: Path) -> None:
    result = run("build-dataset", "voxceleb3", "--root", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "voxceleb3: neither a recipe file nor one of demo, " in result.stderr
    assert re.search(r"; did you mean voxceleb[12]\?", result.stderr)


def test_a_recipe_is_found_by_name_in_any_folder(
    corpus: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("build-dataset", "voxceleb2", "--root", corpus, "--out", "out")
    assert result.exit_code == 0 and "3 written, 0 dropped" in result.stdout


def test_build_from_a_recipe(corpus: Path, tmp_path: Path, in_process: None) -> None:
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


def test_a_limit_labels_the_first_tracks_and_a_later_run_the_rest(
    corpus: Path, tmp_path: Path, in_process: None
) -> None:
    arguments = ["--layout", "voxceleb2", "--root", corpus, "--out", tmp_path / "out", "--jobs", 1]
    first = run("build-dataset", *arguments, "--limit", 2)
    assert first.exit_code == 0 and "2 written, 0 dropped" in first.stdout
    assert "1 tracks were left out by the limit of 2" in first.stdout
    every = run("build-dataset", *arguments)
    assert "3 written, 0 dropped" in every.stdout and " 1 built, 2 reused" in every.stdout


def test_a_dry_run_says_what_is_left_and_writes_nothing(
    corpus: Path, tmp_path: Path, in_process: None
) -> None:
    arguments = ["--layout", "voxceleb2", "--root", corpus, "--out", tmp_path / "out", "--jobs", 1]
    first = run("build-dataset", *arguments, "--dry-run")
    assert "3 to label, 0 finished" in first.stdout and "unknown" in first.stdout
    assert not (tmp_path / "out").exists()
    run("build-dataset", *arguments, "--limit", 2)
    markers = [p for p in (tmp_path / "out/.emovox").glob("*.json") if p.name != "finished.json"]
    reports = [json.loads(path.read_text()) for path in markers]
    spent = sum(report["media_seconds"] + report["wait_seconds"] for report in reports)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = run("build-dataset", *arguments, "--dry-run")
    assert "1 to label, 2 finished" in again.stdout
    assert f"at the {spent / 2:.2f} s per track" in again.stdout, "the teacher's time counts once"
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    other = run("build-dataset", *arguments, "--step-ms", 480, "--dry-run")
    assert other.exit_code == 2 and "would change the dataset" in other.stderr


def test_quiet_shows_no_progress(
    corpus: Path,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("emovox.labelling.run.LOG_SECONDS", 0.0)
    for flags, shown in (([], True), (["--quiet"], False)):
        arguments = ["--layout", "voxceleb2", "--root", str(corpus), "--jobs", "1", *flags]
        out = str(tmp_path / f"out{shown}")
        main(["build-dataset", *arguments, "--out", out], standalone_mode=False)
        found = capsys.readouterr()
        assert "3 written" in found.out and ("3 of 3 tracks" in found.err) == shown
        assert shown or not found.err


def test_too_many_dropped_tracks_give_exit_code_1(tmp_path: Path, in_process: None) -> None:
    write_clip(tmp_path / "root/mp4/a/x/1.mp4", 7)
    (tmp_path / "root/mp4/a/x/2.mp4").write_text("no video")
    arguments = ["--layout", "voxceleb2", "--root", tmp_path / "root", "--out", tmp_path / "out"]
    result = run("build-dataset", *arguments, "--jobs", 1)
    assert result.exit_code == 1
    assert "1 x open: InvalidData" in result.stdout
    assert "          mp4/a/x/2.mp4: Invalid data found" in result.stdout, "the first files by name"
    assert "the dataset is complete, but" in result.stderr and "--max-dropped" in result.stderr
    assert run("build-dataset", *arguments, "--max-dropped", 0.5).exit_code == 0
    assert pq.read_table(tmp_path / "out" / schema.DROPPED_FILE).num_rows == 1


def test_an_unknown_command_gives_one_line() -> None:
    result = run("nonsense")
    assert result.exit_code == 2
    assert result.stderr == "emovox: error: No such command 'nonsense'; see 'emovox --help'\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layout", "nonsense", "--root", "."], "'nonsense' is not one of voxceleb2,"),
        (["--layout", "foldr", "--root", "."], "; did you mean folder?"),
        (["--layout", "voxceleb2", "--root", "missing"], "missing: no such folder"),
        (["--root", "."], "missing options: --layout"),
        (["--layout", "voxceleb2", "--root", ".", "--teacher", "x"], "nor one of compact"),
        (["--layout", "folder", "--root", ".", "--jobs", "-1"], "jobs -1: must be at least 0"),
    ],
)
def test_wrong_usage_gives_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("build-dataset", *arguments, "--out", "out")
    assert result.exit_code == 2
    assert words in result.stderr.replace("neither a file nor one", "nor one")
    assert result.stderr.startswith("emovox: error: ") and result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.mark.parametrize("option", ["--root", "--splits", "--teacher", "--out"])
def test_names_that_the_system_refuses_give_one_line(
    option: str, corpus: Path, tmp_path: Path
) -> None:
    options = {"--layout": "voxceleb2", "--root": corpus, "--out": tmp_path / "out", "--jobs": 1}
    options |= {option: "a" * 300}
    result = run("build-dataset", *(word for pair in options.items() for word in pair))
    assert result.exit_code in (1, 2)
    # From Python 3.14 on, pathlib reports such a name as missing.
    reasons = "File name too long" + "|no such |neither a file" * (sys.version_info >= (3, 14))
    assert re.search(reasons, result.stderr)
    assert result.stderr.count("\n") == 1


def test_an_unwritable_schema_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("schema", "--out", tmp_path / "file" / "folder")
    assert result.exit_code == 2
    assert "Not a directory" in result.stderr and result.stderr.count("\n") == 1


def test_an_invalid_checkpoint_gives_exit_code_2(
    corpus: Path, tmp_path: Path, in_process: None
) -> None:
    fake = tmp_path / "teacher.safetensors"
    fake.write_text("<html>404</html>")
    arguments = ["--layout", "voxceleb2", "--root", corpus, "--out", tmp_path / "out"]
    result = run("build-dataset", *arguments, "--teacher", fake)
    assert result.exit_code == 2 and "not a safetensors file" in result.stderr


def test_a_leaking_split_gives_exit_code_1(corpus: Path, tmp_path: Path) -> None:
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
def test_ctrl_c_leaves_a_resumable_state(
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
    assert "interrupted; rerun the same command" in errors
    assert "Traceback" not in errors and output == ""
    num_done = len(list(state.glob("*.json")))
    assert 1 <= num_done < 15
    result = run(*arguments)
    assert result.exit_code == 0
    assert f", {num_done} reused" in result.stdout or f", {num_done + 1} reused" in result.stdout


def test_short_memory_is_one_line() -> None:
    """A limit of memory stops torch from loading, or a process from starting a thread."""
    library = "libtorch_cpu.so: failed to map segment from shared object"
    errors = (ImportError(library), MemoryError(), OSError(12, "Cannot allocate memory"))
    for error in (*errors, RuntimeError("can't start new thread")):
        explained = _explain(error, "predict")
        assert explained is not None
        assert explained[0].startswith("memory is short: ") and explained[1] == 1
    assert _explain(RuntimeError("a bug"), "predict") is None
