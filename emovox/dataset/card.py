"""The card of a dataset, README.md: Hugging Face front matter and the figures of the manifest."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from emovox.dataset import schema
from emovox.emotions import EMOTIONS


def render_card(
    manifest: Mapping[str, Any],
    labels: Mapping[str, Mapping[str, int]],
    origin: str,
    tables: Sequence[str] = schema.TABLES,
) -> str:
    """Render the card.

    Args:
        manifest: the dataset's manifest; every count on the card comes from it.
        labels: tracks per label, for each split that has rows.
        origin: a sentence on where the rows come from.
        tables: those with a file for each split.
    """
    totals = manifest["totals"]
    splits = [s for s in schema.SPLITS if s in totals["by_split"]]
    empty = [s for s in schema.SPLITS if s not in splits]
    lines = ["---", f"pretty_name: {_quoted(manifest['name'])}", "tags:", "- emotion-recognition"]
    if splits:
        lines.append("configs:")
        for table in tables:
            lines += [f"- config_name: {table}"]
            lines += ["  default: true"] if table == "frames" else []
            lines.append("  data_files:")
            for split in splits:
                lines += [f"  - split: {split}", f"    path: {schema.table_file(table, split)}"]
    lines += [
        "---",
        "",
        f"# {manifest['name']} {manifest['version']}",
        "",
        f"Logits of a facial-emotion network for {totals['frames']:,} frames, one every "
        f"{manifest['step_ms']} ms, of {totals['tracks']:,} speaking-face tracks. {origin}",
        "",
        "| split | tracks | frames | identities |",
        "|---|---:|---:|---:|",
    ]
    for split in splits:
        counts = totals["by_split"][split]
        lines.append(
            f"| {split} | {counts['tracks']:,} | {counts['frames']:,} | {counts['identities']:,} |"
        )
    if empty:
        lines += ["", f"No track fell into {' and '.join(empty)}: there are no files for it."]
    lines += [
        "",
        f"{totals['dropped']:,} tracks gave no rows; `{schema.DROPPED_FILE}` says why.",
        "",
        "Tracks by label, the emotion with the largest logit over all frames of a track:",
        "",
        f"| split | {' | '.join(EMOTIONS)} |",
        f"|---|{'---:|' * len(EMOTIONS)}",
    ]
    for split in splits:
        row = " | ".join(f"{labels[split].get(emotion, 0):,}" for emotion in EMOTIONS)
        lines.append(f"| {split} | {row} |")
    lines += [
        "",
        "## Limits",
        "",
        "The logits are one network's reading of faces of real people, not anyone's feelings, and "
        "they carry that network's errors and biases. The terms of the source corpus apply.",
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Any text as a YAML scalar: a string of JSON is one."""
    return json.dumps(text, ensure_ascii=False)
