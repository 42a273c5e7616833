"""Rules about counts: manifest, card and data give the same numbers."""

import itertools
from collections.abc import Iterator
from typing import Any

from emovox.dataset import schema
from emovox.dataset.card import tables
from emovox.validation.findings import Example, UnavailableError
from emovox.validation.inspection import Inspection

COUNTED = ("tracks", "frames", "identities")
TOTALS = """
    select split || ' tracks', count(*) from tracks group by split
    union all select split || ' identities', count(distinct identity_id) from tracks group by split
    union all select split || ' frames', count(*) from frames group by split
    union all select 'tracks', count(*) from tracks
    union all select 'frames', count(*) from frames
    union all select 'dropped', count(*) from dropped"""


def totals(dataset: Inspection) -> Iterator[Example]:
    stated = dict(dataset.manifest["totals"])
    for split, counts in stated.pop("by_split").items():
        stated |= {f"{split} {key}": count for key, count in counts.items()}
    counted = dict(dataset.rows(TOTALS))
    for key in sorted(stated.keys() | counted.keys()):
        listed, found = stated.get(key, 0), counted.get(key, 0)
        if listed != found:
            yield Example(schema.MANIFEST, f"{key}: {listed:,} in the manifest, {found:,} counted")


def file_rows(dataset: Inspection) -> Iterator[Example]:
    entries = dataset.entries
    for table, split, name in dataset.tables:
        rows = dataset.footer(name).num_rows
        names = [name, schema.hdf5_file(split)] if table == "frames" else [name]
        for listed in (n for n in names if n in entries):
            stated = entries[listed]["rows"]
            if stated != rows:
                yield Example(listed, f"{stated} rows in the manifest, {rows} in {name}")


def card_numbers(dataset: Inspection) -> Iterator[Example]:
    rows = [row for table in tables(dataset.text(schema.CARD)) for row in table if "split" in row]
    by_size = [row for row in rows if row.keys() >= set(COUNTED)]
    shown = {row["split"]: row for row in by_size}
    by_split = dataset.manifest["totals"]["by_split"]
    for split in sorted(shown.keys() & set(schema.SPLITS) - by_split.keys()):
        yield Example(schema.CARD, f"{split} is on the card, but has no rows")
    for split, key in itertools.product(by_split, COUNTED):
        cell, count = shown.get(split, {}).get(key, "missing"), by_split[split][key]
        if _number(cell) != count:
            fault = f"{key} of {split}: {cell} on the card, {count:,} in the manifest"
            yield Example(schema.CARD, fault)
    emotions = dataset.contract.outputs.emotions
    for row in (row for row in rows if row.keys() >= set(emotions)):
        split, counts = row["split"], [_number(row[emotion]) for emotion in emotions]
        if split in schema.SPLITS and counts not in _count_emotions(dataset, split):
            numbers = ", ".join(row[emotion] for emotion in emotions)
            yield Example(
                schema.CARD, f"{split}: counts by emotion differ from the data: {numbers}"
            )


def _count_emotions(dataset: Inspection, split: str) -> Iterator[list[int | None]]:
    """Yield the counts that a table by emotion may show: tracks by label, frames by argmax."""
    for source in (
        f"label, count(*) from tracks where split = '{split}' group by label",
        f"emotion, num_frames from argmax_counts where split = '{split}'",
    ):
        counts = dict(dataset.rows(f"select {source}"))
        yield [counts.get(emotion, 0) for emotion in dataset.contract.outputs.emotions]


def _number(cell: str) -> int | None:
    digits = cell.replace(",", "")
    return int(digits) if digits.isdecimal() else None


def card_files(dataset: Inspection) -> Iterator[Example]:
    found = {(table, split): name for table, split, name in dataset.tables if table != "dropped"}
    listed = _listed_tables(dataset.card_header())
    for key in sorted(listed.keys() | found.keys()):
        if listed.get(key) != found.get(key):
            fault = f"{listed.get(key, 'missing')} on the card, {found.get(key, 'missing')} on disk"
            yield Example(schema.CARD, f"{' '.join(key)}: {fault}")


def _listed_tables(header: Any) -> dict[tuple[str, str], str]:
    """Return the paths in the card's front matter, by table and split."""
    try:
        return {
            (str(config["config_name"]), str(entry["split"])): entry["path"]
            for config in (header or {}).get("configs", [])
            for entry in config["data_files"]
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnavailableError(f"{schema.CARD}: front matter violates its schema") from error
