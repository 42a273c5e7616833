"""Make a release: a version of a dataset that is checked, complete and does not change."""

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emovox.dataset import card, schema
from emovox.dataset.takedown import format_list, own_list, read_list
from emovox.dataset.writer import list_documents, write_documents, write_manifest
from emovox.errors import CheckError, ConfigError, InputError
from emovox.files import new_folder, sha256_file, write_text
from emovox.ids import printable
from emovox.publishing.croissant import write_croissant
from emovox.publishing.takedown_release import Removal, find_removal
from emovox.validation.formats import summary
from emovox.validation.rules import RULES
from emovox.validation.validation import Validation, validate

Say = Callable[[str], None]

VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
# A dataset may still have the rows that its takedown list is to take away.
RULES_OF_SOURCE = tuple(rule for rule in RULES if rule.name != "takedown")


class NotValidError(CheckError):
    """A dataset breaks rules of the contract, and is not released.

    Attributes:
        validation: which ones.
    """

    def __init__(self, validation: Validation) -> None:
        self.validation = validation
        unasked = [o.rule.name for o in validation.outcomes if o.blocked]
        broken = ", ".join(validation.failed() + unasked)
        super().__init__(f"{validation.path}: not released, for it is not valid: {broken}")


@dataclass(frozen=True)
class Release:
    """What a release holds.

    Attributes:
        out: its folder.
        manifest: content of its manifest.json.
        num_listed: identities on its takedown list.
        removed: what that list took away: identities, tracks, frames and dropped tracks.
        is_new: it was made now, and not found to be there.
    """

    out: Path
    manifest: Mapping[str, Any]
    num_listed: int
    removed: Mapping[str, int]
    is_new: bool = True

    def summary(self) -> str:
        """What it holds and what was taken away, in a few lines."""
        totals, gone = self.manifest["totals"], self.removed
        lines = [
            f"release   {self.manifest['name']} {self.manifest['version']}"
            f"{'' if self.is_new else ', made before'}",
            f"tracks    {totals['tracks']:,} written, {totals['dropped']:,} dropped",
            f"frames    {totals['frames']:,}",
        ]
        if self.num_listed:
            lines.append(
                f"takedown  {gone['identities']:,} of {self.num_listed:,} listed identities had "
                f"rows; taken out: {gone['tracks']:,} tracks, {gone['frames']:,} frames, "
                f"{gone['dropped']:,} dropped tracks"
            )
        return "\n".join([*lines, f"folder    {self.out}"])


def release(
    source: Path,
    out: Path,
    version: str,
    *,
    takedown: Path | None = None,
    meta: Path | None = None,
    resume: bool = False,
    say: Say = lambda line: None,
) -> Release:
    """Make a release of a dataset.

    The folder appears when it is whole and valid; its files are read-only.

    Args:
        source: folder of a valid dataset, or of an earlier release.
        out: folder of the release, not there yet.
        version: MAJOR.MINOR.PATCH; of a release of a release, above that one's.
        takedown: list of identities whose rows stay out, see `emovox.dataset.takedown`. They go
            with those of the list that lies with the dataset.
        meta: folder of vox1_meta.csv and the official lists, for the rules that need them.
        resume: take what is at `out` if it is this very release.
        say: told what goes on, a line at a time.

    Raises:
        ConfigError: a version or an `out` that cannot be.
        InputError: `source` is no dataset, `out` is there already, a list cannot be read.
        NotValidError: the dataset breaks a rule.
        CheckError: nothing would be left.
    """
    if not VERSION.fullmatch(version):
        raise ConfigError(f"version {printable(version)!r} is not MAJOR.MINOR.PATCH, such as 1.0.0")
    place = _checked_place(source, out)
    listed = own_list(source) | (read_list(takedown) if takedown else frozenset())
    if place.exists():
        if resume and (made := _made_before(source, out, version, listed)):
            _check(validate(place, meta=meta), out, say)
            return made
        raise InputError(_occupied(out))
    _check(validate(source, meta=meta, rules=RULES_OF_SOURCE), source, say)
    manifest, provenance = (_read(source, name) for name in (schema.MANIFEST, schema.PROVENANCE))
    _check_order(version, manifest, provenance)
    removal = find_removal(source, manifest, listed)
    if removal.kept and not removal.totals["tracks"]:
        raise CheckError(f"{source}: every identity is on a takedown list: nothing to release")
    with new_folder(place, "releasing") as building:
        written = _write(building, removal, provenance, version)
        _check(validate(building, meta=meta), out, say)
        for path in building.rglob("*"):
            if path.is_file():
                path.chmod(path.stat().st_mode & ~0o222)
    return Release(out, written, len(listed), removal.removed)


def _write(
    out: Path, removal: Removal, provenance: Mapping[str, Any], version: str
) -> dict[str, Any]:
    """Write everything into an empty folder, the manifest last; return it."""
    origin = {
        "version": removal.manifest["version"],
        "manifest_sha256": sha256_file(removal.source / schema.MANIFEST),
        "removed": removal.removed,
    }
    manifest = {
        **removal.manifest,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "totals": removal.totals,
        "files": removal.write(out),
    }
    if removal.listed:
        write_text(out / schema.TAKEDOWN, format_list(removal.listed))
        list_documents(out, manifest, schema.TAKEDOWN)
    counts = card.count(out, list(manifest["totals"]["by_split"]))
    history = [*provenance.get("released_from", []), origin]
    provenance = {**removal.provenance(provenance), "released_from": history}
    write_documents(out, manifest, provenance, counts)
    write_croissant(out, manifest)
    list_documents(out, manifest, schema.CROISSANT)
    write_manifest(out, manifest)
    return manifest


def _checked_place(source: Path, out: Path) -> Path:
    if printable(str(out)) != str(out):  # Arrow opens nothing that is not UTF-8
        raise ConfigError(f"{printable(str(out))}: not a name in UTF-8; choose another --out")
    place = out.resolve()
    if place.is_relative_to(source.resolve()):
        raise ConfigError(f"{out}: lies in the dataset itself; choose another --out")
    return place


def _check(validation: Validation, shown: Path, say: Say) -> None:
    validation = replace(validation, path=shown)
    if not validation.valid:
        raise NotValidError(validation)
    say(summary(validation))


def _check_order(version: str, manifest: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """A release of a release comes after it; what else there may be, nobody here knows."""
    if "released_from" in provenance and _numbers(version) <= _numbers(manifest["version"]):
        raise ConfigError(
            f"version {version} is not above {manifest['version']}, the release that it is made of"
        )


def _numbers(version: str) -> tuple[int, ...]:
    match = VERSION.fullmatch(version)
    return tuple(map(int, match.groups())) if match else ()


def _made_before(source: Path, out: Path, version: str, listed: frozenset[str]) -> Release | None:
    """The release at `out`, if it was made of this dataset, with this version and this list."""
    try:
        manifest, provenance = (_read(out, name) for name in (schema.MANIFEST, schema.PROVENANCE))
        origin = provenance["released_from"][-1]
        is_same = (
            manifest["version"] == version
            and origin["manifest_sha256"] == sha256_file(source / schema.MANIFEST)
            and own_list(out) == listed
        )
        return Release(out, manifest, len(listed), origin["removed"], False) if is_same else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _occupied(out: Path) -> str:
    """Why nothing can be released to `out`."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        manifest, provenance = (_read(out, name) for name in (schema.MANIFEST, schema.PROVENANCE))
        _ = provenance["released_from"]
        shown = f"{manifest['name']} {manifest['version']}"
        return f"{out}: is {shown} already, and releases do not change; choose another --out"
    return f"{out}: is there already; choose another --out"


def _read(root: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((root / name).read_text(encoding="utf-8")))
