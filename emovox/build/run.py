"""The whole build: plan, run what is missing, finish."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
from tqdm import tqdm

from emovox.build.config import BuildConfig
from emovox.build.engine import Engine, LokyEngine
from emovox.build.finish import finish
from emovox.build.plan import Shard, ShardSettings, plan_shards
from emovox.build.profile import Profiler, choose_sample
from emovox.build.provenance import software
from emovox.build.shard import ShardJob, ShardReport, count_reasons
from emovox.build.state import (
    begin_dataset,
    completed,
    finished_dataset,
    locked_state,
    record_dataset,
    remove_stale,
)
from emovox.build.tables import Header
from emovox.corpus.layouts import Source, read_corpus
from emovox.corpus.splits import assign
from emovox.corpus.tracks import Corpus, printable
from emovox.dataset import schema
from emovox.errors import EmovoxError, InputError, NetworkError
from emovox.paths import URL, RemotePath, describe
from emovox.teacher import ACCURACY, TeacherSource, find_teacher
from emovox.teacher.devices import Runtime, resolve_runtime, teacher_devices

if TYPE_CHECKING:
    from emovox.build.cluster import RayEngine

# Options that say how a build runs, and nothing of what it makes.
LEFT_OUT = {"out", "state", "jobs", "retry_dropped", "timeout", "profile", "engine", "ray_address"}
LEFT_OUT |= {"actor_cpus", "actor_gpus"}
FRAMES_PER_TRACK = 33  # of VoxCeleb1 at 0.24 s, on average; to guess the work ahead


@dataclass
class BuildResult:
    """What a build did.

    Attributes:
        out: folder of the dataset.
        manifest: content of its manifest.json.
        reasons: dropped tracks by stage and error.
        notes: lines about things left aside.
        num_built: shards built by this run; the other `num_shards` were there already.
        seconds: how long the run took.
        totals: sums over all shards, whichever run built them: `tracks`, `frames`, `num_decoded`,
            `media_seconds`, `teacher_seconds`, `wait_seconds`.
        too_many_dropped: whether more were dropped than `max_dropped` allows.
        profile: lines of what was measured, if asked for.
    """

    out: Path
    manifest: dict[str, Any]
    reasons: Counter[str]
    notes: list[str]
    num_built: int
    num_shards: int
    seconds: float
    totals: Counter[str] = field(default_factory=Counter)
    too_many_dropped: bool = False
    profile: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """The lines a run ends with."""
        totals = self.manifest["totals"]
        lines = [
            f"dataset   {self.out}",
            f"tracks    {totals['tracks']:,} written, {totals['dropped']:,} dropped",
            f"frames    {totals['frames']:,}",
        ]
        for split in schema.SPLITS:
            counts = totals["by_split"].get(split)
            text = "empty"
            if counts:
                text = (
                    f"{counts['tracks']:,} tracks, {counts['frames']:,} frames, "
                    f"{counts['identities']:,} identities"
                )
            lines.append(f"  {split:<12}{text}")
        for reason, count in self.reasons.most_common():
            lines.append(f"dropped   {count:,} x {reason}")
        lines += [f"note      {note}" for note in self.notes]
        lines.append(
            f"shards    {self.num_built:,} built, {self.num_shards - self.num_built:,} reused, "
            f"in {self.seconds:.1f} s"
        )
        if self.totals["media_seconds"] and self.totals["frames"]:
            lines.append(self._bound())
        return "\n".join(lines + self.profile)

    def _bound(self) -> str:
        media, teacher, wait = (self.totals[f"{n}_seconds"] for n in ("media", "teacher", "wait"))
        num_tracks = self.totals["tracks"] + self.totals["dropped"]
        return (
            f"speed     media {1000 * media / num_tracks:.1f} ms per track, teacher "
            f"{self.totals['frames'] / max(teacher, 1e-9):,.0f} crops/s, each; "
            f"bound by {'media' if media > wait else 'the teacher'}"
        )


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
    """
    started = time.perf_counter()
    teacher = find_teacher(config.teacher)
    source = Source(config.root, config.table, config.meta)
    corpus = read_corpus(config.layout, source)
    assigned = assign(
        corpus, config.splits, config.meta, config.unheard_fraction, config.heard_fraction
    )
    if not corpus.tracks:
        reasons = ", ".join(f"{n} x {why}" for why, n in count_reasons(corpus.dropped).items())
        raise InputError(
            f"{config.root}: no track of layout {config.layout} is left to build ({reasons}; "
            f"the first: {corpus.dropped[0].message})"
        )
    cluster = _cluster(config) if engine is None else None
    runtime = _runtime(config, teacher, len(corpus.tracks), cluster)
    settings = _settings(config, teacher, runtime)
    shards = list(plan_shards(corpus.files, corpus.tracks, settings, config.shard_tracks))
    try:
        with locked_state(config.out, config.state) as (state, check):
            reports = completed(state, shards, retry_dropped=config.retry_dropped)
            missing = [shard for shard in shards if shard.fingerprint not in reports]
            missing.sort(key=lambda shard: -len(shard.tracks))  # no large one at the very end
            root, state = _absolute(config.root), _absolute(state)
            jobs = [
                ShardJob(shard, settings, root, state, teacher.path, config.timeout)
                for shard in missing
            ]
            engine, profiler, profile = engine or cluster, None, []
            if engine is None:
                engine, profiler = _local_engine(config, jobs)
            for report in _with_progress(engine.run(jobs), corpus, reports, show_progress):
                check()
                reports[report.fingerprint] = report
            if profiler is not None:
                profile = profiler.lines(sum(reports[s.fingerprint].num_frames for s in missing))
            manifest = _finish_once(
                config, state, shards, reports, assigned, corpus, settings, runtime, check
            )
            if num_stale := remove_stale(state, shards):
                corpus.note(
                    f"replaced {num_stale} shards of an earlier build with other tracks or settings"
                )
    except OSError as error:
        kind = NetworkError if URL.match(str(error.filename)) else EmovoxError
        raise kind(
            f"{config.out}: cannot be written: {describe(error)}; mend that and run the same "
            "command again to go on"
        ) from error
    result = _result(config, corpus, reports, manifest, len(missing), time.perf_counter() - started)
    result.profile = profile
    return result


def _absolute(path: Path) -> Path:
    """A path that means the same to processes with other working folders."""
    return path if not isinstance(path, Path) else path.absolute()


def _cluster(config: BuildConfig) -> "RayEngine | None":
    if config.engine != "ray":
        return None
    from emovox.build.cluster import RayEngine

    return RayEngine(config.ray_address, config.actor_cpus, config.actor_gpus, config.jobs)


def _runtime(
    config: BuildConfig, teacher: TeacherSource, num_tracks: int, cluster: "RayEngine | None"
) -> Runtime:
    """Resolve what `auto` means where the teacher will run: it is part of every fingerprint."""
    pays = num_tracks * FRAMES_PER_TRACK >= teacher.compile_pays_from
    resolve = resolve_runtime if cluster is None else cluster.resolve
    return resolve(config.device, config.precision, config.compile, pays)


def _settings(config: BuildConfig, teacher: TeacherSource, runtime: Runtime) -> ShardSettings:
    return ShardSettings(
        config.step_ms,
        printable(teacher.name),
        teacher.sha256,
        runtime.device,
        runtime.precision,
        runtime.compiled,
    )


def _local_engine(
    config: BuildConfig, jobs: Sequence[ShardJob]
) -> tuple[LokyEngine, Profiler | None]:
    num_workers = _num_workers(config.jobs, len(jobs))
    devices = teacher_devices(jobs[0].settings.device) if jobs else ()
    if not config.profile:
        return LokyEngine(num_workers, devices), None
    profiler = Profiler(choose_sample(jobs, num_workers), shared=not devices)
    return LokyEngine(num_workers, devices, on_start=profiler), profiler


def _num_workers(jobs: int, num_missing: int) -> int:
    return max(1, min(jobs or joblib.cpu_count(), num_missing))


def _with_progress(
    running: Iterator[ShardReport],
    corpus: Corpus,
    done: Mapping[str, ShardReport],
    show_progress: bool,
) -> Iterator[ShardReport]:
    """Pass reports on and draw a bar: tracks, frames per second, time left."""
    num_done = sum(len(r.tracks) + len(r.dropped) for r in done.values())
    num_frames, began = 0, time.perf_counter()
    with tqdm(
        total=len(corpus.tracks),
        initial=num_done,
        unit="track",
        disable=None if show_progress else True,
        dynamic_ncols=True,
    ) as bar:
        for report in running:
            num_frames += report.num_frames
            rate = num_frames / (time.perf_counter() - began)
            bar.set_postfix_str(f"{rate:,.0f} frames/s", refresh=False)
            bar.update(len(report.tracks) + len(report.dropped))
            yield report


def _finish_once(
    config: BuildConfig,
    state: Path,
    shards: list[Shard],
    reports: Mapping[str, ShardReport],
    assigned: Mapping[str, str],
    corpus: Corpus,
    settings: ShardSettings,
    runtime: Runtime,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Write the dataset, unless the one that is there came from the same inputs and is whole."""
    provenance = _provenance(config, settings, runtime, shards)
    lost = [d for shard in shards for d in reports[shard.fingerprint].dropped]
    inputs = [provenance, sorted(assigned.items()), [asdict(d) for d in corpus.dropped + lost]]
    fingerprint = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    if (manifest := finished_dataset(config.out, state, fingerprint)) is not None:
        return manifest
    begin_dataset(config.out, state)
    teacher = {"name": settings.teacher_name, "sha256": settings.teacher_sha256}
    header = Header(
        name=config.dataset_name,
        version=config.version,
        step_ms=settings.step_ms,
        teacher=teacher,
        provenance=provenance | {"date": time.strftime("%Y-%m-%d", time.gmtime())},
    )
    manifest = finish(
        config.out,
        state,
        shards,
        assigned,
        corpus.dropped,
        header,
        hdf5=config.hdf5,
        check=check,
    )
    check()
    record_dataset(config.out, state, fingerprint, manifest)
    return manifest


def _provenance(
    config: BuildConfig, settings: ShardSettings, runtime: Runtime, shards: list[Shard]
) -> dict[str, Any]:
    """All that the dataset was made from, without paths of this machine."""
    resolved = {
        key: printable(value.name) if isinstance(value, Path | RemotePath) else value
        for key, value in asdict(config).items()
        if key not in LEFT_OUT
    }
    for key in ("teacher", "splits"):
        resolved[key] = resolved[key] and printable(Path(resolved[key]).name)
    resolved |= {
        "device": settings.device,
        "precision": settings.precision,
        "compile": "on" if settings.compiled else "off",
    }
    source = hashlib.sha256("".join(shard.fingerprint for shard in shards).encode())
    corpus = "a synthetic corpus" if config.synthetic else "a corpus"
    return {
        **software(),
        "config": resolved,
        "origin": f"Built by emovox from {corpus} of layout `{config.layout}`.",
        "teacher": {
            "name": settings.teacher_name,
            "sha256": settings.teacher_sha256,
            "accuracy": ACCURACY.get(config.teacher),  # a checkpoint may have any name
        },
        "source_fingerprint": source.hexdigest(),
        "device": runtime.device_name,
    }


def _result(
    config: BuildConfig,
    corpus: Corpus,
    reports: Mapping[str, ShardReport],
    manifest: dict[str, Any],
    num_built: int,
    seconds: float,
) -> BuildResult:
    totals: Counter[str] = Counter()
    dropped = list(corpus.dropped)
    notes = list(corpus.notes)
    oddities: dict[str, list[Any]] = {}
    for report in reports.values():
        dropped += report.dropped
        totals["tracks"] += len(report.tracks)
        totals["dropped"] += len(report.dropped)
        totals["frames"] += report.num_frames
        for name in ("num_decoded", "media_seconds", "teacher_seconds", "wait_seconds"):
            totals[name] += getattr(report, name)
        for what, (count, example) in report.notes.items():
            oddities.setdefault(what, [0, example])[0] += count
    notes += [f"{count:,} {what}: {example}" for what, (count, example) in oddities.items()]
    num_planned = manifest["totals"]["tracks"] + manifest["totals"]["dropped"]
    return BuildResult(
        out=config.out,
        manifest=manifest,
        reasons=count_reasons(dropped),
        notes=notes,
        num_built=num_built,
        num_shards=len(reports),
        seconds=seconds,
        totals=totals,
        too_many_dropped=len(dropped) > config.max_dropped * num_planned,
    )
