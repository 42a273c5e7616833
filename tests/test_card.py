"""Card of a dataset: every number on it agrees with the data."""

import json
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
from emovox.dataset.card import card_of, check_card
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.errors import CheckError, InputError
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
    assert front["pretty_name"] == "a: name" and front["size_categories"] == ["n<1K"]
    configs = {c["config_name"]: [f["split"] for f in c["data_files"]] for c in front["configs"]}
    assert configs == {"frames": list(SIZES), "tracks": list(SIZES)}


@pytest.mark.parametrize(
    ("rows", "category"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (5_077_744, "1M<n<10M"), (10**9, "n>1B")],
)
def test_size_categories(dataset: Path, rows: int, category: str) -> None:
    manifest = json.loads((dataset / schema.MANIFEST).read_text())
    manifest["totals"]["frames"] = rows
    (dataset / schema.MANIFEST).write_text(json.dumps(manifest))
    assert f"size_categories: [{category}]" in card_of(dataset)


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
