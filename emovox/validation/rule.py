"""Rules of the contract."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emovox.validation.findings import Breach, Example
from emovox.validation.inspection import Inspection, RowTest

ERROR, WARNING = "error", "warning"
Find = Callable[[Inspection], Breach | Iterable[Example]]


@dataclass(frozen=True)
class Rule:
    """One rule of the contract."""

    name: str  # kebab-case; stable
    family: str  # see `rules.FUNCTIONS`
    severity: str  # `error`, or `warning` for data that may be right but should be looked at
    statement: str  # one line that is true of a valid dataset
    find: Find  # returns the violations; raises `UnavailableError` if the data is unavailable
    test: RowTest | None = None  # that `find` evaluates, for a rule about single rows
    waits: bool = False  # `find` needs the hashes that other threads compute in the meantime
