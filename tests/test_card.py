"""Card of a dataset: every number on it agrees with the data."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from oracles import oracle

from emovox.cli import main
from emovox.dataset import schema
from emovox.dataset.card import TEXTS, CardFields, card_of, check_card, headings
from emovox.dataset.json_schemas import faults
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, ConfigError, InputError
from emovox.ids import TrackKey

pd = oracle("pandas")

SIZES = {"train": (5, 3), "unheard_val": (4,)}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two splits of random logits."""
    rng = np.random.default_rng(0)
    chunks = []
    for i, (split, sizes) in enumerate(SIZES.items()):
        tracks = [TrackRow(TrackKey(f"id{i}", "video", k), n, n) for k, n in enumerate(sizes)]
        index = np.concatenate([np.arange(n) for n in sizes]).astype(np.int16)
        ids = np.repeat([t.track_id for t in tracks], sizes).tolist()
        columns = [ids, index, index.astype(np.int32) * 240, *rng.normal(0, 3, (8, len(index)))]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, schema.EIGHT.frames, strict=True)]
        chunks.append(
            Chunk(split, tracks, pa.Table.from_arrays(arrays, schema=schema.EIGHT.frames))
        )
    provenance = {"origin": "Made up.", "teacher": {"accuracy": "99 % of nothing"}}
    teacher = {"name": "t", "sha256": "0" * 64}
    info = DatasetInfo("a: name", "1.2.3", 240, teacher, provenance, ("frames", "tracks"))
    write_chunks(tmp_path / "d", chunks, [], info, hdf5=False)
    return tmp_path / "d"


def test_counts_against_pandas(dataset: Path) -> None:
    card = (dataset / schema.CARD).read_text()
    check_card(dataset)
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    by_name = [(r[0], [int(x.replace(",", "")) for x in r[1:]]) for r in rows if r[0] in SIZES]
    for split in SIZES:
        frames = pd.read_parquet(dataset / schema.table_file("frames", split))
        tracks = pd.read_parquet(dataset / schema.table_file("tracks", split))
        dominant = frames[list(schema.EIGHT.logits)].to_numpy().argmax(1)
        expected = [
            [len(tracks), len(frames), tracks["identity_id"].nunique()],
            [int((tracks["label"] == e).sum()) for e in EMOTIONS],
            [int((dominant == k).sum()) for k in range(8)],
        ]
        assert [values for name, values in by_name if name == split] == expected
    assert "No track fell into heard_val" in card and "Accuracy: 99 % of nothing." in card


def test_front_matter_is_yaml(dataset: Path) -> None:
    front = yaml.safe_load((dataset / schema.CARD).read_text().split("---\n")[1])
    assert front["pretty_name"] == "a: name"
    configs = {c["config_name"]: [f["split"] for f in c["data_files"]] for c in front["configs"]}
    assert configs == {"frames": list(SIZES), "tracks": list(SIZES)}


def test_check_fails_if_card_and_data_differ(dataset: Path) -> None:
    path = dataset / schema.CARD
    text = path.read_text()
    path.write_text(re.sub(r"of 12 frames", "of 13 frames", text))
    with pytest.raises(CheckError, match=r"differs .*of 13 frames.*expected .*of 12 frames"):
        check_card(dataset)
    path.write_text(text + "One more line.\n")
    with pytest.raises(CheckError, match="One more line"):
        check_card(dataset)


def test_command(dataset: Path) -> None:
    run = CliRunner().invoke(main, ["card", str(dataset)])
    assert run.exit_code == 0 and run.output == (dataset / schema.CARD).read_text()
    run = CliRunner().invoke(main, ["card", str(dataset), "--check"])
    assert run.exit_code == 0 and "agrees" in run.output
    (dataset / schema.CARD).write_text("")
    run = CliRunner().invoke(main, ["card", str(dataset), "--check"])
    assert run.exit_code == 1 and "line 1 differs from the data: is ''" in run.output
    run = CliRunner().invoke(main, ["card", str(dataset.parent)])
    assert run.exit_code == 2 and "not a dataset: manifest.json is missing" in run.output


def test_a_damaged_table_is_an_input_error(dataset: Path) -> None:
    (dataset / schema.table_file("frames", "train")).write_text("")
    with pytest.raises(InputError, match="not a complete dataset"):
        card_of(dataset)


def test_folders_may_be_strings(dataset: Path) -> None:
    assert card_of(str(dataset)) == card_of(dataset)
    check_card(str(dataset))


# card.toml

FIELDS = '''
licence = "cc-by-nc-4.0"
contact = "Speech group <speech@example.org>"
citation = """
@misc{ours, title = {Ours}}

@article{before, title = {Before}}"""
description = """Interviews,
recorded at home."""
languages = ["pt-BR", "en", "en-GB"]
'''


def test_fields_of_a_maintainer_are_on_the_card(dataset: Path) -> None:
    before = (dataset / schema.CARD).read_text()
    (dataset / schema.CARD_FIELDS).write_text(FIELDS)
    card = card_of(dataset)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-nc-4.0" and "license_name" not in front
    assert front["language"] == ["en", "pt"]
    assert front["language_bcp47"] == ["pt-BR", "en", "en-GB"]
    assert not faults("card", front)
    assert headings(card) == [*headings(before)[:-1], "contact", "citation"]
    assert "published under `cc-by-nc-4.0`" in card and TEXTS["licence"] not in card
    assert "\nInterviews,\nrecorded at home.\n\nEmotion logits of 12 frames" in card
    assert "\nLanguages: `pt-BR`, `en`, `en-GB`.\n" in card
    assert "\n## Contact\n\nSpeech group <speech@example.org>\n" in card
    assert card.index("@misc{ours") < card.index("@article{before") < card.index("albanie2018")
    assert re.findall(r"^\|.*", card, re.M) == re.findall(r"^\|.*", before, re.M)
    hub = pytest.importorskip("huggingface_hub")  # how the Hub reads it
    assert hub.DatasetCard(card).data.license == "cc-by-nc-4.0"


def test_without_fields_the_card_names_the_terms_of_the_source(dataset: Path) -> None:
    for text in ("", 'licence = "other"\ncontact = ""\nlanguages = []\n'):
        (dataset / schema.CARD_FIELDS).write_text(text)
        check_card(dataset)  # as it was written
    card = (dataset / schema.CARD).read_text()
    assert "license: other\nlicense_name: terms-of-the-source-corpus\n" in card


def test_an_unknown_licence_is_none(dataset: Path) -> None:
    (dataset / schema.CARD_FIELDS).write_text('licence = "unknown"')
    card = card_of(dataset)
    assert "\nlicense: unknown\n" in card and TEXTS["licence"] in card


def test_a_file_replaces_the_fields_of_the_dataset(dataset: Path, tmp_path: Path) -> None:
    (dataset / schema.CARD_FIELDS).write_text("broken")
    (tmp_path / "a.toml").write_text('languages = ["en", "de"]')
    run = CliRunner().invoke(main, ["card", str(dataset), "--card", str(tmp_path / "a.toml")])
    front = yaml.safe_load(run.output.split("---\n")[1])
    assert front["language"] == ["de", "en"] and front["license"] == "other"
    (tmp_path / "b.toml").write_text('languages = ["no"]')  # false in YAML, if not quoted
    front = yaml.safe_load(card_of(dataset, tmp_path / "b.toml").split("---\n")[1])
    assert front["language"] == ["no"] and "language_bcp47" not in front


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('owner = "x"', "unknown key 'owner'; valid keys: licence, contact, citation"),
        ('licence = "MIT"', "licence 'MIT': not an id of the Hugging Face Hub"),
        ('licence = ""', "licence '': not an id"),
        ("licence = 4", "licence: expected str, found 4"),
        ('languages = "en"', 'languages: expected a list, found "en"'),
        ("languages = [1]", "languages: expected str, found 1"),
        ('languages = ["english"]', "languages 'english': not a BCP 47 code"),
        ('languages = ["en_GB"]', "languages 'en_GB': not a BCP 47 code"),
        ('description = "in /home/me/data"', "description: contains an absolute path"),
        (r"""contact = 'C:\Users\me'""", "contact: contains an absolute path"),
        ('contact = "https://me:pass@example.org/x"', "contact: contains an absolute path, a pass"),
        ('citation = "a?X-Amz-Signature=1f"', "citation: contains an absolute path, a password"),
        (r'contact = "\u001b[31m"', "contact: .* or a control character; remove it"),
        ("licence", "not valid TOML"),
        ("licence = " + "[" * 9000, "not valid TOML"),
    ],
)
def test_wrong_fields_are_one_line(dataset: Path, text: str, message: str) -> None:
    path = dataset / schema.CARD_FIELDS
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        card_of(dataset)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value) and "1f" not in str(caught.value)
    run = CliRunner().invoke(main, ["card", str(dataset)])
    assert run.exit_code == 2 and run.output.count("\n") == 1


@pytest.mark.parametrize(
    "code", ["en", "gsw", "pt-BR", "zh-Hant-TW", "zh-yue", "es-419", "de-CH-1901", "sl-rozaj-biske"]
)
def test_codes_of_languages(code: str) -> None:
    assert CardFields(languages=(code,)).languages == (code,)


def test_a_missing_file_of_fields_is_not_taken_for_a_recipe(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="student-paper: file not found"):
        card_of(dataset, "student-paper")
