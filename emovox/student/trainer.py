"""State of a student's training, its steps and its loss."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from emovox import runs
from emovox.cache import set_compile_cache
from emovox.checkpoints import Network
from emovox.dataset.rows import Dropped
from emovox.devices import resolve_compile, resolve_precision
from emovox.emotions import Outputs
from emovox.errors import ConfigError, EmovoxError
from emovox.media.spectrogram import batch_spectrogram, normalise
from emovox.student.distributed import Processes
from emovox.student.encoder import Encoder, EncoderHead, HeadConfig
from emovox.student.networks import StudentConfig, VGGVox
from emovox.student.segments import SpeechSegments, load_batches
from emovox.student.sound_cache import FULL_SCALE
from emovox.student.student_config import StudentTrainConfig


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, config: StudentTrainConfig
) -> torch.Tensor:
    """Return the loss of each segment, `[B]`, from logits `[B, E]` (paper, section 3.2).

    As in the paper, cross-entropy has no factor T squared; euclidean and huber are summed over the
    emotions.
    """
    if config.loss == "cross-entropy":
        softened = (teacher / config.temperature).softmax(dim=1)
        return F.cross_entropy(student / config.temperature, softened, reduction="none")
    if config.loss == "hard-label":
        return F.cross_entropy(student, teacher.argmax(dim=1), reduction="none")
    if config.loss == "euclidean":
        return 0.5 * (student - teacher).square().sum(dim=1)
    return F.huber_loss(student, teacher, reduction="none").sum(dim=1)


class Trainer:
    """Network, optimiser and progress of a training, in one of the processes that share a batch.

    ConfigError if `batch_size` is not a multiple of the number of processes, or for an unknown
    device, precision or compile mode.
    """

    def __init__(self, config: StudentTrainConfig, processes: Processes, outputs: Outputs) -> None:
        if config.batch_size % processes.count:
            raise ConfigError(
                f"batch_size {config.batch_size} is not a multiple of {processes.count} processes"
            )
        self.config, self.processes = config, processes
        self.device = device = processes.device
        self.precision, self.encoder = resolve_precision(config.precision, str(device)), None
        if config.encoder:
            head = HeadConfig(config.encoder, config.layer, config.head)
            self.precision, self.encoder = "fp32", Encoder(head, str(device))
            self.model: Network = EncoderHead(self.encoder.config, outputs)
        else:
            shape = StudentConfig(config.width, config.conv3, config.conv4)
            self.model = VGGVox(shape, torch.Generator().manual_seed(config.seed), outputs)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward = processes.share(self.model)
        on_gpu = device.type == "cuda"  # on a CPU compiling made no difference in measurements
        if resolve_compile(config.compile, str(device), pays=on_gpu):
            set_compile_cache()
            self.forward = torch.compile(self.forward)  # type: ignore[assignment]
        rate, momentum, decay = config.learning_rate, config.momentum, config.weight_decay
        weights = self.model.parameters()
        self.optimizer = torch.optim.SGD(weights, rate, momentum, weight_decay=decay)
        self.epoch, self.best = 0, math.inf  # completed epochs; lowest loss on `choose_on`
        self.failures: dict[str, Dropped] = {}  # tracks that could not be read during the training

    def learning_rate(self) -> float:
        """Return the learning rate of this epoch, on a log scale from the first to the last."""
        first, last = self.config.learning_rate, self.config.last_learning_rate
        return float(first * (last / first) ** (self.epoch / max(self.config.epochs - 1, 1)))

    def train_epoch(self, segments: SpeechSegments) -> tuple[float, int]:
        """Train one epoch; return the mean loss of a segment and the number of segments."""
        config, processes = self.config, self.processes
        steps = max(1, round(len(segments.clips) * config.epoch_share / config.batch_size))
        first = self.epoch * steps * config.batch_size
        mine = range(first + processes.rank, first + steps * config.batch_size, processes.count)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.forward.train()
        losses = []
        for samples, targets in self._batches(segments, mine, "train"):
            loss = distillation_loss(self._logits(self.forward, samples), targets, config)
            losses.append(loss.detach().mean())
            self.optimizer.zero_grad(set_to_none=True)
            # Gradients are averaged over processes, so a sum is scaled up.
            total = loss.mean() if config.reduction == "mean" else loss.sum() * processes.count
            total.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        mean = float(torch.stack(losses).mean())
        return float(np.mean(processes.gather(mean))), steps * config.batch_size

    @torch.no_grad()
    def validate(self, segments: SpeechSegments) -> dict[str, float]:
        """Return the mean loss of a segment, and the fraction whose largest logits agree."""
        config, processes = self.config, self.processes
        self.forward.eval()
        mine = range(processes.rank, len(segments), processes.count)
        losses, hits = [torch.empty(0)], [torch.empty(0)]
        for samples, targets in self._batches(segments, mine, "validate"):
            logits = self._logits(self.model, samples)
            losses.append(distillation_loss(logits, targets, config).cpu())
            hits.append((logits.argmax(1) == targets.argmax(1)).float().cpu())
        loss, hit = (
            torch.cat([torch.cat(values) for values in processes.gather(batched)])
            for batched in (losses, hits)
        )
        if not len(loss):
            raise EmovoxError(
                f"{segments.root}: no validation track is readable any more; restore the files and "
                "rerun the same command to resume"
            )
        return {"loss": float(loss.mean()), "agreement": float(hit.mean())}

    def save(self, path: Path) -> None:
        """Write the resume point."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "failures": [dataclasses.asdict(failure) for failure in self.failures.values()],
        }
        runs.save_state(path, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Set the state that `save` wrote."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best = state["epoch"], state["best"]
        self.failures = {item["track_id"]: Dropped(**item) for item in state["failures"]}

    def _logits(self, model: torch.nn.Module, samples: torch.Tensor) -> torch.Tensor:
        inputs = (
            self.encoder(samples.cpu()) if self.encoder else normalise(batch_spectrogram(samples))
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: torch.Tensor = model(inputs)
        return logits.float()

    def _batches(
        self, segments: SpeechSegments, positions: Sequence[int], task: str
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield samples and targets on the device; collect tracks that cannot be read."""
        size = max(1, self.config.batch_size // self.processes.count)
        batches = load_batches(segments, positions, size, self.config.workers)
        title = f"epoch {self.epoch + 1}/{self.config.epochs} {task}"
        total = math.ceil(len(positions) / size)
        disable = None if self.processes.is_main else True  # None: unless stderr is a terminal
        shown = {"unit": " batches", "disable": disable, "leave": False}
        for batch in tqdm(batches, title, total, **shown):
            self.failures |= {failure.track_id: failure for failure in batch.failures}
            if segments.is_random and len(batch.samples) < size:
                last = batch.failures[-1]
                raise EmovoxError(
                    f"{segments.root}: no track is readable any more, for example {last.track_id}: "
                    f"{last.message}; restore the files and rerun the same command to resume"
                )
            if len(batch.samples):
                yield self._to_device(batch.samples), self._to_device(batch.targets)

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        tensor = tensor.to(self.device, non_blocking=True)
        return tensor.float() / FULL_SCALE if tensor.dtype == torch.int16 else tensor
