"""Manifest, provenance, card and validation report, checked by their JSON Schema in `schemas/`."""

import os
from collections.abc import Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators

from emovox.dataset import schema
from emovox.emotions import Outputs
from emovox.errors import ConfigError, InputError, first_line
from emovox.files import LFS_HINT, is_lfs_pointer, read_object, sha256_file
from emovox.ids import printable

Schema = dict[str, Any]

MAX_FAULTS = 1000  # per document


@cache
def describe_documents() -> dict[str, Schema]:
    """Return the JSON Schema of every document, by name."""
    names = ("manifest", "provenance", "card", "validation")
    return {name: schema.read_schema(name) for name in names}


VALIDATOR = validators.extend(
    Draft202012Validator,
    {"uniqueItems": lambda *_: None},  # slow on a long list; `outputs_of` refuses equal names
    # 1.0 is no integer here.
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, x: type(x) is int),
)


def faults(name: str, content: Any) -> list[str]:
    """Return the violations of the schema of a document, one line each, at most 1,000."""
    errors = islice(VALIDATOR(describe_documents()[name]).iter_errors(content), MAX_FAULTS)
    found = sorted((list(map(str, error.path)), _short(error)) for error in errors)
    return [f"{'.'.join(path) or 'document'}: {text}" for path, text in found]


def _short(error: Any) -> str:
    message = printable(error.message)
    if error.validator == "pattern" and "title" in error.schema:
        message = f"{printable(error.instance)!r} is not a {error.schema['title']}"
    return message if len(message) <= 200 else f"{message[:100]} ... {message[-97:]}"


LEADS_OUTSIDE = "links to a file outside the dataset; replace the link by the file"


def read_document(root: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """Return a JSON document of a dataset; InputError if missing, damaged or not fetched by LFS."""
    path = Path(root) / name
    if not Path(root).is_dir():
        raise InputError(f"{root}: folder not found; pass the folder of a dataset")
    if not path.exists():
        raise InputError(f"{root}: not a dataset: {name} is missing")
    if leads_outside(Path(root), name):
        raise InputError(f"{path}: {LEADS_OUTSIDE}")
    for file in (path, *Path(root).glob("[!.]*/*.parquet")):
        if is_lfs_pointer(file):
            raise InputError(f"{file}: {LFS_HINT}")
    return read_object(path)


def leads_outside(root: Path, name: str) -> bool:
    """Return True if a file of a dataset is a link to one outside, except in the Hub's cache."""
    folder, file = (Path(os.path.realpath(path)) for path in (root, root / name))
    if file.is_relative_to(folder):
        return False
    # The Hub's cache has the files of all snapshots in a folder `blobs` beside them.
    return folder.parent.name != "snapshots" or file.parent != folder.parent.parent / "blobs"


def read_header(root: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a manifest whose version and name are checked, not the rest; else raise InputError."""
    manifest, path = read_document(root, schema.MANIFEST), Path(root) / schema.MANIFEST
    for key in ("schema_version", "name", "version"):
        if key not in manifest:
            raise InputError(f"{path}: not the manifest of a dataset ({key} is missing)")
    if (version := manifest["schema_version"]) != schema.SCHEMA_VERSION:
        expected, shown = schema.SCHEMA_VERSION, printable(str(version))
        raise InputError(f"{path}: contract version {shown}; this emovox reads {expected}")
    return manifest


def read_manifest(root: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a dataset; InputError if missing, wrong or of another version."""
    manifest = read_header(root)
    path = Path(root) / schema.MANIFEST
    try:
        outputs_of(manifest)
    except (TypeError, ConfigError) as error:
        raise InputError(f"{path}: emotions or values: {first_line(error)}") from error
    except KeyError:
        pass  # a fault of the schema
    if found := faults("manifest", manifest):
        raise InputError(f"{path}: not the manifest of a dataset ({found[0]})")
    folders = (path.parent.glob(f"{folder}/*") for folder in (*schema.TABLES, "hdf5"))
    tables = (f"{table.parent.name}/{table.name}" for found in folders for table in found)
    for name in (*(file["path"] for file in manifest["files"]), *tables):
        if leads_outside(path.parent, name):
            raise InputError(f"{path.parent / name}: {LEADS_OUTSIDE}")
    return manifest


def listed_hash(manifest: Mapping[str, Any], path: str) -> str | None:
    """Return the content hash that a manifest lists for a file; None if it lists none."""
    return next((f.get("content_sha256") for f in manifest["files"] if f["path"] == path), None)


def changed_files(root: str | os.PathLike[str], manifest: Mapping[str, Any]) -> list[str]:
    """Return the files whose size or SHA-256 differs from the manifest, or that are missing."""
    changed = []
    for entry in manifest["files"]:
        path = Path(root) / entry["path"]
        try:
            same = path.stat().st_size == entry.get("bytes")
            same = same and sha256_file(path) == entry.get("sha256")
        except OSError:
            same = False
        if not same:
            changed.append(entry["path"])
    return changed


def tables_of(manifest: Mapping[str, Any]) -> list[str]:
    """Return the tables, apart from `dropped`, that a manifest lists."""
    folders = {file["path"].split("/")[0] for file in manifest["files"]}
    return [table for table in schema.TABLES if table in folders]


def outputs_of(manifest: Mapping[str, Any]) -> Outputs:
    """Return the outputs that a manifest declares; KeyError, TypeError or ConfigError if wrong."""
    return Outputs.of(manifest["emotions"], manifest["values"])
