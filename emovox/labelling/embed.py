"""Embeddings for a dataset that was built without them."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from emovox.config import read_config
from emovox.corpus.sound_files import AudioTree, Sound
from emovox.dataset import schema
from emovox.dataset.card import read_fields
from emovox.dataset.json_schemas import changed_files, outputs_of, read_document, read_manifest
from emovox.dataset.reader import Dataset, load
from emovox.dataset.store import FileEntry, create_table, embedding_array, read_rows
from emovox.dataset.writer import write_documents, write_manifest
from emovox.errors import InputError, TrackError
from emovox.labelling.build_config import EmbedConfig
from emovox.labelling.teacher_process import count_outputs
from emovox.media.faces import Box, cut, resize, sharpness
from emovox.media.images import ImageTrack
from emovox.media.video import Deadline, VideoTrack
from emovox.teacher import Teacher, find_teacher, load_teacher

TIMEOUT = 300.0  # seconds per track
TOLERANCE = 0.01  # milliseconds between the time of a row and that of its picture


def embed(
    dataset: str | os.PathLike[str],
    config: EmbedConfig | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Dataset:
    """Write the table `embeddings` of a dataset: the teacher's last hidden layer, float16 `[D]`.

    The pictures of every row are decoded again and cut at its box. A dataset that has the table
    gets a new one. Nothing changes until all embeddings are computed.

    Args:
        dataset: folder of the dataset.
        config: options, or a recipe with them.
        **options: fields of `EmbedConfig`, which override `config`; `root` is required in one of
            the two.

    Returns:
        The dataset, opened.

    Raises:
        ConfigError: unknown teacher or device.
        InputError: the dataset is damaged, a release or without faces; its own teacher has changed;
            the teacher gives no embeddings; or a picture is missing or differs.

    Example:
        >>> emovox.embed("emovox-demo/dataset", root="emovox-demo/corpus")  # doctest: +SKIP
        <Dataset emovox-demo 0.1.0: 96 tracks, 1,996 frames, train, heard_val, unheard_val>
    """
    config, root = read_config(EmbedConfig, config, options), Path(dataset)
    manifest, provenance = read_manifest(root), read_document(root, schema.PROVENANCE)
    _check(root, manifest)
    weights = find_teacher(config.teacher or manifest["teacher"]["name"])
    if not config.teacher and weights.sha256 != manifest["teacher"]["sha256"]:
        raise InputError(f"teacher {weights.name}: differs from that of {root}; pass --teacher")
    mirror = provenance.get("config", {}).get("mirror", False)
    chosen = config.teacher or weights.name
    teacher = load_teacher(chosen, config.device, config.precision, mirror=mirror)
    count_outputs(teacher, embeddings=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".embeddings-") as folder:
        entries = _write_tables(root, Path(folder), manifest, config, teacher)
        for path in entries:
            (root / path).parent.mkdir(exist_ok=True)
            (Path(folder) / path).replace(root / path)
    documents = (schema.CARD, schema.PROVENANCE, schema.CHECKSUMS)
    files = {e["path"]: e for e in manifest["files"] if e["path"] not in documents} | entries
    manifest["files"] = [*files.values()]
    provenance["embeddings"] = {"name": teacher.name, "sha256": teacher.sha256}
    write_documents(root, manifest, provenance)
    write_manifest(root, manifest)
    return load(root)


def _check(root: Path, manifest: Mapping[str, Any]) -> None:
    read_fields(root)  # before the work, not after it
    listed = {entry["path"]: entry for entry in manifest["files"]}
    # Embeddings of an interrupted run are replaced, whatever they are.
    tables = [e for path, e in listed.items() if e["rows"] and not path.startswith("embeddings/")]
    if schema.CROISSANT in listed:
        raise InputError(f"{root}: is a release; pass the dataset that it was made from")
    if not any(path.startswith("faces/") for path in listed):
        raise InputError(f"{root}: the table faces is missing; pass a dataset that was built")
    if changed := changed_files(root, {"files": tables}):
        raise InputError(f"{root}: {changed[0]} differs; run: emovox validate {root}")


def _write_tables(
    root: Path, folder: Path, manifest: Mapping[str, Any], config: EmbedConfig, teacher: Teacher
) -> dict[str, FileEntry]:
    """Write the table of every split below `folder`; return the entries of the manifest by path."""
    outputs, size, entries = outputs_of(manifest), teacher.embedding_size, {}
    columns = schema.columns(outputs).of("embeddings", size)
    read = partial(_read_crops, manifest["step_ms"] / 1000, teacher.input_size)
    # Absolute, since the processes may have started in another folder.
    tree = AudioTree(config.root.absolute(), config.meta)
    parallel = joblib.Parallel(config.jobs or joblib.cpu_count(), return_as="generator")
    for split in (s for s in schema.SPLITS if s in manifest["totals"]["by_split"]):
        tracks = read_rows(root / schema.table_file("tracks", split)).to_pylist()
        faces = read_rows(root / schema.table_file("faces", split))
        jobs = (joblib.delayed(read)(*_locate(tree, track, faces)) for track in tracks)
        crops_of = zip(tracks, parallel(jobs), strict=True)
        progress = tqdm(crops_of, split, len(tracks), unit="track", disable=None)
        with create_table(folder, "embeddings", manifest["name"], outputs, split, size) as table:
            for track, (index, crops) in progress:
                arrays = [[track["track_id"]] * len(index), index]
                arrays.append(embedding_array(teacher.embed(crops)))
                table.write(pa.table(arrays, schema=columns))
        entries[table.written["path"]] = table.written
    return entries


def _read_crops(
    step: float, size: int, track_id: str, place: Sound, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[int], np.ndarray]:
    """Return grid points and crops uint8 `[n, S, S, 3]` of a track with these rows of `faces`."""
    cv2.setNumThreads(1)
    wanted = {row["frame_index"]: row for row in rows}
    crops, limit = [], Deadline(TIMEOUT)
    kind = ImageTrack if place.path.is_dir() else VideoTrack
    try:
        for frame in kind(place.path, step, place.start, place.end, limit):
            row = wanted.get(frame.index)
            if row and abs(frame.pts * 1000 - row["pts_ms"]) < TOLERANCE:
                face = cut(frame.image, Box(*(row[f"box_{side}"] for side in "xywh")))
                if np.isclose(sharpness(face), row["sharpness"], rtol=0.25, atol=1):
                    crops.append(resize(face, size))  # not the face of another video
    except TrackError as error:
        raise InputError(f"{track_id}: {error.error}: {error.message}") from error
    if len(crops) != len(wanted):
        raise InputError(
            f"{track_id}: {len(wanted) - len(crops)} of {len(wanted)} pictures differ "
            "from those that the dataset was built from; pass the same corpus as --root"
        )
    return list(wanted), np.stack(crops)


def _locate(
    tree: AudioTree, track: Mapping[str, Any], faces: pa.Table
) -> tuple[str, Sound, list[dict[str, Any]]]:
    """Return a track, its pictures, and its rows of `faces`; InputError if pictures are missing."""
    place = track["source"], track["start_ms"], track["end_ms"]
    if (pictures := tree.find_pictures(track["track_id"], place)) is None:
        raise InputError(f"{tree.root}: the pictures of {track['track_id']} are missing")
    rows = faces.slice(track["row_offset"], track["n_frames"]).to_pylist()
    return track["track_id"], pictures, rows
