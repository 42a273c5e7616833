"""Selections of tracks, compared with rows filtered by pandas, and the terminal's view of both."""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from validation_fixtures import SPEC, build, write_valid

import emovox
from emovox.cli import main
from emovox.dataset import schema
from emovox.dataset.takedown import format_list, hash_identity
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError

MANY = [(f"id1{k % 5:04d}", f"video{k % 7:04d}", k, schema.SPLITS[k % 2 * 2]) for k in range(40)]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_valid(tmp_path_factory.mktemp("valid"))


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("video_id = 'video0002'", ["id10002/video0002/00001"]),
        ("split = 'unheard_val' and track_num > 1", ["id10003/video0005/00012"]),
        (
            "shots = 1 and identity_id <> 'id10001'",
            [f"{i}/{v}/{n:05d}" for i, v, n, _ in SPEC[2:3] + SPEC[4:]],
        ),
        ("nationality = 'Ireland' and gender = 'm'", [f"{i}/{v}/{n:05d}" for i, v, n, _ in SPEC]),
    ],
)
def test_a_condition_selects_tracks(
    valid: Path, tmp_path: Path, where: str, chosen: list[str]
) -> None:
    selected = emovox.select(valid, tmp_path / "out", where=where, meta=valid.parent / "meta")
    assert sorted(track.track_id for track in selected) == sorted(chosen)
    found = emovox.validate(tmp_path / "out", meta=valid.parent / "meta")
    assert found.valid, found.summary()


def test_rows_of_every_table_are_those_of_the_source(valid: Path, tmp_path: Path) -> None:
    selected = emovox.select(valid, tmp_path / "out", where="track_num = 1")
    wanted = {track.track_id for track in selected}
    assert len(wanted) == 4
    for table in schema.TABLES:
        for split in selected.splits:
            name = schema.table_file(table, split)
            before = pq.read_table(valid / name).to_pandas()
            after = pq.read_table(tmp_path / "out" / name).to_pandas()
            before = before[before["track_id"].isin(wanted)].reset_index(drop=True)
            columns = [c for c in before.columns if c not in ("row_offset", "embedding")]
            assert after[columns].equals(before[columns])
            if table == "embeddings":
                assert np.array_equal(np.stack(after["embedding"]), np.stack(before["embedding"]))
    for split in selected.splits:
        counts = selected.tracks[split]["n_frames"].to_numpy()
        offsets = selected.tracks[split]["row_offset"].to_numpy()
        assert np.array_equal(offsets, counts.cumsum() - counts)


def test_provenance_and_card_name_the_parent(valid: Path, tmp_path: Path) -> None:
    where = "label = 'neutral'"
    emovox.select(valid, tmp_path / "one", where=where)
    emovox.select(tmp_path / "one", tmp_path / "two", cap=1, seed=3)
    history = json.loads((tmp_path / "two/provenance.json").read_text())["selected_from"]
    assert [(h["version"], h["where"], h["cap"], h["seed"]) for h in history] == [
        ("1.0.0", where, None, None),
        ("1.0.0", None, 1, 3),
    ]
    digest = hashlib.sha256((valid / schema.MANIFEST).read_bytes()).hexdigest()
    assert history[0]["manifest_sha256"] == digest
    assert "were selected from" in (tmp_path / "two/README.md").read_text()
    assert emovox.validate(tmp_path / "two").valid


def test_cap_is_per_label_and_a_larger_one_adds(tmp_path: Path) -> None:
    build(tmp_path / "many", MANY)
    chosen = []
    for cap in (1, 3, 100):
        selected = emovox.select(tmp_path / "many", tmp_path / f"cap{cap}", cap=cap)
        labels = [track.label for track in selected]
        every = [track.label for track in emovox.load(tmp_path / "many")]
        assert all(labels.count(label) == min(cap, every.count(label)) for label in set(every))
        chosen.append({track.track_id for track in selected})
    assert chosen[0] < chosen[1] < chosen[2]
    again = emovox.select(tmp_path / "many", tmp_path / "again", cap=3)
    other = emovox.select(tmp_path / "many", tmp_path / "other", cap=3, seed=1)
    assert {t.track_id for t in again} == chosen[1] != {t.track_id for t in other}


def test_hidden_identities_are_not_selected(valid: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(valid, tmp_path / "source"))
    (source / schema.TAKEDOWN).write_text(format_list({hash_identity("id10001")}))
    selected = emovox.select(source, tmp_path / "out", where="true")
    assert {track.identity_id for track in selected} == {"id10002", "id10003"}
    assert "id10001" not in (tmp_path / "out/provenance.json").read_text()
    assert (tmp_path / "out" / schema.TAKEDOWN).read_text() == (
        source / schema.TAKEDOWN
    ).read_text()
    assert emovox.validate(tmp_path / "out").valid


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "nothing to select by"),
        ({"cap": 0}, ConfigError, "cap 0: not above 0"),
        ({"where": "nope > 1"}, ConfigError, '"nope" not found.*; columns: track_id, .*shots'),
        ({"where": "1 ="}, ConfigError, "--where"),
        (
            {"where": "label in (select content from read_text('/etc/passwd'))"},
            ConfigError,
            "disabled",
        ),
        (
            {"where": "true); copy tracks to 'leak.csv'; select (1"},
            ConfigError,
            "more than one statement",
        ),
        ({"where": "label = 'none'"}, CheckError, "no track fits"),
        ({"where": "true", "meta": "nowhere"}, InputError, "vox1_meta.csv"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(
    valid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    error: type[EmovoxError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        emovox.select(valid, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_folders_are_not_overwritten(valid: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(InputError):
        emovox.select(valid, tmp_path / "out", where="true")
    with pytest.raises(ConfigError, match="inside the dataset"):
        emovox.select(valid, valid / "part", where="true")


def test_a_damaged_source_is_one_line(valid: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(valid, tmp_path / "source"))
    (source / schema.table_file("faces", "train")).write_bytes(b"PAR1 no table")
    with pytest.raises(InputError, match=r"faces.*cannot read"):
        emovox.select(source, tmp_path / "out", where="track_num = 1")
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_visible_tracks(valid: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(valid, tmp_path / "source"))
    hidden = {hash_identity(identity) for identity, *_ in SPEC}
    (source / schema.TAKEDOWN).write_text(format_list(hidden))
    with pytest.raises(CheckError, match="no track fits"):
        emovox.select(source, tmp_path / "out", cap=1)
    assert "0 tracks, 0 frames" in emovox.show(source).summary()


def test_a_full_disk_is_not_a_damaged_source(
    valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("emovox.publishing.selection.write_part", full)
    with pytest.raises(OSError, match="No space") as caught:
        emovox.select(valid, tmp_path / "out", cap=1)
    assert caught.value.errno == errno.ENOSPC and not (tmp_path / "out").exists()


# The terminal's view


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


def test_totals_of_a_dataset(valid: Path) -> None:
    text = run("show", valid)
    assert text.startswith("small 1.0.0: 6 tracks, 36 frames every 240 ms, labelled by fake\n")
    assert [line.split()[:4] for line in text.splitlines()[2:6]] == [
        ["split", "tracks", "frames", "identities"],
        ["train", "3", "18", "2"],
        ["heard_val", "1", "6", "1"],
        ["unheard_val", "2", "12", "1"],
    ]
    assert "dropped   1 x open: E\n          id10002/video0002/00002.txt: why" in text
    facts = json.loads(run("show", valid, "--format", "json"))
    assert facts["dropped"] == {"open: E": 1} and facts["values"] == ["valence", "arousal"]
    labels = [row[emotion] for row in facts["rows"] for emotion in facts["emotions"]]
    assert sum(labels) == 6


def test_rows_of_a_track(valid: Path) -> None:
    text = run("show", valid, "id10001/video0001/2")  # any number of digits
    assert "6 of 7 grid points, 1.5 s, from video/video0001.mp4" in text.splitlines()[0]
    rows = json.loads(run("show", valid, "id10001/video0001/00002", "--format", "json"))["rows"]
    track = emovox.load(valid)["id10001/video0001/00002"]
    assert [row["seconds"] for row in rows] == pytest.approx(track.times.tolist())
    shares = np.array([[row[f"probability_{e}"] for e in emovox.EMOTIONS] for row in rows])
    expected = np.exp(track.logits - np.log(np.exp(track.logits).sum(axis=1, keepdims=True)))
    assert np.allclose(shares, expected, atol=1e-6)
    line = text.splitlines()[3]
    bar = line.split("s", 1)[1][2:10].rstrip()  # of neutral
    assert abs(bar.count("\u2588") / 8 - shares[0, 0]) <= 1 / 16


def test_an_unknown_track_is_one_line_with_similar_ones(valid: Path) -> None:
    with pytest.raises(InputError, match=r"no track 'id10003'; .*: id10003/video0004/00001, id1"):
        emovox.show(valid, "id10003")
    with pytest.raises(InputError, match="no track 'id7'; those that begin so: none"):
        emovox.show(valid, "id7")


def test_hidden_identities_are_not_shown(valid: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(valid, tmp_path / "source"))
    (source / schema.TAKEDOWN).write_text(format_list({hash_identity("id10002")}))
    assert "id10002" not in run("show", source) and "2 tracks" not in run("show", source)
    with pytest.raises(InputError, match=r"no track 'id10002'; .*: none"):
        emovox.show(source, "id10002")


def test_damaged_tables_are_one_line(valid: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(valid, tmp_path / "source"))
    (source / schema.DROPPED_FILE).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"dropped\.parquet: cannot read") as caught:
        emovox.show(source)
    assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"track_id": ["a/b/00001"]}), source / schema.DROPPED_FILE)
    with pytest.raises(InputError, match=r"dropped\.parquet: cannot read"):
        emovox.show(source)
    every = {name: ["x"] for name in (*schema.DROPPED.names, "more")}
    pq.write_table(pa.table(every), source / schema.DROPPED_FILE)
    assert "dropped   1 x x: x" in emovox.show(source).summary()
