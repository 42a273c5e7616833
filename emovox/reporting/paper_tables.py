"""The paper's tables, filled with the numbers of a report."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from emovox.reporting.report_data import Report
from emovox.reporting.run_results import ProbeSummary

Table = list[list[Any]]

# Method, accuracy in percent on the test set of FERPlus, and deviation (paper, Table 2).
QUOTED_TEACHERS = (
    ("PLD", 85.1, ""),
    ("CEL", 84.6, ""),
    ("ResNet+VGG", 87.4, ""),
    ("SENet teacher (Albanie et al. 2018)", 88.8, 0.3),
)
STATED = re.compile(r"([0-9.]+) % on FERPlus PrivateTest")


def teachers_table(report: Report) -> Table:
    """Return Table 2, accuracies on FERPlus; empty if that of the teacher is unknown."""
    rows: Table = [
        [t.name, round(t.accuracy, 2), "", "measured"]
        for t in report.results.teachers
        if t.part == "private_test"
    ]
    stated = report.provenance.get("teacher")
    accuracy = stated.get("accuracy") if isinstance(stated, dict) else None
    if not rows and (match := STATED.match(str(accuracy))):
        name = report.dataset.manifest["teacher"]["name"]
        rows.append([name, float(match[1]), "", "stated in provenance.json"])
    if not rows:
        return []
    quoted = [[*row, "quoted from the paper"] for row in QUOTED_TEACHERS]
    return [["method", "accuracy_percent", "deviation", "source"], *quoted, *rows]


def splits_table(report: Report) -> Table:
    """Return Table 3, with a column for each split."""
    splits = report.aggregates.splits
    return [
        ["", *(split.split for split in splits)],
        ["speaking_face_tracks", *(split.num_tracks for split in splits)],
        ["identities", *(split.num_identities for split in splits)],
        ["videos", *(split.num_videos for split in splits)],
        ["frames", *(split.num_frames for split in splits)],
    ]


def probe_rows(probe: ProbeSummary) -> Table:
    """Return the table of a probe: features, classifier, folds, accuracy, recall, source."""
    return [
        [
            str(row["what"]),
            str(row.get("classifier") or ""),
            str(row.get("folds") or ""),
            " ± ".join(_percents(row, "accuracy", "accuracy_deviation")),
            " ± ".join(_percents(row, "unweighted_average_recall", "recall_deviation")),
            str(row.get("source", "")),
        ]
        for row in probe.rows
    ]


def probes_table(probes: Sequence[ProbeSummary]) -> Table:
    """Return Table 5: a row for each method; accuracy, deviation and chance for each corpus."""
    header = ["method", "classifier", "folds", "source"]
    methods: dict[tuple[str, ...], list[Any]] = {}
    for place, probe in enumerate(probes):
        header += [f"{probe.corpus}_{word}" for word in ("accuracy", "deviation", "chance")]
        for row in probe.rows:
            if row["what"] != "chance":
                names = ("what", "classifier", "folds", "source")
                key = tuple(str(row.get(name) or "") for name in names)
                cells = methods.setdefault(key, [""] * 3 * len(probes))
                accuracy = [*_percents(row, "accuracy", "accuracy_deviation"), "", ""]
                chance = round(100 / max(probe.num_classes, 1), 1)
                cells[3 * place : 3 * place + 3] = *accuracy[:2], chance
    return [header, *([*key, *cells] for key, cells in methods.items())] if probes else []


def _percents(row: Mapping[str, Any], *names: str) -> list[str]:
    """Return the values of a row in percent, without missing ones."""
    return [f"{100 * row[name]:.1f}" for name in names if row.get(name) is not None]
