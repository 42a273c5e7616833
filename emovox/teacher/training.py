"""Training of a teacher on labelled faces."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from emovox import runs
from emovox.checkpoints import save
from emovox.config import read_config
from emovox.devices import resolve_device
from emovox.errors import ConfigError, EmovoxError
from emovox.registry import BEST_FILE, Weights
from emovox.scores import fit_temperature, softmax
from emovox.teacher import find_teacher, load_teacher
from emovox.teacher.evaluation import predict, score
from emovox.teacher.face_data import TRAIN, VALIDATION, read_faces
from emovox.teacher.ferplus import Faces
from emovox.teacher.teacher_config import TeacherTrainConfig
from emovox.teacher.teacher_trainer import TeacherTrainer, make_network
from emovox.teacher.triplets import Triplets, read_triplets


def soft_targets(faces: Faces, config: TeacherTrainConfig) -> np.ndarray:
    """Mix the votes with the softmax of the teachers' averaged logits: float32 `[N, E + V]`.

    The teachers have the `distill_weight`, the votes the rest; a face without votes has the target
    of the teachers. The emotions of each row sum to one; values stay as they are. The teachers run
    once on each face and its mirror image, without augmentation, and again in a resumed training.
    """
    found = [
        sum(predict(load_teacher(name, config.device), faces.images, faces.outputs.emotions))
        for name in config.distill_from
    ]
    # `predict` returns the logits of mirror images too.
    logits = np.asarray(sum(found) / (2 * len(found)), np.float32)
    targets = faces.targets.copy()
    votes = targets[:, : logits.shape[1]]
    votes *= 1 - config.distill_weight
    votes += (1 - votes.sum(axis=1, keepdims=True)) * softmax(logits)
    return targets


Record = dict[str, Any]


def train_teacher(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: TeacherTrainConfig | str | os.PathLike[str] | None = None,
    *,
    say: Callable[[str], object] = lambda line: None,
    on_epoch: Callable[[Record], object] = lambda record: None,
    **options: Any,
) -> runs.TrainingResult:
    """Train a teacher, or resume a training, until its last epoch.

    Args:
        data: FERPlus, a folder per emotion, AffectNet's folders, or a table; see `face_data`.
        out: folder of the training; see `train_epochs` for its files.
        config: recipe of the training, or its path or name.
        say: receives messages, as lines of text.
        on_epoch: receives the record of each new epoch.
        **options: fields of `TeacherTrainConfig`, which override `config`.

    Returns:
        The records of all epochs, including those of earlier runs, and the best checkpoint.

    Raises:
        InputError: `data` is none of these.
        ConfigError: `out` belongs to another recipe, or a teacher is missing.
        EmovoxError: the training diverged.

    Example:
        >>> emovox.train_teacher("ferplus.zip", "runs/teacher", epochs=10)  # doctest: +SKIP
        <TrainingResult runs/teacher/best.safetensors: 10 epochs; last: train_loss 0.9122, ...>
    """
    config = read_config(TeacherTrainConfig, config, options)
    if {"distill", "distill_weight"} & options.keys() and not config.distill_from:
        raise ConfigError("distill: no teacher to learn from; pass --distill-from too")
    out = Path(out)
    is_complete = True
    for record in train_epochs(data, out, config, say):
        on_epoch(record)
        is_complete = False
    if is_complete:
        say(f"{out / BEST_FILE}: training is already complete")
    return runs.read_result(out)


def train_epochs(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: TeacherTrainConfig,
    say: Callable[[str], object] = lambda line: None,
) -> Generator[Record, None, None]:
    """Train a teacher as `train_teacher` does; yield one record per epoch.

    Writes to `out`: `best.safetensors` (the weight average of the epoch with the lowest PublicTest
    cross-entropy, which is less noisy than accuracy and suits soft targets), `last.pt` (resume
    point after each epoch), `log.jsonl` and `config.json`. If `out` holds the resume point of the
    same recipe, training resumes there.
    """
    device = torch.device(resolve_device(config.device))
    start, teachers = config.start_from, config.distill_from
    sources = [find_teacher(name) for name in (start, *teachers) if name]
    size = make_network(config).input_size
    train_set = read_faces(data, TRAIN, size, unlabelled=config.unlabelled)
    public = read_faces(data, VALIDATION, size)
    if config.batch_size > len(train_set):
        raise ConfigError(
            f"--batch-size {config.batch_size}: {data} has only {len(train_set)} training faces; "
            "pass a smaller number"
        )
    triplets = read_triplets(Path(config.triplets), size) if config.triplets else None
    if triplets:
        say(triplets.note)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with runs.locked(out):
        recipe = _recipe(config, [train_set, public], sources, triplets)
        runs.write_or_match_config(out, recipe)
        run = TeacherTrainer(config, train_set, device)
        run.triplets = triplets
        if teachers and config.distill == "online":
            run.learn_from(teachers)
        if start:
            run.start_from(start)
        runs.resume(out, run.restore)
        if teachers and config.distill == "once" and run.epoch < config.epochs:
            run.targets = torch.from_numpy(soft_targets(train_set, config))
        total, done = config.epochs * run.steps, run.epoch * run.steps
        # States the remaining time too, from the mean time of the steps.
        with tqdm(None, out.name, total, initial=done, mininterval=10, smoothing=0) as bar:
            run.advance = bar.update
            while run.epoch < config.epochs:
                yield _train_one(run, public, recipe, out)


def _train_one(run: TeacherTrainer, public: Faces, recipe: Record, out: Path) -> Record:
    """Train, score and log one epoch; write the resume point and, if it is the best, weights."""
    started = time.perf_counter()
    loss = run.train_epoch()
    logits = run.logits(public.images)
    if not (math.isfinite(loss) and np.isfinite(logits).all()):
        raise EmovoxError(
            f"epoch {run.epoch}: training diverged (loss {loss}); use a smaller learning_rate and "
            "another --out"
        )
    scores = score(logits, public.targets, public.outputs)
    record: Record = {
        "epoch": run.epoch,
        "train_loss": loss,
        "public_test_accuracy": scores.accuracy,
        "public_test_cross_entropy": scores.cross_entropy,
        **{f"public_test_{name}_rmse": rmse for name, rmse in scores.rmse.items()},
        "seconds": time.perf_counter() - started,
    }
    validation_loss = scores.cross_entropy + sum(rmse**2 for rmse in scores.rmse.values())
    if validation_loss < run.best:
        run.best = validation_loss
        how = {key: value for key, value in record.items() if key != "seconds"}
        emotions = slice(len(public.outputs.emotions))
        labels = public.targets[:, emotions].argmax(axis=1)
        how["temperature"] = fit_temperature(logits[:, emotions], labels)
        # Variances of a Senet, whose inputs are grey levels, may be too large for float16.
        dtype = torch.float16 if run.config.network == "compact" else torch.float32
        save(out / BEST_FILE, run.average, how | recipe, dtype)
    run.epoch += 1
    runs.save_epoch(out, record, run.state())
    return record


def _recipe(
    config: TeacherTrainConfig,
    parts: list[Faces],
    sources: list[Weights],
    triplets: Triplets | None,
) -> Record:
    """Return everything that determines the result of a training, without paths and device."""
    values = asdict(config)
    del values["device"]
    values["start_from"] = Path(config.start_from).name
    values["distill_from"] = [Path(name).name for name in config.distill_from]
    data = hashlib.sha256()
    for part in parts:
        data.update(part.images.tobytes() + part.targets.tobytes())
    if triplets:
        values["triplets"] = Path(config.triplets).name
        data.update(b"".join(map(bytes, (triplets.images, triplets.places, triplets.margins))))
    return {
        "recipe": values,
        "outputs": [*parts[0].outputs.emotions, *parts[0].outputs.values],
        "data_sha256": data.hexdigest(),
        "sources_sha256": [source.sha256 for source in sources],
    }
