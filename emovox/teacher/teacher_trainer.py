"""State of a teacher's training, and its steps."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emovox import runs
from emovox.errors import InputError
from emovox.teacher import find_teacher, teacher_checkpoint
from emovox.teacher.augmentation import augment, cut_out
from emovox.teacher.compact import CompactConfig, CompactNet, standardise
from emovox.teacher.teacher_config import TeacherTrainConfig

STATEFUL = ("model", "average", "optimizer")  # attributes of a trainer with a state_dict


class TeacherTrainer:
    """Network, moving average, optimiser and progress of a training.

    Images are grey faces, uint8 `[N, 48, 48]`; targets are distributions over the emotions, float32
    `[N, 8]`.
    """

    def __init__(
        self,
        config: TeacherTrainConfig,
        images: np.ndarray,
        targets: np.ndarray,
        device: torch.device,
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
        # Matrices and kernels decay; biases and batch normalisation do not.
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.model.parameters() if p.ndim > 1]},
            {"params": [p for p in self.model.parameters() if p.ndim <= 1], "weight_decay": 0},
        ]
        rate, momentum, decay = config.learning_rate, config.momentum, config.weight_decay
        self.optimizer = torch.optim.SGD(groups, rate, momentum, weight_decay=decay, nesterov=True)
        self.epoch, self.best = 0, math.inf  # completed epochs; lowest cross-entropy on PublicTest

    def start_from(self, source: str | Path) -> None:
        """Copy the weights of a checkpoint; InputError if its network has another shape."""
        path = find_teacher(source).path
        net = teacher_checkpoint.load(path)
        if type(net) is not CompactNet or net.config != self.model.config:
            raise InputError(f"{path}: start_from needs a network of the same shape")
        for model in (self.model, self.average):
            model.load_state_dict(net.state_dict())

    def train_epoch(self) -> float:
        """Train one pass over the faces; return the mean loss."""
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
            # From random weights the average follows fast at first; otherwise decay is constant.
            warm = 1.0 if config.start_from else done / (done + 20)
            _update_average(self.average, self.model, min(config.average_decay, warm))
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the average's logits float32 `[N, 8]` of grey faces uint8, computed in float32."""
        logits = []
        for start in range(0, len(images), 256):
            faces = torch.from_numpy(images[start : start + 256]).unsqueeze(1)
            faces = standardise(faces.to(self.device, torch.float32))
            faces = faces.contiguous(memory_format=torch.channels_last)
            logits.append(self.average(faces).float().cpu())
        return torch.cat(logits).numpy()

    def save(self, path: Path) -> None:
        """Write the resume point."""
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        state |= {"epoch": self.epoch, "best": self.best, "torch_rng": torch.get_rng_state()}
        state["generator"] = self.generator.get_state()
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        runs.save_state(path, state)

    def resume(self, path: Path) -> None:
        """Load the resume point, if there is one; InputError if it is damaged."""
        with runs.saved_state(path) as state:
            if state is None:
                return
            for name in STATEFUL:
                getattr(self, name).load_state_dict(state[name])
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["torch_rng"])
            if self.device.type == "cuda" and "cuda_rng" in state:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
            self.epoch, self.best = state["epoch"], state["best"]


def _learning_rate(config: TeacherTrainConfig, epoch: float) -> float:
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
