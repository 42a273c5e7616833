"""Fixtures that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real media that EMOVOX_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("EMOVOX_TEST_DATA")
    if not folder:
        pytest.skip("EMOVOX_TEST_DATA is not set; it names the folder of real data")
    return Path(folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Trainings as small as those of tests lose time to a second thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def student_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small `dataset` and the `audio` of its tracks; not to be changed."""
    from student_fixtures import utterances, write_audio, write_tables

    root = tmp_path_factory.mktemp("student")
    write_audio(root / "audio", utterances())
    write_tables(root / "dataset", utterances())
    return root
