"""The whole build: plan, run what is missing, finish."""

import hashlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
from tqdm import tqdm

from emovox.corpus.layouts import Source, read_corpus
from emovox.corpus.splits import assign
from emovox.corpus.tracks import Corpus
from emovox.dataset.writer import Header
from emovox.devices import Runtime, resolve_runtime, teacher_devices
from emovox.errors import ConfigError, EmovoxError, InputError, NetworkError
from emovox.ids import printable
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.engine import Engine, LokyEngine
from emovox.labelling.finish import finish
from emovox.labelling.plan import Shard, ShardSettings, plan_shards
from emovox.labelling.profile import Profiler, choose_sample
from emovox.labelling.provenance import build_provenance
from emovox.labelling.result import BuildResult, summarize
from emovox.labelling.shard import ShardJob, ShardReport, count_reasons
from emovox.labelling.state import (
    begin_dataset,
    completed,
    finished_dataset,
    locked_state,
    record_dataset,
    remove_stale,
)
from emovox.packages import require
from emovox.paths import URL, describe
from emovox.teacher import TeacherSource, find_teacher

if TYPE_CHECKING:
    from emovox.labelling.cluster import RayEngine

LOG_SECONDS = 60.0  # between lines of progress where there is no terminal
FRAMES_PER_TRACK = 33  # of VoxCeleb1 at 0.24 s, on average; to guess the work ahead


def build_dataset(
    config: BuildConfig, *, engine: Engine | None = None, show_progress: bool = True
) -> BuildResult:
    """Build a dataset, or go on with one that an earlier run of the same command left unfinished.

    Args:
        config: what to build.
        engine: runs the shards; joblib's loky with `config.jobs` workers if None.
        show_progress: draw a progress bar where stderr is a terminal.

    Raises:
        ConfigError, InputError: an option or an input is not what it should be.
        CheckError: the split leaks.
        NetworkError: where something is behind a URL, its service does not answer or refuses.
        EmovoxError: the disk is full, or another run holds `out`.
        MissingPackageError: the extra `build` is not installed.

    Example:
        >>> from emovox.testing import write_clip
        >>> clip = write_clip(Path("clips/mp4/id1/v/00001.mp4"), 30)  # frames, at 25 per second
        >>> config = BuildConfig("voxceleb2", root=Path("clips"), out=Path("rows"), jobs=1)
        >>> build_dataset(config).manifest["totals"]["frames"]
        5
    """
    started = time.perf_counter()
    require("build", "build-dataset")
    plan = _plan(config, _cluster(config) if engine is None else None)
    try:
        with locked_state(config.out, config.state) as (state, check):
            reports = completed(state, plan.shards, retry_dropped=config.retry_dropped)
            jobs = _jobs(plan, state, [s for s in plan.shards if s.fingerprint not in reports])
            engine, profiler = (engine or plan.cluster), None
            if engine is None:
                engine, profiler = _local_engine(config, jobs)
            for report in _with_progress(engine.run(jobs), plan.corpus, reports, show_progress):
                check()
                reports[report.fingerprint] = report
            built = [reports[job.shard.fingerprint] for job in jobs]
            profile = profiler.lines(sum(r.num_frames for r in built)) if profiler else []
            manifest = _finish_once(plan, state, reports, check)
            if num_stale := remove_stale(state, plan.shards):
                plan.corpus.note(
                    f"replaced {num_stale} shards of an earlier build with other tracks or settings"
                )
    except OSError as error:
        kind = NetworkError if URL.match(str(error.filename)) else EmovoxError
        raise kind(
            f"{config.out}: cannot be written: {describe(error)}; mend that and run the same "
            "command again to go on"
        ) from error
    seconds = time.perf_counter() - started
    return summarize(config, plan.corpus, reports.values(), manifest, len(jobs), seconds, profile)


@dataclass(frozen=True)
class _Plan:
    """All that is known before the first frame is decoded."""

    config: BuildConfig
    corpus: Corpus
    assigned: Mapping[str, str]  # split of every track
    teacher: TeacherSource
    runtime: Runtime
    settings: ShardSettings
    shards: list[Shard]
    cluster: "RayEngine | None"


def _plan(config: BuildConfig, cluster: "RayEngine | None") -> _Plan:
    teacher = find_teacher(config.teacher)
    corpus = read_corpus(config.layout, Source(config.root, config.table, config.meta))
    assigned = assign(
        corpus, config.splits, config.meta, config.unheard_fraction, config.heard_fraction
    )
    if not corpus.tracks:
        reasons = ", ".join(f"{n} x {why}" for why, n in count_reasons(corpus.dropped).items())
        raise InputError(
            f"{config.root}: no track of layout {config.layout} is left to build ({reasons}; "
            f"the first: {corpus.dropped[0].message})"
        )
    # What `auto` means where the teacher will run is part of every fingerprint.
    pays = len(corpus.tracks) * FRAMES_PER_TRACK >= teacher.compile_pays_from
    resolve = resolve_runtime if cluster is None else cluster.resolve
    runtime = resolve(config.device, config.precision, config.compile, pays)
    settings = ShardSettings(
        config.step_ms,
        printable(teacher.name),
        teacher.sha256,
        runtime.device,
        runtime.precision,
        runtime.compiled,
    )
    shards = list(plan_shards(corpus.files, corpus.tracks, settings, config.shard_tracks))
    return _Plan(config, corpus, assigned, teacher, runtime, settings, shards, cluster)


def _jobs(plan: _Plan, state: Path, missing: list[Shard]) -> list[ShardJob]:
    """What is left to do, large shards first: none of them is to be the last to finish."""
    # Other processes have other working folders, and nodes of a cluster too.
    root, state = (p.absolute() if isinstance(p, Path) else p for p in (plan.config.root, state))
    return [
        ShardJob(shard, plan.settings, root, state, plan.teacher.path, plan.config.timeout)
        for shard in sorted(missing, key=lambda shard: -len(shard.tracks))
    ]


def _cluster(config: BuildConfig) -> "RayEngine | None":
    if config.engine != "ray":
        return None
    from emovox.labelling.cluster import RayEngine

    return RayEngine(config.ray_address, config.actor_cpus, config.actor_gpus, config.jobs)


def _local_engine(
    config: BuildConfig, jobs: Sequence[ShardJob]
) -> tuple[LokyEngine, Profiler | None]:
    num_workers = max(1, min(config.jobs or joblib.cpu_count(), len(jobs)))
    devices = teacher_devices(jobs[0].settings.device) if jobs else ()
    if devices and not hasattr(socket, "AF_UNIX"):  # through which workers feed the teacher
        raise ConfigError(
            f"--device {devices[0]}: not supported on this system, which lacks Unix sockets; "
            "pass --device cpu, or use Linux (on Windows: WSL 2)"
        )
    if not config.profile:
        return LokyEngine(num_workers, devices), None
    profiler = Profiler(choose_sample(jobs, num_workers), shared=not devices)
    return LokyEngine(num_workers, devices, watch=profiler), profiler


def _with_progress(
    running: Iterator[ShardReport],
    corpus: Corpus,
    done: Mapping[str, ShardReport],
    show_progress: bool,
) -> Iterator[ShardReport]:
    """Pass reports on and draw a bar: tracks, frames per second, time left.

    Where stderr is no terminal, a line from time to time.
    """
    num_seen = sum(len(r.tracks) + len(r.dropped) for r in done.values())
    num_frames, began = 0, time.perf_counter()
    told = began
    with tqdm(
        total=len(corpus.tracks),
        initial=num_seen,
        unit="track",
        disable=None if show_progress else True,
        dynamic_ncols=True,
    ) as bar:
        for report in running:
            num_frames += report.num_frames
            num_seen += len(report.tracks) + len(report.dropped)
            rate = num_frames / (time.perf_counter() - began)
            bar.set_postfix_str(f"{rate:,.0f} frames/s", refresh=False)
            bar.update(len(report.tracks) + len(report.dropped))
            if bar.disable and show_progress and time.perf_counter() - told >= LOG_SECONDS:
                told = time.perf_counter()
                seen = f"{num_seen:,} of {len(corpus.tracks):,} tracks"
                sys.stderr.write(f"{seen}, {rate:,.0f} frames/s\n")
            yield report


def _finish_once(
    plan: _Plan, state: Path, reports: Mapping[str, ShardReport], check: Callable[[], None]
) -> dict[str, Any]:
    """Write the dataset, unless the one that is there came from the same inputs and is whole."""
    config, settings = plan.config, plan.settings
    provenance = build_provenance(config, settings, plan.runtime, plan.shards)
    in_order = [reports[shard.fingerprint] for shard in plan.shards]
    dropped = [*plan.corpus.dropped, *(d for report in in_order for d in report.dropped)]
    known = {key: value for key, value in provenance.items() if key != "device"}  # nodes differ
    inputs = hashlib.sha256(json.dumps([known, [asdict(d) for d in dropped]]).encode())
    for track_id in sorted(plan.assigned):
        inputs.update(f"\n{track_id} {plan.assigned[track_id]}".encode())
    fingerprint = inputs.hexdigest()
    if (manifest := finished_dataset(config.out, state, fingerprint)) is not None:
        return manifest
    begin_dataset(config.out, state)
    header = Header(
        name=config.dataset_name,
        version=config.version,
        step_ms=settings.step_ms,
        teacher={"name": settings.teacher_name, "sha256": settings.teacher_sha256},
        provenance=provenance | {"date": time.strftime("%Y-%m-%d", time.gmtime())},
    )
    manifest = finish(
        config.out,
        state,
        in_order,
        plan.assigned,
        dropped,
        header,
        hdf5=config.hdf5,
        check=check,
    )
    check()
    record_dataset(config.out, state, fingerprint, manifest)
    return manifest
