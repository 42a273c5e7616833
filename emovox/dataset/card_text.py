"""Texts that the card and the Croissant metadata of a dataset share."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emovox.dataset.schema import DROPPED_FILE, TAKEDOWN

_TEXTS = tomllib.loads(Path(__file__).with_name("card_texts.toml").read_text(encoding="utf-8"))
CITATION, LICENCE, TAGS = _TEXTS["citation"], _TEXTS["licence"], _TEXTS["tags"]


@dataclass(frozen=True)
class Limits:
    """Purpose and limits of a dataset, one text each."""

    use: str  # intended
    errors: str  # reliability of the logits
    biases: str  # skew of the labels
    misuse: str  # uses to avoid
    people: str  # personal data in the dataset


REAL, SYNTHETIC = Limits(**_TEXTS["real"]), Limits(**_TEXTS["synthetic"])


def limits(provenance: Mapping[str, Any]) -> Limits:
    """Return the limits of a dataset; `config.synthetic` of its provenance means no real faces."""
    config = provenance.get("config")
    return SYNTHETIC if isinstance(config, dict) and config.get("synthetic") else REAL


def summary(manifest: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return a description of the dataset and of the origin of its rows."""
    totals = manifest["totals"]
    frames = f"Emotion logits of {totals['frames']:,} frames, one every {manifest['step_ms']} ms"
    return f"{frames}, of {totals['tracks']:,} tracks. {provenance['origin']}"


def missing(manifest: Mapping[str, Any]) -> str:
    """Return the number of dropped tracks, and a note if a takedown list was applied."""
    text = f"{manifest['totals']['dropped']:,} tracks gave no rows; `{DROPPED_FILE}` says why."
    if TAKEDOWN in {file["path"] for file in manifest["files"]}:
        text += f" Identities that `{TAKEDOWN}` lists, by hash, were taken out."
    return text
