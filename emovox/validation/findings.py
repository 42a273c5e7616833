"""Violations of a rule, and the errors that keep a rule from being checked."""

from dataclasses import dataclass

from emovox.dataset import schema
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
        return Breach(self.count + other.count, (*self.examples, *other.examples)[:MAX_EXAMPLES])

    def printable(self) -> "Breach":
        """Return it with control characters escaped."""
        shown = (Example(printable(e.file), printable(e.text)) for e in self.examples)
        return Breach(self.count, tuple(shown))


MEAN_TOLERANCE = 1e-5  # of means of values, which depend on the order of summation

# Summaries of `frames` that several rules query; see `terms` for the names in braces.
SUMMARIES = {
    "per_track": """
        select split, track_id, count(*) as num_rows, min(row) as first_row, max(row) as last_row,
            max(frame_index) as last_index, [{votes}] as votes, {summaries}
        from frames group by split, track_id""",
    "argmax_counts": """
        select split, {argmax} as emotion, count(*) as num_frames
        from frames group by split, emotion""",
}
# SQL for the text that identifies a row.
ROW_KEYS = {
    "frames": "track_id || ' frame ' || frame_index",
    "faces": "track_id || ' frame ' || frame_index",
    "tracks": "track_id",
}


@dataclass(frozen=True)
class RowTest:
    """A test of single rows, in SQL; one pass over a table counts the failures of all its tests.

    `where` may use `previous_<column>`, the value in the previous row of the file; `row`, the row
    number; and the names in braces of `terms`.
    """

    table: str  # `frames`, `tracks` or `faces`
    where: str  # true for a row that violates the rule
    shows: str = ""  # text of an example, after the row's key
    share: float = 0.0  # fraction of a file's rows that may fail


def terms(columns: schema.Columns) -> dict[str, str]:
    """Return the SQL that stands for the names in braces, for the columns of a dataset."""
    emotions, logits, values = columns.outputs.emotions, columns.logits, columns.values
    largest, smallest = (f"{f}({', '.join(logits)})" for f in ("greatest", "least"))
    names = ", ".join(f"'{emotion}'" for emotion in emotions)
    maxima = ", ".join(columns.maxima)
    top = f"list_position([{', '.join(logits)}], {largest})"  # from 1
    other_means = [
        f"isfinite({value}) and "
        f"not (abs({mean} - {value}) <= {MEAN_TOLERANCE} * (1 + abs({value})))"
        for mean, value in zip(columns.means, values, strict=True)
    ]
    return {
        "logits": ", ".join(logits),
        "largest": largest,
        "smallest": smallest,
        "sum": " + ".join(logits),
        "finite": " and ".join(f"isfinite({name})" for name in logits),
        "values": ", ".join(values) or "null",
        "finite_values": " and ".join(f"isfinite({name})" for name in values) or "true",
        "repeated": " and ".join(f"{name} = previous_{name}" for name in logits),
        "argmax": f"list_extract([{names}], {top})",
        "maxima": maxima,
        "other_maxima": " or ".join(
            f"{one} is distinct from {other}"
            for one, other in zip(columns.maxima, logits, strict=True)
        ),
        "label": f"list_extract([{names}], list_position([{maxima}], greatest({maxima})))",
        "votes": ", ".join(f"count(*) filter ({top} = {k})" for k in range(1, len(emotions) + 1)),
        "majority": f"list_extract([{names}], list_position(votes, list_max(votes)))",
        "means": ", ".join(columns.means) or "null",
        "other_means": " or ".join(other_means) or "false",
        "summaries": ", ".join(
            [f"max({name}) as {name}" for name in logits]
            + [f"avg({name}) as {name}" for name in values]
        ),
    }


def count_failures(table: str, where: str, shows: str) -> str:
    """Return two SQL columns: the number of rows that fail a test, and texts of the first."""
    text = ROW_KEYS[table] + (f" || ': ' || {shows}" if shows else "")
    text = f"coalesce({text}, 'row ' || row)"  # a null makes the whole text null
    first = f"arg_min(case when {where} then {text} end, row, {MAX_EXAMPLES})"
    return f"count(*) filter ({where}), {first}"
