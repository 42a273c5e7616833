"""File names of corpora of acted emotions, by the forms of filenames.toml.

A parser accepts a path below the root, with any number of folders, and returns a `Name`, or None
for a file of another form. To add a corpus, write a table in filenames.toml, or add a parser to
`PARSERS`. Use the labels of `EMOTIONS` for the emotions that it shares with a corpus.
"""

import csv
import io
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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


def _parser(
    forms: Sequence[str],
    labels: Mapping[str, str] | None = None,
    recording: str = "{stem}",
    speaker: str = "{speaker}",
    skipped: Mapping[str, str] | None = None,
) -> Parser:
    """Return a parser of names of some forms; the arguments are explained in filenames.toml."""

    def parse(path: PurePosixPath) -> Name | None:
        texts = {"path": str(path.with_suffix("")), "stem": path.stem, "speaker": ""}
        matches = (re.fullmatch(f"(?s:.*/)?(?:{form})", texts["path"]) for form in forms)
        match = next(filter(None, matches), None)
        if match is None or (labels and match["label"].lower() not in labels):
            return None
        texts |= match.groupdict()
        part = texts["partition"] = texts.get("partition", "").lower()
        reasons = (why for group, why in (skipped or {}).items() if texts[group] is not None)
        return Name(
            label=labels[match["label"].lower()] if labels else "",
            speaker=speaker.format(**texts) or None,
            recording=recording.format(**texts),
            partition="val" if part == "dev" else part or None,
            skipped=next(reasons, ""),
            session=texts.get("session"),
        )

    return parse


_FORMS = Path(__file__).with_name("filenames.toml").read_text(encoding="utf-8")
PARSERS: dict[str, Parser] = {n: _parser(**entry) for n, entry in tomllib.loads(_FORMS).items()}
TABLE = "table"
LAYOUTS = (*PARSERS, TABLE)

# Layout -> paths of its label files.
LABEL_FILES = {
    "iemocap": re.compile(r"(?:.*/)?EmoEvaluation/[^/]+\.txt"),
    "meld": re.compile(r"(?:.*/)?(train|dev|test)_sent_emo\.csv"),
}
IEMOCAP = {"ang": "anger", "hap": "happiness", "exc": "happiness", "sad": "sadness"}
IEMOCAP |= {"neu": "neutral"}


def read_labels(file: PurePosixPath, text: str) -> dict[str, dict[str, Any]]:
    """Return what a label file adds to the `Name` of each recording.

    Of IEMOCAP the four usual classes count: excited is happy, other labels are skipped.
    """
    found: dict[str, dict[str, Any]] = {}
    if file.suffix == ".csv":
        for row in csv.DictReader(io.StringIO(text, newline="")):
            number = f"dia{row.get('Dialogue_ID')}_utt{row.get('Utterance_ID')}"
            found[f"{file.name.partition('_')[0]} {number}"] = {
                "label": standard_name(row.get("Emotion") or ""),
                "speaker": row.get("Speaker"),
            }
    for recording, label in re.findall(r"^\[[^]]*\]\t(\w+)\t([a-z]{3})\t", text, re.M):
        other = "" if label in IEMOCAP else f"labelled {label}, not {', '.join(IEMOCAP)}"
        found[recording] = {"label": IEMOCAP.get(label, label), "skipped": other}
    return found
