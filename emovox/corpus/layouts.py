"""Layouts of corpora on disk. Each lists the tracks below a root without opening media.

voxceleb2      mp4/<id>/<video>/<n>.mp4, below the root or below its dev/ and test/
voxceleb1      video/<video id>.<ext> and txt/<id>/<video>/<n>.txt
dense-frames   <name>/1.6/<video>/<track>/<nn>.jpg, the published face frames of VoxCeleb1
folder         any tree of video files; the first folder is the identity, faces are detected
table          a CSV or Parquet file: track_id, video, identity, start, end; split, boxes
"""

import os
import re
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from sys import intern  # the names of identities and videos, which many tracks share

from emovox.corpus.tracks import Corpus, Entry, FaceSource, Track, ending_of, is_video
from emovox.corpus.voxceleb import IDENTITY, LISTS, lists_folder, read_names
from emovox.errors import ConfigError, InputError, TrackError
from emovox.ids import TrackKey
from emovox.paths import as_path

NUMBER = re.compile(r"[0-9]+")
IMAGE_ENDINGS = frozenset((".jpg", ".jpeg"))
NOT_VIDEO = "files without a video ending"


def read_corpus(
    layout: str,
    root: str | os.PathLike[str],
    table: str | os.PathLike[str] | None = None,
    meta: str | os.PathLike[str] | None = None,
) -> Corpus:
    """List the tracks of a corpus.

    Args:
        layout: a key of `LAYOUTS`.
        root: folder of the corpus, or its URL.
        table: file that lists the tracks, for the layout `table`.
        meta: folder of vox1_meta.csv, for layouts whose folders are names of persons.

    Raises:
        ConfigError: the layout is unknown, or lacks an option that it needs.
        InputError: the root is missing, or contains nothing of this layout; or its folders are
            names of persons and vox1_meta.csv is missing.

    Example:
        >>> corpus = read_corpus("voxceleb2", "emovox-demo/corpus")
        >>> len(corpus.tracks), corpus.tracks[0].source
        (96, 'mp4/demo00/scene00x00/00001.mp4')
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if (layout == "table") != (table is not None):
        raise ConfigError("--layout table requires --table FILE, and --table requires that layout")
    corpus, lists = Corpus(as_path(root)), table if layout == "table" else meta
    if not corpus.files.is_dir(""):
        raise InputError(f"{corpus.root}: no such folder; pass the corpus folder as --root")
    LAYOUTS[layout](corpus, None if lists is None else as_path(lists))
    corpus.finish()
    if not corpus.tracks and not corpus.dropped:
        hint = next(line for line in (__doc__ or "").splitlines() if line.startswith(layout))
        raise InputError(f"{corpus.root}: no tracks found; expected {' '.join(hint.split()[1:])}")
    return corpus


def _voxceleb2(corpus: Corpus, _meta: Path | None) -> None:
    parts = ("mp4", "dev/mp4", "test/mp4", "dev", "test", "")
    found = [part for part in parts if corpus.files.is_dir(part)]
    # dev/ itself is a tree of identities only if it has no mp4/.
    bases = [p for p in found if p in ("dev", "test") and f"{p}/mp4" not in found]
    bases += [p for p in found if p.endswith("mp4")]
    for base in bases or [""]:
        for entry in corpus.walk(base):
            below = entry.name if not base else entry.name.removeprefix(f"{base}/")
            stem, _, ending = below.rpartition(".")
            match stem.split("/"):
                case _ if not is_video(below):
                    corpus.leave_out(NOT_VIDEO, entry.name)
                case [identity, video, number] if NUMBER.fullmatch(number):
                    key = TrackKey(intern(identity), intern(video), int(number))
                    _add_file(corpus, entry, key, FaceSource.VOXCELEB2)
                case _:
                    message = f"expected <id>/<video>/<number>.{ending}"
                    corpus.drop(stem, entry.name, TrackError("plan", "BadName", message))


def _add_file(corpus: Corpus, entry: Entry, key: TrackKey, faces: FaceSource) -> None:
    if entry.is_file:
        corpus.add(Track(key, entry.name, faces))
    else:
        error = TrackError("plan", "NotAFile", "is a folder, a broken link or a device")
        corpus.drop(key.track_id, entry.name, error)


def _voxceleb1(corpus: Corpus, meta: Path | None) -> None:
    for part in ("video", "txt"):
        if not corpus.files.is_dir(part):
            raise InputError(
                f"{corpus.root}: no folder {part}/; expected video/<video id>.<ext> and "
                "txt/<id>/<video>/<n>.txt"
            )
    identify = _Identities(corpus.root, meta)
    masked = partial(identify.mask, position=1)
    videos: dict[str, str] = {}
    for entry in corpus.walk("video", masked):
        path = Path(entry.name)
        if len(path.parts) != 2:  # its folder may be a person's name
            corpus.leave_out("files in folders below video/", masked(entry.name))
        elif not is_video(entry.name):
            corpus.leave_out(NOT_VIDEO, entry.name)
        elif videos.setdefault(path.stem, entry.name) != entry.name:
            corpus.leave_out("videos with the id of another one", entry.name)
    used = set()
    for entry in corpus.walk("txt", masked):
        match entry.name.split("/"):
            case ["txt", who, video, file] if re.fullmatch(r"(?i)[0-9]+\.txt", file):
                number = int(file[:-4])
                try:
                    key = TrackKey(identify(who), video, number)
                    if video not in videos:
                        raise TrackError("open", "FileNotFound", f"video/{video}.<ext> is missing")
                    used.add(video)
                    corpus.add(Track(key, videos[video], FaceSource.BOXES, entry.name, person=who))
                except TrackError as error:
                    key = TrackKey(identify.mask(who), video, number)
                    corpus.drop(key.track_id, masked(entry.name), error)
            case _:
                what = "files below txt/ that are not <id>/<video>/<n>.txt"
                corpus.leave_out(what, masked(entry.name))
    for video in sorted(set(videos) - used):
        corpus.leave_out("videos without a box file in txt/", videos[video])


def _dense_frames(corpus: Corpus, meta: Path | None) -> None:
    identify = _Identities(corpus.root, meta)
    folders = set()
    for entry in corpus.walk(shown=identify.mask):
        if ending_of(entry.name) in IMAGE_ENDINGS:
            folders.add(entry.name.rpartition("/")[0])
        elif entry.name not in LISTS:
            corpus.leave_out("files that are not JPEGs", identify.mask(entry.name))
    for folder in sorted(folders):
        match folder.split("/"):
            case [who, "1.6", video, number] if NUMBER.fullmatch(number):
                try:
                    key = TrackKey(identify(who), video, int(number))
                    corpus.add(Track(key, folder, FaceSource.DENSE, person=who))
                except TrackError as error:
                    key = TrackKey(identify.mask(who), video, int(number))
                    corpus.drop(key.track_id, identify.mask(folder), error)
            case _:
                what = "folders of JPEGs that are not <name>/1.6/<video>/<track>"
                corpus.leave_out(what, identify.mask(folder))


class _Identities:
    """Turns folder names into ids; a person's name is never returned."""

    def __init__(self, root: Path, meta: Path | None) -> None:
        self._folder = lists_folder(meta, root)
        self._names: dict[str, str] | None = None

    def __call__(self, who: str) -> str:
        if self._names is None and not IDENTITY.fullmatch(who):
            self._names = read_names(self._folder)
        if (identity := self._known(who)) is None:
            raise TrackError("plan", "UnknownName", "the folder's name is not in vox1_meta.csv")
        return identity

    def mask(self, path: str, position: int = 0) -> str:
        """Return the path with an id, or a hash, in place of the folder at `position`."""
        parts = path.split("/")
        if position < len(parts):
            digest = blake2b(os.fsencode(parts[position]), digest_size=4).hexdigest()
            parts[position] = self._known(parts[position]) or f"unknown-{digest}"
        return "/".join(parts)

    def _known(self, who: str) -> str | None:
        return who if IDENTITY.fullmatch(who) else (self._names or {}).get(who)


def _folder(corpus: Corpus, _meta: Path | None) -> None:
    for entry in corpus.walk():
        if is_video(entry.name):
            _add_file(corpus, entry, folder_key(entry.name), FaceSource.DETECT)
        else:
            corpus.leave_out(NOT_VIDEO, entry.name)


def folder_key(name: str) -> TrackKey:
    """Return the key of a file in the layout `folder`.

    `name` is a path below the root, with an ending.

    Example:
        >>> [folder_key(name).track_id for name in ("ann/talk/3.mp4", "ann/may/talk.mp4", "bo.mp4")]
        ['ann/talk/00003', 'ann/may+talk/00000', 'bo/bo/00000']
    """
    *parents, stem = name.rpartition(".")[0].split("/")
    identity, inner = (parents[0], parents[1:]) if parents else (stem, [])
    if len(inner) == 1 and re.fullmatch(r"[0-9]{1,9}", stem):
        return TrackKey(intern(identity), intern(inner[0]), int(stem))
    return TrackKey(identity, "+".join([*inner, stem]), 0)


def _table(corpus: Corpus, table: Path | None) -> None:
    from emovox.corpus.track_table import read_track_table

    assert table is not None
    read_track_table(table, corpus)


# Functions that add the tracks; the second argument is the table, or the folder of vox1_meta.csv.
LAYOUTS: dict[str, Callable[[Corpus, Path | None], None]] = {
    "voxceleb2": _voxceleb2,
    "voxceleb1": _voxceleb1,
    "dense-frames": _dense_frames,
    "folder": _folder,
    "table": _table,
}
