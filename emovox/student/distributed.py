"""Training in several processes.

`torchrun` starts the processes and sets RANK, WORLD_SIZE and LOCAL_RANK; without it, there is
one process.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from emovox.devices import resolve_device
from emovox.errors import ConfigError, EmovoxError

Value = TypeVar("Value")

SET_BY_TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
# Wait of the other processes while the main one scans the audio of a corpus.
SCAN_TIMEOUT = datetime.timedelta(hours=6)


def is_main_process() -> bool:
    """Return True unless `torchrun` started this process with a rank above 0."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
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
