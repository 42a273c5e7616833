"""Inference of a student: samples to float32 outputs, in batches of one bucket width."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emovox.media import spectrogram
from emovox.networks import prepare
from emovox.student.vggvox import VGGVox

MAX_FRAMES = 16_000  # frames per batch: 16 utterances of 10 s, or more shorter ones
MIN_SAMPLES = spectrogram.num_samples(spectrogram.BUCKETS[0])  # 1 s; shorter utterances are padded


class TorchStudent:
    """A speech network, ready to run; see `Student`, and `load_student` for options and errors.

    `net` is in evaluation mode and is changed in place.
    """

    def __init__(
        self, name: str, sha256: str, net: VGGVox, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.name, self.sha256 = name, sha256
        self.emotions, self.values = net.outputs.emotions, net.outputs.values
        self.device, self.precision, self._dtype = prepare(net, net.fc8, device, precision)
        self._net = net

    def __call__(self, samples: np.ndarray | list[np.ndarray]) -> np.ndarray:
        return self._run(self._net, samples, len(self.emotions))

    def embed(self, samples: np.ndarray | list[np.ndarray]) -> np.ndarray:
        return self._run(self._net.embed, samples, self._net.embedding_size)

    def _run(
        self, forward: Callable[[Tensor], Tensor], samples: np.ndarray | list[np.ndarray], size: int
    ) -> np.ndarray:
        utterances = [samples] if isinstance(samples, np.ndarray) else samples
        outputs = np.empty((len(utterances), size), np.float32)
        waiting: dict[int, list[tuple[int, Tensor]]] = {}  # by width: position, spectrogram

        def finish(width: int) -> None:
            positions, batch = zip(*waiting.pop(width), strict=True)
            outputs[list(positions)] = forward(torch.stack(batch)).float().cpu().numpy()

        with torch.inference_mode():
            for position, utterance in enumerate(utterances):
                bucket = self._centre(utterance)
                width = bucket.shape[1]
                waiting.setdefault(width, []).append((position, bucket))
                if (len(waiting[width]) + 1) * width > MAX_FRAMES:
                    finish(width)
            for width in list(waiting):
                finish(width)
        return outputs

    def _centre(self, samples: np.ndarray) -> Tensor:
        """Return the normalised centre bucket of an utterance, `[512, width]`."""
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not len(samples):
            raise ValueError(f"expected samples [L], got {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise ValueError("samples contain NaN or infinity")
        samples = np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples))))
        whole = spectrogram.batch_spectrogram(torch.from_numpy(samples)[None].to(self.device))[0]
        start, width = spectrogram.centre_bucket(whole.shape[1])
        return spectrogram.normalise(whole)[:, start : start + width].to(self._dtype)
