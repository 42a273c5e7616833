"""Layouts: how corpora lie on disk. Each lists the tracks below a root without opening media.

voxceleb2      mp4/<id>/<video>/<n>.mp4, below the root or below its dev/ and test/
voxceleb1      video/<video id>.<ext> and txt/<id>/<video>/<n>.txt
dense-frames   <name>/1.6/<video>/<track>/<nn>.jpg, the published face frames of VoxCeleb1
folder         any tree of video files; the first folder is the identity, faces are detected
table          a CSV or Parquet file: track_id, video, identity, start, end; split, boxes
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from emovox.corpus.listing import VIDEO_ENDINGS, Entry
from emovox.corpus.tracks import Corpus, FaceSource, Track
from emovox.corpus.voxceleb import IDENTITY, lists_folder, read_names
from emovox.errors import ConfigError, InputError, TrackError
from emovox.ids import TrackKey
from emovox.paths import is_remote

IMAGE_ENDINGS = frozenset((".jpg", ".jpeg"))


@dataclass(frozen=True)
class Source:
    """Where a corpus is.

    Attributes:
        root: its folder.
        table: file that lists the tracks, for the layout `table`.
        meta: folder with vox1_meta.csv, for layouts whose folders are names instead of ids.
    """

    root: Path
    table: Path | None = None
    meta: Path | None = None


def read_corpus(layout: str, source: Source) -> Corpus:
    """List the tracks of a corpus.

    Raises:
        ConfigError: no such layout, or an option that the layout needs is missing.
        InputError: the root is missing, or holds nothing of this layout; or the folders are names
            and vox1_meta.csv, which turns them into ids, is missing.

    Example:
        >>> corpus = read_corpus("voxceleb2", Source(Path("emovox-demo/corpus")))
        >>> len(corpus.tracks), corpus.tracks[0].source
        (96, 'mp4/demo00/scene00x00/00001.mp4')
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if (layout == "table") != (source.table is not None):
        raise ConfigError("--layout table and --table FILE go together")
    missing = InputError(f"{source.root}: no such folder; --root is the folder of the corpus")
    if not is_remote(source.root) and not source.root.is_dir():
        raise missing
    corpus = LAYOUTS[layout](source).finish()
    if not corpus.files.is_dir(""):  # a URL is listed once, and by now it was
        raise missing
    if not corpus.tracks and not corpus.dropped:
        hint = next(line for line in (__doc__ or "").splitlines() if line.startswith(layout))
        raise InputError(f"{source.root}: no tracks found; expected {' '.join(hint.split()[1:])}")
    return corpus


def _voxceleb2(source: Source) -> Corpus:
    corpus = Corpus(source.root)
    parts = ("mp4", "dev/mp4", "test/mp4", "dev", "test", "")
    found = [part for part in parts if corpus.files.is_dir(part)]
    # dev/ itself only counts as a tree of identities if there is no mp4/ in it.
    bases = [p for p in found if p in ("dev", "test") and f"{p}/mp4" not in found]
    bases += [p for p in found if p.endswith("mp4")]
    for base in bases or [""]:
        for entry in corpus.walk(base):
            below = entry.name if not base else entry.name.removeprefix(f"{base}/")
            match below.split("/"):
                case [identity, video, file] if file.lower().endswith(".mp4"):
                    _add_numbered(corpus, entry, identity, video, file[:-4])
                case _ if below.lower().endswith(".mp4"):
                    corpus.drop(
                        below[:-4],
                        entry.name,
                        TrackError("plan", "BadName", "expected <id>/<video>/<number>.mp4"),
                    )
    return corpus


def _add_numbered(corpus: Corpus, entry: Entry, identity: str, video: str, number: str) -> None:
    if not re.fullmatch(r"[0-9]+", number):
        error = TrackError("plan", "BadName", f"the file's name {number!r} is not a number")
        corpus.drop(f"{identity}/{video}/{number}", entry.name, error)
    elif not entry.is_file:
        error = TrackError("plan", "NotAFile", "is a folder, a broken link or a device")
        corpus.drop(TrackKey(identity, video, int(number)).track_id, entry.name, error)
    else:
        corpus.add(Track(TrackKey(identity, video, int(number)), entry.name, FaceSource.VOXCELEB2))


def _voxceleb1(source: Source) -> Corpus:
    corpus = Corpus(source.root)
    for part in ("video", "txt"):
        if not corpus.files.is_dir(part):
            raise InputError(
                f"{source.root}: no folder {part}/; expected video/<video id>.<ext> and "
                "txt/<id>/<video>/<n>.txt"
            )
    identify = _Identities(source)
    videos: dict[str, str] = {}
    num_deep = num_odd = 0
    for entry in corpus.walk("video", lambda path: identify.mask(path, 1)):
        path = Path(entry.name)
        if path.suffix.lower() not in VIDEO_ENDINGS:
            continue
        if len(path.parts) != 2:  # a folder in between may be somebody's name
            num_deep += 1
        elif (taken := videos.setdefault(path.stem, entry.name)) != entry.name:
            corpus.note(f"{entry.name} is left aside: {taken} has the same id")
    if num_deep:
        corpus.note(f"{num_deep} videos in folders below video/ are left aside; put them in video/")
    used = set()
    for entry in corpus.walk("txt", lambda path: identify.mask(path, 1)):
        match entry.name.split("/"):
            case ["txt", who, video, file] if re.fullmatch(r"[0-9]+\.txt", file):
                number = int(file[:-4])
                try:
                    identity = identify(who)
                    if video not in videos:
                        message = f"video/{video}.<ext> is missing"
                        raise TrackError("open", "FileNotFound", message)
                except TrackError as error:
                    masked = identify.mask(who)
                    name = f"txt/{masked}/{video}/{file}"
                    corpus.drop(TrackKey(masked, video, number).track_id, name, error)
                    continue
                used.add(video)
                key = TrackKey(identity, video, number)
                track = Track(key, videos[video], FaceSource.BOXES, entry.name, person=who)
                corpus.add(track)
            case _ if entry.name.endswith(".txt"):
                num_odd += 1
    if num_odd:
        corpus.note(f"{num_odd} files below txt/ are not <id>/<video>/<n>.txt and are left aside")
    if unused := sorted(set(videos) - used):
        corpus.note(
            f"{len(unused)} videos have no box file in txt/ and are left aside, "
            f"for example {Path(videos[unused[0]]).name}"
        )
    return corpus


def _dense_frames(source: Source) -> Corpus:
    corpus = Corpus(source.root)
    identify = _Identities(source)
    folders = {
        entry.name.rpartition("/")[0]
        for entry in corpus.walk(shown=identify.mask)
        if Path(entry.name).suffix.lower() in IMAGE_ENDINGS
    }
    num_odd = 0
    for folder in sorted(folders):
        match folder.split("/"):
            case [who, "1.6", video, number] if re.fullmatch(r"[0-9]+", number):
                try:
                    key = TrackKey(identify(who), video, int(number))
                    corpus.add(Track(key, folder, FaceSource.DENSE, person=who))
                except TrackError as error:
                    masked = identify.mask(who)
                    track_id = TrackKey(masked, video, int(number)).track_id
                    corpus.drop(track_id, f"{masked}/1.6/{video}/{number}", error)
            case _:
                num_odd += 1
    if num_odd:
        corpus.note(
            f"{num_odd} folders hold JPEGs, but are not <name>/1.6/<video>/<track>, and are "
            "left aside"
        )
    return corpus


class _Identities:
    """Turns folder names into ids. A person's name never comes out."""

    def __init__(self, source: Source) -> None:
        self._folder = lists_folder(source.meta, source.root)
        self._names: dict[str, str] | None = None

    def __call__(self, who: str) -> str:
        if IDENTITY.fullmatch(who):
            return who
        if self._names is None:
            self._names = read_names(self._folder)
        if who not in self._names:
            raise TrackError("plan", "UnknownName", "the folder's name is not in vox1_meta.csv")
        return self._names[who]

    def mask(self, path: str, position: int = 0) -> str:
        """The path with the folder at `position` as an id, or else as a stand-in for its name."""
        parts = path.split("/")
        if position < len(parts):
            parts[position] = self._mask(parts[position])
        return "/".join(parts)

    def _mask(self, who: str) -> str:
        if IDENTITY.fullmatch(who):
            return who
        if self._names and who in self._names:
            return self._names[who]
        return f"unknown-{blake2b(os.fsencode(who), digest_size=4).hexdigest()}"


def _folder(source: Source) -> Corpus:
    corpus = Corpus(source.root)
    for entry in corpus.walk():
        path = Path(entry.name)
        if path.suffix.lower() not in VIDEO_ENDINGS:
            continue
        *parents, stem = entry.name[: -len(path.suffix)].split("/")
        identity, inner = (parents[0], parents[1:]) if parents else (stem, [])
        if len(inner) == 1 and re.fullmatch(r"[0-9]{1,9}", stem):
            video, number = inner[0], int(stem)
        else:
            video, number = "+".join([*inner, stem]), 0
        if entry.is_file:
            corpus.add(Track(TrackKey(identity, video, number), entry.name, FaceSource.DETECT))
        else:
            error = TrackError("plan", "NotAFile", "is a folder, a broken link or a device")
            corpus.drop(TrackKey(identity, video, number).track_id, entry.name, error)
    return corpus


def _table(source: Source) -> Corpus:
    from emovox.corpus.track_table import read_track_table

    assert source.table is not None
    return read_track_table(source.table, source.root)


LAYOUTS: dict[str, Callable[[Source], Corpus]] = {
    "voxceleb2": _voxceleb2,
    "voxceleb1": _voxceleb1,
    "dense-frames": _dense_frames,
    "folder": _folder,
    "table": _table,
}
