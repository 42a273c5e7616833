"""Comparison of a copy of VoxCeleb with its official lists, without decoding."""

import re
from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm

from emovox.corpus import voxceleb
from emovox.corpus.layouts import folder_key
from emovox.corpus.sound_files import BETWEEN, StrPath
from emovox.corpus.tracks import AUDIO_ENDINGS, MEDIA_ENDINGS, Files, ending_of
from emovox.errors import ConfigError, InputError
from emovox.files import LFS_HINT, is_lfs_pointer
from emovox.media.containers import missing_end
from emovox.reporting.show import Shown

# List of the identities, its column of ids, list of the tracks, published tracks of each part.
CORPORA = {
    "voxceleb2": (voxceleb.META2, "VoxCeleb2 ID", "train_list.txt", (1_092_009, 36_237)),
    "voxceleb1": (voxceleb.META, "VoxCeleb1 ID", "iden_split.txt", (148_642, 4_874)),
}
FORMS = dict.fromkeys(MEDIA_ENDINGS, "video") | dict.fromkeys(AUDIO_ENDINGS, "sound")
FORMS[".txt"] = "boxes"
FOLDERS = re.compile(rf"^((dev|test)/)?(({'|'.join(BETWEEN[1:])}|txt)/)?")
MAX_LISTED = 5  # faults of a kind in the text


def check_corpus(root: StrPath, layout: str = "voxceleb2", meta: StrPath | None = None) -> Shown:
    """Compare a copy of VoxCeleb with its official lists, without decoding.

    `meta` is the folder of the lists; None: the root, or the downloaded ones. Rows are a `fault`,
    the `name` of an identity, track or file, and `details`. A track is expected if it is in a list,
    or in the copy in another form: video, sound or boxes. `layout` is voxceleb2 or voxceleb1.

    Raises:
        ConfigError: the layout is unknown.
        InputError: the root or a list is missing, or a list is malformed.

    Example:
        >>> check_corpus("emovox-demo/corpus", "voxceleb1", "lists").rows[-1]["details"]
        'not an id of the list'
    """
    if layout not in CORPORA:
        raise ConfigError(f"unknown layout {layout!r}; choose one of {', '.join(CORPORA)}")
    root, (id_list, column, track_list, totals) = Path(root), CORPORA[layout]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; pass the folder of the corpus")
    lists = voxceleb.lists_folder(None if meta is None else Path(meta), root, id_list)
    parts = {r[column]: r["Set"] for r in voxceleb.read_meta(lists / id_list, column, "Set")}
    path = lists / track_list
    hint = "" if path.is_file() else f"; to name the others, put {track_list} beside {id_list}"
    words = path.read_text("utf-8", "replace").split() if path.is_file() else []
    listed = {folder_key(word).track_id for word in words if "/" in word}
    if layout == "voxceleb1" and all((lists / name).is_file() for name in voxceleb.LISTS):
        listed |= voxceleb.read_official_split(lists).heard_tracks
    forms, faults_of_files = _scan(root, parts, {id_list, track_list, *voxceleb.LISTS})

    here = set().union(*forms.values())
    absent = sorted(parts.keys() - {track.split("/")[0] for track in here})
    counts, faults = Counter(parts[track.split("/")[0]] for track in here), []
    for part, total in zip(("dev", "test"), totals, strict=True):
        if counts[part] < total:  # vox2_meta.csv names two identities more than were published
            note = "" if (layout, part) == ("voxceleb2", "test") else hint  # its list has dev only
            faults.append(("incomplete part", part, f"{counts[part]:,} of {total:,} tracks{note}"))
            kind = f"missing identity of {part}"
            faults += [(kind, i, "no file") for i in absent if parts[i] == part]
    for form, tracks in forms.items():
        faults += [("missing track", t, f"no {form}") for t in sorted(listed.union(here) - tracks)]
    faults += faults_of_files
    kinds = Counter(kind for kind, *_ in faults)
    table: list[tuple[str, ...]] = [("fault", "name", "details")]
    for kind in kinds:
        table += [fault for fault in faults if fault[0] == kind][:MAX_LISTED]
    rows = [dict(zip(table[0], fault, strict=True)) for fault in faults]
    found = ", ".join(f"{count:,} x {kind}" for kind, count in kinds.items()) or "complete"
    title = f"{root}: {len(here):,} tracks of {layout}; {found}"
    return Shown(title, {"tracks": counts, "faults": kinds}, rows, table)


def _scan(
    root: Path, parts: dict[str, str], lists: set[str]
) -> tuple[dict[str, set[str]], list[tuple[str, str, str]]]:
    """Return the tracks of the files, by `FORMS`, and the faults of the files."""
    found, faults = defaultdict[str, set[str]](set), list[tuple[str, str, str]]()
    walk = Files(root).walk("", lambda why, name: faults.append(("not read", name, why)))
    for entry in tqdm(walk, "check", unit=" files", disable=None):
        form, key = FORMS.get(ending_of(entry.name)), folder_key(FOLDERS.sub("", entry.name))
        if form and key.track_num and key.identity_id in parts:
            found[form].add(key.track_id)
            path = root / entry.name
            try:
                damage = LFS_HINT if is_lfs_pointer(path) else missing_end(path, with_mp4=True)
            except OSError as error:
                damage = f"cannot be read ({error.strerror})"
            if damage:
                faults.append(("damaged", entry.name, damage))
        elif entry.name not in lists and (form, entry.name[:6]) != ("video", "video/"):
            why = "wrong place or ending" if key.identity_id in parts else "not an id of the list"
            faults.append(("unknown name", entry.name, why))
    return found, faults
