"""What validation found, for people, for programs, for test reports and for GitHub."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from emovox.validation.rule import ERROR, WARNING
from emovox.validation.validation import FAILED, SKIPPED, Outcome, Validation


def as_dict(validation: Validation) -> dict[str, Any]:
    """The report as plain data; schemas/validation.json is its form."""
    counts = validation.counts
    return {
        "report_version": 1,
        "dataset": {
            "path": str(validation.path),
            "name": str(validation.manifest["name"]),
            "version": str(validation.manifest["version"]),
        },
        "valid": validation.valid,
        "strict": validation.strict,
        "seconds": round(validation.seconds, 3),
        "counts": {
            "passed": counts["passed"],
            "errors": counts[ERROR],
            "warnings": counts[WARNING],
            "skipped": counts[SKIPPED],
        },
        "rules": [
            {
                "name": outcome.rule.name,
                "family": outcome.rule.family,
                "severity": outcome.rule.severity,
                "statement": outcome.rule.statement,
                "status": outcome.status,
                "reason": outcome.reason,
                "count": outcome.breach.count,
                "examples": [asdict(example) for example in outcome.breach.examples],
            }
            for outcome in validation.outcomes
        ],
    }


def as_json(validation: Validation) -> str:
    """The report as JSON."""
    return json.dumps(as_dict(validation), indent=2, ensure_ascii=False)


def as_text(validation: Validation) -> str:
    """The rules that failed, each with examples, those that were skipped, and a last line."""
    lines = []
    for outcome in validation.outcomes:
        if outcome.status == FAILED:
            lines.append(f"{outcome.kind:<8} {outcome.rule.name}: {_headline(outcome)}")
            lines += [f"           {e.file}: {e.text}" for e in outcome.breach.examples]
    for outcome in validation.outcomes:
        if outcome.status == SKIPPED:
            lines.append(f"skipped  {outcome.rule.name}: {outcome.reason}")
    return "\n".join([*lines, summary(validation)])


def as_github(validation: Validation) -> str:
    """Workflow commands that annotate a run: one for each rule that failed or was skipped."""
    lines = []
    for outcome in validation.outcomes:
        title = f"title=emovox {outcome.rule.name}"
        if outcome.status == SKIPPED:
            lines.append(f"::notice {title}::{_escaped(f'skipped: {outcome.reason}')}")
        elif outcome.status == FAILED:
            file = _escaped(
                str(validation.path / outcome.breach.examples[0].file), in_property=True
            )
            body = [_headline(outcome), *(f"{e.file}: {e.text}" for e in outcome.breach.examples)]
            lines.append(f"::{outcome.kind} file={file},{title}::{_escaped(chr(10).join(body))}")
    return "\n".join([*lines, summary(validation)])


def as_junit(validation: Validation) -> str:
    """A test suite in the XML of JUnit: a test case for each rule."""
    counts = validation.counts
    num_failures = counts[ERROR] + (counts[WARNING] if validation.strict else 0)
    attributes = {
        "name": f"emovox validate {validation.manifest['name']}",
        "tests": str(len(validation.outcomes)),
        "failures": str(num_failures),
        "errors": "0",
        "skipped": str(counts[SKIPPED]),
        "time": f"{validation.seconds:.3f}",
    }
    suite = ElementTree.Element("testsuite", {k: _legal(v) for k, v in attributes.items()})
    for outcome in validation.outcomes:
        name = {"classname": f"emovox.{outcome.rule.family}", "name": outcome.rule.name}
        case = ElementTree.SubElement(suite, "testcase", name)
        if outcome.status == SKIPPED:
            ElementTree.SubElement(case, "skipped", {"message": _legal(outcome.reason or "")})
        elif outcome.status == FAILED:
            counts_as = outcome.kind == ERROR or validation.strict
            found = ElementTree.SubElement(case, "failure" if counts_as else "system-out")
            if counts_as:
                found.set("message", _legal(_headline(outcome)))
            examples = [f"{e.file}: {e.text}" for e in outcome.breach.examples]
            found.text = _legal("\n".join([_headline(outcome), *examples]))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


FORMATS: dict[str, Callable[[Validation], str]] = {
    "text": as_text,
    "json": as_json,
    "junit": as_junit,
    "github": as_github,
}


def _headline(outcome: Outcome) -> str:
    count = outcome.breach.count
    shown = len(outcome.breach.examples)
    which = f", the first {shown}" if shown < count else ""
    return f"{count:,} times not so{which}: {outcome.rule.statement}"


def summary(validation: Validation) -> str:
    """The verdict in one line."""
    counts = validation.counts
    verdict = "valid" if validation.valid else "not valid"
    rules = [f"{counts['passed']} rules passed"]
    rules += [f"{counts[kind]} {kind}s" for kind in (ERROR, WARNING) if counts[kind]]
    rules += [f"{counts[SKIPPED]} skipped"] if counts[SKIPPED] else []
    return f"{validation.path}: {verdict}: {', '.join(rules)}, in {validation.seconds:.1f} s"


def _escaped(text: str, *, in_property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text


def _legal(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(c if c in "\t\n" or c.isprintable() else "?" for c in text)
