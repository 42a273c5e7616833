"""State of a build: its finished shards, and a record of the dataset made from them."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.errors import InputError
from emovox.files import write_text
from emovox.labelling.locks import held
from emovox.labelling.plan import ROWS_VERSION, BuildPlan, Shard
from emovox.labelling.shard_report import ShardReport, marker_file, read_report, rows_file
from emovox.paths import NOT_FETCHED, file_state, is_remote, map_ahead

STATE = ".emovox"  # default folder of the state, inside the dataset but not a part of it
RECORD = "finished.json"  # the dataset that this state was last used for
RECORD_VERSION = 2


@contextlib.contextmanager
def held_state(out: Path, state: Path | None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Hold the state of a build, and check that the build may write `out`.

    Args:
        out: folder of the dataset.
        state: folder of the state; None: `STATE` inside `out`.

    Yields:
        The folder of the state, and a function that raises once another run has taken it over.

    Raises:
        InputError: `out` is a file, or holds something that was not built from `state`.
        EmovoxError: another run holds the state.
    """
    state = state or out / STATE
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; pass a folder as --out")
    refuse_foreign(out, state)
    state.mkdir(parents=True, exist_ok=True)
    with held(state, out) as check:
        yield state, check


def refuse_foreign(out: Path, state: Path) -> None:
    """Raise `InputError` if `out` holds anything that was not built from `state`."""
    is_inside = _is_inside(out, state)
    if is_inside and state.is_dir():
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
    if is_empty or is_ours:
        return
    fact = "is not empty, and not a dataset built from this state"
    if (out / schema.MANIFEST).exists():
        where = f"{STATE}/ is missing" if is_inside else f"{state} belongs to another build"
        fact = f"holds a dataset, but not the state of its build ({where})"
    raise InputError(f"{out}: {fact}; choose another --out")


def completed(
    state: Path, shards: Sequence[Shard], *, retry_dropped: bool
) -> dict[str, ShardReport]:
    """Return the reports of shards that need not be built, by fingerprint.

    Shards with files that could not be fetched are not among them.

    Args:
        state: folder of the state.
        shards: of the plan.
        retry_dropped: leave out every shard with a dropped track.
    """
    sizes = {n: size for n, (size, *_) in state.files().items()} if is_remote(state) else None

    def read(shard: Shard) -> ShardReport | None:
        if sizes is None:
            return read_report(state, shard.fingerprint)
        if marker_file(state, shard.fingerprint).name not in sizes:
            return None
        rows_bytes = sizes.get(rows_file(state, shard.fingerprint).name, 0)
        return read_report(state, shard.fingerprint, rows_bytes)

    def is_final(report: ShardReport) -> bool:
        if retry_dropped:
            return not report.dropped
        return not any(d.error == NOT_FETCHED for d in report.dropped)

    found = map(read, shards) if sizes is None else map_ahead(read, shards)
    return {report.fingerprint: report for report in found if report and is_final(report)}


def remove_stale(state: Path, shards: Sequence[Shard]) -> int:
    """Remove leftovers of killed runs and shards of other plans; return how many shards."""
    current = {shard.fingerprint[:32] for shard in shards} | {"finished", "lock"}
    num_stale = 0
    for path in list(state.iterdir()):
        if path.name.split(".")[0] not in current:
            num_stale += path.suffix == ".json"
            path.unlink(missing_ok=True)
    return num_stale


def reuse_or_begin(out: Path, state: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the manifest of a finished dataset whose inputs and files have not changed.

    If `out` has none, return None and record that a dataset is being written there.

    Args:
        out: folder of the dataset.
        state: folder of the state.
        fingerprint: hash of all inputs of the dataset.
    """
    refuse_foreign(out, state)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = _read_record(state)
        if record["fingerprint"] == fingerprint and record["manifest"] == _manifest_sha256(out):
            files = record["files"].items()
            if all(file_state(out / name) == tuple(known) for name, known in files):
                return dict(json.loads((out / schema.MANIFEST).read_text(encoding="utf-8")))
    begun = {"version": RECORD_VERSION, "out": _absolute(out), "inputs": recorded_inputs(state)}
    write_text(state / RECORD, json.dumps(begun))
    return None


def record_dataset(
    plan: BuildPlan, state: Path, fingerprint: str, manifest: Mapping[str, Any]
) -> None:
    """Record a finished dataset: its inputs, and the state of its files."""
    out = plan.config.out
    content = {
        "version": RECORD_VERSION,
        "inputs": inputs_of(plan),
        "fingerprint": fingerprint,
        "manifest": _manifest_sha256(out),
        "files": {f["path"]: file_state(out / f["path"]) for f in manifest["files"]},
    }
    write_text(state / RECORD, json.dumps(content))


def inputs_of(plan: BuildPlan) -> dict[str, Any]:
    """Return the inputs of a build on which the rows of all its tracks depend, by name."""
    settings = plan.settings
    return {
        "root": _absolute(plan.config.root),
        "device": settings.device,
        "precision": settings.precision,
        "compile": settings.compiled,
        "version of emovox": ROWS_VERSION,
    }


def recorded_inputs(state: Path) -> dict[str, Any]:
    """Return `inputs_of` the last finished build; empty if unknown."""
    return dict(_read_record(state).get("inputs") or {})


def _read_record(state: Path) -> dict[str, Any]:
    try:
        record = json.loads((state / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    if (version := record.get("version", 0)) > RECORD_VERSION:
        raise InputError(
            f"{state}: state of a newer emovox (version {version}); use that one, or another --out"
        )
    return record


def _manifest_sha256(out: Path) -> str | None:
    try:
        return hashlib.sha256((out / schema.MANIFEST).read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_inside(out: Path, state: Path) -> bool:
    """Return True if the state is at its default place."""
    return _absolute(state) == _absolute(out / STATE)


def _absolute(path: Path) -> str:
    return str(path if is_remote(path) else path.resolve())
