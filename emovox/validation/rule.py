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
    """One rule of the contract.

    Attributes:
        name: kebab-case; stable.
        family: `structure`, `values`, `keys`, `references`, `splits`, `accounting`, `governance`.
        severity: `error`, or `warning` for data that may be right but should be looked at.
        statement: one line that is true of a valid dataset.
        find: returns the violations; raises `UnavailableError` if the data is unavailable.
        test: the test that `find` evaluates, for a rule about single rows.
        waits: `find` needs the hashes that other threads compute in the meantime.
    """

    name: str
    family: str
    severity: str
    statement: str
    find: Find
    test: RowTest | None = None
    waits: bool = False


@dataclass
class Family:
    """The rules of one module; each method adds one.

    Attributes:
        name: see `Rule`.
        rules: in the order of the report.
    """

    name: str
    rules: list[Rule] = field(default_factory=list)

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
