"""croissant.json: mlcroissant accepts it and reads the rows of the files with it."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from validation_fixtures import (
    COLUMNS,
    EMBEDDING_SIZE,
    SPEC,
    TRAIN,
    build,
    read_manifest,
    read_table,
    seal,
)

from emovox.dataset import schema
from emovox.dataset.card import REAL, SYNTHETIC
from emovox.dataset.croissant_metadata import DATA_TYPES, differences, files_and_columns
from emovox.errors import InputError
from emovox.publishing.publish import CONTEXT, croissant, write_croissant
from emovox.validation.outcomes import validate

mlcroissant = pytest.importorskip("mlcroissant", reason="pip install 'emovox[croissant]'")

ODD_NAME = 'o\'dd "name" {@id} <b> \\ é 名\n/x'


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three splits, faces, HDF5, a dropped track, croissant.json; read-only for tests."""
    root = build(tmp_path_factory.mktemp("croissant") / "dataset")
    write_croissant(root, read_manifest(root))
    return root


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """A copy for tests that change it."""
    return Path(shutil.copytree(dataset, tmp_path / "o'dd [1] é"))


def opened(root: Path) -> Any:
    return mlcroissant.Dataset(str(root / schema.CROISSANT))


def value_of(scalar: Any, data_type: pa.DataType) -> Any:
    """Value as mlcroissant returns it: text as bytes, a number with the type of its column."""
    if scalar is None:
        return None
    if pa.types.is_fixed_size_list(data_type):
        return [np.float16(number) for number in scalar]
    return scalar.encode() if pa.types.is_string(data_type) else data_type.to_pandas_dtype()(scalar)


def expected(root: Path, table: str, split: str) -> list[dict[str, Any]]:
    rows = read_table(root, table, split).to_pylist()
    kinds = {column.name: column.type for column in COLUMNS.of(table, EMBEDDING_SIZE)}
    more = {} if "split" in kinds else {f"{table}/split": split.encode()}
    return [{f"{table}/{k}": value_of(v, kinds[k]) for k, v in row.items()} | more for row in rows]


def without_faces(manifest: dict[str, Any]) -> dict[str, Any]:
    unwanted = ("faces", "embeddings")
    return manifest | {
        "files": [f for f in manifest["files"] if not f["path"].startswith(unwanted)]
    }


@pytest.mark.parametrize("case", ["whole", "empty split", "no tracks", "no faces", "odd name"])
def test_mlcroissant_accepts_the_document(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = {"empty split": [s for s in SPEC if s[3] == TRAIN], "no tracks": []}.get(case, SPEC)
    root = build(tmp_path / "dataset", spec)
    manifest = read_manifest(root)
    if case == "no faces":
        manifest = without_faces(manifest)
    if case == "odd name":
        manifest |= {"name": ODD_NAME}
    write_croissant(root, manifest)
    with caplog.at_level(logging.WARNING):
        whole = opened(root)
    metadata = whole.metadata
    assert metadata.ctx.issues.report() == "" and not caplog.records
    assert (metadata.name, metadata.version) == (manifest["name"], "1.0.0")
    assert metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    tables = {"no tracks": [], "no faces": ["frames", "tracks"]}.get(case, list(schema.TABLES))
    record_sets = [*tables, "dropped"]
    assert [record_set.id for record_set in metadata.record_sets] == record_sets
    for name in record_sets:
        rows = list(whole.records(name))
        sizes = {"dropped": 1, "tracks": len(spec)}
        assert len(rows) == sizes.get(name, 6 * len(spec))


@pytest.mark.parametrize("table", schema.TABLES)
def test_records_equal_the_rows(dataset: Path, table: str) -> None:
    found = list(opened(dataset).records(table))
    in_order_of_names = sorted(schema.SPLITS)
    want = [row for split in in_order_of_names for row in expected(dataset, table, split)]
    assert found == want
    for column in COLUMNS.of(table, EMBEDDING_SIZE):
        kinds = {type(row[f"{table}/{column.name}"]) for row in found} - {type(None)}
        if pa.types.is_fixed_size_list(column.type):
            kind: Any = list
        else:
            kind = bytes if pa.types.is_string(column.type) else column.type.to_pandas_dtype()
        assert kinds == {kind}, column.name
    nulls = {k for row in found for k, v in row.items() if v is None}
    nullable = {f"tracks/{field.name}" for field in COLUMNS.tracks if field.nullable}
    assert nulls == (nullable if table == "tracks" else set())


def test_dropped_tracks_are_records(dataset: Path) -> None:
    (row,) = opened(dataset).records("dropped")
    assert row["dropped/track_id"] == b"id10002/video0002/00002"
    assert row["dropped/attempts"] == np.int32(1) and len(row) == len(schema.DROPPED)


@pytest.mark.parametrize("table", ["frames", "faces"])
@pytest.mark.parametrize("split", schema.SPLITS)
def test_records_of_one_split(dataset: Path, table: str, split: str) -> None:
    rows = list(opened(dataset).records(table, {f"{table}/split": split}))
    assert rows == expected(dataset, table, split)


def test_record_sets_can_be_read_in_any_order(dataset: Path) -> None:
    for order in (["frames", "tracks", "faces"], ["tracks", "faces", "frames"]):
        whole = opened(dataset)
        assert {name: len(list(whole.records(name))) for name in order} == {
            "frames": 36, "tracks": 6, "faces": 36,
        }  # fmt: skip


def test_keys_and_references(dataset: Path) -> None:
    record_sets = {r.id: r for r in opened(dataset).metadata.record_sets}
    assert record_sets["tracks"].key == ["tracks/track_id"]
    for table in ("frames", "faces"):
        assert record_sets[table].key == [f"{table}/track_id", f"{table}/frame_index"]
        refers = {f.id: f.references.uuid for f in record_sets[table].fields if f.references}
        assert refers == {f"{table}/track_id": "tracks/track_id"}


def test_every_column_of_the_contract_has_a_field(dataset: Path) -> None:
    record_sets = {
        r["@id"]: r["field"] for r in files_and_columns(read_manifest(dataset))["recordSet"]
    }
    for table in schema.ROWS:
        columns = COLUMNS.of(table, EMBEDDING_SIZE)
        fields = {field["name"]: field for field in record_sets[table]}
        assert list(fields)[: len(columns)] == columns.names
        assert set(fields) - set(columns.names) <= {"split"}
        for column in columns:
            kind = column.type.value_type if column.name == "embedding" else column.type
            assert fields[column.name]["dataType"] == DATA_TYPES[kind]
            assert fields[column.name]["description"] == schema.description(column.name)


def test_every_file_is_described(dataset: Path) -> None:
    manifest = read_manifest(dataset)
    left_out = {schema.CHECKSUMS, schema.CROISSANT}
    files = {f["path"]: f for f in manifest["files"] if f["path"] not in left_out}
    objects = {o.id: o for o in opened(dataset).metadata.file_objects}
    assert objects.keys() == files.keys() and schema.hdf5_file(TRAIN) in files
    for path, file in files.items():
        assert objects[path].content_url == path and objects[path].sha256 == file["sha256"]
        assert objects[path].content_size == f"{file['bytes']} B"


def test_mlcroissant_detects_a_changed_file(copy: Path) -> None:
    """It checks single files only; `emovox validate` also checks sets of files."""
    path = copy / schema.DROPPED_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(mlcroissant.GenerationError) as error:
        list(opened(copy).records("dropped"))
    assert "Hash of downloaded file" in str(error.value.__cause__)


def test_context_is_that_of_version_1_1() -> None:
    from mlcroissant._src.core.context import Context
    from mlcroissant._src.core.rdf import make_context

    assert make_context(Context(conforms_to="http://mlcommons.org/croissant/1.1")) == CONTEXT


def test_the_same_dataset_gives_the_same_bytes(dataset: Path, copy: Path) -> None:
    before = (dataset / schema.CROISSANT).read_bytes()
    assert before.isascii()
    manifest = read_manifest(copy)
    listed = {"path": schema.CROISSANT, "bytes": 1, "sha256": "0" * 64}
    for files in (manifest["files"], [*manifest["files"], listed]):
        write_croissant(copy, manifest | {"files": files})
        assert (copy / schema.CROISSANT).read_bytes() == before


def test_it_has_the_texts_of_the_card(dataset: Path) -> None:
    card, document = (dataset / schema.CARD).read_text(), croissant(dataset, read_manifest(dataset))
    texts = [
        document["description"],
        document["citeAs"],
        document["license"]["description"],
        document["rai:dataUseCases"],
        *document["rai:dataLimitations"],
        document["rai:dataBiases"],
        document["rai:dataCollectionMissingData"],
    ]
    for text in texts:
        assert text in card
    assert "creator" not in document, "the creator is unknown"
    metadata = opened(dataset).metadata
    assert metadata.personal_sensitive_information == [REAL["people"]]
    assert metadata.machine_annotation_tools == [f"fake, weights sha256 {'0' * 64}"]


def test_synthetic_faces_are_stated(tmp_path: Path) -> None:
    root = build(tmp_path / "dataset", config={"synthetic": True})
    document = croissant(root, read_manifest(root))
    assert document["rai:personalSensitiveInformation"] == SYNTHETIC["people"]
    assert "real people" not in json.dumps(document)
    assert "real people" not in (root / schema.CARD).read_text()


def test_facts_of_a_maintainer(copy: Path) -> None:
    fields = """
    licence = "cc-by-4.0"
    contact = "Lab <lab@example.org>"
    citation = "@misc{ours}"
    description = "Ours."
    languages = ["en-GB", "pt"]"""
    (copy / schema.CARD_FIELDS).write_text(fields)
    seal(copy)
    metadata = opened(copy).metadata
    assert not metadata.issues.errors and not metadata.issues.warnings
    assert metadata.license[0].name == "cc-by-4.0"
    assert metadata.cite_as == "@misc{ours}"
    assert metadata.description.startswith("Ours.\nEmotion logits of ")
    assert metadata.in_language == ["en-GB", "pt"]
    assert metadata.data_release_maintenance_plan == "Lab <lab@example.org>"


def test_validation_accepts_it_listed_or_not(dataset: Path, copy: Path) -> None:
    assert validate(dataset).valid
    seal(copy)
    assert schema.CROISSANT in {f["path"] for f in read_manifest(copy)["files"]}
    assert validate(copy).valid


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other"}, "name: other, expected small"),
        ({"version": "2.0.0"}, "version: 2.0.0, expected 1.0.0"),
        ({"recordSet": []}, "column dropped/attempts: missing, expected cr:Int32"),
        ({"distribution": []}, "file README.md: missing, expected README.md, "),
        ({"distribution": "none"}, "not the Croissant metadata of a dataset"),
    ],
)
def test_differences_from_the_manifest(dataset: Path, change: dict[str, Any], words: str) -> None:
    manifest = read_manifest(dataset)
    document = croissant(dataset, manifest)
    assert differences(document, manifest) == []
    found = differences(document | change, manifest)
    assert any(line.startswith(words) for line in found), found
    assert differences([], manifest)[0].startswith("not the Croissant metadata")


def test_a_document_that_is_not_json_breaks_the_rule(copy: Path) -> None:
    (copy / schema.CROISSANT).write_text("{")
    assert validate(copy).failed() == ["croissant"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"not a dataset: provenance\.json is missing"),
        ("{", r"provenance\.json: not JSON"),
        ("[1]", r"provenance\.json: not a JSON object"),
        ("{}", r"provenance\.json: `origin` is missing"),
    ],
)
def test_missing_or_damaged_provenance_is_an_error(
    copy: Path, text: str | None, words: str
) -> None:
    path = copy / schema.PROVENANCE
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=words):
        croissant(copy, read_manifest(copy))
