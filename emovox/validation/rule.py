"""Rules of the contract, and the ways to define one: a function, a query, a test of single rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from emovox.validation.findings import Breach, Example
from emovox.validation.inspection import Inspection, RowTest

ERROR, WARNING = "error", "warning"
Find = Callable[[Inspection], Breach | Iterable[Example]]


@dataclass(frozen=True)
class Rule:
    """One rule of the contract."""

    name: str  # kebab-case; stable
    family: str  # see `Family`
    severity: str  # `error`, or `warning` for data that may be right but should be looked at
    statement: str  # one line that is true of a valid dataset
    find: Find  # returns the violations; raises `UnavailableError` if the data is unavailable
    test: RowTest | None = None  # that `find` evaluates, for a rule about single rows
    waits: bool = False  # `find` needs the hashes that other threads compute in the meantime


@dataclass
class Family:
    """The rules of one module; each method adds one."""

    name: str
    rules: list[Rule] = field(default_factory=list)  # in the order of the report

    def check(
        self, name: str, statement: str, severity: str = ERROR, *, waits: bool = False
    ) -> Callable[[Find], None]:
        """Decorate a function that returns the violations, which becomes a rule."""

        def register(find: Find) -> None:
            self.rules.append(Rule(name, self.name, severity, statement, find, waits=waits))

        return register

    def query(self, name: str, statement: str, sql: str, severity: str = ERROR) -> None:
        """Add a rule whose violations a query finds; see `Inspection.query`."""
        find = partial(Inspection.query, sql=sql)
        self.rules.append(Rule(name, self.name, severity, statement, find))

    def rows(
        self, name: str, statement: str, *sql: str, severity: str = ERROR, share: float = 0.0
    ) -> None:
        """Add a rule about single rows; `sql` and `share` are arguments of `RowTest`."""
        test = RowTest(*sql, share=share)
        find = partial(Inspection.failures, test=test)
        self.rules.append(Rule(name, self.name, severity, statement, find, test))
