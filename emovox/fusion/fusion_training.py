"""Training of a fusion on a dataset, the sound of its tracks, and targets."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from emovox import checkpoints, runs
from emovox.config import read_config
from emovox.corpus.splits import TRAIN
from emovox.dataset.reader import load
from emovox.devices import resolve_device
from emovox.errors import CheckError, EmovoxError
from emovox.fusion.fusion_config import FusionTrainConfig
from emovox.fusion.fusion_network import (
    FusionConfig,
    FusionNetwork,
    fusion_loss,
    pad,
    predict,
    score,
)
from emovox.fusion.sequences import Reader, Sequence, Targets, divide_identities, read_targets
from emovox.registry import BEST_FILE
from emovox.student.training import Record

DELAYS = np.arange(61) / 10  # seconds
RIDGE = 1.0  # of the linear map that finds the delay


def train_fusion(
    dataset: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    audio: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    config: FusionTrainConfig | str | os.PathLike[str] | None = None,
    *,
    tensorboard: bool = False,
    say: Callable[[str], None] = lambda line: None,
    on_epoch: Callable[[Record], None] = lambda record: None,
    **options: Any,
) -> runs.TrainingResult:
    """Train a network on face and sound over time, or resume a training, until its last epoch.

    The loss of values is 1 - CCC over all steps of a batch, that of classes the cross-entropy of
    the mean logits of a track. Some identities of train are not trained on: on them the delay of
    the annotators and the best epoch are chosen. `out` gets the files of `train_student`.

    Args:
        dataset: folder of the dataset; its embeddings are the face, or its logits without them.
        targets: `labels` or `values` of the dataset, or files, see `read_targets`.
        audio: folder with the tracks' audio, see `emovox.audio_path`; not used for `video`.
        out: folder of the training.
        config: recipe of the training: a config, or name or path of a recipe file.
        tensorboard: also write curves to `out/tensorboard`.
        say: receives messages, as lines of text.
        on_epoch: receives the record of each new epoch.
        options: fields of `FusionTrainConfig`, which override `config`.

    Raises:
        InputError: dataset, targets, student or audio are missing or unreadable.
        ConfigError: `out` belongs to another recipe, or no student or audio is given.
        CheckError: the training or the development part has no targets.
        EmovoxError: the training diverged.

    Example:
        >>> how = {"fusion": "video", "epochs": 2}
        >>> run = train_fusion("emovox-demo/dataset", "labels", None, "fused", **how)
        >>> run.best.name, len(run.records)
        ('best.safetensors', 2)
    """
    config, out = read_config(FusionTrainConfig, config, options), Path(out)
    data = load(dataset)
    goals = read_targets(targets, data)
    reader = Reader(data, goals, audio, config, say)
    own, others = divide_identities(data, config.development)
    train, dev = reader.read(TRAIN, own), reader.read(TRAIN, others)
    if not train or not dev:
        raise CheckError(f"{targets}: no targets to train on, or none of the development part")
    delay = config.delay if config.delay is not None else find_delay(train, dev, goals)
    say(f"delay of the targets: {delay:g} s")
    known = {"seconds": reader.seconds, "step": reader.step, "delay": delay}
    values = {k: v for k, v in asdict(config).items() if k not in ("device", "sound")}
    recipe: Record = {
        "recipe": values | known,
        "sound_sha256": reader.sound_sha256,
        "dataset": [f["content_sha256"] for f in data.manifest["files"] if "frames/" in f["path"]],
        "outputs": list(goals.names),
        "development": sorted(others),
    }
    out.mkdir(parents=True, exist_ok=True)
    with runs.locked(out):
        runs.write_or_match_config(out, recipe)
        show = runs.tensorboard_writer(out / "tensorboard") if tensorboard else on_epoch
        run = _Run(config, goals, delayed(train, goals, delay), delayed(dev, goals, delay))
        runs.resume(out, run.restore)
        if run.epoch >= config.epochs:
            say(f"{out / BEST_FILE}: training is already complete")
        while run.epoch < config.epochs:
            record = run.train_epoch()
            if record["development_loss"] < run.best:
                run.best = record["development_loss"]
                checkpoints.save(out / BEST_FILE, run.model, record | recipe, torch.float32)
            runs.save_epoch(out, record, run.state())
            for each in {on_epoch, show}:
                each(record)
    return runs.read_result(out)


def delayed(sequences: list[Sequence], targets: Targets, delay: float) -> list[Sequence]:
    """Return the sequences with the targets that follow each step by `delay` seconds."""
    return [replace(s, target=targets.at(s.track_id, s.times + delay)) for s in sequences]


def find_delay(train: list[Sequence], dev: list[Sequence], targets: Targets) -> float:
    """Return the delay with the highest CCC of a linear map on the development part.

    The map, by ridge regression from the features of a step to the targets after the delay, is
    fitted on the training part for each of `DELAYS`. Classes have no delay.
    """
    inputs = [[np.hstack(s.features) for s in part] for part in (train, dev)]
    whole = np.concatenate(inputs[0])
    mean, deviation = np.nanmean(whole, axis=0), np.nanstd(whole, axis=0) + 1e-6
    x, x_dev = ([np.nan_to_num((f - mean) / deviation) for f in part] for part in inputs)

    def score_of(delay: float) -> float:
        y, y_dev = ([s.target for s in delayed(part, targets, delay)] for part in (train, dev))
        known = ~np.isnan(joined := np.concatenate(y)).any(axis=1)
        if not known.any():  # the tracks are shorter
            return -1.0
        rows, goals = np.concatenate(x)[known], joined[known]
        centre = goals.mean(axis=0)
        squares = rows.T @ rows + RIDGE * np.eye(rows.shape[1])
        weights = np.linalg.solve(squares, rows.T @ (goals - centre))
        return float(
            np.nan_to_num(score([each @ weights + centre for each in x_dev], y_dev, False))
        )

    return 0.0 if targets.are_classes else float(max(DELAYS, key=score_of))


@dataclass
class _Run(runs.Progress):
    """Network, optimiser and progress of a training."""

    config: FusionTrainConfig
    targets: Targets
    train: list[Sequence]
    dev: list[Sequence]

    def __post_init__(self) -> None:
        config, names = self.config, self.targets.names
        self.device = torch.device(resolve_device(config.device))
        torch.manual_seed(config.seed)
        sizes = tuple(features.shape[1] for features in self.train[0].features)
        shape = FusionConfig(names, sizes, config.fusion, config.hidden, config.dropout)
        self.model = FusionNetwork(shape)
        for place in self.model.config.inputs:
            frames = np.concatenate([s.features[place] for s in self.train])
            self.model.parts[place].fit(torch.from_numpy(frames))  # type: ignore[operator]
        self.model.to(self.device)
        self.optimizer = torch.optim.RMSprop(self.model.parameters(), config.learning_rate)

    def train_epoch(self) -> Record:
        """Train one epoch; return its record, with the loss of the development part."""
        started, config, are_classes = time.perf_counter(), self.config, self.targets.are_classes
        rng = np.random.default_rng([config.seed, self.epoch])  # a resume point needs no state
        torch.manual_seed(int(rng.integers(2**62)))
        self.model.train()
        losses, order = [], rng.permutation(len(self.train))
        for chosen in np.array_split(order, math.ceil(len(order) / config.batch_size)):
            features, lengths, target = pad([self.train[i] for i in chosen], self.device)
            for each in features if len(self.model.config.inputs) > 1 else ():
                each[torch.from_numpy(rng.random(len(chosen)) < config.hide)] = math.nan
            loss = fusion_loss(self.model(features, lengths), target, are_classes)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            losses.append(float(loss.detach()))
        found = [torch.from_numpy(x) for x in predict(self.model, self.dev, self.device)]
        _, _, target = pad(self.dev, torch.device("cpu"))
        development = float(fusion_loss(pad_sequence(found, True), target, are_classes))
        record: Record = {"epoch": self.epoch, "train_loss": float(np.mean(losses))}
        record["development_loss"] = development
        if not math.isfinite(record["train_loss"] + development):
            advice = "try a smaller learning_rate in a new --out"
            raise EmovoxError(f"epoch {self.epoch}: training diverged; {advice}")
        self.epoch += 1
        return record | {"seconds": time.perf_counter() - started}
