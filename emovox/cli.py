"""The command line. Commands parse, call and echo; heavy imports live inside them.

Results go to stdout, progress and messages to stderr.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from emovox import __version__
from emovox.errors import ConfigError, EmovoxError
from emovox.packages import missing_package
from emovox.paths import as_path, is_remote

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk
UNREADABLE = 2
INTERRUPTED = 130  # what a shell reports for Ctrl-C

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class Url(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones only
    """A local path of some type, or a URL; click's own type would make one slash of two."""

    name = "path or URL"

    def __init__(self, local: "click.Path[Path]") -> None:
        self.local = local

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        path = as_path(value) if isinstance(value, str) else value
        return path if is_remote(path) else self.local.convert(path, param, context)


class Commands(click.Group):
    """Turns emovox's errors, and files that cannot be used, into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ModuleNotFoundError as error:
            missing = missing_package(error, str(context.invoked_subcommand))
            if missing is None:
                raise
            click.echo(f"emovox: error: {missing}", err=True)
            context.exit(missing.exit_code)
        except EmovoxError as error:
            click.echo(f"emovox: error: {error}", err=True)
            context.exit(error.exit_code)
        except OSError as error:
            if error.errno in FULL:
                reason = f"{os.strerror(error.errno)}; mend that and run it again"
                click.echo(f"emovox: error: {reason}", err=True)
                context.exit(EmovoxError.exit_code)
            if error.filename is None or error.errno == errno.EPIPE:
                raise  # a closed pipe is click's to handle; without a file it is a bug
            click.echo(f"emovox: error: {error.filename}: {error.strerror}", err=True)
            context.exit(UNREADABLE)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Datasets of per-frame emotion logits from speaking-face video."""


def interruptible(resumable: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """End a command on Ctrl-C or SIGTERM with a line on how to go on, instead of a traceback."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**options: Any) -> None:
            signal.signal(signal.SIGTERM, _interrupt)
            try:
                command(**options)
            except KeyboardInterrupt:
                click.echo(f"\nemovox: interrupted; {resumable}", err=True)
                sys.exit(INTERRUPTED)

        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        return run

    return decorate


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@main.command("build-dataset", short_help="Frame logits from speaking faces.")
@click.argument("pipeline", type=FILE, required=False)
@click.option("--layout", help="voxceleb2, voxceleb1, dense-frames, folder or table.")
@click.option("--root", type=Url(FOLDER), help="Folder of the corpus, or its URL.")
@click.option("--out", type=Url(FOLDER), help="Folder of the dataset, or its URL.")
@click.option("--state", type=Url(FOLDER), help="What to resume from.  [default: OUT/.emovox]")
@click.option("--teacher", help="A registered teacher or a checkpoint.  [default: compact]")
@click.option("--splits", help="auto, official, or a CSV or Parquet file.  [default: auto]")
@click.option("--meta", type=Url(FOLDER), help="Folder of vox1_meta.csv and the published lists.")
@click.option("--table", type=Url(FILE), help="List of tracks, for --layout table.")
@click.option("--name", help="Name of the dataset.  [default: its folder's]")
@click.option("--version", help="Version of the dataset.  [default: 0.1.0]")
@click.option("--jobs", type=int, help="Worker processes.  [default: one per core]")
@click.option("--engine", help="joblib, or ray for a cluster.  [default: joblib]")
@click.option("--ray-address", help="Of the cluster's head.  [default: $RAY_ADDRESS, else here]")
@click.option("--actor-cpus", type=int, help="Cores, and so workers, of a Ray actor.  [default: 1]")
@click.option("--actor-gpus", type=float, help="GPUs of a Ray actor, or a fraction.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--precision", help="auto, fp32 or bf16.  [default: auto]")
@click.option("--compile", help="torch.compile for the teacher: auto, on, off.  [default: auto]")
@click.option("--step-ms", type=int, help="Milliseconds between grid points.  [default: 240]")
@click.option("--timeout", type=float, help="Seconds one track may take.  [default: 300]")
@click.option("--max-dropped", type=float, help="Share of tracks that may drop.  [default: 0.05]")
@click.option("--unheard-fraction", type=float, help="Of identities, for auto.  [default: 0.2]")
@click.option("--heard-fraction", type=float, help="Of other tracks, for auto.  [default: 0.04]")
@click.option("--shard-tracks", type=int, help="Tracks per unit of work.  [default: 16]")
@click.option("--hdf5/--no-hdf5", default=None, help="Write HDF5 beside Parquet.")
@click.option("--retry-dropped/--no-retry-dropped", default=None, help="Try dropped tracks again.")
@click.option("--synthetic/--no-synthetic", default=None, help="The faces are nobody's; say so.")
@click.option("--profile/--no-profile", default=None, help="Measure what bounds the run.")
@interruptible("run the same command again to go on where it stopped")
def build_dataset(pipeline: Path | None, **flags: Any) -> None:
    """Build a dataset of frame logits from a corpus of speaking faces.

    Options may stand in PIPELINE, a TOML file with the same names; a flag wins. Run the same
    command again to resume, or to take in new tracks.
    """
    from emovox.config import read_config
    from emovox.labelling.build_config import BuildConfig
    from emovox.labelling.run import build_dataset as build

    result = build(read_config(BuildConfig, pipeline, flags))
    click.echo(result.summary())
    if result.too_many_dropped:
        _end_for_dropped("; --retry-dropped tries them again")


@main.command("import-mat", short_help="The published annotations as a dataset.")
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--out", type=FOLDER, required=True, help="Folder of the dataset; new or empty.")
@click.option(
    "--meta",
    type=FOLDER,
    help="Folder of vox1_meta.csv and the official lists.  [default: as `download splits` left it]",
)
@click.option("--name", default="emovoxceleb", show_default=True, help="Name of the dataset.")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the dataset.")
@click.option("--hdf5/--no-hdf5", default=False, help="Write HDF5 beside Parquet.")
@click.option(
    "--max-dropped",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of dropped tracks above which the exit code is 1.",
)
@interruptible("run the same command again; nothing was left behind")
def import_mat(
    files: tuple[Path, ...], out: Path, meta: Path | None, max_dropped: float, **options: Any
) -> None:
    """Make a dataset from FILE, the MATLAB file of the published annotations.

    Several files may be given if they hold wavLogits and images between them. What was found is
    printed beside the published counts.
    """
    from emovox.corpus.voxceleb import lists_folder
    from emovox.labelling.import_mat import import_mat

    meta = lists_folder(meta, files[0].parent)
    result = import_mat(list(files), out, meta=meta, **options)
    click.echo(result.summary())
    if result.share_dropped > max_dropped:
        _end_for_dropped()


def _end_for_dropped(advice: str = "") -> None:
    click.echo(
        "emovox: error: more tracks were dropped than --max-dropped allows; "
        f"dropped.parquet names each with its reason{advice}",
        err=True,
    )
    sys.exit(EmovoxError.exit_code)


@main.command(short_help="A synthetic corpus, its dataset, a student, a report.")
@click.option("--out", type=FOLDER, default=Path("emovox-demo"), show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Everything follows from it.")
@click.option("--jobs", type=int, default=0, help="Worker processes.  [default: one per core]")
@interruptible("run the same command again")
def demo(out: Path, seed: int, jobs: int) -> None:
    """Make a small synthetic talking-face corpus, build its dataset, train a student; offline."""
    from emovox.demo import run_demo
    from emovox.demo.demo_corpus import DemoConfig

    click.echo(run_demo(out, DemoConfig(seed=seed), jobs).summary())


@main.command(short_help="Fetch published annotations, splits, models.")
@click.argument("target", metavar="annotations|splits|teacher|student")
@click.option("--name", help="One file of the target, such as resnet50-ferplus.")
@click.option("--out", type=FOLDER, help="Folder of the files.  [default: in the cache]")
@click.option("--url", help="Address of the file, or, ending in /, of the folder of the files.")
@click.option("--from", "copy", type=click.Path(path_type=Path), help="The file, or its folder.")
@click.option("--accept-new", is_flag=True, help="Take and pin a file that differs from the pin.")
@interruptible("run the same command again to go on where it stopped")
def download(target: str, **options: Any) -> None:
    """Fetch published files; run it again to go on. The path of each is printed when it is whole.

    Lists of the splits have to match their checksums. The other files came without one: the first
    good download is pinned, and one that differs from it later is refused. A teacher is fetched
    for PyTorch; --name senet50-ferplus.mat fetches it for MatConvNet, which works as well.
    """
    from emovox.downloads import DownloadConfig, download_target

    say = partial(click.echo, err=True)
    for path in download_target(DownloadConfig(target, **options, say=say)):
        click.echo(path)


@main.command("train-teacher", short_help="Train the compact teacher.")
@click.argument("pipeline", type=FILE, required=False)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="FER+, folder or zip.")
@click.option("--out", type=FOLDER, required=True, help="Folder of checkpoints and log.")
@click.option(
    "--distill-from",
    multiple=True,
    help="Registered teacher, checkpoint or recipe to learn from; may be given again.",
)
@click.option("--distill-weight", type=float, help="Share of those teachers.  [default: 0.5]")
@click.option("--epochs", type=int, help="Passes over the training faces.  [default: 70]")
@click.option("--batch-size", type=int, help="Faces per step.  [default: 128]")
@click.option("--seed", type=int, help="Of weights, order and augmentation.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@interruptible("run the same command again to go on after its last epoch")
def train_teacher(
    pipeline: Path | None, data: Path, out: Path, distill_from: tuple[str, ...], **flags: Any
) -> None:
    """Train the compact teacher on FERPlus.

    The rest of the recipe may stand in PIPELINE, a TOML file. The best epoch on PublicTest is
    OUT/best.safetensors; one line of JSON per epoch goes to stdout and to OUT/log.jsonl. Recipes
    among the teachers to learn from are trained first, below OUT.
    """
    import json

    from emovox.config import read_config
    from emovox.teacher.teacher_config import TeacherTrainConfig
    from emovox.teacher.training import train

    config = read_config(
        TeacherTrainConfig, pipeline, {"distill_from": distill_from or None, **flags}
    )
    # Names in a file are relative to it; names on the command line to where we are.
    beside = pipeline.parent if pipeline and not distill_from else Path()
    if flags["distill_weight"] is not None and not config.distill_from:
        raise ConfigError("--distill-weight: there is no teacher to learn from; see --distill-from")
    num_epochs = 0
    for record in train(config, data, out, beside):
        click.echo(json.dumps(record))
        num_epochs += 1
    if not num_epochs:
        click.echo(f"{out / 'best.safetensors'}: trained already", err=True)


@main.command("evaluate-teacher", short_help="Score a teacher on FERPlus.")
@click.argument("teacher", default="compact")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="FER+, folder or zip.")
@click.option(
    "--part",
    type=click.Choice(["public_test", "private_test", "train"]),
    default="private_test",
    show_default=True,
)
@click.option("--out", type=FOLDER, help="Also write evaluation.json and confusion matrices there.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="auto, fp32 or bf16.")
@interruptible("run the same command again")
def evaluate_teacher(
    teacher: str, data: Path, part: str, out: Path | None, device: str, precision: str
) -> None:
    """Score TEACHER, a registered name, a checkpoint or a released file, on FERPlus.

    Figures come without and with mirror averaging: the mean of the logits of a face and of its
    mirror image.
    """
    from emovox.teacher import load_teacher
    from emovox.teacher.evaluation import evaluate

    evaluation = evaluate(load_teacher(teacher, device, precision), data, part)
    click.echo(evaluation.summary())
    if out is not None:
        evaluation.write(out)


@main.command(short_help="What changed between two datasets.")
@click.argument("old", type=FOLDER)
@click.argument("new", type=FOLDER)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def diff(old: Path, new: Path, form: str) -> None:
    """Compare the datasets OLD and NEW, and say which version bump the differences mean.

    JSON holds all tracks and frames that were added or removed, text the first few.
    """
    from emovox.comparison.difference import diff as compare

    found = compare(old, new)
    click.echo(found.json() if form == "json" else found.text())


@main.command(short_help="The card of a dataset, made from its data.")
@click.argument("dataset", type=FOLDER)
@click.option("--check", is_flag=True, help="Compare DATASET/README.md with it; 1 if they part.")
def card(dataset: Path, check: bool) -> None:
    """Print the card that DATASET should have by its rows, manifest and provenance."""
    from emovox.dataset.card import card_of, check_card

    if check:
        check_card(dataset)
        click.echo(f"{dataset}: the card agrees with the data")
    else:
        click.echo(card_of(dataset), nl=False)


@main.command(short_help="A dataset as one page, or its figures.")
@click.argument("dataset", type=FOLDER, metavar="DIR")
@click.option("--out", type=FILE, help="HTML file, whole in itself.")
@click.option("--figures", type=FOLDER, help="Folder for the paper's figures and tables.")
@click.option("--compare", type=FOLDER, help="Another dataset, laid over this one.")
@click.option(
    "--student",
    "runs",
    type=FOLDER,
    multiple=True,
    help="Folder that train-student, evaluate, probe or evaluate-teacher left; may be repeated.",
)
@click.option("--media", type=FOLDER, help="Folder of the corpus: put in faces and sound.")
@click.option(
    "--tracks", "num_tracks", type=int, help="Tracks shown.  [default: 300, with --media 40]"
)
@interruptible("run the same command again")
def report(dataset: Path, out: Path | None, figures: Path | None, **options: Any) -> None:
    """Show the dataset in DIR: splits, emotions, coverage, logits, skew, student, tracks.

    The page is one file that fetches nothing. Faces and sound are put in only with --media, and are
    personal data then. --figures writes PNG, SVG and CSV.
    """
    from emovox.reporting.page import ReportConfig, collect, write_page

    if out is None and figures is None:
        raise ConfigError("nothing to write: give --out FILE.html, --figures FOLDER or both")
    collected = collect(ReportConfig(dataset, **options))
    if out is not None:
        write_page(collected, out)
        click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    if figures is not None:
        from emovox.reporting.dataset_figures import write_figures

        for line in write_figures(collected, figures):
            click.echo(line)


@main.command("validate", short_help="Check a dataset, rule by rule.")
@click.argument("dataset", type=FOLDER, metavar="DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "junit", "github"]),
    default="text",
    show_default=True,
)
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option("--meta", type=FOLDER, help="Folder of vox1_meta.csv and the official lists.")
@click.option("--takedown", type=FILE, help="List of the SHA-256 of identities to be absent.")
@interruptible("run the same command again")
def validate_dataset(dataset: Path, form: str, **options: Any) -> None:
    """Check every row and every file of the dataset in DIR against the contract.

    Exit code 0: valid, perhaps with warnings; 1: a rule failed; 2: DIR is no dataset.
    """
    from emovox.validation.formats import FORMATS
    from emovox.validation.validation import validate

    validation = validate(dataset, **options)
    click.echo(FORMATS[form](validation))
    if not validation.valid:
        sys.exit(1)


@main.command(short_help="An immutable version of a dataset.")
@click.argument("dataset", type=FOLDER, metavar="DIR")
@click.option("--version", required=True, help="MAJOR.MINOR.PATCH.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the release; not there yet.")
@click.option("--takedown", type=FILE, help="List of the SHA-256 of identities to take out.")
@click.option("--meta", type=FOLDER, help="Folder of vox1_meta.csv and the official lists.")
@click.option("--push", metavar="ORG/NAME", help="Upload to that repository on Hugging Face.")
@click.option("--private/--public", default=True, help="Who may see it there.  [default: private]")
@interruptible("run the same command again; no half release was left behind")
def release(
    dataset: Path, version: str, out: Path, push: str | None, private: bool, **options: Any
) -> None:
    """Make a release of the dataset in DIR: checked, with checksums, read-only.

    OUT appears when it is whole and valid. With --push it is uploaded too, tagged with its version;
    run the same command again if only that failed.
    """
    from emovox.publishing.hub import open_repository
    from emovox.publishing.publish import NotValidError, release
    from emovox.validation.formats import as_text

    repository = open_repository(push, version, private=private) if push else None
    options |= {"resume": bool(push), "say": partial(click.echo, err=True)}
    try:
        released = release(dataset, out, version, **options)
    except NotValidError as error:
        click.echo(as_text(error.validation))
        raise
    click.echo(released.summary())
    if repository:
        click.echo(f"pushed    {repository.upload(out)}, tag {version}")


@main.command("schema", short_help="Tables and documents of a dataset as JSON.")
@click.option("--out", type=FOLDER, help="Write one file each there instead of printing.")
def print_schema(out: Path | None) -> None:
    """Print the contract as JSON: columns of the tables, JSON Schema of the documents."""
    import json

    from emovox.dataset.json_schemas import describe_documents
    from emovox.dataset.schema import describe

    contract = describe() | describe_documents()
    if out is None:
        click.echo(json.dumps(contract, indent=2))
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, description in contract.items():
        path = out / f"{name}.json"
        path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        click.echo(path)


@main.command("train-student", short_help="Train a speech student on a dataset.")
@click.argument("dataset", type=FOLDER)
@click.argument("pipeline", type=FILE, required=False)
@click.option("--audio", type=FOLDER, required=True, help="Folder of the tracks' audio.")
@click.option("--out", type=FOLDER, required=True, help="Folder of checkpoints and log.")
@click.option("--width", type=float, help="Factor on the network's channels.  [default: 1]")
@click.option("--epochs", type=int, help="Rounds of training and validation.  [default: 250]")
@click.option("--batch-size", type=int, help="Segments per step.  [default: 64]")
@click.option("--learning-rate", type=float, help="Of the first epoch.  [default: 0.0001]")
@click.option("--choose-on", help="unheard_val, heard_val or last.  [default: unheard_val]")
@click.option("--seed", type=int, help="Of weights, order and segments.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--precision", help="auto, fp32 or bf16.  [default: auto]")
@click.option("--compile", help="auto (on a GPU), on or off.  [default: auto]")
@click.option("--workers", type=int, help="Processes that read audio.  [default: 2]")
@click.option("--max-dropped", type=float, help="Share of tracks without audio.  [default: 0.05]")
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard; needs tensorboard.")
@interruptible("run the same command again to go on after its last epoch")
def train_student(
    dataset: Path,
    pipeline: Path | None,
    audio: Path,
    out: Path,
    tensorboard: bool,
    **flags: Any,
) -> None:
    """Train a speech student on DATASET and the audio of its tracks.

    The rest of the recipe may stand in PIPELINE, a TOML file; without one it is the paper's. The
    epoch with the lowest loss on --choose-on is OUT/best.safetensors; one line of JSON per epoch
    goes to stdout and to OUT/log.jsonl. Run by torchrun, several processes share each batch.
    """
    import json

    from emovox.config import read_config
    from emovox.runs import board
    from emovox.student.student_config import StudentTrainConfig
    from emovox.student.training import train

    config = read_config(StudentTrainConfig, pipeline, flags)
    num_epochs = 0
    with board(out / "tensorboard" if tensorboard else None) as show:
        for record in train(config, dataset, audio, out, partial(click.echo, err=True)):
            click.echo(json.dumps(record))
            show(record)
            num_epochs += 1
    if not num_epochs and int(os.environ.get("RANK", "0")) == 0:
        click.echo(f"{out / 'best.safetensors'}: trained already", err=True)


@main.command(short_help="Score a student on a dataset.")
@click.argument("checkpoint")
@click.argument("dataset", type=FOLDER)
@click.option("--audio", type=FOLDER, required=True, help="Folder of the tracks' audio.")
@click.option("--out", type=FOLDER, help="Folder for JSON, predictions and figures.")
@click.option("--protocol", default="standard", show_default=True, help="standard or legacy.")
@click.option("--timing", default="grid", show_default=True, help="grid or legacy.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@click.option(
    "--max-dropped", default=0.05, show_default=True, help="Share of tracks without audio."
)
@interruptible("run the same command again")
def evaluate(checkpoint: str, dataset: Path, audio: Path, out: Path | None, **options: Any) -> None:
    """Score a student, CHECKPOINT or a registered name, on the validation splits of DATASET.

    ROC AUC of every emotion against the rest, with intervals over identities. The legacy options
    read sound and time as the reference code does.
    """
    from emovox.student.evaluation import evaluate as evaluate_student

    result = evaluate_student(checkpoint, dataset, audio, **options)
    if out is not None:
        result.write(out)
    click.echo(result.summary())


@main.command(short_help="A probe on a labelled speech corpus.")
@click.argument("checkpoint")
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--layout", help="Name of the corpus, or table.  [default: by its files' names]")
@click.option("--features", help="logits, or a student's embedding.  [default: logits]")
@click.option("--protocol", help="standard or legacy.  [default: standard]")
@click.option("--folds", type=int, help="Of either kind.  [default: 10]")
@click.option("--seed", type=int, help="Of the random folds and the forest.  [default: 0]")
@click.option("--jobs", type=int, help="Threads or processes.  [default: one per core]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--max-dropped", type=float, help="Share of files that may drop.  [default: 0.05]")
@click.option("--out", type=FOLDER, help="Folder for JSON, CSV and confusion matrices.")
@interruptible("run the same command again")
def probe(checkpoint: str, corpus: Path, out: Path | None, **flags: Any) -> None:
    """Read the labels of CORPUS out of the logits of CHECKPOINT, by an affine map and a softmax.

    CHECKPOINT is a student, a teacher, or egemaps for the yardstick alone. CORPUS is a folder of
    RAVDESS, CREMA-D, EMO-DB, SAVEE, eNTERFACE, RML or AFEW, or a table (CSV, TSV or Parquet) of
    path, label and speaker.
    """
    from emovox.config import read_config
    from emovox.probing.probe_config import ProbeConfig
    from emovox.probing.probes import evaluate_external

    config = read_config(ProbeConfig, None, {"checkpoint": checkpoint, "corpus": corpus, **flags})
    result = evaluate_external(config)
    if out is not None:
        result.write(out)
    click.echo(result.summary())
    if result.too_many_dropped:
        click.echo(
            "emovox: error: more files were dropped than --max-dropped allows; probe.json in --out "
            "names each with its reason",
            err=True,
        )
        sys.exit(1)


@main.command(short_help="Emotions in audio and video files.")
@click.argument("media", type=click.Path(path_type=Path, exists=True, dir_okay=False), nargs=-1)
@click.option("--student", required=True, help="Checkpoint or registered name.")
@click.option("--teacher", default="compact", show_default=True, help="For video; none for none.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of a window.")
@click.option("--hop", type=float, help="From a window to the next.  [default: --seconds]")
@click.option("--out", type=FILE, help="CSV, JSON lines or Parquet by its ending, not stdout.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@click.option("--jobs", default=0, help="Worker processes for video.  [default: one per core]")
@interruptible("run the same command again")
def predict(media: tuple[Path, ...], out: Path | None, **options: Any) -> None:
    """Score every window of the files MEDIA: the student by sound, the teacher by faces.

    A row has the path, start and end in seconds, the likeliest emotion and eight probabilities of
    each. Without --out it is JSON lines on stdout. Files that cannot be used are named on stderr,
    and make the exit code 1.
    """
    from emovox.student import predict as predicting

    if not media:
        raise ConfigError("no files; name those to listen to")
    if out is not None:
        predicting.check_ending(out)
    failures: list[str] = []
    config = predicting.PredictConfig(**options)
    table = predicting.predict(media, config, failures.append)
    for line in failures:
        click.echo(f"emovox: {line}", err=True)
    if out is not None:
        predicting.write_table(table, out)
    else:
        for line in predicting.as_json_lines(table):
            click.echo(line, nl=False)
    if set(table["path"].to_pylist()) < set(map(str, media)):
        sys.exit(EmovoxError.exit_code)
