"""Rules about the rows, references between them, and people: no names of persons or machines."""

import contextlib
import getpass
import re
import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from emovox.corpus.splits import official_split
from emovox.corpus.voxceleb import SETS_LIST, read_names, read_official_split
from emovox.dataset import schema
from emovox.dataset.card import headings
from emovox.dataset.json_schemas import faults, listed_hash
from emovox.dataset.store import read_array
from emovox.dataset.takedown import COLUMNS_WITH_IDS, hash_identity, listed_in, read_list
from emovox.errors import InputError, find_secrets
from emovox.ids import ABSOLUTE_PATH, TrackKey
from emovox.validation.findings import Breach, Example, NotApplicableError, UnavailableError
from emovox.validation.inspection import Inspection

MAX_SHARE_OF_RARE = 0.2  # of disgust and contempt together


def no_nulls(dataset: Inspection) -> Iterator[Example]:
    for table, split, name in dataset.tables:
        # Only columns that Parquet declares nullable can contain a null.
        nullable = {field.name for field in dataset.columns(name) if field.nullable}
        for field in dataset.expected(table, name):
            if field.nullable or field.name not in nullable:
                continue
            column = "stated_split" if field.name == "split" else field.name
            sql = f"select row from {table} where split = '{split}' and {column} is null"
            for (row,) in dataset.rows(sql):
                yield Example(name, f"row {row}: {field.name} is null")


def emotion_order(dataset: Inspection) -> Iterator[Example]:
    emotions = dataset.contract.outputs.emotions
    if not {"neutral", "disgust", "contempt"} <= {*emotions}:
        raise NotApplicableError("the dataset has other emotions")
    counts: Counter[str] = Counter()
    for emotion, num_frames in dataset.rows("select emotion, num_frames from argmax_counts"):
        counts[emotion] += num_frames
    if not counts:
        return
    shares = {emotion: counts[emotion] / counts.total() for emotion in emotions}
    shown = ", ".join(f"{emotion} {share:.1%}" for emotion, share in shares.items())
    if shares["neutral"] < max(shares.values()):
        yield Example(schema.MANIFEST, f"neutral is not the most frequent argmax: {shown}")
    if shares["disgust"] + shares["contempt"] > MAX_SHARE_OF_RARE:
        yield Example(schema.MANIFEST, f"disgust and contempt are frequent: {shown}")


def _compare_keys(dataset: Inspection, other: str) -> Breach:
    """Return the rows of a table with other keys than the same row of `frames`."""
    splits = [split for table, split, _ in dataset.tables if table == other]
    if not splits:
        raise NotApplicableError(f"the dataset has no table {other}")
    queries = [
        f"""select '{split}' as split, concat('row ', row, ': ', track_id, ' frame ', frame_index,
            ' in frames, ', face_id, ' frame ', face_index, ' in {other}') as text
        from (select track_id as face_id, frame_index as face_index from {other}_{split})
            positional join (select row, track_id, frame_index from frames_{split})
        where track_id is distinct from face_id or frame_index is distinct from face_index"""
        for split in splits
    ]
    return dataset.query(" union all ".join(queries))


faces_match_frames = partial(_compare_keys, other="faces")
embeddings_match_frames = partial(_compare_keys, other="embeddings")


def content_hashes(dataset: Inspection) -> Iterator[Example]:
    for _, _, name in dataset.tables:
        listed = listed_hash(dataset.manifest, name) or "missing"
        try:
            found = dataset.content(name)
        except UnavailableError:
            continue  # reported by `readable`
        stated = dataset.metadata(name).get("emovox.content_sha256", "missing")
        if found != stated:
            yield Example(name, f"content hash is {found}, in the metadata {stated}")
        if found != listed:
            yield Example(name, f"content hash is {found}, in the manifest {listed}")


def hdf5_content(dataset: Inspection) -> Iterator[Example]:
    for split, name in dataset.hdf5_files:
        frames = schema.table_file("frames", split)
        listed, found = listed_hash(dataset.manifest, name) or "missing", dataset.content(name)
        if found != (expected := dataset.content(frames)):
            yield Example(name, f"content hash is {found}, that of {frames} {expected}")
        elif found != listed:
            yield Example(name, f"content hash is {found}, in the manifest {listed}")


def hdf5_tracks(dataset: Inspection) -> Iterator[Example]:
    for split, name in dataset.hdf5_files:
        with dataset.hdf5(name) as file:
            arrays = {c: read_array(file, path) for path, c in schema.HDF5_TRACKS.items()}
            attributes = {key: str(value) for key, value in file.attrs.items()}
        for column, values in arrays.items():
            rows = dataset.rows(f"select {column} from tracks_{split} order by row")
            if values.tolist() != [value for (value,) in rows]:
                yield Example(name, f"{column} differs from the table tracks")
        metadata = dataset.metadata(schema.table_file("frames", split))
        for key in schema.file_metadata("", split, dataset.contract.outputs, ""):
            if attributes.get(key) != metadata.get(key, ""):
                yield Example(name, f"attribute {key} is {attributes.get(key)!r}")


def official_lists(dataset: Inspection) -> Iterator[Example]:
    known = _known_disagreements(dataset.json(schema.PROVENANCE))
    if dataset.meta is None:
        raise NotApplicableError("official lists not given; pass their folder with --meta")
    if not (dataset.meta / SETS_LIST).is_file():
        raise NotApplicableError(f"{SETS_LIST} is missing in the folder of --meta")
    lists = read_official_split(dataset.meta)
    columns = "split, identity_id, video_id, track_num, track_id"
    for split, identity, video, number, track_id in dataset.rows(f"select {columns} from tracks"):
        listed = official_split(TrackKey(identity, video, number), lists)
        if listed != split and track_id not in known:
            shown = f"is in {split}, but {listed or 'missing'} in the official lists"
            yield Example(schema.table_file("tracks", split), f"{track_id}: {shown}")


def _known_disagreements(provenance: Any) -> set[str]:
    """Return the tracks for which the published file and the lists give different splits."""
    content = provenance if isinstance(provenance, dict) else {}
    if content.get("anonymised"):
        raise NotApplicableError("the dataset has random ids in place of those of the lists")
    config = content.get("config")
    if isinstance(config, dict) and config.get("splits") == "official":
        return set()
    if not content.get("imported_from"):
        raise NotApplicableError(f"{schema.PROVENANCE} does not claim the official split")
    listed = content.get("split_disagreements")
    return {str(entry.get("track_id")) for entry in listed or [] if isinstance(entry, dict)}


ACCOUNT = re.compile(r"\b[A-Za-z_][\w.-]*@[A-Za-z][\w.-]*")
COMMON_NAMES = {"root", "user", "runner", "ubuntu", "admin", "localhost", "build", "docker", "test"}
MIN_NAME = 4  # characters; shorter names of users and persons occur by chance

# Documents with texts of a maintainer, which may name an address.
FREE_TEXTS = (schema.CARD, schema.CARD_FIELDS, schema.CROISSANT)
DOCUMENTS = (*FREE_TEXTS, schema.PROVENANCE, schema.MANIFEST)


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
        for pattern in own if name in FREE_TEXTS else [*own, ACCOUNT]:
            if match := pattern.search(line):
                yield Example(name, match[0])


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
