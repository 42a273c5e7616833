"""Finished shards become a dataset."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.rows import Chunk
from emovox.dataset.writer import DatasetInfo, dataset_files, replace_dataset, write_chunks
from emovox.errors import CheckError, public_url
from emovox.ids import printable
from emovox.labelling.plan import BuildPlan, ShardReport, marker_file, rows_file
from emovox.labelling.state import Existing, record_dataset, reuse_or_begin
from emovox.packages import software
from emovox.paths import OUR_OWN, RemotePath, is_remote, local_copy, map_ahead
from emovox.registry import read_temperature
from emovox.teacher import ACCURACY

UNFINISHED = ".unfinished"  # folder in `out` for a dataset that is being written
LIBRARIES = ("torch", "av", "numpy", "opencv-python-headless", "pyarrow", "facenet-pytorch")

# Options that change how a build runs, not what it makes.
LEFT_OUT = {"out", "state", "jobs", "retry_dropped", "replace", "timeout", "engine"}
LEFT_OUT |= {"ray_address", "actor_cpus", "actor_gpus"}


def finish(
    plan: BuildPlan, state: Path, reports: Sequence[ShardReport], existing: Existing | None
) -> dict[str, Any]:
    """Write the dataset of finished shards, unless it exists already; return its manifest.

    `existing` is a dataset at `out` that must not lose tracks. InputError if it would; CheckError
    if the rows of a shard are damaged, whose marker is removed, so that the next run builds it
    again.
    """
    config, provenance = plan.config, _provenance(plan)
    dropped = [*plan.corpus.dropped, *(d for report in reports for d in report.dropped)]
    # All inputs: not the date, nor the name of the device, which differs between nodes.
    inputs = {key: value for key, value in provenance.items() if key not in ("date", "device")}
    whole = hashlib.sha256(json.dumps([inputs, [asdict(d) for d in dropped]]).encode())
    for track_id in sorted(plan.assigned):
        whole.update(f"\n{track_id} {plan.assigned[track_id]}".encode())
    fingerprint = whole.hexdigest()
    if existing is not None:
        tracks = (track.track_id for report in reports for track in report.tracks)
        existing.check_tracks({track_id: plan.assigned[track_id] for track_id in tracks})
    if (finished := reuse_or_begin(config.out, state, fingerprint)) is not None:
        return finished
    tables = tuple(t for t in schema.TABLES if t != "embeddings" or config.embeddings)
    info = DatasetInfo(
        name=config.dataset_name,
        version=config.version,
        step_ms=plan.settings.step_ms,
        teacher={"name": plan.settings.teacher_name, "sha256": plan.settings.teacher_sha256},
        tables=tables,
        outputs=plan.settings.outputs,
        provenance=provenance,
    )
    with _local_folder(config.out) as folder:
        chunks = _chunks(state, reports, plan.assigned)
        manifest = write_chunks(folder, chunks, dropped, info, hdf5=config.hdf5)
    record_dataset(plan, state, fingerprint, manifest)
    return manifest


def _provenance(plan: BuildPlan) -> dict[str, Any]:
    """Return the content of provenance.json; no path of this machine is in it."""
    config, settings = plan.config, plan.settings
    described = settings.teacher_settings or {}
    temperature = read_temperature(plan.teacher_path)
    resolved = {
        key: printable(value.name) if isinstance(value, Path | RemotePath) else value
        for key, value in asdict(config).items()
        if key not in LEFT_OUT
    }
    for key in ("teacher", "splits"):
        resolved[key] = resolved[key] and printable(Path(public_url(resolved[key])).name)
    resolved |= {"device": settings.device, "precision": settings.precision}
    resolved["compile"] = "on" if settings.compiled else "off"
    source = hashlib.sha256("".join(shard.fingerprint for shard in plan.shards).encode())
    corpus = "a synthetic corpus" if config.synthetic else "a corpus"
    return {
        **software(*LIBRARIES),
        "config": resolved,
        "origin": f"Built by emovox from {corpus} of layout `{config.layout}`.",
        "teacher": {
            "name": settings.teacher_name,
            "sha256": settings.teacher_sha256,
            "accuracy": ACCURACY.get(config.teacher) or described.get("accuracy"),
            **({"description": described} if described else {}),
            **({} if temperature == 1 else {"temperature": round(temperature, 6)}),
        },
        "source_fingerprint": source.hexdigest(),
        "device": plan.runtime.device_name,
    }


@contextlib.contextmanager
def _local_folder(out: Path) -> Iterator[Path]:
    """Yield a new local folder to write a dataset into; on success it replaces the one at `out`.

    The manifest of an earlier dataset is removed first and the new one is put last, so that an
    unfinished replacement is not a dataset.
    """
    if not is_remote(out):
        folder = out / UNFINISHED
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
            replace_dataset(out, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with tempfile.TemporaryDirectory(prefix="emovox-") as name:
        folder = Path(name)
        yield folder
        (out / schema.MANIFEST).unlink(missing_ok=True)
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        for path in sorted(names - {schema.MANIFEST}):
            (out / path).put(folder / path)
        existing = {path.name for path in out.iterdir()}
        for path in dataset_files():
            if path not in names and path.split("/")[0] in existing:
                (out / path).unlink(missing_ok=True)
        (out / schema.MANIFEST).put(folder / schema.MANIFEST)


def _chunks(
    state: Path, reports: Sequence[ShardReport], assigned: Mapping[str, str]
) -> Iterator[Chunk]:
    """Yield the rows of all shards, cut into runs of tracks of the same split."""
    fingerprints = [report.fingerprint for report in reports]
    tables = (map_ahead if is_remote(state) else map)(partial(_read_rows, state), fingerprints)
    for report, rows in zip(reports, tables, strict=True):
        start = 0
        for split, run in groupby(report.tracks, lambda track: assigned[track.track_id]):
            tracks = list(run)
            num_rows = sum(track.n_frames for track in tracks)
            yield Chunk(split, tracks, rows.slice(start, num_rows))
            start += num_rows


def _read_rows(state: Path, fingerprint: str) -> pa.Table:
    path = rows_file(state, fingerprint)
    with contextlib.suppress(FileNotFoundError), local_copy(path) as local:
        try:
            return pq.read_table(local, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) in OUR_OWN:
                raise
    marker_file(state, fingerprint).unlink(missing_ok=True)
    raise CheckError(f"{path}: missing or damaged; rerun the same command to rebuild its tracks")
