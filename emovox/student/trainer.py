"""State of a student's training, its steps and its loss, in one process or several.

`torchrun` starts several and sets RANK, WORLD_SIZE and LOCAL_RANK.
"""

import contextlib
import dataclasses
import datetime
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from emovox.checkpoints import Network
from emovox.dataset.rows import Dropped
from emovox.devices import resolve_compile, resolve_device, resolve_precision
from emovox.emotions import Outputs
from emovox.errors import ConfigError, EmovoxError
from emovox.files import set_compile_cache
from emovox.media.spectrogram import batch_spectrogram, normalise
from emovox.runs import Progress
from emovox.student.encoder import Encoder, EncoderHead, HeadConfig
from emovox.student.networks import StudentConfig, VGGVox
from emovox.student.segments import SpeechSegments, load_batches
from emovox.student.sound_cache import FULL_SCALE
from emovox.student.student_config import StudentTrainConfig

Value = TypeVar("Value")

SET_BY_TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
# Wait of the other processes while the main one scans the audio of a corpus.
SCAN_TIMEOUT = datetime.timedelta(hours=6)


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process, the one with this rank, in its group of `count` processes."""

    device: torch.device
    rank: int = 0
    count: int = 1
    cpu_group: dist.ProcessGroup | None = None  # gloo, for Python objects

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and messages."""
        return self.rank == 0

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Call `make` in the main process; return its value, or raise its EmovoxError, in all."""
        if self.count == 1:
            return make()
        box: list[Any] = [None]
        try:
            box = [make()] if self.is_main else box
        except EmovoxError as error:
            box = [error]
        dist.broadcast_object_list(box, group=self.cpu_group)
        if isinstance(box[0], EmovoxError):
            raise box[0]
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.cpu_group)
        return values

    def share(self, model: nn.Module) -> nn.Module:
        """Wrap a model on the device so that its gradients are averaged over all processes.

        Batch normalisation is changed in place to use the batch of all processes.
        """
        if self.count == 1:
            return model
        if self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return DistributedDataParallel(model, [self.device])
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = CpuSyncBatchNorm
        return DistributedDataParallel(model)


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for CPUs; torch's own requires a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        total: Callable[[Tensor], Tensor] = _Sum.apply
        count = total(torch.tensor(float(x.numel() // x.shape[1])))
        values = x.float()
        mean = total(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = total(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """Sum of a tensor over all processes, forward and backward.

    torch's own differentiable all_reduce is deprecated or private, depending on the release.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _Sum.forward(ctx, gradient)


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the other processes of the training, if `torchrun` started any.

    The devices `auto` and `cuda` select one GPU per process. ConfigError if there is no such device
    or fewer GPUs than processes; EmovoxError if another process ends.
    """
    try:
        yield (processes := _join(device))
        if processes.cpu_group is not None:
            # Not after an error: this would wait for processes that may be waiting for this one.
            dist.destroy_process_group()
    except RuntimeError as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        if any(isinstance(e, dist.DistError) or "gloo" in str(e) for e in chain):
            raise EmovoxError(
                "another process of this training ended; fix the error that it printed, then rerun "
                "the same command to resume"
            ) from error
        raise


def _join(device: str) -> Processes:
    resolved = resolve_device(device)
    if not os.environ.keys() >= SET_BY_TORCHRUN:
        return Processes(torch.device(resolved))
    if resolved == "cuda":
        resolved = resolve_device(f"cuda:{int(os.environ['LOCAL_RANK'])}")
    elif resolved != "cpu" and int(os.environ["WORLD_SIZE"]) > 1:
        raise ConfigError(f"device {device!r}: one GPU for several processes; use cuda")
    if resolved != "cpu":
        torch.cuda.set_device(resolved)  # before NCCL starts: its default is the first GPU
    dist.init_process_group("gloo" if resolved == "cpu" else "nccl")
    cpu_group = dist.new_group(backend="gloo", timeout=SCAN_TIMEOUT)
    rank, count = dist.get_rank(), dist.get_world_size()
    return Processes(torch.device(resolved), rank, count, cpu_group)  # type: ignore[arg-type]


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


class Trainer(Progress):
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
    def validate(self, segments: SpeechSegments) -> float:
        """Return the mean loss of a segment."""
        processes = self.processes
        self.forward.eval()
        mine = range(processes.rank, len(segments), processes.count)
        losses = [torch.empty(0)]
        for samples, targets in self._batches(segments, mine, "validate"):
            loss = distillation_loss(self._logits(self.model, samples), targets, self.config)
            losses.append(loss.cpu())
        found = torch.cat([torch.cat(values) for values in processes.gather(losses)])
        if not len(found):
            raise EmovoxError(
                f"{segments.root}: no validation track is readable any more; restore the files and "
                "rerun the same command to resume"
            )
        return float(found.mean())

    def state(self) -> dict[str, Any]:
        """Return the content of the resume point."""
        failures = [dataclasses.asdict(failure) for failure in self.failures.values()]
        return super().state() | {"failures": failures}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set what `state` returned."""
        super().restore(state)
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
