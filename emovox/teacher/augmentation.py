"""Augmentation of training faces."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from emovox.teacher.teacher_config import TeacherTrainConfig


def augment(grey: Tensor, config: TeacherTrainConfig, generator: torch.Generator) -> Tensor:
    """Warp, mirror and relight faces, float `[N, 1, H, W]` in 0..255; return the same form."""
    n, _, height, width = grey.shape

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    angle = uniform(math.radians(config.rotation))
    scale = 1 + uniform(config.zoom)
    flip = torch.where(torch.rand(n, generator=generator) < config.mirror, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    x = torch.stack([cos * flip, -sin, 2 * uniform(config.shift)], dim=1)
    y = torch.stack([sin * flip, cos, 2 * uniform(config.shift)], dim=1)
    theta = torch.stack([x, y], dim=1)
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False).to(grey.device)
    warped = F.grid_sample(grey, grid, padding_mode="border", align_corners=False)
    gamma = torch.exp(uniform(config.gamma)).view(n, 1, 1, 1).to(grey.device)
    return (warped.clamp(0, 255) / 255) ** gamma * 255


def cut_out(faces: Tensor, config: TeacherTrainConfig, generator: torch.Generator) -> Tensor:
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
