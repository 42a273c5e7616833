"""The one way a teacher runs: uint8 in, fixed batch shapes, float32 out."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emovox.emotions import EMOTIONS
from emovox.errors import EmovoxError
from emovox.teacher.devices import resolve_device, resolve_precision
from emovox.teacher.network import FaceNetwork, fold_batch_norm

# Crops per batch. The last batch is padded, so that a row never depends on its neighbours.
BATCH = 64
LARGE_INPUT = 128  # pixels; a network that takes larger crops gets smaller batches on a processor
LARGE_INPUT_BATCH = 16
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
        self.precision = resolve_precision(precision, device)
        self.compiled = compiled
        small = net.input_size < LARGE_INPUT or self.device.type != "cpu"
        self.batch_size = BATCH if small else LARGE_INPUT_BATCH
        shape = (self.batch_size, net.input_size, net.input_size, 3)
        self._slots = [_Slot(shape, self.device) for _ in range(NUM_SLOTS)]
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
                compiled(self._slots[0].load(np.empty((0, *self._slots[0].shape[1:]), np.uint8)))
        except Exception as error:  # torch's, Triton's and the C++ compiler's errors share no base
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EmovoxError(f"torch.compile failed here ({reason}); use --compile off") from error
        return compiled

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        size = self.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3):
            raise ValueError(
                f"expected crops uint8 [N, {size}, {size}, 3], got {crops.dtype} {crops.shape}"
            )
        if not len(crops):
            return np.empty((0, len(EMOTIONS)), np.float32)
        logits = []
        with torch.inference_mode():
            for i, start in enumerate(range(0, len(crops), self.batch_size)):
                batch = self._slots[i % NUM_SLOTS].load(crops[start : start + self.batch_size])
                logits.append(self._forward(batch))
            return torch.cat(logits)[: len(crops)].cpu().numpy()


class _Slot:
    """Host memory for one batch, pinned where the device is a GPU, so that copies overlap work."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.shape = shape
        self._device = device
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(shape, dtype=torch.uint8, pin_memory=on_gpu)
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def load(self, crops: np.ndarray) -> Tensor:
        """The crops on the device, padded with black ones to the shape of a batch."""
        if self._copied is not None:
            self._copied.synchronize()  # the last copy out of this memory
        self._host.numpy()[: len(crops)] = crops
        self._host[len(crops) :] = 0
        pixels = self._host.to(self._device, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))
        return pixels
