"""File names of corpora of acted emotions.

ravdess        03-01-06-01-02-01-12.wav (modality, channel, emotion, ..., actor); speech only
crema-d        1001_DFA_ANG_XX.wav (speaker, sentence, emotion, intensity)
emo-db         03a01Fa.wav (speaker, text, emotion, version)
savee          DC/a01.wav or DC_a01.wav (speaker, emotion, sentence)
enterface      subject 1/anger/sentence 1/s1_an_1.avi
rml            s1/an1.avi, with an optional folder for the language in between
afew           Train/Angry/000046280.avi and Val/...
iemocap        Ses01F_impro01_F000.wav (session, dialogue, speaker), labels in EmoEvaluation/*.txt
meld           train_splits/dia0_utt0.mp4, labels in train_sent_emo.csv; dev and test likewise
tess           OAF_back_angry.wav (speaker, word, emotion)
urdu           SM1_F1_A001.wav (speaker, file, emotion)

A parser accepts a path below the root, with any number of folders, and returns a `Name`, or None
for a file of another form. To add a corpus, write a parser and add it to `PARSERS`. Use the labels
of `EMOTIONS` for the emotions that it shares with a corpus.
"""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from emovox.emotions import standard_name


@dataclass(frozen=True, slots=True)
class Name:
    """Facts in the name of a file."""

    label: str  # emotion; empty if it is in a label file
    speaker: str | None  # id of the speaker; None if the corpus does not give one
    recording: str  # id of the recording, shared by its audio file and its video file
    # `train`, `val` or `test`; None if the corpus defines no partition
    partition: str | None = None
    skipped: str = ""  # reason to skip a file that belongs to the corpus; empty for others
    session: str | None = None  # id of the recording session; None if the corpus has none


Parser = Callable[[PurePosixPath], Name | None]

# RAVDESS counts its emotions from 1, in this order.
LABELS = ("neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise")
RAVDESS = {f"{number:02d}": label for number, label in enumerate(LABELS, start=1)}
# CREMA-D and AFEW use words with the same first three letters as the labels.
WORDS = {label[:3]: label for label in LABELS}
# RML and eNTERFACE abbreviate six emotions to their first two letters.
ACTED = {label[:2]: label for label in LABELS if label not in ("neutral", "calm")}
# EMO-DB has the initials of Wut, Langeweile, Ekel, Angst, Freude, Trauer and neutral.
GERMAN = ("anger", "boredom", "disgust", "fear", "happiness", "sadness", "neutral")
EMO_DB = dict(zip("WLEAFTN", GERMAN, strict=True))
SAVEE = {label[0]: label for label in ("anger", "disgust", "fear", "happiness", "neutral")}
SAVEE |= {"sa": "sadness", "su": "surprise"}
TESS = {
    name: standard_name(name) for name in ("angry", "disgust", "fear", "happy", "neutral", "sad")
}
URDU = dict(zip("AHNS", ("anger", "happiness", "neutral", "sadness"), strict=True))


def _by_stem(form: str, labels: dict[str, str]) -> Parser:
    """Return a parser of file names that are of a form, with the groups `speaker` and `label`."""

    def parse(path: PurePosixPath) -> Name | None:
        match = re.fullmatch(form, path.stem)
        label = match and labels.get(match["label"])
        return Name(label, match["speaker"], path.stem) if match and label else None

    return parse


def ravdess(path: PurePosixPath) -> Name | None:
    """Parse RAVDESS (Livingstone and Russo, 2018)."""
    match = re.fullmatch(r"0[123]-(0[12])-(0[1-8])-0[12]-0[12]-0[12]-([0-9]{2})", path.stem)
    if match is None:
        return None
    skipped = "sung" if match[1] == "02" else ""
    # The first field is audio or video.
    return Name(RAVDESS[match[2]], match[3], path.stem[3:], skipped=skipped)


def savee(path: PurePosixPath) -> Name | None:
    """Parse SAVEE (Haq and Jackson, 2009), with a folder or a prefix for the speaker."""
    name = f"{path.parent.name}_{path.stem}"
    match = re.search(r"(?:^|_)(DC|JE|JK|KL)_(sa|su|[adfhn])([0-9]{1,2})$", name)
    return match and Name(SAVEE[match[2]], match[1], f"{match[1]} {match[2]}{int(match[3])}")


def enterface(path: PurePosixPath) -> Name | None:
    """Parse eNTERFACE'05 (Martin et al., 2006), by its folders if present.

    The file names are unreliable: those of subject 11 contain 12, those of subject 3 start with
    `s_3_`. Subject 6 has one file per emotion, with all its sentences.
    """
    folders = "/".join(path.parts[:-1]).lower()
    match = re.search(rf"subject[ _-]?([0-9]+)/({'|'.join(ACTED.values())})(/|$)", folders)
    if match is not None:
        return Name(match[2], match[1], str(path.with_suffix("")))
    match = re.fullmatch(rf"s_?([0-9]+)_({'|'.join(ACTED)})_?([0-9]*)", path.stem.lower())
    return match and Name(ACTED[match[2]], match[1], str(path.with_suffix("")))


def rml(path: PurePosixPath) -> Name | None:
    """Parse RML (Wang and Guan, 2008); some speakers have a folder per language."""
    speakers = [folder for folder in path.parts[:-1] if re.fullmatch(r"[sS][1-8]", folder)]
    match = re.match(rf"({'|'.join(ACTED)})(?![a-z])", path.stem.lower())
    if match is None or not speakers:
        return None
    return Name(ACTED[match[1]], speakers[-1].lower(), str(path.with_suffix("")))


def afew(path: PurePosixPath) -> Name | None:
    """Parse AFEW (Dhall et al., 2012): scenes of films, with a partition, without speakers."""
    folders = "/".join(path.parts[-3:-1]).lower()
    match = re.fullmatch(rf"(train|val)(?:_?afew)?/({'|'.join(WORDS)})[^/]*", folders)
    return match and Name(WORDS[match[2]], None, str(path.with_suffix("")), match[1])


def iemocap(path: PurePosixPath) -> Name | None:
    """Parse IEMOCAP (Busso et al., 2008), whose labels are in files."""
    match = re.fullmatch(r"(Ses0[1-5])[FM]_(?:impro|script)\d\d\w*?(?:_([FM])\d{3})?", path.stem)
    if match is None:
        return None
    skipped = "" if match[2] else "whole dialogues"
    return Name("", f"{match[1]}{match[2]}", path.stem, skipped=skipped, session=match[1])


def meld(path: PurePosixPath) -> Name | None:
    """Parse MELD (Poria et al., 2019), whose labels and speakers are in tables."""
    folder = re.search(r".*(train|dev|test)", path.parent.as_posix().lower())
    match = re.fullmatch(r"(final_videos_test)?(dia\d+_utt\d+)", path.stem)
    if match is None or folder is None:
        return None
    skipped = "other copies of a test video" if match[1] else ""
    recording, part = f"{folder[1]} {match[2]}", folder[1].replace("dev", "val")
    return Name("", None, recording, part, skipped)


# Those by form: Cao et al., 2014; Burkhardt et al., 2005; Pichora-Fuller and Dupuis, 2020; Latif et
# al., 2018.
PARSERS: dict[str, Parser] = {
    "ravdess": ravdess,
    "crema-d": _by_stem(
        r"(?P<speaker>1[0-9]{3})_[A-Z]{3}_(?P<label>[A-Z]{3})_(XX|X|LO|MD|HI)",
        {word.upper(): label for word, label in WORDS.items()},
    ),
    "emo-db": _by_stem(r"(?P<speaker>[0-9]{2})[ab][0-9]{2}(?P<label>[A-Z])[a-z]", EMO_DB),
    **{"savee": savee, "enterface": enterface, "rml": rml, "afew": afew},
    **{"iemocap": iemocap, "meld": meld},
    "tess": _by_stem(r"(?P<speaker>[OY]A)F?_[a-z]+_(?P<label>[a-z]+)", TESS | {"ps": "surprise"}),
    "urdu": _by_stem(r"(?P<speaker>S[FM][0-9]+)_F[0-9]+_(?P<label>[A-Z])[0-9]+", URDU),
}
TABLE = "table"
LAYOUTS = (*PARSERS, TABLE)

# Layout -> paths of its label files.
LABEL_FILES = {
    "iemocap": re.compile(r"(?:.*/)?EmoEvaluation/[^/]+\.txt"),
    "meld": re.compile(r"(?:.*/)?(train|dev|test)_sent_emo\.csv"),
}
IEMOCAP = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "happiness",
    "sad": "sadness",
    "neu": "neutral",
}


def read_labels(file: PurePosixPath, text: str) -> dict[str, dict[str, Any]]:
    """Return what a label file adds to the `Name` of each recording.

    Of IEMOCAP the four usual classes count: excited is happy, other labels are skipped.
    """
    found: dict[str, dict[str, Any]] = {}
    if file.suffix == ".csv":
        for row in csv.DictReader(io.StringIO(text, newline="")):
            number = f"dia{row.get('Dialogue_ID')}_utt{row.get('Utterance_ID')}"
            facts = {
                "label": standard_name(row.get("Emotion") or ""),
                "speaker": row.get("Speaker"),
            }
            found[f"{file.name.partition('_')[0]} {number}"] = facts
    for recording, label in re.findall(r"^\[[^]]*\]\t(\w+)\t([a-z]{3})\t", text, re.M):
        other = "" if label in IEMOCAP else f"labelled {label}, not {', '.join(IEMOCAP)}"
        found[recording] = {"label": IEMOCAP.get(label, label), "skipped": other}
    return found
