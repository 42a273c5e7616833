"""The core installation: commands without media and networks work without their packages."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_matfile import write
from test_published import PERSONS, annotations, utterance
from validation_fixtures import write_valid

import emovox
from emovox import packages
from emovox.cli import main
from emovox.errors import ConfigError, MissingPackageError

REPOSITORY = Path(__file__).parents[1]
NEEDED = r"{command}: \S+ is not installed; run: pip install 'emovox\[build\]'\n"

# Code for a process that cannot import the packages of any extra.
WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {modules}:
            return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
{code}
"""
# Runs commands in that process, and prints a line of JSON for each.
RUN = """
import json
from click.testing import CliRunner
from emovox.cli import main
for line in sys.argv[1:]:
    found = CliRunner().invoke(main, line.split())
    error = found.exception
    unexpected = None if error is None or isinstance(error, SystemExit) else repr(error)
    print(json.dumps([found.exit_code, found.stdout, found.stderr, unexpected]))
"""
# Prints the message of each public name that is unavailable.
NAMES = """
import json
import emovox
missing = {}
for name in emovox.__all__:
    try:
        getattr(emovox, name)
    except ImportError as error:
        missing[name] = str(error)
print(json.dumps(missing))
"""


@dataclass(frozen=True)
class Done:
    """Result of a command; `unexpected` is an exception that would print a traceback."""

    exit_code: int
    stdout: str
    stderr: str
    unexpected: str | None


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code as if only the core were installed."""
    modules = sorted(module for extra in packages.EXTRAS.values() for module in extra)
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(modules=modules, code=code), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "EMOVOX_CACHE": str(cwd / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
    )


def run(commands: Sequence[str], cwd: Path) -> dict[str, Done]:
    """Run commands of emovox as if only the core were installed."""
    done = python(RUN, *commands, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {
        command: Done(*json.loads(line))
        for command, line in zip(commands, done.stdout.splitlines(), strict=True)
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a valid dataset, `dataset`, and a file of published annotations, `file.mat`."""
    folder = tmp_path_factory.mktemp("core")
    write_valid(folder)
    names = "".join(f"{identity}\t{name}\n" for name, identity in PERSONS.items())
    (folder / "vox1_meta.csv").write_text(f"VoxCeleb1 ID\tVGGFace1 ID\n{names}", encoding="utf-8")
    utterances = [utterance(f"{name}/x/video_{k:07d}.wav", 5, k) for k, name in enumerate(PERSONS)]
    write(folder / "file.mat", "7.3", annotations(utterances))
    shutil.copy(folder / "file.mat", folder / "senet50-ferplus-logits.mat")
    return folder


CORE = [
    "--help",
    "--version",
    "schema",
    "validate dataset --format json",
    "card dataset",
    "card dataset --check",
    "hash-identity id10001",
    "diff dataset dataset",
    "show dataset id10001/video0001/00001",
    "select dataset --cap 1 --out selected",
    "release dataset --version 2.0.0 --out released",
    "report dataset --out page.html --figures figures",
    "import-mat file.mat --meta . --out imported --hdf5",
    "download annotations --name senet50-ferplus-logits.mat --from . --out fetched",
]
OTHERS = [
    "demo --out demo",
    "build-dataset --layout folder --root . --out built",
    "embed dataset --root .",
    "check-corpus .",
    "train-teacher --data . --out run",
    "evaluate-teacher --data .",
    "train-student dataset --audio . --out run",
    "pack-sound dataset --audio . --out sound",
    "train-fusion dataset --targets labels --fusion video --out run",
    "evaluate-fusion run dataset --targets labels",
    "export dataset --audio . --out sound",
    "evaluate checkpoint dataset --audio .",
    "probe egemaps .",
    "predict file.mat --student emovoxceleb",
    "report dataset --media . --out media.html",
]


def test_commands_of_the_core_work(place: Path) -> None:
    for command, done in run(CORE, place).items():
        assert done.exit_code == 0 and done.unexpected is None, f"{command}: {done}"
        assert done.stdout, command
    for name in ("released/manifest.json", "page.html", "figures/figure-4.png", "imported/hdf5"):
        assert (place / name).exists(), name


def test_other_commands_give_one_line(place: Path) -> None:
    before = sorted(place.rglob("*"))
    for command, done in run(OTHERS, place).items():
        subject = "--media" if "--media" in command else command.split()[0]
        assert re.fullmatch("emovox: error: " + NEEDED.format(command=subject), done.stderr), done
        assert done.exit_code == 2 and not done.stdout and done.unexpected is None, command
    assert sorted(place.rglob("*")) == before, "nothing is written"


def test_every_command_is_in_one_list() -> None:
    named = {words.split()[0] for words in [*CORE, *OTHERS]}
    assert named == {"--help", "--version", *main.commands}


def test_load_works_in_the_core(place: Path) -> None:
    code = "import emovox; print(emovox.load('dataset').logits('id10001/video0001/00001').shape)"
    done = python(code, cwd=place)
    assert done.stdout == "(6, 8)\n", done.stderr


def test_other_functions_give_the_missing_extra(place: Path) -> None:
    done = python(NAMES, cwd=place)
    assert done.returncode == 0, done.stderr
    missing = json.loads(done.stdout)
    for name, message in missing.items():
        assert re.fullmatch(NEEDED.format(command=f"emovox.{name}"), message + "\n"), message
    assert {"build_dataset", "predict", "spectrogram", "train_student"} <= set(missing)
    core = {
        "load",
        "validate",
        "show",
        "select",
        "diff",
        "release",
        "report",
        "import_mat",
        "download",
    }
    assert not (core | {"audio_path", "hash_identity", "BuildConfig"}) & set(missing)
    done = python("import emovox; emovox.load_teacher('compact')", cwd=place)
    last = done.stderr.splitlines()[-1] + "\n"
    assert re.search(NEEDED.format(command="load_teacher"), last), done.stderr
    done = python("import emovox; emovox.load('dataset').to_pandas()", cwd=place)
    assert "pandas is not installed; run: pip install " in done.stderr.splitlines()[-1]


def test_a_missing_package_is_an_import_error_and_a_usage_error() -> None:
    assert issubclass(MissingPackageError, ImportError) and issubclass(
        MissingPackageError, ConfigError
    )
    with (
        pytest.raises(MissingPackageError, match=r"^x: ray is not installed; run: pip install"),
        packages.explained("x"),
    ):
        raise ModuleNotFoundError("No module named 'ray.nothing'", name="ray.nothing")


def test_other_missing_modules_are_bugs() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match=r"emovox\.nothing") as caught,
        packages.explained("x"),
    ):
        raise ModuleNotFoundError("No module named 'emovox.nothing'", name="emovox.nothing")
    assert not isinstance(caught.value, MissingPackageError)


def test_extras_are_those_of_pyproject() -> None:
    """`packages.EXTRAS` has the requirements of each extra."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for extra, modules in packages.EXTRAS.items():
        required = project["optional-dependencies"][extra]
        names = {re.split(r"[<>=!~;\[ ]", requirement)[0] for requirement in required}
        assert set(modules.values()) == names, extra


def test_every_upper_bound_has_a_reason() -> None:
    lines = (REPOSITORY / "pyproject.toml").read_text().splitlines()
    bounded = [n for n, line in enumerate(lines) if re.match(r'\s+"[\w\[\]-]+(==|<|~=|.*,<)', line)]
    assert len(bounded) == 1, "facenet-pytorch alone"
    assert all(lines[n - 1].strip().startswith("#") for n in bounded)


def test_versions_are_those_of_the_installed_distributions() -> None:
    import numpy as np

    found = packages.software("numpy", "no-such-distribution")
    assert found["emovox"]["version"] == emovox.__version__
    assert found["libraries"]["numpy"] == np.__version__
    assert found["libraries"]["no-such-distribution"] is None


def test_the_citation_has_the_version() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(emovox.__version__)}$", citation, re.MULTILINE)
