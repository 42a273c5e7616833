"""The demo: a small synthetic corpus, the dataset built from it, a student of that, a report."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emovox.dataset import schema
from emovox.dataset.store import read_table
from emovox.demo.demo_corpus import ACTED, DemoConfig, DemoTrack, write_demo_corpus
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, InputError
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.result import BuildResult
from emovox.labelling.run import build_dataset
from emovox.packages import require
from emovox.reporting.page import ReportConfig, collect, write_page

if TYPE_CHECKING:
    from emovox.student.evaluation import Evaluation
    from emovox.student.student_config import StudentTrainConfig

CORPUS, DATASET, STUDENT, REPORT = "corpus", "dataset", "student", "report.html"
NUM_SHOWN = 5  # frames printed of the first track
NUM_TRACKS = 24  # in the report; a quarter of them


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        corpus: folder of the synthetic media, in the layout of VoxCeleb2.
        tracks: its tracks with the emotion each one acts.
        build: what the build of the dataset did.
        student: how well a speech student that was trained on the dataset does; None without one.
        report: page that shows all of it, with faces and sound.
    """

    corpus: Path
    tracks: list[DemoTrack]
    build: BuildResult
    student: "Evaluation | None"
    report: Path

    def summary(self) -> str:
        """What was made, read back from the files."""
        return "\n\n".join(
            [
                f"corpus    {self.corpus}\n{self.build.summary()}",
                _show_frames(self.build.out),
                _show_labels(self.build.out, self.tracks),
                *([_show_student(self.student, self.build.out)] if self.student else []),
                "Read it, here with PyArrow:\n"
                "  from pyarrow.parquet import read_table\n"
                f"  frames = read_table({str(self.build.out / 'frames')!r})\n"
                f"  tracks = read_table({str(self.build.out / 'tracks')!r}).to_pylist()",
                f"See it, in a browser:\n  {self.report}",
            ]
        )


def run_demo(
    out: Path, config: DemoConfig | None = None, jobs: int = 0, *, student: bool = True
) -> DemoResult:
    """Write a corpus below `out`, build a dataset, train and score a student, and report on both.

    Args:
        out: folder; new, empty, or of an earlier demo.
        config: of the corpus.
        jobs: worker processes; 0 means one per core.
        student: whether to train one.

    Raises:
        InputError: `out` holds something else.
        CheckError: what was read back is not what was built.
        MissingPackageError: the extra `build` is not installed.
    """
    require("build", "demo")  # all of it, before the corpus is drawn
    corpus, dataset = out / CORPUS, out / DATASET
    ours = {CORPUS, DATASET, STUDENT, REPORT}
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - ours):
        raise InputError(f"{out}: holds something else; choose another --out")
    tracks = write_demo_corpus(corpus, config or DemoConfig(), jobs or -1)
    build = build_dataset(demo_build_config(corpus, dataset, jobs))
    rows = sum(read_table(dataset, "frames", split).num_rows for split in schema.SPLITS)
    if rows != build.manifest["totals"]["frames"]:
        raise CheckError(f"{dataset}: {rows} frames were read back, others were written")
    trained = _train_student(dataset, corpus, out / STUDENT) if student else None
    report = ReportConfig(
        dataset, media=corpus, runs=(out / STUDENT,) if student else (), num_tracks=NUM_TRACKS
    )
    write_page(collect(report), out / REPORT)
    return DemoResult(corpus, tracks, build, trained, out / REPORT)


def demo_build_config(root: Path, out: Path, jobs: int = 0) -> BuildConfig:
    """How the demo's dataset is built; pipelines/demo.toml says the same."""
    return BuildConfig(
        layout="voxceleb2",
        root=root,
        out=out,
        name="emovox-demo",
        jobs=jobs,
        heard_fraction=0.15,
        shard_tracks=8,
        hdf5=True,
        synthetic=True,
    )


def demo_student_config() -> "StudentTrainConfig":
    """How the demo's student is trained; pipelines/student-demo.toml says the same."""
    from emovox.student.student_config import StudentTrainConfig

    return StudentTrainConfig(
        width=0.125,
        seconds=2.0,
        epochs=4,
        epoch_share=4.0,
        batch_size=16,
        learning_rate=0.02,
        last_learning_rate=0.002,
        validation_share=1.0,
        choose_on="last",
    )


def _train_student(dataset: Path, corpus: Path, out: Path) -> "Evaluation":
    from emovox.student.evaluation import evaluate
    from emovox.student.training import train

    if out.exists():
        shutil.rmtree(out)  # of an earlier demo, whose dataset may have been another one
    for _ in train(demo_student_config(), dataset, corpus, out):
        pass  # there is a bar for each epoch
    result = evaluate(out / "best.safetensors", dataset, corpus)
    result.write(out)
    return result


def _show_student(student: "Evaluation", dataset: Path) -> str:
    figures = dataset.parent / STUDENT
    return f"A student that heard the sound alone; figures in {figures}\n{student.summary()}"


def _show_frames(dataset: Path) -> str:
    split = next(s for s in schema.SPLITS if (dataset / schema.table_file("frames", s)).exists())
    frames = read_table(dataset, "frames", split).slice(0, NUM_SHOWN).to_pylist()
    lines = [f"First frames of {frames[0]['track_id']} ({split}), logits:"]
    lines.append("  time ms" + "".join(f"{emotion[:8]:>9}" for emotion in EMOTIONS))
    for row in frames:
        logits = "".join(f"{row[name]:>9.2f}" for name in schema.LOGITS)
        lines.append(f"  {row['timestamp_ms']:>7}{logits}")
    return "\n".join(lines)


def _show_labels(dataset: Path, tracks: list[DemoTrack]) -> str:
    acted = {track.track_id: track.emotion for track in tracks}
    counts: Counter[tuple[str, str]] = Counter()
    for split in schema.SPLITS:
        table = read_table(dataset, "tracks", split)
        for track_id, label in zip(table["track_id"], table["label"], strict=True):
            counts[acted.get(track_id.as_py(), "foreign"), label.as_py()] += 1
    lines = ["Tracks by what the face acts (rows) and what the teacher saw (columns):"]
    lines.append(" " * 11 + "".join(f"{emotion[:7]:>8}" for emotion in EMOTIONS))
    for emotion in [*ACTED, *sorted({acted for acted, _ in counts} - set(ACTED))]:
        row = "".join(f"{counts[emotion, label]:>8}" for label in EMOTIONS)
        lines.append(f"  {emotion:<9}{row}")
    return "\n".join(lines)
