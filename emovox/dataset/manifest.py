"""Documents of a dataset beside its tables: card, provenance, checksums and, last, the manifest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.dataset.card import Counts, render_card
from emovox.dataset.store import describe_file
from emovox.files import write_text


def write_documents(
    out: Path,
    manifest: dict[str, Any],
    provenance: Mapping[str, Any],
    counts: Mapping[str, Counts],
) -> None:
    """Write card and provenance, and add them to a manifest that lists the tables.

    Args:
        out: folder of the dataset.
        manifest: extended in place.
        provenance: content of provenance.json.
        counts: of the rows of each split, for the card.
    """
    write_text(out / schema.CARD, render_card(manifest, provenance, counts))
    write_text(out / schema.PROVENANCE, _json(provenance))
    list_documents(out, manifest, schema.CARD, schema.PROVENANCE)


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write the checksums of all files that the manifest lists, and last the manifest."""
    sums = "".join(f"{file['sha256']}  {file['path']}\n" for file in manifest["files"])
    write_text(out / schema.CHECKSUMS, sums)
    list_documents(out, manifest, schema.CHECKSUMS)
    write_text(out / schema.MANIFEST, _json(manifest))


def list_documents(out: Path, manifest: dict[str, Any], *names: str) -> None:
    """Add files that are not tables to a manifest."""
    for name in names:
        manifest["files"].append(describe_file(out, name))


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
