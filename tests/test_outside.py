"""Ids, paths, links and HDF5 files of strangers that would lead out of their folder."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from validation_fixtures import edit_manifest, seal, write_valid

import emovox
from emovox import matfile
from emovox.corpus.layouts import read_corpus
from emovox.corpus.sound_files import AudioTree, audio_path
from emovox.dataset.reader import load
from emovox.errors import EmovoxError, InputError
from emovox.ids import TrackKey
from emovox.limits import MAX_HDF5_OBJECTS
from emovox.publishing.publish import release
from emovox.validation.outcomes import validate

LABELS = "hdf5/train.h5"
META = "VoxCeleb1 ID\tVGGFace1 ID\n{}\t{}\n"
SECRETS = ("secret/voice.wav", "secret/voice.mp4", "secret/v/00001.wav", "secret_0000001.wav")

# In place of `{}`: the folder that holds the corpus and the secrets.
IDS = [
    *("demo00/..+..+secret+voice/00000", "../secret/00001", "../secret/voice/00000"),
    *("{}/secret/v/00001", "/secret/v/00001", "demo00/../00001", "demo00/./00000", "./v/00001"),
    *("..\\secret/v/00001", "demo00/..\\..\\secret/00000", "~/v/00001", "~root/v/00001"),
    *("file:/v/00001", "s3://b/00001", "s3:/b/00001", "demo00/v\0/00001", "demo00\0/v/00001"),
    *("\ud800/v/00001", "..+secret/voice/00000", "../../../00000", "demo00/../../etc/00000"),
    *("x" * 5000 + "/v/00001", "id10000/v/00001", "id10000/secret/00001", "id10000/voice/00000"),
]
PATHS = [
    *("../secret/voice.wav", "{}/secret/voice.wav", "demo00/../../secret/voice.wav"),
    *("demo00/v/../../../secret/voice.mp4", "..\\secret\\voice.wav", "v\\..\\..\\voice.wav"),
    *("s3://b/x.wav", "file://{}/secret/voice.wav", "http://h/x", "//{}/secret/voice.wav"),
    *("", "..", "a/..", "v/00001.mp4\0.wav", "\ud800.wav"),
]
SPELT = ["id10000/voice.wav", "id10000/secret/voice.wav", "id10000{}/secret/voice.wav", "~/x.wav"]
NAMES = [
    *("../secret", "{}/secret", "..", ".", "demo00/../../secret", "a\\..\\..\\secret", "s3://b"),
    *("v\0", "....", "..." * 3, "~", "Norm"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    for name in ("media/demo00/v/00001.mp4", "media/id10000/v/00001.wav", *SECRETS):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x")
    return place


def found(search: Callable[[], object]) -> list[Path]:
    """Return the path that a search finds, in a list; a refusal finds none."""
    try:
        result = search()
    except InputError:
        return []
    return [] if result is None else [Path(getattr(result, "path", result))]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_nothing_outside_the_root_is_found(place: Path, tmp_path: Path, name: str) -> None:
    root, meta = place / "media", None
    if name:
        meta = tmp_path
        (meta / "vox1_meta.csv").write_text(META.format("id10000", name.format(place)))
    try:
        tree = AudioTree(root, meta)
    except InputError as error:
        assert "not names of folders" in str(error)
        return
    paths = []
    for track_id in (each.format(place) for each in IDS):
        paths += found(partial(audio_path, root, track_id, meta, missing_ok=True))
        for source in (None, *(each.format(place) for each in PATHS + SPELT)):
            paths += found(partial(tree.locate, track_id, source, 0, 1000))
            paths += found(partial(tree.find_pictures, track_id, (source, 0, 1000)))
    normal = {os.path.normpath(path) for path in paths}
    assert all(Path(path).is_relative_to(root) for path in normal), normal
    assert not any(".." in path.parts for path in paths)


@pytest.mark.parametrize("path", PATHS)
def test_a_source_that_is_not_below_the_root_is_refused(place: Path, path: str) -> None:
    tree = AudioTree(place / "media")
    with pytest.raises(InputError, match="not a path below the corpus"):
        tree.locate("demo00/v/00001", path.format(place))
    with pytest.raises(InputError, match="not a path below the corpus"):
        tree.find_pictures("demo00/v/00001", (path.format(place), None, None))


def test_links_below_the_root_are_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "demo00").symlink_to(place / "media" / "demo00")
    path = audio_path(tmp_path, "demo00/v/00001")
    assert path.resolve() == (place / "media/demo00/v/00001.mp4").resolve()


@pytest.mark.parametrize("column", ["video", "boxes"])
def test_paths_of_a_table_that_leave_the_root_become_dropped_rows(
    place: Path, tmp_path: Path, column: str
) -> None:
    paths = [path.format(place) for path in PATHS if path.isprintable()]
    table = tmp_path / "tracks.csv"
    row = "{},demo00,,," if column == "video" else "a.mp4,demo00,,,{}"
    named = [path for path in paths if path or column == "video"]  # no boxes: faces are detected
    rows = [f"demo00/v/{n:05d},{row.format(path)}" for n, path in enumerate(named)]
    table.write_text("\n".join(["track_id,video,identity,start,end,boxes", *rows]) + "\n")
    corpus = read_corpus("table", place / "media", table)
    assert not corpus.tracks
    assert {row.error for row in corpus.dropped} == {"BadPath"}
    assert not any(str(place) in row.source for row in corpus.dropped)


@pytest.mark.parametrize("name", [".", "..", "a/b", "", "a\0", "..\\a"])
def test_names_that_are_not_those_of_a_folder(name: str) -> None:
    for key in (TrackKey(name, "v", 1), TrackKey("a", name, 1)):
        with pytest.raises(EmovoxError, match="BadName"):
            key.check()


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    return write_valid(tmp_path)


def refusals(root: Path, container: str = "hdf5") -> list[str]:
    """Return the messages of validate and load, both of which refuse a dataset."""
    try:
        messages = [str(e) for o in validate(root).outcomes for e in (*o.breach.examples, o.reason)]
    except InputError as error:
        messages = [str(error)]
    with pytest.raises(InputError) as loaded:
        for split in (opened := load(root, container)).splits:
            _ = opened.frames[split], opened.to_numpy(split)
    return [" ".join(messages), str(loaded.value)]


def external_link(file: h5py.File, outside: Path) -> None:
    del file["frames/logits"]
    file["frames/logits"] = h5py.ExternalLink(str(outside), "/frames/logits")


def external_group(file: h5py.File, outside: Path) -> None:
    del file["frames"]
    file["frames"] = h5py.ExternalLink(
        os.path.relpath(outside, Path(file.filename).parent), "frames"
    )


def soft_link(file: h5py.File, _: Path) -> None:
    file["frames/other"] = file["frames/logits"]
    del file["frames/logits"]
    file["frames/logits"] = h5py.SoftLink("/frames/other")


def soft_link_through_external(file: h5py.File, outside: Path) -> None:
    file["more"] = h5py.ExternalLink(str(outside), "/")
    del file["tracks/track_id"]
    file["tracks/track_id"] = h5py.SoftLink("/more/tracks/track_id")


def external_storage(file: h5py.File, outside: Path) -> None:
    rows = file["frames/frame_index"][:]
    outside.with_suffix(".raw").write_bytes(rows.tobytes())
    del file["frames/frame_index"]
    storage = [(str(outside.with_suffix(".raw")), 0, rows.nbytes)]
    file.create_dataset("frames/frame_index", rows.shape, rows.dtype, external=storage)


def virtual(file: h5py.File, outside: Path) -> None:
    shape = file["frames/logits"].shape
    layout = h5py.VirtualLayout(shape, "float32")
    layout[:] = h5py.VirtualSource(str(outside), "frames/logits", shape)
    del file["frames/logits"]
    file.create_virtual_dataset("frames/logits", layout)


def virtual_of_itself(file: h5py.File, _: Path) -> None:
    file["kept"] = file["frames/logits"]
    virtual(file, Path())
    assert file["frames/logits"].is_virtual


def unused_link(file: h5py.File, outside: Path) -> None:
    file.create_group("a/b")["c"] = h5py.ExternalLink(str(outside), "/frames")


HDF5 = (
    *(external_link, external_group, soft_link, soft_link_through_external, external_storage),
    *(virtual, virtual_of_itself, unused_link),
)


@pytest.mark.parametrize("attack", HDF5)
def test_hdf5_that_takes_data_from_elsewhere(
    dataset: Path, tmp_path: Path, attack: Callable[[h5py.File, Path], None]
) -> None:
    shutil.copy(dataset / LABELS, outside := tmp_path / "outside.h5")
    with h5py.File(dataset / LABELS, "r+") as file:
        attack(file, outside)
    seal(dataset)
    for message in refusals(dataset):
        assert "takes data from elsewhere" in message


def mat_link(file: h5py.File, outside: Path) -> None:
    file["x"] = h5py.ExternalLink(str(outside), "/frames/logits")


def mat_field(file: h5py.File, outside: Path) -> None:
    file.create_group("x").attrs["MATLAB_class"] = np.bytes_("struct")
    file["x/y"] = h5py.ExternalLink(str(outside), "/frames/logits")


def mat_soft(file: h5py.File, _: Path) -> None:
    file["x"] = h5py.SoftLink("/a")


def mat_cell(file: h5py.File, outside: Path) -> None:
    external_storage(file, outside)
    cells = file.create_dataset("x", (1, 1), h5py.ref_dtype)
    cells[0, 0] = file["frames/frame_index"].ref
    cells.attrs["MATLAB_class"] = np.bytes_("cell")
    file.move("frames", "#refs#")


@pytest.mark.parametrize("attack", [mat_link, mat_field, mat_soft, mat_cell, virtual])
def test_mat_73_that_takes_data_from_elsewhere(
    dataset: Path, tmp_path: Path, attack: Callable[[h5py.File, Path], None]
) -> None:
    path, outside = tmp_path / "file.mat", dataset / LABELS
    with h5py.File(path, "w", userblock_size=512) as file:
        file["a"] = np.zeros((2, 2))
        file.create_group("frames")["frame_index"] = np.arange(3)
        file["frames/logits"] = np.zeros((6, 8), np.float32)
        attack(file, outside)
    with path.open("rb+") as head:
        head.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    with pytest.raises(InputError, match="takes data from elsewhere"):
        matfile.read(path)


def linked(root: Path, name: str, outside: Path, *, relative: bool = False) -> None:
    """Move a file or folder of a dataset outside, and put a link in its place."""
    target = outside / name.replace("/", "-")
    shutil.move(root / name, target)
    (root / name).symlink_to(os.path.relpath(target, (root / name).parent) if relative else target)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        *("frames/train-00000-of-00001.parquet", "tracks/unheard_val-00000-of-00001.parquet"),
        *("faces/train-00000-of-00001.parquet", "embeddings/train-00000-of-00001.parquet"),
        *("dropped.parquet", "README.md", "provenance.json", "croissant.json", "SHA256SUMS"),
        *("manifest.json", LABELS, "frames", "hdf5", "tracks"),
    ],
)
def test_a_file_that_links_outside_the_dataset(
    dataset: Path, tmp_path: Path, name: str, relative: bool
) -> None:
    (outside := tmp_path / "outside").mkdir()
    linked(dataset, name, outside, relative=relative)
    validated, loaded = refusals(dataset, "parquet")
    assert name in validated and "links to a file outside" in loaded


@pytest.mark.parametrize("version", [None, "1.1.0"])
def test_a_dataset_that_takes_data_from_elsewhere_is_not_released(
    dataset: Path, tmp_path: Path, version: str | None
) -> None:
    (outside := tmp_path / "outside").mkdir()
    if version:
        shutil.copy(dataset / LABELS, outside / "train.h5")
        with h5py.File(dataset / LABELS, "r+") as file:
            external_link(file, outside / "train.h5")
        seal(dataset)
    else:
        linked(dataset, "frames/train-00000-of-00001.parquet", outside)
    with pytest.raises(EmovoxError, match="hdf5-content" if version else "links to a file outside"):
        release(dataset, tmp_path / "release", version=version)
    assert not (tmp_path / "release").exists()


def test_a_group_that_contains_itself(dataset: Path) -> None:
    with h5py.File(dataset / LABELS, "r+") as file:
        file["frames/again"] = file["frames"]
        file["frames/root"] = file["/"]
    seal(dataset)
    assert len(load(dataset, "hdf5").frames["train"])


def test_hdf5_with_more_groups_than_the_contract(dataset: Path) -> None:
    with h5py.File(dataset / LABELS, "r+") as file:
        for number in range(MAX_HDF5_OBJECTS):
            file.create_group(str(number))
    seal(dataset)
    for message in refusals(dataset):
        assert "more than 1,000 arrays and groups" in message


def test_a_link_to_itself(dataset: Path, tmp_path: Path) -> None:
    name = "frames/train-00000-of-00001.parquet"
    (dataset / name).unlink()
    (dataset / name).symlink_to(dataset / name)
    for message in refusals(dataset, "parquet"):
        assert name in message


def hub_cache(dataset: Path, cache: Path) -> Path:
    """Move a dataset into a folder as the Hub's client stores it; return the snapshot."""
    snapshot, blobs = cache / "datasets--a--b/snapshots/0f1e", cache / "datasets--a--b/blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in dataset.rglob("*") if p.is_file())):
        shutil.move(path, blob := blobs / f"{number:064x}")
        link = snapshot / path.relative_to(dataset)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def test_the_cache_of_the_hub_is_read(dataset: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(dataset, tmp_path / "hub")
    assert validate(snapshot).valid
    assert len(load(snapshot).frames["train"])
    release(snapshot, tmp_path / "release", version="1.1.0")


def test_a_cache_of_the_hub_whose_blob_is_a_link(dataset: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(dataset, tmp_path / "hub")
    blob = (snapshot / LABELS).resolve()
    shutil.move(blob, tmp_path / "other.h5")
    blob.symlink_to(tmp_path / "other.h5")
    for message in refusals(snapshot):
        assert "links to a file outside" in message


@pytest.mark.parametrize(
    "path", ["../x.parquet", "/etc/passwd", "frames/../../x", "s3://b/x", "a\\..\\b", "", "a\0"]
)
def test_a_manifest_that_lists_files_outside(dataset: Path, tmp_path: Path, path: str) -> None:
    edit_manifest(dataset, lambda manifest: manifest["files"][0].update(path=path))
    with pytest.raises(InputError, match="path below the dataset"):
        load(dataset)
    with pytest.raises(EmovoxError, match="path below the dataset"):
        emovox.diff(dataset, dataset)
    with pytest.raises(EmovoxError):
        release(dataset, tmp_path / "release")
    assert not validate(dataset).valid


@pytest.mark.parametrize("digest", ["../../escape", "/tmp/escape", "", None, "A" * 64])
def test_a_content_hash_that_would_name_a_file_outside_the_cache(
    dataset: Path, tmp_path: Path, digest: str | None
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        for entry in manifest["files"]:
            if entry["path"].startswith("frames/"):
                entry["content_sha256"] = digest

    edit_manifest(dataset, change)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"no content hash|content_sha256"):
        load(dataset).to_numpy("train")
    assert sorted(tmp_path.iterdir()) == before
