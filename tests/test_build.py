"""Builds of real video files: rows, resume, dropped tracks, splits and errors."""

import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from validation_fixtures import read_table

import emovox
from emovox.corpus.splits import HEARD, TRAIN, UNHEARD
from emovox.dataset import schema
from emovox.dataset.store import ContentHash, read_hdf5_frames
from emovox.devices import Runtime
from emovox.emotions import PUBLISHED
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError
from emovox.files import LFS_HINT, sha256_file
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.plan import ShardJob, ShardReport, make_plan
from emovox.labelling.run import BuildResult, build_dataset
from emovox.labelling.state import STATE
from emovox.media.faces import Box
from emovox.testing import FakeDetector, FakeTeacher, InlineEngine, coded_frame, write_clip

NUM_FRAMES = {"id1/a/00001": 25, "id1/a/00002": 7, "id1/b/00001": 1, "id2/c/00001": 49}
NO_VALIDATION = (
    "heard_val, unheard_val: no track was drawn; add videos, or change --unheard-fraction or "
    "--heard-fraction"
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus in the layout of VoxCeleb2; read-only for tests."""
    root = tmp_path_factory.mktemp("clips")
    for track_id, count in NUM_FRAMES.items():
        write_clip(root / "mp4" / f"{track_id}.mp4", count)
    return root


@pytest.fixture
def corpus(clips: Path, tmp_path: Path) -> Path:
    """A writable copy of the corpus."""
    return Path(shutil.copytree(clips, tmp_path / "corpus"))


def build(root: Path, out: Path, engine: InlineEngine | None = None, **options: Any) -> BuildResult:
    defaults: dict[str, Any] = {"layout": "voxceleb2", "max_dropped": 1.0, "shard_tracks": 2}
    config = BuildConfig(root=root, out=out, **(defaults | options))
    return build_dataset(config, engine=engine or InlineEngine(FakeTeacher()), show_progress=False)


def all_rows(out: Path, table: str = "frames") -> pa.Table:
    parts = [read_table(out, table, split) for split in schema.SPLITS]
    return pa.concat_tables(parts).sort_by([("track_id", "ascending")])


def content(manifest: dict[str, Any]) -> dict[str, str]:
    return {f["path"]: f["content_sha256"] for f in manifest["files"] if f["content_sha256"]}


def is_whole(out: Path) -> bool:
    """Return True if a dataset breaks no rule; the logits of the fake teacher are too large."""
    return emovox.validate(out).failed() == ["logit-range"]


def dropped(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / schema.DROPPED_FILE).to_pylist()
    return rows


def test_every_track_has_its_rows(clips: Path, tmp_path: Path) -> None:
    result = build(clips, tmp_path / "out")
    tracks = {row["track_id"]: row for row in all_rows(tmp_path / "out", "tracks").to_pylist()}
    assert tracks.keys() == NUM_FRAMES.keys()
    for track_id, count in NUM_FRAMES.items():
        row = tracks[track_id]
        assert row["n_frames"] == row["n_expected"] == (count - 1) // 6 + 1
        assert row["duration_ms"] == count * 40
        assert [row["identity_id"], row["video_id"]] == track_id.split("/")[:2]
        assert row["track_num"] == int(track_id[-5:])
    frames = all_rows(tmp_path / "out")
    assert frames.num_rows == result.manifest["totals"]["frames"] == 5 + 2 + 1 + 9
    one = frames.filter(pa.compute.equal(frames["track_id"], "id2/c/00001"))
    assert one["frame_index"].to_pylist() == list(range(9))
    assert one["timestamp_ms"].to_pylist() == [240 * k for k in range(9)]
    faces = all_rows(tmp_path / "out", "faces")
    assert faces["track_id"].equals(frames["track_id"])
    assert faces["box_x"].to_pylist() == [32.0] * 17 and faces["box_y"].to_pylist() == [0.0] * 17
    assert faces["box_w"].to_pylist() == faces["box_h"].to_pylist() == [160.0] * 17
    assert faces["score"].null_count == 17
    pts = faces.filter(pa.compute.equal(faces["track_id"], "id2/c/00001"))["pts_ms"]
    np.testing.assert_allclose(pts.to_numpy(), 240.0 * np.arange(9))


def test_tracks_point_at_their_rows_and_pool_them(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out", unheard_fraction=0.0, heard_fraction=0.3)
    seen = 0
    for split in schema.SPLITS:
        frames = read_table(tmp_path / "out", "frames", split)
        logits = np.stack([frames[name].to_numpy() for name in schema.EIGHT.logits], axis=1)
        for row in read_table(tmp_path / "out", "tracks", split).to_pylist():
            part = slice(row["row_offset"], row["row_offset"] + row["n_frames"])
            assert set(frames["track_id"][part].to_pylist()) == {row["track_id"]}
            maxima = [row[name] for name in schema.EIGHT.maxima]
            np.testing.assert_array_equal(logits[part].max(axis=0), maxima)
            assert row["label"] == schema.EIGHT.maxima[int(np.argmax(maxima))].removeprefix("max_")
            assert row["split"] == split
            seen += 1
    assert seen == len(NUM_FRAMES)


def test_logits_equal_a_naive_crop_and_teacher(tmp_path: Path) -> None:
    """Compare the logits with a naive reading: full decode, slice, mean."""
    write_clip(tmp_path / "root/mp4/a/b/00001.mp4", [coded_frame(9, 224, 224)] * 8)
    build(tmp_path / "root", tmp_path / "out", engine=InlineEngine(FakeTeacher(16)))
    import av

    with av.open(str(tmp_path / "root/mp4/a/b/00001.mp4")) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    expected = [
        pictures[i].astype(np.float32)[:160, 32:192, 0].reshape(8, 20, 160).mean(axis=(1, 2))
        for i in (0, 6)
    ]
    frames = all_rows(tmp_path / "out")
    logits = np.stack([frames[name].to_numpy() for name in schema.EIGHT.logits], axis=1)
    np.testing.assert_allclose(logits, expected, atol=0.5)


def test_file_set_manifest_and_checksums(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = build(clips, out, hdf5=True, unheard_fraction=0.0, heard_fraction=0.3)
    manifest = json.loads((out / schema.MANIFEST).read_text())
    assert manifest == result.manifest
    splits = manifest["totals"]["by_split"]
    assert set(splits) == {TRAIN, HEARD}
    expected = {schema.table_file(t, s) for t in ("frames", "tracks", "faces") for s in splits}
    expected |= {schema.hdf5_file(s) for s in splits}
    expected |= {schema.DROPPED_FILE, schema.CARD, schema.PROVENANCE, schema.CHECKSUMS}
    assert {f["path"] for f in manifest["files"]} == expected
    on_disk = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert {p for p in on_disk if not p.startswith(STATE)} == expected | {schema.MANIFEST}
    for file in manifest["files"]:
        assert (out / file["path"]).stat().st_size == file["bytes"]
        assert sha256_file(out / file["path"]) == file["sha256"]
    for line in (out / schema.CHECKSUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256_file(out / name) == digest
    for split in splits:
        parquet = content(manifest)[schema.table_file("frames", split)]
        assert content(manifest)[schema.hdf5_file(split)] == parquet
        again = ContentHash(schema.EIGHT.frames)
        for part in read_hdf5_frames(out / schema.hdf5_file(split), PUBLISHED):
            again.update(part)
        assert again.hexdigest() == parquet


def test_released_files_contain_no_local_paths(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(clips, out, splits=None, meta=tmp_path)
    for path in out.rglob("*"):
        if path.is_file() and STATE not in path.parts:
            data = path.read_bytes()
            assert str(tmp_path).encode() not in data
            if path.suffix not in (".parquet", ".h5"):  # compressed bytes may contain a short name
                host = re.escape(os.uname().nodename)
                assert not re.search(rf"(?<!\w){host}(?!\w)", data.decode())


def test_second_run_computes_nothing(clips: Path, tmp_path: Path) -> None:
    first = build(clips, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.*") if p.is_file()}
    teacher = FakeTeacher()
    second = build(clips, tmp_path / "out", engine=InlineEngine(teacher))
    assert teacher.num_crops == 0 and second.num_built == 0
    assert second.manifest == first.manifest
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_new_tracks_rebuild_only_their_own_shard(corpus: Path, tmp_path: Path) -> None:
    build(corpus, tmp_path / "out", shard_tracks=1)
    write_clip(corpus / "mp4/id1/a/00003.mp4", 13)
    teacher = FakeTeacher()
    result = build(corpus, tmp_path / "out", engine=InlineEngine(teacher), shard_tracks=1)
    assert (result.num_built, teacher.num_crops) == (1, 3)
    fresh = build(corpus, tmp_path / "fresh", shard_tracks=1, name="out")
    assert content(result.manifest) == content(fresh.manifest)


def test_hdf5_on_request_needs_no_second_pass(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    teacher = FakeTeacher()
    build(clips, tmp_path / "out", engine=InlineEngine(teacher), hdf5=True)
    assert teacher.num_crops == 0
    assert list((tmp_path / "out/hdf5").glob("*.h5"))
    build(clips, tmp_path / "out", engine=InlineEngine(teacher))
    assert not (tmp_path / "out/hdf5").exists()


@pytest.mark.parametrize("change", [{"step_ms": 480}, {"precision": "fp32"}, {"teacher": "other"}])
def test_another_teacher_or_step_rebuilds_everything(
    clips: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    from emovox.teacher import EMBEDDED

    if change.get("teacher"):  # the same network, stored with other bytes
        from safetensors.numpy import load_file, save_file

        header = safetensors_header(EMBEDDED["compact"])
        tensors = load_file(EMBEDDED["compact"])
        save_file(tensors, tmp_path / "t.safetensors", header | {"training": "{}"})
        change = {"teacher": str(tmp_path / "t.safetensors")}
    before = build(clips, tmp_path / "out", precision="bf16")
    options = {"precision": "bf16"} | change
    with pytest.raises(InputError, match=r"would change the dataset there: .*; pass --replace"):
        build(clips, tmp_path / "out", **options)
    assert json.loads((tmp_path / "out" / schema.MANIFEST).read_text()) == before.manifest
    result = build(clips, tmp_path / "out", replace=True, **options)
    assert result.num_built == result.num_shards > 1
    left = {p.stem for p in (tmp_path / "out" / STATE).glob("*.json")} - {"finished"}
    assert len(left) == result.num_shards, "shards of the other configuration are gone"


def safetensors_header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("shard_tracks", [1, 2, 3, 100])
def test_shard_size_changes_nothing(clips: Path, tmp_path: Path, shard_tracks: int) -> None:
    reference = build(clips, tmp_path / "a" / "out", shard_tracks=2)
    other = build(clips, tmp_path / "b" / "out", shard_tracks=shard_tracks)
    assert content(reference.manifest) == content(other.manifest)


def test_order_is_by_track_and_frame(corpus: Path, tmp_path: Path) -> None:
    for name in ("Z/z/2", "Z/z/10", "Z/z/100000", "é/ü/1", "a b/c d/1"):
        write_clip(corpus / "mp4" / f"{name}.mp4", 8)
    build(corpus, tmp_path / "out", unheard_fraction=0.0, heard_fraction=0.0)
    rows = read_table(tmp_path / "out", "frames", TRAIN)
    keys = list(zip(rows["track_id"].to_pylist(), rows["frame_index"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert {"é/ü/00001", "a b/c d/00001", "Z/z/100000"} <= {key[0] for key in keys}


class Interrupted(InlineEngine):
    """Engine that stops after some shards, as a kill would."""

    def __init__(self, after: int) -> None:
        super().__init__(FakeTeacher())
        self.after = after

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        for number, report in enumerate(super().run(jobs)):
            yield report
            if number + 1 == self.after:
                raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2])
def test_interrupted_run_resumes(clips: Path, tmp_path: Path, after: int) -> None:
    whole = build(clips, tmp_path / "whole" / "out", shard_tracks=1)
    with pytest.raises(KeyboardInterrupt):
        build(clips, tmp_path / "out", engine=Interrupted(after), shard_tracks=1)
    assert not (tmp_path / "out" / schema.MANIFEST).exists()
    rest = build(clips, tmp_path / "out", shard_tracks=1)
    assert rest.num_built == rest.num_shards - after
    assert content(rest.manifest) == content(whole.manifest)


def test_damaged_shard_is_built_again(clips: Path, tmp_path: Path) -> None:
    first = build(clips, tmp_path / "out", shard_tracks=1)
    state = tmp_path / "out" / STATE
    rows, other, *_ = sorted(state.glob("*.parquet"))
    marker = other.with_suffix(".json")
    rows.write_bytes(rows.read_bytes()[:-1])
    marker.write_text("{")
    again = build(clips, tmp_path / "out", shard_tracks=1)
    assert again.num_built == 2
    assert content(again.manifest) == content(first.manifest)
    assert (state / ".gitignore").read_text() == "*\n"


def test_damage_of_unchanged_size_is_detected_and_rebuilt(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = build(clips, out)
    rows = sorted((out / STATE).glob("*.parquet"))[0]
    data = bytearray(rows.read_bytes())
    data[60] ^= 0xFF
    rows.write_bytes(data)
    (out / schema.MANIFEST).unlink()
    with pytest.raises(CheckError, match="missing or damaged; rerun the same command"):
        build(clips, out)
    again = build(clips, out)
    assert again.num_built == 1 and content(again.manifest) == content(first.manifest)


def test_missing_dataset_file_is_written_again(clips: Path, tmp_path: Path) -> None:
    first = build(clips, tmp_path / "out")
    (tmp_path / "out" / schema.CARD).unlink()
    again = build(clips, tmp_path / "out")
    assert again.num_built == 0 and (tmp_path / "out" / schema.CARD).exists()
    assert content(first.manifest) == content(again.manifest)


@pytest.mark.parametrize("function", ["write_documents", "dataset_files"])
def test_kill_while_finishing_keeps_the_old_dataset(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    whole = build(clips, tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"emovox.dataset.writer.{function}", raise_interrupt)
        build(clips, tmp_path / "out", hdf5=True)
    assert is_whole(tmp_path / "out")
    assert not (tmp_path / "out/.unfinished").exists()
    again = build(clips, tmp_path / "out")
    assert content(again.manifest) == content(whole.manifest)


def test_leftovers_of_a_killed_finish_are_removed(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(clips, out)
    leftovers = [out / "frames/.train-00000-of-00001.parquet.x.tmp", out / ".manifest.json.x.tmp"]
    for path in leftovers:
        path.write_bytes(b"half")
    (out / schema.MANIFEST).unlink()
    build(clips, out)
    assert not any(path.exists() for path in leftovers)


def test_any_name_gives_a_card_that_is_yaml(clips: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    name = 'faces: "new" # 2'
    build(clips, tmp_path / "out", name=name)
    front = (tmp_path / "out" / schema.CARD).read_text().split("---\n")[1]
    assert yaml.safe_load(front)["pretty_name"] == name


def test_output_whose_name_is_not_utf8_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"out\\udcff: the name is not UTF-8 .*; pass another --out"
    ):
        build(clips, tmp_path / os.fsdecode(b"out\xff"))
    assert BuildConfig("folder", Path(), Path(), name="a\nb\udcff").dataset_name == r"a\x0ab\udcff"


def test_corpus_whose_name_is_not_utf8(clips: Path, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"root\xff")
    shutil.copytree(clips, root)
    result = build(root, tmp_path / "out")
    assert result.manifest["totals"]["tracks"] == len(NUM_FRAMES)
    provenance = json.loads((tmp_path / "out" / schema.PROVENANCE).read_text())
    assert provenance["config"]["root"] == r"root\udcff"


def raise_interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def break_empty(path: Path) -> None:
    path.write_bytes(b"")


def break_text(path: Path) -> None:
    path.write_text("this is not a video\n" * 100)


def break_cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 10])


def break_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def break_vanish(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.mp4")


BREAKS = {
    break_empty: ("open", "InvalidData"),
    break_text: ("open", "InvalidData"),
    break_cut: ("open", "InvalidData"),
    break_folder: ("plan", "NotAFile"),
    break_vanish: ("plan", "NotAFile"),
}


@pytest.mark.parametrize("breaking", BREAKS, ids=lambda f: f.__name__)
def test_bad_file_is_dropped_and_the_rest_is_built(
    corpus: Path, tmp_path: Path, breaking: Any
) -> None:
    breaking(corpus / "mp4/id1/a/00002.mp4")
    result = build(corpus, tmp_path / "out")
    (row,) = dropped(tmp_path / "out")
    assert row["track_id"] == "id1/a/00002"
    assert row["source"] == "mp4/id1/a/00002.mp4"
    assert (row["stage"], row["error"]) == BREAKS[breaking]
    assert row["message"] and row["attempts"] == 1 and str(tmp_path) not in row["message"]
    assert result.manifest["totals"]["tracks"] == 3
    assert result.manifest["totals"]["dropped"] == 1
    kept = all_rows(tmp_path / "out", "tracks")["track_id"].to_pylist()
    assert kept == sorted(NUM_FRAMES.keys() - {"id1/a/00002"})


def test_dropped_track_leaves_no_rows(corpus: Path, tmp_path: Path) -> None:
    """A track that fails after its first frames were batched gives no rows."""
    path = corpus / "mp4/id1/a/00001.mp4"
    write_clip(path, 100, options={"g": "10"}, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    build(corpus, tmp_path / "out", shard_tracks=100)
    assert [row["track_id"] for row in dropped(tmp_path / "out")] == ["id1/a/00001"]
    assert dropped(tmp_path / "out")[0]["stage"] == "decode"
    assert "id1/a/00001" not in all_rows(tmp_path / "out")["track_id"].to_pylist()
    reference = build(corpus, tmp_path / "small" / "out", shard_tracks=1)
    assert all_rows(tmp_path / "out").equals(all_rows(reference.out))


def test_too_many_dropped_is_reported(corpus: Path, tmp_path: Path) -> None:
    break_text(corpus / "mp4/id1/a/00002.mp4")
    assert build(corpus, tmp_path / "out", max_dropped=0.2).too_many_dropped
    assert not build(corpus, tmp_path / "out", max_dropped=0.25).too_many_dropped


def test_dataset_of_dropped_tracks_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "mp4/a/b").mkdir(parents=True)
    break_text(root / "mp4/a/b/1.mp4")
    result = build(root, tmp_path / "out", max_dropped=0.5)
    assert result.too_many_dropped
    assert result.manifest["totals"] | {"by_split": {}} == {
        "tracks": 0, "frames": 0, "dropped": 1, "by_split": {},
    }  # fmt: skip
    assert len(dropped(tmp_path / "out")) == 1
    assert "InvalidData" in result.summary()


def test_retry_dropped(corpus: Path, tmp_path: Path) -> None:
    good = (corpus / "mp4/id1/a/00002.mp4").read_bytes()
    path = corpus / "mp4/id1/a/00002.mp4"
    break_text(path)
    build(corpus, tmp_path / "out", shard_tracks=1)
    status = path.stat()
    path.write_bytes(good[: status.st_size].ljust(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert build(corpus, tmp_path / "out", shard_tracks=1).num_built == 0
    assert build(corpus, tmp_path / "out", shard_tracks=1, retry_dropped=True).num_built == 1
    path.write_bytes(good)
    result = build(corpus, tmp_path / "out", shard_tracks=1)
    assert (result.num_built, result.manifest["totals"]["dropped"]) == (1, 0)


def test_detected_faces_and_tracks_without_faces(clips: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(clips / "mp4", root)
    detector = FakeDetector([Box(-10, 20, 60, 80, 0.97), Box(0, 0, 20, 20, 0.99)])
    result = build(root, tmp_path / "out", InlineEngine(FakeTeacher(), detector), layout="folder")
    assert result.manifest["totals"]["dropped"] == 0
    faces = all_rows(tmp_path / "out", "faces").to_pylist()
    # The larger box, as a square of the longer side around its centre.
    boxes = {(f["box_x"], f["box_y"], f["box_w"], f["box_h"]) for f in faces}
    assert boxes == {(-20.0, 20.0, 80.0, 80.0)}
    np.testing.assert_allclose([f["score"] for f in faces], 0.97, rtol=1e-6)

    nobody = InlineEngine(FakeTeacher(), FakeDetector([]))
    build(root, tmp_path / "nobody", nobody, layout="folder")
    reasons = {(row["stage"], row["error"]) for row in dropped(tmp_path / "nobody")}
    assert reasons == {("faces", "NoFace")} and len(dropped(tmp_path / "nobody")) == 4


def test_tracks_of_several_shots_are_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scenes = [cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (224, 224)) for _ in range(3)]
    for name, numbers in (("one", [0]), ("two", [1, 2]), ("three", [0, 1, 2])):
        pictures = [scenes[k] for k in numbers for _ in range(24)]
        write_clip(tmp_path / f"root/mp4/id1/{name}/00001.mp4", pictures)
    result = build(tmp_path / "root", tmp_path / "out")
    shots: dict[str, list[int]] = {}
    for row in all_rows(tmp_path / "out", "faces").to_pylist():
        shots.setdefault(row["track_id"], []).append(row["shot"])
    assert shots == {
        "id1/one/00001": [0] * 4,
        "id1/three/00001": [0] * 4 + [1] * 4 + [2] * 4,
        "id1/two/00001": [0] * 4 + [1] * 4,
    }
    several = "2 tracks hold several shots: id1/three/00001"
    assert result.notes == [NO_VALIDATION, several]


def test_the_sound_of_a_table_is_cut_from_its_source(tmp_path: Path) -> None:
    """The pitch of the video changes from 300 to 1,000 Hz where the second track begins."""
    video, change = tmp_path / "root/talks/day one.MOV", 2.52
    video.parent.mkdir(parents=True)
    sound = f"aevalsrc=sin(2*PI*t*if(lt(t\\,{change})\\,300\\,1000)):s=44100:d=6"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i"]
    command += ["testsrc2=s=96x96:r=25:d=6", "-f", "lavfi", "-i", sound, "-c:a", "pcm_s16le"]
    subprocess.run([*command, str(video)], check=True)
    table = tmp_path / "tracks.csv"
    rows = [f"ann/talk/{row}" for row in (f"1,{{}},ann,,{change}", f"2,{{}},ann,{change},")]
    lines = ["track_id,video,identity,start,end", *(r.format("talks/day one.MOV") for r in rows)]
    table.write_text("\n".join([*lines, ""]))
    engine = InlineEngine(FakeTeacher(), FakeDetector())
    build(tmp_path / "root", tmp_path / "out", engine=engine, layout="table", table=table)

    def pitch(samples: np.ndarray) -> float:
        return float(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))

    whole = emovox.read_audio(video)
    for number, begin, end, expected in ((1, 0.0, change, 300), (2, change, 6.0, 1000)):
        track_id = f"ann/talk/{number:05d}"
        samples = emovox.track_audio(tmp_path / "out", track_id, tmp_path / "root")
        assert len(samples) == pytest.approx((end - begin) * 16_000, abs=80)
        for part in (samples[160:1760], samples[-1760:-160], samples):
            assert pitch(part) == pytest.approx(expected, abs=10)
        first = round(begin * 16_000)
        np.testing.assert_allclose(samples, whole[first : first + len(samples)], atol=1e-3)


BOX_HEADER = (
    "Identity  : \tid00017\nReference : \t5MkXgwdrmJw\nOffset    : \t3\n\nFRAME \tX \tY \tW \tH\n"
)


def voxceleb1(root: Path, rows: str) -> Path:
    write_clip(root / "video/abc.mp4", 75)
    path = root / "txt/id10001/abc/00001.txt"
    path.parent.mkdir(parents=True)
    path.write_text(BOX_HEADER + rows)
    return root


def test_box_files_give_time_and_position(tmp_path: Path) -> None:
    rows = "".join(f"{f:06d} \t{10 + f} \t40 \t64 \t64\n" for f in range(13, 38))
    result = build(voxceleb1(tmp_path / "root", rows), tmp_path / "out", layout="voxceleb1")
    (track,) = all_rows(tmp_path / "out", "tracks").to_pylist()
    assert (track["n_frames"], track["n_expected"], track["duration_ms"]) == (5, 5, 960)
    faces = all_rows(tmp_path / "out", "faces")
    frames = np.array([13, 19, 25, 31, 37])
    np.testing.assert_allclose(faces["pts_ms"].to_numpy(), frames * 40.0)
    np.testing.assert_allclose(faces["box_x"].to_numpy(), 10.0 + frames)
    # Coded frames 31 and 37 are two scenes: all stripes with a digit of either change.
    assert faces["shot"].to_pylist() == [0, 0, 0, 0, 1]
    assert result.notes == [NO_VALIDATION, "1 tracks hold several shots: id10001/abc/00001"]


def test_broken_box_row_is_interpolated_and_noted(tmp_path: Path) -> None:
    rows = "000000 \t10 \t40 \t64 \t64\n000006 \tten \t40\n000012 \t34 \t40 \t64 \t64\n"
    result = build(voxceleb1(tmp_path / "root", rows), tmp_path / "out", layout="voxceleb1")
    faces = all_rows(tmp_path / "out", "faces")
    np.testing.assert_allclose(faces["box_x"].to_numpy(), [10, 22, 34])
    bad_row = "1 box files with unreadable rows: id10001/abc/00001, line 7"
    assert result.notes == [NO_VALIDATION, bad_row]


@pytest.mark.parametrize(
    ("rows", "stage", "error"),
    [
        ("000000 \t500 \t40 \t64 \t64\n000012 \t500 \t40 \t64 \t64\n", "faces", "NoFace"),
        ("garbage\n", "boxes", "NoBoxes"),
        ("", "boxes", "NoBoxes"),
    ],
)
def test_unusable_box_files(tmp_path: Path, rows: str, stage: str, error: str) -> None:
    build(voxceleb1(tmp_path / "root", rows), tmp_path / "out", layout="voxceleb1")
    (row,) = dropped(tmp_path / "out")
    assert (row["stage"], row["error"]) == (stage, error)


def test_missing_box_file_of_a_table(tmp_path: Path) -> None:
    write_clip(tmp_path / "root/v.mp4", 10)
    table = tmp_path / "root/tracks.csv"
    table.write_text("track_id,video,identity,start,end,boxes\na/v/1,v.mp4,a,,,no.txt\n")
    build(tmp_path / "root", tmp_path / "out", layout="table", table=table)
    (row,) = dropped(tmp_path / "out")
    assert (row["stage"], row["error"]) == ("boxes", "FileNotFound")


def test_dense_frames(tmp_path: Path) -> None:
    import cv2

    root = tmp_path / "root"
    folder = root / "A.J._Buckley/1.6/Y8hIVOBuels/1"
    folder.mkdir(parents=True)
    for number in (1, 2, 4, 10):
        cv2.imwrite(str(folder / f"{number:02d}.jpg"), np.full((160, 128, 3), 20 * number))
    (root / "vox1_meta.csv").write_text(
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
        "id10001\tA.J._Buckley\tm\tIreland\tdev\n"
    )
    build(root, tmp_path / "out", layout="dense-frames")
    frames = all_rows(tmp_path / "out")
    assert set(frames["track_id"].to_pylist()) == {"id10001/Y8hIVOBuels/00001"}
    assert frames["frame_index"].to_pylist() == [0, 1, 3, 9]
    np.testing.assert_allclose(frames["logit_neutral"].to_numpy(), [20, 40, 80, 200], atol=2)
    face = all_rows(tmp_path / "out", "faces").to_pylist()[0]
    assert [face[f"box_{side}"] for side in "xywh"] == [24, 40, 80, 80]


def test_dense_frame_that_changes_in_place_is_rebuilt(tmp_path: Path) -> None:
    import cv2

    picture = tmp_path / "root/id10001/1.6/video/1/01.jpg"
    picture.parent.mkdir(parents=True)
    for level in (40, 200):
        cv2.imwrite(str(picture), np.full((160, 128, 3), level, np.uint8))
        result = build(tmp_path / "root", tmp_path / "out", layout="dense-frames")
        assert result.num_built == 1
        logit = all_rows(tmp_path / "out")["logit_neutral"][0].as_py()
        assert logit == pytest.approx(level, abs=2)


def test_leaking_split_is_refused(clips: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.csv"
    rows = "\n".join(f"{t},{'train' if i else 'unheard_val'}" for i, t in enumerate(NUM_FRAMES))
    splits.write_text(f"track_id,split\n{rows}\n")
    with pytest.raises(CheckError, match=r"leaks: 1 identities .*: id1"):
        build(clips, tmp_path / "out", splits=str(splits))


def test_splits_change_without_new_shards(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    splits = tmp_path / "splits.csv"
    splits.write_text("identity_id,split\nid1,train\nid2,unheard_val\n")
    with pytest.raises(InputError, match=r"1 track \(id2/c/00001\) moved to another split"):
        build(clips, tmp_path / "out", splits=str(splits))
    result = build(clips, tmp_path / "out", splits=str(splits), replace=True)
    assert result.num_built == 0
    assert result.manifest["totals"]["by_split"][UNHEARD]["tracks"] == 1
    assert result.manifest["totals"]["by_split"][TRAIN]["tracks"] == 3


def test_empty_split_is_reported_and_has_no_file(clips: Path, tmp_path: Path) -> None:
    result = build(clips, tmp_path / "out", unheard_fraction=0.0, heard_fraction=0.0)
    assert "unheard_val empty" in result.summary()
    assert [p.name for p in (tmp_path / "out/frames").iterdir()] == ["train-00000-of-00001.parquet"]
    card = (tmp_path / "out" / schema.CARD).read_text()
    assert "No track fell into heard_val and unheard_val" in card
    assert "frames/heard_val" not in card


def test_foreign_folder_is_not_touched(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"is not empty, and .* missing or of another build"):
        build(clips, out)
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        build(clips, out / "thesis.tex")


def test_two_runs_on_one_output(clips: Path, tmp_path: Path) -> None:
    class Nested(InlineEngine):
        def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
            with pytest.raises(EmovoxError, match="another run"):
                build(clips, tmp_path / "out")
            yield from super().run(jobs)

    assert build(clips, tmp_path / "out", engine=Nested(FakeTeacher())).num_built


@pytest.mark.slow
def test_lock_of_a_killed_run_is_released(clips: Path, tmp_path: Path) -> None:
    """The second run is refused; after a SIGKILL of the first, the third resumes."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    command += ["--root", str(clips), "--out", str(out), "--shard-tracks", "1"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (out / STATE / "lock").exists():
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # so that it cannot finish
    time.sleep(0.5)
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1 and "another run is building this dataset" in second.stderr
    assert second.stderr.count("\n") == 1
    first.kill()
    first.wait()
    third = subprocess.run(command, capture_output=True, text=True, check=False)
    assert third.returncode == 0 and "4 written, 0 dropped" in third.stdout, third.stderr


class InterruptedEngine(InlineEngine):
    """Engine that calls a function before the shard with a number."""

    def __init__(self, number: int, change: Callable[[], object]) -> None:
        super().__init__(FakeTeacher())
        self.number, self.change = number, change

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        def changing() -> Iterator[ShardJob]:
            for number, job in enumerate(jobs):
                if number == self.number:
                    self.change()
                yield job

        yield from super().run(changing())


def test_file_that_vanishes_after_the_plan_is_dropped(corpus: Path, tmp_path: Path) -> None:
    engine = InterruptedEngine(0, (corpus / "mp4/id1/a/00002.mp4").unlink)
    result = build(corpus, tmp_path / "out", engine)
    (row,) = dropped(tmp_path / "out")
    assert (row["track_id"], row["stage"], row["error"]) == ("id1/a/00002", "open", "FileNotFound")
    assert result.manifest["totals"]["tracks"] == 3


def test_corpus_that_vanishes_ends_the_run_without_dropping_tracks(
    corpus: Path, tmp_path: Path
) -> None:
    whole = build(corpus, tmp_path / "whole" / "out", shard_tracks=1)
    engine = InterruptedEngine(2, lambda: corpus.rename(tmp_path / "away"))
    with pytest.raises(InputError, match="folder not found any more; restore it and rerun"):
        build(corpus, tmp_path / "out", engine, shard_tracks=1)
    assert not (tmp_path / "out" / schema.MANIFEST).exists()
    (tmp_path / "away").rename(corpus)
    again = build(corpus, tmp_path / "out", shard_tracks=1)
    assert again.num_built == 2 and content(again.manifest) == content(whole.manifest)


def test_clock_jumps_change_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of files are compared, never ordered, and durations come from a monotonic clock."""
    whole = build(corpus, tmp_path / "whole" / "out")
    for number, path in enumerate(sorted(corpus.rglob("*.mp4"))):
        os.utime(path, (0, 0) if number % 2 else (4e9, 4e9))  # 1970 and 2096
    moments = itertools.count(2e9, -86400)
    monkeypatch.setattr("time.time", lambda: next(moments))
    first = build(corpus, tmp_path / "out", timeout=60.0)
    assert content(first.manifest) == content(whole.manifest)
    assert first.manifest["totals"]["dropped"] == 0 and 0 <= first.seconds < 60
    assert build(corpus, tmp_path / "out").num_built == 0


def test_full_disk_is_one_line_and_resumable(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("emovox.labelling.plan.pq.write_table", no_space)
        with pytest.raises(EmovoxError, match=r"No space left on device; .*rerun the same command"):
            build(clips, tmp_path / "out")
    assert build(clips, tmp_path / "out").manifest["totals"]["tracks"] == 4


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layout": "voxceleb3"}, ConfigError, "is not one of voxceleb2, voxceleb1, dense-frames"),
        ({"teacher": "nobody"}, ConfigError, "neither a file nor one of compact"),
        ({"splits": "splits.csv"}, InputError, "no such file"),
        ({"splits": "official"}, InputError, r"vox1_meta.csv: cannot be read"),
        ({"device": "tpu"}, ConfigError, "not one of auto, cpu, cuda"),
        ({"precision": "int8"}, ConfigError, "not one of auto, fp32, bf16"),
        ({"table": Path("t.csv")}, ConfigError, "requires --table FILE"),
    ],
)
def test_wrong_options(
    clips: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build(clips, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_wrong_numbers() -> None:
    config = BuildConfig("voxceleb2", Path(), Path())
    for wrong in (
        {"step_ms": 0},
        {"step_ms": 3 * 10**9},
        {"jobs": -1},
        {"max_dropped": 1.5},
        {"timeout": 0.0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
    ):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} .*: must be"):
            replace(config, **wrong)  # type: ignore[arg-type]


def test_wrong_root_does_not_touch_a_finished_dataset(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*") if p.is_file()}
    wrong = tmp_path / "wrong"
    shutil.copytree(clips, wrong / "deeper")
    with pytest.raises(InputError, match=r"no usable track of layout voxceleb2 .*plan: BadName"):
        build(wrong, tmp_path / "out")
    assert {p: p.read_bytes() for p in before} == before


def test_git_lfs_pointers_and_copies(clips: Path, corpus: Path, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    for number in range(5):
        (corpus / f"mp4/id1/a/{number + 10}.mp4").write_text(pointer)
    (corpus / "mp4/id3/d").mkdir(parents=True)
    shutil.copyfile(corpus / "mp4/id1/a/00001.mp4", corpus / "mp4/id3/d/00001.MP4")
    result = build(corpus, tmp_path / "out")
    assert result.manifest["totals"]["tracks"] == len(NUM_FRAMES) + 1
    assert result.reasons == {"open: GitLfsPointer": 5}
    assert {row["message"] for row in dropped(tmp_path / "out")} == {LFS_HINT}
    copies = "1 files are copies of a file of another identity or video, for example "
    copies += "mp4/id3/d/00001.MP4 of mp4/id1/a/00001.mp4; remove them, or they may leak "
    pointers = "5 media files: Git LFS pointers; run `git lfs pull` and rerun"
    assert result.notes == [NO_VALIDATION, pointers, copies + "between splits"]
    for path in corpus.rglob("*.[mM][pP]4"):
        path.write_text(pointer)
    first = r"10 x open: GitLfsPointer; the first: mp4/id1/a/00001\.mp4: a Git LFS pointer"
    with pytest.raises(InputError, match=first):
        build(corpus, tmp_path / "none")


def test_shards_of_a_replaced_build_are_removed(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    result = build(clips, tmp_path / "out", step_ms=480, replace=True)
    assert len([*(tmp_path / "out/.emovox").glob("*.parquet")]) == result.num_shards


def test_tracks_of_a_dataset_are_not_lost_by_mistake(clips: Path, tmp_path: Path) -> None:
    root, out = Path(shutil.copytree(clips, tmp_path / "clips")), tmp_path / "out"
    before = build(root, out)
    write_clip(root / "mp4/id3/new/00001.mp4", 30)
    more = build(root, out)  # more tracks are welcome
    assert more.manifest["totals"]["tracks"] == before.manifest["totals"]["tracks"] + 1
    (root / "mp4/id3/new/00001.mp4").rename(tmp_path / "away.mp4")
    with pytest.raises(InputError, match=r"1 track \(id3/new/00001\) of 5 lost; pass --replace"):
        build(root, out)
    (root / "mp4/id3/new/00001.mp4").write_bytes((tmp_path / "away.mp4").read_bytes()[:900])
    with pytest.raises(InputError, match=r"1 track \(id3/new/00001\) of 5 lost"):
        build(root, out)  # the file is damaged now, which is known after labelling
    assert json.loads((out / schema.MANIFEST).read_text()) == more.manifest
    assert is_whole(out)
    fewer = build(root, out, replace=True)
    assert fewer.manifest["totals"]["dropped"] == 1


def test_another_root_replaces_nothing(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(clips, out)
    moved = Path(shutil.copytree(clips, tmp_path / "moved"))  # copytree keeps times
    again = build(moved, out)
    assert again.num_built == 0
    other = tmp_path / "other"
    for path in clips.rglob("*.mp4"):
        write_clip(other / path.relative_to(clips), 40)
    with pytest.raises(InputError, match="labelled again with another root; pass --replace"):
        build(other, out)
    assert build(other, out, replace=True).num_built > 0


@pytest.mark.parametrize("version", [1, 3, "x", None])
def test_a_dataset_of_another_contract_is_not_replaced(
    clips: Path, tmp_path: Path, version: object
) -> None:
    build(clips, tmp_path / "out")
    path = tmp_path / "out" / schema.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version}))
    with pytest.raises(InputError, match=f"contract version {version}, and this emovox writes 2"):
        build(clips, tmp_path / "out")
    build(clips, tmp_path / "out", replace=True)
    assert is_whole(tmp_path / "out")


def test_the_state_of_a_newer_emovox_is_kept(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    record = tmp_path / "out" / STATE / "finished.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"version": 99}))
    with pytest.raises(InputError, match=r"state of a newer emovox \(version 99\)"):
        build(clips, tmp_path / "out")


def test_dataset_without_its_state_is_not_overwritten(clips: Path, tmp_path: Path) -> None:
    build(clips, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / STATE)
    with pytest.raises(InputError, match="missing or of another build"):
        build(clips, tmp_path / "out")


def test_paths_may_be_strings(clips: Path, tmp_path: Path) -> None:
    config = BuildConfig("voxceleb2", str(clips), str(tmp_path / "out"))  # type: ignore[arg-type]
    assert config.root == clips and config.out == tmp_path / "out"
    with pytest.raises(ConfigError, match=r"--meta .*no such folder"):
        replace(config, meta=tmp_path / "nowhere")


def test_gpu_without_unix_sockets_is_one_line(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows lacks Unix sockets, through which workers share a teacher."""
    monkeypatch.setattr("emovox.labelling.engine.teacher_devices", lambda device: ("cuda:0",))
    monkeypatch.delattr("socket.AF_UNIX")
    config = BuildConfig("voxceleb2", clips, tmp_path / "out")
    with pytest.raises(ConfigError, match="lacks Unix sockets; pass --device cpu"):
        build_dataset(config, show_progress=False)


def test_a_compiled_teacher_is_announced(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compiling takes about a minute, during which a build prints nothing else."""
    for compile, is_said in (("on", True), ("off", False)):
        config = BuildConfig("voxceleb2", clips, tmp_path / compile, compile=compile)
        build_dataset(config, engine=InlineEngine(FakeTeacher()))
        assert ("compiling the teacher with torch.compile" in capsys.readouterr().err) == is_said


@pytest.mark.parametrize(("num_tracks", "least", "most"), [(11, 11, 11), (200, 32, 80)])
def test_small_corpora_have_enough_shards(
    tmp_path: Path, num_tracks: int, least: int, most: int
) -> None:
    """Eleven clips once used one of two cores."""
    clip = write_clip(tmp_path / "mp4/id00001/a/00001.mp4", 8)
    for number in range(2, num_tracks + 1):
        clip.with_name(f"{number:05d}.mp4").hardlink_to(clip)
    config = BuildConfig("voxceleb2", tmp_path, tmp_path / "out", splits="auto")
    runtime = Runtime("cpu", "fp32", False, "cpu")
    assert least <= len(make_plan(config, lambda *_: runtime).shards) <= most
