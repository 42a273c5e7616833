"""Configs: fields, recipes and options."""

import math
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pytest

from emovox.config import check_options, find_recipe, option, option_help, read_config
from emovox.errors import ConfigError
from emovox.labelling.build_config import BuildConfig


@dataclass(frozen=True)
class Example:
    """Options of an example.

    Attributes:
        root: Folder of the corpus,
            or its URL.
        count: How many.
        share, name: Others.
    """

    root: Path = option(url=True)
    count: int = option(1, least=0, most=9)
    share: float = option(0.5, least=0.1)
    name: str | None = option(None, choices=("a", "b"))
    quick: bool = False
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        check_options(self)


def write(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(text)
    return path


def test_options_override_the_recipe_and_the_recipe_the_defaults(tmp_path: Path) -> None:
    toml = write(tmp_path, 'root = "corpus"\ncount = 2\nshare = 1\n')
    config = read_config(Example, toml, {"count": 3})
    assert config == Example(Path("corpus"), 3, 1.0, None)
    assert isinstance(config.share, float)


def test_merged_options_override_a_config_a_recipe_and_the_defaults(tmp_path: Path) -> None:
    toml = write(tmp_path, 'root = "corpus"\ncount = 2\nname = "a"\n')
    for config in (Example(Path("corpus"), 2, name="a"), toml, str(toml)):
        assert read_config(Example, config, {"count": 3}) == Example(Path("corpus"), 3, name="a")
    assert read_config(Example, None, {"root": "corpus"}) == Example(Path("corpus"))
    assert read_config(Example, Example(Path("x"), name="a"), {"name": None}).name is None


def test_strings_and_other_paths_become_paths() -> None:
    config = Example("corpus", files=["a", PurePath("b")])  # type: ignore[arg-type]
    assert config == Example(Path("corpus"), files=(Path("a"), Path("b")))
    assert BuildConfig("folder", Path(), Path("o"), teacher=Path("t")).teacher == "t"  # type: ignore[arg-type]


def test_dashes_are_underscores(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Dashed:
        max_count: int = 0

    assert read_config(Dashed, write(tmp_path, "max-count = 4")).max_count == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('rot = "x"', "unknown key 'rot'; valid keys: root, count, share, name, quick, files"),
        ('root = "x"\ncount = "two"', 'count: expected int, found "two"'),
        ('root = "x"\ncount = true', "count: expected int, found true"),
        ('root = "x"\nquick = 1', "quick: expected bool, found 1"),
        ('root = "x"\nfiles = "a"', 'files: expected a list, found "a"'),
        ("count = 1", "p.toml: missing keys: root"),
        ("count = ", "not valid TOML"),
    ],
)
def test_invalid_recipes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.toml|missing") as error:
        read_config(Example, write(tmp_path, text))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": -1}, "count -1: must be 0 to 9"),
        ({"count": 10}, "count 10: must be 0 to 9"),
        ({"share": 0.0}, "share 0.0: must be at least 0.1"),
        ({"share": math.nan}, "share nan: must be at least 0.1"),
        ({"name": "c"}, "name 'c' is not one of a, b"),
        ({"count": "1"}, 'count: expected int, found "1"'),
        ({"quick": None}, "quick: expected bool, found null"),
    ],
)
def test_values_out_of_bounds(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Example(Path(), **options)
    assert str(error.value) == words


def test_urls_only_where_they_are_supported(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")

    @dataclass(frozen=True)
    class Local(Example):
        root: Path = option()

    toml = write(tmp_path, 'root = "memory://bucket/vox"')
    assert str(read_config(Example, toml).root) == "memory://bucket/vox"
    assert read_config(Example, write(tmp_path, 'root = "file:///vox"')).root == Path("/vox")
    with pytest.raises(ConfigError, match="root: memory://bucket/vox is a URL"):
        read_config(Local, write(tmp_path, 'root = "memory://bucket/vox"'))


def test_help_comes_from_the_docstring() -> None:
    assert option_help(Example) == {
        "root": "Folder of the corpus, or its URL.",
        "count": "How many.",
        "share": "Others.",
        "name": "Others.",
    }
    assert set(option_help(BuildConfig)) == set(BuildConfig.__dataclass_fields__)


def test_recipes_are_found_by_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voxceleb2").mkdir()
    for name in ("voxceleb2", "voxceleb2.toml"):
        path = find_recipe(name)
        assert path.name == "voxceleb2.toml" and "layout" in path.read_text()
    (tmp_path / "voxceleb2.toml").touch()
    assert find_recipe("voxceleb2.toml").absolute() == tmp_path / "voxceleb2.toml"


def test_a_missing_recipe_lists_the_installed_ones(tmp_path: Path) -> None:
    for name in ("nonsense", tmp_path / "voxceleb2.toml"):
        with pytest.raises(ConfigError, match=r"neither a recipe file nor one of .*voxceleb2"):
            read_config(Example, name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ray_address": "127.0.0.1:1"}, "--ray-address needs --engine ray"),
        ({"actor_cpus": 4}, "--actor-cpus needs --engine ray"),
        ({"engine": "ray", "device": "cuda"}, "--device cuda with --engine ray needs --actor-gpus"),
        ({"engine": "ray", "actor_gpus": 1.5}, "--actor-gpus above 1 must be a whole number"),
        ({"engine": "spark"}, "engine 'spark' is not one of joblib, ray"),
    ],
)
def test_options_of_a_cluster(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BuildConfig("voxceleb2", tmp_path, tmp_path / "out", **options)
