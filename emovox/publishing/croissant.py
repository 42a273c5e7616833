"""Croissant 1.1 metadata of a dataset, croissant.json, from its manifest and provenance.

Specification: http://mlcommons.org/croissant/1.1 and http://mlcommons.org/croissant/RAI/1.0.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emovox.dataset import card_text, schema
from emovox.dataset.croissant_metadata import files_and_columns
from emovox.dataset.documents import read_document
from emovox.errors import InputError
from emovox.files import write_text

CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
# As the specification prescribes it.
CONTEXT = json.loads(Path(__file__).with_name("croissant_context.json").read_text(encoding="utf-8"))
TERMS_OF_USE = {"@type": "sc:CreativeWork", "name": "Terms of the source corpus"}


def write_croissant(root: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Write croissant.json into a dataset, atomically; see `croissant`."""
    # ASCII, because mlcroissant opens the file in the encoding of the machine.
    text = json.dumps(croissant(root, manifest), indent=2) + "\n"
    write_text(Path(root) / schema.CROISSANT, text)


def croissant(root: str | os.PathLike[str], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Croissant metadata of a dataset as JSON-LD; its manifest need not be written.

    Raises:
        InputError: provenance.json is unreadable or lacks `origin`.
    """
    provenance = read_document(root, schema.PROVENANCE)
    if "origin" not in provenance:
        raise InputError(f"{Path(root) / schema.PROVENANCE}: `origin` is missing")
    limits = card_text.limits(provenance)
    teacher = manifest["teacher"]
    digest = f", weights sha256 {teacher['sha256']}" if teacher["sha256"] else ""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest["name"],
        "version": manifest["version"],
        "description": card_text.summary(manifest, provenance),
        "datePublished": manifest["created"],
        "license": {**TERMS_OF_USE, "description": card_text.LICENCE},
        "citeAs": card_text.CITATION,
        "keywords": list(card_text.TAGS),
        "rai:dataUseCases": limits.use,
        "rai:dataLimitations": [limits.errors, limits.misuse],
        "rai:dataBiases": limits.biases,
        "rai:personalSensitiveInformation": limits.people,
        "rai:dataCollectionMissingData": card_text.missing(manifest),
        "rai:machineAnnotationTools": teacher["name"] + digest,
        **files_and_columns(manifest),
    }
