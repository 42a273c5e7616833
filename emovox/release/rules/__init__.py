"""Every rule of the contract, in the order of the report."""

from emovox.release.rule import Rule
from emovox.release.rules import (
    accounting,
    governance,
    keys,
    references,
    splits,
    structure,
    values,
)

FAMILIES = (
    structure.RULES,
    values.RULES,
    keys.RULES,
    references.RULES,
    splits.RULES,
    accounting.RULES,
    governance.RULES,
)
RULES: tuple[Rule, ...] = tuple(rule for family in FAMILIES for rule in family.rules)
