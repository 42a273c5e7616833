"""All rules of the contract, in the order of the report; rules.toml lists them.

A rule is a query or a test of single rows, in SQL, or a function of its name that returns the
violations.
"""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from emovox.validation.findings import Breach, Example, RowTest
from emovox.validation.inspection import Inspection
from emovox.validation.rules import contents, structure

ERROR, WARNING = "error", "warning"
ROW_TEST = {field.name for field in fields(RowTest)}
FUNCTIONS: dict[str, Any] = {}  # by name; the other rules are in SQL
for _module in (structure, contents):
    FUNCTIONS |= vars(_module)


@dataclass(frozen=True)
class Rule:
    """One rule of the contract."""

    name: str  # kebab-case; stable
    family: str  # rules about the same subject
    statement: str  # one line that is true of a valid dataset
    severity: str = ERROR  # or `warning` for data that may be right but should be looked at
    query: str | None = None  # SQL that finds the violations
    test: RowTest | None = None  # for a rule about single rows
    waits: bool = False  # `find` needs the hashes that other threads compute in the meantime

    def find(self, dataset: Inspection) -> Breach | Iterable[Example]:
        """Return the violations; raises `UnavailableError` if the data is unavailable."""
        if self.query:
            return dataset.query(self.query)
        if self.test:
            return dataset.failures(self.test)
        found: Iterable[Example] = FUNCTIONS[self.name.replace("-", "_")](dataset)
        return found


def _rules() -> Iterator[Rule]:
    """Yield the rules that rules.toml lists."""
    text = Path(__file__).with_name("rules.toml").read_text(encoding="utf-8")
    for family, entries in tomllib.loads(text).items():
        for name, entry in entries.items():
            test = {key: entry.pop(key) for key in ROW_TEST & entry.keys()}
            yield Rule(name, family, **entry, test=RowTest(**test) if test else None)


RULES = tuple(_rules())
