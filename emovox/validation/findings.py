"""Violations of a rule, and the errors that keep a rule from being checked."""

from dataclasses import dataclass

from emovox.ids import printable

MAX_EXAMPLES = 20  # kept per rule


class UnavailableError(Exception):
    """Data that a rule needs is missing or damaged: the rule is skipped, the dataset invalid.

    The message gives the file and the reason. The error never leaves `validate`.
    """


class NotApplicableError(UnavailableError):
    """The rule does not apply, or needs a file that was not given: skipping it is harmless."""


@dataclass(frozen=True)
class Example:
    """One violation: a file below the dataset, and the fault in it."""

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


@dataclass(frozen=True)
class Breach:
    """All violations of a rule: their number, and the first `MAX_EXAMPLES`."""

    count: int = 0
    examples: tuple[Example, ...] = ()

    def __add__(self, other: "Breach") -> "Breach":
        every = (*self.examples, *other.examples)
        return Breach(self.count + other.count, every[:MAX_EXAMPLES])

    def printable(self) -> "Breach":
        """Return it with control characters escaped."""
        shown = (Example(printable(e.file), printable(e.text)) for e in self.examples)
        return Breach(self.count, tuple(shown))
