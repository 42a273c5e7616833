"""Inference of a student: samples to float32 outputs, neighbours of equal length together."""

from collections.abc import Callable, Iterator
from itertools import groupby, islice

import numpy as np
import torch
from torch import Tensor

from emovox.checkpoints import prepare
from emovox.dataset.targets import pool_rows
from emovox.errors import InputError
from emovox.media import spectrogram
from emovox.student.clips import CENTRE, WHOLE, Windows
from emovox.student.encoder import Encoder, EncoderHead
from emovox.student.student_checkpoint import SpeechNet
from emovox.student.vggvox import FRAME_STEP, FULL_FRAMES

Samples = np.ndarray | list[np.ndarray]
Part = Windows | str | None
Forward = Callable[[Tensor], Tensor]

MAX_FRAMES = 16_000  # frames per batch: 40 windows of 4 s
MAX_WHOLE = 300  # seconds of an utterance heard as a whole; the network needs 10 MB for each
MIN_SAMPLES = spectrogram.num_samples(spectrogram.BUCKETS[0])  # 1 s; shorter utterances are padded


class TorchStudent:
    """A speech network, ready to run; see `Student`, and `load_student` for options and errors.

    `net` is in evaluation mode and is changed in place; fp32 for an encoder, at any precision.
    """

    def __init__(
        self, name: str, sha256: str, net: SpeechNet, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.name, self.sha256 = name, sha256
        self.emotions, self.values = net.outputs.emotions, net.outputs.values
        self.windows, self.prior = Windows(), None  # type: tuple[Windows, tuple[float, ...] | None]
        self._encoder = Encoder(net.config, device) if isinstance(net, EncoderHead) else None
        precision = "fp32" if self._encoder else precision
        self.device, self.precision, self._dtype = prepare(net, net.fc8, device, precision)
        self._net = net

    def __call__(self, samples: Samples, part: Part = None) -> np.ndarray:
        return self._run(self._net, len(self.emotions), samples, part)

    def embed(self, samples: Samples, part: Part = None) -> np.ndarray:
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
            missing = (FULL_FRAMES - whole.shape[1]) % FRAME_STEP
            yield torch.nn.functional.pad(whole, (0, missing))
        else:
            raise ValueError(f"part {part!r} is neither Windows, {WHOLE!r} nor {CENTRE!r}")

    def _spectrogram(self, samples: np.ndarray) -> Tensor:
        found = spectrogram.batch_spectrogram(torch.from_numpy(samples)[None].to(self.device))[0]
        return spectrogram.normalise(found).to(self._dtype)
