"""Builds of real clips in VoxCeleb2's format."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from validation_fixtures import read_table

from emovox.dataset import schema
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.run import BuildResult, build_dataset

pytestmark = pytest.mark.real


def build(root: Path, out: Path, **options: Any) -> BuildResult:
    config = BuildConfig(layout="voxceleb2", root=root, out=out, name="real", **options)
    return build_dataset(config, show_progress=False)


def content(result: BuildResult) -> dict[str, str]:
    files = result.manifest["files"]
    return {f["path"]: f["content_sha256"] for f in files if f["content_sha256"]}


def rows(out: Path, table: str) -> pa.Table:
    parts = [read_table(out, table, split) for split in schema.SPLITS]
    return pa.concat_tables(parts).sort_by([("track_id", "ascending")])


def logits(out: Path) -> np.ndarray:
    table = rows(out, "frames")
    return np.stack([table[name].to_numpy() for name in schema.EIGHT.logits], axis=1)


@pytest.fixture(scope="module")
def clips(real_data: Path) -> Path:
    return real_data / "voxceleb2-clips"


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """An uninterrupted build."""
    return build(clips, tmp_path_factory.mktemp("whole") / "out", jobs=1)


def test_ten_tracks_none_dropped_every_sixth_frame(clips: Path, whole: BuildResult) -> None:
    assert whole.manifest["totals"]["tracks"] == 10
    assert whole.manifest["totals"]["dropped"] == 0
    tracks = {row["track_id"]: row for row in rows(whole.out, "tracks").to_pylist()}
    for path in clips.glob("mp4/*/*/*.mp4"):
        with av.open(str(path)) as container:
            num_decoded = sum(1 for _ in container.decode(video=0))
        row = tracks.pop(path.relative_to(clips / "mp4").with_suffix("").as_posix())
        assert row["n_frames"] == row["n_expected"] == (num_decoded - 1) // 6 + 1
        assert row["duration_ms"] == 40 * num_decoded
    assert not tracks


def test_hdf5_has_the_same_content(clips: Path, whole: BuildResult, tmp_path: Path) -> None:
    result = build(clips, tmp_path / "out", hdf5=True)
    hashes = content(result)
    for split in result.manifest["totals"]["by_split"]:
        assert hashes[schema.hdf5_file(split)] == hashes[schema.table_file("frames", split)]
    assert content(whole).items() <= hashes.items()


@pytest.mark.parametrize("options", [{"jobs": 2}, {"shard_tracks": 1}, {"shard_tracks": 100}])
def test_jobs_and_shards_change_nothing(
    clips: Path, whole: BuildResult, tmp_path: Path, options: dict[str, int]
) -> None:
    result = build(clips, tmp_path / "out", **options)
    ids = [rows(out, "frames")["track_id"] for out in (whole.out, result.out)]
    assert ids[0].equals(ids[1])
    np.testing.assert_allclose(logits(result.out), logits(whole.out), atol=1e-4)
    assert content(result) == content(whole)


def test_second_run_takes_seconds(clips: Path, whole: BuildResult) -> None:
    started = time.perf_counter()
    again = build(clips, whole.out, jobs=1)
    assert again.num_built == 0
    assert time.perf_counter() - started < 5


def test_given_face_squares_match_mtcnn(clips: Path) -> None:
    """Compare the fixed square of VoxCeleb2 clips with an independent detector."""
    from emovox.media import faces
    from emovox.media.faces import Mtcnn
    from emovox.media.video import VideoTrack

    detect = Mtcnn("cpu")
    overlaps = []
    for path in sorted(clips.glob("mp4/*/*/*.mp4"))[:5]:
        frame = next(iter(VideoTrack(path, 0.24)))
        found = [box for box in detect([frame.image])[0] if box.w > 60]
        given = faces.voxceleb2_box(224, 224)
        overlaps += [faces.overlap(given, faces.square(box)) for box in found[:1]]
    assert len(overlaps) >= 4
    assert np.median(overlaps) > 0.6


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_sigkill_at_random_moments(clips: Path, whole: BuildResult, tmp_path: Path) -> None:
    """After each of twenty kills, a complete run equals the uninterrupted one."""
    command = [sys.executable, "-m", "emovox", "build-dataset", "--layout", "voxceleb2"]
    command += ["--root", str(clips), "--name", "real", "--shard-tracks", "1", "--out"]
    draw = random.Random(2018)
    num_unfinished = 0
    for number in range(20):
        out = tmp_path / str(number)
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL)
        num_shards = draw.randrange(10)  # of ten, so that the kill precedes the end
        while process.poll() is None and len(list(out.glob(".emovox/*.json"))) < num_shards:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.1 if num_shards else 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        num_unfinished += not (out / schema.MANIFEST).exists()
        subprocess.run([*command, str(out)], check=True, stdout=subprocess.DEVNULL)
        result = build(clips, out, shard_tracks=1)
        assert result.num_built == 0
        assert content(result) == content(whole), f"after kill number {number}"
    assert num_unfinished >= 10


BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_damage_gives_a_wrong_row(clips: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--clips", str(clips)]
    result = subprocess.run([*command, "--files", "100"], capture_output=True, text=True)
    assert result.returncode == 0 and "\n0 violations" in result.stdout, result.stdout
