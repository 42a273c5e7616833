"""Reading datasets lazily, by track and by time, compared with the files read by pyarrow."""

import itertools
import json
import math
import mmap
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import oracle, read_code
from test_matfile import write
from test_published import BUCKLEY, DOWN, LEE, PERSONS, ZANDER, annotations, utterance

import emovox
from emovox.dataset import schema, store
from emovox.dataset.names import POOLS, TIMINGS
from emovox.dataset.reader import CONTAINERS, Dataset, load
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS, Outputs
from emovox.errors import ConfigError, InputError
from emovox.files import cache_folder
from emovox.labelling.import_mat import import_mat
from emovox.testing import FakeTeacher, InlineEngine, write_clip

pd = oracle("pandas")

SPLIT_OF = {BUCKLEY: 1, ZANDER: 3, DOWN: 1, LEE: 2}  # numbers of the published file


class Absent:
    """A `Detector` that finds no face at every third grid point."""

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[Any]]:
        from emovox.media.faces import Box

        points = [read_code(frame) // 6 for frame in frames]
        return [[] if k % 3 == 1 else [Box(10, 10, 60, 60, 0.99)] for k in points]


def make_imported(folder: Path) -> Path:
    """Write tracks of 1 to 30 rows with gaps of many lengths, as Parquet and HDF5."""
    lines = [f"{identity}\t{name}" for name, identity in PERSONS.items()]
    header = "VoxCeleb1 ID\tVGGFace1 ID"
    text = "\n".join([header, *lines])
    (folder / "vox1_meta.csv").write_text(text, encoding="utf-8")
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(1, 41):
        name = list(SPLIT_OF)[i % 4]
        count = int(rng.integers(1, 31))
        points = np.sort(rng.choice(count * int(rng.integers(1, 5)), count, replace=False))
        stems = [f"{k + 1:03d}" for k in points]
        wav = f"{name}/test/video_{i:07d}.wav"
        utterances.append(utterance(wav, count, i, SPLIT_OF[name], stems))
    utterances.append(utterance(f"{BUCKLEY}/x/gaps_1.wav", 6, 41, 1, [1, 2, 3, 7, 8, 21]))
    utterances.append(utterance(f"{BUCKLEY}/x/whole_1.wav", 85, 42, 1))
    path = write(folder / "file.mat", "7.3", annotations(utterances))
    return import_mat([path], folder / "imported", meta=folder, hdf5=True).out


def make_built(folder: Path) -> Path:
    pytest.importorskip("av", reason="needs the extra build")
    for name, count in {"a/1": 25, "a/2": 61, "b/1": 49, "b/2": 1, "c/1": 31, "d/1": 44}.items():
        write_clip(folder / f"root/{name}.mp4", count)
    config = emovox.BuildConfig(
        *("folder", folder / "root", folder / "built"),
        hdf5=True,
        unheard_fraction=0.3,
        heard_fraction=0.3,
    )
    engine = InlineEngine(FakeTeacher(), Absent())
    return emovox.build_dataset(config, engine=engine, show_progress=False).out


GAPS, WHOLE = "id10001/gaps/00001", "id10001/whole/00001"
MAKERS = {"imported": make_imported, "built": make_built}


class Made(dict[str, Path]):
    """Datasets by the names of `MAKERS`, each made on first use."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self._factory = factory

    def __missing__(self, name: str) -> Path:
        self[name] = MAKERS[name](self._factory.mktemp(name))
        return self[name]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Made(tmp_path_factory)


@pytest.fixture(params=MAKERS)
def path(request: pytest.FixtureRequest, paths: dict[str, Path]) -> Path:
    """A dataset; read-only for tests."""
    return paths[request.param]


@pytest.fixture
def copied(paths: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the imported dataset, for tests that damage it."""
    return Path(shutil.copytree(paths["imported"], tmp_path / "copied"))


@pytest.fixture(params=CONTAINERS)
def dataset(request: pytest.FixtureRequest, path: Path) -> Dataset:
    return load(path, request.param)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def splits_of(path: Path) -> list[str]:
    return [s for s in schema.SPLITS if (path / schema.table_file("tracks", s)).exists()]


def plain(path: Path, table: str, split: str) -> pa.Table:
    return pq.read_table(path / schema.table_file(table, split))


def rows_of(path: Path) -> dict[str, tuple[dict[str, Any], list[int], np.ndarray]]:
    """Row of `tracks`, grid points and logits of every track, split by split."""
    found: dict[str, Any] = {}
    for split in splits_of(path):
        frames = plain(path, "frames", split).to_pylist()
        for track in plain(path, "tracks", split).to_pylist():
            mine = [row for row in frames if row["track_id"] == track["track_id"]]
            logits = np.array(
                [[row[name] for name in schema.EIGHT.logits] for row in mine], np.float32
            )
            found[track["track_id"]] = (track, [row["frame_index"] for row in mine], logits)
    return found


def is_mapped(array: np.ndarray) -> bool:
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    return isinstance(base, mmap.mmap)


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List of table and split of every dataset file that is read."""
    names: list[str] = []
    whole, pieces = pq.read_table, store.read_hdf5_frames

    def read_parquet(file: Path, **options: Any) -> Any:
        names.append("/".join(file.parts[-2:]).removesuffix("-00000-of-00001.parquet"))
        return whole(file, **options)

    def read_hdf5(file: Path, outputs: Outputs) -> Any:
        names.append(f"hdf5/{file.stem}")
        return pieces(file, outputs)

    opened = pq.ParquetFile

    def open_parquet(file: Path, **options: Any) -> Any:
        names.append("/".join(file.parts[-2:]).removesuffix("-00000-of-00001.parquet"))
        return opened(file, **options)

    monkeypatch.setattr(pq, "read_table", read_parquet)
    monkeypatch.setattr(pq, "ParquetFile", open_parquet)
    monkeypatch.setattr(store, "read_hdf5_frames", read_hdf5)
    return names


# Tables


def test_the_fixtures_have_gaps_and_splits(path: Path) -> None:
    assert len(splits_of(path)) >= 2
    assert any(np.any(np.diff(index) > 1) for _, index, _ in rows_of(path).values())


def test_tables_equal_those_of_the_files(dataset: Dataset, path: Path) -> None:
    assert dataset.splits == tuple(dataset.tracks) == tuple(dataset.frames)
    assert list(dataset.splits) == splits_of(path)
    assert len(dataset.frames) == len(dataset.splits)
    for split in dataset.splits:
        assert dataset.tracks[split].equals(plain(path, "tracks", split))
        assert dataset.frames[split].equals(plain(path, "frames", split))
        assert dataset.frames[split].schema.equals(schema.EIGHT.frames)
        assert dataset.frames[split] is dataset.frames[split]
    assert dict(dataset.tracks.items()).keys() == set(dataset.splits)


def test_attributes_equal_the_manifest(dataset: Dataset, path: Path) -> None:
    manifest = json.loads((path / schema.MANIFEST).read_text())
    assert dataset.manifest == manifest
    assert (dataset.name, dataset.version) == (manifest["name"], manifest["version"])
    assert dataset.step == 0.24 and dataset.path == path
    assert len(dataset) == sum(plain(path, "tracks", s).num_rows for s in splits_of(path))
    totals = f"{len(dataset)} tracks, {manifest['totals']['frames']:,} frames"
    assert repr(dataset) == (
        f"<Dataset {dataset.name} {dataset.version}: {totals}, {', '.join(dataset.splits)}>"
    )


def test_to_pandas(dataset: Dataset, path: Path) -> None:
    for table in ("frames", "tracks"):
        parts = [pd.read_parquet(path / schema.table_file(table, s)) for s in dataset.splits]
        for part, split in zip(parts, dataset.splits, strict=True):
            pd.testing.assert_frame_equal(dataset.to_pandas(table, split), part)
        whole = pd.concat(parts, ignore_index=True)
        pd.testing.assert_frame_equal(dataset.to_pandas(table), whole, check_dtype=False)
    assert list(dataset.to_pandas().columns) == schema.EIGHT.frames.names
    assert dataset.to_pandas()["logit_anger"].dtype == np.float32


def test_to_numpy(dataset: Dataset, path: Path) -> None:
    for split in dataset.splits:
        frames = plain(path, "frames", split)
        logits, index = dataset.to_numpy(split)
        assert logits.dtype == np.float32 and index.dtype == np.int32
        expected = np.stack([frames[name].to_numpy() for name in schema.EIGHT.logits], axis=1)
        np.testing.assert_array_equal(logits, expected)
        np.testing.assert_array_equal(index, frames["frame_index"].to_numpy())


# Tracks


def test_every_track_has_its_rows(dataset: Dataset, path: Path) -> None:
    for track_id, (_, index, logits) in rows_of(path).items():
        found = dataset.logits(track_id)
        assert type(found) is type(dataset.frame_index(track_id)) is np.ndarray
        assert found.dtype == np.float32 and found.shape == (len(index), 8)
        np.testing.assert_array_equal(found, logits)
        assert dataset.frame_index(track_id).dtype == np.int32
        assert dataset.frame_index(track_id).tolist() == index
        assert dataset.times(track_id).dtype == np.float64
        np.testing.assert_allclose(dataset.times(track_id), [k * 6 / 25 for k in index], rtol=1e-15)


def test_iteration_and_items(dataset: Dataset, path: Path) -> None:
    expected = rows_of(path)
    assert [track.track_id for track in dataset] == list(expected)
    for track in dataset:
        described, index, logits = expected[track.track_id]
        for one in (track, dataset[track.track_id]):
            for name in ("track_id", "identity_id", "video_id", "split", "label"):
                assert getattr(one, name) == described[name]
            np.testing.assert_array_equal(one.logits, logits)
            assert one.frame_index.tolist() == index
            np.testing.assert_array_equal(one.times, dataset.times(one.track_id))


def test_unknown_tracks(dataset: Dataset) -> None:
    one = next(iter(dataset)).track_id
    assert one in dataset
    for wrong in ("id10001/video/99999", one + "0", one[:-1], "", None, 7):
        assert wrong not in dataset
    for ask in (
        *(dataset.logits, dataset.frame_index, dataset.times, dataset.target),
        dataset.__getitem__,
    ):
        with pytest.raises(KeyError, match=f"{dataset.path}: track 'nobody/x/00001' not found"):
            ask("nobody/x/00001")  # type: ignore[operator]


def test_unknown_splits(dataset: Dataset) -> None:
    words = f"{dataset.path}: split 'test' not found; pass one of {', '.join(dataset.splits)}"
    for ask in (
        dataset.tracks.__getitem__,
        dataset.frames.__getitem__,
        dataset.to_numpy,
        lambda split: dataset.to_pandas("frames", split),
    ):
        with pytest.raises(ConfigError) as error:
            ask("test")
        assert str(error.value) == words
    assert "test" not in dataset.tracks and "train" in dataset.frames


def test_unknown_containers_tables_pools_and_timings(path: Path) -> None:
    with pytest.raises(ConfigError, match="'csv' is not one of parquet, hdf5"):
        load(path, "csv")
    dataset = load(path)
    with pytest.raises(ConfigError, match="'faces' is not one of frames, tracks"):
        dataset.to_pandas("faces")
    one = next(iter(dataset)).track_id
    with pytest.raises(ConfigError, match="'median' is not one of max, mean, peak"):
        dataset.target(one, pool="median")
    with pytest.raises(ConfigError, match="'matlab' is not one of grid, legacy"):
        dataset.target(one, timing="matlab")


def test_load_is_public_and_accepts_strings(path: Path) -> None:
    assert emovox.load is load and emovox.Dataset is Dataset
    assert load(str(path)).manifest == load(path).manifest
    assert Dataset(str(path)).path == path


def test_the_repr_of_a_track_is_short(path: Path) -> None:
    track = next(iter(load(path)))
    num_frames = len(track.times)
    expected = f"<TrackLogits {track.track_id}: {num_frames} frames, {track.split}, {track.label}>"
    assert repr(track) == expected


def test_a_dataset_without_a_track(tmp_path: Path) -> None:
    info = DatasetInfo("e", "1", 240, {"name": "t", "sha256": None}, {"origin": "None."})
    write_chunks(tmp_path / "empty", [], [], info, hdf5=False)
    dataset = load(tmp_path / "empty")
    assert len(dataset) == 0 and list(dataset) == [] and dataset.splits == ()
    assert repr(dataset).endswith("0 tracks, 0 frames, empty>")
    assert "x" not in dataset
    pytest.importorskip("pandas")
    assert list(dataset.to_pandas("tracks").columns) == schema.EIGHT.tracks.names


# Laziness and the cache


def test_opening_reads_the_manifest_only(path: Path, read_files: list[str]) -> None:
    for container in CONTAINERS:
        dataset = load(path, container)
        _ = len(dataset), repr(dataset), dataset.splits, dataset.tracks, dataset.frames
        assert "train" in dataset.tracks and list(dataset.frames) == list(dataset.splits)
        with pytest.raises(ConfigError):
            dataset.to_numpy("test")
        pickle.dumps(dataset)
    assert read_files == []


def test_a_table_is_read_once_on_first_use(path: Path, read_files: list[str]) -> None:
    dataset = load(path)
    for _ in range(2):
        _ = dataset.tracks["train"]
    assert read_files == ["tracks/train"]
    _ = dataset.frames["train"]
    assert read_files == ["tracks/train", "frames/train"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_track_needs_the_frames_of_its_split_only(
    path: Path, container: str, read_files: list[str], cache: Path
) -> None:
    dataset = load(path, container)
    split = dataset.splits[-1]
    track_id = plain(path, "tracks", split)["track_id"][0].as_py()
    read_files.clear()
    for _ in range(2):
        _ = dataset.logits(track_id), dataset.target(track_id), dataset[track_id]
    folder = "frames" if container == "parquet" else "hdf5"
    frames = [name for name in read_files if not name.startswith("tracks")]
    assert frames == [f"{folder}/{split}"]
    assert sorted(set(read_files)) == sorted(read_files)
    assert len(list((cache / "frames").iterdir())) == 1


def test_the_cache_is_reused(path: Path, read_files: list[str], cache: Path) -> None:
    first = {track.track_id: track.logits.copy() for track in load(path)}
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*")}
    read_files.clear()
    for container in CONTAINERS:
        for track in load(path, container):
            np.testing.assert_array_equal(track.logits, first[track.track_id])
            assert is_mapped(track.logits) and is_mapped(track.frame_index)
    assert {name.split("/")[0] for name in read_files} == {"tracks"}
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*")} == before
    manifest = load(path).manifest
    hashes = {f["path"]: f["content_sha256"] for f in manifest["files"]}
    expected = {
        f"{hashes[schema.table_file('frames', split)]}-{counts['frames']}"
        for split, counts in manifest["totals"]["by_split"].items()
    }
    assert {p.name for p in (cache / "frames").iterdir()} == expected


@pytest.mark.parametrize("place", [0, 0.5, 0.9, -1])
def test_a_changed_file_of_the_cache_is_rebuilt(path: Path, cache: Path, place: float) -> None:
    """Of the right size: a disk that lost a page, or another program."""
    expected = {track.track_id: track.logits.copy() for track in load(path)}
    for file in (cache / "frames").iterdir():
        content = bytearray(file.read_bytes())
        content[int(place * len(content)) if place >= 0 else -1] ^= 1
        file.write_bytes(content)
    for track in load(path):
        np.testing.assert_array_equal(track.logits, expected[track.track_id])


def test_other_content_is_cached_separately(copied: Path, paths: dict[str, Path]) -> None:
    """The copy has the same name and version, and one other logit."""
    old = load(paths["imported"]).logits(GAPS).copy()
    file = copied / schema.table_file("frames", "train")
    table = pq.read_table(file)
    column = table["logit_anger"].to_numpy() + 1
    place = table.schema.get_field_index("logit_anger")
    table = table.set_column(place, schema.EIGHT.frames.field("logit_anger"), pa.array(column))
    pq.write_table(table, file)
    manifest = json.loads((copied / schema.MANIFEST).read_text())
    for entry in manifest["files"]:
        if entry["path"] == schema.table_file("frames", "train"):
            content = store.ContentHash(schema.EIGHT.frames)
            content.update(table)
            entry["content_sha256"] = content.hexdigest()
    (copied / schema.MANIFEST).write_text(json.dumps(manifest))
    shift = load(copied).logits(GAPS) - old
    np.testing.assert_allclose(shift, np.eye(8)[[EMOTIONS.index("anger")] * len(old)], atol=1e-6)
    np.testing.assert_array_equal(load(paths["imported"]).logits(GAPS), old)


def test_rows_that_differ_from_the_manifest(copied: Path, paths: dict[str, Path]) -> None:
    """They are not cached, because another dataset would read them."""
    file = copied / schema.table_file("frames", "train")
    table = pq.read_table(file)
    place = table.schema.get_field_index("logit_anger")
    column = pa.array(table["logit_anger"].to_numpy() + 1)
    pq.write_table(table.set_column(place, schema.EIGHT.frames.field("logit_anger"), column), file)
    with pytest.raises(InputError, match=r"the frames of train differ from manifest\.json"):
        load(copied).logits(GAPS)
    right = rows_of(paths["imported"])[GAPS][2]
    np.testing.assert_array_equal(load(paths["imported"]).logits(GAPS), right)


@pytest.mark.parametrize("more", [-1, 1])
def test_another_number_of_rows_than_in_the_manifest(copied: Path, more: int) -> None:
    manifest = json.loads((copied / schema.MANIFEST).read_text())
    manifest["totals"]["by_split"]["train"]["frames"] += more
    (copied / schema.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="the frames of train differ from manifest"):
        load(copied).logits(GAPS)


def test_a_damaged_cache_is_rebuilt(paths: dict[str, Path]) -> None:
    expected = load(paths["imported"]).logits(GAPS).copy()
    for file in (cache_folder() / "frames").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(load(paths["imported"]).logits(GAPS), expected)


def test_legacy_timing_requires_a_step_of_240_ms(copied: Path) -> None:
    manifest = json.loads((copied / schema.MANIFEST).read_text())
    (copied / schema.MANIFEST).write_text(json.dumps(manifest | {"step_ms": 120}))
    with pytest.raises(ConfigError, match="requires a step of 240 ms"):
        load(copied).target(GAPS, timing="legacy")


def test_an_unwritable_cache(
    dataset: Dataset, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "file" / "cache"))
    for track_id, (_, index, logits) in rows_of(path).items():
        np.testing.assert_array_equal(dataset.logits(track_id), logits)
        assert dataset.frame_index(track_id).tolist() == index
        assert not is_mapped(dataset.logits(track_id))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("writable", [True, False])
def test_arrays_are_read_only(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    (tmp_path / "file").touch()
    if not writable:
        monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "file" / "cache"))
    one = next(iter(dataset))
    logits, index = dataset.to_numpy(one.split)
    for array in (one.logits, one.frame_index, dataset.logits(one.track_id), logits, index):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    target = dataset.target(one.track_id)
    target += 1  # a copy
    assert (dataset.logits(one.track_id).max(axis=0) != target).all()


# Processes


def ask(arguments: tuple[Dataset, str]) -> tuple[int, bool, np.ndarray, np.ndarray, list[float]]:
    dataset, track_id = arguments
    logits, index = dataset.logits(track_id), dataset.frame_index(track_id)
    target = dataset.target(track_id, 0.3, 1.1).tolist()
    mapped = is_mapped(logits) and is_mapped(index)
    return os.getpid(), mapped, np.array(logits), np.array(index), target


@pytest.mark.parametrize("container", CONTAINERS)
def test_pickles_as_its_path(path: Path, container: str) -> None:
    dataset = load(path, container)
    before = pickle.dumps(dataset)
    for track in dataset:
        dataset.target(track.track_id)
    for split in dataset.splits:
        assert len(dataset.frames[split]) == len(dataset.to_numpy(split)[0])
    after = pickle.dumps(dataset)
    assert after == before and len(after) < 400
    again = pickle.loads(after)  # noqa: S301  bytes made four lines above
    assert (again.path, again.container) == (path, container)
    assert [track.track_id for track in again] == [track.track_id for track in dataset]


@pytest.mark.slow
def test_processes_share_the_mapped_arrays(paths: dict[str, Path]) -> None:
    """Both processes start with an empty cache."""
    dataset, ids = load(paths["imported"]), list(rows_of(paths["imported"]))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        answers = list(pool.map(ask, [(dataset, track_id) for track_id in ids]))
    for track_id, (process, mapped, logits, index, target) in zip(ids, answers, strict=True):
        assert process != os.getpid() and mapped
        np.testing.assert_array_equal(logits, dataset.logits(track_id))
        np.testing.assert_array_equal(index, dataset.frame_index(track_id))
        assert target == dataset.target(track_id, 0.3, 1.1).tolist()


# Damage


def refusal(path: Path, container: str = "parquet") -> str:
    """Return the one-line error of opening a dataset and all its tables."""
    with pytest.raises(InputError) as error:
        dataset = load(path, container)
        for split in dataset.splits:
            _ = dataset.tracks[split], dataset.frames[split]
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def test_folders_that_are_not_datasets(tmp_path: Path) -> None:
    assert "folder not found" in refusal(tmp_path / "nowhere")
    assert "not a dataset: manifest.json is missing" in refusal(tmp_path)
    (tmp_path / "file").touch()
    assert "folder not found" in refusal(tmp_path / "file")


def set_to(**values: Any) -> Any:
    return lambda manifest: json.dumps(manifest | values)


def leave_out(key: str) -> Any:
    return lambda manifest: json.dumps({k: v for k, v in manifest.items() if k != key})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: "", "not JSON"),
        (lambda manifest: "[]", "not a JSON object"),
        (lambda manifest: "null", "not a JSON object"),
        (lambda manifest: "{", "not JSON"),
        (lambda manifest: "\udcff", "not JSON"),
        (set_to(schema_version=1), "contract version 1; this emovox reads 2"),
        (set_to(emotions=["joy"]), "emotions or values: expected 2 to 64 emotions, found 1"),
        (set_to(emotions=[*EMOTIONS, "neutral"]), "'neutral' occurs twice"),
        (set_to(emotions=3), "emotions or values: "),
        (set_to(values=["Valence"]), "invalid name 'Valence'"),
        (set_to(totals={}), "not the manifest of a dataset"),
        (set_to(totals=None), "not the manifest of a dataset"),
        *(
            (leave_out(key), rf"not the manifest of a dataset .*{key}")
            for key in ("name", "step_ms", "files", "emotions", "values", "schema_version")
        ),
    ],
)
def test_damaged_manifests(copied: Path, change: Any, words: str) -> None:
    file = copied / schema.MANIFEST
    text = change(json.loads(file.read_text()))
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=words):
        load(copied)
    assert schema.MANIFEST in refusal(copied)


@pytest.mark.parametrize("table", ["frames", "tracks"])
@pytest.mark.parametrize("content", [None, b"", b"<html>", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_missing_or_damaged_table(copied: Path, table: str, content: bytes | None) -> None:
    file = copied / schema.table_file(table, "unheard_val")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert f"{table} of unheard_val: " in refusal(copied)
    dataset = load(copied)
    assert dataset.frames["train"].num_rows and dataset.tracks["train"].num_rows


@pytest.mark.parametrize("table", ["frames", "tracks"])
def test_a_table_without_a_column(copied: Path, table: str) -> None:
    file = copied / schema.table_file(table, "train")
    content = pq.read_table(file)
    pq.write_table(content.drop_columns([schema.EIGHT.of(table).names[-1]]), file)
    assert f"{table} of train: " in refusal(copied)


def assert_damage_is_detected(copied: Path, file: Path, container: str, places: range) -> None:
    """Check that a changed byte leads to an error or to the same tables."""
    expected = {split: load(copied).frames[split] for split in schema.SPLITS}
    tracks = {split: load(copied).tracks[split] for split in schema.SPLITS}
    whole = file.read_bytes()
    num_refused = 0
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        dataset = load(copied, container)
        try:
            for split in dataset.splits:
                assert dataset.frames[split].equals(expected[split])
                assert dataset.tracks[split].equals(tracks[split])
        except InputError as error:
            assert str(copied) in str(error) and "\n" not in str(error)
            num_refused += 1
    assert num_refused > len(places) / 4


@pytest.mark.parametrize("table", ["frames", "tracks"])
def test_a_changed_byte_in_parquet(copied: Path, table: str) -> None:
    file = copied / schema.table_file(table, "train")
    size = file.stat().st_size
    assert_damage_is_detected(copied, file, "parquet", range(0, size, size // 100))


def test_a_changed_byte_in_hdf5(copied: Path) -> None:
    """Only frames have checksums, so that other changes may stay undetected."""
    file = copied / schema.hdf5_file("train")
    whole = file.read_bytes()
    for place in range(0, len(whole), len(whole) // 100):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            _ = load(copied, "hdf5").frames["train"]
        except InputError as error:
            assert str(file) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_missing_or_damaged_hdf5_file(copied: Path, content: bytes | None) -> None:
    file = copied / schema.hdf5_file("train")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert f"{file}: cannot read as HDF5 frames: " in refusal(copied, "hdf5")
    assert load(copied).frames["train"].num_rows


def test_an_hdf5_file_with_other_arrays(copied: Path) -> None:
    import h5py

    file = copied / schema.hdf5_file("train")
    with h5py.File(file, "w") as content:
        content["logits"] = np.zeros((3, 8))
    assert "cannot read as HDF5 frames" in refusal(copied, "hdf5")


# Targets


@pytest.fixture(scope="module")
def targets(paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """The imported dataset, open for all tests of this section."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOVOX_CACHE", str(tmp_path_factory.mktemp("cache")))
        dataset = load(paths["imported"])
        for split in dataset.splits:
            dataset.to_numpy(split)
        _ = WHOLE in dataset
        yield dataset


STEP = Fraction(24, 100)
# Ways to compute the time of a grid point; each rounds differently.
GRID_POINT: list[Callable[[int], float]] = [
    lambda k: 0.24 * k,
    lambda k: k * 6 / 25,
    lambda k: k * 240 / 1000,
    lambda k: sum([0.24] * k),
    lambda k: 6 * k * 0.04,
    lambda k: math.nextafter(0.24 * k, math.inf),
    lambda k: math.nextafter(0.24 * k, -math.inf),
]


@st.composite
def moments(draw: st.DrawFn) -> tuple[float, Fraction]:
    """A time as a float, and the exact time: a grid point, or a time between two."""
    k = draw(st.integers(-5, 110))
    if k >= 0 and draw(st.booleans()):
        return draw(st.sampled_from(GRID_POINT))(k), k * STEP
    between = 0.24 * k + draw(st.floats(0.0001, 0.2399))
    return between, Fraction(between)


def pooled(logits: np.ndarray, rows: list[int], pool: str) -> list[float]:
    chosen = [[float(value) for value in logits[row]] for row in rows]
    if pool == "max":
        return [max(row[k] for row in chosen) for k in range(8)]
    if pool == "mean":
        return [sum(row[k] for row in chosen) / len(chosen) for k in range(8)]
    return max(chosen, key=max)


def naive_grid(index: list[int], start: Fraction, end: Fraction) -> list[int]:
    """Rows that overlap a window; if none does, the nearest, of two the earlier."""
    overlapping = [i for i, k in enumerate(index) if k * STEP < end and (k + 1) * STEP > start]
    if overlapping:
        return overlapping
    points = [k for k in range(200) if k * STEP < end and (k + 1) * STEP > start] or [0]
    gaps = [min(abs(k - point) for point in points) for k in index]
    return [gaps.index(min(gaps))]


def naive_legacy(num_rows: int, start: float, end: float) -> list[int]:
    """Rows of the reference code, which counts from 1."""
    first = min(math.floor(max(25 * start - 1, 0) / 6) + 1, num_rows)
    last = min(math.floor(max(25 * end - 1, 0) / 6) + 1, num_rows)
    return [row - 1 for row in range(first, last + 1)]


@settings(max_examples=400, deadline=None)
@given(data=st.data(), first=moments(), second=moments(), pool=st.sampled_from(POOLS))
def test_targets_equal_the_naive_oracle(
    targets: Dataset,
    data: st.DataObject,
    first: tuple[float, Fraction],
    second: tuple[float, Fraction],
    pool: str,
) -> None:
    (start, exact_start), (end, exact_end) = sorted((first, second), key=lambda moment: moment[1])
    assume(exact_start < exact_end)
    track_id = data.draw(st.sampled_from([track.track_id for track in targets]))
    logits, index = targets.logits(track_id), targets.frame_index(track_id).tolist()
    found = targets.target(track_id, start, end, pool)
    assert found.dtype == np.float32 and found.shape == (8,)
    expected = pooled(logits, naive_grid(index, exact_start, exact_end), pool)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
    legacy = targets.target(track_id, start, end, pool, "legacy")
    expected = pooled(logits, naive_legacy(len(index), start, end), pool)
    np.testing.assert_allclose(legacy, expected, rtol=2e-6, atol=1e-6)


def assert_takes(
    dataset: Dataset, track_id: str, start: float, end: float, rows: list[int], timing: str = "grid"
) -> None:
    logits = dataset.logits(track_id)[rows]
    for pool, expected in {
        "max": logits.max(axis=0),
        "mean": logits.astype(float).mean(axis=0),
        "peak": logits[logits.max(axis=1).argmax()],
    }.items():
        found = dataset.target(track_id, start, end, pool, timing)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_window_of_one_step_is_one_row(targets: Dataset) -> None:
    for k in range(85):
        for left, right in itertools.product(GRID_POINT, GRID_POINT):
            assert_takes(targets, WHOLE, left(k), right(k + 1), [k])


def test_a_window_across_a_grid_point_is_two_rows(targets: Dataset) -> None:
    for k in range(84):
        assert_takes(targets, WHOLE, 0.24 * k + 0.0001, 0.24 * (k + 1) + 0.0001, [k, k + 1])
        assert_takes(targets, WHOLE, 0.24 * k + 0.1, 0.24 * k + 0.1001, [k])
        assert_takes(targets, WHOLE, 0.0, 0.24 * k + 0.0001, [*range(k + 1)])


# Grid points 0, 1, 2, 6, 7 and 20, which begin at 0, 0.24, 0.48, 1.44, 1.68 and 4.8 s.
@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        (0.0, math.inf, [0, 1, 2, 3, 4, 5]),
        (0, 10**9, [0, 1, 2, 3, 4, 5]),
        (0.0, 0.72, [0, 1, 2]),
        (0.1 + 0.2 + 0.18, 0.72, [2]),
        (0.23, 0.25, [0, 1]),
        (0.24, 1.44, [1, 2]),
        (0.24, 1.45, [1, 2, 3]),
        (-5.0, 0.1, [0]),
        (-5.0, 0.3, [0, 1]),
        (-5.0, -4.0, [0]),
        (-5.0, 0.0, [0]),
        (-math.inf, 0.3, [0, 1]),
        (-math.inf, -1.0, [0]),
        (-math.inf, math.inf, [0, 1, 2, 3, 4, 5]),
        (0.72, 1.44, [2]),  # points 3 to 5: 2 and 6 are equally near, the earlier counts
        (0.72, 0.96, [2]),
        (0.96, 1.44, [3]),  # 4 and 5
        (1.2, 1.44, [3]),
        (0.96, 1.2, [2]),  # 4, again equally near to 2 and 6
        (1.92, 2.0, [4]),
        (3.1, 3.2, [4]),  # 12
        (3.4, 3.5, [5]),  # 14
        (4.0, 4.8, [5]),
        (5.04, 5.1, [5]),
        (100.0, 200.0, [5]),
        (100.0, math.inf, [5]),
        (5.0, math.inf, [5]),
        (1e15, math.inf, [5]),
    ],
)
def test_windows_of_a_track_with_gaps(
    targets: Dataset, start: float, end: float, rows: list[int]
) -> None:
    assert targets.frame_index(GAPS).tolist() == [0, 1, 2, 6, 7, 20]
    assert_takes(targets, GAPS, start, end, rows)


# Rows in the order of the file: the first has seven video frames, each other six.
@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        (0.0, math.inf, [0, 1, 2, 3, 4, 5]),
        (0.0, 0.24, [0]),
        (0.0, 0.27, [0]),
        (0.0, 0.28, [0, 1]),
        (0.27, 0.5, [0, 1]),
        (0.29, 0.5, [1]),
        (0.29, 0.53, [1, 2]),
        (-3.0, -2.0, [0]),
        (-math.inf, 0.1, [0]),
        (1.47, 1.48, [5]),
        (9.0, 10.0, [5]),
        (9.0, math.inf, [5]),
    ],
)
def test_windows_in_legacy_timing(
    targets: Dataset, start: float, end: float, rows: list[int]
) -> None:
    assert_takes(targets, GAPS, start, end, rows, "legacy")


def test_legacy_timing_is_one_video_frame_late(targets: Dataset) -> None:
    for k in range(1, 85):
        late = 0.24 * k + 0.039
        assert_takes(targets, WHOLE, late - 0.001, late, [k - 1], "legacy")
        assert_takes(targets, WHOLE, late - 0.001, late, [k], "grid")
        assert_takes(targets, WHOLE, late + 0.002, late + 0.003, [k], "legacy")


def test_a_window_within_the_rounding_of_a_grid_point(targets: Dataset) -> None:
    near = (targets.logits(WHOLE)[1], targets.logits(WHOLE)[2])
    found = targets.target(WHOLE, math.nextafter(0.48, 0), math.nextafter(0.48, 1))
    assert any((found == row).all() for row in near)


def test_the_default_target_is_the_maximum_of_the_track(dataset: Dataset, path: Path) -> None:
    for track_id, (track, _, logits) in rows_of(path).items():
        target = dataset.target(track_id)
        np.testing.assert_array_equal(target, logits.max(axis=0))
        assert target.tolist() == [track[name] for name in schema.EIGHT.maxima]
        assert EMOTIONS[target.argmax()] == track["label"]


def test_the_first_of_two_equal_peaks_counts(copied: Path, tmp_path: Path) -> None:
    logits = np.zeros((3, 8), np.float32)
    logits[0, 1], logits[1, 2], logits[2, 3] = 1, 5, 5
    meta = tmp_path / "meta"
    meta.mkdir()
    (meta / "vox1_meta.csv").write_text(f"VoxCeleb1 ID\tVGGFace1 ID\nid10004\t{LEE}\n")
    one = utterance(f"{LEE}/x/a_1.wav", 3)
    one.logits[:] = logits
    file = write(tmp_path / "x.mat", "5", annotations([one]))
    dataset = load(import_mat([file], tmp_path / "out", meta=meta).out)
    assert dataset.target("id10004/a/00001", pool="peak").tolist() == logits[1].tolist()
    assert dataset.target("id10004/a/00001", pool="max").tolist() == [0, 1, 5, 5, 0, 0, 0, 0]


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (1.0, 1.0),
        (1.0, 0.5),
        (math.nan, 1.0),
        (0.0, math.nan),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (0.0, -math.inf),
        (0.0, -1.0),
    ],
)
def test_an_empty_window_is_refused(
    targets: Dataset, start: float, end: float, timing: str
) -> None:
    with pytest.raises(ConfigError, match=rf"window from {start} to {end} s: empty"):
        targets.target(WHOLE, start, end, timing=timing)


def test_another_step(copied: Path) -> None:
    file = copied / schema.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"step_ms": 1000}))
    dataset = load(copied)
    assert dataset.step == 1.0
    assert dataset.times(GAPS).tolist() == [0, 1, 2, 6, 7, 20]
    assert_takes(dataset, GAPS, 1.0, 6.0, [1, 2])
    assert_takes(dataset, GAPS, 1.5, 6.5, [1, 2, 3])


@pytest.mark.parametrize("column", ["row_offset", "n_frames", "track_id", "label"])
def test_tracks_that_do_not_belong_to_the_rows_are_refused(copied: Path, column: str) -> None:
    """Also when the manifest has been made to fit the changed table."""
    file = copied / schema.table_file("tracks", "train")
    table = pq.read_table(file)
    values = table[column].to_pylist()
    values[0], values[1] = values[1], values[0]
    if column == "label":
        values[0] = next(emotion for emotion in EMOTIONS if emotion != values[0])
    index = table.column_names.index(column)
    field = table.schema.field(column)
    table = table.set_column(index, field, pa.array(values, field.type))
    pq.write_table(table, file)
    with pytest.raises(InputError, match=r"tracks/train-.* differs from manifest\.json"):
        _ = load(copied).tracks["train"]
    manifest = json.loads((copied / schema.MANIFEST).read_text())
    content = store.ContentHash(schema.EIGHT.tracks)
    content.update(table)
    for entry in manifest["files"]:
        if entry["path"] == schema.table_file("tracks", "train"):
            entry["content_sha256"] = content.hexdigest()
    (copied / schema.MANIFEST).write_text(json.dumps(manifest))
    dataset = load(copied)
    if column == "label":
        assert next(iter(dataset)).label == values[0]
    else:
        with pytest.raises(InputError, match="the tracks of train do not belong to its frames"):
            next(iter(dataset))


@pytest.mark.parametrize("name", ["manifest.json", "tracks/train-00000-of-00001.parquet"])
def test_a_dataset_that_git_lfs_has_not_fetched(path: Path, tmp_path: Path, name: str) -> None:
    clone = Path(shutil.copytree(path, tmp_path / "clone"))
    (clone / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for read in (load, emovox.validate):
        with pytest.raises(InputError, match="a Git LFS pointer, not the file; run `git lfs pull`"):
            read(clone)


def test_a_track_is_found_without_the_zeros_of_its_number(tmp_path: Path) -> None:
    dataset = emovox.write_dataset(
        tmp_path / "own", {"track_id": ["a/v/7", "b/v/7"], "label": ["anger", "fear"]}
    )
    assert dataset.logits("a/v/7").tolist() == dataset.logits("a/v/00007").tolist()
    with pytest.raises(KeyError, match="track 'a/v/8' not found"):
        dataset.logits("a/v/8")
    assert str(dataset.tracks) == "{" + ", ".join(f"{s!r}: ..." for s in dataset.splits) + "}"
