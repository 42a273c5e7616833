"""JSON Schema of manifest, provenance, card and validation report; `emovox schema` prints it."""

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators

from emovox.dataset import schema
from emovox.emotions import MAX_EMOTIONS, NAME, Outputs
from emovox.errors import ConfigError, InputError, first_line
from emovox.files import LFS_HINT, is_lfs_pointer, read_object, sha256_file
from emovox.ids import CONTROL, printable
from emovox.limits import MAX_COUNT

Schema = dict[str, Any]

MAX_FAULTS = 1000  # per document

PRINTABLE: Schema = {"not": {"type": "string", "pattern": CONTROL}}
TEXT: Schema = {"type": "string", "minLength": 1} | PRINTABLE
MAYBE_TEXT: Schema = {"type": ["string", "null"]} | PRINTABLE
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_COUNT}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
MAYBE_SHA256: Schema = {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"}
# Below the dataset: not absolute, without `..`, not hidden.
PATH: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_/-]*(\.[A-Za-z0-9_/-]+)*$"}


def _open(optional: Schema | None = None, /, **required: Schema) -> Schema:
    """Return the schema of an object that may have further properties."""
    properties = required | (optional or {})
    return {"type": "object", "required": list(required), "properties": properties}


def _closed(**required: Schema) -> Schema:
    """Return the schema of an object with exactly these properties."""
    return _open(**required) | {"additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _names(**limits: int) -> Schema:
    """Return the schema of a list of names of emotions or values."""
    name = {"type": "string", "pattern": f"^{NAME.pattern}$"}
    return _list(name) | {"uniqueItems": True} | limits


TEACHER = _open(name=TEXT, sha256=MAYBE_SHA256)

MANIFEST = _open(
    schema_version={"const": schema.SCHEMA_VERSION},
    name=TEXT,
    version=TEXT,
    created={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$"},
    emotions=_names(minItems=2, maxItems=MAX_EMOTIONS),
    values=_names(minItems=0),
    step_ms={"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    teacher=TEACHER,
    totals=_closed(
        tracks=COUNT,
        frames=COUNT,
        dropped=COUNT,
        by_split={
            "type": "object",
            "propertyNames": {"enum": list(schema.SPLITS)},
            "additionalProperties": _closed(tracks=COUNT, frames=COUNT, identities=COUNT),
        },
    ),
    files=_list(
        _closed(
            path=PATH,
            bytes=COUNT,
            sha256=SHA256,
            rows={"type": ["integer", "null"], "minimum": 0},
            content_sha256=MAYBE_SHA256,
        )
    ),
)

RELEASED_FROM = _closed(
    version=TEXT,
    manifest_sha256=SHA256,
    # By takedown lists.
    removed=_closed(identities=COUNT, tracks=COUNT, frames=COUNT, dropped=COUNT),
)

PROVENANCE: Schema = _open(
    {
        "config": {"type": "object"},
        "teacher": TEACHER,
        "source_fingerprint": SHA256,
        "device": TEXT,
        "date": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
        "imported_from": _list(_open(file=TEXT, sha256=SHA256)),
        "split_disagreements": _list(_open(track_id=TEXT, file=MAYBE_TEXT, lists=MAYBE_TEXT)),
        "released_from": _list(RELEASED_FROM),  # of a release, the first source first
    },
    emovox=_open(version=TEXT, commit=MAYBE_TEXT),
    libraries={"type": "object", "required": ["python"], "additionalProperties": TEXT},
    origin=TEXT,  # a sentence for the card
)
PROVENANCE["anyOf"] = [
    {"required": ["config", "teacher", "source_fingerprint"]},  # built
    {"required": ["imported_from"]},
]

DATA_FILES = _list(_open(split={"enum": list(schema.SPLITS)}, path=PATH))
CARD = _open(
    {
        "license": {"anyOf": [TEXT, _list(TEXT)]},
        "configs": _list(
            _open(
                {"default": {"type": "boolean"}},
                config_name={"enum": list(schema.TABLES)},
                data_files=DATA_FILES,
            )
        ),
    },
    pretty_name=TEXT,
    tags=_list(TEXT),
)

RULE = _closed(
    name={"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    family=TEXT,
    severity={"enum": ["error", "warning"]},
    statement=TEXT,
    status={"enum": ["passed", "failed", "skipped"]},
    reason=MAYBE_TEXT,
    count=COUNT,
    examples=_list(_closed(file=TEXT, text=TEXT)),
)
VALIDATION = _closed(
    report_version={"const": 1},
    dataset=_closed(path=TEXT, name=TEXT, version=TEXT),
    valid={"type": "boolean"},
    strict={"type": "boolean"},
    seconds={"type": "number", "minimum": 0},
    counts=_closed(passed=COUNT, errors=COUNT, warnings=COUNT, skipped=COUNT),
    rules=_list(RULE),
)

DOCUMENTS: dict[str, Schema] = {
    "manifest": {"title": f"{schema.MANIFEST} of a dataset", **MANIFEST},
    "provenance": {"title": f"{schema.PROVENANCE} of a dataset", **PROVENANCE},
    "card": {"title": f"Front matter of {schema.CARD} of a dataset", **CARD},
    "validation": {"title": "Output of `emovox validate --format json`", **VALIDATION},
}


def describe_documents() -> dict[str, Any]:
    """Return the JSON Schema of every document, by name."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | document for name, document in DOCUMENTS.items()}


def _unique(validator: Any, value: Any, instance: Any, document: Schema) -> Any:
    """Yield the fault of a list with equal items; not of a long one, where the search is slow."""
    if isinstance(instance, list) and len(instance) <= 2 * MAX_EMOTIONS:
        yield from Draft202012Validator.VALIDATORS["uniqueItems"](
            validator, value, instance, document
        )


VALIDATOR = validators.extend(
    Draft202012Validator,
    {"uniqueItems": _unique},
    # 1.0 is no integer here.
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, x: type(x) is int),
)


def faults(name: str, content: Any) -> list[str]:
    """Return the violations of the schema of `DOCUMENTS[name]`, one line each, at most 1,000."""
    errors = islice(VALIDATOR(DOCUMENTS[name]).iter_errors(content), MAX_FAULTS)
    found = sorted((list(map(str, error.path)), _short(error)) for error in errors)
    return [f"{'.'.join(path) or 'document'}: {text}" for path, text in found]


def _short(error: Any) -> str:
    message = printable(error.message)
    if error.validator == "pattern" and error.validator_value == PATH["pattern"]:
        message = f"{printable(error.instance)!r} is not a path below the dataset"
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
    from emovox.dataset.json_schemas import faults  # slow to import

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
    hashes = (f.get("content_sha256") for f in manifest["files"] if f["path"] == path)
    return next(hashes, None)


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
