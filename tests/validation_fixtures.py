"""A small valid dataset, and for every rule of `emovox validate` the damage that violates it.

Each function of `DAMAGE` damages a new valid dataset, given by its folder, so that only the rule
named by its key fails. `ALSO` lists further rules that the damage violates.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.card import card_of
from emovox.dataset.rows import Chunk, Dropped, TrackRow
from emovox.dataset.store import create_table, read_rows, write_hdf5
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS, Outputs
from emovox.files import sha256_file
from emovox.ids import TrackKey
from emovox.publishing.publish import write_croissant

TRAIN, HEARD, UNHEARD = schema.SPLITS
Spec = list[tuple[str, str, int, str]]  # identity, video, number, split
Rows = list[dict[str, Any]]

SPEC: Spec = [
    ("id10001", "video0001", 1, TRAIN),
    ("id10001", "video0001", 2, TRAIN),
    ("id10002", "video0002", 1, TRAIN),
    ("id10001", "video0003", 1, HEARD),
    ("id10003", "video0004", 1, UNHEARD),
    ("id10003", "video0005", 12, UNHEARD),
]
NAMES = {"id10001": "A.J._Buckley", "id10002": "Aamir_Khan", "id10003": "Zulay_Henao"}
OUTPUTS = Outputs(values=("valence", "arousal"))
COLUMNS = schema.columns(OUTPUTS)
EMBEDDING_SIZE = 4
NUM_FRAMES = 6
INDICES = np.array([0, 1, 2, 4, 5, 6])  # a frame without a face leaves a gap
PROVENANCE: dict[str, Any] = {
    "origin": "Made by a test.",
    "emovox": {"version": "0.1.0", "commit": None},
    "libraries": {"python": "3.11.0"},
    "config": {"layout": "voxceleb1", "splits": "official"},
    "teacher": {"name": "fake", "sha256": "0" * 64},
    "source_fingerprint": "1" * 64,
}
DROPPED = [Dropped("id10002/video0002/00002", "id10002/video0002/00002.txt", "open", "E", "why")]


def write_valid(folder: Path) -> Path:
    """Write a valid dataset to `folder/dataset`, and its official lists to `folder/meta`.

    Like a release, it has a croissant.json.
    """
    meta = folder / "meta"
    meta.mkdir(parents=True)
    rows = [f"{identity}\t{name}\tm\tIreland\tdev" for identity, name in NAMES.items()]
    header = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
    (meta / "vox1_meta.csv").write_text("\n".join([header, *rows]) + "\n")
    sets = zip(NAMES.values(), "124", strict=True)
    (meta / "identity_splits.txt").write_text("".join(f"{n} {s}\n" for n, s in sets))
    heard = "voice-path\nA.J._Buckley/video0003_0000001.wav\n"
    (meta / "veriflist_test_random_seenheard.txt").write_text(heard)
    (folder / "takedown.txt").write_text(f"# SHA-256 of identities\n{_hashed('id99999')}\n")
    root = build(folder / "dataset")
    write_croissant(root, read_manifest(root))
    seal(root)
    return root


def build(root: Path, spec: Spec = SPEC, **provenance: Any) -> Path:
    """Write a dataset with the tracks of `spec`; it is valid if they are."""
    shutil.rmtree(root, ignore_errors=True)
    info = DatasetInfo(
        name="small",
        version="1.0.0",
        step_ms=240,
        teacher=PROVENANCE["teacher"],
        provenance=PROVENANCE | provenance,
        tables=schema.TABLES,
        outputs=OUTPUTS,
    )
    chunks = [_chunk(*entry, seed) for seed, entry in enumerate(sorted(spec))]
    write_chunks(root, chunks, DROPPED, info, hdf5=True)
    return root


def _chunk(identity: str, video: str, number: int, split: str, seed: int) -> Chunk:
    known = (1500, f"video/{video}.mp4", 2000, 3500, -12.5) if seed % 2 else ()
    track = TrackRow(TrackKey(identity, video, number), NUM_FRAMES, 7, *known)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(NUM_FRAMES, 8)).astype(np.float32)
    values = rng.normal(size=(NUM_FRAMES, 2)).astype(np.float32)
    embeddings = rng.normal(size=NUM_FRAMES * EMBEDDING_SIZE).astype(np.float16)
    logits[:, 0] += 3
    numbers = {
        "frame_index": INDICES,
        "timestamp_ms": 240 * INDICES,
        **dict(zip(COLUMNS.logits, logits.T, strict=True)),
        **dict(zip(COLUMNS.values, values.T, strict=True)),
        "pts_ms": 240.0 * INDICES + 7,
        **dict.fromkeys(("box_x", "box_y", "box_w", "box_h"), np.full(NUM_FRAMES, 50)),
        "score": np.full(NUM_FRAMES, 0.99),
        "sharpness": np.full(NUM_FRAMES, 80),
        "shot": np.zeros(NUM_FRAMES),
    }
    fields = {field.name: field for table in (COLUMNS.frames, schema.FACES) for field in table}
    columns = [pa.array([track.track_id] * NUM_FRAMES)]
    columns += [pa.array(v).cast(fields[name].type) for name, v in numbers.items()]
    kinds = pa.schema([fields[name] for name in ("track_id", *numbers)])
    embedding = COLUMNS.of("embeddings", EMBEDDING_SIZE).field("embedding")
    arrays = pa.FixedSizeListArray.from_arrays(pa.array(embeddings), type=embedding.type)
    rows = pa.Table.from_arrays(columns, schema=kinds).append_column(embedding, arrays)
    return Chunk(split, [track], rows)


def _hashed(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()


# Changes to a dataset that keep its hashes correct.


def seal(root: Path, *, croissant: bool = True) -> None:
    """Update hashes, sizes and row counts of manifest, SHA256SUMS and, if asked, croissant.json."""
    manifest = read_manifest(root)
    derived = (schema.CROISSANT, schema.CHECKSUMS)
    files = [f for f in manifest["files"] if f["path"] not in derived]
    files = [_described(root, entry) for entry in files if (root / entry["path"]).exists()]
    if (root / schema.CROISSANT).exists():
        if croissant:
            write_croissant(root, manifest | {"files": files})
        files.append(_described(root, {"path": schema.CROISSANT, "rows": None}))
    sums = "".join(f"{f['sha256']}  {f['path']}\n" for f in files)
    (root / schema.CHECKSUMS).write_text(sums)
    manifest["files"] = [*files, _described(root, {"path": schema.CHECKSUMS, "rows": None})]
    write_manifest(root, manifest)


def _described(root: Path, entry: dict[str, Any]) -> dict[str, Any]:
    path = root / entry["path"]
    rows, content = entry["rows"], None
    if path.suffix == ".parquet":
        metadata = pq.read_metadata(path)
        rows = metadata.num_rows
        content = metadata.metadata[b"emovox.content_sha256"].decode()
    elif path.suffix == ".h5":
        with h5py.File(path) as file:
            content = file.attrs["emovox.content_sha256"]
    return {
        "path": entry["path"],
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "rows": rows,
        "content_sha256": content,
    }


def read_manifest(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / schema.MANIFEST).read_text()))


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    (root / schema.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = read_manifest(root)
    change(manifest)
    write_manifest(root, manifest)


def edit_text(root: Path, name: str, change: Callable[[str], str]) -> None:
    before = (root / name).read_text()
    (root / name).write_text(change(before))
    assert (root / name).read_text() != before
    seal(root)


def edit_provenance(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    def changed(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content, indent=2)

    edit_text(root, schema.PROVENANCE, changed)


def path_of(table: str, split: str) -> str:
    return schema.DROPPED_FILE if table == "dropped" else schema.table_file(table, split)


def edit(
    root: Path, table: str, change: Callable[[Rows], object], split: str = TRAIN, hdf5: bool = True
) -> None:
    """Change the rows of one file, and update the files that depend on them.

    `change` works in place. `hdf5=False` removes the HDF5 files, which cannot hold every change.
    """
    name = path_of(table, split)
    rows = pq.read_table(root / name).to_pylist()
    change(rows)
    split_of_file = "" if table == "dropped" else split
    with create_table(root, table, "small", OUTPUTS, split_of_file, EMBEDDING_SIZE) as file:
        file.write(pa.Table.from_pylist(rows, schema=COLUMNS.of(table, EMBEDDING_SIZE)))
    if not hdf5:
        shutil.rmtree(root / "hdf5", ignore_errors=True)
    elif table in ("frames", "tracks") and (root / "hdf5").exists():
        write_hdf5(root, split, OUTPUTS)
    seal(root)


def edit_frames(root: Path, change: Callable[[Rows], object], split: str = TRAIN) -> None:
    """Change logits of one split, and update maxima and labels of its tracks."""
    edit(root, "frames", change, split)
    frames = pq.read_table(root / path_of("frames", split)).to_pylist()

    def settle(tracks: Rows) -> None:
        for track in tracks:
            rows = [row for row in frames if row["track_id"] == track["track_id"]]
            maxima = np.array([[row[name] for name in COLUMNS.logits] for row in rows]).max(axis=0)
            track |= dict(zip(COLUMNS.maxima, maxima.tolist(), strict=True))
            track["label"] = EMOTIONS[int(maxima.argmax())]
            tops = [EMOTIONS[np.argmax([row[name] for name in COLUMNS.logits])] for row in rows]
            track["majority"] = max(EMOTIONS, key=tops.count)
            for name in OUTPUTS.values:
                track[f"mean_{name}"] = float(np.mean([row[f"value_{name}"] for row in rows]))

    edit(root, "tracks", settle, split)
    recount(root)


def edit_keys(root: Path, change: Callable[[Rows], object]) -> None:
    """Change keys of frames and faces in the same way, and update the timestamps."""

    def both(rows: Rows) -> None:
        change(rows)
        for row in rows:
            if "timestamp_ms" in row:
                row["timestamp_ms"] = 240 * row["frame_index"]

    edit(root, "faces", both)
    edit(root, "embeddings", both)
    edit(root, "frames", both)


def recount(root: Path) -> None:
    """Update the totals of the manifest, and the card."""
    manifest = read_manifest(root)
    by_split = manifest["totals"]["by_split"]
    for split, counts in by_split.items():
        tracks = pq.read_table(root / path_of("tracks", split))
        identities = len(set(tracks["identity_id"].to_pylist()))
        frames = pq.read_metadata(root / path_of("frames", split)).num_rows
        counts |= {"tracks": tracks.num_rows, "frames": frames, "identities": identities}
    totals = {key: sum(c[key] for c in by_split.values()) for key in ("tracks", "frames")}
    manifest["totals"] |= totals
    write_manifest(root, manifest)
    (root / schema.CARD).write_text(card_of(root))
    seal(root)


def store(
    root: Path,
    name: str,
    table: pa.Table,
    row_group_size: int | None = None,
    metadata: dict[str, str] | None = None,
    **options: Any,
) -> None:
    """Rewrite a Parquet file with other columns, settings or metadata than the contract."""
    path = root / name
    kept = {k.decode(): v.decode() for k, v in pq.read_metadata(path).metadata.items()}
    settings: dict[str, Any] = schema.PARQUET_OPTIONS | {"store_schema": False} | options
    with pq.ParquetWriter(path, table.schema, **settings) as writer:
        writer.write_table(table, row_group_size=row_group_size)
        writer.add_key_value_metadata(kept | (metadata or {}))
    seal(root)


def read(root: Path, table: str, split: str = TRAIN) -> tuple[str, pa.Table]:
    name = path_of(table, split)
    return name, pq.read_table(root / name).replace_schema_metadata(None)


# One function per rule.

DAMAGE: dict[str, Callable[[Path], object]] = {}
ALSO: dict[str, set[str]] = {"no-nulls": {"columns"}}


def breaks(rule: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def register(damage: Callable[[Path], object]) -> Callable[[Path], object]:
        assert DAMAGE.setdefault(rule, damage) is damage
        return damage

    return register


def set_value(rows: Rows, index: int, **values: Any) -> None:
    rows[index] |= values


@breaks("manifest-schema")
def _(root: Path) -> None:
    edit_manifest(root, lambda manifest: manifest.update(created="yesterday"))


@breaks("provenance-schema")
def _(root: Path) -> None:
    edit_provenance(root, lambda content: content.pop("libraries"))


@breaks("card-schema")
def _(root: Path) -> None:
    edit_text(root, schema.CARD, lambda card: card.replace("pretty_name: ", "pretty: "))


@breaks("card-fields")
def _(root: Path) -> None:
    (root / schema.CARD_FIELDS).write_text('licence = "MIT"\n')


@breaks("file-set")
def _(root: Path) -> None:
    (root / "frames/notes.txt").write_text("to do")


@breaks("file-hashes")
def _(root: Path) -> None:
    card = root / schema.CARD
    card.write_text(card.read_text().replace("Made by", "made BY"))


@breaks("checksums")
def _(root: Path) -> None:
    sums = root / schema.CHECKSUMS
    lines = [line for line in sums.read_text().splitlines() if schema.CARD not in line]
    sums.write_text("\n".join(lines) + "\n")
    own = _described(root, {"path": schema.CHECKSUMS, "rows": None})
    edit_manifest(root, lambda m: m.update(files=[*m["files"][:-1], own]))


@breaks("croissant")
def _(root: Path) -> None:
    manifest = read_manifest(root)
    manifest["files"][0]["sha256"] = "0" * 64
    write_croissant(root, manifest | {"version": "1.0.1"})
    seal(root, croissant=False)


@breaks("readable")
def _(root: Path) -> None:
    name = schema.hdf5_file(TRAIN)
    with h5py.File(root / name) as file:
        position = file["frames/logits"].id.get_chunk_info(0).byte_offset
    data = bytearray((root / name).read_bytes())
    data[position + 10] ^= 0xFF
    (root / name).write_bytes(bytes(data))
    seal(root)


@breaks("columns")
def _(root: Path) -> None:
    name, table = read(root, "faces")
    store(root, name, table.select([*table.column_names[:-2], "sharpness", "score"]))


@breaks("row-groups")
def _(root: Path) -> None:
    store(root, *read(root, "frames"), row_group_size=5)


@breaks("storage")
def _(root: Path) -> None:
    store(root, *read(root, "frames"), compression="snappy", compression_level=None)


@breaks("metadata")
def _(root: Path) -> None:
    store(root, *read(root, "faces"), metadata={"emovox.dataset": "another"})


@breaks("hdf5-layout")
def _(root: Path) -> None:
    with h5py.File(root / schema.hdf5_file(TRAIN), "r+") as file:
        logits = file["frames/logits"][:]
        del file["frames/logits"]
        file["frames/logits"] = logits
    seal(root)


@breaks("no-nulls")
def _(root: Path) -> None:
    name, table = read(root, "dropped")
    kinds = table.schema.set(4, pa.field("message", pa.string()))
    store(root, name, pa.Table.from_pylist([table.to_pylist()[0] | {"message": None}], kinds))


@breaks("finite-logits")
def _(root: Path) -> None:
    edit_frames(root, lambda rows: set_value(rows, 3, logit_fear=float("nan")))


@breaks("finite-values")
def _(root: Path) -> None:
    edit_frames(root, lambda rows: set_value(rows, 3, value_arousal=float("inf")))


@breaks("logit-range")
def _(root: Path) -> None:
    edit_frames(root, lambda rows: set_value(rows, 3, logit_fear=-100.5))


@breaks("logits-not-probabilities")
def _(root: Path) -> None:
    def softmax(rows: Rows) -> None:
        for row in rows:
            values = np.exp([row[name] for name in COLUMNS.logits])
            row |= dict(zip(COLUMNS.logits, (values / values.sum()).tolist(), strict=True))

    edit_frames(root, softmax, HEARD)


@breaks("constant-rows")
def _(root: Path) -> None:
    edit_frames(root, lambda rows: set_value(rows, 3, **dict.fromkeys(COLUMNS.logits, 0.5)))


@breaks("repeated-rows")
def _(root: Path) -> None:
    edit_frames(
        root,
        lambda rows: set_value(rows, 3, **{name: rows[2][name] for name in COLUMNS.logits}),
    )


@breaks("emotion-order")
def _(root: Path) -> None:
    def swap(rows: Rows) -> None:
        for row in rows:
            one, other = row["logit_neutral"], row["logit_contempt"]
            row |= {"logit_neutral": other, "logit_contempt": one}

    for split in schema.SPLITS:
        edit_frames(root, swap, split)


@breaks("face-values")
def _(root: Path) -> None:
    edit(root, "faces", lambda rows: set_value(rows, 2, box_w=0))


@breaks("shots")
def _(root: Path) -> None:
    edit(root, "faces", lambda rows: set_value(rows, 5, shot=1))


@breaks("unique-frames")
def _(root: Path) -> None:
    edit_keys(root, lambda rows: set_value(rows, 2, frame_index=1))


@breaks("sorted-frames")
def _(root: Path) -> None:
    edit_keys(root, lambda rows: rows.insert(1, rows.pop(2)))


@breaks("frame-index")
def _(root: Path) -> None:
    edit_keys(root, lambda rows: set_value(rows, 0, frame_index=-1))


@breaks("timestamps")
def _(root: Path) -> None:
    edit(root, "frames", lambda rows: set_value(rows, 4, timestamp_ms=1000))


@breaks("face-times")
def _(root: Path) -> None:
    edit(root, "faces", lambda rows: set_value(rows, 5, pts_ms=9000.0))


@breaks("known-gaps")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 0, n_expected=6))


@breaks("durations")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 0, duration_ms=15_000))


@breaks("intervals")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, end_ms=3000))


@breaks("unique-tracks")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: rows.insert(0, rows[0]), hdf5=False)
    recount(root)


@breaks("sorted-tracks")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: rows.reverse(), hdf5=False)


@breaks("frames-have-tracks")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: rows.pop(0), hdf5=False)
    recount(root)


@breaks("tracks-have-frames")
def _(root: Path) -> None:
    other = {"track_id": "id10001/video0001/00003", "track_num": 3, "n_frames": 0}
    edit(root, "tracks", lambda rows: rows.insert(2, rows[0] | other))
    recount(root)


@breaks("frame-counts")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 0, n_frames=5), hdf5=False)


@breaks("row-offsets")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, row_offset=7))


@breaks("maxima")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, max_neutral=50.0))


@breaks("means")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, mean_valence=0.5))


@breaks("majority")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, majority="fear"))


@breaks("labels")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, label="fear"))
    recount(root)


@breaks("track-ids")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, track_num=7))


@breaks("track-splits")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, split=HEARD))


@breaks("faces-match-frames")
def _(root: Path) -> None:
    edit(root, "faces", lambda rows: set_value(rows, -1, frame_index=7))


@breaks("embeddings-match-frames")
def _(root: Path) -> None:
    edit(root, "embeddings", lambda rows: set_value(rows, -1, frame_index=7))


@breaks("dropped-apart")
def _(root: Path) -> None:
    edit(root, "dropped", lambda rows: set_value(rows, 0, track_id="id10001/video0001/00001"))


@breaks("content-hashes")
def _(root: Path) -> None:
    store(root, *read(root, "faces"), metadata={"emovox.content_sha256": "0" * 64})


@breaks("hdf5-content")
def _(root: Path) -> None:
    with h5py.File(root / schema.hdf5_file(TRAIN), "r+") as file:
        file["frames/logits"][3, 4] += 1
    seal(root)


@breaks("hdf5-tracks")
def _(root: Path) -> None:
    with h5py.File(root / schema.hdf5_file(TRAIN), "r+") as file:
        file["tracks/offset"][1] = 7
    seal(root)


@breaks("identities-disjoint")
def _(root: Path) -> None:
    build(root, [*SPEC, ("id10002", "video0006", 1, UNHEARD)], config={"splits": "a.csv"})


@breaks("heard-in-train")
def _(root: Path) -> None:
    build(root, [*SPEC, ("id10004", "video0006", 1, HEARD)], config={"splits": "a.csv"})


@breaks("videos-in-one-split")
def _(root: Path) -> None:
    build(root, [*SPEC, ("id10001", "video0001", 3, HEARD)], config={"splits": "a.csv"})


@breaks("official-lists")
def _(root: Path) -> None:
    build(root, [*SPEC, ("id10002", "video0006", 1, HEARD)])


@breaks("totals")
def _(root: Path) -> None:
    edit_manifest(root, lambda manifest: manifest["totals"].update(dropped=2))


@breaks("file-rows")
def _(root: Path) -> None:
    edit_manifest(root, lambda manifest: manifest["files"][0].update(rows=17))


@breaks("card-numbers")
def _(root: Path) -> None:
    edit_text(root, schema.CARD, lambda card: card.replace("| train | 3 |", "| train | 4 |"))


@breaks("card-limits")
def _(root: Path) -> None:
    edit_text(root, schema.CARD, lambda card: card.replace("## Use and limits", "## Use"))


@breaks("card-licence")
def _(root: Path) -> None:
    edit_text(root, schema.CARD, lambda card: card.replace("license: other\n", ""))


@breaks("no-absolute-paths")
def _(root: Path) -> None:
    edit_provenance(root, lambda content: content["config"].update(root="/home/one/corpus"))


@breaks("no-secrets")
def _(root: Path) -> None:
    signed = "t.csv?X-Amz-Signature=1f"
    edit_provenance(root, lambda content: content["config"].update(table=signed))


@breaks("sources")
def _(root: Path) -> None:
    edit(root, "tracks", lambda rows: set_value(rows, 1, source="video/../../secret.mp4"))


@breaks("no-machine-names")
def _(root: Path) -> None:
    edit_provenance(root, lambda content: content.update(built_on="nobody@gpu17"))


@breaks("no-person-names")
def _(root: Path) -> None:
    edit(root, "dropped", lambda rows: set_value(rows, 0, source="Aamir_Khan/video0002_2.wav"))


@breaks("takedown")
def _(root: Path) -> None:
    (root.parent / "takedown.txt").write_text(f"{_hashed('id10003')}\n")


def read_table(root: Path, table: str, split: str) -> pa.Table:
    """Return one table of one split; empty if the split has no rows."""
    path = root / schema.table_file(table, split)
    return read_rows(path) if path.exists() else schema.EIGHT.of(table).empty_table()
