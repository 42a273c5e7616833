"""Speed of teachers, compared with other ways to run the same network on the same machine.

    python tests/benchmarks/teacher_speed.py [--threads 2] [--device cpu] [--rounds 5]

SENet-50 has random weights. All ways run on the same crops, in turns; a figure is the median over
the rounds. On a GPU the baseline is the compiled network alone, on data already on the device. ONNX
Runtime is included if onnxruntime, onnx and onnxscript are installed.
"""

import argparse
import copy
import importlib.util
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from emovox import checkpoints
from emovox.checkpoints import FaceNetwork
from emovox.devices import device_name, resolve_device, resolve_precision
from emovox.teacher import EMBEDDED, teacher_checkpoint
from emovox.teacher.inference import TorchTeacher
from emovox.teacher.teacher_checkpoint import Senet

Run = Callable[[], object]


def seconds(run: Run, device: str) -> float:
    started = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def bare(net: FaceNetwork, crops: np.ndarray, dtype: torch.dtype, device: str, how: str) -> Run:
    """Return a run of the network alone, on preprocessed inputs on the device."""
    net = copy.deepcopy(net).to(device, dtype).to(memory_format=torch.channels_last)
    net.classifier.float()
    pixels = torch.from_numpy(crops).to(device)
    inputs = net.preprocess(pixels).to(dtype, memory_format=torch.channels_last)
    run = torch.compile(net) if how == "compiled" else net

    def forward() -> object:
        with torch.inference_mode():
            return run(inputs)

    return forward


def onnx(net: FaceNetwork, crops: np.ndarray, threads: int, folder: Path) -> Run | None:
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        return None
    import onnxruntime

    inputs = net.preprocess(torch.from_numpy(crops))
    torch.onnx.export(net, (inputs,), folder / "net.onnx", dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "net.onnx", options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: inputs.numpy()})


def compare(runs: dict[str, Run], num_crops: int, rounds: int, device: str) -> dict[str, float]:
    """Return the crops per second of each way, measured in turns."""
    for run in runs.values():
        seconds(run, device)
        seconds(run, device)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run, device))
    return {name: num_crops / statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    precision = resolve_precision("auto", device)
    print(
        f"{device_name(device)}, {platform.machine()}, torch {torch.__version__}, "
        f"{args.threads} threads, precision auto = {precision}"
    )
    rng = np.random.default_rng(0)
    torch.manual_seed(0)

    net = Senet().eval()
    ours = TorchTeacher("senet50", "", copy.deepcopy(net), device, "auto", compiled=True)
    crops = rng.integers(0, 256, (2 * ours.batch_size, 224, 224, 3), dtype=np.uint8)
    batch = crops[: ours.batch_size]
    half = torch.bfloat16
    runs: dict[str, Run] = {
        "emovox, uint8 in, numpy out": lambda: [ours(batch)],
        "eager fp32 channels_last": bare(net, batch, torch.float32, device, "eager"),
        "eager bf16": bare(net, batch, half, device, "eager"),
        "compiled bf16": bare(net, batch, half, device, "compiled"),
    }
    with tempfile.TemporaryDirectory() as folder:
        if device == "cpu" and (run := onnx(net, batch, args.threads, Path(folder))):
            runs["ONNX Runtime fp32"] = run
        rates = compare(runs, len(batch), args.rounds, device)
    print("SENet-50")
    for name, rate in rates.items():
        print(f"  {name:<28}{rate:10.1f} crops/s")
    mine, *others = rates.values()
    print(f"  emovox / best of the others {mine / max(others):.2f}")

    crops = rng.integers(0, 256, (4096, 48, 48, 3), dtype=np.uint8)
    runs = {}
    for compiled in (False, True):
        compact = checkpoints.load(EMBEDDED["compact"], teacher_checkpoint.ARCHITECTURES)
        teacher = TorchTeacher("compact", "", compact, device, "auto", compiled=compiled)
        runs["compiled" if compiled else "eager"] = partial(teacher, crops)
    print("compact")
    for name, rate in compare(runs, len(crops), args.rounds, device).items():
        print(f"  emovox, {name:<20}{rate:10.0f} crops/s")


if __name__ == "__main__":
    main()
