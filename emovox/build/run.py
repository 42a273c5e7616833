"""The whole build: plan, run what is missing, finish."""

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock, Timeout
from tqdm import tqdm

from emovox.build.config import BuildConfig
from emovox.build.engine import Engine, LokyEngine
from emovox.build.finish import finish
from emovox.build.plan import Shard, ShardSettings, file_state, plan_shards
from emovox.build.provenance import software
from emovox.build.shard import ShardJob, ShardReport, count_reasons, read_report
from emovox.build.tables import Header
from emovox.corpus.layouts import Source, read_corpus
from emovox.corpus.splits import assign
from emovox.corpus.tracks import Corpus, printable
from emovox.dataset import schema
from emovox.dataset.files import sha256_file, write_text
from emovox.errors import EmovoxError, InputError
from emovox.teacher import ACCURACY, TeacherSource, find_teacher
from emovox.teacher.devices import device_name, resolve_compile, resolve_device, resolve_precision

FRAMES_PER_TRACK = 33  # of VoxCeleb1 at 0.24 s, on average; to guess the work ahead
STATE = ".emovox"  # folder inside the dataset, for resuming; no part of the dataset


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
            `media_seconds`, `teacher_seconds`.
        too_many_dropped: whether more were dropped than `max_dropped` allows.
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
        return "\n".join(lines)

    def _bound(self) -> str:
        media, teacher = self.totals["media_seconds"], self.totals["teacher_seconds"]
        num_tracks = self.totals["tracks"] + self.totals["dropped"]
        return (
            f"speed     media {1000 * media / num_tracks:.1f} ms per track, teacher "
            f"{self.totals['frames'] / max(teacher, 1e-9):,.0f} crops/s, per worker; "
            f"bound by {'media' if media > teacher else 'the teacher'}"
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
    settings = _settle(config, teacher, len(corpus.tracks))
    shards = list(plan_shards(config.root, corpus.tracks, settings, config.shard_tracks))
    try:
        with _locked_state(config.out) as state:
            reports = _completed(state, shards, retry_dropped=config.retry_dropped)
            missing = [shard for shard in shards if shard.fingerprint not in reports]
            missing.sort(key=lambda shard: -len(shard.tracks))  # no large one at the very end
            engine = engine or LokyEngine(_num_workers(config.jobs, len(missing)))
            jobs = (
                ShardJob(shard, settings, config.root, state, teacher.path, config.timeout)
                for shard in missing
            )
            for report in _with_progress(engine.run(jobs), corpus, reports, show_progress):
                reports[report.fingerprint] = report
            manifest = _finish_once(config, state, shards, reports, assigned, corpus, settings)
            if num_stale := _remove_stale(state, shards):
                corpus.note(
                    f"replaced {num_stale} shards of an earlier build with other tracks or settings"
                )
    except OSError as error:
        raise EmovoxError(
            f"{config.out}: cannot be written: {_reason(error)}; mend that and run the same "
            "command again to go on"
        ) from error
    return _result(config, corpus, reports, manifest, len(missing), time.perf_counter() - started)


def _settle(config: BuildConfig, teacher: TeacherSource, num_tracks: int) -> ShardSettings:
    """Resolve what `auto` means here, so that it is part of every fingerprint."""
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    pays = num_tracks * FRAMES_PER_TRACK >= teacher.compile_pays_from
    compiled = resolve_compile(config.compile, device, pays)
    name = printable(teacher.name)
    return ShardSettings(config.step_ms, name, teacher.sha256, device, precision, compiled)


def _num_workers(jobs: int, num_missing: int) -> int:
    return max(1, min(jobs or joblib.cpu_count(), num_missing))


@contextlib.contextmanager
def _locked_state(out: Path) -> Iterator[Path]:
    """Make sure that `out` is ours to write, and nobody else's at the same time."""
    state = out / STATE
    if printable(str(out)) != str(out):  # Arrow opens nothing that is not UTF-8
        raise InputError(
            f"{printable(str(out))}: a name that is not UTF-8 or holds a control character; "
            "choose another --out"
        )
    if out.exists():
        if not out.is_dir():
            raise InputError(f"{out}: is a file; --out is the folder of the dataset")
        if not state.is_dir() and any(out.iterdir()):
            what = "is not empty, and not a dataset built here"
            if (out / schema.MANIFEST).exists():
                what = f"holds a dataset, but not the state of its build ({STATE}/)"
            raise InputError(f"{out}: {what}; choose another --out")
    state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(state / "lock", timeout=0):
            yield state
    except Timeout:
        raise EmovoxError(f"{out}: another run is building this dataset; wait for it") from None


def _completed(state: Path, shards: list[Shard], *, retry_dropped: bool) -> dict[str, ShardReport]:
    reports = {}
    for shard in shards:
        report = read_report(state, shard.fingerprint)
        if report is not None and not (retry_dropped and report.dropped):
            reports[shard.fingerprint] = report
    return reports


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
) -> dict[str, Any]:
    """Write the dataset, unless the one that is there came from the same inputs and is whole."""
    provenance = _provenance(config, settings, shards)
    lost = [d for shard in shards for d in reports[shard.fingerprint].dropped]
    inputs = [provenance, sorted(assigned.items()), [asdict(d) for d in corpus.dropped + lost]]
    fingerprint = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    record = state / "finished.json"
    if (manifest := _still_there(config.out, record, fingerprint)) is not None:
        return manifest
    record.unlink(missing_ok=True)
    teacher = {"name": settings.teacher_name, "sha256": settings.teacher_sha256}
    header = Header(
        name=config.dataset_name,
        version=config.version,
        step_ms=settings.step_ms,
        teacher=teacher,
        provenance=provenance | {"date": time.strftime("%Y-%m-%d", time.gmtime())},
    )
    manifest = finish(config.out, state, shards, assigned, corpus.dropped, header, hdf5=config.hdf5)
    manifest_sha256 = sha256_file(config.out / schema.MANIFEST)
    states = {f["path"]: file_state(config.out / f["path"]) for f in manifest["files"]}
    content = {"fingerprint": fingerprint, "manifest": manifest_sha256, "files": states}
    write_text(record, json.dumps(content))
    return manifest


def _still_there(out: Path, record: Path, fingerprint: str) -> dict[str, Any] | None:
    """The manifest of a finished dataset whose inputs and files have not changed since."""
    try:
        finished = json.loads(record.read_text(encoding="utf-8"))
        same = finished["fingerprint"] == fingerprint
        same = same and finished["manifest"] == sha256_file(out / schema.MANIFEST)
        for name, state in finished["files"].items():
            same = same and file_state(out / name) == tuple(state)
        return json.loads((out / schema.MANIFEST).read_text(encoding="utf-8")) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _provenance(
    config: BuildConfig, settings: ShardSettings, shards: list[Shard]
) -> dict[str, Any]:
    """All that the dataset was made from, without paths of this machine."""
    resolved = {
        key: printable(value.name) if isinstance(value, Path) else value
        for key, value in asdict(config).items()
        if key not in ("out", "jobs", "retry_dropped", "timeout")
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
        "device": device_name(settings.device),
    }


def _remove_stale(state: Path, shards: list[Shard]) -> int:
    """Take away what killed runs left and shards of other configurations; return their number."""
    current = {shard.fingerprint[:32] for shard in shards} | {"finished", "lock"}
    num_stale = 0
    for path in state.iterdir():
        if path.name.split(".")[0] not in current:
            num_stale += path.suffix == ".json"
            path.unlink(missing_ok=True)
    return num_stale


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
        for name in ("num_decoded", "media_seconds", "teacher_seconds"):
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


def _reason(error: OSError) -> str:
    return error.strerror or str(error).splitlines()[0]
