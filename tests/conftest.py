"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real media that EMOVOX_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("EMOVOX_TEST_DATA")
    if not folder:
        pytest.skip("EMOVOX_TEST_DATA is not set; it names the folder of real data")
    return Path(folder)
