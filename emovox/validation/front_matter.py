"""Parts of a data card: its front matter, headings and tables."""

import re
from typing import Any

from emovox.limits import MAX_FRONT_MATTER, MAX_NESTING

FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)


def front_matter(text: str) -> Any:
    """Return the content of the YAML block at the start of a card; ValueError if it is not YAML."""
    import yaml

    match = FRONT_MATTER.match(text)
    if match is None:
        raise ValueError("front matter between lines of --- is missing")
    if len(match[1]) > MAX_FRONT_MATTER:
        raise ValueError(f"front matter has more than {MAX_FRONT_MATTER:,} characters")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # some builds lack the faster one
    depth = 0
    try:
        for event in yaml.parse(match[1], loader):
            if isinstance(event, yaml.AliasEvent):  # a few of them can stand for gigabytes
                raise ValueError("front matter has an alias; write its content instead")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_NESTING:
                raise ValueError("front matter is nested too deeply")
        return yaml.load(match[1], loader)
    except (yaml.YAMLError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"front matter is not YAML: {' '.join(str(error).split())}") from error


def headings(text: str) -> list[str]:
    """Return the text of every heading, in lower case."""
    body = FRONT_MATTER.sub("", text)
    return [line.lstrip("#").strip().lower() for line in body.splitlines() if line.startswith("#")]


def tables(text: str) -> list[list[dict[str, str]]]:
    """Return every table as a list of rows; a row maps column names to cells."""
    found: list[list[dict[str, str]]] = []
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip(" *`") for cell in line.strip().strip("|").split("|")]
        if not header:
            header = cells
            found.append([])
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found[-1].append(dict(zip(header, cells, strict=False)))
    return found
