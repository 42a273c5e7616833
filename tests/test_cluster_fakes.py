"""The driver of a cluster with a fake of Ray; no Ray is needed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_engine import make_jobs

from emovox.errors import EmovoxError
from emovox.labelling.cluster import CODE_VERSION, RayEngine, ShardActor, _Run
from emovox.labelling.plan import ShardReport
from emovox.labelling.shard import build_shard
from emovox.labelling.teacher_process import InlineFeed
from emovox.testing import FakeDetector, FakeTeacher

NODE = "node7"


class LostError(Exception):
    """An error of Ray."""


class FakeActor:
    """A handle, which Ray can hash."""

    def __init__(self, **calls: Any) -> None:
        self.__dict__.update(calls)


class FakeRay:
    """Runs calls at once."""

    def __init__(self, version: Any = CODE_VERSION) -> None:
        self.version, self.num_calls = version, 0
        self.results: dict[int, Any] = {}
        names = ("RayError", "RayTaskError", "GetTimeoutError")
        self.exceptions = SimpleNamespace(**{name: type(name, (LostError,), {}) for name in names})

    def remote(self, kind: type) -> Any:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=self.actor))

    def actor(self, *arguments: Any) -> Any:
        def call(work: Any) -> Any:
            def remote(*arguments: Any) -> int:
                self.num_calls += 1
                self.results[self.num_calls] = work(*arguments)
                return self.num_calls

            return SimpleNamespace(remote=remote)

        def build(job: Any) -> ShardReport:
            return build_shard(job, InlineFeed(FakeTeacher()), FakeDetector)

        return FakeActor(
            ready=call(lambda: (*self.version, NODE)),
            build=call(build),
            close=call(lambda: None),
        )

    def wait(self, calls: list[int], num_returns: int, timeout: float) -> Any:
        return calls[:1], []

    def get(self, call: int, timeout: float | None = None) -> Any:
        return self.results[call]

    def nodes(self) -> list[Any]:
        return [{"Alive": True, "Resources": {"CPU": 1}}]

    def put(self, content: bytes) -> int:
        return 0

    def kill(self, handle: Any) -> None:
        pass


@pytest.fixture
def jobs(tmp_path: Path) -> list[Any]:
    made = make_jobs(tmp_path, [["a"], ["b"], ["c"], ["d"]])
    return [replace(job, teacher_path=Path(__file__)) for job in made]


def run(ray: FakeRay, jobs: list[Any]) -> list[ShardReport]:
    engine = RayEngine.__new__(RayEngine)
    engine.ray, engine.cpus, engine.gpus, engine.num_workers = ray, 1, 0.0, 0
    return list(_Run(engine, jobs).reports())


def test_every_shard_is_reported_once(jobs: list[Any]) -> None:
    reports = run(FakeRay(), jobs)
    found = sorted(report.fingerprint for report in reports)
    assert found == sorted(job.shard.fingerprint for job in jobs)


def test_another_version_names_the_node(jobs: list[Any]) -> None:
    with pytest.raises(EmovoxError, match=f"^node {NODE} of .* has emovox 0.0.1"):
        run(FakeRay(("0.0.1", 1)), jobs)


def test_a_node_without_the_state_is_an_error(
    jobs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    actor = ShardActor(1, "weights", b"")
    with pytest.raises(EmovoxError, match=r"elsewhere: missing on node .*storage that all nodes"):
        actor.build(replace(jobs[0], state=tmp_path / "elsewhere"))
