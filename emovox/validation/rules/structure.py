"""Rules about files: their presence, hashes, storage, and the counts that they state."""

import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from emovox.dataset import schema
from emovox.dataset.card import card_of, front_matter, read_fields
from emovox.dataset.croissant_metadata import differences
from emovox.dataset.json_schemas import LEADS_OUTSIDE, faults
from emovox.dataset.store import matrices_of
from emovox.emotions import Outputs
from emovox.errors import ConfigError, EmovoxError
from emovox.files import parse_json
from emovox.validation.findings import Example, NotApplicableError, UnavailableError
from emovox.validation.inspection import Inspection, OtherColumnsError

DOCUMENTS = (schema.CARD, schema.PROVENANCE, schema.CHECKSUMS, schema.DROPPED_FILE)
OPTIONAL = {schema.TAKEDOWN, schema.CROISSANT, schema.CARD_FIELDS}  # may be added later


def manifest_schema(dataset: Inspection) -> Iterator[Example]:
    for fault in dataset.manifest_faults:
        yield Example(schema.MANIFEST, fault)


def provenance_schema(dataset: Inspection) -> Iterator[Example]:
    for fault in faults("provenance", dataset.json(schema.PROVENANCE)):
        yield Example(schema.PROVENANCE, fault)


def card_schema(dataset: Inspection) -> Iterator[Example]:
    text = dataset.text(schema.CARD)
    try:
        content = front_matter(text)
    except ValueError as error:
        yield Example(schema.CARD, str(error))
        return
    for fault in faults("card", content):
        yield Example(schema.CARD, fault)


def card_fields(dataset: Inspection) -> Iterator[Example]:
    try:
        read_fields(dataset.root)
    except ConfigError as error:
        yield Example(schema.CARD_FIELDS, str(error).partition(f"{schema.CARD_FIELDS}: ")[2])


def file_set(dataset: Inspection) -> Iterator[Example]:
    listed, found = {*dataset.entries, schema.MANIFEST}, {*dataset.files, *dataset.outside}
    for name in dataset.outside:
        yield Example(name, LEADS_OUTSIDE)
    for name in sorted(listed - found):
        yield Example(name, "is in the manifest, but not in the folder")
    for name in sorted(found - listed - OPTIONAL):
        yield Example(name, "is in the folder, but not in the manifest")
    for name in sorted(_required(dataset, listed) - listed):
        yield Example(name, "is required in this dataset, but not in the manifest")


def _required(dataset: Inspection, listed: set[str]) -> set[str]:
    """Return the files that the contract requires, given the splits and folders of a dataset."""
    names = set(DOCUMENTS)
    with contextlib.suppress(UnavailableError):  # reported by provenance-schema and file-hashes
        content = dataset.json(schema.PROVENANCE)
        if isinstance(content, dict) and "released_from" in content:
            names.add(schema.CROISSANT)
    folders = {name.split("/")[0] for name in listed} | {"frames", "tracks"}
    for split in dataset.manifest["totals"]["by_split"]:
        names |= {schema.table_file(t, split) for t in schema.TABLES if t in folders}
        names |= {schema.hdf5_file(split)} if "hdf5" in folders else set()
    return names


def file_hashes(dataset: Inspection) -> Iterator[Example]:
    for name, entry in dataset.entries.items():
        if name not in dataset.files:
            continue  # reported by file-set
        size = (dataset.root / name).stat().st_size
        if size != entry["bytes"]:
            yield Example(name, f"has {size:,} bytes, {entry['bytes']:,} in the manifest")
            continue
        try:
            digest = dataset.sha256(name)
        except UnavailableError as error:
            yield Example(name, str(error).removeprefix(f"{name}: "))
            continue
        if digest != entry["sha256"]:
            yield Example(name, f"has SHA-256 {digest}, {entry['sha256']} in the manifest")


def checksums(dataset: Inspection) -> Iterator[Example]:
    listed = {}
    for line in dataset.text(schema.CHECKSUMS).splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    entries = {n: e["sha256"] for n, e in dataset.entries.items() if n != schema.CHECKSUMS}
    for name in sorted(entries.keys() | listed.keys()):
        if entries.get(name) != listed.get(name):
            found, expected = listed.get(name, "missing"), entries.get(name, "missing")
            yield Example(schema.CHECKSUMS, f"{name}: {found}, in the manifest {expected}")


def croissant(dataset: Inspection) -> Iterator[Example]:
    if schema.CROISSANT not in dataset.files:
        raise NotApplicableError(f"the dataset has no {schema.CROISSANT}; only releases need one")
    text = dataset.text(schema.CROISSANT)
    try:
        document = parse_json(text)
    except ValueError as error:
        yield Example(schema.CROISSANT, f"not JSON ({error})")
        return
    for line in differences(document, dataset.manifest):
        yield Example(schema.CROISSANT, line)


def readable(dataset: Inspection) -> Iterator[Example]:
    names = [name for _, _, name in dataset.tables]
    names += [name for s in schema.SPLITS if (name := schema.hdf5_file(s)) in dataset.files]
    for name in names:
        try:
            dataset.content(name)
        except OtherColumnsError:
            continue  # reported by columns
        except UnavailableError as error:
            yield Example(name, str(error).removeprefix(f"{name}: "))


def _readable_tables(dataset: Inspection) -> Iterator[tuple[str, str, str]]:
    """Yield table, split and path of every Parquet file that opens; `readable` reports others."""
    for table, split, name in dataset.tables:
        with contextlib.suppress(UnavailableError):
            dataset.footer(name)
            yield table, split, name


def columns(dataset: Inspection) -> Iterator[Example]:
    for table, _, name in _readable_tables(dataset):
        found, expected = dataset.columns(name), dataset.expected(table, name)
        if found.names != expected.names:
            yield Example(name, f"columns are {', '.join(found.names)}")
            continue
        for field in expected:
            if not field.equals(found.field(field.name)):
                shown = _describe(found.field(field.name))
                yield Example(name, f"{field.name} is {shown}, expected {_describe(field)}")


def _describe(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"


def row_groups(dataset: Inspection) -> Iterator[Example]:
    for _, _, name in _readable_tables(dataset):
        footer = dataset.footer(name)
        sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        for i, size in enumerate(sizes):
            is_last = i == len(sizes) - 1
            if size > schema.ROW_GROUP_ROWS or (size < schema.ROW_GROUP_ROWS and not is_last):
                yield Example(name, f"row group {i} of {len(sizes)} has {size:,} rows")


def storage(dataset: Inspection) -> Iterator[Example]:
    for _, _, name in _readable_tables(dataset):
        footer = dataset.footer(name)
        groups = range(footer.num_row_groups if footer.num_rows else 0)
        for i, j in itertools.product(groups, range(footer.num_columns)):
            column = footer.row_group(i).column(j)
            path = column.path_in_schema
            if column.compression != "ZSTD":
                yield Example(name, f"{path} is compressed with {column.compression}")
            if column.has_dictionary_page != (path == "track_id"):
                has = "a" if column.has_dictionary_page else "no"
                yield Example(name, f"{path} has {has} dictionary")
            if not (column.has_offset_index and column.has_column_index):
                yield Example(name, f"{path} has no page index")


def metadata(dataset: Inspection) -> Iterator[Example]:
    dataset_name, outputs = dataset.manifest["name"], dataset.contract.outputs
    for _, split, name in _readable_tables(dataset):
        found = dataset.metadata(name)
        digest = found.get("emovox.content_sha256", "")  # its value is checked by content-hashes
        expected = schema.file_metadata(dataset_name, split, outputs, digest or "a hash")
        for key, value in expected.items():
            if found.get(key) != value:
                yield Example(name, f"{key} is {found.get(key)!r}, expected {value!r}")
        if "pandas" in found:
            yield Example(name, "has the metadata key pandas; do not write with pandas.to_parquet")


def hdf5_layout(dataset: Inspection) -> Iterator[Example]:
    for _, name in dataset.hdf5_files:
        with dataset.hdf5(name) as file:
            for fault in _layout_faults(file, dataset.contract.outputs):
                yield Example(name, fault)


def _layout_faults(file: Any, outputs: Outputs) -> Iterator[str]:
    """Yield a line for each array that is missing or has another type, chunk shape or filter."""
    import h5py

    matrices = matrices_of(outputs)
    types = dict.fromkeys(matrices, "float32") | {
        path: schema.COLUMNS[column]["type"].replace("string", "object")  # as h5py names it
        for path, column in (schema.HDF5_FRAMES | schema.HDF5_TRACKS).items()
    }
    for path, expected in types.items():
        chunk = (schema.HDF5_CHUNK_ROWS, len(matrices.get(path, ())))
        array = file.get(path)
        if not isinstance(array, h5py.Dataset):
            yield f"array /{path} is missing"
        elif array.dtype.name != expected:
            yield f"/{path} is {array.dtype.name}, expected {expected}"
        elif path in matrices and (array.chunks, array.ndim) != (chunk, 2):
            yield f"/{path} has chunks {array.chunks}, expected {chunk}"
        elif path.startswith("frames/") and any(
            getattr(array, key) != value for key, value in schema.HDF5_FILTERS.items()
        ):
            yield f"/{path} does not use gzip 4, shuffle and fletcher32"


TABLE_ROW = re.compile(rf"^\| (?:{'|'.join(schema.SPLITS)}) \|.*", re.MULTILINE)  # of a card
TOTALS = """
    select split || ' tracks', count(*) from tracks group by split
    union all select split || ' identities', count(distinct identity_id) from tracks group by split
    union all select split || ' frames', count(*) from frames group by split
    union all select 'tracks', count(*) from tracks
    union all select 'frames', count(*) from frames
    union all select 'dropped', count(*) from dropped"""


def totals(dataset: Inspection) -> Iterator[Example]:
    stated = dict(dataset.manifest["totals"])
    for split, counts in stated.pop("by_split").items():
        stated |= {f"{split} {key}": count for key, count in counts.items()}
    counted = dict(dataset.rows(TOTALS))
    for key in sorted(stated.keys() | counted.keys()):
        listed, found = stated.get(key, 0), counted.get(key, 0)
        if listed != found:
            yield Example(schema.MANIFEST, f"{key}: {listed:,} in the manifest, {found:,} counted")


def file_rows(dataset: Inspection) -> Iterator[Example]:
    entries = dataset.entries
    for table, split, name in dataset.tables:
        rows = dataset.footer(name).num_rows
        names = [name, schema.hdf5_file(split)] if table == "frames" else [name]
        for listed in (n for n in names if n in entries):
            stated = entries[listed]["rows"]
            if stated != rows:
                yield Example(listed, f"{stated} rows in the manifest, {rows} in {name}")


def card_numbers(dataset: Inspection) -> Iterator[Example]:
    header, text = dataset.card_header(), dataset.text(schema.CARD)
    try:
        expected = card_of(dataset.root)
    except EmovoxError as error:  # reported by the rules of what it is made from
        raise UnavailableError(f"{schema.CARD}: cannot compare: {error}") from error
    rows, expected_rows = ({*TABLE_ROW.findall(card)} for card in (text, expected))
    for row in sorted(rows ^ expected_rows):
        why = "differs from the data" if row in rows else "is missing"
        yield Example(schema.CARD, f"{row} {why}")
    listed = header.get("configs") if isinstance(header, dict) else None
    if listed != front_matter(expected).get("configs"):
        yield Example(schema.CARD, "configs of the front matter are not the tables of the dataset")
