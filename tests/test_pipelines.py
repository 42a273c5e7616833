"""The recipes in pipelines/ are valid, installed with the package, and contain what they claim."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from emovox.config import find_recipe, read_config
from emovox.demo import demo_build_config
from emovox.errors import ConfigError
from emovox.fusion.fusion_config import FusionTrainConfig
from emovox.labelling.build_config import BuildConfig
from emovox.student.student_config import StudentTrainConfig
from emovox.teacher.teacher_config import TeacherTrainConfig
from emovox.teacher.teacher_trainer import learning_rate

REPOSITORY = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (REPOSITORY / "pipelines").glob("*.toml"))
BUILDS = [name for name in NAMES if not name.startswith(("teacher-", "student-", "fusion"))]
STUDENTS = [name for name in NAMES if name.startswith("student-")]


def test_recipes_are_found_by_name() -> None:
    for name in NAMES:
        recipe = REPOSITORY / f"pipelines/{name}.toml"
        assert find_recipe(name).read_bytes() == recipe.read_bytes()


def test_every_package_and_the_recipes_are_installed() -> None:
    """The list in pyproject.toml is complete; setuptools would leave out a missing package."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    folders = {path.parent for path in (REPOSITORY / "emovox").rglob("*.py")}
    packages = {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders}
    assert set(setuptools["packages"]) == packages | {"emovox.pipelines", "emovox.schemas"}
    places = {f"emovox.{name}": name for name in ("pipelines", "schemas")}
    assert setuptools["package-dir"] == places
    assert setuptools["package-data"]["emovox.pipelines"] == ["*.toml"]
    assert setuptools["package-data"]["emovox.schemas"] == ["*.json"]


@pytest.mark.parametrize("name", BUILDS)
def test_build_recipes_are_valid(name: str) -> None:
    assert read_config(BuildConfig, name, {"root": "root", "out": "out"}).name


def test_the_demo_builds_its_recipe() -> None:
    config = read_config(BuildConfig, "demo", {"root": "root", "out": "out"})
    assert config == demo_build_config(Path("root"), Path("out"))
    assert config.synthetic and config.hdf5


def test_teacher_recipes_are_valid() -> None:
    with pytest.raises(ConfigError, match="no teacher to learn from; pass --distill-from too"):
        read_config(TeacherTrainConfig, "teacher-ferplus")
    student = read_config(TeacherTrainConfig, "teacher-ferplus", {"distill_from": ["large"]})
    assert student.distill == "online" and student.unlabelled
    large = read_config(TeacherTrainConfig, "teacher-ferplus-large")
    assert (large.rotation, large.skew, large.gamma) == (15, 0.08, 0.3) and not large.distill_from
    senet = read_config(TeacherTrainConfig, "teacher-senet50")
    rates = [learning_rate(senet, epoch) for epoch in (0, 59, 60, 119, 120, 179.9)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])
    assert (senet.network, senet.backbone_rate, senet.warp) == ("senet50", 0.1, 0.5)


@pytest.mark.parametrize("name", STUDENTS)
def test_student_recipes_are_valid(name: str) -> None:
    assert read_config(StudentTrainConfig, name).epochs > 1


def test_the_student_of_the_paper_is_the_default() -> None:
    assert read_config(StudentTrainConfig, "student-paper") == StudentTrainConfig()
    given = set(tomllib.loads(find_recipe("student-paper").read_text(encoding="utf-8")))
    runtime = {"device", "precision", "compile", "workers", "max_dropped"}
    runtime |= {"encoder", "layer", "head"}  # in place of the paper's network
    assert given == {f.name for f in dataclasses.fields(StudentTrainConfig)} - runtime


def test_reported_actors_of_ravdess_do_not_select_the_epoch() -> None:
    assert read_config(StudentTrainConfig, "student-ravdess").choose_on == "heard_val"


def test_the_recipe_of_fusion_is_the_default() -> None:
    assert read_config(FusionTrainConfig, "fusion") == FusionTrainConfig()
