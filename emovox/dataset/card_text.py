"""Texts that the card and the Croissant metadata of a dataset share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emovox.dataset.schema import DROPPED_FILE, TAKEDOWN

CITATION = """@inproceedings{albanie2018emotion,
  title     = {Emotion Recognition in Speech using Cross-Modal Transfer in the Wild},
  author    = {Albanie, Samuel and Nagrani, Arsha and Vedaldi, Andrea and Zisserman, Andrew},
  booktitle = {ACM Multimedia},
  year      = {2018}
}"""
LICENCE = (
    "The rows describe media that are not part of this dataset; the terms of the source corpus "
    "apply to both."
)
TAGS = ("emotion-recognition", "speech")


@dataclass(frozen=True)
class Limits:
    """Purpose and limits of a dataset, one text each."""

    use: str  # intended
    errors: str  # reliability of the logits
    biases: str  # skew of the labels
    misuse: str  # uses to avoid
    people: str  # personal data in the dataset


REAL = Limits(
    use="Meant for research on emotion in speech and faces: as soft targets for a network that "
    "hears the same moment.",
    errors="The logits are one network's reading of the faces of real people, not anyone's "
    "feelings, and they carry that network's errors and biases.",
    biases="Speech in interviews is mostly neutral, and so are the labels.",
    misuse="Do not use them to judge or identify people.",
    people="Readings of the faces of real people, under the ids of the source corpus; no pictures "
    "and no sound.",
)
SYNTHETIC = Limits(
    use="Meant for trying and testing what reads such datasets.",
    errors="The logits are one network's reading of synthetic faces, and they carry that network's "
    "errors and biases.",
    biases="How often an emotion occurs is what the makers of the corpus chose.",
    misuse="Conclude nothing about real faces or voices from them.",
    people="None: the faces and voices are synthetic.",
)


def limits(provenance: Mapping[str, Any]) -> Limits:
    """Return the limits of a dataset; `config.synthetic` of its provenance means no real faces."""
    config = provenance.get("config")
    return SYNTHETIC if isinstance(config, dict) and config.get("synthetic") else REAL


def summary(manifest: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return a description of the dataset and of the origin of its rows."""
    totals = manifest["totals"]
    return (
        f"Logits of a facial-emotion network for {totals['frames']:,} frames, one every "
        f"{manifest['step_ms']} ms, of {totals['tracks']:,} speaking-face tracks. "
        f"{provenance['origin']}"
    )


def missing(manifest: Mapping[str, Any]) -> str:
    """Return the number of dropped tracks, and a note if a takedown list was applied."""
    text = f"{manifest['totals']['dropped']:,} tracks gave no rows; `{DROPPED_FILE}` says why."
    if TAKEDOWN in {file["path"] for file in manifest["files"]}:
        text += f" Identities that `{TAKEDOWN}` lists, by hash, were taken out."
    return text
