"""Results of a probe, beside chance, the largest class and what papers report."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emovox.files import write_text
from emovox.probing.classifiers import Probed
from emovox.probing.corpora import Dropped
from emovox.probing.folds import PARTITION, RANDOM
from emovox.probing.probe_config import ProbeConfig
from emovox.teacher.teacher_scores import draw_matrix

SHOWN = 5  # dropped files that the summary names


@dataclass(frozen=True)
class Published:
    """An accuracy that a paper reports, in percent; quoted, not measured here."""

    what: str
    folds: str
    accuracy: float
    deviation: float | None = None


# As Albanie et al. (2018) report them.
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "rml": (
        Published("student (Albanie et al. 2018)", RANDOM, 49.7, 5.4),
        Published("teacher (Albanie et al. 2018)", RANDOM, 72.6, 3.9),
        Published("Noroozi et al. 2017", RANDOM, 65.3),
    ),
    "enterface": (
        Published("student (Albanie et al. 2018)", RANDOM, 34.3, 4.0),
        Published("teacher (Albanie et al. 2018)", RANDOM, 48.3, 4.9),
        Published("Noroozi et al. 2017", RANDOM, 47.1),
    ),
    "afew": (
        Published("teacher (Albanie et al. 2018)", PARTITION, 49.3),
        Published("baseline of EmotiW 2016", PARTITION, 38.81),
    ),
}


@dataclass(frozen=True)
class ExternalEvaluation:
    """What a probe found on a corpus.

    Attributes:
        config: what was asked for.
        model: name and sha256 of the network; empty for the yardstick alone.
        layout: of the corpus.
        counts: utterances by label, in the order of the classes.
        num_speakers: None where the corpus does not say.
        probed: one for each kind of features.
        dropped: files that should have been utterances.
        notes: what a reader of the figures should know.
    """

    config: ProbeConfig
    model: dict[str, str]
    layout: str
    counts: dict[str, int]
    num_speakers: int | None
    probed: tuple[Probed, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]

    @property
    def num_utterances(self) -> int:
        return sum(self.counts.values())

    @property
    def chance(self) -> float:
        return 1 / len(self.counts)

    @property
    def majority(self) -> tuple[str, float]:
        """The largest class, and its share of the utterances."""
        label = max(self.counts, key=self.counts.__getitem__)
        return label, self.counts[label] / self.num_utterances

    @property
    def too_many_dropped(self) -> bool:
        num_files = self.num_utterances + len(self.dropped)
        return len(self.dropped) > self.config.max_dropped * num_files

    def rows(self) -> list[dict[str, Any]]:
        """The table of results, accuracies and recalls as shares; None where there is none."""
        rows = []
        for probed in self.probed:
            for held_out in probed.held_out:
                accuracy, recall = held_out.as_json()["accuracy"], held_out.as_json()["recall"]
                rows.append(
                    {
                        "what": probed.features,
                        "classifier": probed.classifier,
                        "folds": held_out.folds,
                        "num_folds": len(held_out.accuracy),
                        "accuracy": accuracy["mean"],
                        "accuracy_deviation": accuracy["deviation"],
                        "unweighted_average_recall": recall["mean"],
                        "recall_deviation": recall["deviation"],
                        "source": "measured",
                    }
                )
        label, share = self.majority
        rows.append(_row(f"largest class ({label})", share, self.chance, "computed"))
        rows.append(_row("chance", self.chance, self.chance, "computed"))
        for quoted in PUBLISHED.get(self.layout, ()):
            row = _row(quoted.what, quoted.accuracy / 100, None, "quoted")
            deviation = None if quoted.deviation is None else quoted.deviation / 100
            rows.append(row | {"folds": quoted.folds, "accuracy_deviation": deviation})
        return rows

    def summary(self) -> str:
        """The results as lines of text."""
        who = "" if self.num_speakers is None else f", {self.num_speakers:,} speakers"
        classes = ", ".join(f"{label} {count:,}" for label, count in self.counts.items())
        return "\n".join(
            [
                f"{self.layout}: {self.num_utterances:,} utterances{who}, "
                f"{len(self.counts)} classes ({classes})",
                "",
                *_table(self.rows()),
                "",
                *(f"note      {note}" for note in self.notes),
                *self._dropped_lines(),
            ]
        ).rstrip()

    def _dropped_lines(self) -> Iterator[str]:
        for error, count in Counter(d.error for d in self.dropped).most_common():
            yield f"dropped   {count:,} x {error}"
        for dropped in self.dropped[:SHOWN]:
            yield f"          {dropped.path}: {dropped.message}"
        if len(self.dropped) > SHOWN:
            yield f"          and {len(self.dropped) - SHOWN:,} more"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "config": self.config.as_json(),
            "model": self.model,
            "corpus": {
                "layout": self.layout,
                "utterances": self.num_utterances,
                "speakers": self.num_speakers,
                "counts": self.counts,
            },
            "results": self.rows(),
            "probed": [probed.as_json() for probed in self.probed],
            "dropped": [asdict(dropped) for dropped in self.dropped],
            "notes": list(self.notes),
        }

    def write(self, folder: Path) -> None:
        """Write `probe.json`, `probe.csv` and a confusion matrix as PNG for each way of folding."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "probe.json", json.dumps(self.as_json(), indent=2) + "\n")
        rows = self.rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / "probe.csv", text.getvalue())
        for number, probed in enumerate(self.probed):
            for held_out in probed.held_out:
                file = f"confusion-{number + 1}-{held_out.folds.replace(' ', '-')}.png"
                draw_matrix(
                    np.array(held_out.confusion),
                    probed.classes,
                    "utterances",
                    f"{probed.features}, {probed.classifier}\n{self.layout}, {held_out.folds}",
                    folder / file,
                )


def _row(what: str, accuracy: float, recall: float | None, source: str) -> dict[str, Any]:
    """A row of the table that no classifier of ours stands behind."""
    return {
        "what": what,
        "classifier": None,
        "folds": None,
        "num_folds": None,
        "accuracy": accuracy,
        "accuracy_deviation": None,
        "unweighted_average_recall": recall,
        "recall_deviation": None,
        "source": source,
    }


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """One line for each row, percent with mean and deviation."""
    shown = [("", "", "folds", "accuracy", "unweighted average recall")]
    for row in rows:
        star = "* " if row["source"] == "quoted" else ""
        shown.append(
            (
                star + row["what"],
                row["classifier"] or "",
                row["folds"] or "",
                _percent(row["accuracy"], row["accuracy_deviation"]),
                _percent(row["unweighted_average_recall"], row["recall_deviation"]),
            )
        )
    widths = [max(len(line[k]) for line in shown) for k in range(len(shown[0]))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in shown]


def _percent(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    spread = "" if deviation is None else f" +- {100 * deviation:.1f}"
    return f"{100 * mean:.1f}{spread}"
