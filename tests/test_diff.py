"""`emovox diff` against loops over all rows."""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emovox.cli import main
from emovox.comparison.changes import RULE
from emovox.comparison.difference import diff
from emovox.dataset import schema
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.store import ContentHash
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.errors import InputError
from emovox.ids import TrackKey

Frames = dict[int, list[float]]  # logits by grid point
TEACHER = {"name": "fake", "sha256": "a" * 64}


@dataclass(frozen=True)
class Content:
    """A dataset as plain data: split and frames by number of the track."""

    splits: dict[int, str]
    frames: dict[int, Frames]
    version: str = "1.0.0"
    step_ms: int = 240
    teacher: Mapping[str, str | None] = field(default_factory=lambda: TEACHER)
    sharpness: float | None = None  # at grid point 0; None: no table of faces
    hdf5: bool = False
    expected: int = 12


def name(number: int) -> str:
    return f"id{number // 3:05d}/vidéo/{number:05d}"


def chunks(content: Content) -> Iterator[Chunk]:
    for split in schema.SPLITS:
        for number in sorted(n for n, s in content.splits.items() if s == split):
            frames = content.frames[number]
            index = np.array(sorted(frames), np.int32)
            logits = np.array([frames[k] for k in sorted(frames)], np.float32)
            rows: dict[str, Any] = {
                "track_id": [name(number)] * len(index),
                "frame_index": index,
                "timestamp_ms": index.astype(np.int32) * content.step_ms,
                **dict(zip(schema.EIGHT.logits, np.ascontiguousarray(logits.T), strict=True)),
            }
            kinds = {f.name: f.type for f in schema.EIGHT.frames}
            if content.sharpness is not None:
                rows |= {column: np.zeros(len(index)) for column in schema.FACES.names[2:]}
                rows |= {"score": [None] * len(index), "sharpness": index + content.sharpness}
                kinds |= {f.name: f.type for f in schema.FACES}
            table = pa.table({c: pa.array(values, kinds[c]) for c, values in rows.items()})
            track = TrackRow(
                TrackKey(name(number).split("/")[0], "vidéo", number), len(index), content.expected
            )
            yield Chunk(split, [track], table)


def write(out: Path, content: Content) -> Path:
    tables = ("frames", "tracks", "faces")[: 2 if content.sharpness is None else 3]
    origin = {"origin": "Made by a test."}
    info = DatasetInfo("small", content.version, content.step_ms, content.teacher, origin, tables)
    write_chunks(out, chunks(content), [], info, hdf5=content.hdf5)
    return out


def random_content(seed: int, num_tracks: int = 12) -> Content:
    """Return tracks with gaps, in random splits."""
    rng = np.random.default_rng(seed)
    splits = {n: schema.SPLITS[rng.integers(3)] for n in range(num_tracks)}
    frames = {}
    for number in range(num_tracks):
        points = rng.choice(12, rng.integers(1, 9), replace=False)
        frames[number] = {int(k): rng.normal(0, 2, 8).astype(np.float32).tolist() for k in points}
    return Content(splits, frames)


def changed(content: Content, seed: int) -> Content:
    """Return a copy with tracks removed, added and moved, and frames removed, added and changed."""
    rng = np.random.default_rng(seed)
    splits, frames = {}, {}
    for number, rows in content.frames.items():
        if rng.random() < 0.15:
            continue
        moved = schema.SPLITS[rng.integers(3)]
        splits[number] = moved if rng.random() < 0.2 else content.splits[number]
        frames[number] = {
            k: (np.array(x) + (rng.random() < 0.4) * rng.normal(0, 1, 8))
            .astype(np.float32)
            .tolist()
            for k, x in rows.items()
            if rng.random() < 0.9
        }
        if rng.random() < 0.3 or not frames[number]:
            frames[number][int(rng.integers(12, 20))] = [0.0] * 8
    for number in range(100, 100 + rng.integers(3)):
        splits[number], frames[number] = "train", {3: [1.0] + [0.0] * 7}
    return replace(content, splits=splits, frames=frames)


def kl(old: list[float], new: list[float]) -> list[float]:
    """Return the terms of the divergence, from the definition."""
    p, q = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (old, new))
    return [a * math.log(a / b) for a, b in zip(p, q, strict=True)]


def label(rows: Frames) -> str:
    maxima = [max(row[e] for row in rows.values()) for e in range(8)]
    return EMOTIONS[maxima.index(max(maxima))]


@dataclass
class Oracle:
    """The same differences, found with loops."""

    old: Content
    new: Content

    def common(self) -> list[int]:
        return sorted(self.old.frames.keys() & self.new.frames.keys())

    def pairs(self, number: int) -> list[tuple[int, list[float], list[float]]]:
        old, new = self.old.frames[number], self.new.frames[number]
        return [(k, old[k], new[k]) for k in sorted(old.keys() & new.keys())]

    def argmax(self) -> list[list[int]]:
        matrix = [[0] * 8 for _ in range(8)]
        for number in self.common():
            for _, a, b in self.pairs(number):
                matrix[a.index(max(a))][b.index(max(b))] += 1
        return matrix

    def worst(self) -> list[tuple[str, float]]:
        found = []
        for n in self.common():
            pairs = self.pairs(n)
            if any(a != b for _, a, b in pairs):
                mean = sum(sum(kl(a, b)) for _, a, b in pairs) / len(pairs)
                found.append((name(n), mean))
        return sorted(found, key=lambda track: -track[1])[:20]

    def other_frames(self) -> list[dict[str, Any]]:
        found = []
        for n in self.common():
            old, new = set(self.old.frames[n]), set(self.new.frames[n])
            if old != new:
                points = {"added": sorted(new - old), "removed": sorted(old - new)}
                found.append({"track_id": name(n), **points})
        return found


@pytest.mark.parametrize("seed", range(12))
def test_differences_equal_those_found_with_loops(seed: int, tmp_path: Path) -> None:
    one = random_content(seed, num_tracks=40 if seed % 4 == 0 else 12)
    oracle = Oracle(one, changed(one, seed + 100))
    found = diff(write(tmp_path / "old", oracle.old), write(tmp_path / "new", oracle.new))
    old, new, tracks, frames = oracle.old, oracle.new, found.tracks, found.frames
    rows = [(n, *pair) for n in oracle.common() for pair in oracle.pairs(n)]
    changes = np.array([np.subtract(b, a) for *_, a, b in rows])

    assert tracks.common == len(oracle.common())
    assert tracks.added == [name(n) for n in sorted(new.frames.keys() - old.frames.keys())]
    assert tracks.removed == [name(n) for n in sorted(old.frames.keys() - new.frames.keys())]
    assert tracks.moved == [
        {"track_id": name(n), "old": old.splits[n], "new": new.splits[n]}
        for n in oracle.common()
        if old.splits[n] != new.splits[n]
    ]
    assert tracks.other_frames == oracle.other_frames()
    flips = [label(old.frames[n]) != label(new.frames[n]) for n in oracle.common()]
    assert tracks.values.get("label", 0) == sum(flips)
    assert frames.common == len(rows)
    assert frames.changed == sum(a != b for *_, a, b in rows)
    assert frames.added == sum(map(len, new.frames.values())) - len(rows)
    assert frames.removed == sum(map(len, old.frames.values())) - len(rows)
    assert frames.argmax == oracle.argmax()
    assert frames.argmax_flips == len(rows) - np.trace(oracle.argmax())
    terms = np.mean([kl(a, b) for *_, a, b in rows], axis=0)
    assert frames.divergence == pytest.approx(terms.sum())
    expected = np.stack([terms, np.abs(changes).mean(axis=0), np.abs(changes).max(axis=0)], axis=1)
    assert list(frames.outputs) == list(EMOTIONS)
    emotions = np.array([list(entry.values()) for entry in frames.outputs.values()], float)
    np.testing.assert_allclose(emotions, expected)
    assert frames.largest is not None
    row, emotion = np.unravel_index(np.abs(changes).argmax(), changes.shape)
    assert frames.largest == {
        "track_id": name(rows[row][0]),
        "frame_index": rows[row][1],
        "output": EMOTIONS[emotion],
        "old": rows[row][2][emotion],
        "new": rows[row][3][emotion],
    }
    worst = [(t["track_id"], t["divergence"]) for t in frames.worst_tracks]
    assert [t for t, _ in worst] == [t for t, _ in oracle.worst()]
    np.testing.assert_allclose([x for _, x in worst], [x for _, x in oracle.worst()])
    assert found.bump.level == "major"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6))
def test_dataset_has_no_differences_from_its_copy(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = random_content(seed)
    root = tmp_path_factory.mktemp("same")
    old = write(root / "old", content)
    shutil.copytree(old, root / "new")
    found = diff(old, root / "new")
    assert found.bump.level == "none" and not found.bump.reasons and not found.header
    assert not (found.tracks.added or found.tracks.removed or found.tracks.moved)
    assert not (found.tracks.other_frames or found.tracks.values)
    frames = found.frames
    assert (frames.changed, frames.added, frames.removed, frames.divergence) == (0, 0, 0, 0)
    assert frames.common == sum(map(len, content.frames.values())) == np.trace(frames.argmax)
    assert frames.largest is None and not frames.worst_tracks


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6))
def test_swapped_datasets_give_mirrored_differences(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, content = tmp_path_factory.mktemp("mirror"), random_content(seed)
    old, new = write(root / "old", content), write(root / "new", changed(content, seed + 1))
    one, other = diff(old, new), diff(new, old)
    assert (one.old, one.new, one.files) == (other.new, other.old, other.files)
    assert one.tracks.added == other.tracks.removed
    assert one.tracks.removed == other.tracks.added
    back = [
        {"track_id": t["track_id"], "old": t["new"], "new": t["old"]} for t in other.tracks.moved
    ]
    assert one.tracks.moved == back
    back = [
        {"track_id": t["track_id"], "added": t["removed"], "removed": t["added"]}
        for t in other.tracks.other_frames
    ]
    assert one.tracks.other_frames == back
    assert one.tracks.values == other.tracks.values
    assert np.array_equal(one.frames.argmax, np.transpose(other.frames.argmax))
    for entry in ("common", "changed", "argmax_flips"):
        assert getattr(one.frames, entry) == getattr(other.frames, entry)
    assert (one.frames.added, one.frames.removed) == (other.frames.removed, other.frames.added)
    for emotion in EMOTIONS:
        for key in ("mean_change", "largest_change"):
            mine, theirs = one.frames.outputs[emotion], other.frames.outputs[emotion]
            assert mine[key] == pytest.approx(theirs[key])


SMALL = Content(
    {0: "train", 1: "train", 2: "heard_val"},
    {0: {0: [1.0] * 8, 2: [2.0] * 8}, 1: {1: [0.0] * 8}, 2: {0: [3.0] * 8}},
)
MORE_FRAMES = {**SMALL.frames, 0: {**SMALL.frames[0], 1: [4.0] + [1.0] * 7}}  # a higher maximum
FEWER_FRAMES = {**SMALL.frames, 0: {0: [1.0] * 8}}
OTHER_LOGIT = {**SMALL.frames, 1: {1: [0.25] + [0.0] * 7}}
MORE_TRACKS = {**SMALL.frames, 3: {0: [5.0] * 8}}
FEWER_TRACKS = {0: SMALL.frames[0], 2: SMALL.frames[2]}
NO_SUM = {"name": "fake", "sha256": None}

BUMPS: dict[str, tuple[Content, Content, str, str]] = {
    "equal": (SMALL, SMALL, "none", ""),
    "hdf5 added": (SMALL, replace(SMALL, hdf5=True), "patch", "hdf5/train.h5"),
    "version": (SMALL, replace(SMALL, version="1.0.1"), "patch", "README.md"),
    "checksum known": (replace(SMALL, teacher=NO_SUM), SMALL, "patch", "teacher differs"),
    "frame added": (SMALL, replace(SMALL, frames=MORE_FRAMES), "minor", "frames: 1 added"),
    "track added": (
        SMALL,
        replace(SMALL, frames=MORE_TRACKS, splits={**SMALL.splits, 3: "unheard_val"}),
        "minor",
        "tracks: 1 added",
    ),
    "faces added": (SMALL, replace(SMALL, sharpness=1.0), "minor", "table faces added"),
    "frame removed": (SMALL, replace(SMALL, frames=FEWER_FRAMES), "major", "frames: 1 removed"),
    "logit": (SMALL, replace(SMALL, frames=OTHER_LOGIT), "major", "frames: 1 with other logits"),
    "track removed": (
        SMALL,
        replace(SMALL, frames=FEWER_TRACKS, splits={0: "train", 2: "heard_val"}),
        "major",
        "tracks: 1 removed",
    ),
    "moved": (
        SMALL,
        replace(SMALL, splits={**SMALL.splits, 1: "heard_val"}),
        "major",
        "tracks: 1 moved between splits",
    ),
    "step": (SMALL, replace(SMALL, step_ms=120), "major", "step_ms differs"),
    "teacher": (SMALL, replace(SMALL, teacher={**NO_SUM, "name": "b"}), "major", "teacher differs"),
    "expected": (SMALL, replace(SMALL, expected=13), "major", "3 with another n_expected"),
    "faces removed": (replace(SMALL, sharpness=1.0), SMALL, "major", "table faces removed"),
    "a face": (
        replace(SMALL, sharpness=1.0),
        replace(SMALL, sharpness=2.0),
        "major",
        "faces: 4 with other values",
    ),
}


@pytest.mark.parametrize("case", BUMPS)
def test_bump_follows_its_rule(case: str, tmp_path: Path) -> None:
    old, new, level, reason = BUMPS[case]
    found = diff(write(tmp_path / "old", old), write(tmp_path / "new", new))
    assert found.bump.level == level
    assert any(reason in given for given in found.bump.reasons) or not reason
    lowest = {"major": "2.0.0", "minor": "1.1.0", "patch": "1.0.1", "none": "1.0.0"}[level]
    assert found.bump.at_least == lowest
    assert found.bump.enough == (new.version >= lowest)


def test_versions_of_another_form_are_not_compared(tmp_path: Path) -> None:
    old = write(tmp_path / "old", replace(SMALL, version="first"))
    new = write(tmp_path / "new", SMALL)
    assert diff(old, new).bump.at_least is None
    bump = diff(new, old).bump
    assert (bump.at_least, bump.enough) == ("1.0.1", None)


def test_datasets_with_different_steps_are_aligned_by_time(tmp_path: Path) -> None:
    half = {n: {2 * k: x for k, x in rows.items()} for n, rows in SMALL.frames.items()}
    old = write(tmp_path / "old", SMALL)
    new = write(tmp_path / "new", replace(SMALL, step_ms=120, frames=half))
    found = diff(old, new)
    assert (found.frames.common, found.frames.changed, found.frames.added) == (4, 0, 0)
    assert found.header == ["step_ms"]
    assert "step_ms   240 -> 120" in found.text()


def test_empty_datasets_and_empty_splits(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty", Content({}, {}))
    full = write(tmp_path / "full", SMALL)
    nothing = diff(empty, empty)
    assert nothing.bump.level == "none" and nothing.frames.divergence is None
    assert nothing.frames.outputs["fear"]["mean_change"] is None
    json.loads(nothing.json())
    assert diff(empty, full).tracks.added == [name(0), name(1), name(2)]
    assert diff(empty, full).bump.level == "minor"
    assert diff(full, empty).frames.removed == 4
    assert diff(full, empty).bump.level == "major"


def test_tracks_longer_than_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "ROW_GROUP_ROWS", 7)
    old = random_content(5, num_tracks=60)
    oracle = Oracle(old, changed(old, 6))
    found = diff(write(tmp_path / "old", oracle.old), write(tmp_path / "new", oracle.new))
    groups = pq.ParquetFile(tmp_path / "old" / schema.table_file("frames", "train")).metadata
    assert groups.num_row_groups > 10
    assert found.frames.argmax == oracle.argmax()
    assert found.tracks.other_frames == oracle.other_frames()
    worst = [(track, pytest.approx(mean)) for track, mean in oracle.worst()]
    assert [(t["track_id"], t["divergence"]) for t in found.frames.worst_tracks] == worst


def rewrite(dataset: Path, table: str, change: dict[str, Any]) -> None:
    """Replace columns of a table of train."""
    path = dataset / schema.table_file(table, "train")
    rows = pq.read_table(path)
    for column, values in change.items():
        place, kind = rows.column_names.index(column), rows.schema.field(column)
        rows = rows.set_column(place, kind, pa.array(values, kind.type))
    pq.write_table(rows, path)
    seal(dataset, schema.table_file(table, "train"))
    content = ContentHash(schema.EIGHT.of(table))
    content.update(rows)
    set_hash(dataset, table, content.hexdigest())


def seal(dataset: Path, name: str) -> None:
    """Put the size and the SHA-256 of a file into the manifest."""
    files = json.loads((dataset / schema.MANIFEST).read_text())["files"]
    for file in files:
        if file["path"] == name:
            content = (dataset / name).read_bytes()
            file |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit_manifest(dataset, files=files)


def set_hash(dataset: Path, table: str, digest: str) -> None:
    """Change the content hash of a table of train in the manifest."""
    name = schema.table_file(table, "train")
    files = json.loads((dataset / schema.MANIFEST).read_text())["files"]
    files = [f | {"content_sha256": digest} if f["path"] == name else f for f in files]
    edit_manifest(dataset, files=files)


def edit_manifest(dataset: Path, **changes: Any) -> None:
    path = dataset / schema.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_rows_with_another_content_hash_are_refused(tmp_path: Path) -> None:
    old, new = (write(tmp_path / which, SMALL) for which in ("old", "new"))
    set_hash(new, "frames", "0" * 64)
    with pytest.raises(InputError, match="the frames of train differ from manifest"):
        diff(old, new)


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("frames", {"track_id": [name(1)] * 3}, "do not belong to its frames"),
        ("tracks", {"row_offset": [0, 1]}, "do not belong to its frames"),
        ("tracks", {"n_frames": [2, 2]}, "do not belong to its frames"),
        ("tracks", {"track_id": [name(0)] * 2}, "more than once"),
        ("frames", {"frame_index": [2, 2, 1]}, "frame_index is not unique, negative or too large"),
        ("frames", {"frame_index": [-1, 2, 1]}, "is not unique, negative or too large"),
        ("frames", {"frame_index": [0, 2, 2**31 - 1]}, "is not unique, negative or too large"),
        ("frames", {"logit_anger": [0.0, math.nan, 0.0]}, "not finite"),
        ("faces", {"frame_index": [0, 1, 1]}, "rows of faces and frames differ"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(
    table: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    content = replace(SMALL, sharpness=1.0)
    old, new = (write(tmp_path / which, content) for which in ("old", "new"))
    rewrite(new, table, change)
    with pytest.raises(InputError, match=words):
        diff(old, new)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, arguments)], catch_exceptions=False)


def break_schema(dataset: Path) -> None:
    edit_manifest(dataset, schema_version=1)


def break_emotions(dataset: Path) -> None:
    edit_manifest(dataset, emotions=["calm"])


def break_files(dataset: Path) -> None:
    edit_manifest(dataset, files=[{"name": "x"}])


def break_step(dataset: Path) -> None:
    edit_manifest(dataset, step_ms="240")


def break_frames(dataset: Path) -> None:
    (dataset / schema.table_file("frames", "train")).write_bytes(b"PAR1")
    seal(dataset, schema.table_file("frames", "train"))


def drop_column(dataset: Path) -> None:
    path = dataset / schema.table_file("frames", "train")
    pq.write_table(pq.read_table(path).drop_columns(["logit_fear"]), path)
    seal(dataset, schema.table_file("frames", "train"))


def remove(dataset: Path) -> None:
    shutil.rmtree(dataset)


def remove_manifest(dataset: Path) -> None:
    (dataset / schema.MANIFEST).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_schema, "contract version 1; this emovox reads 2"),
        (break_emotions, "emotions or values: expected 2 to 64 emotions, found 1"),
        (break_files, "not the manifest of a dataset (files"),
        (break_step, "step_ms: '240' is not of type 'integer'"),
        (break_frames, "frames/train-00000-of-00001.parquet"),
        (drop_column, "logit_fear"),
        (remove, "folder not found"),
        (remove_manifest, "not a dataset"),
    ],
)
@pytest.mark.parametrize("which", ["old", "new"])
def test_invalid_dataset_exits_with_2(
    which: str, damage: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))  # others have the same frames
    old = write(tmp_path / "old", SMALL)
    new = write(tmp_path / "new", replace(SMALL, frames=OTHER_LOGIT))
    damage(tmp_path / which)
    result = run(old, new)
    assert result.exit_code == 2 and not result.stdout
    assert words in result.stderr and str(tmp_path / which) in result.stderr
    assert result.stderr.startswith("emovox: error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("which", ["old", "new"])
def test_files_that_differ_from_their_manifest_are_not_compared(which: str, tmp_path: Path) -> None:
    old, new = (write(tmp_path / name, SMALL) for name in ("old", "new"))
    frames, card = (
        tmp_path / which / n for n in (schema.table_file("frames", "train"), "README.md")
    )
    content = bytearray(frames.read_bytes())
    content[len(content) // 2] ^= 1  # of the same size
    frames.write_bytes(content)
    card.unlink()
    result = run(old, new)
    assert result.exit_code == 1 and not result.stdout and result.stderr.count("\n") == 1
    assert str(frames) in result.stderr and str(card) in result.stderr


def test_json_has_all_differences(tmp_path: Path) -> None:
    one = random_content(1, num_tracks=40)
    old, new = write(tmp_path / "old", one), write(tmp_path / "new", changed(one, 2))
    result = run(old, new, "--format", "json")
    assert result.exit_code == 0 and not result.stderr
    assert json.loads(result.stdout) == diff(old, new).as_dict()
    assert json.loads(result.stdout)["rule"] == RULE
    assert result.stdout.count(str(tmp_path)) == 0


def test_text_summarizes_the_differences(tmp_path: Path) -> None:
    one = random_content(1, num_tracks=80)
    old, new = write(tmp_path / "old", one), write(tmp_path / "new", changed(one, 2))
    result = run(old, new)
    found = diff(old, new)
    assert result.exit_code == 0 and not result.stderr
    assert result.stdout == found.text() + "\n"
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert f" {len(found.tracks.removed):,} removed\n" in result.stdout
    assert f"and {len(found.tracks.removed) - 5:,} more" in result.stdout
    for track in found.frames.worst_tracks:
        assert track["track_id"] in result.stdout
    assert "version   major, at least 2.0.0: 1.0.0 is too low" in result.stdout
    for rule in RULE.values():
        assert rule in " ".join(result.stdout.split())


def test_text_of_equal_datasets_has_no_tables_of_logits(tmp_path: Path) -> None:
    old, new = (write(tmp_path / which, SMALL) for which in ("old", "new"))
    text = diff(old, new).text()
    assert "version   none, at least 1.0.0: 1.0.0 is enough" in text
    assert "KL" not in text and "argmax" not in text


def test_repr_and_data_frame(tmp_path: Path) -> None:
    old = write(tmp_path / "old", SMALL)
    new = write(tmp_path / "new", replace(SMALL, frames=OTHER_LOGIT))
    found = diff(str(old), str(new))
    assert repr(found) == (
        "<Difference small 1.0.0 -> small 1.0.0: major; tracks +0 -0, frames +0 -0, "
        "1 of 4 common frames changed>"
    )
    pytest.importorskip("pandas", reason="needs the extra build")
    table = found.to_pandas()
    assert list(table.columns) == ["table", "change", "count", "bump", "first_example"]
    rows = table.set_index(["table", "change"])
    assert rows.loc[("frames", "with other logits or values"), "count"] == 1
    assert rows.loc[("files", "that differ"), "first_example"] == found.files[0]


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    old = write(tmp_path / "old", SMALL)
    assert run(old).exit_code == 2
    assert run(old, old, "--format", "xml").exit_code == 2
