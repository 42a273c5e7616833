"""The tables of the paper in their shapes, filled from what a report holds."""

import re
from collections.abc import Sequence
from typing import Any

from emovox.reporting.page import Report
from emovox.reporting.results import ProbeResult

Table = list[list[Any]]

# Table 2 of the paper: accuracy on the test set of FERPlus, percent.
QUOTED_TEACHERS = (
    ("PLD", 85.1, ""),
    ("CEL", 84.6, ""),
    ("ResNet+VGG", 87.4, ""),
    ("SENet teacher (Albanie et al. 2018)", 88.8, 0.3),
)
STATED = re.compile(r"([0-9.]+) % on FERPlus PrivateTest")


def teachers_table(report: Report) -> Table:
    """Table 2: accuracies on FERPlus; empty without one of our own."""
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
    """Table 3: a column for each split."""
    splits = report.found.splits
    return [
        ["", *(split.split for split in splits)],
        ["speaking_face_tracks", *(split.num_tracks for split in splits)],
        ["identities", *(split.num_identities for split in splits)],
        ["videos", *(split.num_videos for split in splits)],
        ["frames", *(split.num_frames for split in splits)],
    ]


def probes_table(probes: Sequence[ProbeResult]) -> Table:
    """Table 5: a method to each row, accuracy and chance to each corpus."""
    if not probes:
        return []
    header = ["method", "classifier", "folds", "source"]
    for probe in probes:
        header += [f"{probe.corpus}_{word}" for word in ("accuracy", "deviation", "chance")]
    methods: dict[tuple[str, ...], dict[int, tuple[str, str]]] = {}
    chances = []
    for place, probe in enumerate(probes):
        chances.append(round(100 / max(probe.num_classes, 1), 1))
        for row in probe.rows:
            if row["what"] == "chance":
                continue
            key = tuple(
                str(row.get(name) or "") for name in ("what", "classifier", "folds", "source")
            )
            values = (row.get("accuracy"), row.get("accuracy_deviation"))
            shown = ["" if value is None else f"{100 * value:.1f}" for value in values]
            methods.setdefault(key, {})[place] = (shown[0], shown[1])
    table: Table = [header]
    for key, found in methods.items():
        line: list[Any] = [*key]
        for place, chance in enumerate(chances):
            line += [*found.get(place, ("", "")), chance if place in found else ""]
        table.append(line)
    return table
