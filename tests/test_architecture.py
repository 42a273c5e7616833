"""Subpackages, their names, and the direction of imports between them."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import emovox

PACKAGE = Path(emovox.__file__).parent

# A module imports only from its own subpackage and from those on the lines above it.
SUBPACKAGES = [
    {"errors", "limits"},
    {"emotions", "ids", "packages"},
    {"paths"},
    {"files"},
    {"config", "devices", "matfile", "scores"},
    {"charts", "registry"},
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
    {"fusion", "probing"},
    {"reporting"},
    {"demo", "testing", "cli", "__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(SUBPACKAGES) for name in names}
# Allowed by their order, but these read datasets and do not need what builds them.
NEVER = {name: {"media", "teacher", "labelling"} for name in ("validation", "comparison")}
NEVER["publishing"] = {"media", "teacher", "labelling"}

# Names that several modules share, because each says in its subpackage what it is.
SHARED_NAMES = {"__init__", "evaluation", "inference", "training"}

HEAVY = {"torch", "pyarrow", "av", "cv2", "numpy", "scipy", "matplotlib", "duckdb", "joblib"}


def imports_of(source: str) -> set[str]:
    """Return every name that a module imports from emovox, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("emovox.") and name != "emovox.__version__"}


def wrong_imports(subpackage: str, source: str) -> set[str]:
    """Return the subpackages that `subpackage` must not import, but does."""
    imported = {name.split(".")[1] for name in imports_of(source)} - {subpackage}
    below = {other for other in imported if LEVEL[other] < LEVEL[subpackage]}
    return imported - below | imported & NEVER.get(subpackage, set())


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    subpackage = module.split("/")[0].removesuffix(".py")
    assert subpackage in LEVEL, f"{subpackage} is not in SUBPACKAGES"
    if LEVEL[subpackage] == len(SUBPACKAGES) - 1:
        return  # the top level may import everything
    assert not wrong_imports(subpackage, (PACKAGE / module).read_text(encoding="utf-8"))


def test_wrong_imports_are_detected() -> None:
    inside = "def f():\n    from emovox.labelling.run import x\n"
    assert wrong_imports("corpus", inside) == {"labelling"}
    assert wrong_imports("publishing", inside) == {"labelling"}
    assert wrong_imports("media", "import emovox.corpus.tracks") == {"corpus"}
    assert wrong_imports("dataset", "from emovox import corpus") == {"corpus"}
    assert not wrong_imports("labelling", "from emovox.corpus.tracks import Track")


def import_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes that no order of a graph can place before their users; [] without cycles."""
    graph = dict(graph)
    while free := [node for node, needs in graph.items() if not needs & set(graph)]:
        for node in free:
            del graph[node]
    return sorted(graph)


def test_modules_import_each_other_in_no_circle() -> None:
    names = {
        ".".join(("emovox", *Path(module).with_suffix("").parts)).removesuffix(".__init__"): module
        for module in MODULES
        if module != "__init__.py"  # its names are loaded on first use
    }
    graph = {}
    for name, module in names.items():
        imported = imports_of((PACKAGE / module).read_text(encoding="utf-8"))
        modules = {each if each in names else each.rpartition(".")[0] for each in imported}
        graph[name] = modules & set(names) - {name}
    assert sum(map(len, graph.values())) > 300
    assert import_cycle(graph) == []


def test_a_circle_is_detected() -> None:
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert import_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_module_names_are_unique() -> None:
    counts = Counter(Path(module).stem for module in MODULES)
    assert {name for name, count in counts.items() if count > 1} <= SHARED_NAMES


def test_no_subpackage_has_the_name_of_a_public_name() -> None:
    """An imported submodule hides a public name of the package."""
    top_level = {module.split("/")[0].removesuffix(".py") for module in MODULES}
    assert not top_level & set(emovox.__all__)


def test_no_folder_is_called_build() -> None:
    assert not [path for path in PACKAGE.rglob("build") if path.is_dir()]


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


def test_public_names_exist() -> None:
    """Every module is imported first, since an imported submodule can hide a name."""
    pytest.importorskip("torch", reason="needs the extra build")
    for module in pkgutil.walk_packages(emovox.__path__, "emovox."):
        if module.name != "emovox.__main__":
            importlib.import_module(module.name)
    for name in emovox.__all__:
        thing = getattr(emovox, name)
        assert callable(thing) or name == "EMOTIONS", name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = emovox.nonsense  # type: ignore[attr-defined]
