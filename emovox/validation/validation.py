"""Check a dataset against every rule of the contract."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emovox.validation.inspection import Inspection, Options
from emovox.validation.rule import ERROR, Breach, NotApplicableError, Rule, UnavailableError
from emovox.validation.rules import RULES

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    Attributes:
        rule: which one.
        status: `passed`, `failed` or `skipped`.
        breach: what breaks it.
        reason: why it was skipped.
        blocked: it was skipped because of damage, so nobody knows.
    """

    rule: Rule
    status: str
    breach: Breach = field(default_factory=Breach)
    reason: str | None = None
    blocked: bool = False

    @property
    def kind(self) -> str:
        """`passed`, `skipped`, or how bad it is: `error` or `warning`."""
        return self.rule.severity if self.status == FAILED else self.status


@dataclass(frozen=True)
class Validation:
    """What came out for a dataset.

    Attributes:
        path: its folder, as it was given.
        manifest: content of its manifest.json.
        outcomes: one for each rule, in their order.
        strict: warnings count as errors.
        seconds: that it took.
    """

    path: Path
    manifest: dict[str, Any]
    outcomes: Sequence[Outcome]
    strict: bool
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """Rules by `Outcome.kind`."""
        counts = Counter(outcome.kind for outcome in self.outcomes)
        return {kind: counts[kind] for kind in (PASSED, "error", "warning", SKIPPED)}

    @property
    def valid(self) -> bool:
        """Whether no rule failed or was kept from looking, warnings aside unless `strict`."""
        if any(outcome.blocked and outcome.rule.severity == ERROR for outcome in self.outcomes):
            return False
        return not self.counts["error"] and not (self.strict and self.counts["warning"])

    def failed(self, severity: str = ERROR) -> list[str]:
        """Names of the rules of a severity that failed."""
        return [o.rule.name for o in self.outcomes if o.kind == severity]


def validate(
    path: str | Path,
    *,
    meta: Path | None = None,
    takedown: Path | None = None,
    strict: bool = False,
    rules: Sequence[Rule] = RULES,
) -> Validation:
    """Check every rule on every row of a dataset.

    Args:
        path: its folder.
        meta: folder of vox1_meta.csv and the official lists, for the rules that need them.
        takedown: file with the SHA-256 of an identity_id on each line, none of which may occur.
        strict: let warnings count.
        rules: those to check.

    Raises:
        InputError: `path` is no dataset of this version of the contract, or `meta` or `takedown`
            cannot be read.
    """
    started = time.perf_counter()
    with Inspection(Path(path), Options(meta, takedown), rules) as dataset:
        # Queries first: hashes are computed by other threads meanwhile.
        asked = sorted(rules, key=lambda rule: rule.waits)
        outcomes = {rule.name: _ask(rule, dataset) for rule in asked}
        return Validation(
            path=Path(path),
            manifest=dataset.raw_manifest,
            outcomes=[outcomes[rule.name] for rule in rules],
            strict=strict,
            seconds=time.perf_counter() - started,
        )


def _ask(rule: Rule, dataset: Inspection) -> Outcome:
    try:
        breach = rule.check(dataset)
    except NotApplicableError as why:
        return Outcome(rule, SKIPPED, reason=str(why))
    except UnavailableError as why:
        return Outcome(rule, SKIPPED, reason=str(why), blocked=True)
    return Outcome(rule, FAILED if breach.count else PASSED, breach)
