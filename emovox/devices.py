"""Device, precision and compile mode of networks.

Importing torch takes seconds, so torch is asked only if the machine has an NVIDIA driver. The main
process of a build on a CPU never imports torch.
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

from emovox.errors import ConfigError, check_choice

PRECISIONS = ("auto", "fp32", "bf16")
COMPILE_MODES = ("auto", "on", "off")

DRIVER_FILES = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")  # the last: WSL
CPU_FILE = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def resolve_device(device: str) -> str:
    """Resolve `auto` to `cuda` or `cpu`, and check that `cuda` or `cuda:1` exists.

    Raises:
        ConfigError: the device is unknown or missing.
    """
    if device == "auto":
        may_have_cuda = sys.platform == "win32" or any(map(os.path.exists, DRIVER_FILES))
        return "cuda" if may_have_cuda and _torch().cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdigit():
        raise ConfigError(f"device {device!r} is not one of auto, cpu, cuda, cuda:N")
    num_devices = _torch().cuda.device_count()
    if int(index or 0) >= num_devices:
        fact = f"torch sees {num_devices} CUDA devices"
        raise ConfigError(f"device {device!r}: {fact}; use --device cpu")
    return device


def teacher_devices(device: str) -> tuple[str, ...]:
    """Return the GPUs of a resolved device: all visible ones for `cuda`, none for `cpu`."""
    if device != "cuda":
        return () if device == "cpu" else (device,)
    return tuple(f"cuda:{index}" for index in range(_torch().cuda.device_count()))


def resolve_precision(precision: str, device: str) -> str:
    """Resolve `auto` to `bf16` if the resolved device has instructions for it, otherwise `fp32`.

    Raises:
        ConfigError: neither `auto`, `fp32` nor `bf16`.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        # Below compute capability 8.0 (Ampere) bf16 is emulated and slow.
        return "bf16" if _torch().cuda.get_device_capability(device)[0] >= 8 else "fp32"
    flags = CPU_FILE.read_text(encoding="utf-8").split() if CPU_FILE.exists() else []
    return "bf16" if BF16_FLAGS & set(flags) else "fp32"


def resolve_compile(compile: str, device: str, pays: bool) -> bool:
    """Return True if a network should run through torch.compile on a resolved device.

    `auto` is True if a compiler is installed and `pays`: there is enough work to save time.

    Raises:
        ConfigError: neither `auto`, `on` nor `off`.
    """
    check_choice("compile", compile, COMPILE_MODES)
    return compile == "on" or (compile == "auto" and pays and _has_compiler(device))


@dataclass(frozen=True)
class Runtime:
    """Device and arithmetic of a teacher on one machine, with `auto` resolved."""

    device: str
    precision: str  # `fp32` or `bf16`
    compiled: bool  # the teacher runs through torch.compile
    device_name: str  # model of the GPU, or `cpu`


def resolve_runtime(device: str, precision: str, compile: str, pays: bool) -> Runtime:
    """Resolve device, precision and compile mode on this machine.

    Raises:
        ConfigError: one of them is unknown, or the device is missing.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    return Runtime(device, precision, resolve_compile(compile, device, pays), device_name(device))


def device_name(device: str) -> str:
    """Return the name of a resolved device for provenance: model of the GPU, or `cpu`."""
    return _torch().cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def _has_compiler(device: str) -> bool:
    compilers = filter(None, (os.environ.get("CXX"), "g++", "clang++"))
    has_headers = Path(sysconfig.get_paths()["include"], "Python.h").is_file()
    has_triton = device == "cpu" or importlib.util.find_spec("triton") is not None
    return has_headers and has_triton and any(map(shutil.which, compilers))


def _torch() -> Any:
    return importlib.import_module("torch")
