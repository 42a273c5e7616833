from collections import Counter
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emovox.corpus.splits import assign, audit, auto_split, fraction
from emovox.corpus.tracks import Corpus, FaceSource, Track
from emovox.corpus.voxceleb import read_official_split
from emovox.dataset.schema import SPLITS
from emovox.errors import CheckError, InputError
from emovox.ids import TrackKey


def track(identity: str, number: int = 1, split: str | None = None, video: str = "video") -> Track:
    key = TrackKey(identity, video, number)
    return Track(key, f"{identity}.mp4", FaceSource.VOXCELEB2, split=split)


def corpus_of(*tracks: Track, root: Path = Path("root")) -> Corpus:
    return Corpus(root, list(tracks)).finish()


IDENTITIES = st.text(st.characters(exclude_categories=["C"], exclude_characters="/"), min_size=1)
VIDEOS = st.sampled_from("abcdef")  # few, so that identities have several
TRACKS = st.lists(
    st.builds(track, IDENTITIES | st.sampled_from(["ann", "bob"]), st.integers(0, 9), video=VIDEOS),
    unique_by=lambda t: t.track_id,
    max_size=30,
)


# auto


def test_fraction_is_the_blake2b_hash() -> None:
    digest = blake2b(b"id10001", digest_size=8).hexdigest()
    assert fraction("id10001") == int(digest, 16) / 16**16
    # Must never change: the splits of every dataset depend on it.
    assert [fraction(name) for name in ("id10001", "id10002")] == pytest.approx(
        [0.4646070933329427, 0.7629798959653556], abs=1e-12
    )


@given(TRACKS, TRACKS, st.floats(0, 1))
def test_new_identities_and_tracks_of_known_videos_move_nothing(
    old: list[Track], new: list[Track], heard: float
) -> None:
    identities = {t.key.identity_id for t in old}
    videos = {(t.key.identity_id, t.key.video_id) for t in old}
    new = [
        t
        for t in new
        if t.key.identity_id not in identities or (t.key.identity_id, t.key.video_id) in videos
    ]
    before = assign(corpus_of(*old), "auto", heard=heard)
    after = assign(corpus_of(*new, *old), "auto", heard=heard)
    assert before == {track_id: after[track_id] for track_id in before}


@given(TRACKS, st.floats(0, 1), st.floats(0, 1))
def test_auto_by_its_definition(tracks: list[Track], unheard: float, heard: float) -> None:
    """Compare with the rule written naively; no video is split, and every heard identity trains."""
    assigned = auto_split((t.key for t in tracks), unheard, heard)
    by_video: dict[tuple[str, str], set[str]] = {}
    for t in tracks:
        video = (t.key.identity_id, t.key.video_id)
        by_video.setdefault(video, set()).add(assigned[t.track_id])
    assert all(len(found) == 1 for found in by_video.values())
    for identity in {t.key.identity_id for t in tracks}:
        found = {video: next(iter(s)) for (i, video), s in by_video.items() if i == identity}
        if fraction(identity) < unheard:
            expected = dict.fromkeys(found, "unheard_val")
        else:
            drawn = [video for video in found if fraction(f"{identity}/{video}") < heard]
            drawn = [] if len(drawn) == len(found) else drawn
            expected = {v: "heard_val" if v in drawn else "train" for v in found}
            assert "train" in found.values()
        assert found == expected


@given(TRACKS, st.floats(0, 1), st.floats(0, 1))
def test_auto_never_leaks_and_keeps_every_track(
    tracks: list[Track], unheard: float, heard: float
) -> None:
    corpus = corpus_of(*tracks)
    assigned = assign(corpus, "auto", unheard=unheard, heard=heard)
    assert set(assigned) == {t.track_id for t in tracks}
    assert corpus.dropped == []
    sides: dict[str, set[bool]] = {}
    for t in tracks:
        sides.setdefault(t.key.identity_id, set()).add(assigned[t.track_id] == "unheard_val")
    assert all(len(side) == 1 for side in sides.values())


def test_auto_fractions_are_close_to_the_options() -> None:
    tracks = [track(f"speaker{i}", video=video) for i in range(1500) for video in "abcd"]
    counts = Counter(auto_split(t.key for t in tracks).values())
    assert counts["unheard_val"] / 6000 == pytest.approx(0.2, abs=0.04)
    assert counts["heard_val"] / (6000 - counts["unheard_val"]) == pytest.approx(0.04, abs=0.01)
    counts = Counter(auto_split((t.key for t in tracks), 0.5, 0.5).values())
    assert counts["unheard_val"] / 6000 == pytest.approx(0.5, abs=0.04)
    # One identity in 16 would keep no training video, and keeps all.
    assert counts["heard_val"] / 6000 == pytest.approx(0.25 - 0.5 / 16, abs=0.04)


def test_auto_with_fractions_zero_and_one() -> None:
    keys = [track(f"speaker{i}", video=video).key for i in range(50) for video in "ab"]
    assert set(auto_split(keys, 1.0, 0.0).values()) == {"unheard_val"}
    assert set(auto_split(keys, 0.0, 1.0).values()) == {"train"}
    assert set(auto_split(keys, 0.0, 0.0).values()) == {"train"}


def test_an_empty_split_is_noted() -> None:
    def notes(*tracks: Track, unheard: float = 0.2, heard: float = 0.04) -> list[str]:
        corpus = corpus_of(*tracks)
        assign(corpus, None, unheard=unheard, heard=heard)
        return corpus.notes

    one_video_each = [track(f"speaker{i}", n) for i in range(30) for n in range(20)]
    change = "no track was drawn; add videos, or change --unheard-fraction or --heard-fraction"
    several = "no track was drawn; heard_val takes videos of identities that have several"
    assert notes(*one_video_each) == [f"heard_val: {several}"]
    assert notes(*one_video_each, heard=0.0) == []
    assert notes(*one_video_each, unheard=0.999, heard=0.0) == [f"train: {change}"]
    assert notes(track("id10001")) == [f"heard_val, unheard_val: {change}"]  # its fraction is 0.46
    many = [track(f"speaker{i}", video=f"v{n}") for i in range(30) for n in range(20)]
    assert notes(*many) == []


# official

META = "VoxCeleb1 ID\tVGGFace1 ID\nid10001\tAnna\nid10002\tCarl\nid10003\tZoe\n"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "vox1_meta.csv").write_text(META)
    (tmp_path / "identity_splits.txt").write_text("Anna 1\nCarl 2\nZoe 4\n")
    (tmp_path / "veriflist_test_random_seenheard.txt").write_text(
        "id,voice-path\n1,Anna/video_0000002.wav\n2,Anna/video_0000002.wav\n"
    )
    return tmp_path


def test_official(lists: Path) -> None:
    tracks = [track("id10001", 1), track("id10001", 2), track("id10002", 2), track("id10003", 2)]
    expected = {
        "id10001/video/00001": "train",
        "id10001/video/00002": "heard_val",
        "id10002/video/00002": "train",
        "id10003/video/00002": "unheard_val",
    }
    corpus = corpus_of(*tracks, track("id20000"))
    assert assign(corpus, "official", meta=lists) == expected
    assert [t.track_id for t in corpus.tracks] == list(expected)
    (dropped,) = corpus.dropped
    assert (dropped.track_id, dropped.stage, dropped.error) == (
        "id20000/video/00001",
        "split",
        "NoSplit",
    )
    assert "published lists" in dropped.message
    # Without --meta the lists are read from the corpus.
    assert assign(corpus_of(*tracks, root=lists), "official") == expected


def test_official_without_the_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vox1_meta\.csv"):
        assign(corpus_of(track("id10001"), root=tmp_path), "official")


def test_official_is_the_public_name_of_the_reader(lists: Path) -> None:
    official = read_official_split(lists)
    assert official.unheard_identities == {"id10003"}
    assert official.heard_tracks == {"id10001/video/00002"}


# A file


def write_split(path: Path, key: str, given: dict[str, str]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({key: list(given), "split": list(given.values())}), path)
    else:
        lines = [f"{name},{split}" for name, split in given.items()]
        path.write_text("\n".join([f"{key},split", *lines, ""]))
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_file_by_identity(tmp_path: Path, ending: str) -> None:
    given = {"anna": "unheard_val", "carl": "train", "absent": "heard_val"}
    path = write_split(tmp_path / f"s.{ending}", "identity_id", given)
    corpus = corpus_of(track("anna", 1), track("anna", 2), track("carl"), track("zoe"))
    assert assign(corpus, str(path)) == {
        "anna/video/00001": "unheard_val",
        "anna/video/00002": "unheard_val",
        "carl/video/00001": "train",
    }
    (dropped,) = corpus.dropped
    assert (dropped.track_id, dropped.error) == ("zoe/video/00001", "NoSplit")
    assert dropped.message == f"s.{ending} does not name it"
    assert "zoe/video/00001" not in [t.track_id for t in corpus.tracks]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_file_by_track(tmp_path: Path, ending: str) -> None:
    given = {
        "anna/video/00001": "train",
        "anna/video/00002": "heard_val",
        "carl/video/00001": "unheard_val",
    }
    path = write_split(tmp_path / f"s.{ending}", "track_id", given)
    corpus = corpus_of(track("anna", 1), track("anna", 2), track("anna", 3), track("carl"))
    assert assign(corpus, str(path)) == given
    assert [dropped.track_id for dropped in corpus.dropped] == ["anna/video/00003"]


def test_numbers_with_and_without_leading_zeros(tmp_path: Path) -> None:
    path = write_split(tmp_path / "s.csv", "track_id", {"anna/video/1": "train"})
    assert assign(corpus_of(track("anna", 1)), str(path)) == {"anna/video/00001": "train"}
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"identity_id": [7], "split": ["train"]}), path)
    assert assign(corpus_of(track("7")), str(path)) == {"7/video/00001": "train"}


def test_file_by_track_is_preferred_to_identity(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("identity_id,track_id,split\nanna,anna/video/00001,heard_val\n")
    corpus = corpus_of(track("anna", 1), track("anna", 2))
    assert assign(corpus, str(path)) == {"anna/video/00001": "heard_val"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("identity_id,split\nanna,test\n", "row 2: split 'test' is not one of train, heard_val"),
        ("identity_id,split\nanna,train\ncarl,\n", "row 3: split None is not one of"),
        ("identity_id,split\nanna,train\nanna,heard_val\n", "row 3: anna is in two splits"),
        ("name,split\nanna,train\n", "a column track_id or identity_id"),
        ("identity_id,split\n", "needs a column track_id or identity_id"),
        ("identity_id\nanna\n", "missing columns split"),
    ],
)
def test_a_malformed_file(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        assign(corpus_of(track("anna")), str(path))


def test_a_word_that_is_neither_a_split_nor_a_file() -> None:
    with pytest.raises(InputError, match="offical: no such file"):
        assign(corpus_of(track("anna")), "offical")


# The table's own column


def test_the_column_of_the_table_is_the_default() -> None:
    corpus = corpus_of(
        track("anna", 1, "train"), track("anna", 2, "heard_val"), track("carl", 1, "unheard_val"),
        track("zoe", 1, "testing"), track("zoe", 2),
    )  # fmt: skip
    assert assign(corpus, None) == {
        "anna/video/00001": "train",
        "anna/video/00002": "heard_val",
        "carl/video/00001": "unheard_val",
    }
    messages = {dropped.track_id: dropped.message for dropped in corpus.dropped}
    assert set(messages) == {"zoe/video/00001", "zoe/video/00002"}
    assert "'testing'" in messages["zoe/video/00001"]


def test_auto_is_the_default_without_a_column() -> None:
    tracks = [track(f"speaker{i}") for i in range(40)]
    assigned = assign(corpus_of(*tracks), None)
    assert assigned == auto_split(t.key for t in tracks)
    assert set(assigned.values()) <= set(SPLITS)


def test_auto_overrides_the_column() -> None:
    tracks = [track(f"speaker{i}", 1, "heard_val") for i in range(40)]
    assert assign(corpus_of(*tracks), "auto") == auto_split(t.key for t in tracks)


# The audit


@pytest.mark.parametrize("other", ["train", "heard_val"])
def test_a_leak_is_an_error_that_lists_the_identity(other: str) -> None:
    corpus = corpus_of(track("anna", 1, other), track("anna", 2, "unheard_val"), track("carl", 1))
    with pytest.raises(CheckError, match=r"1 identities are in unheard_val .*: anna$") as caught:
        assign(corpus, None)
    assert "carl" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_many_leaks_are_shortened() -> None:
    tracks = [track(f"p{i}", n) for i in range(7) for n in (1, 2)]
    assigned = {t.track_id: "train" if t.key.track_num == 1 else "unheard_val" for t in tracks}
    with pytest.raises(CheckError, match=r"7 identities .*: p0, p1, p2, p3, p4, \.\.\.$"):
        audit([t.key for t in tracks], assigned)


def test_heard_and_train_tracks_of_an_identity_are_no_leak() -> None:
    tracks = [track("anna", 1), track("anna", 2), track("carl")]
    audit([t.key for t in tracks], dict(zip(
        [t.track_id for t in tracks], ["train", "heard_val", "unheard_val"], strict=True
    )))  # fmt: skip


def test_dropped_tracks_cause_no_leak(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("track_id,split\nanna/video/00001,train\nanna/video/00099,unheard_val\n")
    assert assign(corpus_of(track("anna", 1)), str(path)) == {"anna/video/00001": "train"}


def test_a_misspelt_name_of_a_split_is_an_error() -> None:
    corpus = corpus_of(track("a"), track("b"))
    with pytest.raises(InputError, match="--splits accepts auto, official or a file"):
        assign(corpus, "offical")
