"""Six libraries read the same splits, rows and values from a dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from emovox.dataset import schema
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.run import build_dataset
from emovox.publishing.publish import write_croissant
from emovox.testing import FakeTeacher, InlineEngine, write_clip

Columns = dict[str, list[Any]]  # values by column; None for null
Splits = dict[str, Columns]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset built from clips, with faces, null scores, HDF5 and croissant.json."""
    root = tmp_path_factory.mktemp("corpus")
    for identity in range(9):
        for number in range(3):
            path = root / f"mp4/id{identity:05d}/v{identity}x{number}/00001.mp4"
            write_clip(path, 7 + 6 * number)
    out = root / "dataset"
    config = BuildConfig(
        "voxceleb2", root, out, heard_fraction=0.3, unheard_fraction=0.4, hdf5=True
    )
    result = build_dataset(config, engine=InlineEngine(FakeTeacher()), show_progress=False)
    write_croissant(out, result.manifest)
    return out


def files(dataset: Path, table: str) -> dict[str, Path]:
    """Files of a table by split."""
    paths = {split: dataset / schema.table_file(table, split) for split in schema.SPLITS}
    return {split: path for split, path in paths.items() if path.exists()}


def by_pyarrow(dataset: Path, table: str) -> Splits:
    return {s: pq.read_table(path).to_pydict() for s, path in files(dataset, table).items()}


def by_pandas(dataset: Path, table: str) -> Splits:
    def columns(frame: pd.DataFrame) -> Columns:
        empty = frame.isna()
        return {
            name: [
                None if no else v for v, no in zip(frame[name].tolist(), empty[name], strict=True)
            ]
            for name in map(str, frame)
        }

    return {s: columns(pd.read_parquet(path)) for s, path in files(dataset, table).items()}


def by_polars(dataset: Path, table: str) -> Splits:
    return {
        split: pl.read_parquet(path).to_dict(as_series=False)
        for split, path in files(dataset, table).items()
    }


def by_duckdb(dataset: Path, table: str) -> Splits:
    def columns(path: Path) -> Columns:
        found = duckdb.sql(f"select * from '{path}'")
        rows = found.fetchall()
        return {name: [row[i] for row in rows] for i, name in enumerate(found.columns)}

    return {split: columns(path) for split, path in files(dataset, table).items()}


def by_datasets(dataset: Path, table: str) -> Splits:
    datasets = pytest.importorskip("datasets")
    arguments = {} if table == "frames" else {"name": table}  # frames are the default
    cache = str(dataset.parent / "cache")
    loaded = datasets.load_dataset(str(dataset), cache_dir=cache, **arguments)
    return {
        split: {name: list(rows[name]) for name in rows.column_names}
        for split, rows in loaded.items()
    }


def by_mlcroissant(dataset: Path, table: str) -> Splits:
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install 'emovox[croissant]'")
    splits: Splits = {}
    for record in mlcroissant.Dataset(str(dataset / schema.CROISSANT)).records(table):
        row = {name.removeprefix(f"{table}/"): plain(value) for name, value in record.items()}
        # Every record has the split as a field; only `tracks` has it as a column.
        split = row["split"] if table == "tracks" else row.pop("split")
        columns = splits.setdefault(split, {name: [] for name in row})
        for name, value in row.items():
            columns[name].append(value)
    return splits


def plain(value: Any) -> Any:
    """Value of mlcroissant as Arrow returns it."""
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else value.item()


def by_h5py(dataset: Path, table: str) -> Splits:
    assert table == "frames", "HDF5 files have no other table"
    splits = {}
    for split in schema.SPLITS:
        with h5py.File(dataset / schema.hdf5_file(split)) as file:
            ids = np.repeat(file["tracks/track_id"].asstr()[:], file["tracks/n_frames"][:])
            columns = {"track_id": ids.tolist()}
            for name in ("frame_index", "timestamp_ms"):
                columns[name] = file[f"frames/{name}"][:].tolist()
            logits = file["frames/logits"][:].T.tolist()
            splits[split] = columns | dict(zip(schema.EIGHT.logits, logits, strict=True))
    return splits


READERS: dict[str, Callable[[Path, str], Splits]] = {
    "pandas": by_pandas,
    "polars": by_polars,
    "duckdb": by_duckdb,
    "datasets": by_datasets,
    "mlcroissant": by_mlcroissant,
    "h5py": by_h5py,
}


TABLES = ("frames", "tracks", "faces")
CASES = [(r, t) for r in READERS for t in TABLES if r != "h5py" or t == "frames"]


@pytest.mark.parametrize(("reader", "table"), CASES)
def test_all_readers_return_the_same(
    dataset: Path, reader: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    want = by_pyarrow(dataset, table)
    assert set(want) == set(schema.SPLITS)
    assert all(len(set(columns["track_id"])) > 1 for columns in want.values())
    found = READERS[reader](dataset, table)
    assert set(found) == set(want)
    for split, columns in want.items():
        assert list(found[split]) == list(columns), "same columns in the same order"
        for name, values in columns.items():
            assert found[split][name] == values, name  # exactly equal


def test_a_folder_reads_as_one_table(dataset: Path) -> None:
    want = [
        t for columns in by_pyarrow(dataset, "frames").values() for t in columns["timestamp_ms"]
    ]
    folder = dataset / "frames"
    found = {
        "pyarrow": pq.read_table(folder)["timestamp_ms"].to_pylist(),
        "pandas": pd.read_parquet(folder)["timestamp_ms"].tolist(),
        "polars": pl.read_parquet(folder)["timestamp_ms"].to_list(),
        "duckdb": [
            t for (t,) in duckdb.sql(f"select timestamp_ms from '{folder}/*.parquet'").fetchall()
        ],
    }
    for tool, times in found.items():
        assert (len(times), sum(times)) == (len(want), sum(want)), tool
