"""Networks of students: the paper's VGG-M, checkpoints, the released file, and inference.

`VGGVox` is VGG-M on spectrograms, with the layer names of VGGVox (Nagrani et al., 2017). The layers
before fc6 reduce the 512 bins to one row, for any duration; fc6 is averaged over time.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emovox import checkpoints
from emovox.checkpoints import Architectures, Network, fit, prepare
from emovox.dataset.targets import pool_rows
from emovox.emotions import Outputs
from emovox.errors import ConfigError, InputError
from emovox.media import spectrogram
from emovox.media.spectrogram import BUCKETS, NUM_BINS
from emovox.registry import read_header
from emovox.student.clips import CENTRE, WHOLE, Windows
from emovox.student.encoder import Encoder, EncoderHead, HeadConfig
from emovox.student.student_config import StudentTrainConfig

CHANNEL_STEP = 8  # channels of a scaled network are a multiple of it
MIN_FRAMES = BUCKETS[0]
FULL_FRAMES, FRAME_STEP = 65, 32  # of the first output of fc6, and to the next; no others are used


@dataclass(frozen=True)
class StudentConfig:
    """Shape of the network."""

    width: float = 1.0  # factor on the channels of every layer except the last
    conv3: int = 384  # channels at width 1, as in the weights of VGGVox; 256 in the paper's Table 4
    conv4: int = 256  # channels at width 1

    def channels(self, full: int) -> int:
        """Return the channels of a layer that has `full` channels at width 1."""
        return max(1, round(full * self.width / CHANNEL_STEP)) * CHANNEL_STEP


class VGGVox(Network):
    """Network from normalised spectrograms float32 `[B, 512, T >= 100]` to logits `[B, E]`.

    Its first weights are He normal, from `generator` or torch's default one; the biases are 0.
    """

    architecture = "emovox.vggvox"

    def __init__(
        self,
        config: StudentConfig | None = None,
        generator: torch.Generator | None = None,
        outputs: Outputs = Network.outputs,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.config = config = config or StudentConfig()
        widths = (96, 256, config.conv3, config.conv4, 256, 4096, 1024)
        conv1, conv2, conv3, conv4, conv5, fc6, fc7 = map(config.channels, widths)
        self.conv1: nn.Module = nn.Conv2d(1, conv1, 7, stride=2, padding=1)
        self.bn1: nn.Module = nn.BatchNorm2d(conv1)
        self.conv2: nn.Module = nn.Conv2d(conv1, conv2, 5, stride=2, padding=1)
        self.bn2: nn.Module = nn.BatchNorm2d(conv2)
        self.conv3: nn.Module = nn.Conv2d(conv2, conv3, 3, padding=1)
        self.bn3: nn.Module = nn.BatchNorm2d(conv3)
        self.conv4: nn.Module = nn.Conv2d(conv3, conv4, 3, padding=1)
        self.bn4: nn.Module = nn.BatchNorm2d(conv4)
        self.conv5: nn.Module = nn.Conv2d(conv4, conv5, 3, padding=1)
        self.bn5: nn.Module = nn.BatchNorm2d(conv5)
        self.fc6: nn.Module = nn.Conv2d(conv5, fc6, (9, 1))
        self.bn6: nn.Module = nn.BatchNorm2d(fc6)
        self.fc7: nn.Module = nn.Conv2d(fc6, fc7, 1)
        self.bn7: nn.Module = nn.BatchNorm2d(fc7)
        self.fc8 = nn.Conv2d(fc7, len(outputs), 1)
        self.embedding_size = fc7
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, spectrograms: Tensor) -> Tensor:
        logits: Tensor = self.fc8(self._features(spectrograms).to(self.fc8.weight.dtype))
        return logits.flatten(1)

    def embed(self, spectrograms: Tensor) -> Tensor:
        """Return the non-negative outputs of fc7, `[B, 1024 x width]`."""
        return self._features(spectrograms).flatten(1)

    def _features(self, spectrograms: Tensor) -> Tensor:
        if spectrograms.shape[1:2] != (NUM_BINS,) or spectrograms.shape[2:] < (MIN_FRAMES,):
            raise ValueError(
                f"expected spectrograms [B, {NUM_BINS}, T >= {MIN_FRAMES}], "
                f"got {list(spectrograms.shape)}"
            )
        x = spectrograms.unsqueeze(1)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x)), inplace=True), 3, 2)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        x = F.relu(self.bn4(self.conv4(x)), inplace=True)
        x = F.relu(self.bn5(self.conv5(x)), inplace=True)
        x = F.max_pool2d(x, (5, 3), (3, 2))
        x = F.relu(self.bn6(self.fc6(x)), inplace=True)
        x = x.mean(dim=3, keepdim=True)
        return F.relu(self.bn7(self.fc7(x)), inplace=True)


SpeechNet = VGGVox | EncoderHead
ARCHITECTURES: Architectures[SpeechNet] = {
    VGGVox.architecture: (StudentConfig, VGGVox),
    EncoderHead.architecture: (HeadConfig, EncoderHead),
}


def read_hearing(path: Path, num_emotions: int) -> tuple[Windows, tuple[float, ...] | None]:
    """Read the windows of a training, and the share of each emotion in its targets, if stated.

    InputError if the checkpoint has no record of the training, or one that is not valid.
    """
    try:
        training = dict(json.loads(read_header(path)["training"]))
        recipe = dict(training.get("recipe", {}))
        known = {name: recipe[name] for name in ("seconds", "pool") if name in recipe}
        config = StudentTrainConfig(**known)
        prior = tuple(map(float, training["prior"])) if "prior" in training else None
        if prior and (len(prior) != num_emotions or not all(0 < share <= 1 for share in prior)):
            raise ValueError(f"prior {prior}")
    except (ConfigError, *checkpoints.UNFIT) as error:
        raise InputError(f"{path}: the record of the training is not valid ({error})") from error
    return Windows(config.seconds, None, config.pool), prior


# Layers of the released file with weights, in the order of the network.
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
BATCH_NORMS = ("bn1", "bn2", "bn3", "bn4", "bn5", "bn6", "bn7")
NAMES_BY_TYPE = {"dagnn.Conv": CONVOLUTIONS, "dagnn.BatchNorm": BATCH_NORMS}


def read_released(path: Path) -> VGGVox:
    """Read a released `.mat` file into the network, in evaluation mode.

    Filters in the file are `[frequency, time, in, out]`. InputError if it holds something else; the
    message gives what was expected and found.
    """
    tensors = checkpoints.to_state_dict(_named(checkpoints.read_dagnn(path), path), path)
    for name in CONVOLUTIONS:  # optional before a batch normalisation
        tensors.setdefault(f"{name}.bias", torch.zeros(len(tensors[f"{name}.weight"])))
    net = VGGVox(_config(tensors))
    fit(net, tensors, str(path))
    return net.eval()


def _named(layers: list[checkpoints.Layer], path: Path) -> list[checkpoints.Layer]:
    """Rename layers to the network's names, by their order; keep names that already match."""
    expected = {*CONVOLUTIONS, *BATCH_NORMS}
    if {layer.name for layer in layers} == expected and len(layers) == len(expected):
        return layers
    found = {kind: [x for x in layers if x.type == kind] for kind in NAMES_BY_TYPE}
    others = [layer for layer in layers if layer.type not in NAMES_BY_TYPE]
    if others or any(len(found[kind]) != len(names) for kind, names in NAMES_BY_TYPE.items()):
        listed = ", ".join(f"{layer.name} ({layer.type})" for layer in layers[:4]) or "none"
        raise InputError(
            f"{path}: expected VGGVox with 8 convolutions and 7 batch normalisations, "
            f"{CONVOLUTIONS[0]}, {BATCH_NORMS[0]} to {CONVOLUTIONS[-1]}; found {len(layers)} "
            f"layers with weights: {listed}{' ...' if len(layers) > 4 else ''}"
        )
    return [
        checkpoints.Layer(name, kind, layer.weights)
        for kind, names in NAMES_BY_TYPE.items()
        for name, layer in zip(names, found[kind], strict=True)
    ]


def _config(tensors: dict[str, Tensor]) -> StudentConfig:
    """Return the config with the widths of conv3 and conv4, which differ between releases."""
    return StudentConfig(conv3=len(tensors["conv3.weight"]), conv4=len(tensors["conv4.weight"]))


Samples = np.ndarray | list[np.ndarray]
Part = Windows | str | None
Forward = Callable[[Tensor], Tensor]

MAX_FRAMES = 16_000  # frames per batch: 40 windows of 4 s
MAX_WHOLE = 300  # seconds of an utterance heard as a whole; the network needs 10 MB for each
MIN_SAMPLES = spectrogram.num_samples(BUCKETS[0])  # 1 s; shorter utterances are padded


class TorchStudent:
    """A speech network, ready to run; see `Student`, and `load_student` for options and errors.

    `net` is in evaluation mode and is changed in place; fp32 for an encoder, at any precision.
    """

    def __init__(
        self, name: str, sha256: str, net: SpeechNet, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.name, self.sha256 = name, sha256
        self.emotions = net.outputs.emotions
        self.windows, self.prior = Windows(), None  # type: tuple[Windows, tuple[float, ...] | None]
        self._encoder = Encoder(net.config, device) if isinstance(net, EncoderHead) else None
        precision = "fp32" if self._encoder else precision
        self.device, self.precision, self._dtype = prepare(net, net.fc8, device, precision)
        self._net = net

    def __call__(self, samples: Samples, part: Part = None) -> np.ndarray:
        return self._run(self._net, len(self.emotions), samples, part)

    def embed(self, samples: Samples, part: Part = None) -> np.ndarray:
        """Return the outputs of the last hidden layer, see `Student.embed`."""
        return self._run(self._net.embed, self._net.embedding_size, samples, part, "mean")

    def _run(
        self, forward: Forward, size: int, samples: Samples, part: Part, pool: str = ""
    ) -> np.ndarray:
        utterances = [samples] if isinstance(samples, np.ndarray) else samples
        part = part or self.windows
        pool = pool or (part.pool if isinstance(part, Windows) else "max")
        outputs: list[list[np.ndarray]] = [[] for _ in utterances]
        parts = ((n, x) for n, each in enumerate(utterances) for x in self._inputs(each, part))
        with torch.inference_mode():
            for width, same in groupby(parts, lambda found: found[1].shape[1]):
                while batch := list(islice(same, max(1, MAX_FRAMES // width))):
                    found = forward(torch.stack([x for _, x in batch])).float().cpu().numpy()
                    for (number, _), row in zip(batch, found, strict=True):
                        outputs[number].append(row)
        pooled = [pool_rows(np.stack(rows), pool) for rows in outputs]
        return np.array(pooled, np.float32).reshape(len(pooled), size)

    def _inputs(self, samples: np.ndarray, part: Windows | str) -> Iterator[Tensor]:
        """Yield normalised spectrograms `[512, width]`, or features, of parts of an utterance."""
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not len(samples):
            raise ValueError(f"expected samples [L], got {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise ValueError("samples contain NaN or infinity")
        if self._encoder:
            pieces = part.cut(samples) if isinstance(part, Windows) else [samples]
            if part == CENTRE:
                num_frames = spectrogram.num_frames(max(MIN_SAMPLES, len(samples)))
                start, width = spectrogram.centre_bucket(num_frames)
                pieces = [samples[start * spectrogram.HOP :][: spectrogram.num_samples(width)]]
            yield from self._encoder(pieces)
            return
        if isinstance(part, Windows):
            yield from map(self._spectrogram, part.cut(samples))
            return
        whole = self._spectrogram(np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples)))))
        if part == CENTRE:
            start, width = spectrogram.centre_bucket(whole.shape[1])
            yield whole[:, start : start + width]
        elif part == WHOLE:  # padded to a full step, whose other frames the network would drop
            if (seconds := len(samples) // spectrogram.SAMPLE_RATE) > MAX_WHOLE:
                raise InputError(f"whole: {seconds} s of sound, at most {MAX_WHOLE}; use windows")
            yield torch.nn.functional.pad(whole, (0, (FULL_FRAMES - whole.shape[1]) % FRAME_STEP))
        else:
            raise ValueError(f"part {part!r} is neither Windows, {WHOLE!r} nor {CENTRE!r}")

    def _spectrogram(self, samples: np.ndarray) -> Tensor:
        found = spectrogram.batch_spectrogram(torch.from_numpy(samples)[None].to(self.device))[0]
        return spectrogram.normalise(found).to(self._dtype)
