"""How corpora of acted emotions name their files.

ravdess        03-01-06-01-02-01-12.wav (modality, channel, emotion, ..., actor); speech only
ravdess-song   the same, with the singing
crema-d        1001_DFA_ANG_XX.wav (speaker, sentence, emotion, intensity)
emo-db         03a01Fa.wav (speaker, text, emotion, version)
savee          DC/a01.wav or DC_a01.wav (speaker, emotion, sentence)
enterface      subject 1/anger/sentence 1/s1_an_1.avi
rml            s1/an1.avi, with a folder for the language in between if there is one
afew           Train/Angry/000046280.avi and Val/...

A parser takes a path below the root, with folders of any depth, and gives a `Name`, or None for a
file that is not named like the corpus. To add a corpus, write one and enter it in `PARSERS`. Labels
are those of `EMOTIONS` where a corpus means the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Name:
    """What the name of a file says.

    Attributes:
        label: the emotion.
        speaker: who speaks; None where the corpus does not say.
        recording: the same for all files of one recording, such as its sound and its video.
        part: `train` or `val` where the corpus has such a partition of its own.
        aside: why the file is left aside although it belongs to the corpus; empty if it is not.
    """

    label: str
    speaker: str | None
    recording: str
    part: str | None = None
    aside: str = ""


Parser = Callable[[PurePosixPath], Name | None]

# Codes of two letters that RML and eNTERFACE share; the folders of eNTERFACE are the words.
ACTED = {
    "an": "anger",
    "di": "disgust",
    "fe": "fear",
    "ha": "happiness",
    "sa": "sadness",
    "su": "surprise",
}
# The words of RAVDESS, CREMA-D and AFEW, by their first three letters.
WORDS = {
    "neu": "neutral",
    "cal": "calm",
    "hap": "happiness",
    "sad": "sadness",
    "ang": "anger",
    "fea": "fear",
    "dis": "disgust",
    "sur": "surprise",
}
RAVDESS = dict(zip(("01", "02", "03", "04", "05", "06", "07", "08"), WORDS.values(), strict=True))
EMO_DB = {  # by the German word: Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
SAVEE = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}


def ravdess_song(path: PurePosixPath) -> Name | None:
    """RAVDESS (Livingstone and Russo, 2018), speech and song."""
    match = re.fullmatch(r"0[123]-(0[12])-(0[1-8])-0[12]-0[12]-0[12]-([0-9]{2})", path.stem)
    if match is None:
        return None
    _, emotion, actor = match.groups()
    return Name(RAVDESS[emotion], actor, path.stem[3:])  # sound and video differ in the modality


def ravdess(path: PurePosixPath) -> Name | None:
    """RAVDESS, speech alone."""
    name = ravdess_song(path)
    if name is None or name.recording.startswith("01"):
        return name
    return replace(name, aside="files are sung; the layout ravdess-song takes them")


def crema_d(path: PurePosixPath) -> Name | None:
    """CREMA-D (Cao et al., 2014).

    Example:
        >>> crema_d(PurePosixPath("AudioWAV/1001_DFA_ANG_XX.wav")).label
        'anger'
    """
    match = re.fullmatch(r"(1[0-9]{3})_[A-Z]{3}_([A-Z]{3})_(XX|X|LO|MD|HI)", path.stem)
    if match is None or match[2].lower() not in WORDS:
        return None
    return Name(WORDS[match[2].lower()], match[1], path.stem)


def emo_db(path: PurePosixPath) -> Name | None:
    """The Berlin database (Burkhardt et al., 2005)."""
    match = re.fullmatch(r"([0-9]{2})[ab][0-9]{2}([WLEAFTN])[a-z]", path.stem)
    return match and Name(EMO_DB[match[2]], match[1], path.stem)


def savee(path: PurePosixPath) -> Name | None:
    """SAVEE (Haq and Jackson, 2009): a folder or a prefix for the speaker."""
    where = f"{path.parent.name}_{path.stem}"
    match = re.search(r"(?:^|_)(DC|JE|JK|KL)_(sa|su|[adfhn])([0-9]{1,2})$", where)
    if match is None:
        return None
    speaker, code, number = match.groups()
    return Name(SAVEE[code], speaker, f"{speaker} {code}{int(number)}")


def enterface(path: PurePosixPath) -> Name | None:
    """eNTERFACE'05 (Martin et al., 2006), by its folders where they are there.

    The files' own names are not reliable: those of subject 11 say 12, those of subject 3 `s_3_`.
    Subject 6 has one file for an emotion, with all its sentences.
    """
    folders = "/".join(path.parts[:-1]).lower()
    match = re.search(rf"subject[ _-]?([0-9]+)/({'|'.join(ACTED.values())})(/|$)", folders)
    if match is not None:
        return Name(match[2], match[1], str(path.with_suffix("")))
    match = re.fullmatch(rf"s_?([0-9]+)_({'|'.join(ACTED)})_?([0-9]*)", path.stem.lower())
    return match and Name(ACTED[match[2]], match[1], str(path.with_suffix("")))


def rml(path: PurePosixPath) -> Name | None:
    """The RML emotion database (Wang and Guan, 2008); some speakers have a folder per language."""
    speakers = [part for part in path.parts[:-1] if re.fullmatch(r"[sS][1-8]", part)]
    match = re.match(rf"({'|'.join(ACTED)})(?![a-z])", path.stem.lower())
    if match is None or not speakers:
        return None
    return Name(ACTED[match[1]], speakers[-1].lower(), str(path.with_suffix("")))


def afew(path: PurePosixPath) -> Name | None:
    """AFEW (Dhall et al., 2012): scenes of films in a partition of their own, no speakers."""
    match path.parts[-3:-1]:
        case [part, word] if word.lower()[:3] in WORDS:
            found = re.fullmatch(r"(train|val)(_?afew)?", part.lower())
            label = WORDS[word.lower()[:3]]
            return found and Name(label, None, str(path.with_suffix("")), found[1])
    return None


PARSERS: dict[str, Parser] = {
    "ravdess": ravdess,
    "ravdess-song": ravdess_song,
    "crema-d": crema_d,
    "emo-db": emo_db,
    "savee": savee,
    "enterface": enterface,
    "rml": rml,
    "afew": afew,
}
