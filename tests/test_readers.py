"""What other tools see in a dataset: the same splits, rows and values."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from emovox.build.config import BuildConfig
from emovox.build.run import build_dataset
from emovox.dataset import schema
from emovox.dataset.store import read_table
from emovox.testing import FakeTeacher, InlineEngine, write_clip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for identity in range(9):
        for number in range(3):
            path = root / f"mp4/id{identity:05d}/v{identity}/{number:05d}.mp4"
            write_clip(path, 7 + 6 * number)
    out = root / "dataset"
    config = BuildConfig("voxceleb2", root, out, heard_fraction=0.3, unheard_fraction=0.4)
    build_dataset(config, engine=InlineEngine(FakeTeacher()), show_progress=False)
    counts = [read_table(out, "frames", split).num_rows for split in schema.SPLITS]
    assert all(counts), "every split has rows"
    return out


def expected(dataset: Path, table: str, split: str) -> pd.DataFrame:
    return pd.DataFrame(read_table(dataset, table, split).to_pydict())


@pytest.mark.parametrize("table", schema.TABLES)
@pytest.mark.parametrize("split", schema.SPLITS)
def test_pandas_polars_and_duckdb_agree(dataset: Path, table: str, split: str) -> None:
    path = dataset / schema.table_file(table, split)
    want = expected(dataset, table, split)
    seen = {
        "pandas": pd.read_parquet(path),
        "polars": pd.DataFrame(pl.read_parquet(path).to_dict(as_series=False)),
        "duckdb": duckdb.sql(f"select * from '{path}'").df(),
    }
    for tool, frame in seen.items():
        assert list(frame.columns) == list(want.columns), tool
        assert len(frame) == len(want), tool
        for column in want:
            values = frame[column]
            if want[column].dtype == object or want[column].dtype.name == "str":
                same = values.astype(object).where(values.notna(), None)
                assert same.tolist() == want[column].where(want[column].notna(), None).tolist()
            else:
                np.testing.assert_array_equal(values.to_numpy(float), want[column].to_numpy(float))


def test_folder_of_a_table_reads_as_one(dataset: Path) -> None:
    rows = sum(len(expected(dataset, "frames", split)) for split in schema.SPLITS)
    assert len(pd.read_parquet(dataset / "frames")) == rows
    assert pl.read_parquet(dataset / "frames").height == rows


@pytest.mark.parametrize("table", schema.TABLES)
def test_datasets_finds_the_splits(
    dataset: Path, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    arguments = {} if table == "frames" else {"name": table}  # frames are the default
    loaded = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path), **arguments)
    assert set(loaded) == set(schema.SPLITS)
    for split in schema.SPLITS:
        want = expected(dataset, table, split)
        assert loaded[split].column_names == list(want.columns)
        for column in want:
            assert list(loaded[split][column]) == want[column].tolist() or column == "score"
