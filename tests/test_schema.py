"""The contract and its published schemas."""

import json
from pathlib import Path

import emovox
from emovox.dataset import schema
from emovox.dataset.json_schemas import describe_documents

SCHEMAS = Path(__file__).parents[1] / "schemas"


def test_published_schemas_are_the_code() -> None:
    """If this fails, run `emovox schema --out schemas`."""
    published = {p.stem: json.loads(p.read_text()) for p in SCHEMAS.glob("*.json")}
    assert published == schema.describe() | describe_documents()


def test_columns_are_those_of_the_contract() -> None:
    logits = [f"logit_{e}" for e in emovox.EMOTIONS]
    assert schema.FRAMES.names == ["track_id", "frame_index", "timestamp_ms", *logits]
    assert [str(t) for t in schema.FRAMES.types] == ["string", "int16", "int32", *["float"] * 8]
    assert not any(field.nullable for field in schema.FRAMES)
    nullable = {f.name for table in schema.SCHEMAS.values() for f in table if f.nullable}
    assert nullable == {"duration_ms", "score"}


def test_every_table_and_column_is_described() -> None:
    assert schema.ROWS.keys() == schema.SCHEMAS.keys()
    assert schema.COLUMNS.keys() == {f.name for table in schema.SCHEMAS.values() for f in table}


def test_emotions_are_in_the_published_order() -> None:
    assert emovox.EMOTIONS == (
        "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt",
    )  # fmt: skip


def test_file_names_are_those_that_readers_recognise() -> None:
    assert schema.table_file("frames", "heard_val") == "frames/heard_val-00000-of-00001.parquet"
