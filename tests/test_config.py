"""Configuration from TOML and flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from emovox.config import read_config
from emovox.errors import ConfigError
from emovox.labelling.build_config import BuildConfig


@dataclass(frozen=True)
class Example:
    root: Path
    count: int = 1
    share: float = 0.5
    name: str | None = None
    quick: bool = False


def write(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(text)
    return path


def test_flag_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    toml = write(tmp_path, 'root = "corpus"\ncount = 2\nshare = 1\n')
    config = read_config(Example, toml, {"count": 3, "name": None})
    assert config == Example(Path("corpus"), 3, 1.0, None)
    assert isinstance(config.share, float)


def test_dashes_are_underscores(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Dashed:
        max_count: int = 0

    assert read_config(Dashed, write(tmp_path, "max-count = 4")).max_count == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('rot = "x"', "unknown key 'rot'; valid keys: root, count, share, name, quick"),
        ('root = "x"\ncount = "two"', 'count: expected int, found "two"'),
        ('root = "x"\ncount = true', "count: expected int, found true"),
        ('root = "x"\nquick = 1', "quick: expected bool, found 1"),
        ("count = 1", "missing --root"),
        ("count = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.toml|missing") as error:
        read_config(Example, write(tmp_path, text))
    assert words in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(Example, tmp_path / "none.toml")


def test_urls_only_where_they_are_taken(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")

    @dataclass(frozen=True)
    class Remote(Example):
        URLS: ClassVar[tuple[str, ...]] = ("root",)

    toml = write(tmp_path, 'root = "memory://bucket/vox"')
    assert str(read_config(Remote, toml).root) == "memory://bucket/vox"
    assert read_config(Remote, write(tmp_path, 'root = "file:///vox"')).root == Path("/vox")
    with pytest.raises(ConfigError, match="root: memory://bucket/vox is a URL"):
        read_config(Example, write(tmp_path, 'root = "memory://bucket/vox"'))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ray_address": "127.0.0.1:1"}, "--ray-address needs --engine ray"),
        ({"actor_cpus": 4}, "--actor-cpus needs --engine ray"),
        ({"engine": "ray", "device": "cuda"}, "--device cuda with --engine ray needs --actor-gpus"),
        ({"engine": "ray", "actor_gpus": 1.5}, "--actor-gpus above 1 must be a whole number"),
        ({"engine": "spark"}, "--engine 'spark' is not one of joblib, ray"),
    ],
)
def test_options_of_a_cluster(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BuildConfig("voxceleb2", tmp_path, tmp_path / "out", **options)
