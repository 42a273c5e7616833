"""Rules about counts: manifest, card and data say the same numbers."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.validation.front_matter import front_matter, tables
from emovox.validation.inspection import Inspection
from emovox.validation.rule import ERROR, Example, Family, UnavailableError
from emovox.validation.rules.values import frames_by_dominant

RULES = Family("accounting")

COUNTED = ("tracks", "frames", "identities")


@RULES.check("totals", ERROR, "Totals of the manifest are those of the tables, dropped included.")
def totals(dataset: Inspection) -> Iterator[Example]:
    stated = _flat(dataset.manifest["totals"])
    counted = _flat(_count(dataset))
    for key in sorted(stated.keys() | counted.keys()):
        if stated.get(key, 0) != counted.get(key, 0):
            here, there = stated.get(key, 0), counted.get(key, 0)
            yield Example(schema.MANIFEST, f"{key}: {here:,} in the manifest, {there:,} counted")


def _count(dataset: Inspection) -> dict[str, Any]:
    by_split: dict[str, Any] = {}
    sql = "select split, count(*), count(distinct identity_id) from tracks group by split"
    for split, tracks, identities in dataset.rows(sql, ["tracks"]):
        by_split[split] = {"tracks": tracks, "identities": identities}
    for split, rows in dataset.rows(
        "select split, count(*) from frames group by split", ["frames"]
    ):
        by_split.setdefault(split, {})["frames"] = rows
    ((dropped,),) = dataset.rows("select count(*) from dropped", ["dropped"])
    whole = {key: sum(s.get(key, 0) for s in by_split.values()) for key in ("tracks", "frames")}
    return {**whole, "dropped": dropped, "by_split": by_split}


def _flat(totals: dict[str, Any]) -> dict[str, int]:
    whole = {key: value for key, value in totals.items() if key != "by_split"}
    splits = totals["by_split"].items()
    return whole | {f"{split} {key}": n for split, counts in splits for key, n in counts.items()}


@RULES.check("file-rows", ERROR, "Row counts of files in the manifest are those of the files.")
def file_rows(dataset: Inspection) -> Iterator[Example]:
    entries = dataset.entries()
    for table, split, name in dataset.tables():
        rows = dataset.footer(name).num_rows
        names = [name, schema.hdf5_file(split)] if table == "frames" else [name]
        for listed in (n for n in names if n in entries):
            stated = entries[listed]["rows"]
            if stated != rows:
                yield Example(listed, f"{stated} rows in the manifest, {rows} in {name}")


@RULES.check("card-numbers", ERROR, "The card's tables have the numbers of manifest and data.")
def card_numbers(dataset: Inspection) -> Iterator[Example]:
    rows = [row for table in tables(dataset.text(schema.CARD)) for row in table]
    yield from _split_table([row for row in rows if _holds(row, COUNTED)], dataset)
    for row in (row for row in rows if _holds(row, EMOTIONS)):
        counts = {e: _number(row[e]) for e in EMOTIONS}
        if row["split"] in schema.SPLITS and counts not in _by_emotion(dataset, row["split"]):
            numbers = ", ".join(row[e] for e in EMOTIONS)
            yield Example(schema.CARD, f"{row['split']} by emotion: {numbers}, by the data not so")


def _split_table(rows: list[dict[str, str]], dataset: Inspection) -> Iterator[Example]:
    shown = {row["split"]: row for row in rows if row["split"] in schema.SPLITS}
    by_split = dataset.manifest["totals"]["by_split"]
    for split in sorted(shown.keys() - by_split.keys()):
        yield Example(schema.CARD, f"{split} is on the card, but has no rows")
    for split, counts in by_split.items():
        for key in COUNTED:
            cell = shown.get(split, {}).get(key, "nothing")
            if _number(cell) != counts[key]:
                fault = f"{key} of {split}: {cell} on the card, {counts[key]:,} in the manifest"
                yield Example(schema.CARD, fault)


def _by_emotion(dataset: Inspection, split: str) -> list[dict[str, int]]:
    """What may stand in a row of a table by emotion: tracks by label, frames by dominant one."""
    sql = f"select label, count(*) from tracks where split = '{split}' group by label"
    labels = dict(dataset.rows(sql, ["tracks"]))
    frames = frames_by_dominant(dataset).get(split, Counter())
    return [{e: counts.get(e, 0) for e in EMOTIONS} for counts in (labels, frames)]


def _holds(row: dict[str, str], columns: tuple[str, ...]) -> bool:
    return {"split", *columns} <= row.keys()


def _number(cell: str) -> int | None:
    digits = cell.replace(",", "")
    return int(digits) if digits.isdecimal() else None


@RULES.check(
    "card-files", ERROR, "The card's front matter names exactly the tables that are there."
)
def card_files(dataset: Inspection) -> Iterator[Example]:
    try:
        content = front_matter(dataset.text(schema.CARD))
        configs = content.get("configs", []) if content else []
        named = {
            (str(config["config_name"]), str(entry["split"])): entry["path"]
            for config in configs
            for entry in config["data_files"]
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnavailableError(
            f"{schema.CARD}: the front matter does not follow its schema"
        ) from error
    there = {(t, s): name for t, s, name in dataset.tables() if t != "dropped"}
    for key in sorted(named.keys() | there.keys()):
        if named.get(key) != there.get(key):
            said, is_there = named.get(key, "nothing"), there.get(key, "nothing")
            yield Example(schema.CARD, f"{' '.join(key)}: {said} on the card, {is_there} there")
