"""Import of the published annotations, against a naive importer on scipy."""

import dataclasses
import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from oracles import oracle
from test_matfile import containers, write
from validation_fixtures import read_table

from emovox import matfile
from emovox.cli import main
from emovox.dataset import schema
from emovox.dataset.store import ContentHash, read_hdf5_frames
from emovox.emotions import EMOTIONS, Outputs
from emovox.errors import CheckError, EmovoxError, InputError
from emovox.files import sha256_file
from emovox.labelling.import_mat import PUBLISHED, ImportResult, import_mat

scipy_io = oracle("scipy.io")

PERSONS = {
    "A.J._Buckley": "id10001",
    "Zoë_Zander": "id10002",
    "Robert_Down_Jr.": "id10003",
    "Ann_Lee": "id10004",
}
BUCKLEY, ZANDER, DOWN, LEE = PERSONS
COUNTED = "face images are not numbered in the file; frames are counted row by row"
OTHER_COUNT = (
    "have face images that do not match their rows of logits; their frames are counted row by row"
)


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One entry of `images`, its logits, and the stems of its face images in the file's order."""

    name: str
    logits: Any
    images: Sequence[str]
    id: float
    set: float = 1


def logits_of(name: str, rows: int) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(size=(rows, 8)).astype(np.float32)


def utterance(
    name: str, rows: int, id: float = 1, set: float = 1, images: Iterable[object] | None = None
) -> Utterance:
    numbered = (f"{i:02d}" for i in range(1, rows + 1))
    stems = tuple(map(str, numbered if images is None else images))
    return Utterance(name, logits_of(name, rows), stems, id, set)


def cells(items: Sequence[Any]) -> np.ndarray:
    array = np.empty((1, len(items)), object)
    for i, item in enumerate(items):
        array[0, i] = item
    return array


def annotations(
    utterances: Sequence[Utterance],
    cells_of_logits: Sequence[Any] | None = None,
    stray_ids: Sequence[float] = (),
    order: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the variables of a file in the published form.

    Args:
        utterances: entries of `images`.
        cells_of_logits: of `wavLogits`; those of the utterances if None.
        stray_ids: owners of face images that belong to no track.
        order: of the face images of all utterances, which are track after track if None.
    """
    owned = [(f"{u.name[:-4]}/1.6/{stem}.jpg", u.id) for u in utterances for stem in u.images]
    owned += [(f"{LEE}/1.6/stray/1/{i:02d}.jpg", owner) for i, owner in enumerate(stray_ids)]
    owned = owned if order is None else [owned[i] for i in order]
    images = {
        "name": cells([u.name for u in utterances]),
        "id": np.array([[u.id for u in utterances]], float),
        "sp": np.ones((1, len(utterances))),
        "set": np.array([[u.set for u in utterances]], float),
        "video": cells([u.name[:-12] for u in utterances]),
        "track": np.ones((1, len(utterances))),
        "denseFrames": cells([path for path, _ in owned]).T,
        "denseFramesWavIds": np.array([[owner] for _, owner in owned], np.float32),
    }
    if cells_of_logits is None:
        cells_of_logits = [u.logits for u in utterances]
    return {"wavLogits": cells(cells_of_logits), "images": images}


def without(variables: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {
        **variables,
        "images": {k: v for k, v in variables["images"].items() if k not in fields},
    }


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    """Folder with only the table of names."""
    lines = [f"{identity}\t{name}\tm\tIreland\tdev" for name, identity in PERSONS.items()]
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/vox1_meta.csv").write_text(
        "\n".join(["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet", *lines, ""]),
        encoding="utf-8",
    )
    return tmp_path / "meta"


@pytest.fixture
def lists(meta: Path) -> Path:
    """The same folder with the official lists: Lee is unheard, a track of Buckley is heard_val."""
    sets = {BUCKLEY: 1, ZANDER: 2, LEE: 4}  # Down is missing
    lines = "".join(f"{name} {number} \n" for name, number in sets.items())
    (meta / "identity_splits.txt").write_text(lines, encoding="utf-8")
    (meta / "veriflist_test_random_seenheard.txt").write_text(
        f"id,voice-path,face-path\n1,{BUCKLEY}/video_0000002.wav,x.jpg\n", encoding="utf-8"
    )
    return meta


@dataclasses.dataclass
class Importer:
    """Writer of a file and its import into the dataset `out`."""

    folder: Path
    meta: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def __call__(
        self, variables: dict[str, Any], container: str = "5", **options: Any
    ) -> ImportResult:
        path = write(self.folder / "file.mat", container, variables)
        return import_mat([path], self.out, **({"meta": self.meta} | options))

    def frames(self) -> list[dict[str, Any]]:
        return [row for s in schema.SPLITS for row in read_table(self.out, "frames", s).to_pylist()]

    def tracks(self) -> dict[str, dict[str, Any]]:
        tables = [read_table(self.out, "tracks", split) for split in schema.SPLITS]
        return {row["track_id"]: row for table in tables for row in table.to_pylist()}

    def indices(self) -> dict[str, list[int]]:
        """Return the grid points of every track."""
        found: dict[str, list[int]] = {}
        for row in self.frames():
            found.setdefault(row["track_id"], []).append(row["frame_index"])
        return found

    def logits(self) -> dict[str, np.ndarray]:
        """Return the logits of every track."""
        found: dict[str, list[list[float]]] = {}
        for row in self.frames():
            found.setdefault(row["track_id"], []).append(
                [row[name] for name in schema.EIGHT.logits]
            )
        return {track_id: np.array(rows, np.float32) for track_id, rows in found.items()}

    def dropped(self) -> list[tuple[str, str, str]]:
        rows = pq.read_table(self.out / schema.DROPPED_FILE).to_pylist()
        return [(row["track_id"], row["source"], f"{row['stage']}: {row['error']}") for row in rows]


@pytest.fixture
def importer(tmp_path: Path, meta: Path) -> Importer:
    return Importer(tmp_path, meta)


# The naive importer


def naive_numbers(images: Any, owner: float, count: int) -> list[int]:
    """Return the grid point of every row of a track."""
    numbers = []
    for path, wav_id in zip(
        images["denseFrames"].ravel(), images["denseFramesWavIds"].ravel(), strict=True
    ):
        if wav_id == owner:
            numbers.append(int(Path(path[0]).stem))
    if len(numbers) != count:
        return list(range(count))
    return [number - (0 if 0 in numbers else 1) for number in numbers]


def naive(path: Path) -> tuple[dict[str, list[Any]], list[tuple[str, str]]]:
    """Return `(track_id, grid point, logits)` by split, and ids and reasons of dropped tracks."""
    content = scipy_io.loadmat(path)
    images = content["images"][0, 0]
    identities = PERSONS | {name.rstrip("."): identity for name, identity in PERSONS.items()}
    rows: dict[str, list[Any]] = {split: [] for split in schema.SPLITS}
    dropped = []
    for i in range(images["name"].size):
        logits, owner = content["wavLogits"].ravel()[i], images["id"].ravel()[i]
        person, file = images["name"].ravel()[i][0].split("/test/")
        video, number = file.removesuffix(".wav").rsplit("_", 1)
        split = {1: "train", 2: "unheard_val", 3: "heard_val"}.get(images["set"].ravel()[i])
        if person not in identities:
            dropped.append((f"images.id {owner:.0f}", "UnknownIdentity"))
        elif logits.size == 0:
            dropped.append((f"images.id {owner:.0f}", "NoFrames"))
        elif logits.shape[1] != 8:
            dropped.append((f"images.id {owner:.0f}", "BadShape"))
        elif any(not np.isfinite(value) for value in logits.ravel()):
            dropped.append((f"images.id {owner:.0f}", "NotFinite"))
        elif split is None:
            dropped.append((f"images.id {owner:.0f}", "UnknownSet"))
        else:
            track_id = f"{identities[person]}/{video}/{int(number):05d}"
            grid = naive_numbers(images, owner, len(logits))
            for k, row in zip(grid, logits, strict=True):
                rows[split].append((track_id, k, tuple(row.tolist())))
    for found in rows.values():
        found.sort(key=lambda row: row[:2])
    return rows, sorted(dropped)


def as_naive(out: Path, split: str) -> list[Any]:
    table = read_table(out, "frames", split)
    assert table["timestamp_ms"].to_pylist() == [240 * k for k in table["frame_index"].to_pylist()]
    names = ("track_id", "frame_index", *schema.EIGHT.logits)
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [(track_id, index, logits) for track_id, index, *rest in rows if (logits := tuple(rest))]


def assert_tracks_describe(out: Path, split: str, rows: list[Any]) -> None:
    """Compare the table `tracks` with the rows of the naive importer."""
    described = read_table(out, "tracks", split).to_pylist()
    assert [t["track_id"] for t in described] == sorted({track_id for track_id, _, _ in rows})
    for track in described:
        identity, video, number = track["track_id"].split("/")
        mine = [(place, *row) for place, row in enumerate(rows) if row[0] == track["track_id"]]
        maxima = [max(row[3][k] for row in mine) for k in range(8)]
        tops = [row[3].index(max(row[3])) for row in mine]
        assert track == {
            "track_id": track["track_id"],
            "identity_id": identity,
            "video_id": video,
            "track_num": int(number),
            "split": split,
            **dict.fromkeys(("source", "start_ms", "end_ms", "sound_offset_ms")),
            "n_frames": len(mine),
            "n_expected": mine[-1][2] + 1,
            "duration_ms": None,
            "row_offset": mine[0][0],
            "label": EMOTIONS[maxima.index(max(maxima))],
            "majority": EMOTIONS[max(range(8), key=tops.count)],
            **dict(zip(schema.EIGHT.maxima, maxima, strict=True)),
        }


def assert_as_naive(importer: Importer, variables: dict[str, Any], container: str) -> None:
    plain = write(importer.folder / "plain.mat", "5", variables)
    expected, reasons = naive(plain)
    result = importer(variables, container)
    for split in schema.SPLITS:
        assert as_naive(importer.out, split) == expected[split]
        assert_tracks_describe(importer.out, split, expected[split])
    found = [(source, why.split(": ")[1]) for _, source, why in importer.dropped()]
    assert sorted(found) == reasons
    totals = result.manifest["totals"]
    assert totals["tracks"] + totals["dropped"] == variables["images"]["id"].size


UTTERANCES = [
    utterance(f"{ZANDER}/test/b_b_0000002.wav", 3, 9),
    utterance(f"{BUCKLEY}/test/video_0000010.wav", 11, 2, 3, sorted(map(str, range(1, 12)))),
    utterance(f"{BUCKLEY}/test/video_0000002.wav", 4, 3),
    utterance(f"{LEE}/test/-_-_0000001.wav", 2, 5, 2, ["01", "03"]),
    utterance(f"{BUCKLEY}/test/Video_0100000.wav", 2, 6),
    utterance(f"{LEE}/test/_x__0000007.wav", 1, 7, 2),
    utterance(f"{DOWN[:-1]}/test/v_0000001.wav", 3, 8, 3, ["00", "01", "02"]),
]
IDS = [
    "id10001/Video/100000",
    "id10001/video/00002",
    "id10001/video/00010",
    "id10002/b_b/00002",
    "id10003/v/00001",
    "id10004/-_-/00001",
    "id10004/_x_/00007",
]


@containers
def test_rows_equal_those_of_the_naive_importer(importer: Importer, container: str) -> None:
    assert_as_naive(importer, annotations(UTTERANCES, stray_ids=[0, 1]), container)
    assert sorted(importer.tracks()) == sorted(IDS)


def random_file(seed: int) -> dict[str, Any]:
    """Return a file with gaps in ids, numbers and rows, invalid entries and mixed face images."""
    rng = np.random.default_rng(seed)
    unheard = {name for name in PERSONS if rng.random() < 0.3}
    utterances = []
    ids = 1 + np.sort(rng.choice(100, 40, replace=False))
    for i, number in enumerate(ids):
        person = str(rng.choice([*PERSONS, "Nobody"], p=[0.3, 0.2, 0.2, 0.2, 0.1]))
        video = str(rng.choice(["a", "a_", "_-b", "B_1"]))
        rows = int(rng.integers(0, 15))
        width, first = int(rng.integers(1, 3)), int(rng.integers(0, 2))
        grid = rng.choice(30, rows if rng.random() < 0.9 else rows + 1, replace=False)
        stems = sorted(f"{first + k:0{width}d}" for k in grid)
        kind = 2 if person in unheard else int(rng.choice([1, 1, 3]))
        kind = kind if rng.random() < 0.95 else 4
        one = utterance(f"{person}/test/{video}_{i:07d}.wav", rows, int(number), kind, stems)
        odd = rng.random()
        if odd < 0.05:
            one = dataclasses.replace(one, logits=one.logits[:, :7])
        elif odd < 0.1 and rows:
            one.logits[-1, 3] = np.nan
        utterances.append(one)
    num_images = sum(len(u.images) for u in utterances) + 3
    # Tracks are mixed; the images of each track stay in order.
    key = rng.random(num_images)
    start = 0
    for one in utterances:
        key[start : start + len(one.images)].sort()
        start += len(one.images)
    return annotations(utterances, stray_ids=[0, 101, np.nan], order=np.argsort(key))


@pytest.mark.parametrize("seed", range(6))
def test_random_files_equal_the_naive_importer(
    importer: Importer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emovox.labelling.import_mat.CHUNK_TRACKS", 3)
    assert_as_naive(importer, random_file(seed), ("5", "5-zlib", "7.3")[seed % 3])


# Grid points from the names of the face images


@pytest.mark.parametrize(
    ("stems", "indices"),
    [
        (["01", "02", "03"], [0, 1, 2]),
        (["1", "10", "11", "12", *"23456789"], [0, 9, 10, 11, 1, 2, 3, 4, 5, 6, 7, 8]),
        (["0", "1", "10", *"23456789"], [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9]),
        (["01", "02", "05"], [0, 1, 4]),
        (["00", "01", "02"], [0, 1, 2]),
        (["00", "04"], [0, 4]),
        (["03", "04"], [2, 3]),
        (["007"], [6]),
        (["0000001", "0000012"], [0, 11]),
        (["10", "9", "08"], [9, 8, 7]),
        (["32768", "1"], [32767, 0]),
    ],
)
@containers
def test_numbers_of_face_images_are_grid_points(
    importer: Importer, container: str, stems: list[str], indices: list[int]
) -> None:
    one = utterance(f"{BUCKLEY}/test/a_0000001.wav", len(stems), images=stems)
    result = importer(annotations([one]), container)
    assert importer.indices() == {"id10001/a/00001": sorted(indices)}
    np.testing.assert_array_equal(
        importer.logits()["id10001/a/00001"], one.logits[np.argsort(indices)]
    )
    assert importer.tracks()["id10001/a/00001"]["n_expected"] == max(indices) + 1
    assert result.notes == ["official lists not found; the splits of the file were not compared"]


@pytest.mark.parametrize(
    "stems",
    [
        ["01", "02"],
        ["01", "02", "03", "05"],
        ["01", "02", "02"],
        ["1", "2", "8947850"],  # its time in ms does not fit into int32
        [],
    ],
)
def test_face_images_that_do_not_match_the_rows(importer: Importer, stems: list[str]) -> None:
    odd = utterance(f"{BUCKLEY}/test/a_0000001.wav", 3, 1, images=stems)
    good = utterance(f"{BUCKLEY}/test/b_0000001.wav", 2, 2, images=["03", "05"])
    result = importer(annotations([odd, good]))
    assert importer.indices() == {"id10001/a/00001": [0, 1, 2], "id10001/b/00001": [2, 4]}
    np.testing.assert_array_equal(importer.logits()["id10001/a/00001"], odd.logits)
    assert f"1 tracks {OTHER_COUNT}" in result.notes


@pytest.mark.parametrize(
    "change",
    [
        lambda x: without(x, "denseFrames"),
        lambda x: without(x, "denseFramesWavIds"),
        lambda x: without(x, "denseFrames", "denseFramesWavIds"),
        lambda x: x | {"images": x["images"] | {"denseFrames": cells(["a/01.png"] * 5).T}},
        lambda x: x | {"images": x["images"] | {"denseFrames": cells(["a/face.jpg"] * 5).T}},
        lambda x: x | {"images": x["images"] | {"denseFrames": cells(["a/01.jpg"] * 4).T}},
        lambda x: x | {"images": x["images"] | {"denseFramesWavIds": np.ones((4, 1))}},
        lambda x: x | {"images": x["images"] | {"denseFrames": cells([])}},
    ],
)
def test_a_file_without_numbered_face_images(importer: Importer, change: Any) -> None:
    one = utterance(f"{BUCKLEY}/test/a_0000001.wav", 5, images=["1", "11", "2", "3", "4"])
    result = importer(change(annotations([one])))
    assert importer.indices() == {"id10001/a/00001": [0, 1, 2, 3, 4]}
    np.testing.assert_array_equal(importer.logits()["id10001/a/00001"], one.logits)
    assert result.notes[0] == COUNTED
    assert importer.tracks()["id10001/a/00001"]["n_expected"] == 5


@pytest.mark.parametrize("strays", [[0.0], [np.nan], [np.inf], [-np.inf], [-3.0, np.nan, 77.0]])
def test_face_images_of_no_track(importer: Importer, strays: list[float]) -> None:
    utterances = [
        utterance(f"{BUCKLEY}/test/a_{i:07d}.wav", 2, i, images=["02", "04"]) for i in range(1, 6)
    ]
    result = importer(annotations(utterances, stray_ids=strays * 5))
    assert set(map(tuple, importer.indices().values())) == {(1, 3)}
    assert result.counts["face images"] == 10 + 5 * len(strays)
    assert result.counts["face images of no track"] == 5 * len(strays)


def matlab_element(order: str, kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:  # the small form
        tag = struct.pack(order + "HH", *((kind, len(data))[:: 1 if order == "<" else -1]))
        return tag + data.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(data)) + data + bytes(-len(data) % 8)


def matlab_array(order: str, name: str, value: Any) -> bytes:
    """Return a value in the layout of MATLAB: text with two bytes per character."""
    body = [matlab_element(order, 1, name.encode())]
    if isinstance(value, str):
        kind, dims = 4, (1, len(value))
        coding = "utf-16-le" if order == "<" else "utf-16-be"
        body.append(matlab_element(order, 4, value.encode(coding)))
    elif isinstance(value, dict):
        kind, dims = 2, (1, 1)
        names = b"".join(field.encode().ljust(32, b"\0") for field in value)
        body += [matlab_element(order, 5, struct.pack(order + "i", 32))]
        body += [matlab_element(order, 1, names)]
        body += [matlab_array(order, "", inner) for inner in value.values()]
    elif value.dtype == object:
        kind, dims = 1, value.shape
        body += [matlab_array(order, "", inner) for inner in value.ravel(order="F")]
    else:
        code, kind = (7, 7) if value.dtype == np.float32 else (9, 6)
        dims = value.shape
        data = value.astype(value.dtype.newbyteorder(order)).tobytes(order="F")
        body.append(matlab_element(order, code, data))
    head = matlab_element(order, 6, struct.pack(order + "II", kind, 0))
    head += matlab_element(order, 5, struct.pack(order + "2i", *dims))
    return matlab_element(order, 14, head + b"".join(body))


def write_like_matlab(path: Path, variables: dict[str, Any], order: str, *, pack: bool) -> Path:
    mark = {"<": b"\x00\x01IM", ">": b"\x01\x00MI"}[order]
    parts = [b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + mark]
    for name, value in variables.items():
        data = matlab_array(order, name, value)
        if pack:
            data = zlib.compress(data)
            data = struct.pack(order + "II", 15, len(data)) + data
        parts.append(data)
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("piece", [1, 2, 3, 50, 1 << 20])
@pytest.mark.parametrize(("order", "pack"), [("<", True), ("<", False), (">", True)])
def test_paths_in_two_byte_characters_and_in_pieces(
    importer: Importer, monkeypatch: pytest.MonkeyPatch, order: str, pack: bool, piece: int
) -> None:
    """MATLAB writes such paths; one may lie on the edge of a piece."""
    variables = annotations(UTTERANCES, stray_ids=[0])
    path = write_like_matlab(importer.folder / "file.mat", variables, order, pack=pack)
    expected, _ = naive(write(importer.folder / "plain.mat", "5", variables))
    monkeypatch.setattr(matfile, "PIECE", piece)
    result = import_mat([path], importer.out, meta=importer.meta)
    assert {split: as_naive(importer.out, split) for split in schema.SPLITS} == expected
    assert COUNTED not in result.notes


@pytest.mark.parametrize("piece", [5, 64, 1000])
def test_paths_of_one_byte_characters_in_pieces(
    importer: Importer, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(matfile, "PIECE", piece)
    assert_as_naive(importer, annotations(UTTERANCES, stray_ids=[0]), "5-zlib")


# Cells of the entries


def test_ids_with_gaps_and_parallel_arrays(importer: Importer) -> None:
    utterances = [utterance(f"{LEE}/x/a_{i:07d}.wav", 3, i) for i in (4, 40, 400)]
    importer(annotations(utterances))
    assert_logits(importer, utterances)


def assert_logits(importer: Importer, utterances: list[Utterance]) -> None:
    found = importer.logits()
    assert len(found) == len(utterances)
    for one in utterances:
        number = int(one.name[-11:-4])
        np.testing.assert_array_equal(found[f"id10004/a/{number:05d}"], one.logits)


@pytest.mark.parametrize("order", [[2, 4, 1, 3], [4, 2], [3]])
def test_ids_that_index_the_logits(importer: Importer, order: list[int]) -> None:
    """`images` was sorted or filtered; `wavLogits` has a cell for every number."""
    utterances = [utterance(f"{LEE}/x/a_{i:07d}.wav", i, i) for i in range(1, 5)]
    chosen = [utterances[i - 1] for i in order]
    importer(annotations(chosen, [u.logits for u in utterances]))
    assert_logits(importer, chosen)


def test_logits_are_checked_in_the_cell_of_the_id(importer: Importer) -> None:
    utterances = [utterance(f"{LEE}/x/a_{i:07d}.wav", i, i) for i in range(1, 5)]
    utterances[1].logits[1, 0] = np.nan
    chosen = [utterances[i - 1] for i in (2, 4, 1, 3)]
    importer(annotations(chosen, [u.logits for u in utterances]))
    assert importer.dropped() == [("id10004/a/00002", "images.id 2", "decode: NotFinite")]
    assert_logits(importer, chosen[1:])


def test_ids_that_could_index_the_logits_but_do_not(importer: Importer) -> None:
    """The numbers of face images show that both were sorted."""
    utterances = [utterance(f"{LEE}/x/a_{i:07d}.wav", i, i) for i in (2, 4, 1, 3)]
    importer(annotations(utterances))
    assert_logits(importer, utterances)


def test_permuted_ids_without_face_images_index_the_logits(importer: Importer) -> None:
    utterances = [utterance(f"{LEE}/x/a_{i:07d}.wav", i, i) for i in range(1, 5)]
    chosen = [utterances[i - 1] for i in (2, 4, 1, 3)]
    variables = annotations(chosen, [u.logits for u in utterances])
    importer(without(variables, "denseFrames", "denseFramesWavIds"))
    assert_logits(importer, chosen)


@pytest.mark.parametrize(
    ("ids", "num_cells"), [([1, 2, 9], 5), ([0, 1, 2], 5), ([1, 2, 3], 2), ([-1, 2], 3)]
)
def test_lengths_that_cannot_be_joined(importer: Importer, ids: list[int], num_cells: int) -> None:
    utterances = [utterance(f"{LEE}/x/a_000000{i}.wav", 2, n) for i, n in enumerate(ids)]
    with pytest.raises(InputError, match=rf"wavLogits has {num_cells} cells, .* cannot join them"):
        importer(annotations(utterances, [logits_of("x", 2)] * num_cells))


@pytest.mark.parametrize("field", ["id", "set", "name"])
def test_fields_of_different_length(importer: Importer, field: str) -> None:
    variables = annotations(UTTERANCES)
    variables["images"][field] = variables["images"][field][:, :-1]
    with pytest.raises(InputError, match=r"images.name, id and set differ in length: \d, \d, \d$"):
        importer(variables)


def test_columns_instead_of_rows(importer: Importer) -> None:
    variables = annotations(UTTERANCES, stray_ids=[0])
    images = {name: value.T for name, value in variables["images"].items()}
    assert_as_naive(importer, {"wavLogits": variables["wavLogits"].T, "images": images}, "5")


# Splits


def test_sets_are_splits(importer: Importer) -> None:
    sets = {1: LEE, 2: BUCKLEY, 3: LEE, 4: ZANDER, 0: ZANDER, -1: ZANDER}
    utterances = [
        utterance(f"{name}/x/a_{i:07d}.wav", 2, i, kind)
        for i, (kind, name) in enumerate(sets.items(), start=1)
    ]
    result = importer(annotations(utterances))
    assert {track_id: row["split"] for track_id, row in importer.tracks().items()} == {
        "id10004/a/00001": "train",
        "id10001/a/00002": "unheard_val",
        "id10004/a/00003": "heard_val",
    }
    assert importer.dropped() == [
        (f"id10002/a/0000{i}", f"images.id {i}", "split: UnknownSet") for i in (4, 5, 6)
    ]
    assert result.counts["tracks in the file, train"] == 1


def test_a_split_that_differs_from_the_lists_is_reported(importer: Importer, lists: Path) -> None:
    """In `lists`, tracks of Buckley and Zander are train except `video` 2; Lee is unheard."""
    utterances = [
        utterance(f"{BUCKLEY}/x/video_0000001.wav", 1, 1, 1),
        utterance(f"{BUCKLEY}/x/video_0000002.wav", 1, 2, 3),
        utterance(f"{BUCKLEY}/x/video_0000003.wav", 1, 3, 3),
        utterance(f"{ZANDER}/x/video_0000002.wav", 1, 4, 2),
        utterance(f"{LEE}/x/video_0000002.wav", 1, 5, 2),
        utterance(f"{DOWN}/x/video_0000001.wav", 1, 6, 1),
    ]
    result = importer(annotations(utterances))
    named: list[dict[str, str | None]] = [
        {"track_id": "id10001/video/00003", "file": "heard_val", "lists": "train"},
        {"track_id": "id10002/video/00002", "file": "unheard_val", "lists": "train"},
        {"track_id": "id10003/video/00001", "file": "train", "lists": None},
    ]
    provenance = json.loads((importer.out / schema.PROVENANCE).read_text())
    assert provenance["split_disagreements"] == named
    assert result.notes == [
        *(
            f"{d['track_id']}: {d['file']} in the file, {d['lists']} in the official lists"
            for d in named
        ),
        "3 tracks have another split in the official lists; provenance.json lists them",
    ]
    assert importer.tracks()["id10001/video/00003"]["split"] == "heard_val"
    assert all(f"note      {note}" in result.summary() for note in result.notes)


def test_many_differences_are_shortened_in_the_notes_only(importer: Importer, lists: Path) -> None:
    result = importer(annotations([utterance(f"{LEE}/x/a_{i:07d}.wav", 1, i) for i in range(1, 9)]))
    assert len(result.notes) == 6 and result.notes[-1].startswith("8 tracks have another split")
    provenance = json.loads((importer.out / schema.PROVENANCE).read_text())
    assert len(provenance["split_disagreements"]) == 8


def test_agreement_with_the_lists_gives_no_note(importer: Importer, lists: Path) -> None:
    result = importer(annotations([utterance(f"{LEE}/x/a_0000001.wav", 1, 1, 2)]))
    assert result.notes == []
    provenance = json.loads((importer.out / schema.PROVENANCE).read_text())
    assert provenance["split_disagreements"] == []


@pytest.mark.parametrize("other", [1, 3])
def test_a_split_that_leaks_is_refused(importer: Importer, other: int) -> None:
    utterances = [
        utterance(f"{LEE}/x/a_0000001.wav", 1, 1, 2),
        utterance(f"{LEE}/x/a_0000002.wav", 1, 2, other),
    ]
    with pytest.raises(CheckError, match=r"1 identities are in unheard_val .*: id10004$"):
        importer(annotations(utterances))
    assert_nothing_left(importer)


def test_a_track_without_rows_cannot_leak(importer: Importer) -> None:
    utterances = [
        utterance(f"{LEE}/x/a_0000001.wav", 1, 1, 2),
        utterance(f"{LEE}/x/a_0000002.wav", 0, 2, 1),
    ]
    importer(annotations(utterances))
    assert list(importer.tracks()) == ["id10004/a/00001"]


def assert_nothing_left(importer: Importer) -> None:
    left = {path.name for path in importer.folder.iterdir()} - {"file.mat", "meta"}
    assert not left


# Unusable tracks


def changed(value: float) -> np.ndarray:
    logits = logits_of("x", 3)
    logits[1, 7] = value
    return logits


BAD_LOGITS: dict[str, tuple[Any, str]] = {
    "empty": (np.empty((0, 0)), "decode: NoFrames"),
    "no-rows": (np.empty((0, 8), np.float32), "decode: NoFrames"),
    "no-columns": (np.empty((8, 0), np.float32), "decode: NoFrames"),
    "nan": (changed(np.nan), "decode: NotFinite"),
    "infinite": (changed(np.inf), "decode: NotFinite"),
    "minus-infinite": (changed(-np.inf), "decode: NotFinite"),
    "beyond-float32": (np.full((3, 8), 1e39), "decode: NotFinite"),
    "narrow": (np.ones((3, 7), np.float32), "decode: BadShape"),
    "wide": (np.ones((3, 9), np.float32), "decode: BadShape"),
    "turned": (np.ones((8, 3), np.float32), "decode: BadShape"),
    "scalar": (np.ones((1, 1), np.float32), "decode: BadShape"),
    "deep": (np.ones((2, 8, 2), np.float32), "decode: BadShape"),
    "deep-of-eight": (np.ones((2, 2, 8), np.float32), "decode: BadShape"),
    "too-long": (np.ones((2**15 + 1, 8), np.int8), "time: TooLong"),
    "text": ("logits", "decode: NoFrames"),
    "cell": (cells([np.ones((3, 8))]), "decode: NoFrames"),
    "struct": ({"logits": np.ones((3, 8))}, "decode: NoFrames"),
}


@containers
def test_invalid_logits_are_dropped(
    importer: Importer, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "max_frame_index", lambda step_ms: 2**15 - 1)  # for "too-long"
    utterances = [
        dataclasses.replace(utterance(f"{LEE}/x/bad_{i:07d}.wav", 3, i), logits=logits)
        for i, (logits, _) in enumerate(BAD_LOGITS.values(), start=1)
    ]
    good = utterance(f"{LEE}/x/a_0000001.wav", 3, 100)
    result = importer(annotations([*utterances, good]), container)
    assert importer.dropped() == [
        (f"id10004/bad/{i:05d}", f"images.id {i}", why)
        for i, (_, why) in enumerate(BAD_LOGITS.values(), start=1)
    ]
    assert_logits(importer, [good])
    assert result.manifest["totals"]["dropped"] == len(BAD_LOGITS)
    assert result.reasons["decode: NoFrames"] == result.counts["tracks without frames"] == 6


def test_logits_of_other_number_types(importer: Importer) -> None:
    kinds = (np.float64, np.int8, np.uint16, bool)
    utterances = [
        dataclasses.replace(
            utterance(f"{LEE}/x/a_{i:07d}.wav", 2, i), logits=(np.arange(16) % 5).astype(kind)
        )
        for i, kind in enumerate(kinds, start=1)
    ]
    utterances = [dataclasses.replace(u, logits=u.logits.reshape(2, 8)) for u in utterances]
    importer(annotations(utterances))
    assert_logits(importer, utterances)


def test_the_longest_track(importer: Importer) -> None:
    one = utterance(f"{LEE}/x/a_0000001.wav", 2**15, images=[])
    importer(annotations([one]))
    (split,) = (
        s for s in schema.SPLITS if (importer.out / schema.table_file("frames", s)).exists()
    )
    frames = read_table(importer.out, "frames", split)
    assert frames["frame_index"].to_pylist() == list(range(2**15))
    assert frames["timestamp_ms"][-1].as_py() == 240 * (2**15 - 1)


@pytest.mark.parametrize("width", [7, 9])
def test_another_number_of_emotions_is_refused(importer: Importer, width: int) -> None:
    utterances = [
        dataclasses.replace(utterance(f"{LEE}/x/a_{i:07d}.wav", 2, i), logits=np.ones((2, width)))
        for i in (1, 2)
    ]
    words = rf"wavLogits has {width} columns, expected 8: neutral, happiness, .*, contempt$"
    with pytest.raises(InputError, match=words):
        importer(annotations(utterances))
    assert_nothing_left(importer)


def test_a_file_without_a_usable_track_is_refused(importer: Importer) -> None:
    utterances = [utterance(f"{LEE}/x/a_000000{i}.wav", 0, i) for i in (1, 2)]
    utterances.append(utterance("Nemo/x/a_0000001.wav", 2, 3))
    words = r"no usable track \(2 x decode: NoFrames, 1 x plan: UnknownIdentity\)"
    with pytest.raises(InputError, match=words):
        importer(annotations(utterances))
    assert_nothing_left(importer)


@pytest.mark.parametrize("wrong", [2, 1.5, -3, np.nan, np.inf, 1e30])
def test_invalid_ids_are_dropped(importer: Importer, wrong: float) -> None:
    """Tracks whose id is not an integer or not unique are dropped; the others are joined."""
    ids = [1, wrong, 2, 7]
    utterances = [
        utterance(f"{LEE}/x/a_{i:07d}.wav", 2, number, images=["02", "04"])
        for i, number in enumerate(ids, start=1)
    ]
    result = importer(annotations(utterances))
    bad = [1, 2] if wrong == 2 else [1]
    assert [why for _, _, why in importer.dropped()] == ["plan: BadId"] * len(bad)
    assert len({source for _, source, _ in importer.dropped()}) == len(bad)
    assert_logits(importer, [one for i, one in enumerate(utterances) if i not in bad])
    assert set(map(tuple, importer.indices().values())) == {(1, 3)}
    assert result.manifest["totals"]["dropped"] == len(bad)


BAD_NAMES = {
    "../../x": "plan: BadName",
    "../x_0000001.wav": "plan: BadName",
    "../test/x_0000001.wav": "plan: BadName",
    f"{LEE}/../x_0000001.wav": "plan: BadName",
    f"{LEE}/test/../x_0000001.wav": "plan: BadName",
    f"{LEE}/test/.._0000001.wav": "plan: BadName",
    f"{LEE}/test/._0000001.wav": "plan: BadName",
    f"/{LEE}/x_0000001.wav": "plan: BadName",
    f"{LEE}/test/a/x_0000001.wav": "plan: BadName",
    f"{LEE}/test/_0000001.wav": "plan: BadName",
    f"{LEE}/test/x.wav": "plan: BadName",
    f"{LEE}/test/x_1.mp3": "plan: BadName",
    f"{LEE}/test/x_0000001.wav ": "plan: BadName",
    f"{LEE}/test/x_-000001.wav": "plan: BadName",
    f"{LEE}/test/x_9999999999.wav": "plan: BadName",
    f"{LEE}/test/x_{'9' * 5000}.wav": "plan: BadName",
    f"{LEE}/test/x\n_0000001.wav": "plan: BadName",
    "x_0000001.wav": "plan: BadName",
    "": "plan: BadName",
    "Nemo_Nobody/test/x_0000001.wav": "plan: UnknownIdentity",
    "id10004/test/x_0000001.wav": "plan: UnknownIdentity",
    f"{LEE}./test/x_0000001.wav": "plan: UnknownIdentity",
}


@pytest.mark.parametrize("container", ["5", "7.3"])
def test_invalid_names_are_dropped(importer: Importer, container: str) -> None:
    utterances = [utterance(name, 2, i) for i, name in enumerate(BAD_NAMES, start=1)]
    good = utterance(f"{LEE}/x/a_0000001.wav", 3, 100)
    importer(annotations([*utterances, good]), container)
    expected = [(f"images/{i}", f"images.id {i}") for i in range(1, len(BAD_NAMES) + 1)]
    assert sorted(importer.dropped()) == sorted(
        (*row, why) for row, why in zip(expected, BAD_NAMES.values(), strict=True)
    )
    assert_logits(importer, [good])


def test_the_first_of_equal_names_is_kept(importer: Importer) -> None:
    names = [f"{LEE}/test/a_0000001.wav", f"{LEE}/a_1.wav", f"{LEE}/val/a_0000001.wav"]
    utterances = [utterance(name, 2, i) for i, name in enumerate(names, start=1)]
    result = importer(annotations(utterances))
    assert importer.dropped() == [
        ("id10004/a/00001", f"images.id {i}", "plan: DuplicateTrack") for i in (2, 3)
    ]
    np.testing.assert_array_equal(importer.logits()["id10004/a/00001"], utterances[0].logits)
    assert "dropped   2 x plan: DuplicateTrack" in result.summary()


def test_names_of_persons_are_not_in_the_dataset(importer: Importer, lists: Path) -> None:
    """Neither the bytes of a file nor its decompressed content contains one."""
    bad = [utterance(name, 2, i) for i, name in enumerate(BAD_NAMES, start=20)]
    odd = [
        dataclasses.replace(utterance(f"{LEE}/x/bad_{i:07d}.wav", 3, i), logits=logits, set=2)
        for i, (logits, _) in enumerate(BAD_LOGITS.values(), start=60)
    ]
    result = importer(annotations([*UTTERANCES, *bad, *odd]), hdf5=True)
    names = {part for name in [*PERSONS, "Nemo_Nobody"] for part in re.split(r"[_.]+", name)}
    words = {word.lower() for word in names if len(word) > 2}
    assert {"buckley", "zander", "lee", "nobody"} <= words
    texts = [result.summary()]
    for path in importer.out.rglob("*"):
        if path.is_dir():
            continue
        content = path.read_bytes()
        texts.append(path.name)
        assert str(importer.folder).encode() not in content
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            texts += [str(table.to_pylist()), str(table.schema.metadata)]
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                texts += [str(file["tracks/track_id"].asstr()[:].tolist()), str(dict(file.attrs))]
        else:
            texts.append(content.decode("utf-8"))
        long = [
            word for word in words if len(word) > 3
        ]  # compressed bytes contain any three letters
        assert not any(word.encode() in content.lower() for word in long)
    assert sum("id10001" in text for text in texts) >= 5
    words.add(os.uname().nodename.lower())  # searched in texts: compressed bytes may contain it
    for text in texts:
        assert not any(
            re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", text.lower()) for word in words
        )


# Counts


def test_counts_beside_the_published_ones(importer: Importer) -> None:
    utterances = [*UTTERANCES, utterance(f"{LEE}/x/e_0000001.wav", 0, 20, 2, images=[])]
    result = importer(annotations(utterances, stray_ids=[0, 0]))
    assert result.counts == {
        "tracks in the file": 8,
        "tracks in the file, train": 3,
        "tracks in the file, heard_val": 2,
        "tracks in the file, unheard_val": 3,
        "tracks without frames": 1,
        "face images": 28,
        "face images of no track": 2,
        "tracks": 7,
        "frames": 26,
        "identities": 4,
    }
    assert result.counts.keys() == PUBLISHED.keys()
    lines = result.summary().splitlines()
    table = {line[:34].strip(): line[34:].split() for line in lines[1 : 1 + len(PUBLISHED)]}
    for what, count in result.counts.items():
        assert table[what] == [f"{count:,}", f"{PUBLISHED[what]:,}", "differs"]
    assert "dropped   1 x decode: NoFrames" in lines
    assert lines[-1] == f"dataset   {importer.out}"


def test_counts_that_equal_the_published_ones_or_are_unknown(importer: Importer) -> None:
    result = importer(without(annotations(UTTERANCES), "denseFramesWavIds"))
    assert re.search(r"\nface images +- +5,078,961\n", result.summary())
    result.counts["frames"] = PUBLISHED["frames"]
    assert re.search(r"\nframes +5,077,744 +5,077,744\n", result.summary())


def test_strings_as_paths_and_counts_as_a_data_frame(importer: Importer) -> None:
    pytest.importorskip("pandas", reason="needs the extra build")
    path = write(importer.folder / "file.mat", "5", annotations(UTTERANCES, stray_ids=[0]))
    result = import_mat(str(path), str(importer.out), meta=str(importer.meta))
    assert repr(result) == f"<ImportResult {importer.out}: 7 tracks, 26 frames>"
    table = result.to_pandas().set_index("count")
    assert table["found"].to_dict() == result.counts
    assert table["published"].to_dict() == PUBLISHED


# Files


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda x: {"images": x["images"]}, "wavLogits"),
        (lambda x: {"wavLogits": x["wavLogits"]}, "images.name, images.id, images.set"),
        (lambda x: without(x, "id"), "images.id"),
        (lambda x: without(x, "set", "name"), "images.name, images.set"),
        (lambda x: x | {"wavLogits": np.ones((2, 8))}, "wavLogits"),
        (lambda x: x | {"wavLogits": cells([])}, "wavLogits"),
    ],
)
@pytest.mark.parametrize("container", ["5-zlib", "7.3"])
def test_missing_fields_are_reported(
    importer: Importer, container: str, change: Any, missing: str
) -> None:
    variables = change(annotations(UTTERANCES))
    with pytest.raises(InputError) as error:
        importer(variables, container)
    file, advice = importer.folder / "file.mat", "pass all files that together contain them"
    assert str(error.value) == f"{file}: {missing} missing; {advice}"
    assert_nothing_left(importer)


def test_a_file_with_other_variables_is_refused(importer: Importer) -> None:
    with pytest.raises(InputError, match=r"wavLogits, .* missing; pass all files"):
        importer({"net": 1.0})


@containers
@pytest.mark.parametrize("turned", [False, True])
def test_two_files_with_one_half_each(importer: Importer, container: str, turned: bool) -> None:
    variables = annotations(UTTERANCES)
    files = [
        write(importer.folder / f"{name}.mat", container, {name: value})
        for name, value in variables.items()
    ]
    expected, _ = naive(write(importer.folder / "file.mat", "5", variables))
    files = files[::-1] if turned else files
    import_mat(files, importer.out, meta=importer.meta)
    assert {split: as_naive(importer.out, split) for split in schema.SPLITS} == expected
    provenance = json.loads((importer.out / schema.PROVENANCE).read_text())
    assert provenance["imported_from"] == [
        {"file": path.name, "sha256": sha256_file(path)} for path in files
    ]


@containers
def test_fields_of_other_structs_are_skipped(importer: Importer, container: str) -> None:
    """Of classes or of a nested struct; `images` may be inside a struct itself."""
    other = {"name": cells(["neutral"] * 7), "id": np.ones((1, 7)), "set": np.ones((1, 7))}
    variables = annotations(UTTERANCES)
    images = {"camera": other, **variables["images"]}
    imdb = {"classes": other, "images": images, "meta": other, "wavLogits": variables["wavLogits"]}
    importer({"classes": other, "imdb": imdb, "sets": other}, container)
    assert sorted(importer.tracks()) == sorted(IDS)


@containers
def test_a_truncated_file_leaves_nothing(importer: Importer, container: str) -> None:
    path = write(importer.folder / "whole.mat", container, annotations(UTTERANCES))
    whole = path.read_bytes()
    cut = importer.folder / "file.mat"
    path.unlink()
    for size in (10, 200, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"file\.mat: (damaged MAT|expected a MAT file)"):
            import_mat([cut], importer.out, meta=importer.meta)
        assert_nothing_left(importer)


def test_a_missing_file_and_missing_names(importer: Importer) -> None:
    with pytest.raises(InputError, match=r"nothing\.mat: cannot be read"):
        import_mat([importer.folder / "nothing.mat"], importer.out)  # before the missing lists
    with pytest.raises(InputError, match=r"nowhere/vox1_meta\.csv: cannot be read .*--meta"):
        importer(annotations(UTTERANCES), meta=importer.folder / "nowhere")
    assert_nothing_left(importer)


def test_existing_files_are_not_changed(importer: Importer) -> None:
    importer.out.mkdir()
    (importer.out / "thesis.tex").write_text("precious")
    for out in (importer.out, importer.out / "thesis.tex"):
        with pytest.raises(InputError, match="exists and is not empty; pass another --out"):
            import_mat([importer.folder / "file.mat"], out, meta=importer.meta)
    assert [path.name for path in importer.out.iterdir()] == ["thesis.tex"]


def test_a_second_import_into_a_dataset_is_refused(importer: Importer) -> None:
    importer(annotations(UTTERANCES))
    before = {p: p.read_bytes() for p in importer.out.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="exists and is not empty"):
        importer(annotations(UTTERANCES[:2]))
    assert {p: p.read_bytes() for p in importer.out.rglob("*") if p.is_file()} == before


def test_empty_and_missing_folders_are_accepted(importer: Importer) -> None:
    importer.out.mkdir()
    importer(annotations(UTTERANCES))
    deep = importer.folder / "a/b/out"
    import_mat([importer.folder / "file.mat"], deep, meta=importer.meta)
    assert (deep / schema.MANIFEST).is_file() and (importer.out / schema.MANIFEST).is_file()
    assert [path.name for path in deep.parent.iterdir()] == ["out"]


def test_the_current_folder_may_be_the_dataset(
    importer: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    importer.out.mkdir()
    path = write(importer.folder / "file.mat", "5", annotations(UTTERANCES))
    monkeypatch.chdir(importer.out)
    import_mat([path], Path(), meta=importer.meta)
    assert (importer.out / schema.MANIFEST).is_file()
    assert {p.name for p in importer.folder.iterdir()} == {"file.mat", "meta", "out"}


def test_files_of_a_killed_run_are_removed(importer: Importer) -> None:
    left = importer.folder / ".out.importing"
    (left / "frames").mkdir(parents=True)
    (left / "frames/train-00000-of-00001.parquet").write_text("half")
    (left / "stranger").touch()
    importer(annotations(UTTERANCES))
    assert not left.exists() and not (importer.out / "stranger").exists()
    assert len(importer.tracks()) == 7


def test_a_simultaneous_import_into_one_folder_is_refused(importer: Importer) -> None:
    path = write(importer.folder / "file.mat", "5", annotations(UTTERANCES))
    with FileLock(importer.folder / ".out.lock"):
        with pytest.raises(EmovoxError, match="out: another run is importing"):
            import_mat([path], importer.out, meta=importer.meta)
        assert not importer.out.exists()


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_nothing(
    importer: Importer, monkeypatch: pytest.MonkeyPatch, error: BaseException, there: bool
) -> None:
    def fail(building: Path, chunks: Iterable[Any], *arguments: Any, **options: Any) -> None:
        assert not (importer.out / schema.MANIFEST).exists()
        next(iter(chunks))
        (building / "half").touch()
        raise error

    if there:
        importer.out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("emovox.labelling.import_mat.write_chunks", fail)
        with pytest.raises(type(error)):
            importer(annotations(UTTERANCES))
    assert {p.name for p in importer.folder.iterdir()} - {"file.mat", "meta"} <= {"out"}
    assert importer.out.exists() == there and not (there and list(importer.out.iterdir()))
    importer(annotations(UTTERANCES))
    assert len(importer.tracks()) == 7


# The dataset


@pytest.mark.parametrize("hdf5", [False, True])
def test_manifest_checksums_and_card(importer: Importer, hdf5: bool) -> None:
    utterances = [*UTTERANCES, utterance("Nobody/x/a_0000001.wav", 2, 30)]
    result = importer(annotations(utterances), hdf5=hdf5, name="mine", version="2.1.0")
    out = importer.out
    manifest = json.loads((out / schema.MANIFEST).read_text())
    assert manifest == result.manifest
    assert (manifest["name"], manifest["version"], manifest["step_ms"]) == ("mine", "2.1.0", 240)
    assert manifest["emotions"] == list(EMOTIONS)
    assert manifest["schema_version"] == schema.SCHEMA_VERSION
    assert manifest["teacher"] == {"name": "senet50-ferplus", "sha256": None}
    assert manifest["totals"] == {
        "tracks": 7,
        "frames": 26,
        "dropped": 1,
        "by_split": {
            "train": {"tracks": 3, "frames": 9, "identities": 2},
            "heard_val": {"tracks": 2, "frames": 14, "identities": 2},
            "unheard_val": {"tracks": 2, "frames": 3, "identities": 1},
        },
    }
    names = {schema.table_file(t, s) for t in ("frames", "tracks") for s in schema.SPLITS}
    names |= {schema.hdf5_file(s) for s in schema.SPLITS if hdf5}
    names |= {schema.DROPPED_FILE, schema.CARD, schema.PROVENANCE, schema.CHECKSUMS}
    assert {f["path"] for f in manifest["files"]} == names
    on_disk = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert on_disk == names | {schema.MANIFEST}
    for file in manifest["files"]:
        assert (out / file["path"]).stat().st_size == file["bytes"]
        assert sha256_file(out / file["path"]) == file["sha256"]
        if file["path"].endswith(".parquet"):
            table = pq.read_table(out / file["path"])
            assert table.num_rows == file["rows"]
            assert table.schema.metadata[b"emovox.dataset"] == b"mine"
    sums = dict(
        line.split("  ")[::-1] for line in (out / schema.CHECKSUMS).read_text().splitlines()
    )
    assert sums.keys() == names - {schema.CHECKSUMS}
    assert all(sha256_file(out / name) == digest for name, digest in sums.items())
    card = (out / schema.CARD).read_text()
    assert "# mine 2.1.0" in card and "Albanie et al., 2018" in card
    assert "| train | 3 | 9 | 2 |" in card and "1 tracks gave no rows" in card
    assert "config_name: tracks" in card and "faces" not in re.findall("config_name: (.*)", card)
    assert "path: frames/heard_val-00000-of-00001.parquet" in card


def test_two_imports_have_the_same_content(importer: Importer) -> None:
    first = importer(annotations(UTTERANCES))
    path = importer.folder / "file.mat"
    second = import_mat([path], importer.folder / "again", meta=importer.meta)
    hashes = [
        {f["path"]: f["sha256"] for f in result.manifest["files"]} for result in (first, second)
    ]
    assert hashes[0] == hashes[1]


def scipy_content(path: Path, split: str) -> str:
    """Return the content hash of a split from the arrays that scipy reads."""
    rows = naive(path)[0][split]
    index = np.array([k for _, k, _ in rows])
    values = np.array([logits for _, _, logits in rows], np.float32)
    columns = [pa.array([track_id for track_id, _, _ in rows]), pa.array(index, pa.int16())]
    columns += [
        pa.array(index * 240, pa.int32()),
        *(pa.array(column) for column in values.T.copy()),
    ]
    content = ContentHash(schema.EIGHT.frames)
    content.update(pa.Table.from_arrays(columns, schema=schema.EIGHT.frames))
    return content.hexdigest()


@pytest.mark.parametrize("split", schema.SPLITS)
def test_mat_parquet_and_hdf5_have_the_same_content(importer: Importer, split: str) -> None:
    result = importer(annotations(UTTERANCES, stray_ids=[0]), hdf5=True)
    listed = {f["path"]: f["content_sha256"] for f in result.manifest["files"]}
    expected = scipy_content(importer.folder / "file.mat", split)
    parquet, hdf5 = ContentHash(schema.EIGHT.frames), ContentHash(schema.EIGHT.frames)
    parquet.update(read_table(importer.out, "frames", split))
    for part in read_hdf5_frames(importer.out / schema.hdf5_file(split), Outputs(), rows=2):
        hdf5.update(part)
    assert parquet.hexdigest() == hdf5.hexdigest() == expected
    assert listed[schema.table_file("frames", split)] == expected
    assert listed[schema.hdf5_file(split)] == expected


# The command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_command(importer: Importer) -> None:
    path = write(importer.folder / "file.mat", "5-zlib", annotations(UTTERANCES))
    arguments = ["import-mat", path, "--out", importer.out, "--meta", importer.meta]
    result = run(*arguments, "--hdf5", "--name", "mine", "--version", "3.0.0")
    assert result.exit_code == 0 and result.stderr == ""
    assert re.search(r"\ntracks +7 +153,352  differs\n", result.stdout)
    manifest = json.loads((importer.out / schema.MANIFEST).read_text())
    assert (manifest["name"], manifest["version"]) == ("mine", "3.0.0")
    assert (importer.out / schema.hdf5_file("train")).is_file()
    again = run(*arguments)
    assert again.exit_code == 2 and "exists and is not empty; pass another --out" in again.stderr
    assert again.stderr.count("\n") == 1 and again.stdout == ""


def test_command_finds_the_lists_in_the_cache(
    importer: Importer, lists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(importer.folder / "file.mat", "5", annotations(UTTERANCES))
    monkeypatch.setenv("EMOVOX_CACHE", str(importer.folder / "cache"))
    missing = run("import-mat", path, "--out", importer.out)
    assert missing.exit_code == 2 and "emovox download splits" in missing.stderr
    (importer.folder / "cache").mkdir()
    lists.rename(importer.folder / "cache/splits")
    result = run("import-mat", path, "--out", importer.out)
    assert result.exit_code == 0 and "tracks have another split" in result.stdout
    manifest = json.loads((importer.out / schema.MANIFEST).read_text())
    assert (manifest["name"], manifest["version"]) == ("emovoxceleb", "1.0.0")


def test_command_accepts_several_files(importer: Importer) -> None:
    variables = annotations(UTTERANCES)
    halves = [
        write(importer.folder / f"{name}.mat", "5", {name: value})
        for name, value in variables.items()
    ]
    options = ["--out", importer.out, "--meta", importer.meta]
    one = run("import-mat", halves[0], *options)
    assert one.exit_code == 2 and "pass all files" in one.stderr
    assert run("import-mat", *halves, *options).exit_code == 0


def test_exit_codes(importer: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    leak = [utterance(f"{LEE}/x/a_000000{i}.wav", 1, i, i) for i in (1, 2)]
    path = write(importer.folder / "file.mat", "5", annotations(leak))
    arguments = ["import-mat", path, "--out", importer.out, "--meta", importer.meta]
    leaking = run(*arguments)
    assert leaking.exit_code == 1 and "the split leaks" in leaking.stderr
    path.write_text("<html>404</html>")
    page = run(*arguments)
    assert page.exit_code == 2 and "expected a MAT file" in page.stderr
    assert page.stderr.count("\n") == 1
    assert run("import-mat", "--out", importer.out).exit_code == 2
    assert run("import-mat", path).exit_code == 2

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("emovox.labelling.import_mat.read_annotations", interrupt)
    stopped = run(*arguments)
    assert stopped.exit_code == 130 and "interrupted; rerun the same command" in stopped.stderr
    assert_nothing_left(importer)


# Real names


@pytest.mark.real
def test_real_names_and_lists(tmp_path: Path, real_data: Path) -> None:
    """One track of every person and every track of heard_val, in the splits of the lists."""
    folder = real_data / "voxceleb-meta"
    rows = [line.split() for line in (folder / "identity_splits.txt").read_text().splitlines()]
    persons = {row[0]: row[1] for row in rows if row}
    voices = (folder / "veriflist_test_random_seenheard.txt").read_text().splitlines()[1:]
    heard = sorted({line.split(",")[4] for line in voices})
    names = {f"{name}/v_0000001.wav": 2 if kind == "4" else 1 for name, kind in persons.items()}
    names |= dict.fromkeys(heard, 3)
    utterances = [
        utterance("/test/".join(name.split("/")), 1 + i % 3, i, kind)
        for i, (name, kind) in enumerate(names.items(), start=1)
    ]
    importer = Importer(tmp_path, folder)
    result = importer(annotations(utterances), "5-zlib")
    assert result.notes == []
    assert result.counts["identities"] == 1251 == len(persons)
    assert result.counts["tracks in the file, heard_val"] == 4505
    by_split = result.manifest["totals"]["by_split"]
    assert by_split["unheard_val"]["tracks"] == by_split["unheard_val"]["identities"] == 250
    assert by_split["train"]["tracks"] == 1001 and result.manifest["totals"]["dropped"] == 0
    documents = [p for p in importer.out.iterdir() if p.is_file() and p.suffix != ".parquet"]
    text = b"".join(p.read_bytes() for p in documents)
    text += "".join(importer.tracks()).encode()
    assert not any(name.encode() in text for name in persons)
    one = dataclasses.replace(utterances[0], set=3)
    assert one.name.startswith("A.J._Buckley/test/")
    again = import_mat(
        [write(tmp_path / "other.mat", "5", annotations([one, *utterances[1:]]))],
        tmp_path / "other",
        meta=folder,
    )
    assert again.notes[0] == "id10001/v/00001: heard_val in the file, train in the official lists"


@pytest.mark.parametrize(("allowed", "code"), [(0.1, 1), (0.25, 0), (None, 1)])
def test_command_fails_for_many_dropped_tracks(
    importer: Importer, allowed: float | None, code: int
) -> None:
    good = [utterance(f"{LEE}/x/a_{i:07d}.wav", 2, i) for i in range(1, 5)]
    bad = dataclasses.replace(utterance(f"{LEE}/x/b_0000001.wav", 2, 9), logits=changed(np.nan))
    path = write(importer.folder / "file.mat", "5", annotations([*good, bad]))
    options = [] if allowed is None else ["--max-dropped", allowed]
    result = run("import-mat", path, "--out", importer.out, "--meta", importer.meta, *options)
    assert result.exit_code == code
    assert ("complete, but more tracks were dropped" in result.stderr) == (code == 1)
    assert (importer.out / schema.MANIFEST).is_file(), "usable tracks are written"
