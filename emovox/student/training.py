"""Training of a student on a dataset and the sound of its tracks."""

import contextlib
import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox import checkpoints, runs
from emovox.config import read_config
from emovox.dataset import schema
from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Dropped
from emovox.emotions import Outputs
from emovox.errors import EmovoxError
from emovox.files import replace_file
from emovox.registry import BEST_FILE
from emovox.scores import softmax
from emovox.student.clips import check_root
from emovox.student.segments import SpeechSegments
from emovox.student.student_config import LAST, StudentTrainConfig
from emovox.student.trainer import Trainer, join_processes

Record = dict[str, Any]
Splits = dict[str, SpeechSegments]

TRAIN, *VALIDATION = schema.SPLITS
# Fields of the config that change how a training runs, but not its result.
RUNTIME_FIELDS = ("device", "compile", "workers", "max_dropped")


def train_student(
    dataset: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: StudentTrainConfig | str | os.PathLike[str] | None = None,
    *,
    tensorboard: bool = False,
    sound_cache: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
    on_epoch: Callable[[Record], None] = lambda record: None,
    **options: Any,
) -> runs.TrainingResult:
    """Train a student, or resume a training, until its last epoch.

    Args:
        dataset: folder of the dataset.
        audio: folder with the tracks' audio, see `emovox.audio_path`, or of the dataset's sources.
        out: folder of the training; see `train_epochs` for its files.
        config: recipe of the training: a config, or name or path of a recipe file.
        tensorboard: also write curves to `out/tensorboard`.
        sound_cache: folder of `pack_sound`, whose samples are used; what it lacks is packed first.
        say: receives the number of usable tracks per split, as lines of text.
        on_epoch: receives the record of each new epoch, in the main process only.
        options: fields of `StudentTrainConfig`, which override `config`.

    Returns:
        The records of all epochs, those of earlier runs included, and the best checkpoint.

    Raises:
        InputError: the dataset or the folder of audio is missing.
        ConfigError: `out` belongs to another recipe, or the dataset lacks a split.
        CheckError: too many tracks have no usable audio.
        EmovoxError: the training diverged.

    Example:
        >>> config = StudentTrainConfig(width=1 / 16, seconds=1, epochs=1, choose_on="last")
        >>> result = train_student("emovox-demo/dataset", "emovox-demo/corpus", "run", config)
        >>> result.best.as_posix(), len(result.to_pandas())
        ('run/best.safetensors', 1)
    """
    config = read_config(StudentTrainConfig, config, options)
    show = runs.tensorboard_writer(Path(out, "tensorboard")) if tensorboard else None
    for record in train_epochs(dataset, audio, out, config, say, sound_cache):
        on_epoch(record)
        if show:
            show(record)
    if os.environ.get("RANK", "0") != "0":  # another process of `torchrun` writes the log
        return runs.TrainingResult(Path(out), ())
    return runs.read_result(Path(out))


def train_epochs(
    dataset: str | os.PathLike[str],
    audio: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: StudentTrainConfig,
    say: Callable[[str], None] = lambda line: None,
    sound_cache: str | os.PathLike[str] | None = None,
) -> Generator[Record, None, None]:
    """Train a student as `train_student` does; yield a record per epoch, in the main process only.

    Writes to `out`: `best.safetensors` (the epoch with the lowest loss on `config.choose_on`),
    `last.pt` (resume point after each epoch), `log.jsonl`, `config.json` and `dropped.parquet`
    (tracks without usable audio). If `out` holds the resume point of the same recipe, training
    resumes there, and ends as it would have without the interruption. Processes started by
    `torchrun` share each batch; only the main process reads and writes `out`.
    """
    data, root, out = load(dataset), Path(audio), Path(out)
    with join_processes(config.device) as processes, contextlib.ExitStack() as stack:
        check_root(root)
        _check_splits(data, config)
        run = Trainer(config, processes, Outputs(data.emotions))

        def prepare() -> tuple[Splits, Record, Record | None]:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(runs.locked(out))
            fields, splits = dataclasses.asdict(config), {}
            for split in (TRAIN, *(s for s in VALIDATION if s in data.splits)):
                splits[split] = SpeechSegments(data, root, split, **fields)
            recipe = _recipe(config, run.precision, data, splits)
            recipe["recipe"]["encoder"] = run.encoder and run.encoder.config.sha256
            if sound_cache is not None:  # its samples are rounded
                recipe["recipe"]["sound_cache"] = True
            runs.write_or_match_config(out, recipe)
            state = runs.resume(out, run.restore)
            _write_dropped(out, splits, run.failures)
            for split, segments in splits.items():
                say(f"{split}: {segments.scan.summary()}")
                if sound_cache is not None:
                    segments.use(Path(sound_cache), say)
            say(f"losses: of {config.seconds:g} s of a track; random in {TRAIN}, else its middle")
            if data.values:
                say(f"values ({', '.join(data.values)}): not learned; a student learns emotions")
            if run.epoch >= config.epochs:
                say(f"{out / BEST_FILE}: training is already complete")
            targets = [data.target(c.track_id, pool=config.pool) for c in splits[TRAIN].clips]
            prior = softmax(np.stack(targets).astype(np.float64)).mean(axis=0)  # of whole tracks
            return splits, recipe | {"prior": prior.tolist()}, state

        splits, recipe, state = processes.broadcast(prepare)
        if state is not None and not processes.is_main:
            run.restore(state)
        while run.epoch < config.epochs:
            record = _run_epoch(run, splits, recipe, out)
            if processes.is_main:
                _write_dropped(out, splits, run.failures)
                yield record


def _run_epoch(run: Trainer, splits: Splits, recipe: Record, out: Path) -> Record:
    started = time.perf_counter()
    record: Record = {"epoch": run.epoch, "learning_rate": run.learning_rate()}
    record["train_loss"], num_segments = run.train_epoch(splits[TRAIN])
    training = time.perf_counter() - started
    for split in (s for s in splits if s != TRAIN):
        record[f"{split}_loss"] = run.validate(splits[split])
    for failures in run.processes.gather(run.failures):
        run.failures |= failures
    record["tracks_unreadable"] = len(run.failures)
    losses = {name: value for name, value in record.items() if name.endswith("_loss")}
    if not all(map(math.isfinite, losses.values())):
        shown = ", ".join(f"{name} {value}" for name, value in losses.items())
        raise EmovoxError(
            f"epoch {run.epoch}: {shown}: training diverged; try a smaller learning_rate in a new "
            "--out"
        )
    chosen = run.config.choose_on
    objective = -float(run.epoch) if chosen == LAST else record[f"{chosen}_loss"]
    if objective < run.best:
        run.best = objective
        if run.processes.is_main:
            checkpoints.save(out / BEST_FILE, run.model, record | recipe)
    record["segments_per_second"] = num_segments / training
    record["seconds"] = time.perf_counter() - started
    run.epoch += 1
    if run.processes.is_main:
        runs.save_epoch(out, record, run.state())
    return record


def _check_splits(data: Dataset, config: StudentTrainConfig) -> None:
    """Check that the splits exist and suit the timing, before the scan of the audio."""
    for split in (TRAIN, config.choose_on):
        if split != LAST:
            data.check_split(split)
    for split in data.splits:
        data.target(data.tracks[split]["track_id"][0].as_py(), timing=config.timing)


def _recipe(config: StudentTrainConfig, precision: str, data: Dataset, splits: Splits) -> Record:
    """Return everything that the result of a training depends on, without paths and device."""
    values = {k: v for k, v in dataclasses.asdict(config).items() if k not in RUNTIME_FIELDS}
    clips = hashlib.sha256()
    for split, segments in splits.items():
        for clip in segments.clips:
            clips.update(f"{split} {clip.track_id} {clip.duration:.6f}\n".encode())
    return {
        "recipe": values | {"precision": precision},
        "dataset": {
            "name": data.name,
            "version": data.version,
            "emotions": list(data.emotions),
            "frames_sha256": [
                file["content_sha256"]
                for file in data.manifest["files"]
                if file["path"].startswith("frames/")
            ],
        },
        "clips_sha256": clips.hexdigest(),
    }


def _write_dropped(out: Path, splits: Splits, failures: dict[str, Dropped]) -> None:
    dropped = [
        *(item for each in splits.values() for item in each.scan.dropped),
        *failures.values(),
    ]
    rows = [dataclasses.asdict(item) for item in dropped]
    with replace_file(out / schema.DROPPED_FILE) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema.DROPPED), temporary)
