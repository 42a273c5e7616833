"""Inference of teachers: crops uint8 in, fixed batch shapes, outputs float32 out."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emovox.cache import set_compile_cache
from emovox.checkpoints import FaceNetwork, prepare
from emovox.errors import EmovoxError, first_line

# Crops per batch. The last batch is padded, so that a row never depends on its neighbours.
BATCH = 64
LARGE_INPUT = 128  # pixels; networks with crops of this size or larger use smaller batches on a CPU
LARGE_INPUT_BATCH = 16
GPU_BATCH = 256
NUM_SLOTS = 2  # one is filled while the other is copied


class TorchTeacher:
    """A face network, ready to run; see `Teacher`, and `load_teacher` for options and errors.

    `net` is in evaluation mode and is changed in place.
    """

    def __init__(
        self,
        name: str,
        sha256: str,
        net: FaceNetwork,
        device: str = "auto",
        precision: str = "auto",
        *,
        compiled: bool = False,
        mirror: bool = False,
    ) -> None:
        self.name, self.sha256, self.temperature = name, sha256, 1.0
        self.emotions, self.values = net.outputs.emotions, net.outputs.values
        self.input_size, self.embedding_size = net.input_size, net.embedding_size
        self.device, self.precision, dtype = prepare(net, net.classifier, device, precision)
        self.compiled = compiled
        if self.device.index is not None:
            torch.cuda.set_device(self.device)  # pinned memory belongs to the current device
        cpu_batch = BATCH if net.input_size < LARGE_INPUT else LARGE_INPUT_BATCH
        self.batch_size = cpu_batch if self.device.type == "cpu" else GPU_BATCH
        shape = (self.batch_size, net.input_size, net.input_size, 3)
        self._slots = [_Slot(shape, self.device) for _ in range(NUM_SLOTS)]
        self._num_batches = 0

        def once(pixels: Tensor) -> Tensor:
            inputs = net.preprocess(pixels).to(dtype, memory_format=torch.channels_last)
            hidden, outputs = net.embed_and_classify(inputs)
            return torch.cat([outputs, hidden], dim=1)

        def forward(pixels: Tensor) -> Tensor:
            return (once(pixels) + once(pixels.flip(2))) / 2 if mirror else once(pixels)

        self._forward = self._compile(forward) if compiled else forward

    def _compile(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        set_compile_cache()
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "no CUDA runtime"
        compiled = torch.compile(forward, dynamic=False, options={"freezing": True})
        try:
            with torch.inference_mode():
                compiled(self._slots[0].load())
        except Exception as error:  # errors of torch, Triton and the compiler share no base class
            raise EmovoxError(
                f"torch.compile: failed on this machine ({first_line(error)}); use --compile off"
            ) from error
        return compiled

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return self._run(crops)[:, : len(self.emotions) + len(self.values)]

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return the last hidden layer of crops; see `Teacher.embed`."""
        return self._run(crops)[:, len(self.emotions) + len(self.values) :]

    def _run(self, crops: np.ndarray) -> np.ndarray:
        size = self.input_size
        if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3):
            raise ValueError(
                f"expected crops uint8 [N, {size}, {size}, 3], got {crops.dtype} {crops.shape}"
            )
        starts = range(0, len(crops), self.batch_size)
        running = [self.launch(crops[start : start + self.batch_size]) for start in starts]
        num_outputs = len(self.emotions) + len(self.values)
        empty = np.empty((0, num_outputs + self.embedding_size), np.float32)
        return np.concatenate([empty, *(logits() for logits in running)])

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        """Start one batch; return a function that waits for outputs and embeddings.

        They are the columns of one array, float32 `[N, E + V + D]`.
        On a GPU the work is asynchronous, and the next batch can be launched before it is done.
        `parts` are crops uint8 `[n, S, S, 3]`, at most `batch_size` in total; they are copied.
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
    """Host memory for one batch, pinned for a GPU so that the copy is asynchronous."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self._device = device
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(shape, dtype=torch.uint8, pin_memory=on_gpu)
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def load(self, *parts: np.ndarray) -> Tensor:
        """Copy crops to the device, padded with black crops to the shape of a batch."""
        if self._copied is not None:
            self._copied.synchronize()  # wait for the last copy from this memory
        stop = 0
        for crops in parts:
            start, stop = stop, stop + len(crops)
            self._host.numpy()[start:stop] = crops
        self._host[stop:] = 0
        pixels = self._host.to(self._device, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))
        return pixels
