"""Anonymised releases: random ids that stay the same, and nothing of the original ones."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from validation_fixtures import SPEC, edit, edit_provenance, seal, write_valid

import emovox
from emovox.cli import main
from emovox.dataset import schema
from emovox.dataset.card import check_card
from emovox.dataset.takedown import format_list, hash_identity
from emovox.errors import CheckError, ConfigError, InputError
from emovox.publishing.publish import release
from emovox.validation.outcomes import validate

ORIGINALS = {part for identity, video, _, _ in SPEC for part in (identity, video)}
UNPARSED = "secretfolder/odd name"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A valid dataset with dropped tracks of a known, an unknown and no identity."""
    root = write_valid(tmp_path / "valid")

    def drop(rows: list[dict[str, Any]]) -> None:
        message = "id10001 in video0001 has no face"
        rows.append(rows[0] | {"track_id": "id77777/video7777/00001", "message": message})
        rows.append(rows[0] | {"track_id": UNPARSED, "source": f"{UNPARSED}.mp4"})

    edit(root, "dropped", drop)
    manifest = json.loads((root / schema.MANIFEST).read_text())
    manifest["totals"]["dropped"] = 3
    (root / schema.MANIFEST).write_text(json.dumps(manifest))
    card = (root / schema.CARD).read_text()
    (root / schema.CARD).write_text(card.replace("1 tracks gave no rows", "3 tracks gave no rows"))
    entry = {"track_id": "id10001/video0001/00001", "file": "train", "lists": None}
    edit_provenance(root, lambda content: content.update(split_disagreements=[entry]))
    assert validate(root).valid
    return root


@pytest.fixture
def make(source: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(version: str, **options: Any) -> Path:
        options = {"anonymise": tmp_path / "map.csv"} | options
        return release(source, tmp_path / "releases" / version, version=version, **options).out

    return run


def map_of(tmp_path: Path) -> dict[tuple[str, str], str]:
    with (tmp_path / "map.csv").open(newline="") as file:
        return {(row["kind"], row["original"]): row["id"] for row in csv.DictReader(file)}


def everything(root: Path) -> bytes:
    """All bytes of a folder, with the values of its tables and HDF5 files as text."""
    content = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    content += [path.relative_to(root).as_posix().encode() for path in root.rglob("*")]
    for path in root.rglob("*.parquet"):
        table = pq.read_table(path)
        content.append(repr((table.to_pylist(), table.schema.metadata)).encode())
        content.append(repr(pq.read_metadata(path).to_dict()).encode())
    for path in root.rglob("*.h5"):
        with h5py.File(path) as file:
            arrays: list[Any] = []
            file.visititems(lambda _, item, a=arrays: a.append(item))
            values = [item[()].tolist() for item in arrays if isinstance(item, h5py.Dataset)]
            content.append(repr((values, dict(file.attrs))).encode())
    return b"\n".join(content)


def test_no_original_id_is_left_anywhere(make: Callable[..., Path], source: Path) -> None:
    before, after = everything(source), everything(make("1.0.0"))
    for original in (*ORIGINALS, "id77777", "video7777", "secretfolder", "odd name", "no face"):
        assert original.encode() in before, "the search can find it"
        assert original.encode() not in after


def test_rows_follow_their_new_ids(make: Callable[..., Path], source: Path, tmp_path: Path) -> None:
    out = make("1.0.0")
    new = map_of(tmp_path)
    assert validate(out, strict=True).valid
    check_card(out)
    for split in schema.SPLITS:
        tables = ("tracks", "frames", "faces", "embeddings")
        old_ids = {}
        for table in tables:
            old, rows = (
                pq.read_table(root / schema.table_file(table, split)).to_pylist()
                for root in (source, out)
            )
            for row in old:
                identity, video, number = row["track_id"].split("/")
                key = new["identity", identity], new["video", f"{identity}/{video}"]
                old_ids[row["track_id"]] = "/".join((*key, number))
                row["track_id"] = old_ids[row["track_id"]]
                if table == "tracks":
                    row |= {"identity_id": key[0], "video_id": key[1], "source": None}
                    row.pop("row_offset")
            for row in rows if table == "tracks" else []:
                row.pop("row_offset")
            index = "track_num" if table == "tracks" else "frame_index"
            old.sort(key=lambda row: (row["track_id"], row[index]))
            assert rows == old
        with h5py.File(out / schema.hdf5_file(split)) as file:
            names = file["tracks/track_id"].asstr()[:].tolist()
        assert names == sorted(old_ids.values())
    assert json.loads((out / schema.PROVENANCE).read_text())["anonymised"] is True
    assert "under random ids" in (out / schema.CROISSANT).read_text()


def test_dropped_tracks(make: Callable[..., Path], tmp_path: Path) -> None:
    out = make("1.0.0")
    new = map_of(tmp_path)
    rows = pq.read_table(out / schema.DROPPED_FILE).to_pylist()
    assert {row["track_id"].split("/")[0] for row in rows} == {
        *(new["identity", identity] for identity in ("id10002", "id77777")),
        new["track", UNPARSED],
    }
    assert {(row["source"], row["message"], row["stage"]) for row in rows} == {("", "", "open")}


def test_ids_stay_the_same_and_new_ones_are_added(
    make: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    make("1.0.0", takedown=_list(tmp_path, "id10002"))
    first = map_of(tmp_path)
    assert ("identity", "id10002") not in first
    assert (tmp_path / "map.csv").stat().st_mode & 0o777 == 0o600
    second = make("1.1.0")
    later = map_of(tmp_path)
    assert later.items() > first.items() and ("identity", "id10002") in later
    assert all(re.fullmatch("a[a-z2-7]{10}", name) for name in later.values())
    assert len({*later.values()}) == len(later)
    lines: list[str] = []
    place = tmp_path / "other"
    other = release(source, place, anonymise=tmp_path / "other.csv", say=lines.append).out
    assert "0 ids of earlier releases, " in lines[-2], "a mistyped map shows"
    ids = [{track.identity_id for track in emovox.load(root)} for root in (second, other)]
    assert len(ids[0]) == len(ids[1]) == 3 and not ids[0] & ids[1]


def test_a_takedown_lists_the_new_ids_of_earlier_releases(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    first = make("1.0.0")
    new = map_of(tmp_path)["identity", "id10002"]
    out = make("2.0.0", takedown=_list(tmp_path, "id10002"))
    text = (out / schema.TAKEDOWN).read_text()
    assert hash_identity(new) in text and hash_identity("id10002") not in text
    assert new.encode() not in everything(out)
    hidden = emovox.load(first, takedown=out / schema.TAKEDOWN)  # by readers of the earlier one
    assert new not in {track.identity_id for track in hidden}
    # Of a release, by the new id
    third = release(first, tmp_path / "third", version="3.0.0", takedown=_list(tmp_path, new)).out
    assert new.encode() not in everything(third) and validate(third).valid
    assert json.loads((third / schema.PROVENANCE).read_text())["anonymised"] is True
    again = make("2.0.0", takedown=_list(tmp_path, "id10002"), resume=True)
    assert again == out


def _list(folder: Path, *identities: str) -> Path:
    (folder / "list.txt").write_text(format_list(map(hash_identity, identities)))
    return folder / "list.txt"


def test_splits_without_tracks_and_other_containers(source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source / "hdf5")
    seal(source)
    out = release(
        source, tmp_path / "o", takedown=_list(tmp_path, "id10003"), anonymise=tmp_path / "m.csv"
    ).out
    assert validate(out).valid and not (out / schema.table_file("frames", "unheard_val")).exists()


@pytest.mark.parametrize("place", ["valid/dataset/map.csv", "releases/1.0.0/map.csv"])
def test_a_map_inside_is_refused(make: Callable[..., Path], tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="inside the dataset or the release; pass another file"):
        make("1.0.0", anonymise=tmp_path / place)
    assert not (tmp_path / "releases").exists()


@pytest.mark.parametrize(
    "content",
    [
        *("", "kind,original\n", "kind,original,id\nidentity,a\n", '"', "\udcff"),
        "kind,original,id\nperson,a,a2222222222\n",
        "kind,original,id\nidentity,a,a1\n",
        "kind,original,id\nidentity,a,a2222222222\nidentity,b,a2222222222\n",
        "kind,original,id\nidentity,a,a2222222222\nidentity,a,a3333333333\n",
    ],
)
def test_a_damaged_map(make: Callable[..., Path], tmp_path: Path, content: str) -> None:
    (tmp_path / "map.csv").write_text(content, errors="surrogateescape")
    with pytest.raises(InputError, match=r"map.csv: (cannot read as|not) a map"):
        make("1.0.0")


def test_ids_in_documents_are_found(
    make: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    (source / schema.CARD_FIELDS).write_text('description = "Without id10002."')
    with pytest.raises(CheckError, match="contains the original id id10002; remove it"):
        make("1.0.0")
    assert not (tmp_path / "releases/1.0.0").exists()
    selected = emovox.select(source, tmp_path / "chosen", where="identity_id <> 'id10003'").path
    (selected / schema.CARD_FIELDS).unlink()
    seal(selected)
    out = release(selected, tmp_path / "o", anonymise=tmp_path / "m.csv").out
    assert b"id10003" not in everything(out)


def test_refusals_of_other_releases(make: Callable[..., Path], tmp_path: Path) -> None:
    out = make("1.0.0")
    with pytest.raises(ConfigError, match="is anonymised already; leave out --anonymise"):
        release(out, tmp_path / "o", version="2.0.0", anonymise=tmp_path / "map.csv")
    make("1.1.0", anonymise=None)
    with pytest.raises(InputError, match="is not anonymised; pass another --out"):
        make("1.1.0", resume=True)
    with pytest.raises(FileNotFoundError):
        make("1.2.0", anonymise=tmp_path / "none/map.csv")


def test_the_command(source: Path, tmp_path: Path) -> None:
    arguments = ["release", source, "--version", "1.0.0", "--out", tmp_path / "o"]
    arguments += ["--anonymise", tmp_path / "map.csv", "--meta", source.parent / "meta"]
    run = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert run.exit_code == 0, run.output
    assert not any(name in run.output for name in ORIGINALS)
