"""Builds from and to URLs, on the local S3 server of moto."""

import contextlib
import errno
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import emovox.labelling.state as locks
from emovox.cli import main
from emovox.dataset import schema
from emovox.errors import EmovoxError, InputError, NetworkError
from emovox.files import write_text
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.run import BuildResult, build_dataset
from emovox.labelling.state import STATE
from emovox.paths import RemotePath, as_path, local_copy
from emovox.testing import FakeTeacher, InlineEngine, coded_frame, write_clip

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

NUM_FRAMES = {"id1/a/00001": 25, "id1/a/00002": 7, "id2/c/00001": 49, "id3/d/00001": 7}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus in the layout of VoxCeleb2; read-only for tests."""
    root = tmp_path_factory.mktemp("clips")
    for track_id, count in NUM_FRAMES.items():
        write_clip(root / "mp4" / f"{track_id}.mp4", count)
    return root


@pytest.fixture
def bucket(store: Any, request: pytest.FixtureRequest) -> str:
    """URL of a new bucket."""
    name = f"b{abs(hash(request.node.nodeid)):x}"
    store.mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def root(store: Any, bucket: str, clips: Path) -> Any:
    """URL of the corpus."""
    return upload(store, clips, f"{bucket}/vox2")


def upload(store: Any, folder: Path, url: str) -> Any:
    for path in folder.rglob("*"):
        if path.is_file():
            store.put_file(str(path), f"{url}/{path.relative_to(folder).as_posix()}")
    return as_path(url)


def build(root: Any, out: Any, engine: InlineEngine | None = None, **options: Any) -> BuildResult:
    defaults: dict[str, Any] = {"layout": "voxceleb2", "max_dropped": 1.0, "shard_tracks": 2}
    config = BuildConfig(root=root, out=out, **(defaults | options))
    return build_dataset(config, engine=engine or InlineEngine(FakeTeacher()), show_progress=False)


def content(manifest: dict[str, Any]) -> dict[str, str]:
    return {f["path"]: f["content_sha256"] for f in manifest["files"] if f["content_sha256"]}


def dropped(out: Any) -> list[dict[str, Any]]:
    with local_copy(out / schema.DROPPED_FILE) as local:
        return list(pq.read_table(local).to_pylist())


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts of the requests to S3 by kind."""
    requests: Counter[str] = Counter()
    original = s3fs.S3FileSystem._call_s3

    async def count(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        requests[method] += 1
        return await original(self, method, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_call_s3", count)
        yield requests


def test_s3_build_equals_a_local_build(root: Any, bucket: str, clips: Path, tmp_path: Path) -> None:
    out: Any = as_path(f"{bucket}/datasets/vox2")
    result = build(root, out, hdf5=True)
    local = build(clips, tmp_path / "vox2", hdf5=True)
    assert content(result.manifest) == content(local.manifest)
    on_disk = [p for p in (tmp_path / "vox2").rglob("*") if p.is_file()]
    names = {p.relative_to(tmp_path / "vox2").as_posix() for p in on_disk}
    found = out.files()
    assert {n for n in found if STATE not in n} == {n for n in names if STATE not in n}
    assert f"{STATE}/lock" not in found
    assert json.loads((out / schema.MANIFEST).read_text()) == result.manifest
    for file in result.manifest["files"]:
        assert found[file["path"]][0] == file["bytes"]
    shown = (out / schema.PROVENANCE).read_text() + (out / schema.CARD).read_text()
    assert bucket.removeprefix("s3://") not in shown and "127.0.0.1" not in shown
    assert result.manifest["name"] == "vox2"


def test_resume(root: Any, bucket: str) -> None:
    out = as_path(f"{bucket}/out")
    engine = InlineEngine(FakeTeacher())
    first = build(root, out, engine, shard_tracks=1)
    assert engine.num_shards == first.num_built == first.num_shards >= 2
    again = build(root, out, engine, shard_tracks=1)
    assert again.num_built == 0 and again.manifest == first.manifest
    state: Any = out / STATE
    markers = [p for p in state.iterdir() if p.suffix == ".json" and p.name != "finished.json"]
    markers[0].unlink()
    next(p for p in state.iterdir() if p.name == f"{Path(markers[1].name).stem}.parquet").unlink()
    third = build(root, out, shard_tracks=1)
    assert third.num_built == 2 and third.manifest == first.manifest
    fourth = build(root, out, shard_tracks=1, step_ms=480, replace=True)
    assert fourth.num_built == fourth.num_shards
    left = {p.name for p in state.iterdir() if p.suffix == ".parquet"}
    assert len(left) == fourth.num_shards


def test_files_of_an_earlier_dataset_are_removed(root: Any, bucket: str) -> None:
    out: Any = as_path(f"{bucket}/out")
    build(root, out, hdf5=True, heard_fraction=1.0)
    write_text(out / "notes.txt", "mine")
    result = build(root, out, unheard_fraction=0.0, heard_fraction=0.0)
    listed = {file["path"] for file in result.manifest["files"]}
    found = {name for name in out.files() if STATE not in name}
    assert found == listed | {schema.MANIFEST, "notes.txt"}


def test_changed_and_vanished_objects(
    root: Any, bucket: str, store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = as_path(f"{bucket}/out")
    build(root, out, shard_tracks=1)
    changed = write_clip(tmp_path / "new.mp4", 13)
    store.put_file(str(changed), f"{root}/mp4/id3/d/00001.mp4")
    assert build(root, out, shard_tracks=1).num_built == 1

    @contextlib.contextmanager
    def held_state(out: Path, state: Path) -> Iterator[Any]:  # after the listing of the corpus
        store.rm_file(f"{root}/mp4/id2/c/00001.mp4")
        with locks.held_state(out, state) as held:
            yield held

    monkeypatch.setattr("emovox.labelling.run.held_state", held_state)
    result = build(root, as_path(f"{bucket}/other"), state=as_path(f"{bucket}/state"))
    [row] = dropped(as_path(f"{bucket}/other"))
    assert (row["track_id"], row["stage"], row["error"]) == ("id2/c/00001", "open", "FileNotFound")
    assert row["message"] == "No such file or directory"
    assert result.manifest["totals"]["tracks"] == len(NUM_FRAMES) - 1


def test_failed_downloads_are_retried_by_the_next_run(
    root: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fetch = as_path(f"{bucket}/out"), RemotePath.fetch

    def failing(self: RemotePath, target: Path) -> None:
        if "id2" in str(self):
            raise OSError(errno.EIO, "Input/output error", str(self))
        fetch(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "fetch", failing)
        assert build(root, out).reasons == {"open: NotFetched": 1}
    again = build(root, out)
    assert again.num_built == 1 and not again.reasons


def test_planning_costs_no_request_per_file(
    bucket: str, store: Any, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {}
    for number in (3, 30):
        url = f"{bucket}/vox{number}"
        for i in range(number):
            clip = clips / "mp4/id1/a/00002.mp4"
            store.put_file(str(clip), f"{url}/mp4/id{i % 5}/v{i}/00001.mp4")
        out = as_path(f"{bucket}/out{number}")
        options: dict[str, Any] = {
            "shard_tracks": 50,
            "unheard_fraction": 0.0,
            "heard_fraction": 0.0,
        }
        build(as_path(url), out, **options)
        with counted(monkeypatch) as counts[number]:
            build(as_path(url), out, **options)
    assert counts[3] == counts[30]
    assert counts[3].total() < 50


def test_a_track_costs_one_request(
    root: Any, bucket: str, store: Any, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as few:
        build(root, as_path(f"{bucket}/few"), shard_tracks=50)
    for i in range(10):
        store.put_file(str(clips / "mp4/id1/a/00002.mp4"), f"{root}/mp4/id1/a/{i + 10:05d}.mp4")
    with counted(monkeypatch) as more:
        build(root, as_path(f"{bucket}/more"), shard_tracks=50)
    assert more.total() - few.total() == 10 == more["get_object"] - few["get_object"]


def test_boxes_lists_and_tables(store: Any, bucket: str, tmp_path: Path) -> None:
    """Build the other layouts with every input behind a URL, and compare with local builds."""
    disk = tmp_path / "corpus"
    write_clip(disk / "voxceleb1/video/vid.mp4", 60)
    for number in (1, 2):
        rows = "".join(f"{frame}\t40\t30\t100\t100\n" for frame in range(10 * number, 50))
        box = disk / f"voxceleb1/txt/A._Name/vid/0000{number}.txt"
        box.parent.mkdir(parents=True, exist_ok=True)
        box.write_text(f"Identity\nFRAME\tX\tY\tW\tH\n{rows}")
    import cv2

    for number in range(1, 5):
        image = disk / f"dense-frames/A._Name/1.6/vid/0000001/{number:02d}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), coded_frame(number))
    meta = "VoxCeleb1 ID\tVGGFace1 ID\nid10001\tA._Name\n"
    (disk / "meta").mkdir()
    (disk / "meta/vox1_meta.csv").write_text(meta)
    write_clip(disk / "table/a.mp4", 20)
    (disk / "table/tracks.csv").write_text(
        "track_id,video,identity,start,end,split\na/v/1,a.mp4,a,0,0.5,train\n"
        "a/v/2,none.mp4,a,,,train\n"
    )
    corpus = upload(store, disk, f"{bucket}/corpus")
    for layout in ("voxceleb1", "dense-frames", "table"):
        results = []
        for where, out in ((corpus, as_path(f"{bucket}/{layout}")), (disk, tmp_path / layout)):
            options: dict[str, Any] = {"meta": where / "meta"}
            if layout == "table":
                options = {"table": where / "table/tracks.csv"}
            results.append(build(where / layout, out, layout=layout, **options))
        remote, local = results
        assert dropped(as_path(f"{bucket}/{layout}")) == dropped(tmp_path / layout)
        assert content(remote.manifest) == content(local.manifest)
        assert remote.reasons == local.reasons
        assert remote.manifest["totals"]["tracks"] == {"voxceleb1": 2}.get(layout, 1)


def test_a_video_with_many_tracks_is_fetched_once(
    store: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "corpus"
    write_clip(root / "a.mp4", 60)
    write_clip(root / "b.mp4", 60)
    lines = [f"{v}/v/{i},{v}.mp4,{v},{i / 2},{i / 2 + 0.5}" for v in "ab" for i in range(4)]
    (tmp_path / "t.csv").write_text("track_id,video,identity,start,end\n" + "\n".join(lines))
    url = upload(store, root, f"{bucket}/corpus")
    fetched: list[str] = []
    original = type(url).fetch

    def fetch(self: Any, target: Path) -> None:
        fetched.append(self.name)
        original(self, target)

    monkeypatch.setattr(type(url), "fetch", fetch)
    result = build(
        url, tmp_path / "out", layout="table", table=tmp_path / "t.csv", shard_tracks=100
    )
    assert result.manifest["totals"]["tracks"] == 8 and sorted(fetched) == ["a.mp4", "b.mp4"]


def test_unreachable_rows_are_not_reported_as_damaged(
    root: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fetch = as_path(f"{bucket}/out"), RemotePath.fetch

    def failing(self: RemotePath, target: Path) -> None:
        if str(self).endswith(".parquet"):
            raise OSError(errno.EIO, "Input/output error", str(self))
        fetch(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "fetch", failing)
        with pytest.raises(NetworkError, match="Input/output error"):
            build(root, out)
    assert build(root, out).num_built == 0, "the markers are still there"


def test_separate_state(root: Any, bucket: str, clips: Path, tmp_path: Path) -> None:
    state: Any = as_path(f"{bucket}/state")
    for corpus, out in ((root, as_path(f"{bucket}/out")), (clips, tmp_path / "out")):
        build(corpus, out, state=state)
        names = {path.name for path in out.iterdir()}
        assert schema.MANIFEST in names and STATE not in names
        assert build(corpus, out, state=state).num_built == 0
        build(corpus, out, state=state, step_ms=480, replace=True)  # the same build
        with pytest.raises(InputError, match="missing or of another build"):
            build(corpus, out)
        with pytest.raises(InputError, match="missing or of another build"):
            build(corpus, out, state=tmp_path / "another state")
        (out / schema.MANIFEST).unlink()
        with pytest.raises(InputError, match="is not empty"):
            build(corpus, out, state=state)
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "out", other)
    (other / schema.MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="missing or of another build"):
        build(clips, other, state=state)


def test_relative_folders(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out, state in ((Path("one"), None), (Path("two"), Path("state"))):
        build(clips, out, state=state)
        result = build(clips, out, state=state and tmp_path / state, step_ms=480, replace=True)
        assert result.num_built == result.num_shards


def test_kill_during_the_upload(root: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out: Any = as_path(f"{bucket}/out")
    state = as_path(f"{bucket}/state")
    first = build(root, out, state=state)
    original = type(out).put

    def put(self: Any, source: Path, **options: Any) -> None:
        if self.name == schema.CARD:
            raise KeyboardInterrupt
        original(self, source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(out), "put", put)
        with pytest.raises(KeyboardInterrupt):
            build(root, out, state=state, hdf5=True)
    assert not (out / schema.MANIFEST).exists() and (out / schema.CHECKSUMS).exists()
    again = build(root, out, state=state)
    assert content(again.manifest) == content(first.manifest) and again.num_built == 0


def test_missing_folders_and_buckets(bucket: str, tmp_path: Path, clips: Path) -> None:
    for url in (f"{bucket}/none", "s3://no-such-bucket/vox2"):
        with pytest.raises(InputError, match="no such folder"):
            build(as_path(url), tmp_path / "out")
    with pytest.raises(EmovoxError, match=r"s3://no-such-bucket/out: .*No such file"):
        build(clips, as_path("s3://no-such-bucket/out"))
    file: Any = as_path(f"{bucket}/file")
    write_text(file, "mine")
    with pytest.raises(InputError, match="is a file"):
        build(clips, file)
    folder: Any = as_path(f"{bucket}/folder")
    write_text(folder / "file", "mine")
    with pytest.raises(InputError, match=r"is not empty, and .* missing or of another build"):
        build(clips, folder)


def test_unreachable_service(root: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class EndpointError(Exception):
        pass

    original = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "put_object":
            raise EndpointError("no route to 10.0.0.1")
        return await original(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    with pytest.raises(NetworkError, match=r"out: cannot write: EndpointError \(no route"):
        build(root, as_path(f"{bucket}/out"))


def test_file_urls_are_local(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(as_path(f"file://{clips}"), as_path(f"file://{out}"), state=f"file://{tmp_path}/state")
    assert (out / schema.MANIFEST).is_file() and (tmp_path / "state/lock").exists()


@pytest.mark.slow
def test_command_line(root: Any, bucket: str, store: Any, clips: Path, tmp_path: Path) -> None:
    """Run the command with worker processes and the compact teacher."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'layout = "voxceleb2"\nroot = "{root}"\nstate = "{bucket}/state"\n')
    arguments = [
        *("build-dataset", str(recipe), "--out", f"{bucket}/out", "--jobs", "1"),
        *("--precision", "fp32", "--compile", "off", "--max-dropped", "1"),
    ]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"dataset   {bucket}/out" in result.output
    out: Any = as_path(f"{bucket}/out")
    totals = json.loads((out / schema.MANIFEST).read_text())["totals"]
    assert totals["tracks"] == len(NUM_FRAMES) and totals["dropped"] == 0
    elsewhere = ["build-dataset", "--layout", "voxceleb2", "--root", "nonsense://x/y"]
    refused = CliRunner().invoke(main, [*elsewhere, "--out", str(tmp_path / "other")])
    assert refused.exit_code == 2 and "Protocol not known" in refused.output
