"""The card of a dataset, README.md: made from its data, so that no number on it can be wrong."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import card_text, schema
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, InputError

# Rows up to which Hugging Face's size categories go.
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9)


@dataclass
class Counts:
    """What the card counts in one split: tracks by label, frames by dominant emotion."""

    labels: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)

    def add(self, labels: list[str], logits: np.ndarray) -> None:
        """Take in further tracks, by their labels, and their frames, by their logits `[n, 8]`."""
        self.labels.update(labels)
        dominant = np.bincount(logits.argmax(axis=1), minlength=len(EMOTIONS))
        self.frames.update(dict(zip(EMOTIONS, map(int, dominant), strict=True)))


def count(root: Path, splits: list[str]) -> dict[str, Counts]:
    """Count a dataset on disk, row group by row group."""
    counted = {}
    for split in splits:
        counts = counted[split] = Counts()
        tracks = pq.read_table(root / schema.table_file("tracks", split), columns=["label"])
        counts.labels.update(tracks["label"].to_pylist())
        path = root / schema.table_file("frames", split)
        frames = pq.ParquetFile(path, pre_buffer=False)  # which would hold all of it
        for batch in frames.iter_batches(schema.ROW_GROUP_ROWS, columns=list(schema.LOGITS)):
            counts.add([], logits_of(batch))
    return counted


def logits_of(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    """The logits float32 `[n, 8]` of rows of `frames`."""
    return np.stack([rows[name].to_numpy() for name in schema.LOGITS], axis=1)


def render_card(
    manifest: Mapping[str, Any], provenance: Mapping[str, Any], counts: Mapping[str, Counts]
) -> str:
    """Render the card.

    Args:
        manifest: the dataset's manifest.
        provenance: content of its provenance.json; `origin` is a sentence on where the rows come
            from, and `teacher` may have an `accuracy`.
        counts: of every split that has rows.
    """
    splits = [s for s in schema.SPLITS if s in counts]
    lines = [
        *_front_matter(manifest, splits),
        f"# {manifest['name']} {manifest['version']}",
        "",
        card_text.summary(manifest, provenance),
        "",
        *_splits(manifest, splits),
        card_text.missing(manifest),
        "",
        *_emotions(counts, splits),
        *_teacher(manifest, provenance),
        *_use(provenance),
    ]
    return "\n".join(lines)


def _front_matter(manifest: Mapping[str, Any], splits: list[str]) -> list[str]:
    rows = manifest["totals"]["frames"]
    lines = [
        "---",
        f"pretty_name: {_quoted(manifest['name'])}",
        "license: other",
        "license_name: terms-of-the-source-corpus",
        "task_categories:",
        "- audio-classification",
        "tags:",
        *(f"- {tag}" for tag in card_text.TAGS),
        f"size_categories: [{_size_category(rows)}]",
    ]
    if splits:
        lines.append("configs:")
        names = {f["path"] for f in manifest["files"]}
        tables = [t for t in schema.TABLES if schema.table_file(t, splits[0]) in names]
        for table in tables:
            lines += [f"- config_name: {table}"]
            lines += ["  default: true"] if table == "frames" else []
            lines.append("  data_files:")
            for split in splits:
                lines += [f"  - split: {split}", f"    path: {schema.table_file(table, split)}"]
    return [*lines, "---", ""]


def _size_category(rows: int) -> str:
    """Hugging Face's name for a number of rows: `n<1K`, `1K<n<10K`, ..."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    for i, bound in enumerate(SIZES):
        if rows < bound:
            return f"{names[i - 1]}<n<{names[i]}" if i else f"n<{names[0]}"
    return f"n>{names[-1]}"


def _splits(manifest: Mapping[str, Any], splits: list[str]) -> list[str]:
    lines = ["| split | tracks | frames | identities |", "|---|---:|---:|---:|"]
    for split in splits:
        n = manifest["totals"]["by_split"][split]
        lines.append(f"| {split} | {n['tracks']:,} | {n['frames']:,} | {n['identities']:,} |")
    if empty := [s for s in schema.SPLITS if s not in splits]:
        lines += ["", f"No track fell into {' and '.join(empty)}: there are no files for it."]
    return [*lines, ""]


def _emotions(counts: Mapping[str, Counts], splits: list[str]) -> list[str]:
    header = [f"| split | {' | '.join(EMOTIONS)} |", f"|---|{'---:|' * len(EMOTIONS)}"]

    def rows(what: str) -> list[str]:
        cells = {s: [f"{getattr(counts[s], what)[e]:,}" for e in EMOTIONS] for s in splits}
        return [f"| {split} | {' | '.join(values)} |" for split, values in cells.items()]

    return [
        "Tracks by label, the emotion with the largest logit over all frames of a track:",
        "",
        *header,
        *rows("labels"),
        "",
        "Frames by dominant emotion:",
        "",
        *header,
        *rows("frames"),
        "",
    ]


def _teacher(manifest: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    teacher = manifest["teacher"]
    digest = f", weights sha256 `{teacher['sha256']}`" if teacher["sha256"] else ""
    lines = ["## Teacher", "", f"`{teacher['name']}`{digest}."]
    if accuracy := provenance.get("teacher", {}).get("accuracy"):
        lines.append(f"Accuracy: {accuracy}.")
    return [*lines, ""]


def _use(provenance: Mapping[str, Any]) -> list[str]:
    limits = card_text.limits(provenance)
    return [
        "## Use and limits",
        "",
        f"{limits.use} {limits.errors} {limits.biases} {limits.misuse}",
        "",
        "## Licence",
        "",
        card_text.LICENCE,
        "",
        "## Citation",
        "",
        "```bibtex",
        card_text.CITATION,
        "```",
        "",
    ]


def _quoted(text: str) -> str:
    """Any text as a YAML scalar: a string of JSON is one."""
    return json.dumps(text, ensure_ascii=False)


def card_of(root: Path) -> str:
    """The card that a dataset on disk should have, from its manifest, provenance and rows.

    Raises:
        InputError: one of them is missing or damaged.
    """
    try:
        manifest = json.loads((root / schema.MANIFEST).read_text(encoding="utf-8"))
        provenance = json.loads((root / schema.PROVENANCE).read_text(encoding="utf-8"))
        return render_card(manifest, provenance, count(root, list(manifest["totals"]["by_split"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{root}: is no whole dataset ({reason})") from error


def check_card(root: Path) -> None:
    """Compare a dataset's card with its data.

    Raises:
        InputError: `root` is no dataset.
        CheckError: they part; names the first line that does.
    """
    path = root / schema.CARD
    try:
        found = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from error
    expected = card_of(root).splitlines()
    for number, (line, right) in enumerate(zip_longest(found, expected, fillvalue=""), start=1):
        if line != right:
            raise CheckError(f"{path}: line {number} is {line!r}; by the data it is {right!r}")
