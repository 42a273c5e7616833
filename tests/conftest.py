"""Fixtures of several test files, and the selection of tests."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Files that test the core; they are collected without the extra `build` too.
CORE = {
    *("architecture", "audio", "card", "config", "core", "diff", "download", "files", "grid"),
    *("layouts", "matfile", "outside", "own_labels", "publish", "published", "reader", "schema"),
    *("splits", "store", "takedown", "validate", "voxceleb"),
}
settings.register_profile("emovox", deadline=None)  # the speed of the machine does not matter
settings.load_profile("emovox")

HAS_BUILD = importlib.util.find_spec("torch") is not None

if "PYTEST_XDIST_WORKER" in os.environ:  # one test process per core
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def pytest_report_header() -> str | None:
    return None if HAS_BUILD else "no extra `build`: only the tests of the core are collected"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    name = collection_path.stem
    is_test = name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and not HAS_BUILD and name.removeprefix("test_") not in CORE else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real media, from EMOVOX_TEST_DATA; without it the test is skipped."""
    folder = os.environ.get("EMOVOX_TEST_DATA")
    if not folder:
        pytest.skip("EMOVOX_TEST_DATA is not set; it names the folder of real data")
    return Path(folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: small trainings are slower with two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Run builds in this process: a worker process takes seconds to load torch."""
    from engine_fixtures import InProcess

    monkeypatch.setattr("emovox.labelling.engine.LokyEngine", InProcess)


@pytest.fixture(scope="session")
def student_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a small `dataset` and the `audio` of its tracks; read-only."""
    from student_fixtures import utterances, write_audio, write_tables

    root = tmp_path_factory.mktemp("student")
    write_audio(root / "audio", utterances())
    write_tables(root / "dataset", utterances())
    return root


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """File system of a local S3 server, which child processes reach too."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield s3fs.S3FileSystem()
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
