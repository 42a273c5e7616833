"""Files and columns of a dataset as Croissant 1.1 metadata, from its manifest and the contract.

There is a record set for each table, with a field for each column. Files are named relative to the
document, so that it is valid in every copy of the folder.

Specification: http://mlcommons.org/croissant/1.1.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.json_schemas import outputs_of, tables_of

Node = dict[str, Any]

NUMBERS = ("Int16", "Int32", "Int64", "Float16", "Float32", "Float64")
DATA_TYPES = {pa.type_for_alias(name.lower()): f"cr:{name}" for name in NUMBERS}
DATA_TYPES[pa.string()] = "sc:Text"
EMBEDDING_SIZE = 1  # any: the metadata does not state it
PARQUET = "application/x-parquet"  # the only spelling that mlcroissant reads
FORMATS = {
    ".parquet": PARQUET,
    ".h5": "application/x-hdf5",
    ".json": "application/json",
    ".md": "text/markdown",
}
# Not described: the document itself, and the file that may hold its hash.
NOT_DESCRIBED = (schema.CROISSANT, schema.CHECKSUMS)


def files_and_columns(manifest: Mapping[str, Any]) -> Node:
    """Return `distribution` and `recordSet`, of all files except croissant.json and SHA256SUMS."""
    files = [file for file in manifest["files"] if file["path"] not in NOT_DESCRIBED]
    splits = [split for split in schema.SPLITS if split in manifest["totals"]["by_split"]]
    tables = tables_of(manifest)
    return {
        "distribution": [
            *(_file_object(file) for file in files),
            *(_file_set(table, splits) for table in tables),
        ],
        "recordSet": [_table_records(manifest, t, splits) for t in (*tables, "dropped")],
    }


def _file_object(file: Mapping[str, Any]) -> Node:
    return {
        **_node("FileObject", file["path"]),
        "contentUrl": file["path"],
        "contentSize": f"{file['bytes']} B",
        "encodingFormat": FORMATS.get(PurePosixPath(file["path"]).suffix, "text/plain"),
        "sha256": file["sha256"],
    }


def _file_set(table: str, splits: list[str]) -> Node:
    return {
        **_node("FileSet", f"{table}-files"),
        "description": f"The files of `{table}`, one for each split.",
        "encodingFormat": PARQUET,
        "includes": [schema.table_file(table, split) for split in splits],
    }


def _table_records(manifest: Mapping[str, Any], table: str, splits: list[str]) -> Node:
    columns = schema.columns(outputs_of(manifest)).of(table, EMBEDDING_SIZE)
    if table == "dropped":  # one file; its track_id may repeat
        source, key = {"fileObject": {"@id": schema.DROPPED_FILE}}, []
    else:
        source = {"fileSet": {"@id": f"{table}-files"}}
        key = [name for name in ("track_id", "frame_index") if name in columns.names]
    fields = [_column(table, column, source) for column in columns]
    if "split" not in columns.names and table != "dropped":
        fields.append(_split_of_file(table, splits, source))
    return {
        **_node("RecordSet", table),
        "description": schema.ROWS[table],
        **({"key": [{"@id": f"{table}/{name}"} for name in key]} if key else {}),
        "field": fields,
    }


def _column(table: str, column: pa.Field, source: Node) -> Node:
    name = column.name
    is_list = pa.types.is_fixed_size_list(column.type)
    kind = column.type.value_type if is_list else column.type
    field = _field(table, name, DATA_TYPES[kind], schema.description(name))
    field["source"] = source | {"extract": {"column": name}}
    if is_list:
        field |= {"isArray": True, "arrayShape": "-1"}
    if name == "track_id" and table in ("frames", "faces", "embeddings"):
        field["references"] = {"field": {"@id": "tracks/track_id"}}
    return field


def _split_of_file(table: str, splits: list[str], source: Node) -> Node:
    """Return a field for the split of a row, taken from its file name, for tables without one."""
    field = _field(table, "split", ["sc:Text", "cr:Split"], schema.description("split"))
    field["source"] = source | {
        "extract": {"fileProperty": "filename"},
        "transform": {"regex": rf"^({'|'.join(splits)})-.*\.parquet$"},
    }
    return field


def _field(record_set: str, name: str, data_type: str | list[str], description: str) -> Node:
    node = _node("Field", f"{record_set}/{name}", name)
    return node | {"description": description, "dataType": data_type}


def _node(kind: str, node_id: str, name: str | None = None) -> Node:
    return {"@type": f"cr:{kind}", "@id": node_id, "name": name or node_id}


def differences(document: Any, manifest: Mapping[str, Any]) -> list[str]:
    """Return the differences between Croissant metadata and its dataset, one line each.

    Compares name, version, files with their sizes and hashes, and columns with their types; the
    wording is free. A document that is not Croissant metadata of a dataset gives one line.
    """
    try:
        found = _facts(document)
    except (KeyError, TypeError, AttributeError) as error:
        return [f"not the Croissant metadata of a dataset ({type(error).__name__}: {error})"]
    expected = _facts({**manifest, **files_and_columns(manifest)})
    return [
        f"{fact}: {found.get(fact, 'missing')}, expected {expected.get(fact, 'nothing')}"
        for fact in sorted(found.keys() | expected.keys())
        if found.get(fact) != expected.get(fact)
    ]


def _facts(document: Any) -> dict[str, str]:
    facts = {"name": str(document["name"]), "version": str(document["version"])}
    for entry in document["distribution"]:
        if entry["@type"] == "cr:FileObject":
            values = [str(entry.get(key)) for key in ("contentUrl", "contentSize", "sha256")]
            facts[f"file {entry['@id']}"] = ", ".join(values)
        else:
            facts[f"files {entry['@id']}"] = ", ".join(entry["includes"])
    for record_set in document["recordSet"]:
        for field in record_set["field"]:
            facts[f"column {field['@id']}"] = str(field.get("dataType"))
    return facts
