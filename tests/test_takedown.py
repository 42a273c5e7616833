"""Takedown lists: their format, and the rows that readers do not see because of them."""

import hashlib
import pickle
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from validation_fixtures import DROPPED, SPEC, edit, edit_provenance, seal, write_valid

from emovox.cli import main
from emovox.dataset import schema
from emovox.dataset.reader import CONTAINERS, Dataset, load
from emovox.dataset.takedown import (
    format_list,
    hash_identity,
    listed_in,
    read_list,
    view_without,
)
from emovox.errors import ConfigError, InputError
from emovox.validation.outcomes import FAILED, Validation, validate


def hashed(*identities: str) -> str:
    return "".join(f"{hashlib.sha256(i.encode()).hexdigest()}\n" for i in identities)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid dataset: id10001 in train and heard_val, id10002 in train, id10003 unheard."""
    return write_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture
def dataset(valid: Path, tmp_path: Path) -> Path:
    """A copy for tests that change it."""
    return Path(shutil.copytree(valid, tmp_path / "dataset"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def list_of(tmp_path: Path) -> Any:
    def write(*identities: str) -> Path:
        path = tmp_path / "list.txt"
        path.write_text(hashed(*identities))
        return path

    return write


# The list


def test_hash_is_that_of_sha256sum() -> None:
    done = subprocess.run(
        ["sha256sum"], input="id10001", capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == hash_identity("id10001")
    assert hash_identity("Zoë") == hashlib.sha256("Zoë".encode()).hexdigest()


def test_comments_and_lines_of_sha256sum(tmp_path: Path) -> None:
    one, two = hash_identity("a"), hash_identity("b")
    path = tmp_path / "list.txt"
    path.write_bytes(f"\ufeff# why\r\n\r\n  {one.upper()}  # 3 May\r\n{two}  -\n".encode())
    assert read_list(path) == {one, two}
    path.write_text(format_list({two, one}))
    assert read_list(path) == {one, two}
    path.write_text("")
    assert read_list(path) == frozenset()


@pytest.mark.parametrize(
    "line", ["id10001", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + " id10001", "1 " + "0" * 64]
)
def test_a_line_without_a_hash_is_an_error_that_does_not_show_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"{hashed('a')}\n{line}\n")
    with pytest.raises(InputError, match=r"list\.txt: line 3 is not a SHA-256") as error:
        read_list(path)
    assert "id10001" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe0\x000\x00"])
def test_an_unreadable_list(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "list.txt"
    if content:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read"):
        read_list(path)


def test_paths_may_be_strings(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(hashed("a"))
    assert read_list(str(path)) == {hash_identity("a")}


@pytest.mark.parametrize(
    "text",
    [
        *("Jane Doe", "Jane Doe/video/00001", "mp4/Jane Doe/video/1.mp4", "Jane Doe.mp4"),
        *("no Jane", "'Jane' is not", "x: Jane: y", "a\\Jane\\b", "Jane."),
        *("videos/Jane.tar.mp4", "x/Jane_0001.mp4", "(in Jane:3)", "no face in Jane-2.mov"),
    ],
)
def test_ids_are_found_in_paths_and_messages(text: str) -> None:
    listed = {hash_identity("Jane Doe"), hash_identity("Jane")}
    assert listed_in(text, listed)
    assert not listed_in(text, {hash_identity("Jan")})
    assert not listed_in(text, ())


@pytest.mark.parametrize("identity", ["id10001", "anna-maria_de.la", "Zoë Ω", "a+b"])
def test_any_id_is_found_at_word_boundaries(identity: str) -> None:
    listed = {hash_identity(identity)}
    for text in (f"x/{identity}_0001.mp4", f"(in {identity}:3)", f"{identity}, {identity}"):
        assert listed_in(text, listed) == listed
    assert not listed_in(f"x/{identity}1.mp4", listed)
    assert not listed_in(f"y{identity[1:]}", listed)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4)), min_size=1, max_size=12),
    st.sets(st.sampled_from("abcde")),
    st.integers(1, 5),
)
def test_a_view_selects_the_rows_of_a_filter(
    given_tracks: list[tuple[str, int]], hidden: set[str], part: int
) -> None:
    rows = sorted(given_tracks)
    counts = np.array([n for _, n in rows])
    offsets = np.concatenate([[0], counts.cumsum()[:-1]])
    tracks = pa.table(
        {
            "identity_id": [who for who, _ in rows],
            "n_frames": pa.array(counts, pa.int32()),
            "row_offset": pa.array(offsets, pa.int64()),
        }
    )
    values = [(who, i) for i, (who, n) in enumerate(rows) for _ in range(n)]
    view = view_without(tracks, len(values), {hash_identity(who) for who in hidden})
    if not hidden & {who for who, _ in rows}:
        assert view is None
        return
    assert view is not None
    expected = [value for value in values if value[0] not in hidden]
    frames = pa.table({"value": list(range(len(values)))})
    parts = [frames.slice(i, part) for i in range(0, len(frames), part)]
    found = [values[i] for t in view.select("frames", parts) for i in t["value"].to_pylist()]
    assert found == expected
    assert view.num_hidden_frames == len(values) - len(expected)
    pieces = [tracks.slice(i, part) for i in range(0, len(tracks), part)]
    left = [row for t in view.select("tracks", pieces) for row in t.to_pylist()]
    assert [row["identity_id"] for row in left] == [w for w, _ in rows if w not in hidden]
    ends = np.cumsum([row["n_frames"] for row in left])
    assert [row["row_offset"] for row in left] == [0, *ends][: len(left)]
    assert [
        values[i] for s, e in zip(view.starts, view.ends, strict=True) for i in range(s, e)
    ] == expected


# Reading


def seen(dataset: Dataset) -> dict[str, tuple[Any, ...]]:
    return {
        t.track_id: (t.identity_id, t.split, t.logits.tolist(), t.frame_index.tolist())
        for t in dataset
    }


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("gone", ["id10001", "id10002"])
def test_listed_identities_are_hidden_everywhere(
    valid: Path, list_of: Any, container: str, gone: str
) -> None:
    whole, dataset = load(valid, container), load(valid, container, takedown=list_of(gone))
    expected = {t: rest for t, rest in seen(whole).items() if rest[0] != gone}
    assert seen(dataset) == expected and 0 < len(dataset) == len(expected) < len(whole)
    assert dataset.splits == tuple(
        s for s in schema.SPLITS if s in {e[1] for e in expected.values()}
    )
    assert tuple(dataset.tracks) == tuple(dataset.frames) == dataset.splits
    for split in dataset.splits:
        sql = f"select * from '{valid / schema.table_file('frames', split)}'"
        frames = duckdb.sql(f"{sql} where not starts_with(track_id, '{gone}/')").to_arrow_table()
        assert dataset.frames[split].schema.equals(dataset.columns.frames)
        assert dataset.frames[split].to_pylist() == frames.to_pylist()
        tracks = dataset.tracks[split]
        assert tracks.schema.equals(dataset.columns.tracks)
        logits, index = dataset.to_numpy(split)
        assert len(logits) == len(index) == len(frames)
        assert not logits.flags.writeable and not index.flags.writeable
        for row in tracks.to_pylist():
            rows = slice(row["row_offset"], row["row_offset"] + row["n_frames"])
            assert logits[rows].tolist() == expected[row["track_id"]][2]
            assert index[rows].tolist() == expected[row["track_id"]][3]
        assert gone not in tracks["identity_id"].to_pylist()
    totals = f"{len(expected)} tracks, {6 * len(expected)} frames, {', '.join(dataset.splits)}>"
    assert repr(dataset).endswith(totals)


def test_listed_identities_are_hidden_in_pandas(valid: Path, list_of: Any) -> None:
    pytest.importorskip("pandas")
    whole, dataset = load(valid), load(valid, takedown=list_of("id10001"))
    assert "id10001" in set(whole.to_pandas("tracks")["identity_id"])
    assert "id10001" not in set(dataset.to_pandas("tracks")["identity_id"])
    for split in dataset.splits:
        assert len(dataset.to_pandas("frames", split)) == len(dataset.frames[split])


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_hidden_track_is_unknown(valid: Path, list_of: Any, container: str) -> None:
    dataset = load(valid, container, takedown=list_of("id10001"))
    hidden, shown = "id10001/video0001/00001", "id10002/video0002/00001"
    assert hidden not in dataset and shown in dataset
    for ask in (
        *(dataset.logits, dataset.frame_index, dataset.times, dataset.target),
        dataset.__getitem__,
    ):
        with pytest.raises(KeyError, match=f"track '{hidden}' not found"):
            ask(hidden)  # type: ignore[operator]
        ask(shown)  # type: ignore[operator]
    np.testing.assert_array_equal(dataset.target(shown), load(valid).logits(shown).max(axis=0))
    with pytest.raises(
        ConfigError, match="split 'heard_val' not found; pass one of train, unheard_val"
    ):
        dataset.to_numpy("heard_val")


def test_a_list_in_the_folder_is_always_applied(dataset: Path, list_of: Any) -> None:
    (dataset / schema.TAKEDOWN).write_text(hashed("id10001"))
    assert {t.identity_id for t in load(dataset)} == {"id10002", "id10003"}
    assert {t.identity_id for t in load(dataset, takedown=list_of("id10003"))} == {"id10002"}
    assert not len(load(dataset, takedown=list_of("id10002", "id10003")))
    (dataset / schema.TAKEDOWN).write_text("id10001\n")
    with pytest.raises(InputError, match="line 1 is not a SHA-256"):
        load(dataset)


def test_unknown_identities_and_empty_lists_change_nothing(valid: Path, list_of: Any) -> None:
    for identities in ((), ("id99999",)):
        dataset = load(valid, takedown=list_of(*identities))
        assert seen(dataset) == seen(load(valid)) and repr(dataset) == repr(load(valid))


def track_ids(dataset: Dataset) -> list[str]:
    return [track.track_id for track in dataset]


def test_pickling_keeps_the_list(valid: Path, list_of: Any) -> None:
    path = list_of("id10001")
    dataset = load(valid, "hdf5", takedown=path)
    path.unlink()
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301  bytes made in this line
    assert seen(copy) == seen(dataset) and copy.takedown == dataset.takedown
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
        assert workers.submit(track_ids, dataset).result() == track_ids(dataset)


def test_without_a_list_no_table_is_read(valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(pq, "read_table", fail)
    assert len(load(valid)) == len(SPEC)


def test_a_damaged_table_with_a_list_is_an_error(dataset: Path, list_of: Any) -> None:
    (dataset / schema.table_file("tracks", "train")).write_bytes(b"no")
    with pytest.raises(InputError, match="tracks of train"):
        load(dataset, takedown=list_of("id10001"))


# Validation


def broken(validation: Validation) -> dict[str, list[str]]:
    return {
        o.rule.name: [e.text for e in o.breach.examples]
        for o in validation.outcomes
        if o.status == FAILED
    }


def test_a_list_may_be_added_to_a_dataset_without_listed_rows(dataset: Path) -> None:
    (dataset / schema.TAKEDOWN).write_text(hashed("id99999"))
    assert validate(dataset).valid
    (dataset / schema.TAKEDOWN).write_text(hashed("id10003"))
    found = broken(validate(dataset))
    assert found == {"takedown": [f"id10003, {hash_identity('id10003')}"]}
    (dataset / schema.TAKEDOWN).write_text("id10003\n")
    assert "line 1 is not a SHA-256" in broken(validate(dataset))["takedown"][0]


def test_listed_ids_in_documents_are_found(dataset: Path, list_of: Any) -> None:
    def rename(rows: list[dict[str, Any]]) -> None:
        rows[0] |= {"track_id": "images/7", "source": "mp4/id10009/x.mp4"}

    edit(dataset, "dropped", rename)
    named = {"track_id": "id10009/x/00001", "file": "train", "lists": None}
    edit_provenance(dataset, lambda content: content.update(split_disagreements=[named]))
    assert validate(dataset).valid
    found = broken(validate(dataset, takedown=list_of("id10009")))
    assert found == {"takedown": ["images/7", "id10009/x/00001"]}


def test_validate_fails_on_a_list_with_another_line(valid: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("A. Person\n")
    result = CliRunner().invoke(
        main, ["validate", str(valid), "--takedown", str(tmp_path / "list.txt")]
    )
    assert result.exit_code == 2 and "line 1 is not a SHA-256" in result.output
    assert "Person" not in result.output


def test_the_fixture_is_valid_and_has_one_dropped_track(dataset: Path) -> None:
    assert [d.track_id for d in DROPPED] == ["id10002/video0002/00002"]
    seal(dataset)
    assert validate(dataset).valid
