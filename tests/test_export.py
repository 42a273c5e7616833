"""Exports, read back by the libraries that they are meant for."""

import importlib.util
import shutil
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner
from student_fixtures import STEP, Utterance, write_audio, write_tables

import emovox
from emovox.cli import main
from emovox.cli.dataset_commands import EXPORTS
from emovox.dataset import schema
from emovox.dataset.takedown import format_list, hash_identity
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError
from emovox.student.export import WRITERS

EMOTIONS = list(emovox.EMOTIONS)
PROBABILITIES = [f"probability_{emotion}" for emotion in EMOTIONS]
FOUND = [
    *(Utterance("train", "ida", k, "anger", 1.7) for k in range(1, 4)),
    *(Utterance("train", "idb", k, "happiness", 0.9) for k in range(1, 3)),
    Utterance("unheard_val", "idc", 1, "sadness", 2.1),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("export")
    audio = write_audio(folder / "audio", FOUND)
    return write_tables(folder / "dataset", FOUND, step_ms=round(1000 * STEP)), audio


def expected(dataset: Path, seconds: float | None) -> Any:
    """Return the examples of the dataset, computed row by row."""
    data, rows = emovox.load(dataset), []
    for track in data:
        end = {u.track_id: u.duration for u in FOUND}[track.track_id]
        starts = [0.0] if seconds is None else np.arange(0, end, seconds).tolist()
        for start in starts:
            stop = end if seconds is None else min(start + seconds, end)
            if stop - start < 0.24:
                continue
            logits = data.target(track.track_id, start, stop).astype(float)
            shares = np.exp(logits) / np.exp(logits).sum()
            rows.append([track.track_id, track.split, start, EMOTIONS[logits.argmax()], *shares])
    return pd.DataFrame(rows, columns=["track_id", "split", "start", "label", *PROBABILITIES])


def compare(found: Any, wanted: Any) -> None:
    keys = ["track_id", "start"]
    found = found.sort_values(keys).reset_index(drop=True)
    wanted = wanted.sort_values(keys).reset_index(drop=True)
    for column in ("track_id", "split", "label"):
        assert found[column].tolist() == wanted[column].tolist()
    assert np.allclose(found[["start", *PROBABILITIES]], wanted[["start", *PROBABILITIES]])


def check_sound(sounds: dict[tuple[str, float], np.ndarray], audio: Path) -> None:
    """Compare the sound of examples with the source, to half a step of 16 bits."""
    for (track_id, start), samples in sounds.items():
        whole, rate = soundfile.read(audio / f"{track_id}.wav", dtype="float32")
        assert rate == 16_000
        first = round(start * rate)
        part = whole[first : first + len(samples)]
        assert len(part) == len(samples) and np.abs(part - samples).max() <= 1 / 32768


@pytest.mark.parametrize("seconds", [None, 0.5])
def test_csv(place: tuple[Path, Path], tmp_path: Path, seconds: float | None) -> None:
    done = emovox.export(*(place[0], tmp_path / "out", place[1]), seconds=seconds)
    table: Any = pd.read_csv(tmp_path / "out/labels.csv")
    compare(table, expected(place[0], seconds))
    assert len(done.rows) == len(table) == len(done.to_pandas())
    sounds = {}
    for row in table.itertuples():
        start, stop = round(row.start * 16_000), round(row.end * 16_000)
        samples, _ = soundfile.read(place[1] / row.file, start=start, stop=stop, dtype="float32")
        sounds[row.track_id, row.start] = samples
        assert row.track_id in row.file
    check_sound(sounds, place[1])


def test_audiofolder(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    if importlib.util.find_spec("torchcodec") is None:  # only imported, since files are on disk
        encoders = types.ModuleType("torchcodec.encoders")
        encoders.AudioEncoder = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
        monkeypatch.setitem(sys.modules, "torchcodec.encoders", encoders)
    emovox.export(place[0], tmp_path / "out", place[1], "audiofolder", seconds=0.5)
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train", "unheard_val"]
    parts = [s.cast_column("audio", datasets.Audio(decode=False)) for s in found.values()]
    rows = [row for part in parts for row in part]
    compare(pd.DataFrame(rows), expected(place[0], 0.5))
    read = {(r["track_id"], r["start"]): soundfile.read(r["audio"]["path"])[0] for r in rows}
    check_sound(read, place[1])


def test_webdataset(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    webdataset = pytest.importorskip("webdataset")
    monkeypatch.setattr("emovox.student.export.PER_TAR", 3)
    emovox.export(place[0], tmp_path / "out", place[1], "webdataset", seconds=0.5)
    tars = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert len(tars) > 3
    items = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    rows = [item["json"] for item in items]
    compare(pd.DataFrame(rows), expected(place[0], 0.5))
    assert all(row["file"] == Path(i["__url__"]).name for row, i in zip(rows, items, strict=True))


def test_lhotse(place: tuple[Path, Path], tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    emovox.export(place[0], tmp_path / "out", place[1], "lhotse", seconds=0.5)
    rows, sounds = [], {}
    for split in ("train", "unheard_val"):
        start = f"{tmp_path}/out/{split}-"
        recordings = lhotse.RecordingSet.from_jsonl(f"{start}recordings.jsonl.gz")
        recordings = recordings.with_path_prefix(tmp_path / "out")
        supervisions = lhotse.SupervisionSet.from_jsonl(f"{start}supervisions.jsonl.gz")
        cuts = lhotse.CutSet.from_manifests(recordings, supervisions)
        lhotse.qa.validate_recordings_and_supervisions(recordings, supervisions)
        for cut in cuts:
            row = cut.supervisions[0].custom
            assert cut.supervisions[0].speaker == row["track_id"].split("/")[0]
            rows.append(row)
            sounds[row["track_id"], row["start"]] = cut.load_audio()[0]
    compare(pd.DataFrame(rows), expected(place[0], 0.5))
    check_sound(sounds, place[1])


def test_classes_add_probabilities(place: tuple[Path, Path], tmp_path: Path) -> None:
    text = 'bad = ["sadness", "anger", "disgust", "fear"]\ngood = ["happiness"]\n'
    (tmp_path / "map.toml").write_text(text)
    done = emovox.export(place[0], tmp_path / "out", place[1], collapse=tmp_path / "map.toml")
    wanted = expected(place[0], None)
    parts = {
        k: wanted[[f"probability_{e}" for e in v]].sum(axis=1)
        for k, v in tomllib.loads(text).items()
    }
    total = sum(parts.values())
    found: Any = done.to_pandas()
    assert np.allclose(found["probability_bad"], parts["bad"] / total)
    assert found["label"].tolist() == np.where(parts["bad"] > parts["good"], "bad", "good").tolist()
    assert [c for c in found if "probability" in c] == ["probability_bad", "probability_good"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            'a = ["angr"]\nb = ["fear"]',
            ConfigError,
            "emotion 'angr' is not one of .*did you mean anger",
        ),
        ('a = ["calm"]\nb = ["fear"]', ConfigError, "emotion 'calm' is not one of neutral"),
        ('a = ["fear"]', ConfigError, "two or more classes"),
        ('a = ["fear"]\nb = ["fear"]', ConfigError, "each emotion once"),
        ('a = []\nb = ["fear"]', ConfigError, "two or more classes"),
        ("a = 1", InputError, "cannot be read as TOML"),
        ("a = [", InputError, "cannot be read as TOML"),
        (None, InputError, "cannot be read"),
    ],
)
def test_wrong_classes_are_one_line(
    place: tuple[Path, Path],
    tmp_path: Path,
    text: str | None,
    error: type[EmovoxError],
    message: str,
) -> None:
    if text is not None:
        (tmp_path / "map.toml").write_text(text)
    with pytest.raises(error, match=message) as caught:
        emovox.export(place[0], tmp_path / "out", place[1], collapse=tmp_path / "map.toml")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_missing_sound_is_dropped_and_named(place: tuple[Path, Path], tmp_path: Path) -> None:
    audio = write_audio(tmp_path / "audio", FOUND[1:])
    with pytest.raises(CheckError, match=r"1 of 5 tracks have no usable audio"):
        emovox.export(place[0], tmp_path / "out", audio)
    assert not (tmp_path / "out").exists()
    done = emovox.export(place[0], tmp_path / "out", audio, "webdataset", max_dropped=0.5)
    assert [d.track_id for d in done.dropped] == [FOUND[0].track_id]
    assert "5 examples" in done.summary() and "dropped 1 x open: FileNotFound" in done.summary()


@pytest.mark.parametrize("to", EXPORTS[1:])
def test_damaged_sound_is_dropped_and_counted(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """Only reading it shows that it is damaged; here all of the split unheard_val."""

    def damaged(path: Path, *part: float) -> np.ndarray:
        if "idc" in path.parts:
            raise InputError(f"{path}: cut off")
        return emovox.read_audio(path, *part)

    monkeypatch.setattr("emovox.student.export.read_audio", damaged)
    with pytest.raises(CheckError, match=r"1 of 1 tracks have no usable audio.*cut off"):
        emovox.export(place[0], tmp_path / "out", place[1], to)
    assert not (tmp_path / "out").exists()


def test_nothing_to_export(place: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(place[0], tmp_path / "dataset"))
    hidden = {hash_identity(u.identity) for u in FOUND}
    (dataset / schema.TAKEDOWN).write_text(format_list(hidden))
    with pytest.raises(CheckError, match="no track to export"):
        emovox.export(dataset, tmp_path / "out", place[1])
    with pytest.raises(ConfigError, match="inside the dataset"):
        emovox.export(place[0], place[0] / "part", place[1])


def test_the_command(place: tuple[Path, Path], tmp_path: Path) -> None:
    assert set(EXPORTS) == set(WRITERS)
    command = ["export", str(place[0]), "--audio", str(place[1]), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0 and "6 examples (anger 3, happiness 2, sadness 1)" in result.output
    again: Any = CliRunner().invoke(main, command)
    assert again.exit_code == 2 and "Traceback" not in again.output
    share = CliRunner().invoke(main, [*command[:-1], str(tmp_path / "two"), "--max-dropped", "7"])
    assert share.exit_code == 2 and "--max-dropped" in share.output
    short = CliRunner().invoke(main, [*command[:-1], str(tmp_path / "two"), "--seconds", "0.1"])
    assert short.exit_code == 2 and "seconds 0.1: below 0.24" in short.output
