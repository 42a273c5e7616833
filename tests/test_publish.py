"""Releases: their files, refusals, takedowns and uploads."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hub_fixtures import FakeHub
from oracles import oracle
from validation_fixtures import (
    DAMAGE,
    SPEC,
    build,
    edit,
    edit_manifest,
    edit_provenance,
    seal,
    write_valid,
)

import emovox
from emovox.cli import main
from emovox.comparison.difference import diff
from emovox.dataset import schema
from emovox.dataset.card import check_card
from emovox.dataset.json_schemas import faults
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError, NetworkError
from emovox.publishing import publish
from emovox.publishing.hub import open_repository
from emovox.publishing.publish import NotValidError, release
from emovox.validation.outcomes import validate

hub_errors = oracle("huggingface_hub.errors")

TABLES_AND_HDF5 = ("frames", "tracks", "faces", "hdf5")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid dataset: id10001 in train and heard_val, id10002 in train, id10003 unheard."""
    return write_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture(scope="module")
def released(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1.2.3 of it; read-only for tests."""
    return release(source, tmp_path_factory.mktemp("releases") / "1.2.3", version="1.2.3").out


@pytest.fixture
def copied(source: Path, tmp_path: Path) -> Path:
    """A copy for tests that damage it."""
    return Path(shutil.copytree(source, tmp_path / "copied"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "releases/1.0.0"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def list_of(tmp_path: Path) -> Callable[..., Path]:
    def write(*identities: str) -> Path:
        path = tmp_path / "list.txt"
        path.write_text("".join(f"{digest(identity)}\n" for identity in identities))
        return path

    return write


def digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["release", *map(str, arguments)], catch_exceptions=False)


def read(root: Path, name: str) -> Any:
    return json.loads((root / name).read_text())


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def nothing_left(out: Path) -> bool:
    return not out.parent.exists() or not list(out.parent.iterdir())


# Files of a release


def test_a_release_has_the_tables_and_new_documents(source: Path, released: Path) -> None:
    before, after = files_of(source), files_of(released)
    assert after.keys() == before.keys() | {"croissant.json"}
    written = {schema.CARD, schema.PROVENANCE, schema.CROISSANT, schema.CHECKSUMS, schema.MANIFEST}
    assert {n for n in after if before.get(n) != after[n]} == written
    manifest = read(released, schema.MANIFEST)
    assert manifest["version"] == "1.2.3" and set(manifest) == set(read(source, schema.MANIFEST))
    assert manifest["totals"] == read(source, schema.MANIFEST)["totals"]
    assert {f["path"] for f in manifest["files"]} == after.keys() - {schema.MANIFEST}
    for file in manifest["files"]:
        content = after[file["path"]]
        assert file["bytes"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert "# small 1.2.3\n" in after[schema.CARD].decode()
    check_card(released)
    assert validate(released, meta=source.parent / "meta").valid


def test_sha256sum_agrees(released: Path) -> None:
    command = ["sha256sum", "--check", "--strict", schema.CHECKSUMS]
    done = subprocess.run(command, cwd=released, capture_output=True, text=True, check=True)
    names = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
    assert names == files_of(released).keys() - {schema.MANIFEST, schema.CHECKSUMS}


def test_provenance_has_the_source_of_the_release(source: Path, out: Path) -> None:
    release(source, out, version="1.0.1")
    before, after = (read(root, schema.PROVENANCE) for root in (source, out))
    (origin,) = after.pop("released_from")
    assert after == before
    assert origin["version"] == "1.0.0"
    manifest = (source / schema.MANIFEST).read_bytes()
    assert origin["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    again = out.with_name("again")
    release(out, again, version="1.1.0")
    origins = read(again, schema.PROVENANCE)["released_from"]
    assert origins[0] == origin and origins[1]["version"] == "1.0.1"
    assert not faults("provenance", read(again, schema.PROVENANCE))
    for name in (schema.CARD, schema.PROVENANCE, schema.MANIFEST, schema.CROISSANT):
        assert str(source.parent) not in (again / name).read_text()


def test_files_are_read_only(released: Path) -> None:
    assert {p.stat().st_mode & 0o777 for p in released.rglob("*") if p.is_file()} == {0o444}
    assert [p.name for p in released.parent.iterdir()] == [released.name]


def test_a_release_is_read_like_its_dataset(source: Path, released: Path) -> None:
    for before, after in zip(emovox.load(source), emovox.load(released), strict=True):
        assert before.track_id == after.track_id
        np.testing.assert_array_equal(before.logits, after.logits)
    assert diff(source, released).bump.level in ("none", "patch")


def test_only_listed_files_are_released(copied: Path, out: Path) -> None:
    (copied / ".emovox").mkdir()
    (copied / ".emovox/shard").write_text("state")
    (copied / "NOTICE").write_text("by hand")
    edit_manifest(copied, lambda m: m["files"].insert(0, {"path": "NOTICE", "rows": None}))
    seal(copied)
    release(copied, out, version="1.0.0")
    assert (out / "NOTICE").read_text() == "by hand"  # the manifest lists it
    assert not (out / ".emovox").exists()


# card.toml

FIELDS = """# Lab's own
licence = "cc-by-4.0"
contact = "Lab <lab@example.org>"
languages = ["en-GB"]
"""


def content_hashes(root: Path) -> dict[str, str]:
    files = read(root, schema.MANIFEST)["files"]
    return {file["path"]: file["content_sha256"] for file in files if file["content_sha256"]}


def test_card_fields_are_kept_by_releases_and_takedowns(
    source: Path, copied: Path, out: Path, list_of: Callable[..., Path]
) -> None:
    (copied / schema.CARD_FIELDS).write_text(FIELDS)
    assert validate(copied, meta=source.parent / "meta").valid  # not listed there
    release(copied, out, version="1.0.0")
    later = release(out, out.with_name("2"), version="2.0.0", takedown=list_of("id10002")).out
    chosen = out.with_name("chosen")
    emovox.select(later, chosen, where="true")
    for root in (out, later, chosen):
        assert (root / schema.CARD_FIELDS).read_text() == FIELDS
        assert schema.CARD_FIELDS in {file["path"] for file in read(root, schema.MANIFEST)["files"]}
        assert "\nlicense: cc-by-4.0\n" in (root / schema.CARD).read_text()
        assert read(root, schema.CROISSANT)["inLanguage"] == ["en-GB"]
        check_card(root)
        assert validate(root, strict=True, meta=source.parent / "meta").valid
    assert content_hashes(out) == content_hashes(copied)
    assert diff(copied, out).bump.level in ("none", "patch")


def test_a_given_file_takes_the_place_of_that_of_the_dataset(copied: Path, out: Path) -> None:
    (copied / schema.CARD_FIELDS).write_text("broken")
    given = copied.parent / "given.toml"
    given.write_text(FIELDS)
    with pytest.raises(ConfigError, match=r"card.toml: not valid TOML"):
        release(copied, out, version="1.0.0")
    with pytest.raises(ConfigError, match=r"card.toml: not valid TOML"):
        emovox.select(copied, out, where="true")
    assert nothing_left(out)
    result = run(copied, "--version", "1.0.0", "--out", out, "--card", given)
    assert result.exit_code == 0 and (out / schema.CARD_FIELDS).read_text() == FIELDS
    given.write_text('licence = "odbl"')
    second = release(out, out.with_name("2"), version="1.0.1", card=str(given)).out
    assert "\nlicense: odbl\n" in (second / schema.CARD).read_text()
    assert "example.org" not in (second / schema.CARD).read_text()
    result = run(out, "--version", "1.0.1", "--out", out.with_name("3"), "--card", out / "none")
    assert result.exit_code == 2 and "none: file not found" in result.stderr


def test_comments_of_card_fields_are_checked_too(copied: Path, out: Path) -> None:
    (copied / schema.CARD_FIELDS).write_text("# from /home/me/notes/card\n" + FIELDS)
    with pytest.raises(NotValidError, match="no-absolute-paths"):
        release(copied, out, version="1.0.0")


def test_a_dataset_without_hdf5_and_faces(tmp_path: Path, source: Path, out: Path) -> None:
    copied = Path(shutil.copytree(source, tmp_path / "less"))
    for folder in ("hdf5", "faces", "embeddings"):
        shutil.rmtree(copied / folder)
    seal(copied)
    text = (copied / schema.CARD).read_text()
    start, stop = text.index("- config_name: faces"), text.index("---\n", 10)
    (copied / schema.CARD).write_text(text[:start] + text[stop:])
    seal(copied)
    release(copied, out, version="1.0.0")
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"frames", "tracks"}


def test_linked_files_become_files(source: Path, tmp_path: Path, out: Path) -> None:
    """A download of `huggingface_hub` consists of links to its folder of blobs."""
    snapshot, blobs = tmp_path / "hub/snapshots/1", tmp_path / "hub/blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(p for p in source.rglob("*") if p.is_file()):
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(shutil.copy(path, blobs / str(number)))
    release(snapshot, out, version="1.0.0")
    assert not any(p.is_symlink() for p in out.rglob("*"))


def test_folders_with_special_characters(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "o'dd [1] *=? é"
    release(source, out, version="1.0.0")
    assert validate(out).valid


def test_the_function_accepts_strings_and_describes_its_result(source: Path, out: Path) -> None:
    made = release(str(source), str(out), meta=str(source.parent / "meta"))
    assert made.manifest["version"] == "1.0.0", "the version of the dataset"
    assert repr(made) == f"<Release small 1.0.0: 6 tracks, 36 frames, {out}>"
    pytest.importorskip("pandas", reason="pandas is not installed")
    files = made.to_pandas()
    assert list(files.columns) == ["path", "bytes", "sha256", "rows", "content_sha256"]
    assert set(files["path"]) == files_of(out).keys() - {schema.MANIFEST}
    rows = files.set_index("path")["rows"]
    assert rows[schema.DROPPED_FILE] == 1 and rows.isna()[schema.CARD]


# Refusals


@pytest.mark.parametrize(
    "version",
    ["1", "1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.0\n", "1.0.x", "", "१.0.0", "1.0.0.0"],
)
def test_versions_of_another_form(source: Path, out: Path, version: str) -> None:
    with pytest.raises(ConfigError, match=r"is not MAJOR\.MINOR\.PATCH"):
        release(source, out, version=version)
    assert nothing_left(out)


def test_a_release_of_a_release_needs_a_higher_version(source: Path, out: Path) -> None:
    release(source, out, version="0.9.0")  # below 1.0.0, which was not a release
    for version in ("0.9.0", "0.8.10", "0.0.99"):
        with pytest.raises(ConfigError, match=r"not above 0\.9\.0"):
            release(out, out.with_name("next"), version=version)
    with pytest.raises(ConfigError, match=r"not above 0\.9\.0"):
        release(out, out.with_name("next"))
    release(out, out.with_name("next"), version="0.10.0")


@pytest.mark.parametrize("kind", ["file", "folder", "empty", "dataset", "link"])
def test_an_existing_out_is_not_changed(source: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "dataset":
        shutil.copytree(source, out)
    elif kind == "link":
        out.symlink_to(source)
    else:
        out.mkdir()
        if kind == "folder":
            (out / "mine").write_text("mine")
    before = files_of(out) if out.is_dir() else out.read_text()
    with pytest.raises((InputError, ConfigError), match=r"pass another --out"):
        release(source, out, version="1.0.0")
    assert before == (files_of(out) if out.is_dir() else out.read_text())


def test_an_existing_release_is_refused_by_name(source: Path, released: Path) -> None:
    before = files_of(released)
    for version in ("1.2.3", "1.2.4"):
        result = run(source, "--version", version, "--out", released)
        assert result.exit_code == 2
        assert f"{released}: is small 1.2.3, and releases do not change" in result.stderr
    assert files_of(released) == before


def test_a_release_within_the_dataset_is_refused(source: Path) -> None:
    before = files_of(source)
    for out in (source / "release", source):
        with pytest.raises(ConfigError, match="inside the dataset"):
            release(source, out, version="1.0.0")
    assert files_of(source) == before


def test_folders_that_are_not_datasets(tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        result = run(tmp_path / folder, "--version", "1.0.0", "--out", out)
        assert result.exit_code == 2 and folder in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert nothing_left(out)


@pytest.mark.parametrize(
    "rule", ["file-hashes", "readable", "logit-range", "totals", "card-limits"]
)
def test_a_dataset_that_breaks_a_rule_is_refused(copied: Path, out: Path, rule: str) -> None:
    DAMAGE[rule](copied)
    with pytest.raises(NotValidError, match=rf"{copied}: not released: .*\b{rule}\b"):
        release(copied, out, version="1.0.0")
    result = run(copied, "--version", "1.0.0", "--out", out)
    assert result.exit_code == 1
    assert f"error    {rule}: " in result.stdout and rule in result.stderr
    assert nothing_left(out)


@pytest.mark.parametrize("name", ["frames/train-00000-of-00001.parquet", "dropped.parquet"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damaged_files_are_refused(copied: Path, out: Path, name: str, damage: str) -> None:
    path, data = copied / name, (copied / name).read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
    assert run(copied, "--version", "1.0.0", "--out", out).exit_code == 1
    assert nothing_left(out)


def test_names_of_persons_are_refused_if_meta_lists_them(copied: Path, out: Path) -> None:
    DAMAGE["no-person-names"](copied)
    release(copied, out, version="1.0.0")
    with pytest.raises(NotValidError, match="no-person-names"):
        release(copied, out.with_name("other"), version="1.0.0", meta=_meta(copied))


def _meta(copied: Path) -> Path:
    meta = copied.parent / "meta"
    meta.mkdir()
    (meta / "vox1_meta.csv").write_text(
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10002\tAamir_Khan\tm\tx\tdev\n"
    )
    return meta


def test_an_unwritable_parent(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(source, "--version", "1.0.0", "--out", tmp_path / "file/out")
    assert result.exit_code == 2 and "file" in result.stderr and "Traceback" not in result.output
    if sys.platform == "linux":
        result = run(source, "--version", "1.0.0", "--out", "/proc/out")  # not even as root
        assert result.exit_code == 2 and "/proc/.out.lock" in result.stderr
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # as root
        pytest.skip("this account can write anywhere")
    result = run(source, "--version", "1.0.0", "--out", folder / "out")
    assert result.exit_code == 2 and "Permission denied" in result.stderr


KILLED = """
import os, signal, sys
from emovox.publishing import publish

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(publish, sys.argv[3], die)
publish.release(sys.argv[1], sys.argv[2], version="1.0.0")
"""


@pytest.mark.parametrize(
    "step",
    [
        "write_manifest",
        pytest.param("write_documents", marks=pytest.mark.slow),
        pytest.param("write_croissant", marks=pytest.mark.slow),
    ],
)
def test_a_killed_release_can_be_rerun(source: Path, out: Path, step: str) -> None:
    command = [sys.executable, "-c", KILLED, str(source), str(out), step]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    assert all(p.name.startswith(".") for p in out.parent.iterdir())
    release(source, out, version="1.0.0")
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_a_failed_release_leaves_nothing(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(publish, "write_manifest", fail)
    result = run(source, "--version", "1.0.0", "--out", out)
    assert result.exit_code == 1 and "No space left on device" in result.stderr
    assert nothing_left(out)


def test_an_invalid_release_is_not_kept(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(root: Path, manifest: Any) -> None:
        (root / schema.CROISSANT).write_text("{}")
        name = schema.table_file("frames", "train")
        (root / name).write_bytes((root / name).read_bytes()[:-1] + b"?")

    monkeypatch.setattr(publish, "write_croissant", spoil)
    with pytest.raises(NotValidError, match=f"{out}: not released: .*file-hashes"):
        release(source, out, version="1.0.0")
    assert nothing_left(out)


def test_a_second_release_to_the_same_folder_is_refused(source: Path, out: Path) -> None:
    out.parent.mkdir()
    with (
        FileLock(out.parent / f".{out.name}.lock"),
        pytest.raises(EmovoxError, match="another run is releasing"),
    ):
        release(source, out, version="1.0.0")


# Takedown


def test_rows_of_listed_identities_are_removed(
    source: Path, out: Path, list_of: Callable[..., Path]
) -> None:
    listed = list_of("id10001", "id99999")
    with pytest.raises(CheckError, match="1 of 2 hashes to take down match no identity"):
        release(source, out, version="2.0.0", takedown=listed)
    assert nothing_left(out)
    made = release(source, out, version="2.0.0", takedown=listed, allow_unknown=True)
    assert made.removed == {"identities": 1, "tracks": 3, "frames": 18, "dropped": 0}
    assert "1 of 2 listed identities had rows; removed 3 tracks, 18 frames" in made.summary()
    for table in ("frames", "tracks", "faces"):
        for split in ("train", "unheard_val"):
            name = schema.table_file(table, split)
            columns = "*" if table != "tracks" else "* exclude (row_offset)"
            sql = f"select {columns} from '{{}}' where not starts_with(track_id, 'id10001/')"
            before, after = (duckdb.sql(sql.format(r / name)).fetchall() for r in (source, out))
            assert before == after
            assert len(after) == pq.read_metadata(out / name).num_rows
    for folder in TABLES_AND_HDF5:  # heard_val has no rows left
        assert not any(
            p.name.split("-")[0].split(".")[0] == "heard_val" for p in (out / folder).iterdir()
        )
    offsets = duckdb.sql(
        f"select row_offset, n_frames from '{out}/tracks/train-*.parquet' order by track_id"
    ).fetchall()
    assert offsets == [(0, 6)]
    with h5py.File(out / "hdf5/train.h5") as file:
        frames = pq.read_table(out / schema.table_file("frames", "train"))
        expected = np.stack([frames[name].to_numpy() for name in schema.EIGHT.logits], axis=1)
        np.testing.assert_array_equal(file["frames/logits"][:], expected)
        assert file["tracks/track_id"].asstr()[:].tolist() == ["id10002/video0002/00001"]
        assert file["tracks/offset"][:].tolist() == [0]
    untouched = schema.table_file("frames", "unheard_val")
    assert (source / untouched).read_bytes() == (out / untouched).read_bytes()


def test_counts_card_and_hashes_match_the_remaining_rows(
    source: Path, out: Path, list_of: Callable[..., Path]
) -> None:
    release(source, out, version="2.0.0", takedown=list_of("id10001"))
    manifest = read(out, schema.MANIFEST)
    counts = {"tracks": 1, "frames": 6, "identities": 1}
    assert manifest["totals"] == {
        "tracks": 3,
        "frames": 18,
        "dropped": 1,
        "by_split": {
            "train": counts,
            "unheard_val": {"tracks": 2, "frames": 12, "identities": 1},
        },
    }
    card = (out / schema.CARD).read_text()
    assert "| train | 1 | 6 | 1 |" in card and "No track fell into heard_val" in card
    assert f"`{schema.TAKEDOWN}`" in card
    check_card(out)
    assert (out / schema.TAKEDOWN).read_text().splitlines()[1:] == [digest("id10001")]
    assert schema.TAKEDOWN in {f["path"] for f in manifest["files"]}
    before = {f["path"]: f for f in read(source, schema.MANIFEST)["files"]}
    for file in manifest["files"]:
        if file["path"].startswith(("frames/train", "tracks/train", "faces/train")):
            assert file["content_sha256"] != before[file["path"]]["content_sha256"]
    content = b"".join(files_of(out).values())
    assert b"id10001" not in content
    validation = validate(out, takedown=list_of("id10001"), strict=False)
    assert validation.valid
    assert "takedown" in {o.rule.name for o in validation.outcomes if o.status == "passed"}


def test_dropped_tracks_and_provenance_have_no_listed_ids(
    copied: Path, out: Path, list_of: Callable[..., Path]
) -> None:
    def add(rows: list[dict[str, Any]]) -> None:
        hidden = {"track_id": "images/7", "source": "mp4/id10003/x.mp4"}
        mentioned = {"track_id": "images/8", "message": "id10003/x.mp4 comes first"}
        rows += [rows[0] | hidden, rows[0] | mentioned, rows[0] | {"track_id": "images/9"}]

    edit(copied, "dropped", add)
    named = [{"track_id": f"{i}/x/00001", "file": None, "lists": None} for i in ("id10003", "id1")]
    edit_provenance(copied, lambda content: content.update(split_disagreements=named))
    edit_manifest(copied, lambda manifest: manifest["totals"].update(dropped=4))
    text = (copied / schema.CARD).read_text().replace("1 tracks gave", "4 tracks gave")
    (copied / schema.CARD).write_text(text)
    seal(copied)
    made = release(copied, out, version="2.0.0", takedown=list_of("id10003"))
    assert made.removed == {"identities": 1, "tracks": 2, "frames": 12, "dropped": 2}
    left = pq.read_table(out / schema.DROPPED_FILE)["track_id"].to_pylist()
    assert left == ["id10002/video0002/00002", "images/9"]
    assert read(out, schema.PROVENANCE)["split_disagreements"] == [named[1]]
    assert read(out, schema.PROVENANCE)["released_from"][0]["removed"] == made.removed
    assert read(out, schema.MANIFEST)["totals"]["dropped"] == 2
    assert b"id10003" not in b"".join(files_of(out).values())


def test_totals_are_remaining_plus_removed_rows(
    source: Path, out: Path, list_of: Callable[..., Path]
) -> None:
    before = read(source, schema.MANIFEST)["totals"]
    made = release(source, out, version="2.0.0", takedown=list_of("id10002"))
    after = made.manifest["totals"]
    assert made.removed["dropped"] == 1  # id10002/video0002/00002
    for key in ("tracks", "frames", "dropped"):
        assert before[key] == after[key] + made.removed[key]


def test_listed_identities_without_rows(
    source: Path, out: Path, list_of: Callable[..., Path]
) -> None:
    arguments = [source, "--version", "1.0.0", "--out", out, "--takedown", list_of("id7", "id8")]
    refused = run(*arguments)
    assert refused.exit_code == 1 and "--allow-unknown" in refused.stderr and not out.exists()
    result = run(*arguments, "--allow-unknown")
    assert result.exit_code == 0
    assert "takedown  0 of 2 listed identities had rows; removed 0 tracks" in result.stdout
    assert digest("id7") in (out / schema.TAKEDOWN).read_text()  # for later releases
    assert validate(out).valid


def test_a_hash_with_a_trailing_newline_does_not_release_the_person(
    source: Path, tmp_path: Path, out: Path
) -> None:
    """`echo id10001 | sha256sum` hashes the newline too."""
    path = tmp_path / "list.txt"
    path.write_text(hashlib.sha256(b"id10001\n").hexdigest() + "  -\n")
    with pytest.raises(CheckError, match="match no identity"):
        release(source, out, version="1.0.0", takedown=path)
    line = CliRunner().invoke(main, ["hash-identity", "id10001"]).stdout
    assert line == hashlib.sha256(b"id10001").hexdigest() + "\n"
    path.write_text(line)
    first = release(source, out, version="1.0.0", takedown=path)
    assert first.removed["identities"] == 1
    # A release made from it has the list already.
    again = release(out, tmp_path / "again", version="1.0.1", takedown=path)
    assert again.removed["identities"] == 0


def test_a_list_of_all_identities_is_refused(
    source: Path, out: Path, list_of: Callable[..., Path]
) -> None:
    everybody = list_of("id10001", "id10002", "id10003")
    with pytest.raises(CheckError, match="every identity is on a takedown list"):
        release(source, out, version="2.0.0", takedown=everybody)
    assert nothing_left(out)


def test_a_list_with_another_line_is_refused(source: Path, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "list.txt"
    for content in (b"id10001\n", b"\xff\xfe", b"0" * 63):
        path.write_bytes(content)
        result = run(source, "--version", "1.0.0", "--out", out, "--takedown", path)
        assert result.exit_code == 2 and "list.txt" in result.stderr
    assert nothing_left(out)


def test_lists_of_successive_releases_add_up(
    source: Path, tmp_path: Path, list_of: Callable[..., Path]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    release(source, first, version="2.0.0", takedown=list_of("id10001"))
    release(first, second, version="3.0.0", takedown=list_of("id10002"))
    listed = (second / schema.TAKEDOWN).read_text().splitlines()[1:]
    assert listed == sorted([digest("id10001"), digest("id10002")])
    assert {t.identity_id for t in emovox.load(second)} == {"id10003"}
    assert diff(first, second).bump.level == "major"
    said: list[str] = []
    low = release(
        first, tmp_path / "low", version="2.0.1", takedown=list_of("id10002"), say=said.append
    )
    assert diff(first, low.out).bump.at_least == "3.0.0"
    assert "2.0.1: tracks are removed; `emovox diff` asks for version 3.0.0" in said
    third = tmp_path / "third"
    release(second, third, version="3.0.1")
    assert (third / schema.TAKEDOWN).read_text() == (second / schema.TAKEDOWN).read_text()


def test_a_list_in_the_dataset_is_applied(copied: Path, out: Path) -> None:
    (copied / schema.TAKEDOWN).write_text(digest("id10001"))
    made = release(copied, out, version="1.0.0")
    assert made.removed["tracks"] == 3


def test_row_groups_are_full_after_a_takedown(
    tmp_path: Path, out: Path, list_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = [(f"id{i:05d}", "v", n, "train") for i in range(40) for n in range(4)]
    monkeypatch.setattr(schema, "ROW_GROUP_ROWS", 64)
    root = build(tmp_path / "many", spec, config={"splits": "a.csv"})
    removed = [f"id{i:05d}" for i in (0, 7, 8, 21, 39)]
    release(root, out, version="1.0.0", takedown=list_of(*removed))
    footer = pq.read_metadata(out / schema.table_file("frames", "train"))
    groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    assert set(groups[:-1]) == {64} and sum(groups) == 35 * 4 * 6
    ids = pq.read_table(out / schema.table_file("frames", "train"))["track_id"].to_pylist()
    assert {i.split("/")[0] for i in ids} == {s[0] for s in spec} - set(removed)
    sql = (
        f"select count(*) from '{out}/tracks/*.parquet' t join (select *, file_row_number as row "
        f"from read_parquet('{out}/frames/*.parquet', file_row_number=true)) f "
        "on f.row = t.row_offset and f.track_id = t.track_id"
    )
    assert duckdb.sql(sql).fetchall() == [(35 * 4,)]


# Upload


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A fake Hub in the place of `huggingface_hub.HfApi`."""
    hub_module = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    fake = FakeHub()
    monkeypatch.setattr(hub_module, "HfApi", lambda: fake)
    return fake


def push(source: Path, out: Path, *more: str, version: str = "1.0.0") -> Result:
    return run(source, "--version", version, "--out", out, "--push", "org/name", *more)


def http_error(status: int, text: str) -> Exception:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    error: Exception = hub_errors.HfHubHTTPError(text, response=response)
    return error


def test_push_uploads_and_tags(source: Path, out: Path, api: FakeHub) -> None:
    result = push(source, out)
    assert result.exit_code == 0
    line = "pushed    https://huggingface.co/datasets/org/name, tag 1.0.0"
    assert result.stdout.splitlines()[-1] == line
    assert api.private == {"org/name": True}
    assert api.tags["org/name"]["1.0.0"] == files_of(out) | {".gitattributes": b""}


def test_push_to_a_public_repository(source: Path, out: Path, api: FakeHub) -> None:
    assert push(source, out, "--public").exit_code == 0
    assert api.private == {"org/name": False}
    result = push(source, out.with_name("other"), version="1.0.1")
    assert result.exit_code == 2 and "is public; pass --public" in result.stderr
    assert push(source, out.with_name("other"), "--public", version="1.0.1").exit_code == 0


def test_a_second_push_of_a_version_is_refused(source: Path, out: Path, api: FakeHub) -> None:
    push(source, out)
    result = push(source, out.with_name("other"))
    assert result.exit_code == 2 and "org/name: tag 1.0.0 exists" in result.stderr
    assert not out.with_name("other").exists()


def test_a_later_version_replaces_the_files(
    source: Path, out: Path, api: FakeHub, list_of: Callable[..., Path]
) -> None:
    push(source, out)
    later = out.with_name("2.0.0")
    api.files["org/name"]["LICENSE"] = b"by hand"
    takedown = list_of("id10001")
    assert push(out, later, "--takedown", str(takedown), version="2.0.0").exit_code == 0
    others = {".gitattributes": b"", "LICENSE": b"by hand"}
    assert api.files["org/name"] == files_of(later) | others
    assert api.tags["org/name"].keys() == {"1.0.0", "2.0.0"}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("create_repo", lambda: OSError("connection reset")),
        ("upload_folder", lambda: http_error(503, "Service\nUnavailable")),
        ("upload_folder", lambda: hub_errors.HfHubHTTPError.__bases__[0]("no route")),
        ("create_tag", lambda: http_error(409, "Conflict")),
    ],
    ids=["create", "upload", "connection", "tag"],
)
def test_a_failed_push_can_be_rerun(
    source: Path, out: Path, api: FakeHub, call: str, error: Callable[[], Exception]
) -> None:
    api.failing[call] = error()
    result = push(source, out)
    assert result.exit_code == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith("emovox: error: org/name: ") and "rerun the same command" in last
    assert not api.tags.get("org/name")
    before = files_of(out)
    result = push(source, out)
    assert result.exit_code == 0 and "existed before" in result.stdout
    assert files_of(out) == before
    assert api.tags["org/name"]["1.0.0"] == before | {".gitattributes": b""}


def test_a_rerun_is_for_the_same_release_only(
    source: Path, copied: Path, out: Path, api: FakeHub, list_of: Callable[..., Path]
) -> None:
    release(source, out, version="1.0.0")
    edit_manifest(copied, lambda manifest: manifest.update(name="other"))
    assert push(copied, out).exit_code == 2
    assert push(source, out, version="1.0.1").exit_code == 2
    assert push(source, out, "--takedown", str(list_of("id10001"))).exit_code == 2
    (copied.parent / "own.toml").write_text('contact = "a@example.org"')
    assert push(source, out, "--card", str(copied.parent / "own.toml")).exit_code == 2
    name = out / schema.CARD
    name.chmod(0o644)
    name.write_text("changed")
    assert push(source, out).exit_code == 1
    assert not api.files


@pytest.mark.parametrize("name", ["name", "a/b/c", "", "/x", "a b/c", "../x", "https://hf.co/a/b"])
def test_names_of_another_form_than_org_name(name: str, api: FakeHub) -> None:
    with pytest.raises(ConfigError, match="is not ORG/NAME"):
        open_repository(name, "1.0.0", api=api)


def test_without_a_login_nothing_is_released(source: Path, out: Path, api: FakeHub) -> None:
    for error in (hub_errors.LocalTokenNotFoundError("no token"), http_error(401, "Invalid token")):
        api.failing["whoami"] = error
        result = push(source, out)
        assert result.exit_code == 3 and "hf auth login" in result.stderr
        assert nothing_left(out)


def test_a_missing_extra_is_one_line(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = push(source, out)
    assert result.exit_code == 2
    assert result.stderr.strip().endswith("pip install 'emovox[hf]'")
    assert len(result.stderr.splitlines()) == 1
    assert nothing_left(out)


def test_an_unreadable_file_of_the_release_is_not_a_network_error(
    source: Path, out: Path, api: FakeHub
) -> None:
    made = release(source, out, version="1.0.0")
    repository = open_repository("org/name", "1.0.0", api=api)
    api.failing["upload_folder"] = FileNotFoundError(2, "No such file", "frames")
    with pytest.raises(FileNotFoundError):
        repository.upload(str(made.out))
    api.failing["upload_folder"] = RuntimeError("xet gave up")
    with pytest.raises(NetworkError, match="xet gave up"):
        repository.upload(made.out)


def test_the_fake_has_the_parameters_of_the_hub() -> None:
    """Every method of the fake exists in the installed huggingface_hub."""
    import inspect

    HfApi = pytest.importorskip("huggingface_hub", reason="needs the extra hf").HfApi  # noqa: N806
    methods = {name: call for name, call in vars(FakeHub).items() if not name.startswith("_")}
    assert len(methods) == 7
    for name, method in methods.items():
        parameters = set(inspect.signature(method).parameters)
        assert parameters <= set(inspect.signature(getattr(HfApi, name)).parameters), name


def test_the_fixture_has_the_identities_of_these_tests() -> None:
    assert {entry[0] for entry in SPEC} == {"id10001", "id10002", "id10003"}
