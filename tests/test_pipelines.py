"""The recipes in pipelines/ are valid and say what they claim to say."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from emovox.config import read_config
from emovox.demo import demo_build_config, demo_student_config
from emovox.labelling.build_config import BuildConfig
from emovox.student.student_config import StudentTrainConfig
from emovox.teacher.teacher_config import TeacherTrainConfig

PIPELINES = Path(__file__).parents[1] / "pipelines"
TRAININGS = ("teacher-", "student-")
BUILDS = sorted(p.name for p in PIPELINES.glob("*.toml") if not p.name.startswith(TRAININGS))
STUDENTS = sorted(p.name for p in PIPELINES.glob("student-*.toml"))


@pytest.mark.parametrize("name", BUILDS)
def test_build_pipelines_are_valid(name: str) -> None:
    flags = {"root": Path("root"), "out": Path("out")}
    assert read_config(BuildConfig, PIPELINES / name, flags).name


def test_demo_pipeline_is_what_the_demo_does() -> None:
    flags = {"root": Path("root"), "out": Path("out")}
    config = read_config(BuildConfig, PIPELINES / "demo.toml", flags)
    assert config == demo_build_config(Path("root"), Path("out"))


def test_teacher_pipelines_are_valid() -> None:
    first = read_config(TeacherTrainConfig, PIPELINES / "teacher-ferplus-first.toml")
    assert first == TeacherTrainConfig(), "the defaults are this recipe"
    second = read_config(TeacherTrainConfig, PIPELINES / "teacher-ferplus-second.toml")
    assert second.distill_from == ("teacher-ferplus-first.toml",)
    third = read_config(TeacherTrainConfig, PIPELINES / "teacher-ferplus.toml")
    assert third.start_from == "teacher-ferplus-second.toml"
    assert (third.stem, third.widths, third.depths) == (second.stem, second.widths, second.depths)


@pytest.mark.parametrize("name", STUDENTS)
def test_student_pipelines_are_valid(name: str) -> None:
    assert read_config(StudentTrainConfig, PIPELINES / name).epochs > 1


def test_the_paper_s_student_is_the_default() -> None:
    path = PIPELINES / "student-paper.toml"
    assert read_config(StudentTrainConfig, path) == StudentTrainConfig()
    given = set(tomllib.loads(path.read_text(encoding="utf-8")))
    manner = {"device", "precision", "compile", "workers", "max_dropped"}
    assert given == {f.name for f in dataclasses.fields(StudentTrainConfig)} - manner


def test_the_demo_s_student_is_its_pipeline() -> None:
    path = PIPELINES / "student-demo.toml"
    assert read_config(StudentTrainConfig, path) == demo_student_config()


def test_what_is_reported_of_ravdess_does_not_choose() -> None:
    config = read_config(StudentTrainConfig, PIPELINES / "student-ravdess.toml")
    assert config.choose_on == "heard_val"
