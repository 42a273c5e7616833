"""Training in several processes: which one this is, and what they tell each other.

`torchrun` starts the processes and sets RANK, WORLD_SIZE and LOCAL_RANK; without it there is one.
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
PATIENCE = datetime.timedelta(hours=6)  # of a process whose leader is looking through a corpus


@dataclass(frozen=True)
class Processes:
    """This process among those of the training.

    Attributes:
        device: where it computes.
        rank: number of this process; 0 leads.
        count: number of processes.
        talk: group in which Python values travel, apart from gradients; None for all.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    talk: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def from_leader(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the leader, in every process; or the EmovoxError that it raises."""
        if self.count == 1:
            return make()
        box: list[Any] = [None]
        if self.leads:
            try:
                box = [make()]
            except EmovoxError as error:
                box = [error]
        dist.broadcast_object_list(box, group=self.talk)
        if isinstance(box[0], EmovoxError):
            raise box[0]
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.talk)
        return values

    def share(self, model: nn.Module) -> nn.Module:
        """The model, on the device, whose gradients are the means over all processes."""
        if self.count == 1:
            return model
        on_gpu = self.device.type == "cuda"
        return DistributedDataParallel(model, [self.device] if on_gpu else None)

    def synchronise(self, model: nn.Module) -> None:
        """Let batch normalisation, in place, see the batch of all processes."""
        if self.count == 1:
            return
        if self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = CpuSyncBatchNorm


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` where there is no GPU, which torch's own needs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        count = _sum(torch.tensor(float(x.numel() // x.shape[1])))
        values = x.float()
        mean = _sum(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum of the parts of all processes; so is the gradient of each part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum(part: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(part)  # type: ignore[no-untyped-call]
    return total


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Meet the other processes that `torchrun` started, if it did.

    Args:
        device: as for `resolve_device`; `auto` and `cuda` give each process a GPU of its own.

    Raises:
        ConfigError: no such device, or fewer GPUs than processes.
        EmovoxError: another process ended in the midst of it.
    """
    if not os.environ.keys() >= SET_BY_TORCHRUN:
        yield Processes(torch.device(resolve_device(device)))
        return
    place = _own_device(device, int(os.environ["LOCAL_RANK"]))
    if place.type == "cuda":
        torch.cuda.set_device(place)  # before NCCL, which would take the first GPU for all
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    talk = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Processes(place, dist.get_rank(), dist.get_world_size(), talk)  # type: ignore[arg-type]
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise EmovoxError(
            "another process of this training ended; see what it said, and run it again to go on"
        ) from error
    # Not after an error: it would wait for the other processes, which may be waiting for this one.
    dist.destroy_process_group()


def _own_device(device: str, local_rank: int) -> torch.device:
    """The device of one of the processes on this machine."""
    resolved = resolve_device(device)
    if resolved == "cuda":
        resolved = resolve_device(f"cuda:{local_rank}")
    elif resolved != "cpu" and int(os.environ["WORLD_SIZE"]) > 1:
        raise ConfigError(f"device {device!r} is one GPU for several processes; use cuda")
    return torch.device(resolved)
