"""All rules of the contract, in the order of the report; rules.toml lists them.

A rule is a query or a test of single rows, in SQL, or a function that yields the violations.
"""

import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from emovox.validation.inspection import Inspection, RowTest
from emovox.validation.rule import ERROR, Rule
from emovox.validation.rules import (
    accounting,
    governance,
    leakage,
    references,
    structure,
    values,
)

# Module with the functions of each family; the rules about keys are all in SQL.
FUNCTIONS: dict[str, Any] = {
    "structure": structure,
    "values": values,
    "references": references,
    "splits": leakage,
    "accounting": accounting,
    "governance": governance,
}


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
    if query is not None:
        return Rule(name, family, severity, statement, partial(Inspection.query, sql=query))
    if row_test:
        test = RowTest(**row_test)
        find = partial(Inspection.failures, test=test)
        return Rule(name, family, severity, statement, find, test)
    find = getattr(FUNCTIONS[family], name.replace("-", "_"))
    return Rule(name, family, severity, statement, find, waits=waits)


_LISTED = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
RULES: tuple[Rule, ...] = tuple(
    _rule(family, name, **entry)
    for family, entries in _LISTED.items()
    for name, entry in entries.items()
)
