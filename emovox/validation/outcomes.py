"""Check a dataset against every rule of the contract; report as text, JSON, JUnit or GitHub's."""

import json
import os
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from emovox.ids import printable, printable_text
from emovox.packages import DataFrame, data_frame
from emovox.validation import findings
from emovox.validation.findings import MAX_EXAMPLES, Breach, Example, RowTest
from emovox.validation.inspection import Inspection
from emovox.validation.rules import contents, structure

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
REPORTED = ("name", "family", "severity", "statement")  # attributes of a rule


ERROR, WARNING = "error", "warning"
ROW_TEST = {field.name for field in fields(RowTest)}
FUNCTIONS: dict[str, Any] = {}  # by name; the other rules are in SQL
for _module in (structure, contents):
    FUNCTIONS |= vars(_module)


@dataclass(frozen=True)
class Rule:
    """One rule of the contract."""

    name: str  # kebab-case; stable
    family: str  # rules about the same subject
    statement: str  # one line that is true of a valid dataset
    severity: str = ERROR  # or `warning` for data that may be right but should be looked at
    query: str | None = None  # SQL that finds the violations
    test: RowTest | None = None  # for a rule about single rows
    waits: bool = False  # `find` needs the hashes that other threads compute in the meantime

    def find(self, dataset: Inspection) -> Breach | Iterable[Example]:
        """Return the violations; raises `UnavailableError` if the data is unavailable."""
        if self.query:
            return dataset.query(self.query)
        if self.test:
            return dataset.failures(self.test)
        found: Iterable[Example] = FUNCTIONS[self.name.replace("-", "_")](dataset)
        return found


def _rules() -> Iterator[Rule]:
    """Yield the rules that rules.toml lists."""
    text = Path(__file__).with_name("rules").joinpath("rules.toml").read_text(encoding="utf-8")
    for family, entries in tomllib.loads(text).items():
        for name, entry in entries.items():
            test = {key: entry.pop(key) for key in ROW_TEST & entry.keys()}
            yield Rule(name, family, **entry, test=RowTest(**test) if test else None)


RULES = tuple(_rules())


@dataclass(frozen=True)
class Outcome:
    """Result of one rule."""

    rule: Rule  # the rule
    status: str  # `passed`, `failed` or `skipped`
    breach: Breach = field(default_factory=Breach)  # the violations
    reason: str | None = None  # why the rule was skipped
    blocked: bool = False  # missing or damaged data prevented the check

    @property
    def kind(self) -> str:
        """The status, or the severity of a rule that failed."""
        return self.rule.severity if self.status == FAILED else self.status


@dataclass(frozen=True, repr=False)
class Validation:
    """Result of the validation of one dataset."""

    path: Path  # folder of the dataset, as given
    manifest: dict[str, Any]  # content of its manifest.json
    outcomes: Sequence[Outcome]  # one per rule, in the order of the rules
    strict: bool  # warnings count as errors
    seconds: float  # duration of the validation

    def __repr__(self) -> str:
        return f"<Validation of {self.summary()}>"

    def summary(self) -> str:
        """Return the verdict and the number of rules by outcome, in one line."""
        verdict = "valid" if self.valid else "not valid"
        counts = self.counts
        shown = [f"{counts[PASSED]} rules passed"]
        for kind in (ERROR, WARNING):
            if num := counts[kind]:
                shown.append(f"{num} {kind}{'s' if num > 1 else ''}")
        shown += [f"{counts[SKIPPED]} skipped"] if counts[SKIPPED] else []
        return f"{self.path}: {verdict}: {', '.join(shown)}, in {self.seconds:.1f} s"

    @property
    def counts(self) -> Counter[str]:
        """Number of rules by `Outcome.kind`."""
        return Counter(outcome.kind for outcome in self.outcomes)

    @property
    def valid(self) -> bool:
        """True if every rule of severity `error` passed or does not apply.

        With `strict`, no rule of severity `warning` may fail either.
        """
        if any(outcome.blocked and outcome.rule.severity == ERROR for outcome in self.outcomes):
            return False
        return not self.counts[ERROR] and not (self.strict and self.counts[WARNING])

    def failed(self, severity: str = ERROR) -> list[str]:
        """Return the names of the rules of a severity that failed."""
        return [outcome.rule.name for outcome in self.outcomes if outcome.kind == severity]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data that follows schemas/validation.json."""
        counts = self.counts
        return {
            "report_version": 1,
            "dataset": {
                "path": printable(str(self.path)),
                "name": printable(str(self.manifest["name"])),
                "version": printable(str(self.manifest["version"])),
            },
            "valid": self.valid,
            "strict": self.strict,
            "seconds": round(self.seconds, 3),
            "counts": {
                "passed": counts[PASSED],
                "errors": counts[ERROR],
                "warnings": counts[WARNING],
                "skipped": counts[SKIPPED],
            },
            "rules": [
                {
                    **{key: getattr(outcome.rule, key) for key in REPORTED},
                    "status": outcome.status,
                    "reason": outcome.reason,
                    "count": outcome.breach.count,
                    "examples": [asdict(example) for example in outcome.breach.examples],
                }
                for outcome in self.outcomes
            ],
        }

    def to_pandas(self) -> DataFrame:
        """Return a DataFrame with one row per rule; MissingPackageError without pandas.

        Its columns are name, family, severity, outcome, count (of violations) and first_example.
        """
        columns = ["name", "family", "severity", "outcome", "count", "first_example"]
        rows = [
            (
                *(outcome.rule.name, outcome.rule.family, outcome.rule.severity, outcome.status),
                outcome.breach.count,
                next(map(str, outcome.breach.examples), None),
            )
            for outcome in self.outcomes
        ]
        return data_frame(rows, columns)


def validate(
    path: str | os.PathLike[str],
    *,
    meta: str | os.PathLike[str] | None = None,
    takedown: str | os.PathLike[str] | None = None,
    strict: bool = False,
    rules: Sequence[Rule] = RULES,
) -> Validation:
    """Check every rule on every row of a dataset.

    Args:
        path: folder of the dataset.
        meta: folder of vox1_meta.csv and the official lists, for the rules that need them.
        takedown: file with the SHA-256 of an identity_id per line; none of them may occur.
        strict: count warnings as errors.
        rules: rules to check.

    Raises:
        InputError: `path` is not a dataset of this contract version, or `meta` or `takedown`
            cannot be read.

    Example:
        >>> validation = validate("emovox-demo/dataset")
        >>> validation.valid, validation.failed()
        (True, [])
    """
    started = time.perf_counter()
    root = Path(path)
    tests = [rule.test for rule in rules if rule.test]
    lists = (None if given is None else Path(given) for given in (meta, takedown))
    with Inspection(root, tests, *lists) as dataset:
        # Rules that need hashes come last: other threads compute these in the meantime.
        in_order = sorted(rules, key=lambda rule: rule.waits)
        outcomes = {rule.name: _check(rule, dataset) for rule in in_order}
        return Validation(
            path=root,
            manifest=dataset.raw_manifest,
            outcomes=[outcomes[rule.name] for rule in rules],
            strict=strict,
            seconds=time.perf_counter() - started,
        )


def _check(rule: Rule, dataset: Inspection) -> Outcome:
    try:
        found = rule.find(dataset)
        if not isinstance(found, Breach):
            examples = tuple(found)
            found = Breach(len(examples), examples[:MAX_EXAMPLES])
        found = found.printable()
    except findings.UnavailableError as error:
        blocked = not isinstance(error, findings.NotApplicableError)
        return Outcome(rule, SKIPPED, reason=printable(str(error)), blocked=blocked)
    return Outcome(rule, FAILED if found.count else PASSED, found)


def as_json(validation: Validation) -> str:
    """Return the report as JSON."""
    return json.dumps(validation.as_dict(), indent=2, ensure_ascii=False)


def _fill(template: str, validation: Validation) -> str:
    """Return the report in the form of one of `templates`."""
    from jinja2 import Environment, PackageLoader, select_autoescape  # slow to import

    loader, escape = PackageLoader("emovox.validation"), select_autoescape(["xml"])
    environment = Environment(loader=loader, autoescape=escape, trim_blocks=True)
    environment.filters |= {"printable": _printable, "printable_text": printable_text}
    environment.filters["escaped"] = _escape
    cases = [(outcome, _details(outcome)) for outcome in validation.outcomes]
    return environment.get_template(template).render(validation=validation, cases=cases)


as_text = partial(_fill, "report.txt")  # failed rules with examples, skipped rules and a summary
FORMATS: dict[str, Callable[[Validation], str]] = {
    "text": as_text,
    "json": as_json,
    "junit": partial(_fill, "junit.xml"),  # one test case per rule
    "github": partial(_fill, "github.txt"),  # workflow commands, one annotation per rule
}


def _details(outcome: Outcome) -> list[str]:
    """Return a line with the number of violations and the statement, then the examples."""
    count, examples = outcome.breach.count, outcome.breach.examples
    shown = f" (first {len(examples)} shown)" if len(examples) < count else ""
    head = f"{count:,} violation{'s' if count > 1 else ''}{shown}: {outcome.rule.statement}"
    return [head, *map(str, examples)]


def _escape(text: str, *, in_property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text


def _printable(text: str) -> str:
    """Replace the control characters that XML does not allow."""
    return "".join(c if c in "\t\n" or c.isprintable() else "?" for c in text)
