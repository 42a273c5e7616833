"""Splits: training, heard validation and unheard validation.

auto       drawn by hash of identities and videos
official   the published lists of EmoVoxCeleb
a file     CSV or Parquet with `split` and either `track_id` or `identity_id`
"""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from emovox.corpus.tracks import Corpus, Track
from emovox.corpus.voxceleb import OfficialSplit, lists_folder, read_official_split
from emovox.dataset.names import SPLITS
from emovox.errors import CheckError, InputError, TrackError, public_url
from emovox.ids import TrackKey, parse_track_id

UNHEARD_FRACTION = 0.2  # of identities
HEARD_FRACTION = 0.04  # of the other identities' videos

TRAIN, HEARD, UNHEARD = SPLITS

OWN_COLUMN = "\0"  # the column `split` of the tracks; no user can type this value


def fraction(name: str) -> float:
    """Return a number in [0, 1) that depends on `name` alone: blake2b as a fraction."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def auto_split(
    keys: Iterable[TrackKey], unheard: float = UNHEARD_FRACTION, heard: float = HEARD_FRACTION
) -> dict[str, str]:
    """Draw the split of tracks from their names alone; return `{track_id: split}`.

    A video is in one split as a whole, and every identity outside unheard validation trains: one
    whose videos were all drawn for heard validation keeps them for training. So new identities and
    new tracks of a known video move nothing; a new video may move its identity's others.

    `unheard` is the share of identities for unheard validation, `heard` that of the other
    identities' videos for heard validation.

    Example:
        >>> keys = [TrackKey(f"id{k}", video, 1) for k in range(1000) for video in "ab"]
        >>> list(auto_split(keys).values()).count("unheard_val")  # about a fifth
        412
    """
    keys = list(keys)
    videos = {(key.identity_id, key.video_id) for key in keys}
    drawn = {video for video in videos if fraction("/".join(video)) < heard}
    train = {identity for identity, _ in videos - drawn}
    splits = {video: HEARD if video in drawn and video[0] in train else TRAIN for video in videos}
    splits |= {video: UNHEARD for video in videos if fraction(video[0]) < unheard}
    return {key.track_id: splits[key.identity_id, key.video_id] for key in keys}


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
    """Assign a split to every track of the corpus; return `{track_id: split}`.

    Tracks that the lists do not contain move to `corpus.dropped`. `splits` is `auto`, `official` or
    the path of a file; None: the tracks' own column if the corpus has one, else `auto`. `meta` is
    the folder of the official lists, or None for the corpus root. `unheard` and `heard` are the
    shares of identities, and of the other identities' videos, that `auto` puts into the validation.

    Raises:
        InputError: a list is missing or malformed.
        CheckError: an identity is unheard and also in another split.
    """
    if splits is None:
        splits = OWN_COLUMN if any(track.split for track in corpus.tracks) else "auto"
    if splits == "auto":
        assigned = auto_split((t.key for t in corpus.tracks), unheard, heard)
        wanted = zip(SPLITS, (unheard < 1, unheard < 1 and heard, unheard), strict=True)
        empty = [split for split, share in wanted if share and split not in assigned.values()]
        if empty and corpus.tracks:
            change = "add videos, or change --unheard-fraction or --heard-fraction"
            videos = {(track.key.identity_id, track.key.video_id) for track in corpus.tracks}
            if empty == [HEARD] and len(videos) == len(dict(videos)):
                change = f"{HEARD} takes videos of identities that have several"
            corpus.note(f"{', '.join(empty)}: no track was drawn; {change}")
    elif splits == "official":
        lists = read_official_split(lists_folder(meta, corpus.root))
        known = ((t, official_split(t.key, lists)) for t in corpus.tracks)
        assigned = {t.track_id: split for t, split in known if split}
    elif splits == OWN_COLUMN:
        assigned = {t.track_id: t.split for t in corpus.tracks if t.split in SPLITS}
    else:
        assigned = _from_file(splits, corpus.tracks)
    _drop_unassigned(corpus, assigned, splits)
    audit((t.key for t in corpus.tracks), assigned)
    return assigned


def audit(keys: Iterable[TrackKey], assigned: dict[str, str]) -> None:
    """Check that no identity is in unheard validation and also in another split.

    `assigned` is the split of each track, by track_id.

    Raises:
        CheckError: lists the first identities that are.
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


def _from_file(path: str, tracks: list[Track]) -> dict[str, str]:
    from emovox.corpus.track_table import read_table

    rows = read_table(path, ("split",), "; --splits accepts auto, official or a file")
    key = next((k for k in ("track_id", "identity_id") if rows and k in rows[0]), None)
    if key is None:
        raise InputError(
            f"{path}: needs a column track_id or identity_id beside split, and at least one row"
        )
    given: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise InputError(
                f"{path}: row {number}: split {row['split']!r} is not one of {', '.join(SPLITS)}"
            )
        name = str(row[key])
        if key == "track_id" and (parsed := parse_track_id(name)):
            name = parsed.track_id  # with any number of digits
        if given.setdefault(name, row["split"]) != row["split"]:
            raise InputError(f"{path}: row {number}: {name} is in two splits")
    found = ((t.track_id, given.get(getattr(t.key, key))) for t in tracks)
    return {track_id: split for track_id, split in found if split}


def _drop_unassigned(corpus: Corpus, assigned: dict[str, str], splits: str) -> None:
    for track in corpus.tracks:
        if track.track_id not in assigned:
            message = {
                "official": "the identity is not in the published lists of VoxCeleb1",
                OWN_COLUMN: f"the table's split {track.split!r} is not one of {', '.join(SPLITS)}",
            }.get(splits, f"{Path(public_url(splits)).name} does not name it")
            error = TrackError("split", "NoSplit", message)
            corpus.drop(track.track_id, track.shown(track.source), error)
    corpus.tracks = [track for track in corpus.tracks if track.track_id in assigned]
