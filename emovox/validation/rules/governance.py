"""Rules about people: limits and licence, no names of persons or machines, takedown lists."""

import contextlib
import getpass
import re
import socket
from collections.abc import Iterator
from typing import Any

from emovox.corpus.voxceleb import read_names
from emovox.dataset import schema
from emovox.dataset.card import headings
from emovox.dataset.json_schemas import faults
from emovox.dataset.takedown import COLUMNS_WITH_IDS, hash_identity, listed_in, read_list
from emovox.errors import InputError, find_secrets
from emovox.validation.findings import Example, NotApplicableError, UnavailableError
from emovox.validation.inspection import Inspection

# A slash that begins a path: not in a word, a URL or a tag, and not an array of an HDF5 file.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~<>*\\-])(?:~?/(?!frames/|tracks/)[\w.-]+/[\w./-]*|[A-Za-z]:\\[\w.\\-]+)|file://\S*"
)
ACCOUNT = re.compile(r"\b[A-Za-z_][\w.-]*@[A-Za-z][\w.-]*")
MACHINE_KEYS = {"host", "hostname", "node", "user", "username", "login", "home", "cwd"}
COMMON_NAMES = {"root", "user", "runner", "ubuntu", "admin", "localhost", "build", "docker", "test"}
MIN_NAME = 4  # characters; shorter names of users and persons occur by chance

DOCUMENTS = (schema.CARD, schema.PROVENANCE, schema.MANIFEST, schema.CROISSANT)


def card_limits(dataset: Inspection) -> Iterator[Example]:
    if not any("limit" in heading for heading in headings(dataset.text(schema.CARD))):
        yield Example(schema.CARD, "no heading contains the word limits")


def card_licence(dataset: Inspection) -> Iterator[Example]:
    header = dataset.card_header()
    if not (isinstance(header, dict) and header.get("license")):
        yield Example(schema.CARD, "license is missing in the front matter")
    titles = headings(dataset.text(schema.CARD))
    if not any(re.search("licen[cs]e|terms", title) for title in titles):
        yield Example(schema.CARD, "a section on the licence or the source's terms is missing")


def _lines(dataset: Inspection, sources: str = "true") -> Iterator[tuple[str, str]]:
    """Yield file and text of each document line and drop, and of sources that meet a condition."""
    for name in DOCUMENTS:
        try:
            yield from ((name, line) for line in dataset.text(name).splitlines())
        except UnavailableError:
            continue  # reported by file-set or readable
    sql = "select concat_ws(' ', track_id, source, message) from dropped"
    for (line,) in dataset.rows(sql):
        yield schema.DROPPED_FILE, line
    sql = f"select distinct split, source from tracks where source is not null and {sources}"
    for split, source in dataset.rows(sql):
        yield schema.table_file("tracks", split), source


def _identities(dataset: Inspection) -> Iterator[tuple[str, str]]:
    """Yield file and identity_id of every identity of the tables `tracks`."""
    for split, identity in dataset.rows("select distinct split, identity_id from tracks"):
        yield schema.table_file("tracks", split), identity


def no_absolute_paths(dataset: Inspection) -> Iterator[Example]:
    for name, line in _lines(dataset):
        for match in ABSOLUTE_PATH.finditer(line):
            yield Example(name, match[0])


def no_secrets(dataset: Inspection) -> Iterator[Example]:
    texts = [*_lines(dataset, "regexp_matches(source, '(?i)[=:]|x-(amz|goog)-')")]
    for name in dataset.entries:
        if name.endswith(".parquet"):
            with contextlib.suppress(UnavailableError):  # reported by readable
                texts += [(name, text) for item in dataset.metadata(name).items() for text in item]
    for name, text in texts:
        for secret in find_secrets(text):
            yield Example(name, re.split("[=:]", secret)[0].strip("?&"))  # its name alone


def no_machine_names(dataset: Inspection) -> Iterator[Example]:
    local = {socket.gethostname()}
    with contextlib.suppress(OSError, KeyError, ImportError):  # an account without a name
        local.add(getpass.getuser())
    names = {name for name in local - COMMON_NAMES if len(name) >= MIN_NAME}
    own = [re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])") for name in names]
    for name, line in _lines(dataset):
        for pattern in own if name == schema.CARD else [*own, ACCOUNT]:
            if match := pattern.search(line):
                yield Example(name, match[0])
    for key in _keys(dataset.json(schema.PROVENANCE)):
        if key.lower() in MACHINE_KEYS:
            yield Example(schema.PROVENANCE, f"contains the key {key}")


def _keys(content: Any) -> Iterator[str]:
    """Yield every key of nested objects."""
    if isinstance(content, dict):
        yield from content
        content = list(content.values())
    for value in content if isinstance(content, list) else ():
        yield from _keys(value)


def no_person_names(dataset: Inspection) -> Iterator[Example]:
    if dataset.meta is None:
        raise NotApplicableError("names not given; pass the folder of vox1_meta.csv with --meta")
    names = {name for name in read_names(dataset.meta) if len(name) >= MIN_NAME}
    names |= {name.replace("_", " ") for name in names}
    texts: dict[str, list[str]] = {}
    for file, line in (*_lines(dataset), *_identities(dataset)):
        texts.setdefault(file, []).append(line)
    for file, lines in texts.items():
        text = "\n".join(lines)
        for name in sorted(name for name in names if name in text):  # fast; then by word
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
                yield Example(file, name)


def takedown(dataset: Inspection) -> Iterator[Example]:
    given, own = dataset.takedown, dataset.root / schema.TAKEDOWN
    if given is None and not own.exists():
        raise NotApplicableError("takedown list not given; pass one with --takedown")
    listed = set(read_list(given)) if given else set()
    if own.exists():
        try:
            listed |= read_list(own)
        except InputError as error:
            yield Example(schema.TAKEDOWN, str(error).removeprefix(f"{own}: "))
    for file, identity in _identities(dataset):
        digest = hash_identity(identity)
        if digest in listed:
            yield Example(file, f"{identity}, {digest}")
    columns = ", ".join(f"coalesce({name}, '')" for name in COLUMNS_WITH_IDS)
    for texts in dataset.rows(f"select {columns} from dropped"):
        if any(listed_in(text, listed) for text in texts):
            yield Example(schema.DROPPED_FILE, texts[0])
    provenance = dataset.json(schema.PROVENANCE)
    if not faults("provenance", provenance):
        for entry in provenance.get("split_disagreements", []):
            if listed_in(entry["track_id"], listed):
                yield Example(schema.PROVENANCE, entry["track_id"])
