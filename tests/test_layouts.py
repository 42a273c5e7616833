import os
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emovox.corpus.layouts import LAYOUTS, read_corpus
from emovox.corpus.splits import assign
from emovox.corpus.tracks import MEDIA_ENDINGS, Corpus, FaceSource, Track
from emovox.corpus.voxceleb import read_boxes, read_names
from emovox.errors import ConfigError, InputError, TrackError
from emovox.ids import TrackKey, printable

VOX1_META = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n" + "".join(
    f"{identity}\t{name}\tf\tIreland\tdev\n"
    for identity, name in [("id10001", "Anna_Secret"), ("id10002", "Carl_Hidden_Jr.")]
)
NAMES = ("Anna", "Secret", "Carl", "Hidden", "Nobody", "Known")


def touch(root: Path, *names: str) -> None:
    """Create empty files; a listing opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def ids(corpus: Corpus) -> list[str]:
    return [track.track_id for track in corpus.tracks]


def reasons(corpus: Corpus) -> dict[str, str]:
    return {dropped.source: dropped.error for dropped in corpus.dropped}


def everything_shown(corpus: Corpus) -> str:
    """Return everything of a listing that is printed or released."""
    shown = [repr(dropped) for dropped in corpus.dropped]
    return "\n".join([*ids(corpus), *shown, *corpus.notes])


# All layouts


def test_an_unknown_layout_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="voxceleb2, voxceleb1, dense-frames, folder, table"):
        read_corpus("voxceleb3", tmp_path)


@pytest.mark.parametrize("layout", ["voxceleb2", "voxceleb1", "dense-frames", "folder"])
def test_a_missing_root(tmp_path: Path, layout: str) -> None:
    with pytest.raises(InputError, match="gone: no such folder"):
        read_corpus(layout, tmp_path / "gone")
    touch(tmp_path, "file")
    with pytest.raises(InputError, match="file: no such folder"):
        read_corpus(layout, tmp_path / "file")


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("voxceleb2", "mp4/<id>/<video>/<n>.mp4"),
        ("voxceleb1", "video/<video id>.<ext>"),
        ("dense-frames", "<name>/1.6/<video>/<track>/<nn>.jpg"),
        ("folder", "any tree of video files"),
    ],
)
def test_an_empty_root_reports_the_expected_files(
    tmp_path: Path, layout: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_corpus(layout, tmp_path)
    assert expected in str(caught.value)
    touch(tmp_path, "notes.pdf", ".hidden/id1/video/00001.mp4")
    with pytest.raises(InputError):
        read_corpus(layout, tmp_path)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "table"])
def test_a_table_requires_the_layout_table(tmp_path: Path, layout: str) -> None:
    with pytest.raises(ConfigError, match="requires --table FILE"):
        read_corpus(layout, tmp_path, table=tmp_path / "tracks.csv")


def test_the_layout_table_needs_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="requires --table FILE"):
        read_corpus("table", tmp_path)


# voxceleb2


def test_voxceleb2(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id2/b/00002.mp4", "mp4/id1/a/00010.mp4", "mp4/id1/a/2.MP4")
    touch(tmp_path, "aac/id1/a/00010.m4a", "mp4/id1/a/00003.txt", "mp4/.id1/a/00009.mp4")
    touch(tmp_path, "mp4/id1/a/.00011.mp4")
    corpus = read_corpus("voxceleb2", tmp_path)
    assert corpus.tracks == [
        Track(TrackKey("id1", "a", 2), "mp4/id1/a/2.MP4", FaceSource.VOXCELEB2),
        Track(TrackKey("id1", "a", 10), "mp4/id1/a/00010.mp4", FaceSource.VOXCELEB2),
        Track(TrackKey("id2", "b", 2), "mp4/id2/b/00002.mp4", FaceSource.VOXCELEB2),
    ]
    assert corpus.dropped == []


@pytest.mark.parametrize(
    "bases",
    [["mp4"], ["dev/mp4", "test/mp4"], ["dev", "test"], ["dev/mp4", "test"], ["dev"], [""]],
)
def test_voxceleb2_below_dev_and_test(tmp_path: Path, bases: list[str]) -> None:
    for number, base in enumerate(bases):
        touch(tmp_path, f"{base}/id{number}/video/00001.mp4".lstrip("/"))
    corpus = read_corpus("voxceleb2", tmp_path)
    assert ids(corpus) == [f"id{number}/video/00001" for number in range(len(bases))]
    assert corpus.dropped == []
    assert all((tmp_path / track.source).is_file() for track in corpus.tracks)


def test_voxceleb2_odd_names_are_dropped(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/a/00001.mp4", "mp4/id1/a/one.mp4", "mp4/id1/00002.mp4")
    touch(tmp_path, "mp4/id1/a/b/00003.mp4", "mp4/id1/a/99999999999.mp4", "mp4/id1/a/-1.mp4")
    corpus = read_corpus("voxceleb2", tmp_path)
    assert ids(corpus) == ["id1/a/00001"]
    assert reasons(corpus) == {
        "mp4/id1/a/one.mp4": "BadName",
        "mp4/id1/00002.mp4": "BadName",
        "mp4/id1/a/b/00003.mp4": "BadName",
        "mp4/id1/a/99999999999.mp4": "BadName",
        "mp4/id1/a/-1.mp4": "BadName",
    }
    assert {dropped.stage for dropped in corpus.dropped} == {"plan"}


def test_voxceleb2_a_folder_and_a_broken_link_named_like_a_video(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/a/00001.mp4")
    (tmp_path / "mp4/id1/a/00002.mp4").mkdir()
    (tmp_path / "mp4/id1/a/00003.mp4").symlink_to("gone.mp4")
    (tmp_path / "mp4/id1/a/00004.mp4").symlink_to("00004.mp4")  # a link to itself
    os.mkfifo(tmp_path / "mp4/id1/a/00005.mp4")
    corpus = read_corpus("voxceleb2", tmp_path)
    assert ids(corpus) == ["id1/a/00001"]
    assert reasons(corpus) == {f"mp4/id1/a/0000{n}.mp4": "NotAFile" for n in (2, 3, 4, 5)}


def test_voxceleb2_links_are_followed_except_circles(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a/00001.mp4")
    (tmp_path / "root/mp4").mkdir(parents=True)
    (tmp_path / "root/mp4/id1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/self").symlink_to("self")
    corpus = read_corpus("voxceleb2", tmp_path / "root")
    assert ids(corpus) == ["id1/a/00001"]
    assert corpus.dropped == []


def test_voxceleb2_two_files_of_one_track(tmp_path: Path) -> None:
    touch(tmp_path, "dev/mp4/id1/a/00001.mp4", "test/mp4/id1/a/1.mp4")
    corpus = read_corpus("voxceleb2", tmp_path)
    assert [track.source for track in corpus.tracks] == ["dev/mp4/id1/a/00001.mp4"]
    (dropped,) = corpus.dropped
    assert (dropped.track_id, dropped.error) == ("id1/a/00001", "DuplicateTrack")
    assert "dev/mp4/id1/a/00001.mp4" in dropped.message


def test_voxceleb2_names_with_spaces_and_any_script(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/Zoë 四/видео один/00001.mp4")
    assert ids(read_corpus("voxceleb2", tmp_path)) == ["Zoë 四/видео один/00001"]


def test_voxceleb2_names_that_are_not_utf8_are_dropped(tmp_path: Path) -> None:
    bad = os.fsdecode(b"id\xff")
    touch(tmp_path, f"mp4/{bad}/a/00001.mp4", "mp4/id1/new\nline/00001.mp4", "mp4/id1/a/1.mp4")
    corpus = read_corpus("voxceleb2", tmp_path)
    assert ids(corpus) == ["id1/a/00001"]
    assert reasons(corpus) == {
        "mp4/id\\udcff/a/00001.mp4": "BadName",
        "mp4/id1/new\\x0aline/00001.mp4": "BadName",
    }
    everything_shown(corpus).encode("utf-8")


def test_a_folder_that_cannot_be_listed_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = os.fsdecode(b"id\xff")
    touch(tmp_path, f"mp4/{bad}/a/00001.mp4", "mp4/id2/a/00001.mp4")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == bad:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    corpus = read_corpus("voxceleb2", tmp_path)
    assert ids(corpus) == ["id2/a/00001"]
    assert corpus.notes == [
        "left out 1 folders that cannot be listed (Permission denied), for example mp4/id\\udcff"
    ]


# voxceleb1


def test_voxceleb1(tmp_path: Path) -> None:
    touch(tmp_path, "video/aaa.mp4", "video/b_b.webm", "txt/id10001/aaa/00002.txt")
    touch(tmp_path, "txt/id10001/aaa/00001.txt", "txt/id10002/b_b/00007.txt")
    corpus = read_corpus("voxceleb1", tmp_path)
    assert [(t.track_id, t.source, t.boxes, t.faces) for t in corpus.tracks] == [
        ("id10001/aaa/00001", "video/aaa.mp4", "txt/id10001/aaa/00001.txt", FaceSource.BOXES),
        ("id10001/aaa/00002", "video/aaa.mp4", "txt/id10001/aaa/00002.txt", FaceSource.BOXES),
        ("id10002/b_b/00007", "video/b_b.webm", "txt/id10002/b_b/00007.txt", FaceSource.BOXES),
    ]
    assert (corpus.dropped, corpus.notes) == ([], [])


def test_voxceleb1_a_missing_video_drops_its_tracks(tmp_path: Path) -> None:
    touch(tmp_path, "video/aaa.mp4", "txt/id10001/aaa/00001.txt", "txt/id10001/gone/00001.txt")
    corpus = read_corpus("voxceleb1", tmp_path)
    assert ids(corpus) == ["id10001/aaa/00001"]
    (dropped,) = corpus.dropped
    assert (dropped.track_id, dropped.source) == (
        "id10001/gone/00001",
        "txt/id10001/gone/00001.txt",
    )
    assert (dropped.stage, dropped.error) == ("open", "FileNotFound")
    assert dropped.message == "video/gone.<ext> is missing"


def test_voxceleb1_skipped_entries_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "video/aaa.mp4", "video/bbb.mp4", "video/aaa.srt")
    touch(tmp_path, "txt/id10001/aaa/00001.txt", "txt/readme.txt", "txt/id10001/aaa/x.txt")
    corpus = read_corpus("voxceleb1", tmp_path)
    assert ids(corpus) == ["id10001/aaa/00001"]
    assert corpus.dropped == []
    others, files, videos = corpus.notes
    assert others == "left out 1 files without a video ending, for example video/aaa.srt"
    assert files.startswith("left out 2 files below txt/ that are not <id>/<video>/<n>.txt, for ")
    assert videos.startswith("left out 1 videos without a box file")
    assert "bbb.mp4" in videos


@pytest.mark.parametrize("missing", ["video", "txt"])
def test_voxceleb1_needs_both_folders(tmp_path: Path, missing: str) -> None:
    touch(tmp_path, "video/a.mp4", "txt/id10001/a/00001.txt")
    (tmp_path / missing).rename(tmp_path / "other")
    with pytest.raises(InputError, match=f"no folder {missing}/"):
        read_corpus("voxceleb1", tmp_path)


def named_voxceleb1(root: Path) -> None:
    """Create folders with names of persons, one with the final dot that some copies omit."""
    (root / "vox1_meta.csv").write_text(VOX1_META)
    touch(root, "video/aaa.mp4", "txt/Anna_Secret/aaa/00001.txt", "txt/Carl_Hidden_Jr/aaa/2.txt")
    touch(root, "txt/Nobody_Known/aaa/00003.txt", "txt/Anna_Secret/gone/00004.txt")
    touch(root, "txt/Anna_Secret/readme.txt", "txt/id10001/aaa/00001.txt")


def test_voxceleb1_folders_that_are_names(tmp_path: Path) -> None:
    named_voxceleb1(tmp_path)
    corpus = read_corpus("voxceleb1", tmp_path)
    assert ids(corpus) == ["id10001/aaa/00001", "id10002/aaa/00002"]
    errors = {dropped.error: dropped for dropped in corpus.dropped}
    assert set(errors) == {"DuplicateTrack", "FileNotFound", "UnknownName"}
    assert errors["FileNotFound"].track_id == "id10001/gone/00004"
    assert errors["FileNotFound"].source == "txt/id10001/gone/00004.txt"
    assert errors["UnknownName"].track_id.startswith("unknown-")


def test_voxceleb1_prints_and_releases_no_name(tmp_path: Path) -> None:
    named_voxceleb1(tmp_path)
    corpus = read_corpus("voxceleb1", tmp_path)
    assert not [name for name in NAMES if name in everything_shown(corpus)]
    paths = [t.shown(path) for t in corpus.tracks for path in (t.source, t.boxes or "")]
    assert "txt/id10002/aaa/2.txt" in paths
    assert not [name for name in NAMES if name in "".join(paths)]


# dense-frames


def named_dense_frames(root: Path) -> None:
    touch(root, "Anna_Secret/1.6/a_b/1/01.jpg", "Anna_Secret/1.6/a_b/1/02.jpg")
    touch(root, "Anna_Secret/1.6/a_b/10/01.jpg", "Carl_Hidden_Jr/1.6/c/3/01.jpg")
    touch(root, "Carl_Hidden_Jr./1.6/c/3/01.jpg", "Nobody_Known/1.6/d/1/01.jpg")
    touch(root, "Anna_Secret/1.6/a_b/cover.jpg", "Anna_Secret/cover.jpg")
    touch(root, "Anna_Secret/1.6/e/x/01.jpg")


def test_dense_frames(tmp_path: Path) -> None:
    named_dense_frames(tmp_path)
    meta = tmp_path / "meta"
    meta.mkdir()
    (meta / "vox1_meta.csv").write_text(VOX1_META)
    corpus = read_corpus("dense-frames", tmp_path, meta=meta)
    assert [(t.track_id, t.faces) for t in corpus.tracks] == [
        ("id10001/a_b/00001", FaceSource.DENSE),
        ("id10001/a_b/00010", FaceSource.DENSE),
        ("id10002/c/00003", FaceSource.DENSE),
    ]
    assert corpus.tracks[0].source == "Anna_Secret/1.6/a_b/1"
    assert sorted(dropped.error for dropped in corpus.dropped) == ["DuplicateTrack", "UnknownName"]
    files, folders, repeated = corpus.notes
    assert files.startswith("left out 1 files that are not JPEGs, for example unknown-")
    assert folders.startswith("left out 3 folders of JPEGs")
    assert repeated.startswith("dropped 1 tracks with the track_id of another one, for example id1")


def test_dense_frames_print_and_release_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_dense_frames(tmp_path)
    (tmp_path / "vox1_meta.csv").write_text(VOX1_META)
    touch(tmp_path, "Anna_Secret/closed/01.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    corpus = read_corpus("dense-frames", tmp_path)
    assign(corpus, "auto")
    shown = everything_shown(corpus) + "".join(t.shown(t.source) for t in corpus.tracks)
    assert "cannot be listed" in shown
    assert "id10002/1.6/c/3" in shown
    assert not [name for name in NAMES if name in shown]


def test_dense_frames_a_track_without_split_is_dropped_without_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "Anna_Secret/1.6/a/1/01.jpg")
    (tmp_path / "vox1_meta.csv").write_text(VOX1_META)
    split = tmp_path / "split.csv"
    split.write_text("identity_id,split\nid10009,train\n")
    corpus = read_corpus("dense-frames", tmp_path)
    assign(corpus, str(split))
    (dropped,) = corpus.dropped
    assert dropped.source == "id10001/1.6/a/1"
    assert "Anna" not in everything_shown(corpus)


@pytest.mark.parametrize(
    ("layout", "file"),
    [("dense-frames", "Anna_Secret/1.6/a/1/01.jpg"), ("voxceleb1", "txt/Anna_Secret/a/00001.txt")],
)
def test_names_without_vox1_meta_are_an_input_error(tmp_path: Path, layout: str, file: str) -> None:
    touch(tmp_path, file, "video/a.mp4")
    with pytest.raises(InputError, match=r"vox1_meta\.csv"):
        read_corpus(layout, tmp_path)


def test_ids_need_no_vox1_meta(tmp_path: Path) -> None:
    touch(tmp_path, "id10001/1.6/a/1/01.jpg")
    assert ids(read_corpus("dense-frames", tmp_path)) == ["id10001/a/00001"]


# What is left out


CAMCORDER = ["ann/talk.mp4", "bob/00001.MTS", "bob/00002.m2ts", "cat/VTS_01_1.vob", "dan/phone.3gp"]
CAMCORDER += ["eve/talk.asf", "fay/talk.ogv"]


def test_containers_of_cameras_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, *CAMCORDER)
    corpus = read_corpus("folder", tmp_path)
    assert sorted(track.source for track in corpus.tracks) == sorted(CAMCORDER)
    assert (corpus.dropped, corpus.notes) == ([], [])


@pytest.mark.parametrize("ending", sorted(MEDIA_ENDINGS))
def test_every_layout_takes_every_container_in_any_case(tmp_path: Path, ending: str) -> None:
    for number, spelt in enumerate((ending, ending.upper())):
        touch(tmp_path, f"vox2/mp4/id1/v/{number}{spelt}", f"mine/ann/v{number}{spelt}")
        touch(tmp_path, f"vox1/video/v{number}{spelt}", f"vox1/txt/id10001/v{number}/1.TXT")
    for layout, root in (("voxceleb2", "vox2"), ("folder", "mine"), ("voxceleb1", "vox1")):
        corpus = read_corpus(layout, tmp_path / root)
        assert len(corpus.tracks) == 2, layout
        assert (corpus.dropped, corpus.notes) == ([], [])


@pytest.mark.parametrize("layout", ["voxceleb2", "folder"])
def test_files_left_out_are_counted(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, "id1/v/1.mp4", *(f"id1/v/{n}.txt" for n in range(2000)), "id1/v/1.srt")
    touch(tmp_path, "id1/v/README", ".git/a.mp4", "id1/v/._1.mp4", "id1/v/.DS_Store")
    corpus = read_corpus(layout, tmp_path)
    assert ids(corpus) == ["id1/v/00001"]
    hidden, others = corpus.notes
    assert hidden == "left out 2 hidden files and folders, for example .git"
    assert others == "left out 2,002 files without a video ending, for example id1/v/0.txt"


def test_two_files_of_one_track_are_noted_once(tmp_path: Path) -> None:
    touch(tmp_path, *(f"ann/{n}.{ending}" for n in range(50) for ending in ("avi", "mp4")))
    corpus = read_corpus("folder", tmp_path)
    assert len(corpus.tracks) == len(corpus.dropped) == 50
    (note,) = corpus.notes
    assert note.startswith(
        "dropped 50 tracks with the track_id of another one, for example ann/9.mp4"
    )
    assert "ann/9.avi has the same track_id and comes first" in note


# Content of the files


def write(root: Path, name: str, content: bytes) -> None:
    touch(root, name)
    (root / name).write_bytes(content)


def check_contents(corpus: Corpus) -> None:
    """Check the files of a corpus as a build does."""
    pytest.importorskip("cv2", reason="the extra `build` is not installed")
    from emovox.labelling.plan import check_contents

    check_contents(corpus)


def test_the_same_file_under_two_identities_is_noted(tmp_path: Path) -> None:
    same, other = os.urandom(9000), os.urandom(9000)
    for name in ("ann/a.mp4", "bob/b.mp4", "cat/c.mp4", "cat/d.mp4"):
        write(tmp_path, name, same)
    write(tmp_path, "dan/e.mp4", other)
    write(tmp_path, "eve/f.mp4", same[:4500] + other[4500:])
    last = bytes([other[-1] ^ 1])
    write(tmp_path, "fay/g.mp4", other[:-1] + last)  # the same size, and middle
    touch(tmp_path, "gus/empty.mp4", "hal/empty.mp4")
    corpus = read_corpus("folder", tmp_path)
    check_contents(corpus)
    assert len(corpus.tracks) == 9
    (note,) = corpus.notes
    assert note.startswith("3 files are copies of a file of another identity or video, for example")
    assert "bob/b.mp4 of ann/a.mp4" in note


def test_tracks_that_share_a_video_are_no_copies(tmp_path: Path) -> None:
    write(tmp_path, "video/v.mp4", os.urandom(9000))
    touch(tmp_path, "txt/id10001/v/1.txt", "txt/id10002/v/2.txt")
    corpus = read_corpus("voxceleb1", tmp_path)
    check_contents(corpus)
    write(tmp_path, "mp4/id1/v/1.mp4", b"a" * 9000)
    write(tmp_path, "mp4/id1/v/2.mp4", b"a" * 9000)  # of one video, which is in one split
    same_video = read_corpus("voxceleb2", tmp_path)
    check_contents(same_video)
    assert (corpus.notes, same_video.notes) == ([], [])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


def test_git_lfs_pointers_are_dropped_and_noted_once(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path, f"ann/{number}.mp4", POINTER)
    write(tmp_path, "bob/1.mp4", b"version of another kind")
    corpus = read_corpus("folder", tmp_path)
    check_contents(corpus)
    assert [track.source for track in corpus.tracks] == ["bob/1.mp4"]
    assert {(d.stage, d.error) for d in corpus.dropped} == {("open", "GitLfsPointer")}
    assert len(corpus.dropped) == 40 and "git lfs pull" in corpus.dropped[0].message
    (note,) = corpus.notes
    assert note.startswith("40 media files: Git LFS pointers; run `git lfs pull` and rerun")


def test_git_lfs_pointers_of_lists(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet", "vox1_meta.csv", "b.txt"):
        write(tmp_path, name, POINTER)
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(InputError, match="a Git LFS pointer, not the file; run `git lfs pull`"):
            read_corpus("table", tmp_path, table=tmp_path / name)
    with pytest.raises(InputError, match="a Git LFS pointer"):
        read_names(tmp_path)
    with pytest.raises(TrackError, match="GitLfsPointer"):
        read_boxes(tmp_path / "b.txt", "b.txt")


# folder


def test_folder(tmp_path: Path) -> None:
    touch(tmp_path, "anna/talk/00003.mkv", "anna/talk one.mp4", "anna/x/y/z.webm", "lone.avi")
    touch(tmp_path, "anna/talk/notes.txt", "carl/7.mov", "carl/20240101/20240101123456789.mp4")
    touch(tmp_path, ".cache/x/1.mp4", "anna/.draft.mp4")
    corpus = read_corpus("folder", tmp_path)
    assert {track.track_id: track.source for track in corpus.tracks} == {
        "anna/talk one/00000": "anna/talk one.mp4",
        "anna/talk/00003": "anna/talk/00003.mkv",
        "anna/x+y+z/00000": "anna/x/y/z.webm",
        "carl/20240101+20240101123456789/00000": "carl/20240101/20240101123456789.mp4",
        "carl/7/00000": "carl/7.mov",
        "lone/lone/00000": "lone.avi",
    }
    assert {track.faces for track in corpus.tracks} == {FaceSource.DETECT}
    assert ids(corpus) == sorted(ids(corpus))
    assert corpus.dropped == []


def test_folder_odd_entries_are_dropped(tmp_path: Path) -> None:
    touch(tmp_path, "anna/a.mp4", "anna/a.mkv", "anna/x.mp4/inner.mp4")
    touch(tmp_path, f"anna/{os.fsdecode(bytes([0xE9]))}.mp4")
    corpus = read_corpus("folder", tmp_path)
    assert [track.source for track in corpus.tracks] == ["anna/a.mkv"]
    assert reasons(corpus) == {
        "anna/a.mp4": "DuplicateTrack",
        "anna/x.mp4": "NotAFile",
        "anna/\\udce9.mp4": "BadName",
    }


# table

ROWS: list[dict[str, object]] = [
    {"track_id": "anna/talk/1", "video": "v/one.mp4", "identity": "anna", "start": 1.5, "end": 4.0},
    {"track_id": "anna/talk/2", "video": "v/one.mp4", "identity": "anna", "start": None,
     "end": None, "split": "train", "boxes": "b/2.txt"},
    {"track_id": "Zoë 四/clip/00001", "video": "v/vidéo 1.mp4", "identity": "Zoë 四", "end": 2.0},
]  # fmt: skip
COLUMNS = ("track_id", "video", "identity", "start", "end", "split", "boxes")


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{c: r.get(c) for c in COLUMNS} for r in rows]), path)
    else:
        lines = [",".join("" if r.get(c) is None else str(r[c]) for c in COLUMNS) for r in rows]
        path.write_text("\n".join([",".join(COLUMNS), *lines, ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_table(tmp_path: Path, ending: str) -> None:
    table = write_table(tmp_path / f"t.{ending}", ROWS)
    corpus = read_corpus("table", tmp_path, table=table)
    assert corpus.tracks == [
        Track(TrackKey("Zoë 四", "clip", 1), "v/vidéo 1.mp4", FaceSource.DETECT, end=2.0),
        Track(TrackKey("anna", "talk", 1), "v/one.mp4", FaceSource.DETECT, start=1.5, end=4.0),
        Track(
            TrackKey("anna", "talk", 2),
            "v/one.mp4",
            FaceSource.BOXES,
            boxes="b/2.txt",
            split="train",
        ),
    ]
    assert corpus.dropped == []


BAD_ROWS: list[tuple[dict[str, object], str]] = [
    ({"track_id": "anna/talk"}, "BadName"),
    ({"track_id": "anna/talk/one"}, "BadName"),
    ({"track_id": "carl/talk/9"}, "BadName"),
    ({"track_id": None}, "BadName"),
    ({"track_id": "anna/talk/99999999999"}, "BadName"),
    ({"video": "/etc/passwd"}, "BadPath"),
    ({"video": "../outside.mp4"}, "BadPath"),
    ({"video": "v/../../outside.mp4"}, "BadPath"),
    ({"video": None}, "BadPath"),
    ({"boxes": "../outside.txt"}, "BadPath"),
    ({"boxes": "/outside.txt"}, "BadPath"),
    ({"start": -1.0}, "BadTime"),
    ({"start": 3.0, "end": 3.0}, "BadTime"),
    ({"start": 3.0, "end": 2.0}, "BadTime"),
    ({"end": 0.0}, "BadTime"),
    ({"start": float("nan")}, "BadTime"),
    ({"end": float("inf")}, "BadTime"),
]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(("change", "error"), BAD_ROWS)
def test_a_bad_row_is_dropped_and_the_others_are_kept(
    tmp_path: Path, ending: str, change: dict[str, object], error: str
) -> None:
    good = ROWS[0]
    bad = {**good, "track_id": "anna/talk/9", "start": None, "end": None, **change}
    table = write_table(tmp_path / f"t.{ending}", [bad, good])
    corpus = read_corpus("table", tmp_path, table=table)
    assert ids(corpus) == ["anna/talk/00001"]
    (dropped,) = corpus.dropped
    assert (dropped.stage, dropped.error) == ("plan", error)
    assert "/etc" not in repr(dropped)
    if "99999999999" not in str(change):
        assert f"t.{ending}, row 2:" in dropped.message


@pytest.mark.parametrize("column", ["start", "end"])
@pytest.mark.parametrize(
    "time",
    ["nan", "-inf", "1e300", "1e999", "-0.1", "9" * 5000, "0:05", "true", "2021-01-01T00:00:00"],
)
def test_a_bad_time_in_text_drops_its_row(tmp_path: Path, column: str, time: str) -> None:
    rows = [{**ROWS[0], "track_id": "anna/talk/9", column: time}, ROWS[1]]
    for ending in ("csv", "tsv"):
        table = write_table(tmp_path / "t.csv", rows)
        if ending == "tsv":
            table = tmp_path / "t.tsv"
            table.write_text((tmp_path / "t.csv").read_text().replace(",", "\t"))
        corpus = read_corpus("table", tmp_path, table=table)
        assert ids(corpus) == ["anna/talk/00002"]
        (dropped,) = corpus.dropped
        assert dropped.error == "BadTime" and len(dropped.message) < 200


def test_names_of_thousands_of_digits_drop_their_row(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "track_id": f"anna/talk/{'9' * 5000}"}, ROWS[1]]
    corpus = read_corpus("table", tmp_path, table=write_table(tmp_path / "t.csv", rows))
    assert ids(corpus) == ["anna/talk/00002"]
    assert [dropped.error for dropped in corpus.dropped] == ["BadName"]
    assert len(corpus.dropped[0].message) < 200


NOW = datetime(2021, 1, 1, 1, 1, 1, 7)
ODD_COLUMNS: dict[str, pa.Array] = {
    "list": pa.array([[1.0], [2.0]]),
    "struct": pa.array([{"a": 1}, {"a": 2}]),
    "bool": pa.array([True, False]),
    "date": pa.array([NOW.date()] * 2),
    "timestamp": pa.array([NOW] * 2, pa.timestamp("ns")),
    "far timestamp": pa.array([2**62, 1], pa.timestamp("us")),
    "time": pa.array([NOW.time()] * 2),
    "duration": pa.array([1, 2], pa.duration("ns")),
    "not UTF-8": pa.array([b"\xff", b"\xff"], pa.binary()),
    "damaged text": pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xff")
    ),
}
TEXT = {"track_id": "anna/talk/1", "video": "v.mp4", "identity": "anna", "split": "train"}


def table_of(path: Path, **columns: pa.Array) -> Path:
    """Write a table of two rows, of which some columns are replaced."""
    texts = [TEXT, {**TEXT, "track_id": "anna/talk/2"}]
    plain = {name: pa.array([row.get(name) for row in texts], pa.string()) for name in COLUMNS}
    pq.write_table(pa.table({**plain, **columns}), path)
    return path


@pytest.mark.parametrize("kind", ODD_COLUMNS)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_of_another_type_drops_rows_or_is_one_message(
    tmp_path: Path, column: str, kind: str
) -> None:
    table = table_of(tmp_path / "t.parquet", **{column: ODD_COLUMNS[kind]})
    if kind in ("bool", "date", "timestamp", "far timestamp", "time"):  # have a text
        corpus = read_corpus("table", tmp_path, table=table)
        wrong = {"start": "BadTime", "end": "BadTime", "track_id": "BadName", "identity": "BadName"}
        assert [d.error for d in corpus.dropped] == ([wrong[column]] * 2 if column in wrong else [])
        return
    with pytest.raises(InputError) as caught:
        read_corpus("table", tmp_path, table=table)
    assert len(str(caught.value).splitlines()) == 1
    assert "t.parquet: " in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in ODD_COLUMNS if "UTF" not in kind][:-1])
def test_an_unused_column_may_have_any_type(tmp_path: Path, kind: str) -> None:
    table = table_of(tmp_path / "t.parquet", extra=ODD_COLUMNS[kind])
    assert len(read_corpus("table", tmp_path, table=table).tracks) == 2


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("track_id,video,identity,start,end,start\na/b/1,v.mp4,a,,,1\n")
    with pytest.raises(InputError, match="expected one column start, of text or numbers"):
        read_corpus("table", tmp_path, table=tmp_path / "t.csv")


def test_columns_of_related_types(tmp_path: Path) -> None:
    """Decimals, halves, integers, dictionaries, large and binary text, and nulls are usual."""
    halves = pa.array(np.array([1.5, 0.5], np.float16))
    numbers = {
        "start": [halves, pa.array([1, 0], pa.uint8()), pa.array([Decimal("1.50"), Decimal(0)])],
        "end": [
            pa.array([9, 8], pa.int64()),
            pa.array([Decimal("9.25")] * 2, pa.decimal256(50, 2)),
        ],
        "split": [pa.array(["train"] * 2).dictionary_encode(), pa.nulls(2)],
        "video": [pa.array(["v.mp4"] * 2, pa.large_string()), pa.array([b"v.mp4"] * 2)],
    }
    for column, arrays in numbers.items():
        for array in arrays:
            table = table_of(tmp_path / "t.parquet", **{column: array})
            corpus = read_corpus("table", tmp_path, table=table)
            assert ids(corpus) == ["anna/talk/00001", "anna/talk/00002"], (column, array.type)
            assert corpus.tracks[0].source == "v.mp4"
    table_of(tmp_path / "t.parquet", start=halves)
    assert read_corpus("table", tmp_path, table=table).tracks[0].start == 1.5


def test_another_identity_than_that_of_the_track_id(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("track_id,video,identity,start,end\ndog/a/3,v.mp4,cat,,\n")
    [dropped] = read_corpus("table", tmp_path, table).dropped
    assert "its identity, found dog/a/3, cat" in dropped.message


def test_a_time_that_is_text_is_dropped(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("track_id,video,identity,start,end\na/b/1,v.mp4,a,soon,\na/b/2,v.mp4,a,,\n")
    corpus = read_corpus("table", tmp_path, table=table)
    assert ids(corpus) == ["a/b/00002"]
    assert [dropped.error for dropped in corpus.dropped] == ["BadTime"]


def test_names_that_look_like_missing_values_are_kept(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("track_id,video,identity,start,end\nNA/null/1,None,NA,,\n")
    corpus = read_corpus("table", tmp_path, table=table)
    assert corpus.tracks == [Track(TrackKey("NA", "null", 1), "None", FaceSource.DETECT)]


def test_a_box_file_that_is_a_number_is_a_name(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist([ROWS[0] | {"boxes": 5}]), table)
    assert read_corpus("table", tmp_path, table=table).tracks[0].boxes == "5"


def test_a_path_with_a_nul_is_dropped(tmp_path: Path) -> None:
    row: dict[str, object] = {**ROWS[0], "video": "v/\0.mp4"}
    table = write_table(tmp_path / "t.parquet", [row, ROWS[1]])
    corpus = read_corpus("table", tmp_path, table=table)
    assert ids(corpus) == ["anna/talk/00002"]
    assert [dropped.error for dropped in corpus.dropped] == ["BadPath"]


def test_a_repeated_track_is_dropped(tmp_path: Path) -> None:
    row = ROWS[0]
    table = write_table(tmp_path / "t.csv", [row, {**row, "video": "v/two.mp4"}])
    corpus = read_corpus("table", tmp_path, table=table)
    assert [track.source for track in corpus.tracks] == ["v/one.mp4"]
    assert reasons(corpus) == {"v/two.mp4": "DuplicateTrack"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "not readable as CSV or Parquet"),
        ("t.csv", b"track_id,video\na/b/1,v.mp4\n", "missing columns identity, start, end"),
        ("t.csv", b"\xff\xfe\x00", "not readable as CSV or Parquet"),
        (
            "t.csv",
            b"track_id,video,identity,start,end\na/b/1,v.mp4\n",
            "not readable as CSV or Parquet",
        ),
        ("t.parquet", b"no parquet", "not readable as CSV or Parquet"),
        ("t.parquet", b"", "not readable as CSV or Parquet"),
    ],
)
def test_an_unreadable_table(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_corpus("table", tmp_path, table=tmp_path / name)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_corpus("table", tmp_path, table=tmp_path / "gone.csv")


# tracks


def test_printable() -> None:
    assert printable("Zoë 四 a.mp4") == "Zoë 四 a.mp4"
    assert printable(os.fsdecode(b"a\xff\n\x00\x7f")) == "a\\udcff\\x0a\\x00\\x7f"


def test_shown_hides_only_the_person() -> None:
    key = TrackKey("id10001", "Anna", 1)
    track = Track(key, "Anna/1.6/Annabel/1", FaceSource.DENSE, person="Anna")
    assert track.shown(track.source) == "id10001/1.6/Annabel/1"
    assert replace(track, person=None).shown("a/\n") == "a/\\x0a"


def test_voxceleb1_notes_skipped_videos(tmp_path: Path) -> None:
    for name in ("video/abc.mp4", "video/abc.mkv", "video/Some_Body/def.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "txt/id10001/abc").mkdir(parents=True)
    (tmp_path / "txt/id10001/abc/00001.txt").touch()
    (tmp_path / "txt/id10001/def").mkdir()
    (tmp_path / "txt/id10001/def/00001.txt").touch()
    corpus = read_corpus("voxceleb1", tmp_path)
    assert [track.source for track in corpus.tracks] == ["video/abc.mkv"]
    assert [dropped.error for dropped in corpus.dropped] == ["FileNotFound"]
    twice, deep = corpus.notes
    assert "1 videos with the id of another one, for example video/abc.mp4" in twice
    assert "1 files in folders below video/" in deep
    assert "Some_Body" not in repr(corpus.notes) + repr(corpus.dropped) + repr(corpus.tracks)
