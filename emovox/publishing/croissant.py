"""Croissant 1.1 metadata of a dataset, croissant.json: made from its manifest and the contract.

There is a record set for each table, with a field for each column, and one for the splits. Files
are named relative to the document, which therefore fits a folder and a copy of it alike.

Specification: http://mlcommons.org/croissant/1.1 and http://mlcommons.org/croissant/RAI/1.0.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from emovox.dataset import card_text, schema
from emovox.errors import InputError
from emovox.files import write_text

Node = dict[str, Any]

CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
TERMS = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field",
    "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset",
    "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
    "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT: Node = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in TERMS},
}
DATA_TYPES = {
    pa.string(): "sc:Text",
    pa.int16(): "cr:Int16",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.float32(): "cr:Float32",
    pa.float64(): "cr:Float64",
}
SPLIT_TYPES = {
    "train": "cr:TrainingSplit",
    "heard_val": "cr:ValidationSplit",
    "unheard_val": "cr:ValidationSplit",
}
PARQUET = "application/x-parquet"  # the only spelling that mlcroissant reads
FORMATS = {
    ".parquet": PARQUET,
    ".h5": "application/x-hdf5",
    ".json": "application/json",
    ".md": "text/markdown",
}
KEYS = {
    "frames": ("track_id", "frame_index"),
    "tracks": ("track_id",),
    "faces": ("track_id", "frame_index"),
}
# Not described: the document itself, and the file that may hold its hash.
LEFT_OUT = (schema.CROISSANT, schema.CHECKSUMS)


def write_croissant(root: Path, manifest: Mapping[str, Any]) -> None:
    """Write croissant.json into a dataset, atomically; see `croissant`."""
    # ASCII, because mlcroissant opens it in the encoding of the machine.
    write_text(root / schema.CROISSANT, json.dumps(croissant(root, manifest), indent=2) + "\n")


def croissant(root: Path, manifest: Mapping[str, Any]) -> Node:
    """The Croissant metadata of a dataset, as JSON-LD.

    Args:
        root: its folder, with provenance.json in it.
        manifest: content of its manifest.json, which need not be there yet. Every file that it
            lists is described, apart from croissant.json itself and SHA256SUMS.

    Raises:
        InputError: provenance.json cannot be read, or lacks `origin`.
    """
    provenance = _read_provenance(root)
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
        "license": {
            "@type": "sc:CreativeWork",
            "name": "Terms of the source corpus",
            "description": card_text.LICENCE,
        },
        "citeAs": card_text.CITATION,
        "keywords": list(card_text.TAGS),
        "rai:dataUseCases": limits.use,
        "rai:dataLimitations": [limits.errors, limits.misuse],
        "rai:dataBiases": limits.biases,
        "rai:personalSensitiveInformation": limits.people,
        "rai:dataCollectionMissingData": card_text.missing(manifest),
        "rai:machineAnnotationTools": teacher["name"] + digest,
        **outline(manifest),
    }


def outline(manifest: Mapping[str, Any]) -> Node:
    """The part about files and record sets, which follows from the manifest alone."""
    files = [file for file in manifest["files"] if file["path"] not in LEFT_OUT]
    names = {file["path"] for file in files}
    splits = [split for split in schema.SPLITS if split in manifest["totals"]["by_split"]]
    tables = [t for t in schema.TABLES if splits and schema.table_file(t, splits[0]) in names]
    return {
        "distribution": [
            *(_file_object(file) for file in files),
            *(_file_set(table, splits) for table in tables),
        ],
        "recordSet": [
            *([_split_records(splits)] if splits else []),
            *(_table_records(table, splits) for table in tables),
            _table_records("dropped", []),
        ],
    }


def _read_provenance(root: Path) -> Node:
    path = root / schema.PROVENANCE
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from error
    if not isinstance(provenance, dict) or "origin" not in provenance:
        raise InputError(f"{path}: does not say where the rows come from (`origin`)")
    return provenance


def _file_object(file: Mapping[str, Any]) -> Node:
    return {
        "@type": "cr:FileObject",
        "@id": file["path"],
        "name": file["path"],
        "contentUrl": file["path"],
        "contentSize": f"{file['bytes']} B",
        "encodingFormat": FORMATS.get(PurePosixPath(file["path"]).suffix, "text/plain"),
        "sha256": file["sha256"],
    }


def _file_set(table: str, splits: list[str]) -> Node:
    return {
        "@type": "cr:FileSet",
        "@id": _file_set_id(table),
        "name": _file_set_id(table),
        "description": f"The files of `{table}`, one for each split.",
        "encodingFormat": PARQUET,
        "includes": [schema.table_file(table, split) for split in splits],
    }


def _file_set_id(table: str) -> str:
    return f"{table}-files"


def _split_records(splits: list[str]) -> Node:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "One row per split that has rows.",
        "dataType": ["sc:Enumeration", "cr:Split"],
        "key": {"@id": "splits/name"},
        "field": [
            _field("splits", "name", "sc:Text", "Name of the split."),
            _field("splits", "url", "sc:URL", "Its kind, in the terms of Croissant."),
        ],
        "data": [{"splits/name": s, "splits/url": SPLIT_TYPES[s]} for s in splits],
    }


def _table_records(table: str, splits: list[str]) -> Node:
    source = {"fileSet": {"@id": _file_set_id(table)}}
    if table == "dropped":
        source = {"fileObject": {"@id": schema.DROPPED_FILE}}
    fields = [_column(table, column, source) for column in schema.SCHEMAS[table]]
    if "split" not in schema.SCHEMAS[table].names and splits:
        fields.append(_split_of_file(table, splits, source))
    key = [{"@id": f"{table}/{column}"} for column in KEYS.get(table, ())]
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": schema.ROWS[table],
        **({"key": key} if key else {}),
        "field": fields,
    }


def _column(table: str, column: pa.Field, source: Node) -> Node:
    name = column.name
    field = _field(table, name, DATA_TYPES[column.type], schema.COLUMNS[name])
    field["source"] = source | {"extract": {"column": name}}
    if name == "track_id" and table in ("frames", "faces"):
        field["references"] = {"field": {"@id": "tracks/track_id"}}
    return field


def _split_of_file(table: str, splits: list[str], source: Node) -> Node:
    """The split of a row by the name of its file, for tables without a column that says it.

    It does not refer to the record set of the splits: mlcroissant's filters, which make a field
    like this one worth having, cannot be used beside two references.
    """
    field = _field(table, "split", ["sc:Text", "cr:Split"], schema.COLUMNS["split"])
    field["source"] = source | {
        "extract": {"fileProperty": "filename"},
        "transform": {"regex": rf"^({'|'.join(splits)})-.*\.parquet$"},
    }
    return field


def _field(record_set: str, name: str, data_type: str | list[str], description: str) -> Node:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": description,
        "dataType": data_type,
    }


def disagreements(document: Any, manifest: Mapping[str, Any]) -> list[str]:
    """Where Croissant metadata parts from a manifest and the contract, a line each.

    Compared are name, version, files with their sizes and hashes, and columns with their types; the
    wording is free. A document that is none is one line.
    """
    try:
        found = _facts(document)
    except (KeyError, TypeError, AttributeError) as error:
        return [f"is no Croissant metadata of a dataset ({type(error).__name__}: {error})"]
    right = _facts({**manifest, **outline(manifest)})
    return [
        f"{what}: {found.get(what, 'nothing')} here, by the manifest {right.get(what, 'nothing')}"
        for what in sorted(found.keys() | right.keys())
        if found.get(what) != right.get(what)
    ]


def _facts(document: Any) -> dict[str, str]:
    facts = {"name": str(document["name"]), "version": str(document["version"])}
    for entry in document["distribution"]:
        if entry["@type"] == "cr:FileObject":
            said = [str(entry.get(key)) for key in ("contentUrl", "contentSize", "sha256")]
            facts[f"file {entry['@id']}"] = ", ".join(said)
        else:
            facts[f"files {entry['@id']}"] = ", ".join(entry["includes"])
    for record_set in document["recordSet"]:
        for field in record_set["field"]:
            facts[f"column {field['@id']}"] = str(field.get("dataType"))
    return facts
