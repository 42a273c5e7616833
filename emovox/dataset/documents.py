"""Read the JSON documents of a dataset."""

import json
import os
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.emotions import EMOTIONS
from emovox.errors import InputError, first_line


def read_document(root: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """Return the content of a JSON document of a dataset.

    Args:
        root: folder of the dataset.
        name: file name, such as manifest.json.

    Raises:
        InputError: the folder or the file is missing, or the file is not a JSON object.
    """
    path = Path(root) / name
    if not Path(root).is_dir():
        raise InputError(f"{root}: folder not found; pass the folder of a dataset")
    if not path.exists():
        raise InputError(f"{root}: not a dataset: {name} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read: {first_line(error)}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object")
    return content


def read_manifest(root: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a dataset of this version of the contract.

    Args:
        root: folder of the dataset.

    Raises:
        InputError: the folder or the manifest is missing, or the manifest is not one of a dataset,
            of another contract version or of other emotions.
    """
    path = Path(root) / schema.MANIFEST
    manifest = read_document(root, schema.MANIFEST)
    try:
        version, emotions = manifest["schema_version"], manifest["emotions"]
        _ = manifest["name"], manifest["version"], manifest["step_ms"], manifest["files"]
        _ = manifest["totals"]["by_split"], manifest["totals"]["tracks"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of a dataset ({first_line(error)})") from error
    if version != schema.SCHEMA_VERSION:
        expected = schema.SCHEMA_VERSION
        raise InputError(f"{path}: contract version {version}; this emovox reads {expected}")
    if emotions != list(EMOTIONS):
        raise InputError(f"{path}: emotions are {emotions}, expected {list(EMOTIONS)}")
    return manifest
