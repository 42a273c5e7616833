"""The audio of a track in every known tree."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import emovox
from emovox.corpus import sound_files
from emovox.corpus.layouts import read_corpus
from emovox.corpus.sound_files import PREFERRED, AudioTree, Sound, audio_path
from emovox.corpus.tracks import Corpus
from emovox.errors import InputError

TRACK = "id10001/Y8hIVOBuels/00001"
NAMES = {"id10001": "A.J._Buckley", "id10003": "Robert_Down_Jr.", "id10004": "Ann_Lee"}
META = "VoxCeleb1 ID\tVGGFace1 ID\n" + "".join(f"{i}\t{name}\n" for i, name in NAMES.items())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no cached trees."""
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    sound_files._tree.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    return write_meta(tmp_path / "meta")


def write_meta(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vox1_meta.csv").write_text(META)
    return folder


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every folder that is listed to find a file of a track."""
    places: list[Path] = []
    scandir = os.scandir

    def look(folder: Path) -> Iterator[os.DirEntry[str]]:
        places.append(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", look)
    return places


# Names

BETWEEN = ["", "wav/", "aac/", "mp4/", "voxceleb1_wav/"]


@pytest.mark.parametrize("ending", [".wav", ".flac", ".m4a", ".mp4"])
@pytest.mark.parametrize("part", ["", "dev/", "test/"])
def test_identities(tmp_path: Path, part: str, ending: str) -> None:
    for i, between in enumerate(BETWEEN):
        root = tmp_path / str(i)
        path = put(root / f"{part}{between}id10001/Y8hIVOBuels/00001{ending}")
        put(root / f"{part}{between}id10001/Y8hIVOBuels/00002{ending}")
        put(root / f"{part}{between}id10001/other/00001{ending}")
        put(root / f"{part}{between}id10002/Y8hIVOBuels/00001{ending}")
        assert audio_path(root, TRACK) == path


@pytest.mark.parametrize("ending", [".wav", ".flac", ".m4a", ".mp4"])
@pytest.mark.parametrize("folder", ["", "train/", "val/", "test/"])
def test_persons(tmp_path: Path, meta: Path, folder: str, ending: str) -> None:
    for i, between in enumerate([*BETWEEN, "dev/", "dev/wav/"]):
        root = tmp_path / str(i)
        path = put(root / f"{between}A.J._Buckley/{folder}Y8hIVOBuels_0000001{ending}")
        put(root / f"{between}A.J._Buckley/{folder}Y8hIVOBuels_0000011{ending}")
        put(root / f"{between}Ann_Lee/{folder}Y8hIVOBuels_0000001{ending}")
        assert audio_path(root, TRACK, meta) == path


@pytest.mark.parametrize("folder", ["Robert_Down_Jr.", "Robert_Down_Jr"])
def test_a_name_that_ends_in_a_dot(root: Path, meta: Path, folder: str) -> None:
    path = put(root / f"voxceleb1_wav/{folder}/a_b_0000123.wav")
    assert audio_path(root, "id10003/a_b/00123", meta) == path


@pytest.mark.parametrize(
    ("track_id", "name"),
    [
        ("id10004/-_-/00001", "-_-_0000001"),
        ("id10004/_x/1", "_x_0000001"),
        ("id10004/a/123456", "a_0123456"),
        ("id10004/a{stem}/00001", "a{stem}_0000001"),
        ("id10004/a.b/00001", "a.b_0000001"),
    ],
)
def test_odd_videos_and_numbers(root: Path, meta: Path, track_id: str, name: str) -> None:
    path = put(root / f"Ann_Lee/{name}.wav")
    assert audio_path(root, track_id, meta) == path


def test_numbers_with_and_without_leading_zeros(root: Path) -> None:
    path = put(root / "id10001/v/00007.wav")
    for number in ("7", "007", "00007", "0000007"):
        assert audio_path(root, f"id10001/v/{number}") == path
    long = put(root / "id10001/v/123456.wav")
    sound_files._tree.cache_clear()
    assert audio_path(root, "id10001/v/123456") == long


def test_paths_may_be_strings(root: Path, meta: Path) -> None:
    path = put(root / "Ann_Lee/a_0000001.wav")
    found = emovox.audio_path(str(root), "id10004/a/00001", str(meta))
    assert found == path and isinstance(found, Path)


# Names of persons


def test_names_from_the_audio_folder(root: Path) -> None:
    path = put(write_meta(root) / "Ann_Lee/a_0000001.wav")
    assert audio_path(root, "id10004/a/00001") == path


def test_downloaded_names(root: Path, cache: Path) -> None:
    write_meta(cache / "splits")
    path = put(root / "Ann_Lee/a_0000001.wav")
    assert audio_path(root, "id10004/a/00001") == path


def test_names_downloaded_after_a_failure(root: Path, cache: Path) -> None:
    """The message tells what is missing; after the download the same call works."""
    path = put(root / "Ann_Lee/a_0000001.wav")
    with pytest.raises(InputError, match=r"a tree with names of persons needs vox1_meta\.csv"):
        audio_path(root, "id10004/a/00001")
    write_meta(cache / "splits")
    assert audio_path(root, "id10004/a/00001") == path


def test_meta_is_preferred(root: Path, meta: Path, cache: Path) -> None:
    for folder in (root, cache / "splits"):
        text = (write_meta(folder) / "vox1_meta.csv").read_text()
        (folder / "vox1_meta.csv").write_text(text.replace("Ann_Lee", "Lee_Ann"))
    path, other = put(root / "Ann_Lee/a_0000001.wav"), put(root / "Lee_Ann/a_0000001.wav")
    assert audio_path(root, "id10004/a/00001", meta) == path
    assert audio_path(root, "id10004/a/00001") == other


def test_another_table_is_an_error(root: Path) -> None:
    (root / "vox1_meta.csv").write_text("name,id\n")
    with pytest.raises(InputError, match=r"missing columns"):
        audio_path(root, TRACK)


# Preference


def test_order_of_endings(root: Path) -> None:
    assert PREFERRED == (".wav", ".flac", ".m4a")
    paths = [put(root / f"id10001/v/00001{ending}") for ending in (*PREFERRED, ".mp3", ".mp4")]
    for path in paths:
        sound_files._tree.cache_clear()
        assert audio_path(root, "id10001/v/00001") == path
        path.unlink()


def test_order_of_folders(root: Path, meta: Path) -> None:
    track = "id10004/v/00001"
    near = put(root / "id10004/v/00001.mp4")
    person = put(root / "Ann_Lee/v_0000001.mp4")
    below = put(root / "wav/id10004/v/00001.wav")
    for path in (near, person, below):
        sound_files._tree.cache_clear()
        assert audio_path(root, track, meta) == path
        path.unlink()


def test_layout_folder_uses_the_sound_of_the_video(root: Path) -> None:
    names = ["talk.mp4", "ann/talk.MOV", "ann/2019/may/walk.webm", "ann/a+b.mkv", "ben/x/00007.mp4"]
    for name in names:
        put(root / name)
    tracks = read_corpus("folder", root).tracks
    assert sorted(track.source for track in tracks) == sorted(names)
    for track in tracks:
        assert audio_path(root, track.track_id) == root / track.source
    assert audio_path(root, "ann/talk/00001", missing_ok=True) is None


def test_every_file_that_a_layout_takes_is_found(root: Path) -> None:
    """Numbers without zeros, capitals, other containers, folders one deep, names with blanks."""
    names = [
        "ann/talks/3.mp4",
        "ann/talks/00004.mov",
        "bob/talks/00005.MP4",
        "bob/talks/day one.mov",
    ]
    names += ["bob/a+b/c.MTS", "bob/a/b+c d.webm", "x+y/1/2/3.avi", "7/7/007.3gp", "mp4/wav.mkv"]
    names += ["bob/12/3456789012.mp4", "é/é.mp4", "lone file.MPG", "test/dev/1.mov", "a/b/0.vob"]
    for name in names:
        put(root / name)
    corpus = read_corpus("folder", root)
    assert sorted(t.source for t in corpus.tracks) == sorted(names)
    for track in corpus.tracks:
        assert audio_path(root, track.track_id) == root / track.source, track.track_id
    for name in ("mp4/id00001/vidA/1.mp4", "dev/mp4/id1/v/00002.MP4", "test/mp4/id2/v/3.mov"):
        put(root / "vox2" / name)
    tracks = read_corpus("voxceleb2", root / "vox2").tracks
    assert len(tracks) == 3
    for track in tracks:
        assert audio_path(root / "vox2", track.track_id) == root / "vox2" / track.source


PART = st.sampled_from(["a", "b", "a+b", "+", "a+", "1", "01", "0", "c d", "1.5"])
ENDING = st.sampled_from([".mp4", ".MOV", ".mts"])


@given(st.lists(st.tuples(st.lists(PART, min_size=1, max_size=4), ENDING), max_size=12))
def test_the_search_is_the_inverse_of_the_layout_folder(files: list[tuple[list[str], str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for parts, ending in files:
            put(Path(folder, *parts[:-1], parts[-1] + ending))
        corpus = Corpus(Path(folder)) if not files else read_corpus("folder", folder)
        tree = AudioTree(Path(folder))
        for track in corpus.tracks:
            found = tree.find(track.track_id)
            assert found == Path(folder, track.source), (track.track_id, files)
        taken = {track.track_id for track in corpus.tracks}
        for missing in {"a/b/00000", "a/a+b/00000", "a/b/00001", "a+b/a+b/00000"} - taken:
            assert tree.find(missing) is None, (missing, files)


def test_names_that_are_too_long_are_missing(root: Path) -> None:
    put(root / "ann" / "x" / f"{'a' * 200}.mp4")
    (put(root / "ann" / ("b" * 150) / ("c" * 150) / "d.mp4"))
    tracks = read_corpus("folder", root).tracks
    assert max(len(track.key.video_id) for track in tracks) > 255
    for track in tracks:
        assert audio_path(root, track.track_id) == root / track.source
    assert audio_path(root, f"ann/{'d' * 300}/00001", missing_ok=True) is None
    assert AudioTree(root).locate("ann/d/00001", "e" * 300, 0, 1) is None


# The source of a track in a dataset


def test_a_part_of_the_source(root: Path) -> None:
    talk = put(root / "talks/day one.MOV")
    tree = AudioTree(root)
    found = tree.locate("ann/talk/00002", "talks/day one.MOV", 2500, 7000)
    assert found == Sound(talk, 2.5, 7.0)
    assert tree.locate("ann/talk/00002", "talks/gone.MOV", 2500, 7000) is None
    assert tree.locate("ann/talk/00002") is None
    folder = put(root / "Ann/1.6/v/1/01.jpg").parent
    assert tree.locate("ann/v/00001", folder.relative_to(root).as_posix(), 0, None) is None


def test_sound_files_of_a_track_are_preferred_to_its_source(root: Path) -> None:
    video = put(root / "video/v.mp4")
    second = ("id10001/v/00002", "video/v.mp4", 500, 900)
    assert AudioTree(root).locate(*second) == Sound(video, 0.5, 0.9)
    beside = put(root / "video/v.wav")  # the sound of the whole source
    assert AudioTree(root).locate(*second) == Sound(beside, 0.5, 0.9)
    own = put(root / "wav/id10001/v/00002.wav")  # of VoxCeleb1: the utterance alone
    assert AudioTree(root).locate(*second) == Sound(own)
    assert AudioTree(root).locate("id10001/v/00003", "video/v.mp4", 900, 950) == Sound(
        beside, 0.9, 0.95
    )


def test_sound_beside_another_source_is_not_that_of_the_track(root: Path) -> None:
    """Files 1 and 2 are recordings; the tracks 1 and 2 are parts of the first."""
    put(root / "ann/talk/2.wav")
    first = put(root / "ann/talk/1.mp4")
    assert AudioTree(root).locate("ann/talk/00002", "ann/talk/1.mp4", 5000, 8000) == Sound(
        first, 5.0, 8.0
    )


def test_a_mirrored_tree_of_sound(root: Path) -> None:
    talk = put(root / "talks/ann.flac")
    assert AudioTree(root).locate("ann/a/00001", "talks/ann.mp4", 0, 4000) == Sound(talk, 0.0, 4.0)


def test_a_source_with_an_id_in_place_of_a_name(root: Path, meta: Path) -> None:
    path = put(root / "Ann_Lee/talk.mp4")
    found = AudioTree(root, meta).locate("id10004/talk/00001", "id10004/talk.mp4", 1000, 2000)
    assert found == Sound(path, 1.0, 2.0)


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "../a.mp4", "a/../../b.mp4", "..", "", "a\0.mp4"]
)
def test_a_source_never_leaves_the_root(root: Path, source: str) -> None:
    put(root.parent / "a.mp4")
    with pytest.raises(InputError, match="not a path below the corpus"):
        AudioTree(root).locate("ann/a/00001", source, 0, 1000)


def test_links_in_the_corpus_are_followed(root: Path, tmp_path: Path) -> None:
    """As the layouts do: a corpus is often a folder of links to another disk."""
    put(tmp_path / "disk/ann.mp4")
    (root / "talks").symlink_to(tmp_path / "disk")
    found = AudioTree(root).locate("ann/a/00001", "talks/ann.mp4", 0, 1000)
    assert found == Sound(root / "talks/ann.mp4", 0.0, 1.0)


@dataclass
class FakeDataset:
    place: tuple[str | None, int | None, int | None]

    def source(self, track_id: str) -> tuple[str | None, int | None, int | None]:
        return self.place


def test_track_audio_is_the_part_of_the_source(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    put(root / "talk.mp4")
    put(root / "ann/other/00001.wav")
    calls: list[tuple[str, float | None, float | None]] = []

    def read(path: Path, start: float | None, end: float | None) -> str:
        calls.append((path.name, start, end))
        return "samples"

    monkeypatch.setattr("emovox.media.audio.read_audio", read)
    part: Any = FakeDataset(("talk.mp4", 2500, 7000))
    assert emovox.track_audio(part, "ann/talk/00001", root) == "samples"
    whole: Any = FakeDataset((None, None, None))
    emovox.track_audio(whole, "ann/other/00001", str(root))
    assert calls == [("talk.mp4", 2.5, 7.0), ("00001.wav", 0.0, None)]
    with pytest.raises(InputError, match="no audio of ann/gone/00001"):
        emovox.track_audio(whole, "ann/gone/00001", root)


def test_a_folder_is_not_a_file(root: Path) -> None:
    (root / "id10001/v/00001.wav").mkdir(parents=True)
    path = put(root / "id10001/v/00001.m4a")
    assert audio_path(root, "id10001/v/00001") == path


# Number of lookups


def test_only_existing_folders_are_searched(root: Path, looks: list[Path]) -> None:
    path = put(root / "test/voxceleb1_wav/id10001/v/00001.mp4")
    assert audio_path(root, "id10001/v/00001") == path
    assert len(looks) == len(set(looks)) == 4, "root, test, test/voxceleb1_wav and its video"


def test_a_folder_is_listed_once(root: Path, looks: list[Path]) -> None:
    paths = [put(root / f"id10001/v/{number:05d}.wav") for number in range(1, 20)]
    for number, path in enumerate(paths, start=1):
        assert audio_path(root, f"id10001/v/{number}") == path
    assert looks == [root / "id10001", root / "id10001/v"]


def test_results_do_not_depend_on_earlier_calls(root: Path, meta: Path) -> None:
    """A wav is preferred to an m4a, and wav/ to aac/, after any number of m4a."""
    other = put(root / "aac/id10001/v/00002.m4a")
    put(root / "aac/id10001/v/00001.m4a")
    put(root / "wav/id10001/v/00001.m4a")
    first = put(root / "wav/id10001/v/00001.wav")
    third = put(root / "dev/Ann_Lee/test/v_0000001.flac")
    for _ in range(3):
        assert audio_path(root, "id10001/v/00002", meta) == other
        assert audio_path(root, "id10001/v/00001", meta) == first
        assert audio_path(root, "id10004/v/00001", meta) == third


def test_missing_ok_returns_none(root: Path) -> None:
    path = put(root / "id10001/v/00001.wav")
    assert audio_path(root, "id10001/v/00002", missing_ok=True) is None
    assert audio_path(root, "id10001/v/00001", missing_ok=True) == path
    with pytest.raises(InputError, match="no such folder"):
        audio_path(root / "absent", "id10001/v/00001", missing_ok=True)
    with pytest.raises(InputError, match="no such folder"):
        audio_path(root, "id10001/v/00001", root / "absent", missing_ok=True)


def test_roots_do_not_mix(tmp_path: Path) -> None:
    one = put(tmp_path / "one/test/mp4/id10001/v/00001.mp4")
    two = put(tmp_path / "two/id10001/v/00001.wav")
    for _ in range(2):
        assert audio_path(tmp_path / "one", "id10001/v/00001") == one
        assert audio_path(tmp_path / "two", "id10001/v/00001") == two


def test_a_file_created_later_is_found(root: Path) -> None:
    with pytest.raises(InputError):
        audio_path(root, TRACK)
    path = put(root / "wav" / f"{TRACK}.wav")
    assert audio_path(root, TRACK) == path
    path.unlink()
    with pytest.raises(InputError):
        audio_path(root, TRACK)


# Errors


def test_the_message_lists_the_searched_folders(root: Path, meta: Path) -> None:
    put(root / "wav/id10004/v/00002.wav")
    with pytest.raises(InputError) as error:
        audio_path(root, "id10004/v/00001", meta)
    assert str(error.value) == (
        f"{root}: no audio of id10004/v/00001, in this folder or in wav, aac, mp4, voxceleb1_wav, "
        "dev, test"
    )
    assert error.value.exit_code == 2


def test_the_message_mentions_vox1_meta(root: Path) -> None:
    with pytest.raises(InputError) as error:
        audio_path(root, TRACK)
    assert str(error.value) == (
        f"{root}: no audio of {TRACK}, in this folder or in wav, aac, mp4, voxceleb1_wav, dev, "
        "test; a tree with names of persons needs vox1_meta.csv"
    )


@pytest.mark.parametrize(
    "track_id",
    [
        "",
        "id10001",
        "id10001/v",
        "id10001/v/x",
        "id10001/v/-1",
        "id10001/v/1.wav",
        "id10001/v/1\n",
        "id10001/v/w/00001",
        "/id10001/v/00001",
        "id10001//00001",
        "id10001/v/",
        "../v/00001",
        "id10001/../00001",
        "../../00001",
        "..//00001",
    ],
)
def test_invalid_track_ids(root: Path, track_id: str) -> None:
    put(root / "id10001/v/00001.wav")
    put(root.parent / "00001.wav")
    put(root.parent / "v/00001.wav")
    put(root / "00001.wav")
    with pytest.raises(InputError) as error:
        audio_path(root / ".", track_id)
    assert str(error.value) == f"{track_id!r} is not a track_id: <identity>/<video>/<number>"


def test_dots_in_a_name_do_not_change_the_path(root: Path) -> None:
    path = put(root / "id10001/a..b/00001.wav")
    assert audio_path(root, "id10001/a..b/00001") == path


def test_no_such_root(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=r"corpus: no such folder$"):
            audio_path(tmp_path / "corpus", TRACK)
    (tmp_path / "corpus").touch()
    with pytest.raises(InputError, match=r"corpus: no such folder$"):
        audio_path(tmp_path / "corpus", TRACK)
    (tmp_path / "corpus").unlink()
    path = put(tmp_path / "corpus" / f"{TRACK}.wav")
    assert audio_path(tmp_path / "corpus", TRACK) == path


@pytest.mark.real
def test_real_names(tmp_path: Path, real_data: Path) -> None:
    """Every voice of the published list is found, also without the final dots of names."""
    folder = real_data / "voxceleb-meta"
    lines = (folder / "vox1_meta.csv").read_text().splitlines()[1:]
    persons = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    assert len(persons) == 1251 and sum(name.endswith(".") for name in persons.values()) == 5
    for root, spell in ((tmp_path / "a", str), (tmp_path / "b", lambda name: name.rstrip("."))):
        for identity, name in persons.items():
            path = put(root / f"voxceleb1_wav/{spell(name)}/v_0000001.wav")
            assert audio_path(root, f"{identity}/v/00001", folder) == path
