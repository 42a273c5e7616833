"""All rules of the contract, in the order of the report."""

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

MODULES = (structure, values, keys, references, leakage, accounting, governance)
RULES: tuple[Rule, ...] = tuple(rule for module in MODULES for rule in module.RULES.rules)
