"""Rules about files: which there are, their hashes, and how the tables are stored."""

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.json_schemas import faults
from emovox.publishing.croissant import disagreements
from emovox.validation.front_matter import front_matter
from emovox.validation.inspection import Inspection, OtherColumnsError
from emovox.validation.rule import ERROR, Example, Family, NotApplicableError, UnavailableError

RULES = Family("structure")

DOCUMENTS = (schema.CARD, schema.PROVENANCE, schema.CHECKSUMS, schema.DROPPED_FILE)


@RULES.check("manifest-schema", ERROR, "manifest.json follows its JSON Schema.")
def manifest_schema(dataset: Inspection) -> Iterator[Example]:
    for fault in faults("manifest", dataset.raw_manifest):
        yield Example(schema.MANIFEST, fault)


@RULES.check("provenance-schema", ERROR, "provenance.json follows its JSON Schema.")
def provenance_schema(dataset: Inspection) -> Iterator[Example]:
    for fault in faults("provenance", dataset.provenance()):
        yield Example(schema.PROVENANCE, fault)


@RULES.check("card-schema", ERROR, "The card's front matter is YAML and follows its JSON Schema.")
def card_schema(dataset: Inspection) -> Iterator[Example]:
    try:
        content = front_matter(dataset.text(schema.CARD))
    except ValueError as error:
        yield Example(schema.CARD, str(error))
        return
    for fault in faults("card", content):
        yield Example(schema.CARD, fault)


@RULES.check("file-set", ERROR, "The folder holds exactly the files that its manifest lists.")
def file_set(dataset: Inspection) -> Iterator[Example]:
    listed, there = {*dataset.entries(), schema.MANIFEST}, {*dataset.existing()}
    for name in sorted(listed - there):
        yield Example(name, "is in the manifest, but not there")
    for name in sorted(there - listed - {schema.TAKEDOWN, schema.CROISSANT}):  # may join any time
        yield Example(name, "is there, but not in the manifest")
    for name in sorted(_required(dataset, listed) - listed):
        yield Example(name, "belongs to every such dataset, but is not in the manifest")


def _required(dataset: Inspection, listed: set[str]) -> set[str]:
    """Files of the contract, given the splits with rows and the kinds of files that are listed."""
    names = set(DOCUMENTS) | ({schema.CROISSANT} if _is_released(dataset) else set())
    folders = {name.split("/")[0] for name in listed} | {"frames", "tracks"}
    for split in dataset.manifest["totals"]["by_split"]:
        names |= {schema.table_file(t, split) for t in schema.TABLES if t in folders}
        names |= {schema.hdf5_file(split)} if "hdf5" in folders else set()
    return names


def _is_released(dataset: Inspection) -> bool:
    try:
        content = dataset.provenance()
    except UnavailableError:
        return False  # provenance-schema and file-hashes say so
    return isinstance(content, dict) and "released_from" in content


@RULES.check(
    "file-hashes", ERROR, "Every file has the size and SHA-256 of the manifest.", waits=True
)
def file_hashes(dataset: Inspection) -> Iterator[Example]:
    there = set(dataset.existing())
    for name, entry in dataset.entries().items():
        if name not in there:
            continue  # file-set says so
        size = (dataset.root / name).stat().st_size
        if size != entry["bytes"]:
            yield Example(name, f"has {size:,} bytes, {entry['bytes']:,} in the manifest")
            continue
        try:
            digest = dataset.sha256(name)
        except UnavailableError as error:
            yield Example(name, str(error))
            continue
        if digest != entry["sha256"]:
            yield Example(name, f"has SHA-256 {digest}, {entry['sha256']} in the manifest")


@RULES.check("checksums", ERROR, "SHA256SUMS lists every file with the hash of the manifest.")
def checksums(dataset: Inspection) -> Iterator[Example]:
    listed = {}
    for number, line in enumerate(dataset.text(schema.CHECKSUMS).splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        if not separator:
            yield Example(schema.CHECKSUMS, f"line {number} is not <hash>  <file>")
        listed[name] = digest
    entries = {n: e["sha256"] for n, e in dataset.entries().items() if n != schema.CHECKSUMS}
    for name in sorted(entries.keys() | listed.keys()):
        if entries.get(name) != listed.get(name):
            here, there = listed.get(name, "no hash"), entries.get(name, "none")
            yield Example(schema.CHECKSUMS, f"{name}: {here} here, {there} in the manifest")


@RULES.check("croissant", ERROR, "croissant.json has the name, version, files and columns.")
def croissant(dataset: Inspection) -> Iterator[Example]:
    if not (dataset.root / schema.CROISSANT).is_file():
        raise NotApplicableError(f"the dataset has no {schema.CROISSANT}; a release has one")
    try:
        document = json.loads(dataset.text(schema.CROISSANT))
    except ValueError as error:
        yield Example(schema.CROISSANT, f"is not JSON ({error})")
        return
    for line in disagreements(document, dataset.manifest):
        yield Example(schema.CROISSANT, line)


@RULES.check(
    "readable",
    ERROR,
    "Every page and chunk of every table can be read, checksums right.",
    waits=True,
)
def readable(dataset: Inspection) -> Iterator[Example]:
    there = dataset.existing()
    names = [name for _, _, name in dataset.tables()]
    names += [name for s in schema.SPLITS if (name := schema.hdf5_file(s)) in there]
    for name in names:
        try:
            dataset.content(name)
        except OtherColumnsError:
            continue  # `columns` says so
        except UnavailableError as error:
            yield Example(name, str(error))


@RULES.check("columns", ERROR, "Tables have the contract's columns: order, type, nullability.")
def columns(dataset: Inspection) -> Iterator[Example]:
    for table, name, footer in _footers(dataset):
        found, wanted = footer.schema.to_arrow_schema(), schema.SCHEMAS[table]
        if found.names != wanted.names:
            yield Example(name, f"columns are {', '.join(found.names)}")
            continue
        for field in wanted:
            if not field.equals(found.field(field.name)):
                one, other = _shown(found.field(field.name)), _shown(field)
                yield Example(name, f"{field.name} is {one}, expected {other}")


def _shown(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"


def _footers(dataset: Inspection) -> Iterator[tuple[str, str, pq.FileMetaData]]:
    """Table, path and metadata of every Parquet file that opens; `readable` names the others."""
    for table, _, name in dataset.tables():
        try:
            yield table, name, dataset.footer(name)
        except UnavailableError:
            continue


@RULES.check("row-groups", ERROR, f"Row groups have {schema.ROW_GROUP_ROWS:,} rows, the last less.")
def row_groups(dataset: Inspection) -> Iterator[Example]:
    for _, name, footer in _footers(dataset):
        sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        for i, size in enumerate(sizes):
            last = i == len(sizes) - 1
            if size > schema.ROW_GROUP_ROWS or (size < schema.ROW_GROUP_ROWS and not last):
                yield Example(name, f"row group {i} of {len(sizes)} has {size:,} rows")


@RULES.check("storage", ERROR, "Columns are zstd, track_id alone has a dictionary, pages an index.")
def storage(dataset: Inspection) -> Iterator[Example]:
    for _, name, footer in _footers(dataset):
        for column in (
            footer.row_group(i).column(j)
            for i in range(footer.num_row_groups if footer.num_rows else 0)
            for j in range(footer.num_columns)
        ):
            where = f"{column.path_in_schema}"
            if column.compression != "ZSTD":
                yield Example(name, f"{where} is packed with {column.compression}")
            if column.has_dictionary_page != (column.path_in_schema == "track_id"):
                has = "a" if column.has_dictionary_page else "no"
                yield Example(name, f"{where} has {has} dictionary")
            if not (column.has_offset_index and column.has_column_index):
                yield Example(name, f"{where} has no page index")


@RULES.check("metadata", ERROR, "Every table states version, dataset, split, emotions and hash.")
def metadata(dataset: Inspection) -> Iterator[Example]:
    name_of_dataset = dataset.manifest["name"]
    for table, split, name in dataset.tables():
        try:
            stored = dataset.footer(name).metadata or {}
        except UnavailableError:
            continue
        found = {k.decode(): v.decode("utf-8", "replace") for k, v in stored.items()}
        digest = found.get("emovox.content_sha256", "")  # content-hashes looks at its value
        for key, value in schema.file_metadata(name_of_dataset, split, digest or "a hash").items():
            if found.get(key) != value:
                yield Example(name, f"{key} is {found.get(key)!r}, expected {value!r} ({table})")


@RULES.check("no-pandas", ERROR, "No table carries the index or metadata of pandas.")
def no_pandas(dataset: Inspection) -> Iterator[Example]:
    for _, name, footer in _footers(dataset):
        if b"pandas" in (footer.metadata or {}):
            yield Example(name, "has the metadata key pandas; written by pandas.to_parquet?")
        for column in footer.schema.to_arrow_schema().names:
            if column.startswith("__index_level_"):
                yield Example(name, f"column {column} is an index of pandas")


@RULES.check("hdf5-layout", ERROR, "HDF5 files have the contract's arrays, types and chunks.")
def hdf5_layout(dataset: Inspection) -> Iterator[Example]:
    from emovox.validation.hdf5 import layout_faults

    names = [schema.hdf5_file(s) for s in schema.SPLITS]
    names = [name for name in names if (dataset.root / name).is_file()]
    if not names:
        raise NotApplicableError("the dataset has no HDF5 files")
    for name in names:
        for fault in layout_faults(dataset.root / name):
            yield Example(name, fault)
