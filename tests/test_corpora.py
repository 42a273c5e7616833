"""Corpora of empty files, read by file name; RAVDESS as published."""

from collections import Counter
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emovox.emotions import EMOTIONS, closest_emotion, in_order
from emovox.errors import ConfigError, InputError
from emovox.probing.corpora import read_speech_corpus
from emovox.probing.filenames import PARSERS

# Layout, path, label, speaker, partition.
NAMED = [
    ("ravdess", "Actor_12/03-01-06-01-02-01-12.wav", "fear", "12", None),
    ("ravdess", "a/b/c/01-01-01-01-01-02-24.mp4", "neutral", "24", None),
    ("crema-d", "AudioWAV/1001_DFA_ANG_XX.wav", "anger", "1001", None),
    ("crema-d", "VideoFlash/1091_WSI_HAP_HI.flv", "happiness", "1091", None),
    ("emo-db", "wav/03a01Fa.wav", "happiness", "03", None),
    ("emo-db", "wav/16b10Wb.wav", "anger", "16", None),
    ("emo-db", "wav/08a05Lc.wav", "boredom", "08", None),
    ("savee", "AudioData/DC/a01.wav", "anger", "DC", None),
    ("savee", "AudioData/KL/sa15.wav", "sadness", "KL", None),
    ("savee", "ALL/JE_su03.wav", "surprise", "JE", None),
    ("savee", "AudioVisualClip/JK/n7.avi", "neutral", "JK", None),
    ("enterface", "subject 1/anger/sentence 1/s1_an_1.avi", "anger", "1", None),
    ("enterface", "e/subject-6/fear/s6_fe.avi", "fear", "6", None),
    ("enterface", "subject 3/disgust/sentence 2/s_3_di_2.avi", "disgust", "3", None),
    ("enterface", "flat/s43_su_5.wav", "surprise", "43", None),
    ("rml", "rml-1/s1/an1.avi", "anger", "s1", None),
    ("rml", "rml-2/s8/Mandarin/su10.avi", "surprise", "s8", None),
    ("afew", "Train/Angry/000046280.avi", "anger", None, "train"),
    ("afew", "AFEW/Val_AFEW/Surprise/012345678.avi", "surprise", None, "val"),
    ("tess", "OAF_Pleasant_surprise/OAF_back_ps.wav", "surprise", "OA", None),
    ("tess", "YAF_happy/YAF_dog_happy.wav", "happiness", "YA", None),
    ("tess", "OAF_neutral/OA_bite_neutral.wav", "neutral", "OA", None),  # as published
    ("urdu", "Angry/SM1_F19_A019.wav", "anger", "SM1", None),
    ("urdu", "Sad/SF3_F1_S03.wav", "sadness", "SF3", None),
]
UNKNOWN = [
    "03-01-09-01-02-01-12.wav",  # unknown emotion
    "03-01-06-01-02-01.wav",
    "1001_DFA_JOY_XX.wav",
    "03a01Xa.wav",
    "XX/a01.wav",
    "s9/an1.avi",  # RML has eight speakers
    "s1/angel.avi",
    "Test/Angry/1.avi",
    "OAF_back_calm.wav",
    "SM1_F19_X019.wav",
    "subject 1/boredom/1.avi",
]


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(("layout", "path", "label", "speaker", "partition"), NAMED)
def test_parsed_names(
    layout: str, path: str, label: str, speaker: str | None, partition: str | None
) -> None:
    name = PARSERS[layout](PurePosixPath(path))
    assert name is not None and not name.skipped
    assert (name.label, name.speaker, name.partition) == (label, speaker, partition)


@pytest.mark.parametrize(("layout", "path"), [row[:2] for row in NAMED])
def test_a_name_matches_one_corpus(layout: str, path: str) -> None:
    others = PARSERS.keys() - {layout}
    assert not [other for other in others if PARSERS[other](PurePosixPath(path))]


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_names_match_no_corpus(path: str) -> None:
    assert not [layout for layout, parse in PARSERS.items() if parse(PurePosixPath(path))]


def test_enterface_is_parsed_by_its_folders() -> None:
    """The files of subject 11 have the number 12 in their names."""
    name = PARSERS["enterface"](PurePosixPath("subject 11/sadness/sentence 4/s12_sa_4.avi"))
    assert name is not None and (name.speaker, name.label) == ("11", "sadness")


@pytest.mark.parametrize("layout", sorted({row[0] for row in NAMED}))
def test_layout_is_detected(layout: str, tmp_path: Path) -> None:
    tree(tmp_path, *(row[1] for row in NAMED if row[0] == layout))
    corpus = read_speech_corpus(tmp_path)
    assert corpus.layout == layout and not corpus.dropped
    assert len(corpus.utterances) == sum(row[0] == layout for row in NAMED)


def test_ambiguous_layouts_are_errors(tmp_path: Path) -> None:
    tree(tmp_path / "mixed", "DC/a01.wav", "03a01Fa.wav")
    with pytest.raises(ConfigError, match="layout: 1 emo-db, 1 savee; pass --layout"):
        read_speech_corpus(tmp_path / "mixed")
    tree(tmp_path / "odd", "03a01Fa.wav", "x.wav", "y.wav")
    with pytest.raises(ConfigError, match=r"of 3 media files .*: 1 emo-db"):
        read_speech_corpus(tmp_path / "odd")
    tree(tmp_path / "none", "x.wav")
    with pytest.raises(ConfigError, match="none; pass --layout"):
        read_speech_corpus(tmp_path / "none")


def test_misnamed_files_are_dropped(tmp_path: Path) -> None:
    tree(tmp_path, "03a01Fa.wav", "notes.wav", "readme.txt")
    (tmp_path / "03a01Na.wav").symlink_to("nowhere")
    corpus = read_speech_corpus(tmp_path, "emo-db")
    assert [u.path.name for u in corpus.utterances] == ["03a01Fa.wav"]
    assert [(d.path, d.error) for d in corpus.dropped] == [
        ("03a01Na.wav", "NotAFile"),
        ("notes.wav", "BadName"),
    ]
    assert corpus.notes == ["1 files skipped (neither audio nor video), for example readme.txt"]


def test_one_file_per_recording(tmp_path: Path) -> None:
    end = "-01-05-01-01-01-01"
    tree(tmp_path, f"01{end}.mp4", f"02{end}.mp4", f"a/03{end}.wav", f"b/03{end}.wav")
    corpus = read_speech_corpus(tmp_path)
    assert [u.path.name for u in corpus.utterances] == [f"03{end}.wav"]
    assert corpus.utterances[0].path.parent.name == "a"
    assert corpus.notes[0].startswith("3 files skipped (other copies of a recording), ")
    seen = read_speech_corpus(tmp_path, video=True)
    assert [u.path.name for u in seen.utterances] == [f"01{end}.mp4"]


def test_songs_are_skipped(tmp_path: Path) -> None:
    tree(tmp_path, "03-01-05-01-01-01-01.wav", "03-02-05-01-01-01-01.wav")
    corpus = read_speech_corpus(tmp_path)
    assert corpus.layout == "ravdess" and len(corpus.utterances) == 1
    assert corpus.notes == ["1 files skipped (sung), for example 03-02-05-01-01-01-01.wav"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_table(ending: str, tmp_path: Path) -> None:
    columns = {
        "path": ["été à Lyon/ü 1.wav", "b.wav", "b.wav", None, "c.wav", "/elsewhere/d.wav"],
        "label": ["joy", "anger", "anger", "anger", None, "neutral"],
        "speaker": ["A", "7", "7", "7", "7", None],
    }
    table, path = pa.table(columns), tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        mark = "\t" if ending == "tsv" else ","
        rows = [list(columns), *zip(*columns.values(), strict=True)]
        path.write_text("".join(mark.join(cell or "" for cell in row) + "\n" for row in rows))
    corpus = read_speech_corpus(path)
    assert [(u.path, u.label, u.speaker) for u in corpus.utterances] == [
        (tmp_path / "été à Lyon/ü 1.wav", "joy", "A"),
        (tmp_path / "b.wav", "anger", "7"),
        (Path("/elsewhere/d.wav"), "neutral", None),
    ]
    assert [(d.path, d.error) for d in corpus.dropped] == [
        ("row 5", "BadPath"),
        ("c.wav", "NoLabel"),
    ]
    assert "1 files skipped (listed in an earlier row)" in corpus.notes[0]
    assert corpus.shown(Path("/elsewhere/d.wav")) == "d.wav"


def test_table_without_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,emotion\na.wav,anger\n")
    with pytest.raises(InputError, match="missing columns label; found path, emotion"):
        read_speech_corpus(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("missing", None, "not found; pass a folder or a table"),
        ("empty", None, "contains neither audio nor video"),
        ("empty", "nonsense", "unknown layout 'nonsense'; use one of ravdess"),
        ("file.csv", "rml", "not a folder; for a table pass --layout table"),
    ],
)
def test_invalid_corpora(name: str, layout: str | None, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.csv").touch()
    with pytest.raises((ConfigError, InputError), match=words):
        read_speech_corpus(tmp_path / name, layout)


def test_closest_emotion() -> None:
    meant = {"hapiness": "happiness", "Hapy": "happiness", "suprise": "surprise", "angr": "anger"}
    assert {label: closest_emotion(label) for label in meant} == meant
    for label in (*EMOTIONS, "Happy", "joy", "calm", "boredom", "zeal", "unhappy", "", "W", "5"):
        assert closest_emotion(label) is None


def test_in_order() -> None:
    assert in_order(["zeal", "fear", "neutral", "boredom", "fear"]) == [
        "neutral",
        "fear",
        "boredom",
        "zeal",
    ]
    assert in_order(EMOTIONS) == list(EMOTIONS)


@pytest.mark.real
def test_ravdess_as_published(real_data: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(real_data / "ravdess-speech-16k.zip") as archive:
        tree(tmp_path, *(n for n in archive.namelist() if not n.endswith("/")))
    corpus = read_speech_corpus(tmp_path)
    assert corpus.layout == "ravdess" and not corpus.dropped
    assert len(corpus.utterances) == 1440
    assert Counter(u.speaker for u in corpus.utterances) == {f"{k:02d}": 60 for k in range(1, 25)}
    counts = Counter(u.label for u in corpus.utterances)
    assert counts.pop("neutral") == 96
    others = {"calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise"}
    assert counts == dict.fromkeys(others, 192)


def written(root: Path, name: str, text: str) -> None:
    tree(root, name)
    (root / name).write_text(text, encoding="utf-8")


def test_iemocap(tmp_path: Path) -> None:
    sound = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_"
    tree(tmp_path, *(f"{sound}{turn}.wav" for turn in ("F000", "F001", "M000", "M001", "M002")))
    tree(tmp_path, "Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_F003.wav")
    tree(tmp_path, "Session1/dialog/avi/DivX/Ses01F_impro01.avi")
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for turn, label in (("F000", "neu"), ("F001", "exc"), ("M000", "fru"), ("M001", "hap")):
        lines.append(f"[6.2901 - 8.2357]\tSes01F_impro01_{turn}\t{label}\t[2.5, 2.5, 2.5]")
        lines.append("C-E2:\tNeutral;\t()")
    written(tmp_path, "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", "\n".join(lines))
    line = "[1.0 - 2.0]\tSes05M_script01_1b_F003\tsad\t[2.5, 2.5, 2.5]\n"
    written(tmp_path, "Session5/dialog/EmoEvaluation/Ses05M_script01_1b.txt", line)
    other = "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt"
    written(tmp_path, other, "Ses01F_impro01_M002 :Anger; ()\n")
    corpus = read_speech_corpus(tmp_path)
    assert corpus.layout == "iemocap"
    assert [(u.path.stem[-4:], u.label, u.speaker, u.session) for u in corpus.utterances] == [
        ("F000", "neutral", "Ses01F", "Ses01"),
        ("F001", "happiness", "Ses01F", "Ses01"),
        ("M001", "happiness", "Ses01M", "Ses01"),
        ("F003", "sadness", "Ses05F", "Ses05"),
    ]
    assert [(d.path[-8:], d.error) for d in corpus.dropped] == [("M002.wav", "NoLabel")]
    notes = "\n".join(corpus.notes)
    assert "1 files skipped (labelled fru, not ang, hap, exc, sad, neu)" in notes
    assert "1 files skipped (whole dialogues)" in notes
    assert "1 files skipped (neither audio nor video)" in notes  # of one annotator


def test_meld(tmp_path: Path) -> None:
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season\n"
    rows = '1,"Oh, ""no"",\nit\u2019s you!",Ross,joy,positive,0,0,8\n2,Hi,All,hapiness,x,0,1,8\n'
    written(tmp_path, "train/train_sent_emo.csv", header + rows)
    written(tmp_path, "dev_sent_emo.csv", header + "1,No.,Joey,anger,negative,0,0,8\n")
    written(tmp_path, "test_sent_emo.csv", header + "1,No.,Joey,sadness,negative,0,0,8\n")
    tree(tmp_path, *(f"train/train_splits/dia0_utt{k}.mp4" for k in range(3)))
    tree(tmp_path, "dev_splits_complete/dia0_utt0.mp4")
    tree(tmp_path, "output_repeated_splits_test/dia0_utt0.mp4")
    tree(tmp_path, "output_repeated_splits_test/final_videos_testdia0_utt0.mp4")
    corpus = read_speech_corpus(tmp_path)
    assert corpus.layout == "meld"
    assert [(u.label, u.speaker, u.partition) for u in corpus.utterances] == [
        ("anger", "Joey", "val"),
        ("sadness", "Joey", "test"),
        ("happiness", "Ross", "train"),
        ("hapiness", "All", "train"),
    ]
    assert [(d.path, d.error) for d in corpus.dropped] == [
        ("train/train_splits/dia0_utt2.mp4", "NoLabel")
    ]
    assert [note.partition(",")[0] for note in corpus.notes] == [
        "1 files skipped (other copies of a test video)",
        "label 'hapiness': not an emotion emovox knows; did you mean happiness? (1 utterances)",
    ]
