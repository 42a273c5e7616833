"""The contract and its published schemas."""

import json
from pathlib import Path

import pytest

import emovox
from emovox.dataset import schema
from emovox.dataset.json_schemas import describe_documents
from emovox.emotions import Outputs
from emovox.errors import ConfigError

SCHEMAS = Path(__file__).parents[1] / "schemas"


def test_published_schemas_are_the_code() -> None:
    """If this fails, run `emovox schema --out schemas`."""
    published = {p.stem: json.loads(p.read_text()) for p in SCHEMAS.glob("*.json")}
    assert published == schema.describe() | describe_documents()


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
    assert nullable == set(schema.NULLABLE)


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
