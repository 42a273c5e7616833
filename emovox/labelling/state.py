"""The state of a build: finished shards, and what is known of the dataset made of them."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.errors import InputError
from emovox.files import write_text
from emovox.ids import printable
from emovox.labelling.locks import held
from emovox.labelling.plan import Shard
from emovox.labelling.shard import ShardReport, marker_file, read_report, rows_file
from emovox.paths import NOT_FETCHED, file_state, is_remote, map_ahead

STATE = ".emovox"  # folder inside the dataset, for resuming; no part of the dataset
RECORD = "finished.json"  # of the dataset that the state was last used for


@contextlib.contextmanager
def locked_state(out: Path, state: Path | None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Make sure that `out` is ours to write, and nobody else's at the same time.

    Yields:
        The folder of the state, and what raises once another run has taken it over.
    """
    state = state or out / STATE
    for path in (out, state):
        if printable(str(path)) != str(path):  # Arrow opens nothing that is not UTF-8
            raise InputError(
                f"{printable(str(path))}: a name that is not UTF-8 or holds a control character; "
                "choose another one"
            )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out is the folder of the dataset")
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
    if is_empty or _is_built_from(out, state):
        return
    what = "is not empty, and not a dataset built here"
    if (out / schema.MANIFEST).exists():
        where = f"{STATE}/" if is_inside else f"{state} is not it"
        what = f"holds a dataset, but not the state of its build ({where})"
    raise InputError(f"{out}: {what}; choose another --out")


def _is_built_from(out: Path, state: Path) -> bool:
    """Whether the state knows the dataset in `out`, or was writing one there when it was killed."""
    record = _read_record(state)
    if "out" in record:
        return record["out"] == _place(out)
    return "manifest" in record and record["manifest"] == _manifest_sha256(out)


def completed(
    state: Path, shards: Sequence[Shard], *, retry_dropped: bool
) -> dict[str, ShardReport]:
    """Reports of the shards that need not be built; what could not be fetched is tried again."""
    sizes = {n: size for n, (size, *_) in state.files().items()} if is_remote(state) else None

    def read(shard: Shard) -> ShardReport | None:
        if sizes is None:
            return read_report(state, shard.fingerprint)
        if marker_file(state, shard.fingerprint).name not in sizes:
            return None
        rows_bytes = sizes.get(rows_file(state, shard.fingerprint).name, 0)
        return read_report(state, shard.fingerprint, rows_bytes)

    found = map(read, shards) if sizes is None else map_ahead(read, shards)

    def is_final(report: ShardReport) -> bool:
        if retry_dropped:
            return not report.dropped
        return not any(d.error == NOT_FETCHED for d in report.dropped)

    return {report.fingerprint: report for report in found if report and is_final(report)}


def remove_stale(state: Path, shards: Sequence[Shard]) -> int:
    """Take away what killed runs left and shards of other configurations; return their number."""
    current = {shard.fingerprint[:32] for shard in shards} | {"finished", "lock"}
    num_stale = 0
    for path in list(state.iterdir()):
        if path.name.split(".")[0] not in current:
            num_stale += path.suffix == ".json"
            path.unlink(missing_ok=True)
    return num_stale


def begin_dataset(out: Path, state: Path) -> None:
    """Forget the dataset that is there, before it is replaced."""
    refuse_foreign(out, state)
    if _is_inside(out, state):
        (state / RECORD).unlink(missing_ok=True)
    else:
        write_text(state / RECORD, json.dumps({"out": _place(out)}))


def record_dataset(out: Path, state: Path, fingerprint: str, manifest: Mapping[str, Any]) -> None:
    """Remember a finished dataset: the fingerprint of its inputs, and the state of its files."""
    content = {
        "fingerprint": fingerprint,
        "manifest": _manifest_sha256(out),
        "files": {f["path"]: file_state(out / f["path"]) for f in manifest["files"]},
    }
    write_text(state / RECORD, json.dumps(content))


def finished_dataset(out: Path, state: Path, fingerprint: str) -> dict[str, Any] | None:
    """The manifest of a finished dataset whose inputs and files have not changed since."""
    try:
        record = _read_record(state)
        same = record["fingerprint"] == fingerprint
        same = same and record["manifest"] == _manifest_sha256(out)
        for name, known in record["files"].items():
            same = same and file_state(out / name) == tuple(known)
        return json.loads((out / schema.MANIFEST).read_text(encoding="utf-8")) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_record(state: Path) -> dict[str, Any]:
    try:
        record = json.loads((state / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _manifest_sha256(out: Path) -> str | None:
    try:
        return hashlib.sha256((out / schema.MANIFEST).read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_inside(out: Path, state: Path) -> bool:
    """Whether the state is where it is unless the user named another folder."""
    return _place(state) == _place(out / STATE)


def _place(path: Path) -> str:
    return str(path if is_remote(path) else path.resolve())
