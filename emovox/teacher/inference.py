"""Inference of teachers, also in other formats: crops uint8 in, fixed batches, outputs float32."""

import logging
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from emovox.checkpoints import FaceNetwork, prepare, to_grey
from emovox.devices import resolve_device
from emovox.errors import ConfigError, EmovoxError, InputError, first_line
from emovox.files import set_compile_cache
from emovox.packages import explained
from emovox.teacher.sidecar import WEIGHTS, Description, ForeignWeights, Sidecar
from emovox.teacher.teacher_checkpoint import LOAD_ERRORS

# Crops per batch. The last batch is padded, so that a row never depends on its neighbours.
BATCH = 64
LARGE_INPUT = 128  # pixels; networks with crops of this size or larger use smaller batches on a CPU
LARGE_INPUT_BATCH = 16
GPU_BATCH = 256


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
        self.triplet = getattr(net, "triplet", None)  # head for triplets, see `triplets`
        self.device, self.precision, dtype = prepare(net, net.classifier, device, precision)
        if self.device.index is not None:
            torch.cuda.set_device(self.device)  # pinned memory belongs to the current device
        cpu_batch = BATCH if net.input_size < LARGE_INPUT else LARGE_INPUT_BATCH
        self.batch_size = cpu_batch if self.device.type == "cpu" else GPU_BATCH

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
                compiled(self._load(np.empty((0, self.input_size, self.input_size, 3), np.uint8)))
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
        starts = range(0, max(1, len(crops)), self.batch_size)
        running = (self.launch(crops[start : start + self.batch_size]) for start in starts)
        # Pairs, so that the next batch is launched before the wait for a batch.
        return np.concatenate([wait() for wait, _ in pairwise(chain(running, [None])) if wait])

    def _load(self, *parts: np.ndarray) -> Tensor:
        """Copy crops to the device, padded with black crops to the shape of a batch.

        Pinned memory is copied asynchronously, and torch reuses it only after the copy.
        """
        shape = (self.batch_size, self.input_size, self.input_size, 3)
        host = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        stop = sum(map(len, parts))
        np.concatenate(parts, out=host.numpy()[:stop])
        host[stop:] = 0
        return host.to(self.device, non_blocking=True)

    def launch(self, *parts: np.ndarray) -> Callable[[], np.ndarray]:
        """Start one batch; return a function that waits for outputs and embeddings.

        They are the columns of one array, float32 `[N, E + V + D]`.
        On a GPU the work is asynchronous, and the next batch can be launched before it is done.
        `parts` are crops uint8 `[n, S, S, 3]`, at most `batch_size` in total; they are copied.
        """
        with torch.inference_mode():
            logits = self._forward(self._load(*parts))[: sum(map(len, parts))]
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


MAX_REASON = 300  # characters
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class ForeignNetwork(FaceNetwork):
    """Order of the outputs around a network of another format, in float32."""

    architecture = "another format"

    def __init__(self, described: Description, run: "OnnxRun | HubRun") -> None:
        super().__init__()
        self.described, self.run = described, run
        self.outputs, self.take = described.arrange()
        self.input_size, self.embedding_size = described.input_size, 0
        self.classifier = nn.Identity()

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Convert crops as described; see `FaceNetwork`."""
        return self.run.prepare(pixels)

    def embed_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embedding and outputs; see `FaceNetwork`."""
        hidden, outputs = self.run(x)
        outputs = outputs.float()
        if outputs.shape[1] != (expected := len(self.described.outputs)):
            found = outputs.shape[1]
            raise ValueError(f"expected {expected} outputs, as in its description; found {found}")
        outputs = outputs[:, self.take]
        if self.described.kind == "probabilities":
            num_emotions = len(self.outputs.emotions)
            logits = outputs[:, :num_emotions].clamp_min(torch.finfo(torch.float32).tiny).log()
            outputs = torch.cat([logits, outputs[:, num_emotions:]], dim=1)
        return hidden.float(), outputs


class OnnxRun:
    """An ONNX graph; its batch size may be fixed."""

    def __init__(self, path: Path, sidecar: Sidecar, device: str) -> None:
        with explained("an ONNX teacher"):
            import onnxruntime
        providers = ["CPUExecutionProvider"]
        if resolve_device(device) != "cpu":
            providers.insert(0, "CUDAExecutionProvider")
            if providers[0] not in onnxruntime.get_available_providers():
                raise ConfigError(
                    "onnxruntime: no CUDA provider; install onnxruntime-gpu, or pass --device cpu"
                )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # the errors of onnxruntime share no base class
            raise InputError(f"{path}: not an ONNX network ({first_line(error)})") from error
        self._sidecar, node = sidecar, self._session.get_inputs()[0]
        self._input, self._dtype = node.name, TYPES.get(node.type, np.float32)
        self._batch = node.shape[0] if node.shape and isinstance(node.shape[0], int) else 0

    def prepare(self, pixels: Tensor) -> Tensor:
        """Convert RGB crops uint8 `[N, S, S, 3]` to the input of the graph, as the sidecar says."""
        sidecar = self._sidecar
        inputs = to_grey(pixels) if sidecar.colour == "grey" else pixels.permute(0, 3, 1, 2).float()
        if sidecar.colour == "bgr":
            inputs = inputs.flip(1)
        mean, deviation = (
            torch.tensor(numbers, device=pixels.device).view(1, -1, 1, 1)
            for numbers in (sidecar.mean, sidecar.deviation)
        )
        inputs = (inputs * sidecar.scale - mean) / deviation
        return inputs if sidecar.layout == "NCHW" else inputs.permute(0, 2, 3, 1)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return no embedding, `[N, 0]`, and the outputs of the graph."""
        pixels = np.ascontiguousarray(inputs.cpu().numpy(), self._dtype)
        step = self._batch or len(pixels)
        rows = []
        for start in range(0, len(pixels), step):
            part = np.resize(pixels[start : start + step], (step, *pixels.shape[1:]))
            found = self._session.run(None, {self._input: part})
            rows.append(np.concatenate([np.reshape(array, (step, -1)) for array in found], axis=1))
        outputs = torch.from_numpy(np.concatenate(rows)[: len(pixels)]).to(inputs.device)
        return outputs[:, :0], outputs


class HubRun(nn.Module):
    """An image classifier of Hugging Face; no code of its folder is run."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        with explained(f"the teacher {folder.name}"):
            from transformers import AutoImageProcessor, AutoModelForImageClassification
            from transformers.utils import logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        options = {"local_files_only": True, "trust_remote_code": False}
        has_safetensors = (folder / WEIGHTS[0]).is_file()
        try:
            self._processor = AutoImageProcessor.from_pretrained(folder, **options)
            model, report = AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=has_safetensors, output_loading_info=True, **options
            )
        except (*LOAD_ERRORS, SafetensorError) as error:
            raise InputError(f"{folder}: cannot be loaded ({first_line(error)})") from error
        if missing := sorted(report["missing_keys"]):
            raise InputError(f"{folder}: the weights lack {missing[0]}")
        self.model = model.float()
        self._hidden = torch.empty(0)
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        if layers:  # the last one classifies
            layers[-1].register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]

    def prepare(self, pixels: Tensor) -> Tensor:
        """Convert RGB crops uint8 `[N, S, S, 3]` with the processor of the classifier."""
        inputs = self._processor(images=[*pixels.cpu().numpy()], return_tensors="pt")
        prepared: Tensor = inputs["pixel_values"]
        return prepared.to(pixels.device)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._hidden = x.new_empty((len(x), 0))
        logits: Tensor = self.model(pixel_values=x).logits
        hidden = self._hidden
        return hidden if hidden.ndim == 2 else hidden.new_empty((len(x), 0)), logits


def load_foreign(weights: ForeignWeights, device: str) -> ForeignNetwork:
    """Load a network of another format; InputError if it is damaged or not as described."""
    described, path = weights.sidecar, weights.path
    run = OnnxRun(path, described, device) if isinstance(described, Sidecar) else HubRun(path)
    net = ForeignNetwork(described, run).eval()
    size = described.input_size
    try:
        with torch.inference_mode():
            inputs = net.preprocess(torch.zeros((1, size, size, 3), dtype=torch.uint8))
            net.embedding_size = net.embed_and_classify(inputs)[0].shape[1]
    except Exception as error:  # those of onnxruntime and of processors share no base class
        reason = " ".join(str(error).split())[:MAX_REASON]  # onnxruntime's are of several lines
        raise InputError(f"{path}: cannot be run as described ({reason})") from error
    return net
