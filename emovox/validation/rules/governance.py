"""Rules about people: limits and licence, nothing that names a person or a machine, takedowns."""

import getpass
import re
import socket
from collections.abc import Iterator
from typing import Any

from emovox.corpus.voxceleb import read_names
from emovox.dataset import schema
from emovox.dataset.json_schemas import faults
from emovox.dataset.takedown import NAMING, hash_identity, names_listed, read_list
from emovox.errors import InputError
from emovox.validation.front_matter import front_matter, headings
from emovox.validation.inspection import Inspection
from emovox.validation.rule import (
    ERROR,
    WARNING,
    Example,
    Family,
    NotApplicableError,
    UnavailableError,
)

RULES = Family("governance")

# A slash that begins a path: not within a word, a URL or a tag, and not an array of an HDF5 file.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~<>*\\-])(?:~?/(?!frames/|tracks/)[\w.-]+/[\w./-]*|[A-Za-z]:\\[\w.\\-]+)|file://\S*"
)
ACCOUNT = re.compile(r"\b[A-Za-z_][\w.-]*@[A-Za-z][\w.-]*")
MACHINE_KEYS = {"host", "hostname", "node", "user", "username", "login", "home", "cwd"}
COMMON_NAMES = {"root", "user", "runner", "ubuntu", "admin", "localhost", "build", "docker", "test"}
MIN_NAME = 4  # characters; shorter names of users and persons occur by chance

DOCUMENTS = (schema.CARD, schema.PROVENANCE, schema.MANIFEST, schema.CROISSANT)


@RULES.check("card-limits", ERROR, "The card has a section on limits.")
def card_limits(dataset: Inspection) -> Iterator[Example]:
    if not any("limit" in heading for heading in headings(dataset.text(schema.CARD))):
        yield Example(schema.CARD, "no heading with the word limits")


@RULES.check(
    "card-licence", WARNING, "The card states a licence, in front matter and in a section."
)
def card_licence(dataset: Inspection) -> Iterator[Example]:
    text = dataset.text(schema.CARD)
    try:
        content = front_matter(text)
    except ValueError as error:
        raise UnavailableError(f"{schema.CARD}: {error}") from error
    if not (isinstance(content, dict) and content.get("license")):
        yield Example(schema.CARD, "no license in the front matter")
    if not any(re.search("licen[cs]e|terms", heading) for heading in headings(text)):
        yield Example(schema.CARD, "no section on the licence or the terms of the source")


def _texts(dataset: Inspection) -> Iterator[tuple[str, str]]:
    """File and line of everything written for people, where it can be read."""
    for name in DOCUMENTS:
        try:
            yield from ((name, line) for line in dataset.text(name).splitlines())
        except UnavailableError:
            continue  # file-set or readable says so
    sql = "select concat_ws(' ', track_id, source, message) from dropped"
    for (line,) in dataset.rows(sql, ["dropped"]):
        yield schema.DROPPED_FILE, line


@RULES.check("no-absolute-paths", ERROR, "No document and no dropped track has an absolute path.")
def no_absolute_paths(dataset: Inspection) -> Iterator[Example]:
    for name, line in _texts(dataset):
        for match in ABSOLUTE_PATH.finditer(line):
            yield Example(name, match[0])


@RULES.check("no-machine-names", ERROR, "No document names a user or a host.")
def no_machine_names(dataset: Inspection) -> Iterator[Example]:
    here = {name for name in (socket.gethostname(), _user()) if len(name) >= MIN_NAME}
    own = [re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])") for name in here - COMMON_NAMES]
    for name, line in _texts(dataset):
        for pattern in own if name == schema.CARD else [*own, ACCOUNT]:
            if match := pattern.search(line):
                yield Example(name, match[0])
    for key in _keys(dataset.provenance()):
        if key.lower() in MACHINE_KEYS:
            yield Example(schema.PROVENANCE, f"has the key {key}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an account without a name
        return ""


def _keys(content: Any) -> Iterator[str]:
    """Every key of nested objects."""
    if isinstance(content, dict):
        yield from content
        content = list(content.values())
    for value in content if isinstance(content, list) else ():
        yield from _keys(value)


@RULES.check("no-person-names", ERROR, "No name of vox1_meta.csv is in any id or document.")
def no_person_names(dataset: Inspection) -> Iterator[Example]:
    if dataset.options.meta is None:
        raise NotApplicableError(
            "the names were not given; --meta names the folder of vox1_meta.csv"
        )
    names = {name for name in read_names(dataset.options.meta) if len(name) >= MIN_NAME}
    names |= {name.replace("_", " ") for name in names}
    texts: dict[str, list[str]] = {}
    for file, line in _texts(dataset):
        texts.setdefault(file, []).append(line)
    for split, identity in dataset.rows(
        "select distinct split, identity_id from tracks", ["tracks"]
    ):
        texts.setdefault(schema.table_file("tracks", split), []).append(identity)
    for file, lines in texts.items():
        whole = "\n".join(lines)
        for name in sorted(name for name in names if name in whole):  # fast; then word by word
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", whole):
                yield Example(file, name)


@RULES.check("takedown", ERROR, "No identity of the takedown list is in the dataset.")
def takedown(dataset: Inspection) -> Iterator[Example]:
    given, own = dataset.options.takedown, dataset.root / schema.TAKEDOWN
    if given is None and not own.exists():
        raise NotApplicableError("no takedown list was given; --takedown names one")
    listed = set(read_list(given)) if given else set()
    if own.exists():
        try:
            listed |= read_list(own)
        except InputError as error:
            yield Example(schema.TAKEDOWN, str(error).removeprefix(f"{own}: "))
    for split, identity in dataset.rows(
        "select distinct split, identity_id from tracks", ["tracks"]
    ):
        digest = hash_identity(identity)
        if digest in listed:
            yield Example(schema.table_file("tracks", split), f"{identity}, {digest}")
    columns = ", ".join(f"coalesce({name}, '')" for name in NAMING)
    for texts in dataset.rows(f"select {columns} from dropped", ["dropped"]):
        if any(names_listed(text, listed) for text in texts):
            yield Example(schema.DROPPED_FILE, texts[0])
    for track_id in _disagreeing(dataset.provenance()):
        if names_listed(track_id, listed):
            yield Example(schema.PROVENANCE, track_id)


def _disagreeing(provenance: Any) -> Iterator[str]:
    """Tracks that provenance names, if it follows its schema."""
    if not faults("provenance", provenance):
        yield from (one["track_id"] for one in provenance.get("split_disagreements", []))
