"""The one way a teacher runs: uint8 in, fixed batch shapes, float32 out."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emovox.devices import resolve_device, resolve_precision
from emovox.emotions import EMOTIONS
from emovox.errors import EmovoxError, first_line
from emovox.teacher.network import FaceNetwork, fold_batch_norm

# Crops per batch. The last batch is padded, so that a row never depends on its neighbours.
BATCH = 64
LARGE_INPUT = 128  # pixels; a network that takes larger crops gets smaller batches on a processor
LARGE_INPUT_BATCH = 16
GPU_BATCH = 256
NUM_SLOTS = 2  # one is filled while the other is copied


class TorchTeacher:
    """A face network, ready to run. See `emovox.teacher.Teacher`.

    Args:
        name: for the manifest.
        sha256: of the file that the weights came in.
        net: in evaluation mode; it is changed.
        device: as for `load_teacher`.
        precision: as for `load_teacher`.
        compiled: run it through `torch.compile`; the first batch then takes half a minute or less.
    """

    emotions = EMOTIONS

    def __init__(
        self,
        name: str,
        sha256: str,
        net: FaceNetwork,
        device: str = "auto",
        precision: str = "auto",
        *,
        compiled: bool = False,
    ) -> None:
        self.name, self.sha256 = name, sha256
        self.input_size = net.input_size
        device = resolve_device(device)
        self.device = torch.device(device)
        if self.device.index is not None:
            torch.cuda.set_device(self.device)  # pinned memory belongs to the current device
        self.precision = resolve_precision(precision, device)
        self.compiled = compiled
        on_processor = BATCH if net.input_size < LARGE_INPUT else LARGE_INPUT_BATCH
        self.batch_size = on_processor if self.device.type == "cpu" else GPU_BATCH
        shape = (self.batch_size, net.input_size, net.input_size, 3)
        self._slots = [_Slot(shape, self.device) for _ in range(NUM_SLOTS)]
        self._num_batches = 0
        self._forward = self._make_forward(net)

    def _make_forward(self, net: FaceNetwork) -> Callable[[Tensor], Tensor]:
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        if dtype == torch.float32 and self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean just that
            torch.backends.cuda.matmul.allow_tf32 = False
        fold_batch_norm(net)
        net.to(self.device, dtype).to(memory_format=torch.channels_last).requires_grad_(False)
        net.classifier.float()  # logits of eight bits would tie

        def forward(pixels: Tensor) -> Tensor:
            inputs = net.preprocess(pixels).to(dtype, memory_format=torch.channels_last)
            logits: Tensor = net(inputs)
            return logits

        if not self.compiled:
            return forward
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "no CUDA runtime"
        compiled = torch.compile(forward, dynamic=False, options={"freezing": True})
        try:
            with torch.inference_mode():
                compiled(self._slots[0].load())
        except Exception as error:  # torch's, Triton's and the C++ compiler's errors share no base
            reason = first_line(error)
            raise EmovoxError(f"torch.compile failed here ({reason}); use --compile off") from error
        return compiled

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        size = self.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3):
            raise ValueError(
                f"expected crops uint8 [N, {size}, {size}, 3], got {crops.dtype} {crops.shape}"
            )
        starts = range(0, len(crops), self.batch_size)
        running = [self.launch(crops[start : start + self.batch_size]) for start in starts]
        empty = np.empty((0, len(EMOTIONS)), np.float32)
        return np.concatenate([empty, *(logits() for logits in running)])

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        """Start on one batch; what this returns waits for its logits, float32 `[N, 8]`.

        On a GPU the work goes on meanwhile, and the next batch may be launched behind it.

        Args:
            parts: crops uint8 `[n, S, S, 3]`, together at most `batch_size`; they may be written
                over as soon as this returns.
        """
        slot = self._slots[self._num_batches % NUM_SLOTS]
        self._num_batches += 1
        with torch.inference_mode():
            logits = self._forward(slot.load(*parts))[: sum(map(len, parts))]
            if self.device.type == "cpu":
                return logits.numpy
            host = torch.empty(logits.shape, pin_memory=True)
            host.copy_(logits, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self.device))

        def wait() -> np.ndarray:
            done.synchronize()
            return host.numpy()

        return wait


class _Slot:
    """Host memory for one batch, pinned where the device is a GPU: nobody waits for the copy."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.shape = shape
        self._device = device
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(shape, dtype=torch.uint8, pin_memory=on_gpu)
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def load(self, *parts: np.ndarray) -> Tensor:
        """The crops on the device, padded with black ones to the shape of a batch."""
        if self._copied is not None:
            self._copied.synchronize()  # the last copy out of this memory
        stop = 0
        for crops in parts:
            start, stop = stop, stop + len(crops)
            self._host.numpy()[start:stop] = crops
        self._host[stop:] = 0
        pixels = self._host.to(self._device, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))
        return pixels
