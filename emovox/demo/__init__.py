"""The demo: a small synthetic corpus, its dataset, a student and a report."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emovox.config import RECIPES, read_config
from emovox.demo.demo_corpus import DemoConfig, write_demo_corpus
from emovox.errors import InputError
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.run import BuildResult, build_dataset
from emovox.packages import require
from emovox.reporting.report import report
from emovox.reporting.show import show

if TYPE_CHECKING:
    from emovox.student.evaluation import Evaluation

CORPUS, DATASET, STUDENT, REPORT = "corpus", "dataset", "student", "report.html"
BUILD_RECIPE, STUDENT_RECIPE = "demo.toml", "student-demo.toml"
FIRST_TRACK = "demo00/scene00x00/00001"
NUM_TRACKS = 24  # in the report; a quarter of all


@dataclass(frozen=True)
class DemoResult:
    """Result of the demo."""

    corpus: Path  # folder of the synthetic media, in the layout of VoxCeleb2
    build: BuildResult
    student: "Evaluation | None"  # None if none was trained
    report: Path  # HTML page with faces and sound

    def summary(self) -> str:
        """Return a description of all results, read from the files."""
        dataset = self.build.out
        texts = [
            f"corpus    {self.corpus}\n{self.build.summary()}",
            show(dataset).summary(),
        ]
        if self.student:
            folder = dataset.parent / STUDENT
            texts.append(f"A student of the sound alone, in {folder}:\n{self.student.summary()}")
        texts += [
            f"To see the rows of a track:\n  emovox show {dataset} {FIRST_TRACK}",
            "To read the dataset, for example with PyArrow:\n"
            "  from pyarrow.parquet import read_table\n"
            f"  frames = read_table({str(dataset / 'frames')!r})",
            f"To see it, open in a browser:\n  {self.report}",
        ]
        return "\n\n".join(texts)


def run_demo(
    out: str | os.PathLike[str],
    config: DemoConfig | None = None,
    jobs: int = 0,
    *,
    student: bool = True,
) -> DemoResult:
    """Write a corpus below `out`, build its dataset, train a student, and write a report.

    `out` is new, empty, or of an earlier demo; `jobs` 0 means one worker process per core.

    Raises:
        InputError: `out` contains other files.
        MissingPackageError: the extra `build` is not installed.
    """
    require("build", "demo")  # before minutes are spent on the corpus
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: not a folder; choose another --out")
    if out.exists() and {path.name for path in out.iterdir()} - {CORPUS, DATASET, STUDENT, REPORT}:
        raise InputError(f"{out}: contains other files; choose another --out")
    corpus, dataset = out / CORPUS, out / DATASET
    write_demo_corpus(corpus, config or DemoConfig(), jobs or -1)
    build = build_dataset(demo_build_config(corpus, dataset, jobs))
    trained = _train_student(dataset, corpus, out / STUDENT) if student else None
    folders = [out / STUDENT] if student else []
    report(dataset, out / REPORT, media=corpus, student=folders, tracks=NUM_TRACKS)
    return DemoResult(corpus, build, trained, out / REPORT)


def demo_build_config(root: Path, out: Path, jobs: int = 0) -> BuildConfig:
    """Return the options of the build: those of pipelines/demo.toml."""
    options = {"root": root, "out": out, "jobs": jobs}
    return read_config(BuildConfig, RECIPES / BUILD_RECIPE, options)


def _train_student(dataset: Path, corpus: Path, out: Path) -> "Evaluation":
    from emovox.student.evaluation import evaluate
    from emovox.student.student_config import StudentTrainConfig
    from emovox.student.training import train_student

    if out.exists():
        shutil.rmtree(out)  # its dataset may have been another one
    train_student(dataset, corpus, out, read_config(StudentTrainConfig, RECIPES / STUDENT_RECIPE))
    result = evaluate(out / "best.safetensors", dataset, corpus)
    result.write(out)
    return result
