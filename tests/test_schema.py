"""The contract and its published schemas."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import emovox
from emovox.dataset import schema
from emovox.dataset.json_schemas import describe_documents
from emovox.emotions import MAX_EMOTIONS, NAME, Outputs
from emovox.errors import ConfigError
from emovox.ids import CONTROL

SCHEMAS = Path(__file__).parents[1] / "schemas"


def test_published_tables_agree_with_the_code() -> None:
    """They are written by hand, and repeat these facts of the contract."""
    published = {p.stem: json.loads(p.read_text()) for p in SCHEMAS.glob("*.json")}
    assert published == schema.DESCRIBED | describe_documents()
    outputs = {"": "", "emotions": "anger", "values": "valence"}
    for name, table in schema.DESCRIBED.items():
        assert table["schema_version"] == schema.SCHEMA_VERSION
        assert table["file"] == schema.table_file(name, "<split>")
        fields = schema.columns(Outputs(values=("valence",))).of(name, 7)
        for column in table["columns"]:
            of = column.get("for_each", "")
            found = fields.field(re.sub("<.*>", outputs[of], column["name"]))
            assert str(found.type).replace("[7]", "[D]") == column["type"]
            assert found.nullable is column["nullable"]
            assert bool(of) == ("<" in column["name"]) == (f"<{of[:-1]}>" in column["description"])
    tables = (table["columns"] for table in schema.DESCRIBED.values())
    kinds = {(c["name"], c["type"], c["description"]) for columns in tables for c in columns}
    assert len(kinds) == len(schema.COLUMNS), "a column is the same in each table"


def parts(value: Any, key: str) -> list[Any]:
    """Return the values of a key at any depth of a JSON document."""
    if isinstance(value, list):
        return [found for each in value for found in parts(each, key)]
    if not isinstance(value, dict):
        return []
    here = [value[key]] if key in value else []
    return here + [found for each in value.values() for found in parts(each, key)]


def test_schemas_of_documents_agree_with_the_code() -> None:
    """They are written by hand, and repeat these facts of the contract."""
    documents = describe_documents()
    for document in documents.values():
        Draft202012Validator.check_schema(document)
        defined = document["$defs"]
        assert defined["text"]["not"]["pattern"] == CONTROL
        used = {ref.removeprefix("#/$defs/") for ref in parts(document, "$ref")}
        assert used == defined.keys(), "every definition is used"
        if "count" in defined:
            assert defined["count"]["maximum"] == 2**53
    manifest, card = (documents[name]["properties"] for name in ("manifest", "card"))
    assert manifest["schema_version"]["const"] == schema.SCHEMA_VERSION
    assert manifest["emotions"]["maxItems"] == MAX_EMOTIONS
    for names in (manifest["emotions"], manifest["values"]):
        assert names["items"]["pattern"] == f"^{NAME.pattern}$"
    splits = manifest["totals"]["properties"]["by_split"]["propertyNames"]["enum"]
    config = card["configs"]["items"]["properties"]
    assert splits == list(schema.SPLITS)
    assert parts(config["data_files"], "enum") == [list(schema.SPLITS)]
    assert config["config_name"]["enum"] == list(schema.TABLES)


def test_columns_are_those_of_the_contract() -> None:
    logits = [f"logit_{e}" for e in emovox.EMOTIONS]
    assert schema.EIGHT.frames.names == ["track_id", "frame_index", "timestamp_ms", *logits]
    assert [str(t) for t in schema.EIGHT.frames.types] == [
        "string",
        "int32",
        "int32",
        *["float"] * 8,
    ]
    assert not any(field.nullable for field in schema.EIGHT.frames)
    nullable = {f.name for table in schema.ROWS for f in schema.EIGHT.of(table) if f.nullable}
    assert nullable == {
        *("source", "start_ms", "end_ms", "sound_offset_ms", "duration_ms", "score")
    }


def test_columns_are_named_after_the_outputs() -> None:
    columns = schema.columns(Outputs(("calm", "very_happy"), ("valence",)))
    assert columns.frames.names[3:] == ["logit_calm", "logit_very_happy", "value_valence"]
    assert columns.tracks.names[-3:] == ["max_calm", "max_very_happy", "mean_valence"]
    assert schema.description("max_very_happy") == "Largest very_happy logit of the track."


@pytest.mark.parametrize(
    ("emotions", "values", "message"),
    [
        (("calm",), (), "expected 2 to 64 emotions, found 1"),
        (tuple(f"e{k}" for k in range(65)), (), "found 65"),
        (("calm", "Happy"), (), "invalid name 'Happy'"),
        (("calm", "happy"), ("calm",), "'calm' occurs twice"),
        (("calm", "a b"), (), "invalid name"),
        (("calm", 1), (), "invalid name"),
    ],
)
def test_bad_names_are_refused(
    emotions: tuple[str, ...], values: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Outputs(emotions, values)


def test_every_table_and_column_is_described() -> None:
    outputs = Outputs(values=("valence",))
    for table in schema.ROWS:
        for name in schema.columns(outputs).of(table, 4).names:
            assert schema.description(name).endswith(".")


def test_emotions_are_in_the_published_order() -> None:
    assert emovox.EMOTIONS == (
        "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt",
    )  # fmt: skip


def test_file_names_are_those_that_readers_recognise() -> None:
    assert schema.table_file("frames", "heard_val") == "frames/heard_val-00000-of-00001.parquet"
