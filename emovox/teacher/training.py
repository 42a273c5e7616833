"""Training of the compact teacher on FERPlus."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emovox.config import read_config
from emovox.dataset.files import replace_file, write_text
from emovox.errors import ConfigError, EmovoxError
from emovox.teacher import checkpoints, ferplus
from emovox.teacher.augmentation import augment, cut_out
from emovox.teacher.compact import CompactConfig, CompactNet, standardise
from emovox.teacher.devices import resolve_device
from emovox.teacher.distillation import soft_targets
from emovox.teacher.recipe import TrainConfig
from emovox.teacher.scores import score

Record = dict[str, Any]


def train(
    config: TrainConfig, data: str | Path, out: str | Path, recipes: Path = Path()
) -> Generator[Record, None, None]:
    """Train a compact teacher; yield one record per epoch.

    Writes to `out`: `best.safetensors` (the weight average of the epoch with the best PublicTest
    accuracy), `last.pt` (resume point after each epoch), `log.jsonl` and `config.json`. If `out`
    holds the resume point of the same recipe, training goes on after it. Teachers that are recipes
    themselves are trained first, each in a folder of its own under `out`.

    Args:
        config: the recipe.
        data: FERPlus, see `ferplus.read`.
        out: folder, made if it is not there.
        recipes: folder that paths in `config.distill_from` are relative to.

    Raises:
        InputError: `data` is not FERPlus.
        ConfigError: `out` belongs to another recipe, or a teacher is not there.
        EmovoxError: the training diverged.
    """
    device = torch.device(resolve_device(config.device))
    train_set, public = ferplus.read(data, "train"), ferplus.read(data, "public_test")
    if config.batch_size > len(train_set):
        raise ConfigError(
            f"--batch-size {config.batch_size}: {data} holds only {len(train_set)} training faces"
        )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _claim_folder(config, out)
    targets = train_set.targets
    if config.distill_from:
        teachers = yield from _teachers(config, data, out, recipes)
        targets = soft_targets(train_set, teachers, config.distill_weight, out, config.device)
    run = _Run(config, train_set.images, targets, device)
    run.resume(out / "last.pt")
    _trim_log(out / "log.jsonl", run.epoch)
    while run.epoch < config.epochs:
        started = time.perf_counter()
        loss = run.train_epoch()
        if not math.isfinite(loss):
            raise EmovoxError(
                f"epoch {run.epoch}: the loss is {loss}: training diverged; try a smaller "
                "learning_rate in a new --out"
            )
        scores = score(_logits(run.average, public.images, device), public.targets)
        record: Record = {
            "epoch": run.epoch,
            "train_loss": loss,
            "public_test_accuracy": scores.accuracy,
            "public_test_cross_entropy": scores.cross_entropy,
            "seconds": time.perf_counter() - started,
        }
        if scores.accuracy > run.best:
            run.best = scores.accuracy
            how = {key: record[key] for key in ("epoch", "public_test_accuracy")}
            how["recipe"] = dataclasses.asdict(config)
            checkpoints.save(out / "best.safetensors", run.average, how)
        with (out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")
        run.epoch += 1
        run.save(out / "last.pt")
        yield record


def _teachers(
    config: TrainConfig, data: str | Path, out: Path, recipes: Path
) -> Generator[Record, None, list[str | Path]]:
    """Find the teachers to learn from; train those that are recipes, and yield their records."""
    teachers: list[str | Path] = []
    for name in config.distill_from:
        beside = recipes / name
        if not name.endswith(".toml"):
            teachers.append(beside if beside.is_file() else name)
            continue
        recipe = read_config(TrainConfig, beside, {"device": config.device})
        folder = out / beside.stem
        for record in train(recipe, data, folder, beside.parent):
            yield {"recipe": beside.stem, **record}
        teachers.append(folder / "best.safetensors")
    return teachers


class _Run:
    """Everything that changes from step to step, and goes on unchanged after an interruption."""

    def __init__(
        self, config: TrainConfig, images: np.ndarray, targets: np.ndarray, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        self.images = torch.from_numpy(images).unsqueeze(1)
        self.targets = torch.from_numpy(targets)
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        shape = CompactConfig(config.stem, config.widths, config.depths, dropout=config.dropout)
        self.model = CompactNet(shape).to(device)
        self.model.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        self.optimizer = torch.optim.SGD(
            _parameter_groups(self.model, config.weight_decay),
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=True,
        )
        self.epoch, self.best = 0, -1.0  # epochs done; the best accuracy on PublicTest so far

    def train_epoch(self) -> float:
        """One pass over the faces; returns the mean loss."""
        config, device = self.config, self.device
        self.model.train()
        losses = []
        order = torch.randperm(len(self.images), generator=self.generator)
        steps = len(order) // config.batch_size
        for i in range(steps):
            batch = order[i * config.batch_size : (i + 1) * config.batch_size]
            faces = self.images[batch].to(device, torch.float32)
            faces = standardise(augment(faces, config, self.generator))
            faces = cut_out(faces, config, self.generator)
            for group in self.optimizer.param_groups:
                group["lr"] = _learning_rate(config, self.epoch + i / steps)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                logits = self.model(faces.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), self.targets[batch].to(device))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            done = self.epoch * steps + i + 1
            _update_average(self.average, self.model, min(config.average_decay, done / (done + 20)))
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def save(self, path: Path) -> None:
        """Write the resume point."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "epoch": self.epoch,
            "best": self.best,
        }
        with replace_file(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Go on from the resume point, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        self.epoch, self.best = state["epoch"], state["best"]


@torch.inference_mode()
def _logits(model: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Logits float32 `[N, 8]` of grey faces uint8 `[N, 48, 48]`, in float32 arithmetic."""
    logits = []
    for start in range(0, len(images), 256):
        faces = torch.from_numpy(images[start : start + 256]).unsqueeze(1)
        faces = standardise(faces.to(device, torch.float32))
        logits.append(model(faces.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(logits).numpy()


def _claim_folder(config: TrainConfig, out: Path) -> None:
    """Write the recipe into `out`, or make sure that the one already there is the same."""
    recipe = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    path = out / "config.json"
    if path.exists() and path.read_text() != recipe:
        raise ConfigError(f"{out}: holds another recipe's training; choose another --out")
    path.write_text(recipe)


def _trim_log(path: Path, num_epochs: int) -> None:
    """Keep the first epochs of a log: one written just before a kill will be written again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[:num_epochs]))


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels, but neither biases nor batch normalisation."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0},
    ]


def _learning_rate(config: TrainConfig, epoch: float) -> float:
    if epoch < config.warmup_epochs:
        return config.learning_rate * (epoch + 0.01) / config.warmup_epochs
    done = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    kept, new = average.state_dict(), model.state_dict()
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            tensor.lerp_(new[name], 1 - decay)
