"""Protection of a finished dataset from a build that would take tracks away or change them."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset import schema
from emovox.dataset.store import DAMAGED
from emovox.errors import InputError, first_line
from emovox.ids import printable
from emovox.labelling.plan import BuildPlan
from emovox.labelling.state import inputs_of, recorded_inputs
from emovox.paths import local_copy

MAX_EXAMPLES = 3


@dataclass(frozen=True)
class Existing:
    """The dataset that a build finds at its `out`.

    Attributes:
        out: its folder.
        manifest: content of its manifest.json.
        splits: split of every track with rows.
        inputs: of the build that made it, see `inputs_of`; empty if unknown.
    """

    out: Path
    manifest: Mapping[str, Any]
    splits: Mapping[str, str]
    inputs: Mapping[str, Any]

    def check_plan(self, plan: BuildPlan, pending: Collection[str]) -> None:
        """Check that a build keeps all tracks, before it labels any.

        Args:
            plan: of the build.
            pending: track_id of all tracks that it will label.

        Raises:
            InputError: it would change or lose some; the message says what.
        """
        settings, changes = plan.settings, []
        if (step := self.manifest.get("step_ms")) != settings.step_ms:
            changes.append(f"the step of {step} ms becomes {settings.step_ms} ms")
        before = self.manifest.get("teacher") or {}
        if before.get("sha256") != settings.teacher_sha256:
            name = printable(str(before.get("name")))
            changes.append(f"teacher {name} becomes {settings.teacher_name}, or has other weights")
        inputs = inputs_of(plan)
        other = [key for key, value in self.inputs.items() if value != inputs.get(key)]
        again = sorted(self.splits.keys() & set(pending))
        if other and again:
            changes.append(f"{_some(again)} labelled again with another {' and '.join(other)}")
        self._refuse(changes, plan.assigned)

    def check_result(self, written: Mapping[str, str]) -> None:
        """Check that no track is lost because its media can no longer be used.

        Args:
            written: split of every track with rows, by track_id.

        Raises:
            InputError: some are.
        """
        self._refuse([], written)

    def _refuse(self, changes: list[str], assigned: Mapping[str, str]) -> None:
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
    """Return the dataset at `out`; None if there is none.

    Raises:
        InputError: it is of another contract version, or damaged.
    """
    advice = "pass --replace to replace it, or another --out"
    try:
        manifest = json.loads((out / schema.MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"{out}: {schema.MANIFEST} is not JSON; {advice}") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != schema.SCHEMA_VERSION:
        raise InputError(
            f"{out}: holds a dataset of contract version {version}, and this emovox writes "
            f"{schema.SCHEMA_VERSION}; {advice}"
        )
    splits: dict[str, str] = {}
    try:
        for split in manifest["totals"]["by_split"]:
            with local_copy(out / schema.table_file("tracks", split)) as path:
                ids = pq.read_table(path, columns=["track_id"])["track_id"].to_pylist()
            splits |= dict.fromkeys(ids, split)
    except (*DAMAGED, pa.ArrowException) as error:
        raise InputError(
            f"{out}: holds a damaged dataset ({first_line(error)}); {advice}"
        ) from error
    return Existing(out, manifest, splits, recorded_inputs(state))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_EXAMPLES]) + (", ..." if len(names) > MAX_EXAMPLES else "")
    return f"{len(names):,} track{'s' * (len(names) != 1)} ({shown})"
