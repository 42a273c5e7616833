"""Splits: which tracks train, which are heard and which are unheard validation.

auto       identities and tracks drawn by hash, so that adding data never moves a track
official   the published lists of EmoVoxCeleb
a file     CSV or Parquet with `split` and either `track_id` or `identity_id`
"""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from emovox.corpus.tracks import Corpus, Track
from emovox.corpus.voxceleb import (
    OfficialSplit,
    lists_folder,
    read_official_split,
)
from emovox.dataset.names import SPLITS
from emovox.errors import CheckError, InputError, TrackError
from emovox.ids import TrackKey, parse_track_id
from emovox.paths import as_path

UNHEARD_FRACTION = 0.2  # of identities
HEARD_FRACTION = 0.04  # of the other identities' tracks

TRAIN, HEARD, UNHEARD = SPLITS

OWN_COLUMN = "\0"  # stands for the tracks' own column; no user can write it

official = read_official_split


def fraction(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone: blake2b as a fraction."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def auto_split(
    key: TrackKey, unheard: float = UNHEARD_FRACTION, heard: float = HEARD_FRACTION
) -> str:
    """Draw the split of a track from its names alone.

    Example:
        >>> keys = [TrackKey(f"id{k}", "v", 1) for k in range(1000)]
        >>> sum(auto_split(key) == "unheard_val" for key in keys)  # about a fifth
        206
    """
    if fraction(key.identity_id) < unheard:
        return UNHEARD
    return HEARD if fraction(key.track_id) < heard else TRAIN


def official_split(key: TrackKey, lists: OfficialSplit) -> str | None:
    """Return the published split of a VoxCeleb1 track; None for an identity the lists lack."""
    if key.identity_id not in lists.identities:
        return None
    if key.identity_id in lists.unheard_identities:
        return UNHEARD
    return HEARD if key.track_id in lists.heard_tracks else TRAIN


def assign(
    corpus: Corpus,
    splits: str | None,
    meta: Path | None = None,
    unheard: float = UNHEARD_FRACTION,
    heard: float = HEARD_FRACTION,
) -> dict[str, str]:
    """Give every track of the corpus its split: `{track_id: split}`.

    Tracks that the lists do not know move to `corpus.dropped`.

    Args:
        corpus: changed in place where tracks have to be dropped.
        splits: `auto`, `official`, the path of a file, or None for the tracks' own column where
            the corpus has one, else `auto`.
        meta: folder of the official lists; the corpus root if None.
        unheard: share of identities that `auto` keeps unheard.
        heard: share of the other identities' tracks that `auto` holds back.

    Raises:
        InputError: a list is missing or malformed.
        CheckError: an identity is on both sides.
    """
    if splits is None:
        splits = OWN_COLUMN if any(track.split for track in corpus.tracks) else "auto"
    if splits == "auto":
        assigned = {t.track_id: auto_split(t.key, unheard, heard) for t in corpus.tracks}
    elif splits == "official":
        lists = read_official_split(lists_folder(meta, corpus.root))
        known = ((t, official_split(t.key, lists)) for t in corpus.tracks)
        assigned = {t.track_id: split for t, split in known if split}
    elif splits == OWN_COLUMN:
        assigned = {t.track_id: t.split for t in corpus.tracks if t.split in SPLITS}
    elif not as_path(splits).is_file():
        raise InputError(f"{splits}: no such file; --splits takes auto, official or a file")
    else:
        assigned = _from_file(as_path(splits), corpus.tracks)
    _drop_unassigned(corpus, assigned, splits)
    audit((t.key for t in corpus.tracks), assigned)
    training = {t.key.identity_id for t in corpus.tracks if assigned[t.track_id] == TRAIN}
    held = {t.key.identity_id for t in corpus.tracks if assigned[t.track_id] == HEARD}
    if strangers := sorted(held - training):
        corpus.note(
            f"{len(strangers)} identities of {HEARD} have no track in {TRAIN}, "
            f"for example {strangers[0]}"
        )
    return assigned


def audit(keys: Iterable[TrackKey], assigned: dict[str, str]) -> None:
    """Refuse a split that leaks: no identity may be both unheard and in training or heard.

    Raises:
        CheckError: naming the first few identities that are on both sides.
    """
    sides: dict[str, set[bool]] = {}
    for key in keys:
        sides.setdefault(key.identity_id, set()).add(assigned[key.track_id] == UNHEARD)
    if leaks := sorted(identity for identity, side in sides.items() if len(side) == 2):
        shown = ", ".join(leaks[:5]) + (", ..." if len(leaks) > 5 else "")
        raise CheckError(
            f"the split leaks: {len(leaks)} identities are in {UNHEARD} and also in {TRAIN} or "
            f"{HEARD}: {shown}"
        )


def _from_file(path: Path, tracks: list[Track]) -> dict[str, str]:
    from emovox.corpus.track_table import read_table

    rows = read_table(path, ("split",))
    key = next((k for k in ("track_id", "identity_id") if rows and k in rows[0]), None)
    if key is None:
        raise InputError(f"{path}: needs rows, with a column track_id or identity_id beside split")
    given: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise InputError(
                f"{path}: row {number}: split {row['split']!r} is not one of {', '.join(SPLITS)}"
            )
        name = str(row[key])
        if key == "track_id" and (parsed := parse_track_id(name)):
            name = parsed.track_id  # however it was padded
        if given.setdefault(name, row["split"]) != row["split"]:
            raise InputError(f"{path}: row {number}: {name} is in two splits")
    found = ((t.track_id, given.get(getattr(t.key, key))) for t in tracks)
    return {track_id: split for track_id, split in found if split}


def _drop_unassigned(corpus: Corpus, assigned: dict[str, str], splits: str) -> None:
    kept = []
    for track in corpus.tracks:
        if track.track_id in assigned:
            kept.append(track)
        else:
            message = {
                "official": "the identity is not in the published lists of VoxCeleb1",
                OWN_COLUMN: f"the table's split {track.split!r} is not one of {', '.join(SPLITS)}",
            }.get(splits, f"{Path(splits).name} does not name it")
            error = TrackError("split", "NoSplit", message)
            corpus.drop(track.track_id, track.shown(track.source), error)
    corpus.tracks = kept
