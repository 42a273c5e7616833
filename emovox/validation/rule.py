"""Rules of the contract, and the ways to define one: a function, a query, a test of single rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from emovox.validation.findings import Breach, Example
from emovox.validation.inspection import Inspection, RowTest

ERROR, WARNING = "error", "warning"
Sql = str | Callable[[Inspection], str]


@dataclass(frozen=True)
class Rule:
    """One rule of the contract.

    Attributes:
        name: kebab-case; stable.
        family: `structure`, `values`, `keys`, `references`, `splits`, `accounting`, `governance`.
        severity: `error`, or `warning` for data that may be right but should be looked at.
        statement: one line that is true of a valid dataset.
        check: returns the violations; raises `UnavailableError` if it cannot.
        test: the test that `check` evaluates, for a rule about single rows.
        waits: `check` needs the hashes that other threads compute in the meantime.
    """

    name: str
    family: str
    severity: str
    statement: str
    check: Callable[[Inspection], Breach]
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
    ) -> Callable[[Callable[[Inspection], Iterable[Example]]], None]:
        """Decorate a generator of examples, which becomes a rule."""

        def register(find: Callable[[Inspection], Iterable[Example]]) -> None:
            def check(dataset: Inspection) -> Breach:
                return Breach.of(find(dataset))

            self.rules.append(Rule(name, self.name, severity, statement, check, waits=waits))

        return register

    def query(
        self, name: str, statement: str, severity: str = ERROR, *, table: str, sql: Sql
    ) -> None:
        """Add a rule whose violations a query finds; see `Inspection.query`."""

        def check(dataset: Inspection) -> Breach:
            return dataset.query(sql if isinstance(sql, str) else sql(dataset), table)

        self.rules.append(Rule(name, self.name, severity, statement, check))

    def rows(self, name: str, statement: str, test: RowTest, severity: str = ERROR) -> None:
        """Add a rule about single rows."""

        def check(dataset: Inspection) -> Breach:
            return dataset.failures(test)

        self.rules.append(Rule(name, self.name, severity, statement, check, test))
