"""All rules of the contract, in the order of the report; rules.toml lists them.

A rule is a query or a test of single rows, in SQL, or a function of its name that returns the
violations.
"""

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emovox.validation.findings import Breach, Example, RowTest
from emovox.validation.inspection import Inspection
from emovox.validation.rules import contents, structure

ERROR, WARNING = "error", "warning"
FUNCTIONS: dict[str, Any] = {}  # by name; the other rules are in SQL
for _module in (structure, contents):
    FUNCTIONS |= vars(_module)


@dataclass(frozen=True)
class Rule:
    """One rule of the contract."""

    name: str  # kebab-case; stable
    family: str  # rules about the same subject
    severity: str  # `error`, or `warning` for data that may be right but should be looked at
    statement: str  # one line that is true of a valid dataset
    # Returns the violations; raises `UnavailableError` if the data is unavailable
    find: Callable[[Inspection], Breach | Iterable[Example]]
    test: RowTest | None = None  # that `find` evaluates, for a rule about single rows
    waits: bool = False  # `find` needs the hashes that other threads compute in the meantime


def _rule(
    family: str,
    name: str,
    statement: str,
    severity: str = ERROR,
    query: str | None = None,
    waits: bool = False,
    **row_test: Any,
) -> Rule:
    """Return a rule from its entry in rules.toml."""
    test = RowTest(**row_test) if row_test else None
    if query:
        find = partial(Inspection.query, sql=query)
    elif test:
        find = partial(Inspection.failures, test=test)
    else:
        find = FUNCTIONS[name.replace("-", "_")]
    return Rule(name, family, severity, statement, find, test, waits)


_LISTED = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
RULES: tuple[Rule, ...] = tuple(
    _rule(family, name, **entry)
    for family, entries in _LISTED.items()
    for name, entry in entries.items()
)
