"""Card of a dataset, README.md, generated from its data so that its numbers are always right."""

import json
import os
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emovox.dataset import card_text, schema
from emovox.dataset.documents import outputs_of, read_document, read_manifest, tables_of
from emovox.dataset.store import DAMAGED, matrix_of, open_table, read_rows
from emovox.emotions import Outputs
from emovox.errors import CheckError, InputError, first_line
from emovox.files import read_text

# Hugging Face's size categories, and the numbers of rows between them.
SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M"),
    *("1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B"),
)
SIZE_BOUNDS = tuple(10**k for k in range(3, 10))


@dataclass
class Counts:
    """Tracks by label and frames by dominant emotion of one split."""

    labels: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)

    def add(self, labels: list[str], logits: np.ndarray, emotions: Sequence[str]) -> None:
        """Count more tracks, by their labels, and more frames, by their logits `[n, E]`."""
        self.labels.update(labels)
        dominant = np.bincount(logits.argmax(axis=1), minlength=len(emotions))
        self.frames.update(dict(zip(emotions, map(int, dominant), strict=True)))


def count(root: Path, manifest: Mapping[str, Any]) -> dict[str, Counts]:
    """Count the rows of a dataset on disk, row group by row group."""
    counted, emotions = {}, outputs_of(manifest).emotions
    columns = schema.columns(Outputs(emotions)).logits
    for split in manifest["totals"]["by_split"]:
        counts = counted[split] = Counts()
        tracks = read_rows(root / schema.table_file("tracks", split), ["label"])
        counts.labels.update(tracks["label"].to_pylist())
        frames = open_table(root / schema.table_file("frames", split))
        for batch in frames.iter_batches(schema.ROW_GROUP_ROWS, columns=list(columns)):
            counts.add([], matrix_of(batch, columns), emotions)
    return counted


def render_card(
    manifest: Mapping[str, Any], provenance: Mapping[str, Any], counts: Mapping[str, Counts]
) -> str:
    """Return the text of the card.

    Args:
        manifest: content of the manifest.
        provenance: content of provenance.json; `origin` is a sentence on the source of the rows,
            and `teacher` may have an `accuracy`.
        counts: of every split with rows.
    """
    splits = [s for s in schema.SPLITS if s in counts]
    teacher, limits = manifest["teacher"], card_text.limits(provenance)
    digest = f", weights sha256 `{teacher['sha256']}`" if teacher["sha256"] else ""
    accuracy = provenance.get("teacher", {}).get("accuracy")
    emotions = manifest["emotions"]
    paragraphs = [
        _front_matter(manifest, splits),
        f"# {manifest['name']} {manifest['version']}",
        card_text.summary(manifest, provenance),
        *_splits(manifest, splits),
        card_text.missing(manifest),
        "Tracks by label, the emotion with the largest logit over all frames of a track:",
        _emotions({split: counts[split].labels for split in splits}, emotions),
        "Frames by dominant emotion:",
        _emotions({split: counts[split].frames for split in splits}, emotions),
        *card_text.values(manifest),
        "## Teacher",
        f"`{teacher['name']}`{digest}." + (f"\nAccuracy: {accuracy}." if accuracy else ""),
        "## Use and limits",
        f"{limits.use} {limits.errors} {limits.biases} {limits.misuse}",
        "## Licence",
        card_text.LICENCE,
        "## Citation",
        f"```bibtex\n{card_text.CITATION}\n```\n",
    ]
    return "\n\n".join(paragraphs)


def _front_matter(manifest: Mapping[str, Any], splits: list[str]) -> str:
    lines = [
        "---",
        f"pretty_name: {json.dumps(manifest['name'], ensure_ascii=False)}",  # JSON is valid YAML
        "license: other",
        "license_name: terms-of-the-source-corpus",
        "task_categories:",
        "- audio-classification",
        "tags:",
        *(f"- {tag}" for tag in card_text.TAGS),
        f"size_categories: [{SIZES[bisect(SIZE_BOUNDS, manifest['totals']['frames'])]}]",
    ]
    if splits:
        lines.append("configs:")
        for table in tables_of(manifest):
            lines += [f"- config_name: {table}"]
            lines += ["  default: true"] if table == "frames" else []
            lines.append("  data_files:")
            for split in splits:
                lines += [f"  - split: {split}", f"    path: {schema.table_file(table, split)}"]
    return "\n".join([*lines, "---"])


def _splits(manifest: Mapping[str, Any], splits: list[str]) -> list[str]:
    """Return a table with the numbers of each split, and a note on those without rows."""
    lines = ["| split | tracks | frames | identities |", "|---|---:|---:|---:|"]
    for split in splits:
        n = manifest["totals"]["by_split"][split]
        lines.append(f"| {split} | {n['tracks']:,} | {n['frames']:,} | {n['identities']:,} |")
    empty = " and ".join(s for s in schema.SPLITS if s not in splits)
    note = f"No track fell into {empty}: there are no files for it."
    return ["\n".join(lines), *([note] if empty else [])]


def _emotions(counts: Mapping[str, Counter[str]], emotions: Sequence[str]) -> str:
    """Return a table with a row for each split and a column for each emotion."""
    lines = [f"| split | {' | '.join(emotions)} |", f"|---|{'---:|' * len(emotions)}"]
    for split, by_emotion in counts.items():
        lines.append(f"| {split} | {' | '.join(f'{by_emotion[e]:,}' for e in emotions)} |")
    return "\n".join(lines)


def card_of(root: str | os.PathLike[str]) -> str:
    """Return the card that a dataset should have; InputError if it is incomplete or damaged."""
    root = Path(root)
    manifest, provenance = read_manifest(root), read_document(root, schema.PROVENANCE)
    try:
        return render_card(manifest, provenance, count(root, manifest))
    except (*DAMAGED, pa.ArrowException) as error:
        raise InputError(f"{root}: not a complete dataset ({first_line(error)})") from error


def check_card(root: str | os.PathLike[str]) -> None:
    """Check that the card of a dataset agrees with its data.

    Raises:
        InputError: `root` is not a complete dataset.
        CheckError: they differ; the message shows the first line that does.
    """
    path = Path(root) / schema.CARD
    try:
        found = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read ({first_line(error)})") from error
    expected = card_of(root).splitlines()
    for number, (line, right) in enumerate(zip_longest(found, expected, fillvalue=""), start=1):
        if line != right:
            raise CheckError(
                f"{path}: line {number} differs from the data: is {line!r}, expected {right!r}; "
                f"`emovox card {root}` prints the expected card"
            )
