"""Card of a dataset, README.md, generated from its data so that its numbers are always right."""

import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from emovox.config import Options, read_config
from emovox.dataset import schema
from emovox.dataset.json_schemas import outputs_of, read_document, read_manifest, tables_of
from emovox.dataset.store import DAMAGED, matrix_of, open_table, read_rows, reading
from emovox.emotions import Outputs
from emovox.errors import CheckError, ConfigError, InputError, find_secrets, first_line
from emovox.files import read_text
from emovox.ids import ABSOLUTE_PATH, printable
from emovox.limits import MAX_FRONT_MATTER, MAX_NESTING

TEXTS = tomllib.loads(Path(__file__).with_name("card_texts.toml").read_text(encoding="utf-8"))
# Texts that the Croissant metadata of a dataset has too.
CITATION, TAGS = TEXTS["citation"], TEXTS["tags"]
REAL, SYNTHETIC = TEXTS["real"], TEXTS["synthetic"]  # purpose and limits: `use`, `people` ...
PRIVATE = "contains an absolute path, a password, a token or a control character"
LANGUAGE = re.compile(r"(?ai)[a-z]{2,3}(-[a-z]{3,4}){0,2}(-([a-z]{2}|\d{3}))?(-[a-z\d]{4,8})*")


@dataclass(frozen=True)
class CardFields(Options):
    """Facts about a dataset that its maintainer states in card.toml; all are optional.

    Attributes:
        licence: Of the rows, an id of the Hugging Face Hub such as `cc-by-4.0`, or `other`.
        contact: For questions, such as an address.
        citation: BibTeX or text, beside that of the paper.
        description: Of the dataset, before its numbers.
        languages: Spoken in the tracks, as BCP 47 codes.
    """

    licence: str = "other"
    contact: str = ""
    citation: str = ""
    description: str = ""
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.licence not in TEXTS["licences"]:
            example = "an id of the Hugging Face Hub, such as cc-by-4.0, odbl or other"
            raise ConfigError(f"licence {self.licence!r}: not {example}")
        if wrong := [code for code in self.languages if not LANGUAGE.fullmatch(code)]:
            raise ConfigError(f"languages {wrong[0]!r}: not a BCP 47 code, such as en or pt-BR")
        for name in ("contact", "citation", "description"):
            text = re.sub(r"[\n\t]", " ", getattr(self, name))
            if printable(text) != text or ABSOLUTE_PATH.search(text) or find_secrets(text):
                raise ConfigError(f"{name}: {PRIVATE}; remove it")

    @property
    def terms(self) -> str:
        """Text on the licence of the rows and of the media."""
        is_stated = self.licence not in ("other", "unknown")
        return str(TEXTS["licensed"].format(self.licence) if is_stated else TEXTS["licence"])


def read_fields(
    root: str | os.PathLike[str], card: str | os.PathLike[str] | None = None
) -> CardFields:
    """Return the fields in the TOML file `card`, by default card.toml of a dataset, if it exists.

    Raises:
        ConfigError: the file is unreadable, has an unknown key, or a value that is not valid.
    """
    path = Path(card or Path(root, schema.CARD_FIELDS))
    if card and not path.is_file():  # `read_config` would look for a recipe of this name
        raise ConfigError(f"{path}: file not found")
    return read_config(CardFields, path) if path.is_file() else CardFields()


def limits(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the limits of a dataset; `config.synthetic` of its provenance means no real faces."""
    config = provenance.get("config")
    if isinstance(config, dict) and config.get("synthetic"):
        return dict(SYNTHETIC)
    return REAL | ({"people": TEXTS["anonymised"]} if provenance.get("anonymised") else {})


def summary(manifest: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return a description of the dataset and of the origin of its rows."""
    totals = manifest["totals"]
    frames = f"Emotion logits of {totals['frames']:,} frames, one every {manifest['step_ms']} ms"
    return f"{frames}, of {totals['tracks']:,} tracks. {provenance['origin']}"


def missing(manifest: Mapping[str, Any]) -> str:
    """Return the number of dropped tracks, and a note if a takedown list was applied."""
    num_dropped = manifest["totals"]["dropped"]
    text = f"{num_dropped:,} tracks gave no rows; `{schema.DROPPED_FILE}` says why."
    if schema.TAKEDOWN in {file["path"] for file in manifest["files"]}:
        text += f" Identities that `{schema.TAKEDOWN}` lists, by hash, were taken out."
    return text


def count(root: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Counter[str]]]:
    """Count tracks by label (`labels`) and `frames` by dominant emotion, for each split."""
    counted, emotions = {}, outputs_of(manifest).emotions
    columns = schema.columns(Outputs(emotions)).logits
    for split in manifest["totals"]["by_split"]:
        labels = read_rows(root / schema.table_file("tracks", split), ["label"])["label"]
        path, dominant = root / schema.table_file("frames", split), Counter[str]()
        frames = open_table(path, memory_map=False)  # mapped pages count as memory of the process
        for batch in frames.iter_batches(schema.ROW_GROUP_ROWS, columns=list(columns)):
            found = np.bincount(matrix_of(batch, columns).argmax(axis=1), minlength=len(emotions))
            dominant.update(dict(zip(emotions, found.tolist(), strict=True)))
        counted[split] = {"labels": Counter(labels.to_pylist()), "frames": dominant}
    return counted


def render_card(
    root: Path, manifest: Mapping[str, Any], provenance: Mapping[str, Any], fields: CardFields
) -> str:
    """Return the text of the card of the tables in `root`.

    `provenance` is the content of provenance.json: `origin` is a sentence on the source of the
    rows, and `teacher` may have an `accuracy`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # slow to import

    blocks: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    loader = PackageLoader("emovox.dataset")
    environment = Environment(loader=loader, undefined=StrictUndefined, **blocks)
    counts = count(root, manifest)
    environment.filters["commas"] = "{:,}".format
    environment.filters["json"] = partial(json.dumps, ensure_ascii=False)  # JSON is valid YAML
    return environment.get_template("card.md").render(
        manifest=manifest,
        provenance=provenance,
        counts=counts,
        splits=[split for split in schema.SPLITS if split in counts],
        empty=[split for split in schema.SPLITS if split not in counts],
        tables=tables_of(manifest),
        table_file=schema.table_file,
        limits=limits(provenance),
        summary=summary(manifest, provenance),
        missing=missing(manifest),
        tags=TAGS,
        citation=CITATION,
        fields=fields,
        codes=sorted({code.split("-")[0].lower() for code in fields.languages}),
    )


def card_of(root: str | os.PathLike[str], card: str | os.PathLike[str] | None = None) -> str:
    """Return the right card of a dataset, see `read_fields`; InputError if it is damaged."""
    from jinja2 import UndefinedError  # slow to import

    root, fields = Path(root), read_fields(root, card)
    manifest, provenance = read_manifest(root), read_document(root, schema.PROVENANCE)
    try:
        return render_card(root, manifest, provenance, fields)
    except (*DAMAGED, UndefinedError) as error:
        raise InputError(f"{root}: not a complete dataset ({first_line(error)})") from error


def check_card(root: str | os.PathLike[str], card: str | os.PathLike[str] | None = None) -> None:
    """Check that the card of a dataset agrees with its data.

    Raises:
        InputError, ConfigError: see `card_of`.
        CheckError: they differ; the message shows the first line that does.
    """
    path = Path(root) / schema.CARD
    with reading(path):
        found = read_text(path).splitlines()
    expected = card_of(root, card).splitlines()
    for number, (line, right) in enumerate(zip_longest(found, expected, fillvalue=""), start=1):
        if line != right:
            raise CheckError(
                f"{path}: line {number} differs from the data: is {line!r}, expected {right!r}; "
                f"`emovox card {root}` prints the expected card"
            )


FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)


def front_matter(text: str) -> Any:
    """Return the content of the YAML block at the start of a card; ValueError if it is not YAML."""
    import yaml

    match = FRONT_MATTER.match(text)
    if match is None:
        raise ValueError("front matter between lines of --- is missing")
    if len(match[1]) > MAX_FRONT_MATTER:
        raise ValueError(f"front matter has more than {MAX_FRONT_MATTER:,} characters")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # some builds lack the faster one
    depth = 0
    try:
        for event in yaml.parse(match[1], loader):
            if isinstance(event, yaml.AliasEvent):  # a few of them can stand for gigabytes
                raise ValueError("front matter has an alias; write its content instead")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_NESTING:
                raise ValueError("front matter is nested too deeply")
        return yaml.load(match[1], loader)
    except (yaml.YAMLError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"front matter is not YAML: {' '.join(str(error).split())}") from error


def headings(text: str) -> list[str]:
    """Return the text of every heading, in lower case."""
    body = FRONT_MATTER.sub("", text)
    return [line.lstrip("#").strip().lower() for line in body.splitlines() if line.startswith("#")]
