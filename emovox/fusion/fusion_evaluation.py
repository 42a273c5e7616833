"""Scores of fusions on a split of a dataset, with an input missing, and post-processed."""

import json
import os
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from emovox import checkpoints
from emovox.charts import chart_file
from emovox.config import read_config
from emovox.corpus.splits import TRAIN
from emovox.dataset.reader import load
from emovox.devices import resolve_device
from emovox.errors import CheckError, ConfigError, InputError
from emovox.files import replace_file, write_text
from emovox.fusion.fusion_config import FusionEvaluateConfig, FusionTrainConfig
from emovox.fusion.fusion_network import (
    ARCHITECTURES,
    INPUTS,
    FusionNetwork,
    from_sums,
    predict,
    score,
    sums,
)
from emovox.fusion.sequences import Reader, Sequence, Targets, read_targets
from emovox.packages import DataFrame, data_frame
from emovox.registry import Registry, read_header
from emovox.scores import MIN_IDENTITIES, ROUNDS, Interval, interval

FUSIONS = Registry("fusion", {})
NAMES = ("face", "sound")  # of the inputs
VALUE_SCORES, CLASS_SCORES = ("CCC", "Pearson", "RMSE"), ("accuracy", "UAR")
WIDTHS = (3, 5, 9, 15, 25, 51)  # steps of a moving average
SHIFTS = np.arange(-20, 21) / 10  # seconds
NUM_TRACES = 6  # tracks that are drawn
COLUMNS = ["training", "inputs", "output", "score", *Interval.__dataclass_fields__]
Curves = list[np.ndarray]


@dataclass(frozen=True, repr=False)
class FusionEvaluation:
    """Scores of fusions on one split.

    Attributes:
        title: training, split and dataset.
        rows: training, its inputs or a step of post-processing, output, score, and its interval.
        tracks: of the split.
        predictions: of each training: float32 `[T, V]` per track.
        names: of the values or classes.
    """

    title: str
    rows: list[tuple[str, str, str, str, Interval]]
    tracks: list[Sequence]
    predictions: dict[str, Curves]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<FusionEvaluation {self.title}: {self.rows[0][3]} {self.rows[0][4]}>"

    def to_pandas(self) -> DataFrame:
        """Return a row per training, inputs, output and score, with the 95 % interval."""
        return data_frame([(*r, *astuple(i)) for *r, i in self.rows], COLUMNS)

    def as_json(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        rows = [dict(zip(COLUMNS, row, strict=False)) | i.as_json() for *row, i in self.rows]
        return {"title": self.title, "scores": rows}

    def summary(self) -> str:
        """Return the scores as lines of text."""
        table = [(*row, str(estimate)) for *row, estimate in self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        note = f"intervals: 95 % of samples of identities; ?: fewer than {MIN_IDENTITIES} of them"
        return "\n".join([self.title, *lines, note])

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write `evaluation.json`, `predictions.parquet` and, of values, traces of some tracks."""
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "evaluation.json", json.dumps(self.as_json(), indent=2) + "\n")
        series = {"target": [s.target for s in self.tracks], **self.predictions}
        columns: dict[str, Any] = {"track_id": [s.track_id for s in self.tracks for _ in s.times]}
        columns["seconds"] = np.concatenate([s.times for s in self.tracks])
        for training, curves in series.items():
            named = zip(self.names, np.concatenate(curves).T, strict=True)
            columns |= {f"{training}_{name}": column for name, column in named}
        with replace_file(folder / "predictions.parquet") as temporary:
            pq.write_table(pa.table(columns), temporary)
        are_classes = self.rows[0][3] in CLASS_SCORES
        for place, track in enumerate(() if are_classes else self.tracks[:NUM_TRACES]):
            for value, name in enumerate(self.names):
                title, path = f"{name} of {track.track_id}", folder / f"{name}-{place + 1}.png"
                with chart_file(path, title, 9, 3) as axes:
                    for training, curves in series.items():
                        axes.plot(track.times, curves[place][:, value], label=training)
                    axes.set_xlabel("seconds")
                    axes.legend()


def evaluate_fusion(
    run: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    targets: str | os.PathLike[str],
    audio: str | os.PathLike[str] | None = None,
    config: FusionEvaluateConfig | str | os.PathLike[str] | None = None,
    *,
    against: Many[str | os.PathLike[str]] = (),
    **options: Any,
) -> FusionEvaluation:
    """Score a fusion over all steps of a split, with 95 % intervals over identities.

    Its scores are given with both inputs, without the face and without the sound; then, for values,
    after each step of post-processing that raises the CCC of the development part of the training:
    smoothing, centring, scaling and a shift in time. The delay of the annotators is undone first.

    Args:
        run: folder or checkpoint of the training.
        dataset: folder of the dataset of the training, or of another one.
        targets: as in the training.
        audio: folder with the tracks' audio; not needed for `video` alone.
        config: options of the evaluation, or a recipe with them.
        against: other trainings on the same targets, such as the sound alone. They are scored too,
            and `run` minus each of them.
        options: fields of `FusionEvaluateConfig`, which override `config`.

    Raises:
        ConfigError: the dataset lacks the split, two trainings have one name, or no student or
            audio is given.
        InputError: a file is missing or unreadable, or a training has other targets or steps, or
            another student.
        CheckError: no track of the split has a target.

    Example:
        >>> from emovox import train_fusion
        >>> how = {"fusion": "video", "epochs": 2}
        >>> run = train_fusion("emovox-demo/dataset", "labels", None, "scored", **how)
        >>> result = evaluate_fusion("scored", "emovox-demo/dataset", "labels")
        >>> [score for _, _, _, score, _ in result.rows]
        ['accuracy', 'UAR']
    """
    config = read_config(FusionEvaluateConfig, config, options)
    data = load(dataset)
    goals = read_targets(targets, data)
    weights = {each.name: each for each in map(FUSIONS.find, (run, *against))}
    if len(weights) <= len(against):
        raise ConfigError(f"trainings {', '.join(weights)}: two have the same name; rename one")
    trainings = {name: _read_training(each.path) for name, each in weights.items()}
    heard = max(trainings.values(), key=lambda training: training["sound_sha256"] is not None)
    recipe = {**heard["recipe"], "sound": config.sound, "device": config.device}
    reader = Reader(data, goals, audio, FusionTrainConfig(**recipe))
    for name, training in trainings.items():
        if training["outputs"] != goals.names or training["recipe"]["step"] != reader.step:
            raise InputError(f"{name}: has other targets or steps than {', '.join(goals.names)}")
        if training["sound_sha256"] not in (None, reader.sound_sha256):
            raise InputError(f"{config.sound}: {name} was trained with another network for sound")
    tracks = reader.read(config.split)
    if not tracks:
        raise CheckError(f"{targets}: no target of a track of {config.split}")
    dev = reader.read(TRAIN, heard["development"]) if TRAIN in data.splits else []
    scorer = _Scorer(tracks, goals)
    device = torch.device(resolve_device(config.device))
    predictions, samples = {}, []
    for name, training in trainings.items():
        net = checkpoints.load(weights[name].path, ARCHITECTURES).to(device)
        run_on = partial(_predict, net, training["recipe"]["delay"], device)
        predictions[name], used = run_on(tracks), net.config.inputs
        samples.append(scorer.add(name, " and ".join(NAMES[i] for i in used), predictions[name]))
        for place in INPUTS if len(used) > 1 else ():
            scorer.add(name, f"without {NAMES[place]}", run_on(tracks, place))
        if dev and not goals.are_classes:
            for step, curves in _post_process(dev, run_on(dev), tracks, predictions[name]):
                scorer.add(name, step, curves)
    first, *others = trainings
    for name, other in zip(others, samples[1:], strict=True):
        scorer.add_row(f"{first} minus {name}", "", (samples[0] - other)[:, :1])
    title = f"{first} on {config.split} of {data.name} {data.version}: {scorer.counts}"
    return FusionEvaluation(title, scorer.rows, tracks, predictions, goals.names)


def _read_training(path: Path) -> dict[str, Any]:
    try:
        training: dict[str, Any] = json.loads(read_header(path)["training"])
        return training | {"recipe": {**training["recipe"]}, "outputs": (*training["outputs"],)}
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint of train-fusion") from error


class _Scorer:
    """Scores of tracks with samples of whole identities, collected as rows of a result."""

    def __init__(self, tracks: list[Sequence], targets: Targets) -> None:
        self._tracks, self._targets = tracks, targets
        self.rows: list[tuple[str, str, str, str, Interval]] = []
        names, self._place = np.unique([t.identity for t in tracks], return_inverse=True)
        drawn = np.random.default_rng(0).integers(len(names), size=(ROUNDS, len(names)))
        counts = [np.bincount(row, minlength=len(names)) for row in drawn]
        self._weights = np.stack([np.ones(len(names)), *counts])[:, self._place]
        self._reliable = len(names) >= MIN_IDENTITIES
        self.counts = f"{len(tracks)} tracks, {len(names)} identities"

    def add(self, name: str, inputs: str, curves: Curves) -> np.ndarray:
        """Add the scores of predictions; return them `[1 + R, S, V]`, all first."""
        are_classes = self._targets.are_classes
        parts = [sums(x, t.target, are_classes) for x, t in zip(curves, self._tracks, strict=True)]
        samples = from_sums(np.tensordot(self._weights, np.stack(parts), 1), are_classes)
        self.add_row(name, inputs, samples)
        return samples

    def add_row(self, name: str, inputs: str, samples: np.ndarray) -> None:
        """Add rows with the first of the samples and the interval of the others."""
        values = ("",) if self._targets.are_classes else self._targets.names
        kinds = CLASS_SCORES if self._targets.are_classes else VALUE_SCORES
        for s in range(samples.shape[1]):
            for v, value in enumerate(values):
                estimate = interval(samples[0, s, v], samples[1:, s, v], self._reliable)
                self.rows.append((name, inputs, value, kinds[s], estimate))


def _predict(
    net: FusionNetwork,
    delay: float,
    device: torch.device,
    sequences: list[Sequence],
    without: int | None = None,
) -> Curves:
    """Return the predictions at the steps themselves, without one input if asked."""
    found = predict(net, sequences, device, without)
    return [_move(s.times, x, delay) for s, x in zip(sequences, found, strict=True)]


def _move(times: np.ndarray, curve: np.ndarray, seconds: float) -> np.ndarray:
    """Return predictions `[T, V]` that many seconds later; the first or last one fills the gap."""
    columns = [np.interp(times - seconds, times, column) for column in curve.T]
    return np.stack(columns, axis=1).astype(np.float32)


def _smooth(times: np.ndarray, curve: np.ndarray, width: int) -> np.ndarray:
    """Return the centred moving average of `[T, V]` over at most `width` steps."""
    return pd.DataFrame(curve).rolling(width, min_periods=1, center=True).mean().to_numpy("f4")


def _post_process(
    dev: list[Sequence], own: Curves, tracks: list[Sequence], curves: Curves
) -> Iterator[tuple[str, Curves]]:
    """Yield each step of post-processing and its result on `curves`, chosen on `own` of `dev`."""
    targets = [s.target for s in dev]
    y = np.concatenate(targets)
    known = ~np.isnan(y).any(axis=1)
    mean, deviation = y[known].mean(axis=0), y[known].std(axis=0)
    # From times `[T]` and predictions `[T, V]`, of a mean and a deviation, to other predictions.
    steps: dict[str, Callable[..., dict[str, Callable[..., np.ndarray]]]] = {
        "smoothing": lambda *_: {f" over {w} steps": partial(_smooth, width=w) for w in WIDTHS},
        "centring": lambda level, _: {"": lambda _, x: x - level + mean},
        "scaling": lambda level, d: {"": lambda _, x: (x - level) * (deviation / d) + level},
        "shift": lambda *_: {f" by {d:g} s": partial(_move, seconds=d) for d in SHIFTS},
    }
    for step, choices in steps.items():
        x = np.concatenate(own)[known]
        before, better = score(own, targets, False), None
        for how, change in choices(x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)).items():
            changed = [change(s.times, curve) for s, curve in zip(dev, own, strict=True)]
            if (after := score(changed, targets, False)) > before:
                before, better = after, (how, change, changed)
        if better:
            how, change, own = better
            curves = [change(s.times, curve) for s, curve in zip(tracks, curves, strict=True)]
            yield f"+ {step}{how}", curves
