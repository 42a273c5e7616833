"""The rooms of the package, and the direction of imports between them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import emovox

PACKAGE = Path(emovox.__file__).parent

# A module imports only from its own subpackage and from those on the lines above it.
SUBPACKAGES = [
    {"errors", "emotions"},
    {"ids", "packages"},
    {"paths"},
    {"cache", "config", "devices", "files", "matfile"},
    {"dagnn", "networks", "registry"},
    {"dataset"},
    {"checkpoints", "runs"},
    {"downloads", "media"},
    {"corpus"},
    {"teacher"},
    {"labelling"},
    {"validation"},
    {"comparison"},
    {"publishing"},
    {"student"},
    {"probing"},
    {"reporting"},
    {"demo", "testing", "cli", "__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(SUBPACKAGES) for name in names}

HEAVY = {"torch", "pyarrow", "av", "cv2", "numpy", "scipy", "matplotlib", "duckdb", "joblib"}


def imports_of(source: str) -> set[str]:
    """Every emovox room that a module's code names in an import, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
            if node.module == "emovox":
                names = [f"emovox.{alias.name}" for alias in node.names]
                names = [name for name in names if name != "emovox.__version__"]
        rooms |= {name.split(".")[1] for name in names if name.startswith("emovox.")}
    return rooms


def wrong_imports(room: str, source: str) -> set[str]:
    return {other for other in imports_of(source) if other != room and LEVEL[other] >= LEVEL[room]}


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_the_floor(module: str) -> None:
    room = module.split("/")[0].removesuffix(".py")
    assert room in LEVEL, f"{room} is in no room"
    if LEVEL[room] == len(SUBPACKAGES) - 1:
        return  # what stands on top may use everything
    assert not wrong_imports(room, (PACKAGE / module).read_text(encoding="utf-8"))


def test_the_check_sees_a_wrong_import() -> None:
    assert wrong_imports("corpus", "def f():\n    from emovox.labelling.run import x\n") == {
        "build"
    }
    assert wrong_imports("media", "import emovox.corpus.tracks") == {"corpus"}
    assert not wrong_imports("labelling", "from emovox.corpus.tracks import Track")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, emovox, emovox.cli; from click.testing import CliRunner;"
        "assert CliRunner().invoke(emovox.cli.main, ['--help']).exit_code == 0;"
        "print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(result.stdout.split())


def test_public_names_are_there() -> None:
    pytest.importorskip("torch", reason="needs the extra build")
    for name in emovox.__all__:
        assert getattr(emovox, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = emovox.nonsense  # type: ignore[attr-defined]
