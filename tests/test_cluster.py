"""A Ray cluster of two local nodes, parts of which are killed during builds."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from emovox.dataset import schema
from emovox.errors import ConfigError, EmovoxError
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.cluster import RayEngine
from emovox.labelling.run import build_dataset
from emovox.testing import write_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_CLIPS = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for number in range(NUM_CLIPS):
        write_clip(root / f"mp4/id{number % 7}/v{number}/00001.mp4", 60 + number)
    (root / "mp4/id0/v0/00002.mp4").write_bytes(b"not a video")
    return root


@pytest.fixture(scope="module")
def expected(corpus: Path) -> dict[str, str | None]:
    """Content hashes of the dataset that a single machine builds."""
    out = corpus.parent / "single"
    build_dataset(BuildConfig("voxceleb2", corpus, out, jobs=2), show_progress=False)
    return hashes(out)


@pytest.fixture(scope="module")
def cluster(store: Any) -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


def hashes(out: Path) -> dict[str, str | None]:
    manifest = json.loads((out / schema.MANIFEST).read_text(encoding="utf-8"))
    assert manifest["totals"]["tracks"] == NUM_CLIPS and manifest["totals"]["dropped"] == 1
    return {f["path"]: f["content_sha256"] for f in manifest["files"]}


def drive(corpus: Path | str, out: Path | str, address: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    command += ["--root", str(corpus), "--out", str(out), "--shard-tracks", "1"]
    command += ["--engine", "ray", "--ray-address", address]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], bool], driver: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def num_markers(out: Path) -> int:
    return len(list((out / ".emovox").glob("*.json")))


def finish(driver: "subprocess.Popen[str]", out: Path) -> dict[str, str | None]:
    stdout, stderr = driver.communicate(timeout=240)
    assert driver.returncode == 0, stderr
    assert f"{NUM_CLIPS} written, 1 dropped" in stdout
    return hashes(out)


def kill_processes(words: str) -> int:
    """Kill processes of this test's cluster by their command line."""
    killed = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if words in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed += 1
        except psutil.Error:
            continue
    return killed


@pytest.mark.parametrize("words", ["LokyProcess", "ray::ShardActor"])
def test_killed_worker_or_actor(
    words: str, corpus: Path, expected: dict[str, str | None], cluster: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = drive(corpus, out, cluster.address)
    wait_for(lambda: num_markers(out) >= 5, driver)
    assert kill_processes(words)
    assert num_markers(out) < NUM_CLIPS, "killed under way"
    assert finish(driver, out) == expected


def test_removed_node(
    corpus: Path, expected: dict[str, str | None], cluster: Any, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)
    out = tmp_path / "out"
    driver = drive(corpus, out, cluster.address)
    wait_for(lambda: num_markers(out) >= 5, driver)
    cluster.remove_node(node, allow_graceful=False)
    assert finish(driver, out) == expected


def test_corpus_and_dataset_in_an_object_store(
    corpus: Path, expected: dict[str, str | None], cluster: Any, store: Any, tmp_path: Path
) -> None:
    store.mkdir("bucket")
    store.put(str(corpus), "s3://bucket/vox2", recursive=True)
    driver = drive("s3://bucket/vox2", "s3://bucket/dataset", cluster.address)
    _, stderr = driver.communicate(timeout=240)
    assert driver.returncode == 0, stderr
    store.get("s3://bucket/dataset/manifest.json", str(tmp_path / schema.MANIFEST))
    tables = [name for name in expected if name.endswith(".parquet")]
    found = hashes(tmp_path)
    assert tables and {n: found[n] for n in tables} == {n: expected[n] for n in tables}


def test_killed_driver_resumes(
    corpus: Path, expected: dict[str, str | None], cluster: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = drive(corpus, out, cluster.address)
    wait_for(lambda: num_markers(out) >= 5, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    before = num_markers(out)
    assert 0 < before < NUM_CLIPS
    again = drive(corpus, out, cluster.address)
    assert finish(again, out) == expected


def test_cluster_without_room_is_an_error(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emovox.labelling.cluster.MAX_WAIT_SECONDS", 2.0)
    engine = RayEngine(cluster.address, actor_cpus=1, actor_gpus=1)
    try:
        with pytest.raises(
            EmovoxError, match="no node can run an actor with --actor-cpus 1, --actor-gpus 1"
        ):
            engine.resolve("cpu", "fp32", "off", False)
    finally:
        import ray

        ray.shutdown()


def test_unreachable_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(EmovoxError, match=f"Ray cluster 127.0.0.1:{port}: .*refused"):
        RayEngine(f"127.0.0.1:{port}")


def test_terminated_run_ends_in_one_line(corpus: Path, cluster: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    driver = drive(corpus, out, cluster.address)
    wait_for(lambda: num_markers(out) >= 5, driver)
    driver.send_signal(signal.SIGTERM)
    _, stderr = driver.communicate(timeout=60)
    assert driver.returncode == 130
    interrupted = "emovox: interrupted; rerun the same command"
    # A busy machine takes more than 30 s, after which a run prints its progress.
    waits = re.compile(r"\d+ of \d+ tracks, .*|")
    assert [line for line in stderr.splitlines() if not waits.fullmatch(line)] == [interrupted]


def test_error_of_a_node_is_raised_by_the_driver(cluster: Any) -> None:
    engine = RayEngine(cluster.address)
    try:
        with pytest.raises(ConfigError, match="fp8"):
            engine.resolve("cpu", "fp8", "off", False)
    finally:
        import ray

        ray.shutdown()
