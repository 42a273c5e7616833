"""Inference of a student: samples to float32 outputs, in batches of one spectrogram width."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from emovox.dataset.targets import pool_rows
from emovox.errors import ConfigError, InputError
from emovox.media import spectrogram
from emovox.networks import prepare
from emovox.student.student_checkpoint import Training
from emovox.student.vggvox import FRAME_STEP, MIN_FRAMES_EXACT, VGGVox
from emovox.student.windows import CENTRE, PARTS, WHOLE, WINDOWS, Windows, choose_windows

MAX_FRAMES = 16_000  # frames per batch: 16 utterances of 10 s, or more shorter ones
MAX_WHOLE = 300  # seconds of an utterance heard as a whole; the network needs 10 MB for each
MIN_SAMPLES = spectrogram.num_samples(spectrogram.BUCKETS[0])  # 1 s; shorter utterances are padded


class TorchStudent:
    """A speech network, ready to run; see `Student`, and `load_student` for options and errors.

    `net` is in evaluation mode and is changed in place.
    """

    def __init__(
        self,
        name: str,
        sha256: str,
        net: VGGVox,
        device: str = "auto",
        precision: str = "auto",
        training: Training | None = None,
    ) -> None:
        training = training or Training()
        self.name, self.sha256 = name, sha256
        self.emotions, self.values = net.outputs.emotions, net.outputs.values
        self.windows, self.prior = training.windows, training.prior
        self.device, self.precision, self._dtype = prepare(net, net.fc8, device, precision)
        self._net = net

    def __call__(
        self,
        samples: np.ndarray | list[np.ndarray],
        part: str = WINDOWS,
        seconds: float | None = None,
        hop: float | None = None,
    ) -> np.ndarray:
        windows = choose_windows(self.windows, seconds, hop)
        return self._run(self._net, len(self.emotions), samples, part, windows)

    def embed(
        self,
        samples: np.ndarray | list[np.ndarray],
        part: str = WINDOWS,
        seconds: float | None = None,
        hop: float | None = None,
    ) -> np.ndarray:
        windows = replace(choose_windows(self.windows, seconds, hop), pool="mean")
        return self._run(self._net.embed, self._net.embedding_size, samples, part, windows)

    def _run(
        self,
        forward: Callable[[Tensor], Tensor],
        size: int,
        samples: np.ndarray | list[np.ndarray],
        part: str,
        windows: Windows,
    ) -> np.ndarray:
        if part not in PARTS:
            raise ConfigError(f"part {part!r} is not one of {', '.join(PARTS)}")
        utterances = [samples] if isinstance(samples, np.ndarray) else samples
        waiting: dict[int, list[tuple[int, Tensor]]] = {}  # by width: position, spectrogram
        outputs: dict[int, np.ndarray] = {}  # by position of the window
        ends = []  # number of windows up to the end of each utterance

        def finish(width: int) -> None:
            positions, batch = zip(*waiting.pop(width), strict=True)
            rows = forward(torch.stack(batch)).float().cpu().numpy()
            outputs.update(zip(positions, rows, strict=True))

        num_windows = 0
        with torch.inference_mode():
            for utterance in utterances:
                for found in self._spectrograms(utterance, part, windows):
                    width = found.shape[1]
                    waiting.setdefault(width, []).append((num_windows, found))
                    num_windows += 1
                    if (len(waiting[width]) + 1) * width > MAX_FRAMES:
                        finish(width)
                ends.append(num_windows)
            for width in list(waiting):
                finish(width)
        pooled, start = np.empty((len(utterances), size), np.float32), 0
        for row, end in enumerate(ends):
            pooled[row] = pool_rows(np.stack([outputs[k] for k in range(start, end)]), windows.pool)
            start = end
        return pooled

    def _spectrograms(self, samples: np.ndarray, part: str, windows: Windows) -> Iterator[Tensor]:
        """Yield the normalised spectrograms `[512, width]` of the parts of an utterance."""
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not len(samples):
            raise ValueError(f"expected samples [L], got {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise ValueError("samples contain NaN or infinity")
        if part == WINDOWS:
            for window in windows.cut(samples):
                yield self._spectrogram(window)
            return
        if part == WHOLE and len(samples) > MAX_WHOLE * spectrogram.SAMPLE_RATE:
            seconds = len(samples) / spectrogram.SAMPLE_RATE
            raise InputError(f"whole: {seconds:.0f} s of sound, at most {MAX_WHOLE}; use windows")
        whole = self._spectrogram(np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples)))))
        if part == CENTRE:
            start, width = spectrogram.centre_bucket(whole.shape[1])
            yield whole[:, start : start + width]
        else:  # the network drops the frames of an incomplete step
            missing = (MIN_FRAMES_EXACT - whole.shape[1]) % FRAME_STEP
            yield torch.nn.functional.pad(whole, (0, missing))

    def _spectrogram(self, samples: np.ndarray) -> Tensor:
        found = spectrogram.batch_spectrogram(torch.from_numpy(samples)[None].to(self.device))[0]
        return spectrogram.normalise(found).to(self._dtype)
