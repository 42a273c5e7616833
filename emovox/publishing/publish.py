"""Releases: versions of a dataset that are validated, complete and do not change.

croissant.json follows http://mlcommons.org/croissant/1.1 and http://mlcommons.org/croissant/RAI/1.0.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emovox.dataset import card, schema
from emovox.dataset.card import CardFields, read_fields
from emovox.dataset.croissant_metadata import files_and_columns
from emovox.dataset.json_schemas import read_document, read_manifest
from emovox.dataset.names import parse_version
from emovox.dataset.takedown import Removal, find_removal, format_list, own_list, read_list
from emovox.dataset.writer import list_documents, write_documents, write_manifest
from emovox.errors import CheckError, ConfigError, InputError
from emovox.files import copy_file, new_folder, sha256_file, write_text
from emovox.ids import check_printable, printable
from emovox.packages import DataFrame, data_frame
from emovox.publishing.anonymising import anonymise as anonymised
from emovox.publishing.anonymising import check_absent, list_of_new, read_map
from emovox.validation.outcomes import RULES, Validation, validate

CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
# As the specification prescribes it.
CONTEXT = json.loads(Path(__file__).with_name("croissant_context.json").read_text(encoding="utf-8"))


def write_croissant(root: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Write croissant.json into a dataset, atomically; see `croissant`."""
    # ASCII, because mlcroissant opens the file in the encoding of the machine.
    text = json.dumps(croissant(root, manifest), indent=2) + "\n"
    write_text(Path(root) / schema.CROISSANT, text)


def croissant(root: str | os.PathLike[str], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Croissant metadata of a dataset as JSON-LD; its manifest need not be written.

    Raises:
        InputError: provenance.json is unreadable or lacks `origin`.
    """
    provenance = read_document(root, schema.PROVENANCE)
    if "origin" not in provenance:
        raise InputError(f"{Path(root) / schema.PROVENANCE}: `origin` is missing")
    limits, fields = card.limits(provenance), read_fields(root)
    teacher = manifest["teacher"]
    digest = f", weights sha256 {teacher['sha256']}" if teacher["sha256"] else ""
    terms = "Terms of the source corpus" if fields.licence == "other" else fields.licence
    stated = {"inLanguage": [*fields.languages], "rai:dataReleaseMaintenancePlan": fields.contact}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest["name"],
        "version": manifest["version"],
        "description": f"{fields.description}\n{card.summary(manifest, provenance)}".strip(),
        "datePublished": manifest["created"],
        "license": {"@type": "sc:CreativeWork", "name": terms, "description": fields.terms},
        "citeAs": fields.citation or card.CITATION,
        "keywords": list(card.TAGS),
        **{key: value for key, value in stated.items() if value},
        "rai:dataUseCases": limits["use"],
        "rai:dataLimitations": [limits["errors"], limits["misuse"]],
        "rai:dataBiases": limits["biases"],
        "rai:personalSensitiveInformation": limits["people"],
        "rai:dataCollectionMissingData": card.missing(manifest),
        "rai:machineAnnotationTools": teacher["name"] + digest,
        **files_and_columns(manifest),
    }


Say = Callable[[str], None]

DESCRIBING = (schema.MANIFEST, schema.PROVENANCE)

# A dataset may still have rows that its takedown list removes; its card is made anew, with --card.
NOT_OF_SOURCE = ("takedown", "card-fields", "card-numbers")
RULES_OF_SOURCE = tuple(rule for rule in RULES if rule.name not in NOT_OF_SOURCE)


class NotValidError(CheckError):
    """A dataset breaks rules of the contract and is not released."""

    def __init__(self, validation: Validation) -> None:
        self.validation = validation  # the result, with the broken rules
        blocked = [o.rule.name for o in validation.outcomes if o.blocked]
        broken = ", ".join(validation.failed() + blocked)
        super().__init__(f"{validation.path}: not released: validation failed: {broken}")


@dataclass(frozen=True, repr=False)
class Release:
    """A release on disk."""

    out: Path  # folder
    manifest: Mapping[str, Any]  # content of its manifest.json
    num_listed: int  # number of identities on its takedown list
    # Numbers of identities, tracks, frames and dropped tracks that the list removed
    removed: Mapping[str, int]
    is_new: bool = True  # False if the release existed before

    def __repr__(self) -> str:
        totals = self.manifest["totals"]
        return (
            f"<Release {self.manifest['name']} {self.manifest['version']}: "
            f"{totals['tracks']:,} tracks, {totals['frames']:,} frames, {self.out}>"
        )

    def to_pandas(self) -> DataFrame:
        """Return a DataFrame with one row per released file; MissingPackageError without pandas."""
        return data_frame(self.manifest["files"]).astype({"rows": "Int64"})

    def summary(self) -> str:
        """Return the numbers of released and removed rows, in a few lines."""
        totals, removed = self.manifest["totals"], self.removed
        lines = [
            f"release   {self.manifest['name']} {self.manifest['version']}"
            f"{'' if self.is_new else ', existed before'}",
            f"tracks    {totals['tracks']:,} written, {totals['dropped']:,} dropped",
            f"frames    {totals['frames']:,}",
        ]
        if self.num_listed:
            lines.append(
                f"takedown  {removed['identities']:,} of {self.num_listed:,} listed identities had "
                f"rows; removed {removed['tracks']:,} tracks, {removed['frames']:,} frames, "
                f"{removed['dropped']:,} dropped tracks"
            )
        return "\n".join([*lines, f"folder    {self.out}"])


def release(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    version: str | None = None,
    takedown: str | os.PathLike[str] | None = None,
    allow_unknown: bool = False,
    card: str | os.PathLike[str] | None = None,
    anonymise: str | os.PathLike[str] | None = None,
    meta: str | os.PathLike[str] | None = None,
    resume: bool = False,
    say: Say = lambda line: None,
) -> Release:
    """Make a release of a dataset.

    The folder appears when it is complete and valid; its files are read-only.

    Args:
        dataset: folder of a valid dataset, or of an earlier release.
        out: folder of the release; must not exist.
        version: MAJOR.MINOR.PATCH, by default that of the dataset. A release of a release needs a
            higher version.
        takedown: list of identities to remove, in addition to the list in the dataset's folder;
            see `emovox.dataset.takedown`.
        allow_unknown: accept hashes that match no identity of the dataset.
        card: TOML file with facts for the card, see `emovox.dataset.card.CardFields`; it
            becomes card.toml of the release. None: that of the dataset, if any.
        anonymise: map of random ids that take the place of those of identities and videos; a CSV
            file outside dataset and release that is created, or gets more ids. None: keep the ids.
        meta: folder of vox1_meta.csv and the official lists, for the rules that need them.
        resume: accept an existing `out` if it is the same release.
        say: called with each line of progress.

    Raises:
        ConfigError: `version`, `out`, `card`, card.toml or the place of the map is not valid.
        InputError: `dataset` is not a dataset, `out` exists, or a list is unreadable.
        NotValidError: the dataset breaks a rule.
        CheckError: no track would remain; a document contains an id that is to be replaced; or a
            hash of a list matches no identity, and `allow_unknown` is not set.

    Example:
        >>> release("emovox-demo/dataset", "releases/1.0.0", version="1.0.0")
        <Release emovox-demo 1.0.0: 96 tracks, 1,996 frames, releases/1.0.0>
    """
    source, out = Path(dataset), Path(out)
    if version is None:
        version = str(read_manifest(source)["version"])
    if parse_version(version) is None:
        raise ConfigError(f"version {printable(version)!r} is not MAJOR.MINOR.PATCH, such as 1.0.0")
    check_printable(out, "--out")
    place = out.resolve()
    if place.is_relative_to(source.resolve()):
        raise ConfigError(f"{out}: inside the dataset; pass another --out")
    listed = own_list(source) | (frozenset() if takedown is None else read_list(takedown))
    fields = read_fields(source, card)
    people = None if anonymise is None else Path(anonymise).resolve()
    expected = listed if people is None else list_of_new(read_map(people), listed)
    if people and any(people.is_relative_to(folder) for folder in (source.resolve(), place)):
        raise ConfigError(f"{anonymise}: inside the dataset or the release; pass another file")
    if place.exists():
        existing = _existing_release(source, out, version, expected, fields, resume)
        if people and not read_document(out, schema.PROVENANCE).get("anonymised"):
            raise InputError(f"{out}: is not anonymised; pass another --out")
        _check(validate(place, meta=meta), out, say)
        return existing
    _check(validate(source, meta=meta, rules=RULES_OF_SOURCE), source, say)
    manifest, provenance = (read_document(source, name) for name in DESCRIBING)
    numbers, before = parse_version(version) or (), parse_version(manifest["version"]) or ()
    is_release = "released_from" in provenance
    if people and provenance.get("anonymised"):
        raise ConfigError(f"{source}: is anonymised already; leave out --anonymise")
    if is_release and numbers <= before:
        raise ConfigError(
            f"version {version}: not above {manifest['version']}, the version of the release it is "
            "made from; pass a higher --version"
        )
    removal = replace(find_removal(source, manifest, listed), card=card)
    # Rows of the list in a release were removed when it was made.
    known = removal.matched | (own_list(source) if is_release else frozenset())
    if (unknown := sorted(listed - known)) and not allow_unknown:
        raise CheckError(
            f"{source}: {len(unknown)} of {len(listed)} hashes to take down match no identity, for "
            f"example {unknown[0]}; make each with `emovox hash-identity ID`, or pass "
            "--allow-unknown if they belong to other datasets"
        )
    if removal.views and not removal.totals["tracks"]:
        raise CheckError(f"{source}: nothing to release: every identity is on a takedown list")
    if is_release and removal.removed["tracks"] and numbers[:1] == before[:1]:
        say(f"{version}: tracks are removed; `emovox diff` asks for version {before[0] + 1}.0.0")
    if people:
        num_known = len(read_map(people))
        removal = anonymised(removal, people)
        num_new = len(read_map(people)) - num_known
        say(f"{anonymise}: {num_known:,} ids of earlier releases, {num_new:,} new; keep it private")
    with new_folder(place, "releasing") as building:
        written = write_part(building, removal, version, "released_from", removed=removal.removed)
        _check(validate(building, meta=meta), out, say)
        if people:
            check_absent(building, people)
        for path in building.rglob("*"):
            if path.is_file():
                path.chmod(path.stat().st_mode & ~0o222)
    return Release(out, written, len(listed), removal.removed)


def write_part(
    out: Path, removal: Removal, version: str, history: str, **facts: Any
) -> dict[str, Any]:
    """Write a part of a dataset, with all documents, into an empty folder; return its manifest.

    Provenance gets one more entry in the list `history`: the source, and `facts` about the part.
    """
    provenance = read_document(removal.source, schema.PROVENANCE)
    origin = {
        "version": removal.manifest["version"],
        "manifest_sha256": sha256_file(removal.source / schema.MANIFEST),
        **facts,
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
    if (card := Path(removal.card or removal.source / schema.CARD_FIELDS)).is_file():
        copy_file(card, out / schema.CARD_FIELDS)
        list_documents(out, manifest, schema.CARD_FIELDS)
    provenance = {**removal.provenance(provenance), history: [*provenance.get(history, []), origin]}
    write_documents(out, manifest, provenance)
    write_croissant(out, manifest)
    list_documents(out, manifest, schema.CROISSANT)
    write_manifest(out, manifest)
    return manifest


def _check(validation: Validation, path: Path, say: Say) -> None:
    """Raise NotValidError if a dataset, which messages call `path`, is not valid."""
    validation = replace(validation, path=path)
    if not validation.valid:
        raise NotValidError(validation)
    say(validation.summary())


def _existing_release(
    source: Path, out: Path, version: str, listed: frozenset[str], fields: CardFields, resume: bool
) -> Release:
    """Return the release at `out`; InputError unless `resume` and the other arguments match."""
    try:
        manifest, provenance = (read_document(out, name) for name in DESCRIBING)
        origin = provenance["released_from"][-1]
        existing = Release(out, manifest, len(listed), origin["removed"], is_new=False)
        name = f"{manifest['name']} {manifest['version']}"
        is_same = (
            manifest["version"] == version
            and origin["manifest_sha256"] == sha256_file(source / schema.MANIFEST)
            and own_list(out) == listed
            and read_fields(out) == fields
        )
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f"{out}: exists; pass another --out") from None
    if not (resume and is_same):
        raise InputError(f"{out}: is {name}, and releases do not change; pass another --out")
    return existing
