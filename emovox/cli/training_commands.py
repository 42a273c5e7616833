"""Commands that train, score and run teachers and students."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from emovox.cli.options import FILE_OR_FOLDER, FOLDER, FORMAT, config_options, echo, finish, given
from emovox.errors import CheckError, EmovoxError
from emovox.fusion.fusion_config import FusionEvaluateConfig, FusionTrainConfig
from emovox.probing.probe_config import ProbeConfig
from emovox.student.student_config import EvaluateConfig, PredictConfig, StudentTrainConfig
from emovox.teacher import DEFAULT_TEACHER
from emovox.teacher.teacher_config import TeacherEvaluateConfig, TeacherTrainConfig

DATA = click.option(
    "--data",
    type=FILE_OR_FOLDER,
    required=True,
    help="Faces: FER+, a folder per emotion, AffectNet's folders, a zip file of them, or a table.",
)
TRAINING_OUT = click.option(
    "--out", type=FOLDER, required=True, help="Folder of checkpoints and log."
)
AUDIO = click.option("--audio", type=FOLDER, required=True, help="Folder of the tracks' audio.")

_say = partial(echo, err=True)


def _echo_json(record: Any) -> None:
    numbers = {k: float(f"{v:.6g}") for k, v in record.items() if isinstance(v, float)}
    echo(json.dumps(record | numbers))


def _name_best(result: Any) -> None:
    if result.records:  # those of the main process
        _say(f"{result.best}: the best of {len(result.records)} epochs")


@click.command("train-teacher")
@click.argument("recipe", required=False)
@DATA
@TRAINING_OUT
@config_options(
    TeacherTrainConfig,
    only=(
        *("start_from", "triplets", "distill_from", "distill", "distill_weight"),
        *("epochs", "batch_size", "learning_rate", "seed", "device"),
    ),
)
def train_teacher(recipe: str | None, data: Path, out: Path, **options: Any) -> None:
    """Train a teacher on labelled faces.

    RECIPE is a TOML file, or the name of an installed one, that sets these and further options; an
    option on the command line overrides it. The best epoch on the validation part is
    OUT/best.safetensors; one line of JSON per epoch goes to stdout and to OUT/log.jsonl.
    """
    from emovox.teacher.training import train_teacher

    options = given(options)
    _name_best(train_teacher(data, out, recipe, say=_say, on_epoch=_echo_json, **options))


@click.command("evaluate-teacher")
@click.argument("teacher", default=DEFAULT_TEACHER)
@DATA
@config_options(TeacherEvaluateConfig)
@click.option(
    "--out", type=FOLDER, help="Folder to write evaluation.json and a confusion matrix to."
)
@FORMAT
def evaluate_teacher(teacher: str, data: Path, out: Path | None, form: str, **options: Any) -> None:
    """Score a teacher on labelled faces.

    TEACHER is a registered name, a checkpoint or a released file. Scores are printed with and
    without mirror averaging: the mean of the logits of a face and its mirror image.
    """
    from emovox.teacher.evaluation import evaluate_teacher

    finish(evaluate_teacher(teacher, data, **given(options)), out, form)


@click.command("train-student")
@click.argument("dataset", type=FOLDER)
@click.argument("recipe", required=False)
@AUDIO
@TRAINING_OUT
@config_options(
    StudentTrainConfig,
    only=(
        *("width", "epochs", "batch_size", "learning_rate", "choose_on", "seed", "device"),
        *("precision", "compile", "workers", "max_dropped", "encoder", "layer", "head"),
    ),
)
@click.option("--tensorboard", is_flag=True, help="Write curves to OUT/tensorboard.")
@click.option("--sound-cache", type=FOLDER, help="Folder of pack-sound; it is filled first.")
def train_student(
    dataset: Path, recipe: str | None, audio: Path, out: Path, **options: Any
) -> None:
    """Train a speech student on a dataset.

    RECIPE is a TOML file, or the name of an installed one, that sets these and further options; an
    option on the command line overrides it. Without a recipe the training is the paper's. The epoch
    with the lowest loss on --choose-on is OUT/best.safetensors; one line of JSON per epoch goes to
    stdout and to OUT/log.jsonl. Processes started by torchrun share each batch.
    """
    from emovox.student.training import train_student

    options = given(options)
    _name_best(train_student(dataset, audio, out, recipe, say=_say, on_epoch=_echo_json, **options))


@click.command("pack-sound")
@click.argument("dataset", type=FOLDER)
@AUDIO
@click.option("--out", type=FOLDER, required=True, help="Folder of the cache.")
@click.option("--jobs", type=click.IntRange(0), default=0, help="Processes; 0 for one per core.")
@click.option(
    "--max-dropped", type=click.FloatRange(0, 1), default=0.05, help="Largest share without sound."
)
def pack_sound(dataset: Path, audio: Path, out: Path, **options: Any) -> None:
    """Store the decoded sound of a dataset.

    train-student --sound-cache reads it from OUT: 16 kHz in 16 bits, in a few large files with
    hashes. Datasets share the folder; a rerun packs what is missing, changed or damaged.
    """
    from emovox.student.sound_cache import pack_sound

    echo(pack_sound(dataset, audio, out, say=_say, **options).summary())


@click.command()
@click.argument("checkpoint")
@click.argument("dataset", type=FOLDER)
@AUDIO
@click.option("--out", type=FOLDER, help="Folder for JSON, predictions and figures.")
@config_options(EvaluateConfig)
@FORMAT
def evaluate(
    checkpoint: str, dataset: Path, audio: Path, out: Path | None, form: str, **options: Any
) -> None:
    """Score a student on a dataset.

    CHECKPOINT is a student's checkpoint or registered name; it is scored on the validation splits
    of DATASET. Prints the ROC AUC of each emotion against the others, with confidence intervals
    over identities, recall, F1 and calibration, from all sound: windows of the seconds of its
    training, each half a window after the one before, the last padded, their logits pooled as the
    targets of the training were; and the AUC of the paper's centre bucket of each utterance.
    """
    from emovox.student.evaluation import evaluate

    finish(evaluate(checkpoint, dataset, audio, **given(options)), out, form)


@click.command()
@click.argument("checkpoint")
@click.argument("corpora", metavar="CORPUS...", type=FILE_OR_FOLDER, nargs=-1, required=True)
@config_options(ProbeConfig)
@click.option("--out", type=FOLDER, help="Folder for JSON, CSV and matrices.")
@FORMAT
def probe(
    checkpoint: str, corpora: tuple[Path, ...], out: Path | None, form: str, **options: Any
) -> None:
    """Test a network on labelled speech corpora.

    Fits an affine map and a softmax from the outputs of CHECKPOINT to the labels of CORPUS.
    CHECKPOINT is a student, a teacher, or egemaps for the baseline alone. CORPUS is a folder of
    RAVDESS, CREMA-D, EMO-DB, SAVEE, eNTERFACE, RML, AFEW, IEMOCAP, MELD, TESS or URDU, or a table
    (CSV, TSV or Parquet) of path, label and speaker.
    """
    from emovox.probing.probes import probe

    result = probe(checkpoint, corpora if len(corpora) > 1 else corpora[0], **given(options))
    finish(result, out, form)
    if result.too_many_dropped:
        raise CheckError(
            "more files were dropped than --max-dropped allows; probe.json in --out lists each "
            "with its reason"
        )


TARGETS = click.option(
    "--targets",
    required=True,
    help="labels or values of the dataset; a table of track_id, timestamp_ms, a column per value "
    "and, for several people, rater; or RECOLA's folder of ratings.",
)
SOUND = click.option("--audio", type=FOLDER, help="Folder of the tracks' audio.")


@click.command("train-fusion")
@click.argument("dataset", type=FOLDER)
@click.argument("recipe", required=False)
@TARGETS
@SOUND
@TRAINING_OUT
@config_options(FusionTrainConfig)
@click.option("--tensorboard", is_flag=True, help="Write curves to OUT/tensorboard.")
def train_fusion(
    dataset: Path, recipe: str | None, targets: str, audio: Path | None, out: Path, **options: Any
) -> None:
    """Train a network on face and sound over time.

    The face is the dataset's embeddings, or its logits without them; the sound is the embedding of
    a student or a frozen encoder. A recurrent network predicts values, such as valence, or the
    class of each track. RECIPE is a TOML file, or the name of an installed one; an option on the
    command line overrides it. The epoch with the lowest loss on the development part, some
    identities of train, is OUT/best.safetensors; one line of JSON per epoch goes to stdout and to
    OUT/log.jsonl.
    """
    from emovox.fusion.fusion_training import train_fusion

    options = {"say": _say, "on_epoch": _echo_json, **given(options)}
    _name_best(train_fusion(dataset, targets, audio, out, recipe, **options))


@click.command("evaluate-fusion")
@click.argument("run", type=FILE_OR_FOLDER)
@click.argument("dataset", type=FOLDER)
@TARGETS
@SOUND
@click.option(
    "--against",
    type=FILE_OR_FOLDER,
    multiple=True,
    help="Another training on the same targets to score and compare. May be repeated.",
)
@config_options(FusionEvaluateConfig)
@click.option("--out", type=FOLDER, help="Folder for JSON, predictions and figures.")
@FORMAT
def evaluate_fusion(
    run: Path,
    dataset: Path,
    targets: str,
    audio: Path | None,
    out: Path | None,
    form: str,
    **options: Any,
) -> None:
    """Score a network on face and sound over time.

    RUN is a folder of train-fusion. Prints CCC, Pearson and RMSE of each value over all steps of a
    split of DATASET, or accuracy and UAR, with confidence intervals over identities: with both
    inputs, without the face, without the sound, and after each step of post-processing that helps
    on the development part of the training.
    """
    from emovox.fusion.fusion_evaluation import evaluate_fusion

    finish(evaluate_fusion(run, dataset, targets, audio, **given(options)), out, form)


@click.command()
@click.argument("media", type=click.Path(path_type=Path, exists=True, dir_okay=False), nargs=-1)
@config_options(PredictConfig)
@click.option(
    "--out",
    type=FILE_OR_FOLDER,
    help="Write to this .csv, .json or .parquet file, or into this folder, instead of stdout.",
)
@click.option(
    "--format", "form", type=click.Choice(["json", "csv"]), default="json", help="Format on stdout."
)
def predict(media: tuple[Path, ...], out: Path | None, form: str, **options: Any) -> None:
    """Label audio and video files with emotions.

    Scores every window of each file MEDIA, to the end of its sound and pictures: the student by
    its sound, the teacher by its faces. The windows have the seconds of the student's training;
    each starts half a window after the one before, and the last is padded. A row has the path,
    start and end in seconds, whether sound is heard or silent, the number of frames with a face,
    and for both networks the most probable emotion and all probabilities. Without --out, rows are
    JSON lines or CSV on stdout. Files that cannot be used are listed on stderr, and the exit code
    is 1.
    """
    from emovox.student.prediction import check_output, predict

    if out is not None:
        check_output(out)
    result = predict(media, **given(options))
    for line in result.problems:
        _say(f"emovox: {line}")
    if out is not None:
        result.write(out)
    elif form == "csv":
        result.write_csv(sys.stdout.buffer)
    else:
        for record in result:
            _echo_json(record)
    if result.unusable:
        sys.exit(EmovoxError.exit_code)
