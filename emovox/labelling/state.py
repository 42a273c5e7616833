"""State of a build: its finished shards, the dataset made from them, and its protection."""

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.store import DAMAGED
from emovox.errors import InputError, first_line
from emovox.files import exclusive, write_text
from emovox.ids import printable
from emovox.labelling import plan as plans
from emovox.labelling.plan import ROWS_VERSION, BuildPlan, Shard, ShardReport
from emovox.paths import NOT_FETCHED, file_state, is_remote, local_copy, map_ahead

STATE = ".emovox"  # default folder of the state, inside the dataset but not a part of it
RECORD = "finished.json"  # the dataset that this state was last used for
RECORD_VERSION = 2
MAX_EXAMPLES = 3  # track ids in a message


@contextlib.contextmanager
def held_state(out: Path, state: Path | None) -> Iterator[Path]:
    """Hold the state of a build (None: `STATE` inside `out`), which may then write `out`.

    Yields its folder. A state behind a URL has no lock. InputError if `out` is a file or was not
    built from `state`; EmovoxError if another run holds it.
    """
    state = state or out / STATE
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; pass a folder as --out")
    refuse_foreign(out, state)
    lock: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if isinstance(state, Path):
        state.mkdir(parents=True, exist_ok=True)
        if not (state / ".gitignore").exists():
            (state / ".gitignore").write_text("*\n", encoding="utf-8")
        busy = f"{out}: another run is building this dataset; wait for it"
        lock = exclusive(state / "lock", busy)
    with lock:
        yield state


def refuse_foreign(out: Path, state: Path) -> None:
    """Raise `InputError` if `out` holds anything that was not built from `state`."""
    if _absolute(state) == _absolute(out / STATE) and state.is_dir():
        return
    try:
        is_empty = not any(out.iterdir())
    except FileNotFoundError:
        return
    record = _read_record(state)
    if "out" in record:  # a dataset was being written there when its build ended
        is_ours = record["out"] == _absolute(out)
    else:
        is_ours = "manifest" in record and record["manifest"] == _manifest_sha256(out)
    if not is_empty and not is_ours:
        fact = f"is not empty, and {state} is missing or of another build"
        raise InputError(f"{out}: {fact}; choose another --out")


def completed(
    state: Path, shards: Sequence[Shard], *, retry_dropped: bool
) -> dict[str, ShardReport]:
    """Return the reports of shards that need not be built again, by fingerprint; one listing."""
    if is_remote(state):
        sizes = {name: size for name, (size, *_) in state.files().items()}
    else:
        sizes = {path.name: path.stat().st_size for path in state.iterdir()}
    built = [s.fingerprint for s in shards if plans.marker_file(state, s.fingerprint).name in sizes]

    def read(fingerprint: str) -> ShardReport | None:
        rows_bytes = sizes.get(plans.rows_file(state, fingerprint).name, 0)
        return plans.read_report(state, fingerprint, rows_bytes)

    def is_final(report: ShardReport) -> bool:
        errors = [dropped.error for dropped in report.dropped]
        return not errors if retry_dropped else NOT_FETCHED not in errors

    found = (map_ahead if is_remote(state) else map)(read, built)
    return {report.fingerprint: report for report in found if report and is_final(report)}


def remove_stale(state: Path, shards: Sequence[Shard]) -> None:
    """Remove leftovers of killed runs and shards of other plans."""
    current = {shard.fingerprint[:32] for shard in shards} | {"finished", "lock", ""}  # .gitignore
    for path in list(state.iterdir()):
        if path.name.split(".")[0] not in current:
            path.unlink(missing_ok=True)


def reuse_or_begin(out: Path, state: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the manifest of a finished dataset whose inputs and files are as before, or None."""
    refuse_foreign(out, state)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = _read_record(state)
        if record["fingerprint"] == fingerprint and record["manifest"] == _manifest_sha256(out):
            files = record["files"].items()
            if all(file_state(out / name) == tuple(known) for name, known in files):
                return dict(json.loads((out / schema.MANIFEST).read_text(encoding="utf-8")))
    # Record that a dataset is being written at `out`, with the inputs of the last finished build.
    inputs = _read_record(state).get("inputs")
    begun = {"version": RECORD_VERSION, "out": _absolute(out), "inputs": inputs or {}}
    write_text(state / RECORD, json.dumps(begun))
    return None


def record_dataset(
    plan: BuildPlan, state: Path, fingerprint: str, manifest: Mapping[str, Any]
) -> None:
    """Record a finished dataset: its inputs, and the state of its files."""
    out = plan.config.out
    content = {
        "version": RECORD_VERSION,
        "inputs": _inputs_of(plan),
        "fingerprint": fingerprint,
        "manifest": _manifest_sha256(out),
        "files": {f["path"]: file_state(out / f["path"]) for f in manifest["files"]},
    }
    write_text(state / RECORD, json.dumps(content))


def _inputs_of(plan: BuildPlan) -> dict[str, Any]:
    """Return the inputs of a build on which the rows of all its tracks depend, by name."""
    settings = plan.settings
    return {
        "root": _absolute(plan.config.root),
        "device": settings.device,
        "precision": settings.precision,
        "compile": settings.compiled,
        "description of the teacher": json.dumps(settings.teacher_settings),
        "version of emovox": ROWS_VERSION,
    }


@dataclass(frozen=True)
class Existing:
    """The dataset that a build finds at its `out`."""

    out: Path
    manifest: Mapping[str, Any]
    splits: Mapping[str, str]  # split of every track with rows
    inputs: Mapping[str, Any]  # of the build that made it, see `_inputs_of`; empty if unknown

    def check_plan(self, plan: BuildPlan, pending: Collection[str]) -> None:
        """Raise InputError if a build, yet to label `pending`, would change or lose tracks."""
        settings, changes = plan.settings, []
        if (step := self.manifest.get("step_ms")) != settings.step_ms:
            changes.append(f"the step of {step} ms becomes {settings.step_ms} ms")
        before = self.manifest.get("teacher")
        before = before if isinstance(before, dict) else {}
        if before.get("sha256") != settings.teacher_sha256:
            name = printable(str(before.get("name")))
            changes.append(f"teacher {name} becomes {settings.teacher_name}, or has other weights")
        inputs = _inputs_of(plan)
        other = [key for key, value in self.inputs.items() if value != inputs.get(key)]
        if other and (again := sorted(self.splits.keys() & set(pending))):
            changes.append(f"{_some(again)} labelled again with another {' and '.join(other)}")
        self.check_tracks(plan.assigned, changes)

    def check_tracks(self, assigned: Mapping[str, str], changes: Iterable[str] = ()) -> None:
        """Raise InputError if `assigned` lacks a track or its split differs, or for `changes`."""
        changes = [*changes]
        if lost := sorted(self.splits.keys() - assigned.keys()):
            changes.append(f"{_some(lost)} of {len(self.splits):,} lost")
        moved = sorted(i for i, split in self.splits.items() if assigned.get(i, split) != split)
        if moved:
            changes.append(f"{_some(moved)} moved to another split")
        if changes:
            raise InputError(
                f"{self.out}: this run would change the dataset there: {'; '.join(changes)}; "
                "pass --replace to do so, or another --out"
            )


def find_existing(out: Path, state: Path) -> Existing | None:
    """Return the dataset at `out`, or None; InputError if it is damaged or of another contract."""
    hint = "pass --replace to replace it, or another --out"
    try:
        manifest = json.loads((out / schema.MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"{out}: {schema.MANIFEST} is not JSON; {hint}") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != schema.SCHEMA_VERSION:
        raise InputError(
            f"{out}: holds a dataset of contract version {version}, and this emovox writes "
            f"{schema.SCHEMA_VERSION}; {hint}"
        )
    splits: dict[str, str] = {}
    try:
        for split in manifest["totals"]["by_split"]:
            with local_copy(out / schema.table_file("tracks", split)) as path:
                ids = pq.read_table(path, columns=["track_id"])["track_id"].to_pylist()
            splits |= dict.fromkeys(ids, split)
    except (*DAMAGED, pa.ArrowException) as error:
        raise InputError(f"{out}: holds a damaged dataset ({first_line(error)}); {hint}") from error
    return Existing(out, manifest, splits, _read_record(state).get("inputs") or {})


def _read_record(state: Path) -> dict[str, Any]:
    record: Any = None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        record = json.loads((state / RECORD).read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        return {}
    version = record.get("version", 0)
    if not isinstance(version, int) or version > RECORD_VERSION:
        raise InputError(
            f"{state}: state of a newer emovox (version {version}); use that one, or another --out"
        )
    return record


def _manifest_sha256(out: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return hashlib.sha256((out / schema.MANIFEST).read_bytes()).hexdigest()
    return None


def _absolute(path: Path) -> str:
    return str(path if is_remote(path) else path.resolve())


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_EXAMPLES]) + (", ..." if len(names) > MAX_EXAMPLES else "")
    return f"{len(names):,} track{'s' * (len(names) != 1)} ({shown})"
