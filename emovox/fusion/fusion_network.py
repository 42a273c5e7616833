"""Recurrent networks on features of face and sound, their loss and their scores."""

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from emovox.checkpoints import Architectures, Network
from emovox.emotions import PUBLISHED, Outputs
from emovox.fusion.fusion_config import AUDIO, FEATURE, LATE, MODEL, VIDEO
from emovox.fusion.sequences import Sequence

INPUTS = FACE, SOUND = (0, 1)  # their places among the features
# Inputs of each recurrent network; the mean of several is the output.
BRANCHES: dict[str, list[tuple[int, ...]]]
BRANCHES = {MODEL: [INPUTS], FEATURE: [INPUTS], LATE: [(FACE,), (SOUND,)]}
BRANCHES |= {AUDIO: [(SOUND,)], VIDEO: [(FACE,)]}
BATCH = 64  # sequences at a time outside the training


@dataclass(frozen=True)
class FusionConfig:
    """Shape of the network."""

    names: tuple[str, ...]  # of its outputs
    sizes: tuple[int, ...]  # of the features of face and sound
    fusion: str = MODEL
    hidden: int = 64
    dropout: float = 0.1

    @property
    def inputs(self) -> list[int]:
        """Places of the inputs that the network uses."""
        return [place for branch in BRANCHES[self.fusion] for place in branch]


class FusionNetwork(Network):
    """Features of face `[B, T, D]` and sound `[B, T, A]` to outputs `[B, T, V]`, at every step.

    NaN stands for a missing input, in whose place the network has learned features.
    """

    architecture = "emovox.fusion"

    def __init__(self, config: FusionConfig, outputs: Outputs = PUBLISHED) -> None:
        super().__init__()
        self.config, self.outputs = config, outputs
        hidden = None if config.fusion == FEATURE else config.hidden
        self.parts = nn.ModuleList(
            _Part(size, hidden) if place in config.inputs else nn.Identity()
            for place, size in enumerate(config.sizes)
        )
        self.recurrent, self.heads = nn.ModuleList(), nn.ModuleList()
        for branch in BRANCHES[config.fusion]:
            width = sum(hidden or config.sizes[place] for place in branch)
            gru = nn.GRU(width, config.hidden, batch_first=True, bidirectional=True)
            self.recurrent.append(gru)
            head = nn.Linear(2 * config.hidden, len(config.names))
            self.heads.append(nn.Sequential(nn.Dropout(config.dropout), head))

    def forward(self, features: tuple[Tensor, Tensor], lengths: Tensor) -> Tensor:
        """Return the outputs; `lengths` are the steps of each sequence, on the CPU."""
        found = []
        branches = BRANCHES[self.config.fusion]
        for branch, gru, head in zip(branches, self.recurrent, self.heads, strict=True):
            joined = torch.cat([self.parts[place](features[place]) for place in branch], dim=2)
            packed = pack_padded_sequence(joined, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(gru(packed)[0], batch_first=True)
            found.append(head(states))
        return torch.stack(found).mean(dim=0)


class _Part(nn.Module):
    """One input: standardised, without gaps, through a layer unless it meets the other before."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int, hidden: int | None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.missing = nn.Parameter(torch.zeros(size))
        self.layer = nn.Sequential(nn.Linear(size, hidden), nn.ReLU()) if hidden else nn.Identity()

    def fit(self, frames: Tensor) -> None:
        """Take mean and deviation of features `[N, D]`, without those missing."""
        if len(known := frames[~frames.isnan().any(dim=1)]):
            self.mean.copy_(known.mean(dim=0))
            self.deviation.copy_(known.std(dim=0, correction=0).clamp_min(1e-3))

    def forward(self, features: Tensor) -> Tensor:
        is_missing = features.isnan().any(dim=2, keepdim=True)
        standard = (features.nan_to_num() - self.mean) / self.deviation
        return self.layer(torch.where(is_missing, self.missing, standard))


ARCHITECTURES: Architectures[FusionNetwork] = {
    FusionNetwork.architecture: (FusionConfig, FusionNetwork)
}


def pad(
    sequences: Many[Sequence], device: torch.device
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Return features, lengths and targets of a batch, padded with NaN."""
    columns = [[s.features[i] for s in sequences] for i in INPUTS] + [[s.target for s in sequences]]
    face, sound, target = (
        pad_sequence([torch.from_numpy(a) for a in arrays], True, math.nan).to(device)
        for arrays in columns
    )
    return (face, sound), torch.tensor([len(s.times) for s in sequences]), target


def predict(
    net: FusionNetwork,
    sequences: Many[Sequence],
    device: torch.device,
    without: int | None = None,
) -> list[np.ndarray]:
    """Return the outputs for each sequence, float32 `[T, V]`, without one input if asked."""
    net.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(sequences), BATCH):
            features, lengths, _ = pad(sequences[start : start + BATCH], device)
            if without is not None:
                features[without].fill_(math.nan)
            outputs = net(features, lengths).cpu().numpy()
            found += [out[:n] for out, n in zip(outputs, lengths, strict=True)]
    return found


def fusion_loss(found: Tensor, target: Tensor, are_classes: bool) -> Tensor:
    """Return the loss of outputs `[B, T, V]`; unknown targets are NaN.

    1 - CCC over all steps, the mean over values; or the cross-entropy of each track's mean logits.
    """
    if are_classes:
        known = ~target[..., :1].isnan()
        logits = (found * known).sum(dim=1) / known.sum(dim=1)
        return F.cross_entropy(logits, target[:, 0].argmax(dim=1))
    losses = []
    for x, y in zip(found.flatten(0, 1).T, target.flatten(0, 1).T, strict=True):
        x, y = x[~y.isnan()], y[~y.isnan()]
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        spread = x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()).square()
        losses.append(1 - 2 * covariance / spread.clamp_min(1e-8))
    return torch.stack(losses).nanmean()


def sums(found: np.ndarray, target: np.ndarray, are_classes: bool) -> np.ndarray:
    """Return what the outputs of a track, `[T, V]`, add to the scores.

    For values the sums `[6, V]` of 1, x, y, xx, yy and xy over the steps with a target; for classes
    a confusion matrix `[V, V]` of one track, by its mean output.
    """
    known = ~np.isnan(target)
    x, y = (np.where(known, each, 0).astype(np.float64) for each in (found, target))
    if not are_classes:
        return np.stack([known, x, y, x * x, y * y, x * y]).sum(axis=1)
    confusion = np.zeros((found.shape[1],) * 2)
    confusion[y.sum(axis=0).argmax(), x.sum(axis=0).argmax()] = 1
    return confusion


def from_sums(total: np.ndarray, are_classes: bool) -> np.ndarray:
    """Return CCC, Pearson and RMSE `[..., 3, V]`, or accuracy and UAR `[..., 2, 1]`.

    CCC is 2 cov / (var_x + var_y + (mean_x - mean_y)^2), as in the AVEC challenges.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if are_classes:
            hits, labels = total.diagonal(axis1=-2, axis2=-1), total.sum(axis=-1)
            recall = np.where(labels > 0, hits / labels, 0).sum(axis=-1) / (labels > 0).sum(axis=-1)
            return np.stack([hits.sum(axis=-1) / labels.sum(axis=-1), recall], axis=-1)[..., None]
        n, *rest = np.moveaxis(total, -2, 0)
        x, y, xx, yy, xy = (each / n for each in rest)
        var_x, var_y, covariance = xx - x * x, yy - y * y, xy - x * y
        ccc = 2 * covariance / (var_x + var_y + (x - y) ** 2)
        rmse = np.sqrt(np.maximum(xx + yy - 2 * xy, 0))
        return np.stack([ccc, covariance / np.sqrt(var_x * var_y), rmse], axis=-2)


def score(found: Many[np.ndarray], targets: Many[np.ndarray], are_classes: bool) -> float:
    """Return the mean CCC of the values of all tracks, or the accuracy."""
    parts = [sums(x, y, are_classes) for x, y in zip(found, targets, strict=True)]
    return float(from_sums(np.sum(parts, axis=0), are_classes)[0].mean())
