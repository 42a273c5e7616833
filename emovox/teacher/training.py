"""Training of the compact teacher on FERPlus."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emovox.dataset.files import replace_file
from emovox.errors import ConfigError
from emovox.teacher import checkpoints, ferplus
from emovox.teacher.compact import CompactConfig, CompactNet, standardise
from emovox.teacher.devices import resolve_device
from emovox.teacher.evaluation import score


@dataclass(frozen=True)
class TrainConfig:
    """Recipe of a teacher: what pipelines/teacher-ferplus.toml may set."""

    epochs: int = 70
    batch_size: int = 128
    learning_rate: float = 0.1  # peak; rises over the warm-up, then falls to 0 as a cosine
    warmup_epochs: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    average_decay: float = 0.999  # of the exponential moving average of weights, per step
    mirror: float = 0.5  # probability
    rotation: float = 15.0  # degrees either way
    zoom: float = 0.15  # fraction either way
    shift: float = 0.08  # of the side, either way
    gamma: float = 0.3  # largest |log gamma| of the brightness curve
    cutout: float = 0.5  # probability of one erased square
    cutout_side: int = 16  # pixels
    seed: int = 0
    device: str = "auto"
    bf16: bool = True  # train under bfloat16 autocast

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")


def augment(grey: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Warp, mirror and relight faces: float `[N, 1, H, W]` in 0..255, same in and out."""
    n, _, height, width = grey.shape

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    angle = uniform(math.radians(config.rotation))
    scale = 1 + uniform(config.zoom)
    flip = torch.where(torch.rand(n, generator=generator) < config.mirror, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * flip, -sin, 2 * uniform(config.shift)], dim=1),
            torch.stack([sin * flip, cos, 2 * uniform(config.shift)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False).to(grey.device)
    warped = F.grid_sample(grey, grid, padding_mode="border", align_corners=False)
    gamma = torch.exp(uniform(config.gamma)).view(n, 1, 1, 1).to(grey.device)
    return (warped.clamp(0, 255) / 255) ** gamma * 255


def cut_out(faces: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Zero one square per face with probability `cutout` (DeVries and Taylor, 2017)."""
    n, _, height, width = faces.shape
    centre_y = torch.randint(height, (n, 1), generator=generator)
    centre_x = torch.randint(width, (n, 1), generator=generator)
    chosen = torch.rand(n, 1, generator=generator) < config.cutout
    half = config.cutout_side / 2
    rows = ((torch.arange(height) - centre_y).abs() < half) & chosen
    columns = (torch.arange(width) - centre_x).abs() < half
    erased = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1).to(faces.device)
    return faces.masked_fill(erased, 0.0)


def train(
    config: TrainConfig, data: str | Path, out: str | Path
) -> Generator[dict[str, float], None, None]:
    """Train a compact teacher; yield one record per epoch.

    Writes to `out`: `best.safetensors` (the weight average of the epoch with the best PublicTest
    accuracy), `last.pt` (resume point after each epoch), `log.jsonl` and `config.json`. If `out`
    holds the resume point of the same recipe, training goes on after it.

    Raises:
        InputError: `data` is not FERPlus.
        ConfigError: `out` belongs to another recipe.
    """
    device = torch.device(resolve_device(config.device))
    train_set, public = ferplus.read(data, "train"), ferplus.read(data, "public_test")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _claim_folder(config, out)
    images = torch.from_numpy(train_set.images).unsqueeze(1)
    targets = torch.from_numpy(train_set.targets)

    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    architecture = CompactConfig()
    model = CompactNet(architecture).to(device)
    model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.SGD(
        _parameter_groups(model, config.weight_decay),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )
    steps_per_epoch = len(images) // config.batch_size
    step, best = 0, 0.0
    first_epoch = 0
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt", map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        first_epoch, best = state["epoch"] + 1, state["best"]
        step = first_epoch * steps_per_epoch

    for epoch in range(first_epoch, config.epochs):
        started = time.perf_counter()
        model.train()
        losses = []
        order = torch.randperm(len(images), generator=generator)
        for i in range(steps_per_epoch):
            batch = order[i * config.batch_size : (i + 1) * config.batch_size]
            faces = augment(images[batch].to(device, torch.float32), config, generator)
            faces = cut_out(standardise(faces), config, generator)
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(config, step / steps_per_epoch)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                logits = model(faces.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), targets[batch].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            _update_average(average, model, min(config.average_decay, step / (step + 20)))
            losses.append(loss.detach())

        scores = score(predict(average, public.images, device), public.targets)
        record = {
            "epoch": epoch,
            "train_loss": float(torch.stack(losses).mean()),
            "public_test_accuracy": scores.accuracy,
            "public_test_cross_entropy": scores.cross_entropy,
            "seconds": time.perf_counter() - started,
        }
        if scores.accuracy > best:
            best = scores.accuracy
            checkpoints.save(
                out / "best.safetensors",
                average,
                architecture,
                {
                    "epoch": epoch,
                    "public_test_accuracy": best,
                    "recipe": dataclasses.asdict(config),
                },
            )
        _save_resume_point(
            out / "last.pt",
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "torch_rng": torch.get_rng_state(),
                "epoch": epoch,
                "best": best,
            },
        )
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        yield record


@torch.inference_mode()
def predict(model: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
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


def _save_resume_point(path: Path, state: dict[str, object]) -> None:
    with replace_file(path) as temporary:
        torch.save(state, temporary)
