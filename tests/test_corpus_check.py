"""The comparison of a copy of VoxCeleb with its official lists."""

import csv
import io
import json
import re
import shutil
import wave
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import emovox
from emovox.cli import dataset_commands, main
from emovox.errors import ConfigError, InputError
from emovox.media.containers import missing_end
from emovox.reporting import corpus_check
from emovox.reporting.corpus_check import CORPORA, check_corpus
from emovox.testing import coded_frame, write_clip

META1 = """VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet
id10001\tAnna_One\tf\tIreland\tdev
id10002\tBo_Two\tm\tUSA\tdev
id10003\tCarl_Three\tm\tUSA\ttest
"""
META2 = (
    "\ufeffVoxCeleb2 ID,VGGFace2 ID,Gender,Set\nid00012 ,n000012 ,m ,dev \nid00017 ,n17 ,f ,test \n"
)
SPOKEN = ["id10001/a_b/00001", "id10001/a_b/00002", "id10002/-x/00001", "id10003/y/00012"]


def write_wav(path: Path, seconds: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(range(200)) * round(160 * seconds))


def faults(result: object) -> set[tuple[str, str]]:
    return {(row["fault"], row["name"]) for row in result.rows}  # type: ignore[attr-defined]


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete and clean VoxCeleb1 of four tracks, with its lists."""
    root = tmp_path / "VoxCeleb1"
    for track in SPOKEN:
        write_wav(root / f"wav/{track}.wav")
    (root / "vox1_meta.csv").write_text(META1, encoding="utf-8")
    lines = (f"{k % 3 + 1} {track}.wav\n" for k, track in enumerate(SPOKEN))
    (root / "iden_split.txt").write_text("".join(lines))
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CORPORA, "voxceleb1", (*CORPORA["voxceleb1"][:3], (3, 1)))
    monkeypatch.setitem(CORPORA, "voxceleb2", (*CORPORA["voxceleb2"][:3], (1, 1)))
    return root


@pytest.fixture
def videos(sound: Path) -> Path:
    """A complete and clean VoxCeleb2 of two tracks, as its archives unpack."""
    root = sound.parent / "VoxCeleb2"
    write_clip(root / "dev/mp4/id00012/v/00001.mp4", 10)
    write_clip(root / "test/mp4/id00017/w/00002.mp4", 10)
    (root / "vox2_meta.csv").write_text(META2, encoding="utf-8")
    return root


def run(*arguments: object) -> Result:
    arguments = ("check-corpus", *arguments)
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_a_complete_copy_gives_exit_code_0(sound: Path, videos: Path) -> None:
    result = run(sound, "--layout", "voxceleb1")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{sound}: 4 tracks of voxceleb1; complete\n")
    result = run(videos)
    assert result.exit_code == 0, result.output
    assert emovox.check_corpus(str(videos)).rows == []


def test_missing_tracks_and_identities(sound: Path) -> None:
    (sound / f"wav/{SPOKEN[0]}.wav").unlink()
    shutil.rmtree(sound / "wav/id10003")
    result = check_corpus(sound, "voxceleb1")
    assert faults(result) == {
        ("incomplete part", "dev"),
        ("incomplete part", "test"),
        ("missing identity of test", "id10003"),
        ("missing track", SPOKEN[0]),
        ("missing track", SPOKEN[3]),
    }
    details = {row["name"]: row["details"] for row in result.rows}
    assert details["dev"] == "2 of 3 tracks" and details["test"] == "0 of 1 tracks"


def test_without_a_list_of_tracks_the_counts_tell(sound: Path) -> None:
    (sound / "iden_split.txt").unlink()
    assert not check_corpus(sound, "voxceleb1").rows
    (sound / f"wav/{SPOKEN[0]}.wav").unlink()
    [row] = check_corpus(sound, "voxceleb1").rows
    hint = "2 of 3 tracks; to name the others, put iden_split.txt beside vox1_meta.csv"
    assert row == {"fault": "incomplete part", "name": "dev", "details": hint}


def test_the_tracks_of_heard_val_are_expected(sound: Path) -> None:
    (sound / "iden_split.txt").unlink()
    (sound / "identity_splits.txt").write_text("Anna_One 1\nBo_Two 2\nCarl_Three 4\n")
    voices = "voice-path\nAnna_One/a_b_0000002.wav\nAnna_One/a_b_0000007.wav\n"
    (sound / "veriflist_test_random_seenheard.txt").write_text(voices)
    assert faults(check_corpus(sound, "voxceleb1")) == {("missing track", "id10001/a_b/00007")}


def test_an_identity_of_the_list_that_was_not_published(videos: Path) -> None:
    """vox2_meta.csv lists 120 identities of test, of which 118 were published."""
    with (videos / "vox2_meta.csv").open("a") as file:
        file.write("id00061 ,n000061 ,m ,test \n")
    assert not check_corpus(videos).rows
    shutil.rmtree(videos / "test")
    missing = {name for fault, name in faults(check_corpus(videos)) if "identity" in fault}
    assert missing == {"id00017", "id00061"}


def test_every_form_of_a_track_is_expected(videos: Path) -> None:
    write_wav(videos / "dev/aac/id00012/v/00001.wav")
    [row] = check_corpus(videos).rows
    missing = {"fault": "missing track", "name": "id00017/w/00002", "details": "no sound"}
    assert row == missing
    write_wav(videos / "test/aac/id00017/w/00002.wav")
    assert not check_corpus(videos).rows


def test_videos_and_boxes_of_voxceleb1(sound: Path) -> None:
    for track in SPOKEN:
        (sound / f"txt/{track}.txt").parent.mkdir(parents=True, exist_ok=True)
        (sound / f"txt/{track}.txt").write_text("FRAME X Y W H\n")
    (sound / "video").mkdir()
    (sound / "video/a_b.mp4").touch()
    assert not check_corpus(sound, "voxceleb1").rows
    (sound / f"txt/{SPOKEN[0]}.txt").write_text("")
    assert faults(check_corpus(sound, "voxceleb1")) == {("damaged", f"txt/{SPOKEN[0]}.txt")}


def test_damaged_files(sound: Path) -> None:
    first, second, third, _ = (sound / f"wav/{track}.wav" for track in SPOKEN)
    first.write_bytes(b"")
    second.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3232\n")
    third.write_bytes(third.read_bytes()[:-100])
    rows = check_corpus(sound, "voxceleb1").rows
    assert {row["fault"] for row in rows} == {"damaged"} and len(rows) == 3
    found = {row["name"]: row["details"] for row in rows}
    assert found[f"wav/{SPOKEN[0]}.wav"] == "empty"
    assert "git lfs pull" in found[f"wav/{SPOKEN[1]}.wav"]
    assert re.fullmatch(r"cut short: 9\d bytes are missing", found[f"wav/{SPOKEN[2]}.wav"])


def test_a_folder_in_place_of_a_file(sound: Path) -> None:
    path = sound / f"wav/{SPOKEN[0]}.wav"
    path.unlink()
    path.mkdir()
    assert ("missing track", SPOKEN[0]) in faults(check_corpus(sound, "voxceleb1"))
    path.rmdir()
    shutil.copy(sound / f"wav/{SPOKEN[1]}.wav", path)
    (path.parent / "00009.mp4").mkdir()
    [row] = [row for row in check_corpus(sound, "voxceleb1").rows if row["fault"] == "damaged"]
    assert row["details"].startswith("cannot be read (")


@pytest.mark.parametrize(
    "name",
    [
        "mp4/mp4/id00012/v/00001.mp4",
        "dev/dev/mp4/id00012/v/00001.mp4",
        "vox2/dev/mp4/id00012/v/00001.mp4",
        "MP4/id00012/v/00001.mp4",
        "dev/mp4/ID00012/v/00001.mp4",
        "dev/mp4/Anna_One/v/00001.mp4",
        "dev/mp4/Anna_One/v_0000001.mp4",
        "dev/mp4/id00012/v/first.mp4",
        "dev/mp4/id00012/00001.mp4",
        "dev/mp4/id00012/v/00001.mp4.part",
        "dev/mp4/id00012/v/00001.npy",
        "vox2_dev_mp4.zip",
    ],
)
def test_unknown_names(videos: Path, name: str) -> None:
    (videos / name).parent.mkdir(parents=True, exist_ok=True)
    (videos / name).write_bytes(b"x")
    assert faults(check_corpus(videos)) == {("unknown name", name)}


def test_hidden_folders_are_reported(videos: Path) -> None:
    (videos / ".dev/mp4").mkdir(parents=True)
    assert faults(check_corpus(videos)) == {("not read", ".dev")}


def test_text_shows_five_and_json_and_csv_show_all(videos: Path) -> None:
    for number in range(7):
        (videos / f"{number}.zip").write_bytes(b"x")
    result = run(videos)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{videos}: 2 tracks of voxceleb2; 7 x unknown name\n")
    assert len(re.findall(r"\.zip", result.stdout)) == 5
    result = run(videos, "--format", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert len(found["rows"]) == 7 and found["faults"] == {"unknown name": 7}
    assert found["tracks"] == {"dev": 1, "test": 1}
    result = run(videos, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert result.exit_code == 1 and [row["name"] for row in rows] == [f"{k}.zip" for k in range(7)]


def test_wrong_usage_gives_one_line(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown layout 'vox'; choose one of voxceleb2, vox"):
        check_corpus(sound, "vox")
    with pytest.raises(InputError, match="no such folder; pass the folder of the corpus"):
        check_corpus(tmp_path / "none")
    result = run(sound)  # the list of VoxCeleb2 is missing
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "run `emovox download splits vox2_meta.csv`" in result.stderr


def test_the_lists_may_be_elsewhere(sound: Path, tmp_path: Path) -> None:
    lists = tmp_path / "cache/splits"
    lists.mkdir(parents=True)
    for name in ("vox1_meta.csv", "iden_split.txt"):
        (sound / name).rename(lists / name)
    assert not check_corpus(sound, "voxceleb1").rows
    lists.rename(tmp_path / "lists")
    assert not check_corpus(sound, "voxceleb1", tmp_path / "lists").rows


def test_the_command_has_the_corpora_of_the_function() -> None:
    assert tuple(corpus_check.CORPORA) == dataset_commands.CORPORA


def test_an_mp4_cut_short(tmp_path: Path) -> None:
    """At every byte: ends of boxes are the only places where the rest is not counted."""
    path, frames = tmp_path / "clip.mp4", [coded_frame(k, 64, 64) for k in range(10)]
    for options in ({}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}):
        write_clip(path, frames, container_options=options)
        whole = path.read_bytes()
        assert not missing_end(path, with_mp4=True)
        cut = tmp_path / "cut.mp4"
        undetected = 0
        for size in range(8, len(whole), 31):
            cut.write_bytes(whole[:size])
            assert not missing_end(cut)
            undetected += not missing_end(cut, with_mp4=True)
        assert undetected <= 4 * ("movflags" in options), (options, undetected)


@pytest.mark.real
def test_real_clips(real_data: Path, tmp_path: Path) -> None:
    meta = real_data / "voxceleb-meta"
    shown = check_corpus(real_data / "voxceleb2-clips", meta=meta)
    kinds = shown.as_json()["faults"]
    assert kinds == {
        "incomplete part": 2,
        "missing identity of dev": 5994,
        "missing identity of test": 120,
        "unknown name": 10,  # the ids are placeholders
    }
    shown = check_corpus(real_data / "voxceleb2-clips", "voxceleb1", meta)
    kinds = shown.as_json()["faults"]
    assert (kinds["missing identity of dev"], kinds["missing identity of test"]) == (1211, 40)
    clips = sorted((real_data / "voxceleb2-clips").glob("mp4/*/*/*.mp4"))
    assert len(clips) == 10
    for clip in clips:
        assert not missing_end(clip, with_mp4=True)
        data = clip.read_bytes()
        for share in (0.01, 0.3, 0.5, 0.9, 0.999):
            (tmp_path / "cut.mp4").write_bytes(data[: int(share * len(data))])
            assert missing_end(tmp_path / "cut.mp4", with_mp4=True), (clip.name, share)
