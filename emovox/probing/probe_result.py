"""Result of a probe, with chance, the largest class and published results for comparison."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emovox.charts import chart_file, draw_cells, save_confusion
from emovox.files import write_text
from emovox.packages import DataFrame, data_frame
from emovox.probing.classifiers import SCORES, FeatureScores, mean_and_deviation
from emovox.probing.corpora import DroppedFile
from emovox.probing.folds import PARTITIONS, RANDOM
from emovox.probing.probe_config import ProbeConfig

MAX_SHOWN = 5  # dropped files in the summary


@dataclass(frozen=True)
class Row:
    """One row of the results.

    Accuracy, recall and F1 are means over the folds, as fractions, with their standard deviations;
    calibration errors are over the utterances of all folds.
    """

    what: str  # name of the features, the baseline or the quoted network
    classifier: str | None = None
    folds: str | None = None  # name of the folds
    num_folds: int | None = None
    accuracy: float | None = None
    # Standard deviations over the folds.
    accuracy_deviation: float | None = None
    unweighted_average_recall: float | None = None
    recall_deviation: float | None = None
    macro_f1: float | None = None
    f1_deviation: float | None = None
    calibration_error: float | None = None
    calibration_error_fitted: float | None = None  # with temperatures fitted in training
    source: str = "measured"  # or `computed` or `quoted`


# Corpus, network, folds, accuracy and its deviation, as quoted by Albanie et al. (2018).
PUBLISHED = (
    ("rml", "student (Albanie et al. 2018)", RANDOM, 0.497, 0.054),
    ("rml", "teacher (Albanie et al. 2018)", RANDOM, 0.726, 0.039),
    ("rml", "Noroozi et al. 2017", RANDOM, 0.653, None),
    ("enterface", "student (Albanie et al. 2018)", RANDOM, 0.343, 0.04),
    ("enterface", "teacher (Albanie et al. 2018)", RANDOM, 0.483, 0.049),
    ("enterface", "Noroozi et al. 2017", RANDOM, 0.471, None),
    ("afew", "teacher (Albanie et al. 2018)", PARTITIONS["val"], 0.493, None),
    ("afew", "baseline of EmotiW 2016", PARTITIONS["val"], 0.3881, None),
)


@dataclass(frozen=True, repr=False)
class ProbeResult:
    """Result of a probe on a corpus."""

    checkpoint: str  # name or file name of the network, as requested
    corpus: str  # name of the corpus's folder or table
    config: ProbeConfig  # options of the probe
    model: dict[str, str]  # name and sha256 of the network; empty for the baseline alone
    layout: str  # layout of the corpus
    counts: dict[str, int]  # utterances by label, in the order of the classes
    num_speakers: int | None  # number of speakers; None if unknown
    probed: tuple[FeatureScores, ...]  # scores of each kind of features
    dropped: tuple[DroppedFile, ...]  # files that give no utterance
    notes: tuple[str, ...]  # remarks on the results

    def __repr__(self) -> str:
        scores = "".join(
            f"; {row.what}, {row.folds}: {_percent(row.accuracy)} %"
            for row in self.rows()
            if row.source == "measured"
        )
        return f"<ProbeResult on {self.layout}: {self.num_utterances:,} utterances{scores}>"

    @property
    def num_utterances(self) -> int:
        """Number of utterances that were scored."""
        return sum(self.counts.values())

    @property
    def too_many_dropped(self) -> bool:
        """True if the fraction of dropped files is above `max_dropped`."""
        num_files = self.num_utterances + len(self.dropped)
        return len(self.dropped) > self.config.max_dropped * num_files

    def rows(self) -> list[Row]:
        """Return the results: measured, chance and the largest class, quoted."""
        rows = []
        for probed in self.probed:
            for held_out in probed.held_out:
                accuracy, recall, f1 = (
                    mean_and_deviation(held_out.scores[name]) for name in SCORES[:3]
                )
                labels = (probed.features, probed.classifier, held_out.folds)
                num_folds = len(held_out.scores["accuracy"])
                errors = held_out.calibration_error, held_out.calibration_error_fitted
                rows.append(Row(*labels, num_folds, *accuracy, *recall, *f1, *errors))
        if self.config.cross:  # chance depends on the labels of each pair
            return rows
        label, count = max(self.counts.items(), key=lambda item: item[1])
        chance = 1 / len(self.counts)
        shares = {f"largest class ({label})": count / self.num_utterances, "chance": chance}
        for what, share in shares.items():
            rows.append(Row(what, None, None, None, share, None, chance, source="computed"))
        for corpus, what, folds, share, spread in PUBLISHED:
            if corpus == self.layout:
                rows.append(Row(what, None, folds, None, share, spread, source="quoted"))
        return rows

    def to_pandas(self) -> DataFrame:
        """Return the rows as a table; MissingPackageError without pandas."""
        return data_frame(self.rows()).astype({"num_folds": "Int64"})

    def summary(self) -> str:
        """Return the results as lines of text."""
        speakers = "" if self.num_speakers is None else f", {self.num_speakers:,} speakers"
        classes = ", ".join(f"{label} {count:,}" for label, count in self.counts.items())
        counts = Counter(dropped.error for dropped in self.dropped)
        lines = [
            f"{self.layout}: {self.num_utterances:,} utterances{speakers}, {len(self.counts)} "
            f"classes ({classes})",
            "",
            *_table(self.rows()),
            "",
            *self._matrices(),
            *(f"note      {note}" for note in self.notes),
            *(f"dropped   {count:,} x {error}" for error, count in counts.most_common()),
            *(f"          {d.path}: {d.message}" for d in self.dropped[:MAX_SHOWN]),
        ]
        if len(self.dropped) > MAX_SHOWN:
            lines.append(f"          and {len(self.dropped) - MAX_SHOWN:,} more")
        return "\n".join(lines).rstrip()

    def matrix(self, probed: FeatureScores) -> DataFrame:
        """Return the recall of `cross` by corpus of training (rows) and test; NaN for no folds."""
        names = self.layout.split(" + ")
        recall = {x.folds: float(np.mean(x.scores["recall"])) for x in probed.held_out}
        cells = [[recall.get(f"{a} to {b}", np.nan) for b in names] for a in names]
        return data_frame(cells, names).set_axis(names)

    def _matrices(self) -> Iterator[str]:
        for probed in self.probed if self.config.cross else ():
            yield f"{probed.features}: unweighted average recall, %; rows: corpus of training"
            table = (100 * self.matrix(probed)).to_string(float_format="%.1f", na_rep="-")
            yield from (*table.splitlines(), "")

    def as_json(self) -> dict[str, Any]:
        """Return JSON values, without folders of this machine."""
        return {
            "config": {"checkpoint": self.checkpoint, "corpus": self.corpus} | asdict(self.config),
            "model": self.model,
            "corpus": {
                "layout": self.layout,
                "utterances": self.num_utterances,
                "speakers": self.num_speakers,
                "counts": self.counts,
            },
            "results": list(map(asdict, self.rows())),
            "probed": [probed.as_json() for probed in self.probed],
            "dropped": [asdict(dropped) for dropped in self.dropped],
            "notes": list(self.notes),
        }

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write `probe.json`, `probe.csv` and matrices as PNG to a folder.

        The matrices are of confusion, or with `cross` of the recall by corpora.
        """
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "probe.json", json.dumps(self.as_json(), indent=2) + "\n")
        write_text(folder / "probe.csv", self.to_pandas().to_csv(index=False))
        for number, probed in enumerate(self.probed, start=1):
            if self.config.cross:
                recall, title = self.matrix(probed), f"{probed.features}: average recall, %"
                with chart_file(folder / f"cross-{number}.png", title, 6, 5) as axes:
                    draw_cells(axes, recall.to_numpy(), (100 * recall).round(1).to_numpy())
                    axes.set_xticks(range(len(recall)), recall.columns)
                    axes.set_yticks(range(len(recall)), recall.index)
                    axes.set(xlabel="corpus of test", ylabel="corpus of training")
                continue
            for held_out in probed.held_out:
                title = f"{probed.features}, {probed.classifier}\n{self.layout}, {held_out.folds}"
                path = folder / f"confusion-{number}-{held_out.folds.replace(' ', '-')}.png"
                counts = np.array(held_out.confusion)
                save_confusion(counts, probed.classes, "utterances", title, path)


def _table(rows: list[Row]) -> list[str]:
    """Return one line per row, with mean and deviation in percent."""
    names = ("accuracy", "unweighted average recall", "macro F1", "calibration error", "fitted")
    cells = [("in %", "", "folds", *names)]
    for row in rows:
        star = "* " if row.source == "quoted" else ""
        accuracy = _percent(row.accuracy, row.accuracy_deviation)
        recall = _percent(row.unweighted_average_recall, row.recall_deviation)
        f1 = _percent(row.macro_f1, row.f1_deviation)
        errors = _percent(row.calibration_error), _percent(row.calibration_error_fitted)
        labels = star + row.what, row.classifier or "", row.folds or ""
        cells.append((*labels, accuracy, recall, f1, *errors))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def _percent(mean: float | None, deviation: float | None = None) -> str:
    if mean is None:
        return ""
    spread = "" if deviation is None else f" +- {100 * deviation:.1f}"
    return f"{100 * mean:.1f}{spread}"
