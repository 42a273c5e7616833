"""What a rule is: a name, a severity, a statement, and a query or a check that finds breaches."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emovox.dataset import schema

if TYPE_CHECKING:
    from emovox.validation.inspection import Inspection

ERROR, WARNING = "error", "warning"
MAX_EXAMPLES = 20  # shown of one rule


class UnavailableError(Exception):
    """What a rule needs is missing or damaged: it is skipped, and the dataset is not valid.

    The message says what and why. Never leaves `validate`.
    """


class NotApplicableError(UnavailableError):
    """A rule has nothing to ask here, or needs what was not given: it is skipped, no harm done."""


@dataclass(frozen=True)
class Example:
    """One thing that breaks a rule: a file below the dataset, and what is wrong in it."""

    file: str
    text: str


@dataclass(frozen=True)
class Breach:
    """Everything that breaks a rule: how many things, and the first few."""

    count: int = 0
    examples: tuple[Example, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Example]) -> "Breach":
        every = list(found)
        return cls(len(every), tuple(every[:MAX_EXAMPLES]))


@dataclass(frozen=True)
class RowTest:
    """A test of the rows of one table, in SQL; all of a table are counted in one pass over it.

    Attributes:
        table: `frames`, `tracks` or `faces`.
        where: true for a row that breaks the rule. `previous_<column>` is the row before in the
            file, `row` the row's number and `{step_ms}` the manifest's step.
        shows: the example's text.
        share: of the rows of a file that may break it.
    """

    table: str
    where: str
    shows: str
    share: float = 0.0


@dataclass(frozen=True)
class Rule:
    """One rule of the contract.

    Attributes:
        name: kebab-case, stable.
        family: `structure`, `values`, `keys`, `references`, `splits`, `accounting`, `governance`.
        severity: `error`, or `warning` for what may be right and wants a look.
        statement: what holds in a valid dataset, one line.
        check: finds what breaks it; raises `UnavailableError` where it cannot be asked.
        rows: the test behind `check`, for a rule about single rows.
        waits: `check` needs the hashes that other threads compute meanwhile.
    """

    name: str
    family: str
    severity: str
    statement: str
    check: Callable[["Inspection"], Breach]
    rows: RowTest | None = None
    waits: bool = False


Sql = str | Callable[["Inspection"], str]


@dataclass
class Family:
    """Collects the rules of one module."""

    name: str
    rules: list[Rule] = field(default_factory=list)

    def check(
        self, name: str, severity: str, statement: str, *, waits: bool = False
    ) -> Callable[[Callable[["Inspection"], Iterable[Example]]], None]:
        """Make a rule of a generator of examples."""

        def register(find: Callable[["Inspection"], Iterable[Example]]) -> None:
            def check(dataset: "Inspection") -> Breach:
                return Breach.of(find(dataset))

            self.rules.append(Rule(name, self.name, severity, statement, check, waits=waits))

        return register

    def query(self, name: str, severity: str, statement: str, *, needs: str, sql: Sql) -> None:
        """Make a rule of SQL that returns `split` and `text` of every breach.

        Args:
            sql: the query, or what makes it for a dataset.
            needs: tables, by spaces, whose views `sql` reads; an example's file is that of the
                first. `per_track` is the summary of `frames`.
        """
        tables = needs.split()

        def check(dataset: "Inspection") -> Breach:
            return dataset.query(sql if isinstance(sql, str) else sql(dataset), tables)

        self.rules.append(Rule(name, self.name, severity, statement, check))

    def rows(
        self,
        name: str,
        severity: str,
        statement: str,
        *,
        table: str,
        where: str,
        shows: str,
        share: float = 0.0,
    ) -> None:
        """Make a rule of a test of single rows."""

        def check(dataset: "Inspection") -> Breach:
            return dataset.rows_breaking(name, table)

        test = RowTest(table, where, shows, share)
        self.rules.append(Rule(name, self.name, severity, statement, check, test))


def file_of(table: str, split: str) -> str:
    """The file an example is in."""
    return schema.DROPPED_FILE if table == "dropped" else schema.table_file(table, split)
