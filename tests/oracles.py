"""Libraries that tests compare with; tests of the core also run without them."""

import importlib
from typing import Any

import pytest


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
