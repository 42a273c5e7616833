"""Libraries and numbers that tests compare with; tests of the core also run without libraries."""

import importlib
from typing import Any

import numpy as np
import pytest

from emovox.testing import CODE_BITS


class Absent:
    """Stand-in for a module that is not installed: a test that uses it is skipped."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        pytest.skip(f"{self._name} is not installed")


def oracle(name: str) -> Any:
    """Import a module, or return an `Absent` that skips the tests that use it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return Absent(name)


def read_code(image: np.ndarray) -> int:
    """Return the number in a decoded `coded_frame`."""
    centres = (np.arange(CODE_BITS) + 0.5) * image.shape[1] / CODE_BITS
    levels = image[image.shape[0] // 2, centres.astype(int), 0]
    return int(sum(1 << k for k, level in enumerate(levels) if level > 125))
