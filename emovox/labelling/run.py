"""A whole build: plan, run the missing shards, finish the dataset, and sum up the result."""

import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emovox.config import read_config
from emovox.dataset import schema
from emovox.dataset.reader import Dataset, load
from emovox.dataset.rows import Dropped, count_reasons, list_dropped
from emovox.dataset.store import read_rows
from emovox.devices import Runtime, resolve_runtime
from emovox.errors import EmovoxError, NetworkError
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.engine import Engine, local_engine
from emovox.labelling.finish import finish
from emovox.labelling.plan import ShardJob, ShardReport, make_plan
from emovox.labelling.state import (
    STATE,
    completed,
    find_existing,
    held_state,
    refuse_foreign,
    remove_stale,
)
from emovox.packages import DataFrame, data_frame, require
from emovox.paths import URL, describe

COUNTS = ("tracks", "frames", "identities")  # of each split
TIMES = ("media_seconds", "teacher_seconds", "wait_seconds")


@dataclass(repr=False)
class BuildResult:
    """Result of a build."""

    out: Path  # folder of the dataset
    manifest: dict[str, Any]  # content of its manifest.json
    dropped: list[Dropped]  # tracks without rows
    notes: list[str]  # lines about things that were skipped
    num_built: int  # shards built by this run, out of `num_shards`
    num_shards: int  # shards of the whole build
    seconds: float  # duration of the run
    # sums over all shards, whichever run built them: `tracks`, `frames`, `num_decoded`,
    # `media_seconds`, `teacher_seconds`, `wait_seconds`
    totals: Counter[str] = field(default_factory=Counter)
    too_many_dropped: bool = False  # True if more tracks were dropped than `max_dropped` allows

    def __repr__(self) -> str:
        totals = self.manifest["totals"]
        return (
            f"<BuildResult {self.out}: {totals['tracks']:,} tracks, {totals['frames']:,} frames, "
            f"{totals['dropped']:,} dropped>"
        )

    @property
    def reasons(self) -> Counter[str]:
        """Dropped tracks by stage and error."""
        return count_reasons(self.dropped)

    def to_pandas(self) -> DataFrame:
        """Return one row per split, with its counts; MissingPackageError without pandas."""
        splits = self.manifest["totals"]["by_split"]
        rows = [{"split": split} | splits[split] for split in schema.SPLITS if split in splits]
        return data_frame(rows, ["split", *COUNTS])

    def summary(self) -> str:
        """Return the lines that a build ends with."""
        totals = self.manifest["totals"]
        lines = [
            f"dataset   {self.out}",
            f"tracks    {totals['tracks']:,} written, {totals['dropped']:,} dropped",
            f"frames    {totals['frames']:,}",
        ]
        for split in schema.SPLITS:
            counts = totals["by_split"].get(split, {})
            text = ", ".join(f"{counts[n]:,} {n}" for n in COUNTS if counts) or "empty"
            lines.append(f"  {split:<12}{text}")
        lines += list_dropped(self.dropped)
        lines += [f"note      {note}" for note in self.notes]
        lines.append(
            f"shards    {self.num_built:,} built, {self.num_shards - self.num_built:,} reused, "
            f"in {self.seconds:.1f} s"
        )
        media, teacher, wait = (self.totals[name] for name in TIMES)
        if self.num_built and media and self.totals["frames"]:
            num_tracks = self.totals["tracks"] + self.totals["dropped"]
            lines.append(
                f"speed     media {1000 * media / num_tracks:.1f} ms per track, teacher "
                f"{self.totals['frames'] / max(teacher, 1e-9):,.0f} crops/s, per worker; "
                f"bound by {'media' if media > wait else 'the teacher'}"
            )
        return "\n".join(lines)


def preview(config: str | os.PathLike[str] | None = None, **options: Any) -> str:
    """Return what `build_dataset` with these arguments would label, as lines; writes nothing.

    The time is an estimate from the shards that earlier runs finished. Raises what it would raise
    before it labels the first track.
    """
    settings = read_config(BuildConfig, config, options)
    plan, state = make_plan(settings, resolve_runtime), settings.state or settings.out / STATE
    refuse_foreign(settings.out, state)
    reports = {}
    if state.is_dir():
        reports = completed(state, plan.shards, retry_dropped=settings.retry_dropped)
    waiting = [track.track_id for job in plan.jobs(state, reports) for track in job.shard.tracks]
    if not settings.replace and (existing := find_existing(settings.out, state)):
        existing.check_plan(plan, waiting)
    splits = Counter(plan.assigned[track.track_id] for track in plan.corpus.tracks)
    lines = [
        f"dry run   {settings.out}: nothing was written",
        f"tracks    {len(waiting):,} to label, {len(plan.corpus.tracks) - len(waiting):,} finished",
        f"splits    {', '.join(f'{splits[name]:,} {name}' for name in schema.SPLITS)}",
        *list_dropped(plan.corpus.dropped),
        *(f"note      {note}" for note in plan.corpus.notes),
    ]
    # A worker waits while its own teacher runs, so the teacher's time is not added.
    spent = sum(report.media_seconds + report.wait_seconds for report in reports.values())
    if seen := sum(report.num_tracks for report in reports.values()):
        minutes = math.ceil(spent / seen * len(waiting) / 60)
        lines.append(
            f"time      about {minutes:,} min with one worker, at the {spent / seen:.2f} s per "
            "track of the finished ones; with N workers an Nth of it"
        )
    else:
        lines.append("time      unknown; label a few tracks with --limit 20, then ask again")
    return "\n".join(lines)


TICK_SECONDS = 1.0  # between two looks at the progress
LOG_SECONDS = 30.0  # between lines of progress where stderr is not a terminal


def build_dataset(
    config: BuildConfig | str | os.PathLike[str] | None = None,
    *,
    engine: Engine | str | None = None,
    show_progress: bool = True,
    **options: Any,
) -> BuildResult:
    """Build a dataset, or resume one that an earlier run of the same command did not finish.

    Args:
        config: options of the build, or path or name of a recipe.
        engine: runs the shards; a name or None: the engine of the options.
        show_progress: show progress on stderr.
        **options: fields of `BuildConfig`, which override `config`.

    Raises:
        ConfigError, InputError: an option or an input is not valid; or the dataset at `out` would
            lose or change tracks, and `replace` is not set.
        CheckError: the split leaks.
        NetworkError: the service behind a URL does not answer, or refuses access.
        EmovoxError: the disk is full, or another run is building `out`.
        MissingPackageError: the extra `build` is not installed.

    Example:
        >>> from pathlib import Path
        >>> from emovox.testing import write_clip
        >>> clip = write_clip(Path("clips/mp4/id1/v/00001.mp4"), 30)  # frames, at 25 per second
        >>> build_dataset("voxceleb2", root="clips", out="rows", jobs=1)
        <BuildResult rows: 1 tracks, 5 frames, 0 dropped>
    """
    started = time.perf_counter()
    require("build", "build-dataset")
    if isinstance(engine, str):
        options["engine"], engine = engine, None
    config = read_config(BuildConfig, config, options)
    resolve: Callable[[str, str, str, bool], Runtime] = resolve_runtime
    if engine is None and config.engine == "ray":
        from emovox.labelling.cluster import RayEngine

        actor = config.actor_cpus, config.actor_gpus
        engine = cluster = RayEngine(config.ray_address, *actor, config.jobs)
        resolve = cluster.resolve
    plan = make_plan(config, resolve)
    try:
        with held_state(config.out, config.state) as state:
            existing = None if config.replace else find_existing(config.out, state)
            reports = completed(state, plan.shards, retry_dropped=config.retry_dropped)
            jobs = plan.jobs(state, reports)
            if existing is not None:
                existing.check_plan(plan, {t.track_id for job in jobs for t in job.shard.tracks})
            if jobs and show_progress and plan.settings.compiled:
                sys.stderr.write("compiling the teacher with torch.compile, for about a minute\n")
            engine = engine or local_engine(config, jobs)
            num_seen = sum(report.num_tracks for report in reports.values())
            num_tracks = len(plan.corpus.tracks)
            for report in _with_progress(engine, jobs, num_tracks, num_seen, show_progress):
                reports[report.fingerprint] = report
            in_order = [reports[shard.fingerprint] for shard in plan.shards]
            manifest = finish(plan, state, in_order, existing)
            remove_stale(state, plan.shards)
    except OSError as error:
        kind = NetworkError if URL.match(str(error.filename)) else EmovoxError
        raise kind(
            f"{config.out}: cannot write: {describe(error)}; fix this and rerun the same command "
            "to resume"
        ) from error
    seconds = time.perf_counter() - started
    dropped, notes = list(plan.corpus.dropped), list(plan.corpus.notes)
    totals: Counter[str] = Counter()
    repeated: dict[str, list[Any]] = {}
    for report in reports.values():
        dropped += report.dropped
        counts = {name: getattr(report, name) for name in ("num_decoded", *TIMES)}
        counts["frames"] = report.num_frames
        totals.update(counts, tracks=len(report.tracks), dropped=len(report.dropped))
        for what, (count, example) in report.notes.items():
            repeated.setdefault(what, [0, example])[0] += count
    notes += [f"{count:,} {what}: {example}" for what, (count, example) in repeated.items()]
    num_planned = manifest["totals"]["tracks"] + manifest["totals"]["dropped"]
    too_many = len(dropped) > config.max_dropped * num_planned
    found = (config.out, manifest, dropped, notes)
    return BuildResult(*found, len(jobs), len(reports), seconds, totals, too_many)


def _with_progress(
    engine: Engine, jobs: Sequence[ShardJob], num_tracks: int, num_seen: int, show: bool
) -> Iterator[ShardReport]:
    """Run an engine and yield its reports; show a bar on a terminal, or lines.

    `num_seen` tracks are of earlier runs.
    """
    num_frames, began, ended = 0, time.perf_counter(), threading.Event()
    logged, first = began, num_seen
    disable = None if show else True  # None: unless stderr is a terminal
    num_done = getattr(engine, "num_done", int)  # of running shards; others report whole ones
    shown = {"unit": "track", "disable": disable, "dynamic_ncols": True}
    bar = tqdm(None, None, num_tracks, initial=num_seen, **shown)

    def refresh() -> None:
        nonlocal logged
        done, seconds = num_seen + num_done(), time.perf_counter() - began
        rate = f"{num_frames / seconds:,.0f} frames/s"
        if not bar.disable:
            bar.n = done
            bar.set_postfix_str(rate)
        elif show and time.perf_counter() - logged >= LOG_SECONDS:
            logged = time.perf_counter()
            left = math.ceil(seconds * (num_tracks - done) / max(done - first, 1) / 60)
            line = f"{done:,} of {num_tracks:,} tracks, {rate}, about {left:,} min left\n"
            sys.stderr.write(line)

    def watch() -> None:
        while not ended.wait(TICK_SECONDS):
            refresh()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for report in engine.run(jobs):
            num_frames += report.num_frames
            num_seen += report.num_tracks
            refresh()
            yield report
    finally:
        ended.set()
        watcher.join()
        bar.close()


def label_videos(
    paths: Sequence[Path], teacher: str, folder: Path, device: str, precision: str, num_jobs: int
) -> tuple[Dataset, list[str], dict[str, dict[str, Any]]]:
    """Label whole videos, which belong to no corpus, on the 0.24 s grid; `folder` is empty.

    Return the dataset, the track id of each video, and the rows of the table `dropped` by track id.
    """
    names = [f"{number:09d}" for number in range(len(paths))]  # every table and decoder takes them
    for name, path in zip(names, paths, strict=True):
        (folder / name).symlink_to(path.resolve())
    rows = [f"video/{name}/00000,{name},video,,\n" for name in names]
    csv, out = folder / "tracks.csv", folder / "dataset"
    csv.write_text("".join(["track_id,video,identity,start,end\n", *rows]), encoding="utf-8")
    runtime: dict[str, Any] = {"device": device, "precision": precision, "jobs": num_jobs}
    build_dataset(BuildConfig("table", folder, out, teacher, table=csv, **runtime))
    dropped = read_rows(out / schema.DROPPED_FILE).to_pylist()
    track_ids = [f"video/{name}/00000" for name in names]
    return load(out), track_ids, {row["track_id"]: row for row in dropped}
