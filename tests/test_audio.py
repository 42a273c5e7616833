"""The audio of a track in every known tree."""

from collections.abc import Callable
from pathlib import Path

import pytest

import emovox
from emovox.corpus import sound_files
from emovox.corpus.layouts import read_corpus
from emovox.corpus.sound_files import ENDINGS, audio_path
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
    """Every path at which a file of a track is searched for."""
    places: list[Path] = []
    is_file: Callable[[Path], bool] = Path.is_file

    def look(path: Path) -> bool:
        if path.suffix in ENDINGS:
            places.append(path)
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", look)
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
    paths = [put(root / f"id10001/v/00001{ending}") for ending in ENDINGS]
    assert [path.suffix for path in paths] == [".wav", ".flac", ".m4a", ".mp4"]
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


def test_a_folder_is_not_a_file(root: Path) -> None:
    (root / "id10001/v/00001.wav").mkdir(parents=True)
    path = put(root / "id10001/v/00001.m4a")
    assert audio_path(root, "id10001/v/00001") == path


# Number of lookups


def test_only_existing_folders_are_searched(root: Path, looks: list[Path]) -> None:
    path = put(root / "test/voxceleb1_wav/id10001/v/00001.mp4")
    assert audio_path(root, "id10001/v/00001") == path
    assert len(looks) == len(set(looks)) == 3 * 4, "root, test, test/voxceleb1_wav"


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


def test_the_message_lists_the_searched_names(root: Path, meta: Path) -> None:
    put(root / "wav/id10004/v/00002.wav")
    with pytest.raises(InputError) as error:
        audio_path(root, "id10004/v/00001", meta)
    stems = ["id10004/v/00001", "Ann_Lee/v_0000001", "Ann_Lee/train/v_0000001"]
    stems += ["Ann_Lee/val/v_0000001", "Ann_Lee/test/v_0000001"]
    assert str(error.value) == (
        f"{root}: no audio of id10004/v/00001; searched for {' and '.join(stems)} with "
        ".wav, .flac, .m4a, .mp4, in this folder and wav, aac, mp4, voxceleb1_wav, dev, test"
    )
    assert error.value.exit_code == 2


def test_the_message_mentions_vox1_meta(root: Path) -> None:
    with pytest.raises(InputError) as error:
        audio_path(root, TRACK)
    assert str(error.value) == (
        f"{root}: no audio of {TRACK}; searched for {TRACK} with .wav, .flac, .m4a, .mp4, in this "
        "folder and wav, aac, mp4, voxceleb1_wav, dev, test; a tree with names of persons needs "
        "vox1_meta.csv"
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
