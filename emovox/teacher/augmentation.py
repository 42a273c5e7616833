"""Augmentation of training faces on their device, by its default random generator."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from emovox.teacher.teacher_config import TeacherTrainConfig


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
