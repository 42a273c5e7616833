"""Reports of a validation: text, JSON, JUnit XML, and annotations of a GitHub workflow."""

import json
from collections.abc import Callable
from xml.etree import ElementTree

from emovox.ids import printable_text
from emovox.validation.outcomes import FAILED, SKIPPED, Outcome, Validation
from emovox.validation.rules import ERROR, WARNING


def as_json(validation: Validation) -> str:
    """Return the report as JSON."""
    return json.dumps(validation.as_dict(), indent=2, ensure_ascii=False)


def as_text(validation: Validation) -> str:
    """Return the failed rules with examples, the skipped rules and a summary, as lines of text."""
    lines = []
    for outcome in validation.outcomes:
        if outcome.status == FAILED:
            head, *examples = _details(outcome)
            lines.append(f"{outcome.kind:<8} {outcome.rule.name}: {head}")
            lines += [f"{'':<11}{example}" for example in examples]
    for outcome in validation.outcomes:
        if outcome.status == SKIPPED:
            lines.append(f"skipped  {outcome.rule.name}: {outcome.reason}")
    return "\n".join([*lines, validation.summary()])


def as_github(validation: Validation) -> str:
    """Return workflow commands, one annotation per failed or skipped rule, and a summary."""
    lines = []
    for outcome in validation.outcomes:
        title = f"title=emovox {outcome.rule.name}"
        if outcome.status == SKIPPED:
            lines.append(f"::notice {title}::{_escape(f'skipped: {outcome.reason}')}")
        elif outcome.status == FAILED:
            file = str(validation.path / outcome.breach.examples[0].file)
            body = _escape("\n".join(_details(outcome)))
            lines.append(f"::{outcome.kind} file={_escape(file, in_property=True)},{title}::{body}")
    return "\n".join([*lines, printable_text(validation.summary())])


def as_junit(validation: Validation) -> str:
    """Return a JUnit XML test suite with one test case per rule."""
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
    suite = ElementTree.Element("testsuite", {k: _printable(v) for k, v in attributes.items()})
    for outcome in validation.outcomes:
        name = {"classname": f"emovox.{outcome.rule.family}", "name": outcome.rule.name}
        case = ElementTree.SubElement(suite, "testcase", name)
        if outcome.status == SKIPPED:
            ElementTree.SubElement(case, "skipped", {"message": _printable(outcome.reason or "")})
        elif outcome.status == FAILED:
            details = _details(outcome)
            if outcome.kind == ERROR or validation.strict:
                message = {"message": _printable(details[0])}
                element = ElementTree.SubElement(case, "failure", message)
            else:
                element = ElementTree.SubElement(case, "system-out")
            element.text = _printable("\n".join(details))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


FORMATS: dict[str, Callable[[Validation], str]] = {
    "text": as_text,
    "json": as_json,
    "junit": as_junit,
    "github": as_github,
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
