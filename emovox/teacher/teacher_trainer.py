"""State of a teacher's training, its steps, and the augmentation of its faces."""

import copy
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emovox.checkpoints import FaceNetwork, fit, fold_batch_norm
from emovox.devices import resolve_precision
from emovox.emotions import PUBLISHED, Outputs
from emovox.errors import ConfigError, InputError
from emovox.runs import Progress
from emovox.teacher import find_teacher, teacher_checkpoint
from emovox.teacher.ferplus import Faces
from emovox.teacher.teacher_checkpoint import (
    CompactConfig,
    CompactNet,
    Inception,
    Senet,
    SenetConfig,
)
from emovox.teacher.teacher_config import TeacherTrainConfig
from emovox.teacher.triplets import Triplets, triplet_loss


def augment(grey: Tensor, config: TeacherTrainConfig, size: int) -> Tensor:
    """Warp, mirror and relight faces of 0 to 255: float `[N, 1, H, W]` to `[N, 1, size, size]`."""
    n, device = len(grey), grey.device
    warped = torch.rand(n, device=device) < config.warp

    def uniform(limit: float, *, levels: bool = False) -> Tensor:
        sampled = torch.rand(n, device=device) * 2 - 1
        if levels:  # -1, 0 or 1, one third each
            sampled = (sampled * 1.5).round()
        return sampled * limit * warped

    angle = uniform(math.radians(config.rotation), levels=config.three_levels)
    skew = uniform(config.skew, levels=config.three_levels)
    scale, aspect = 1 + uniform(config.zoom), 1 + uniform(config.aspect)
    flip = torch.where(torch.rand(n, device=device) < config.mirror, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    x = torch.stack([cos * flip * aspect, skew - sin, 2 * uniform(config.shift)], dim=1)
    y = torch.stack([sin * flip, cos / aspect, 2 * uniform(config.shift)], dim=1)
    grid = F.affine_grid(torch.stack([x, y], dim=1), [n, 1, size, size], align_corners=False)
    faces = F.grid_sample(grey, grid, padding_mode="reflection", align_corners=False)
    gamma = torch.exp((torch.rand(n, 1, 1, 1, device=device) * 2 - 1) * config.gamma)
    return (faces.clamp(0, 255) / 255) ** gamma * 255


def cut_out(faces: Tensor, config: TeacherTrainConfig) -> Tensor:
    """Zero one square per face with probability `cutout` (DeVries and Taylor, 2017)."""
    n, _, height, width = faces.shape
    device, half = faces.device, config.cutout_side / 2
    centre_y = torch.randint(height, (n, 1), device=device)
    centre_x = torch.randint(width, (n, 1), device=device)
    chosen = torch.rand(n, 1, device=device) < config.cutout
    rows = ((torch.arange(height, device=device) - centre_y).abs() < half) & chosen
    columns = (torch.arange(width, device=device) - centre_x).abs() < half
    return faces.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0.0)


LAST = "classifier."  # in the names of the weights of the last layer
BACKBONE = "backbone."  # before the names of facenet-pytorch


def make_network(config: TeacherTrainConfig, outputs: Outputs = PUBLISHED) -> FaceNetwork:
    """Return the network of a recipe with random weights."""
    if config.network == "inception":
        return Inception(None, outputs)
    if config.network != "compact":
        return Senet(SenetConfig(config.network == "senet50"), outputs)
    shape = CompactConfig(config.stem, config.widths, config.depths, dropout=config.dropout)
    return CompactNet(shape, outputs)


class TeacherTrainer(Progress):
    """Network, moving average, optimiser and progress of a training."""

    STATEFUL = ("model", "average", "optimizer")

    def __init__(self, config: TeacherTrainConfig, faces: Faces, device: torch.device) -> None:
        self.config, self.device = config, device
        self.bf16 = config.bf16 and resolve_precision("auto", str(device)) == "bf16"
        self.images = torch.from_numpy(faces.images).unsqueeze(1)
        self.targets = torch.from_numpy(faces.targets)
        self.num_emotions = len(faces.outputs.emotions)
        torch.manual_seed(config.seed)
        self.model = make_network(config, faces.outputs).to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval()
        self.teachers: list[FaceNetwork] = []
        named = list(self.model.named_parameters())
        # Matrices and kernels decay; biases and batch normalisation do not.
        groups = [
            {
                "params": [p for n, p in named if (p.ndim > 1, LAST in n) == (decays, last)],
                "weight_decay": config.weight_decay * decays,
                "factor": 1.0 if last else config.backbone_rate,
            }
            for decays in (True, False)
            for last in (True, False)
        ]
        rate, momentum = config.learning_rate, config.momentum
        self.optimizer = torch.optim.SGD(groups, rate, momentum, nesterov=True)
        self.steps = len(self.images) // config.batch_size
        self.advance: Callable[[], object] = lambda: None  # called after each step
        self.triplets: Triplets | None = None  # to learn from too

    def start_from(self, source: str | Path) -> None:
        """Copy weights, without a last layer for other outputs; InputError if they do not fit."""
        weights, own = find_teacher(source), self.model.state_dict()
        if weights.is_released:
            tensors, outputs = teacher_checkpoint.read_tensors(weights.path), None
            if isinstance(self.model, Inception):
                found = {BACKBONE + name: tensor for name, tensor in tensors.items()}
                tensors = {n: own[n] for n in own if not n.startswith(BACKBONE)}
                tensors |= {name: found[name] for name in own if name in found}
        else:
            net = teacher_checkpoint.load_network(weights)
            if type(net) is not type(self.model) or net.config != self.model.config:
                raise InputError(f"{weights.path}: start_from needs a network of the same shape")
            tensors, outputs = net.state_dict(), net.outputs
        if outputs != self.model.outputs:
            tensors |= {name: own[name] for name in own if LAST in name}
        for model in (self.model, self.average):
            fit(model, tensors, str(weights.path))

    def learn_from(self, sources: Sequence[str | Path]) -> None:
        """Let networks label the augmented faces; ConfigError for another kind of network."""
        for source in sources:
            net = teacher_checkpoint.load_network(find_teacher(source))
            if type(net) is not type(self.model) or net.outputs != self.model.outputs:
                text = "another kind of network or outputs than the student; use distill = 'once'"
                raise ConfigError(f"{source}: {text}")
            fold_batch_norm(net)
            net.to(self.device, memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
            self.teachers.append(net)

    def train_epoch(self) -> float:
        """Train one pass over the faces; return the mean loss."""
        config = self.config
        rng = random.Random(f"{config.seed} {self.epoch}")  # so that a resume point needs no state
        torch.manual_seed(rng.getrandbits(63))
        self.model.train()
        losses, averages = [], self.average.state_dict()
        order = torch.randperm(len(self.images))
        for i in range(self.steps):
            batch = order[i * config.batch_size : (i + 1) * config.batch_size]
            rate = learning_rate(config, self.epoch + i / self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            loss = self._loss(*self._augmented(batch, rng))
            if self.triplets is not None:
                loss = config.class_weight * loss + self._triplet_loss(self.triplets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            done = self.epoch * self.steps + i + 1
            # From random weights the average follows fast at first; otherwise decay is constant.
            warm = 1.0 if config.start_from else done / (done + 20)
            decay = min(config.average_decay, warm)
            for name, new in self.model.state_dict().items():
                if new.is_floating_point():
                    averages[name].lerp_(new, 1 - decay)
            losses.append(loss.detach())
            self.advance()
        return float(torch.stack(losses).mean())

    def _augmented(self, batch: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Return inputs of the network and targets, augmented and mixed on the device."""
        config, device = self.config, self.device
        grey = self.images[batch].to(device, non_blocking=True).float()
        targets = self.targets[batch].to(device, non_blocking=True)
        faces = self.model.from_grey(augment(grey, config, self.model.input_size))
        faces = cut_out(faces, config)
        if rng.random() < config.mixup_share:
            share, others = rng.betavariate(config.mixup, config.mixup), torch.randperm(len(faces))
            faces, targets = (torch.lerp(x[others], x, share) for x in (faces, targets))
        return faces.contiguous(memory_format=torch.channels_last), targets

    def _loss(self, faces: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy to the emotions, plus the squared error of known values."""
        votes = targets[:, : self.num_emotions]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            hidden, outputs = self.model.embed_and_classify(faces)
            with torch.no_grad():
                found = [net.embed_and_classify(faces) for net in self.teachers]
        outputs = outputs.float()
        if found:
            labels = torch.stack([logits[:, : self.num_emotions] for _, logits in found])
            probabilities = labels.float().softmax(dim=-1).mean(dim=0)
            # A face without votes, whose row of votes is 0, has the target of the teachers.
            share = (1 - self.config.distill_weight) * votes.sum(dim=1, keepdim=True)
            votes = (1 - share) * probabilities + (1 - self.config.distill_weight) * votes
        loss = F.cross_entropy(outputs[:, : self.num_emotions], votes)
        if outputs.shape[1] > self.num_emotions:
            guess, values = outputs[:, self.num_emotions :], targets[:, self.num_emotions :]
            loss = loss + (guess - torch.where(values.isnan(), guess, values)).square().mean()
        if found and isinstance(self.model, Inception):  # its embedding is learned too
            loss = loss + sum(F.mse_loss(hidden, each) for each, _ in found) / len(found)
        return loss

    def _triplet_loss(self, triplets: Triplets) -> Tensor:
        """Return the loss of random triplets, whose faces are about as many as those of a batch."""
        chosen = torch.randint(len(triplets.places), (max(1, self.config.batch_size // 3),))
        faces = torch.from_numpy(triplets.images[triplets.places[chosen].ravel()]).unsqueeze(1)
        grey = faces.to(self.device).float()
        faces = self.model.from_grey(augment(grey, self.config, self.model.input_size))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            hidden, _ = self.model.embed_and_classify(faces)
            embeddings = self.model.triplet(hidden)  # type: ignore[operator]
        margins = torch.from_numpy(triplets.margins)[chosen].to(self.device)
        return triplet_loss(embeddings.view(len(chosen), 3, -1), margins)

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the average's outputs float32 `[N, E + V]` of grey faces uint8, in float32."""
        outputs, size = [], self.model.input_size
        for start in range(0, len(images), 256):
            grey = torch.from_numpy(images[start : start + 256]).unsqueeze(1)
            grey = grey.to(self.device, torch.float32)
            if grey.shape[-1] != size:
                grey = F.interpolate(grey, (size, size), mode="bilinear").round()
            faces = self.model.from_grey(grey).contiguous(memory_format=torch.channels_last)
            outputs.append(self.average(faces).float().cpu())
        return torch.cat(outputs).numpy()


def learning_rate(config: TeacherTrainConfig, epoch: float) -> float:
    """Return the learning rate of the last layer after `epoch` passes."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * (epoch + 0.01) / config.warmup_epochs
    done = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    if config.schedule == "steps":
        return float(config.learning_rate * 0.1 ** int(3 * min(done, 0.999)))
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
