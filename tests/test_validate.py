"""Validation: every rule passes valid data and fails on its damage; the report formats."""

import inspect
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from validation_fixtures import (
    ALSO,
    DAMAGE,
    TRAIN,
    build,
    edit,
    edit_manifest,
    read,
    seal,
    store,
    write_valid,
)

from emovox.cli import main
from emovox.dataset import schema
from emovox.dataset.card import front_matter
from emovox.dataset.json_schemas import describe_documents, faults
from emovox.errors import InputError
from emovox.validation.findings import MAX_EXAMPLES
from emovox.validation.outcomes import (
    FAILED,
    FORMATS,
    PASSED,
    RULES,
    Outcome,
    Validation,
    as_text,
    validate,
)
from emovox.validation.rules import contents, structure


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid dataset; read-only for tests."""
    return write_valid(tmp_path_factory.mktemp("valid"))


@pytest.fixture
def dataset(valid: Path, tmp_path: Path) -> Path:
    """A copy of the valid dataset, to be damaged."""
    return Path(shutil.copytree(valid.parent, tmp_path / "copy")) / "dataset"


def check(root: Path, *, strict: bool = False) -> Validation:
    return validate(
        root, meta=root.parent / "meta", takedown=root.parent / "takedown.txt", strict=strict
    )


def failed(validation: Validation) -> set[str]:
    return {outcome.rule.name for outcome in validation.outcomes if outcome.status == FAILED}


def outcome(validation: Validation, name: str) -> Outcome:
    return next(o for o in validation.outcomes if o.rule.name == name)


def test_the_list_of_rules_matches_the_code() -> None:
    listed = {rule.name.replace("-", "_") for rule in RULES}
    for module in (contents, structure):
        functions = inspect.getmembers(module, inspect.isfunction)
        own = {n for n, f in functions if f.__module__ == module.__name__ and n[0] != "_"}
        assert own and own <= listed
    row_groups = next(rule for rule in RULES if rule.name == "row-groups")
    assert f"{schema.ROW_GROUP_ROWS:,} rows" in row_groups.statement


def test_every_rule_has_a_fixture_that_violates_it() -> None:
    names = [rule.name for rule in RULES]
    assert sorted(names) == sorted(DAMAGE)
    assert len(names) == len(set(names))


def test_every_rule_passes_on_a_valid_dataset(valid: Path) -> None:
    validation = check(valid)
    assert {o.rule.name: (o.status, o.reason) for o in validation.outcomes} == {
        rule.name: (PASSED, None) for rule in RULES
    }
    assert validation.valid


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_fixture_violates_its_rule_and_no_other(dataset: Path, rule: str) -> None:
    DAMAGE[rule](dataset)
    validation = check(dataset, strict=True)
    assert failed(validation) == {rule} | ALSO.get(rule, set()), as_text(validation)
    assert not validation.valid
    assert outcome(validation, rule).breach.examples
    is_error = next(r for r in RULES if r.name == rule).severity == "error"
    assert replace(validation, strict=False).valid is not is_error


@pytest.mark.parametrize(
    "damage",
    [
        *("missing", "cut", "flipped"),
        *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("empty", "text", "folder")),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        schema.table_file("frames", TRAIN),
        schema.table_file("tracks", TRAIN),
        schema.table_file("faces", TRAIN),
        schema.hdf5_file(TRAIN),
        schema.DROPPED_FILE,
        schema.CARD,
        schema.PROVENANCE,
        schema.CHECKSUMS,
        schema.CROISSANT,
    ],
)
def test_damaged_files_are_reported(dataset: Path, name: str, damage: str) -> None:
    path = dataset / name
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
        path.write_bytes(
            {"empty": b"", "cut": data[:middle], "flipped": flipped, "text": b"\xff\xfeno"}[damage]
        )
    validation = check(dataset)
    assert not validation.valid
    assert failed(validation) & {"file-set", "file-hashes"}
    for form in FORMATS.values():
        assert form(validation)


def test_damaged_page_with_correct_hashes_is_reported(dataset: Path) -> None:
    path = dataset / schema.table_file("frames", TRAIN)
    offset = pq.read_metadata(path).row_group(0).column(5).data_page_offset
    data = bytearray(path.read_bytes())
    data[offset + 40] ^= 0xFF
    path.write_bytes(bytes(data))
    seal(dataset)
    assert "readable" in failed(check(dataset))


def test_wrong_column_type_is_reported_and_its_rules_are_skipped(dataset: Path) -> None:
    name, table = read(dataset, "frames")
    index = table["frame_index"].cast("string")
    store(dataset, name, table.set_column(1, "frame_index", index))
    validation = check(dataset)
    assert "columns" in failed(validation)
    assert outcome(validation, "sorted-frames").reason == f"{name}: frame_index is string, " + (
        "expected int32"
    )


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", "{", '{"schema_version": 99}'])
def test_folder_without_valid_manifest_is_an_input_error(dataset: Path, text: str) -> None:
    (dataset / schema.MANIFEST).write_text(text)
    with pytest.raises(InputError, match="manifest"):
        check(dataset)
    result = CliRunner().invoke(main, ["validate", str(dataset)])
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert CliRunner().invoke(main, ["validate", str(dataset.parent)]).exit_code == 2
    assert CliRunner().invoke(main, ["validate", str(dataset / "no")]).exit_code == 2


@pytest.mark.parametrize("key", ["totals", "files", "step_ms", "emotions", "teacher", "created"])
def test_wrong_manifest_values_are_reported(dataset: Path, key: str) -> None:
    values: tuple[Any, ...] = (None, "odd", [], [None])
    for value in values:
        edit_manifest(dataset, lambda manifest, value=value: manifest.update({key: value}))  # type: ignore[misc]
        validation = check(dataset)
        follows = key == "files" and value == []
        assert failed(validation) & ({"file-set"} if follows else {"manifest-schema"})
        assert as_text(validation)


def test_emotions_of_the_same_name_are_not_valid(dataset: Path) -> None:
    manifest = json.loads((dataset / schema.MANIFEST).read_text())
    manifest["values"] = [*manifest["values"], *manifest["emotions"][:1]]
    (dataset / schema.MANIFEST).write_text(json.dumps(manifest))
    validation = check(dataset)
    assert not validation.valid
    assert "the name 'neutral' occurs twice" in str(outcome(validation, "columns").reason)


def test_metadata_of_pandas_is_reported(dataset: Path) -> None:
    store(dataset, *read(dataset, "frames"), metadata={"pandas": "{}"})
    [example] = outcome(check(dataset), "metadata").breach.examples
    assert "metadata key pandas" in example.text


def test_examples_are_limited_but_all_violations_are_counted(dataset: Path) -> None:
    def shift(rows: list[dict[str, int]]) -> None:
        for row in rows:
            row["timestamp_ms"] += 1

    for split in schema.SPLITS:
        edit(dataset, "frames", shift, split)
    breach = outcome(check(dataset), "timestamps").breach
    assert (breach.count, len(breach.examples)) == (36, MAX_EXAMPLES)
    assert breach.examples[0].text == "id10001/video0001/00001 frame 0: 1 ms"
    assert breach.examples[-1].file == "frames/heard_val-00000-of-00001.parquet"


def test_examples_of_null_values_give_the_row(dataset: Path) -> None:
    name, table = read(dataset, "tracks")
    labels = pa.array([None, *table["label"].to_pylist()[1:]])
    position = table.column_names.index("label")
    store(dataset, name, table.set_column(position, "label", labels))
    validation = check(dataset)
    assert [str(e) for e in outcome(validation, "labels").breach.examples] == [f"{name}: row 0"]
    for form in FORMATS.values():
        assert form(validation)


def test_rules_without_their_lists_name_the_option(valid: Path) -> None:
    validation = validate(valid)
    assert validation.valid and validation.counts["skipped"] == 3
    for name, option in (("official-lists", "--meta"), ("takedown", "--takedown")):
        assert option in (outcome(validation, name).reason or "")


def test_dataset_without_tracks_is_valid(tmp_path: Path) -> None:
    validation = validate(build(tmp_path / "dataset", []))
    assert failed(validation) <= {"emotion-order"}, as_text(validation)


def test_folder_with_special_characters(valid: Path, tmp_path: Path) -> None:
    root = tmp_path / "o'dd [1] *=? é"
    shutil.copytree(valid, root)
    assert validate(root).valid
    assert validate(Path(os.path.relpath(root))).counts["skipped"] == 3


def test_text_of_a_valid_dataset_is_one_line(valid: Path) -> None:
    assert len(as_text(check(valid)).splitlines()) == 1


def test_repr_and_data_frame(dataset: Path) -> None:
    DAMAGE["logit-range"](dataset)
    validation = validate(str(dataset), meta=str(dataset.parent / "meta"))
    assert repr(validation).startswith(f"<Validation of {dataset}: not valid: 63 rules passed, ")
    pytest.importorskip("pandas", reason="needs the extra build")
    rules = validation.to_pandas().set_index("name")
    columns = ["family", "severity", "outcome", "count", "first_example"]
    assert list(rules.columns) == columns and len(rules) == len(RULES)
    *values, example = rules.loc["logit-range", columns]
    assert values == ["values", "error", FAILED, 1] and "-100.5" in str(example)


def test_reports(dataset: Path) -> None:
    DAMAGE["logit-range"](dataset)
    DAMAGE["card-licence"](dataset)
    folder = str(dataset)
    runs = {
        form: CliRunner().invoke(main, ["validate", folder, "--format", form]) for form in FORMATS
    }
    assert {run.exit_code for run in runs.values()} == {1}
    report = json.loads(runs["json"].stdout)
    assert faults("validation", report) == []
    assert report["counts"]["errors"] == 1 and report["counts"]["warnings"] == 1
    (broken,) = (r for r in report["rules"] if r["name"] == "logit-range")
    assert broken["examples"][0]["file"] == "frames/train-00000-of-00001.parquet"
    assert "-100.5" in broken["examples"][0]["text"]
    suite = ElementTree.fromstring(runs["junit"].stdout)
    assert (suite.get("tests"), suite.get("failures")) == (str(len(RULES)), "1")
    assert [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    lines = runs["github"].stdout.splitlines()
    assert f"::error file={folder}/frames/train-00000-of-00001.parquet," in runs["github"].stdout
    assert {line.split(" ")[0] for line in lines[:-1]} == {"::error", "::warning", "::notice"}
    text = runs["text"].stdout.splitlines()
    assert text[-1].startswith(f"{folder}: not valid: {len(RULES) - 5} rules passed, 1 error, ")


def test_strict_fails_on_warnings(dataset: Path) -> None:
    DAMAGE["card-licence"](dataset)
    assert CliRunner().invoke(main, ["validate", str(dataset)]).exit_code == 0
    assert CliRunner().invoke(main, ["validate", str(dataset), "--strict"]).exit_code == 1


def test_documents_follow_the_published_schemas(valid: Path) -> None:
    published = Path(__file__).parents[1] / "schemas"
    contents = {
        "manifest": json.loads((valid / schema.MANIFEST).read_text()),
        "provenance": json.loads((valid / schema.PROVENANCE).read_text()),
        "card": front_matter((valid / schema.CARD).read_text()),
        "validation": check(valid).as_dict(),
    }
    assert contents.keys() == describe_documents().keys()
    for name, content in contents.items():
        document = json.loads((published / f"{name}.json").read_text())
        Draft202012Validator.check_schema(document)
        Draft202012Validator(document).validate(content)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", ".hidden", "a\\b", ""])
def test_manifest_paths_stay_below_the_dataset(valid: Path, path: str) -> None:
    manifest = json.loads((valid / schema.MANIFEST).read_text())
    manifest["files"][0]["path"] = path
    assert len(faults("manifest", manifest)) == 1


def test_statements_are_one_short_sentence() -> None:
    for rule in RULES:
        assert rule.statement.endswith(".") and "\n" not in rule.statement
        assert len(rule.statement) <= 100


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("path: faces/train-", "path: frames/train-", "configs of the front matter are not"),
        ("| unheard_val |", "| train |", "differs from the data"),
        ("## Teacher", "| heard_val | 9 | 9 | 9 |\n\n## Teacher", "9 | 9 | 9 | differs"),
    ],
)
def test_card_has_the_tables_of_the_dataset(dataset: Path, old: str, new: str, fault: str) -> None:
    path = dataset / schema.CARD
    path.write_text(path.read_text().replace(old, new, 1))
    examples = outcome(check(dataset), "card-numbers").breach.examples
    assert any(fault in example.text for example in examples)


def test_unreadable_lists_are_input_errors(valid: Path, tmp_path: Path) -> None:
    for option in ("--meta", "--takedown"):
        path = tmp_path if option == "--meta" else tmp_path / "no.txt"
        result = CliRunner().invoke(main, ["validate", str(valid), option, str(path)])
        assert result.exit_code == 2 and re.search("cannot (be )?read", result.output)
