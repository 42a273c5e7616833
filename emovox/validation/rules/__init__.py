"""Every rule of the contract, in the order of the report."""

from emovox.validation.rule import Rule
from emovox.validation.rules import (
    accounting,
    governance,
    keys,
    leakage,
    references,
    structure,
    values,
)

FAMILIES = (
    structure.RULES,
    values.RULES,
    keys.RULES,
    references.RULES,
    leakage.RULES,
    accounting.RULES,
    governance.RULES,
)
RULES: tuple[Rule, ...] = tuple(rule for family in FAMILIES for rule in family.rules)
