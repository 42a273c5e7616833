"""Where a teacher runs and in which arithmetic.

Importing torch takes seconds, so it is asked only where the machine has an NVIDIA driver, or cannot
be read otherwise: the process that drives a build on a CPU never loads it.
"""

import importlib
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emovox.errors import ConfigError

DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")  # the last is WSL's
CPU_FILE = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def resolve_device(device: str) -> str:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into the name of a device that is there.

    Raises:
        ConfigError: no such device.
    """
    if device == "auto":
        return "cuda" if _may_have_cuda() and _torch().cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdigit():
        raise ConfigError(f"device {device!r} is not one of auto, cpu, cuda, cuda:N")
    num_devices = _torch().cuda.device_count()
    if int(index or 0) >= num_devices:
        raise ConfigError(
            f"device {device!r}: torch sees {num_devices} CUDA devices; use --device cpu"
        )
    return device


def teacher_devices(device: str) -> tuple[str, ...]:
    """The GPUs behind a resolved device: all that are visible for `cuda`, none for `cpu`."""
    if device != "cuda":
        return () if device == "cpu" else (device,)
    return tuple(f"cuda:{index}" for index in range(_torch().cuda.device_count()))


def resolve_precision(precision: str, device: str) -> str:
    """Turn `auto` into what suits a resolved device: bf16 where there are instructions for it.

    Raises:
        ConfigError: neither `auto`, `fp32` nor `bf16`.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        # From compute capability 8.0 (Ampere) on; below it bf16 is emulated, and slow.
        return "bf16" if _torch().cuda.get_device_capability(device)[0] >= 8 else "fp32"
    return "bf16" if BF16_FLAGS & _cpu_flags() else "fp32"


def resolve_compile(compile: str, device: str, pays: bool) -> bool:
    """Whether to run a teacher through torch.compile on a resolved device.

    Args:
        compile: `on`, `off`, or `auto`: where a compiler is there and it `pays`.
        device: resolved.
        pays: whether the work ahead is long enough.

    Raises:
        ConfigError: neither `auto`, `on` nor `off`.
    """
    if compile not in COMPILE_MODES:
        raise ConfigError(f"compile {compile!r} is not one of {', '.join(COMPILE_MODES)}")
    return compile == "on" or (compile == "auto" and pays and _has_compiler(device))


PRECISIONS = ("auto", "fp32", "bf16")
COMPILE_MODES = ("auto", "on", "off")


@dataclass(frozen=True)
class Runtime:
    """How a teacher runs on some machine: what `auto` means there.

    Attributes:
        device: resolved.
        precision: `fp32` or `bf16`.
        compiled: whether it runs through torch.compile.
        device_name: the GPU's model, or `cpu`.
    """

    device: str
    precision: str
    compiled: bool
    device_name: str


def resolve_runtime(device: str, precision: str, compile: str, pays: bool) -> Runtime:
    """Resolve device, precision and compile mode on this machine.

    Raises:
        ConfigError: one of them is unknown, or there is no such device.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    compiled = resolve_compile(compile, device, pays)
    return Runtime(device, precision, compiled, device_name(device))


def device_name(device: str) -> str:
    """What to call a resolved device in provenance: the GPU's model, or `cpu`."""
    return _torch().cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def _may_have_cuda() -> bool:
    return sys.platform == "win32" or any(Path(name).exists() for name in DRIVER_FILES)


def _has_compiler(device: str) -> bool:
    """What torch.compile needs: a C++ compiler and Python's headers, and Triton for a GPU."""
    compilers = [os.environ.get("CXX"), "g++", "clang++"]
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    has_triton = importlib.util.find_spec("triton") is not None
    return (
        any(name and shutil.which(name) for name in compilers)
        and headers.is_file()
        and (device == "cpu" or has_triton)
    )


def _cpu_flags() -> set[str]:
    """Instruction sets of the processor; none where the system does not list them."""
    try:
        lines = CPU_FILE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _torch() -> Any:
    return importlib.import_module("torch")
