"""Location of a track's sound: files with the names of the track, or its part of the source."""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, overload

from emovox.corpus.layouts import folder_key
from emovox.corpus.tracks import AUDIO_ENDINGS, MEDIA_ENDINGS, Files, ending_of, safely
from emovox.corpus.voxceleb import META, lists_folder, read_names
from emovox.errors import InputError
from emovox.ids import TrackKey, is_below, is_name, parse_track_id

if TYPE_CHECKING:
    import numpy as np

    from emovox.dataset.reader import Dataset

PREFERRED = (".wav", ".flac", ".m4a")  # then other sound, then video
VIDEO = len(PREFERRED) + 1  # rank of video files

StrPath = str | os.PathLike[str]
Place = tuple[str | None, int | None, int | None]  # source, start_ms and end_ms of a track

# Folders between the root and the identities or persons.
BETWEEN = ("", "wav", "aac", "mp4", "voxceleb1_wav")
PARTS = ("", "dev", "test")

NUMBERED = re.compile(r"(.+)_([0-9]+)", re.DOTALL)  # below a person
MAX_KEPT = 256  # folders of identities; neighbours in a dataset share one


@overload
def audio_path(root: StrPath, track_id: str, meta: StrPath | None = None) -> Path: ...
@overload
def audio_path(
    root: StrPath, track_id: str, meta: StrPath | None = None, *, missing_ok: bool
) -> Path | None: ...
def audio_path(
    root: StrPath, track_id: str, meta: StrPath | None = None, *, missing_ok: bool = False
) -> Path | None:
    """Return the path of a track's sound file, or of the video that contains it.

    Finds `<identity>/<video>/<00001>` (VoxCeleb1 since 2019, and VoxCeleb2) and
    `<person>/<video>_<0000001>` (earlier VoxCeleb1, with or without a folder for the set), with
    any number of zeros and any ending of sound or video, below the root or its folders wav, aac,
    mp4, voxceleb1_wav, dev and test; and the files of the layout `folder`, which are one track
    each. The sound of a track that is a part of a longer video needs `track_audio`.

    Args:
        root: folder of the corpus.
        track_id: `<identity>/<video>/<number>`.
        meta: folder of vox1_meta.csv, for trees with names of persons; None: the root, or the
            files that `emovox download splits` fetched.
        missing_ok: return None instead of raising if the file is missing.

    Raises:
        InputError: the file is missing, or `root` or `meta` is not a folder.

    Example:
        >>> audio_path("emovox-demo/corpus", "demo00/scene00x00/00001").as_posix()
        'emovox-demo/corpus/mp4/demo00/scene00x00/00001.mp4'
    """
    tree = _tree(Path(root), None if meta is None else Path(meta))
    if (path := tree.find(track_id)) is None:
        _tree.cache_clear()  # the next call finds a file that appears now
        if not missing_ok:
            raise tree.missing(track_id)
    return path


def track_audio(dataset: "Dataset | StrPath", track_id: str, root: StrPath) -> "np.ndarray":
    """Read the sound of a track as float32 `[L]`, mono, 16 kHz, whatever the layout.

    Args:
        dataset: the dataset, or its folder.
        track_id: a track of it.
        root: folder of the corpus that it was built from, or of the sound of its tracks.

    Raises:
        KeyError: the track is unknown.
        InputError: the sound is missing or unreadable.

    Example:
        >>> demo, track_id = "emovox-demo", "demo00/scene00x00/00001"
        >>> track_audio(f"{demo}/dataset", track_id, f"{demo}/corpus").shape
        (74080,)
    """
    from emovox.dataset.reader import load
    from emovox.media.audio import read_audio

    if isinstance(dataset, str | os.PathLike):
        dataset = load(dataset)
    tree = _tree(Path(root), None)
    if (sound := tree.locate(track_id, *dataset.source(track_id))) is None:
        _tree.cache_clear()
        raise tree.missing(track_id)
    return read_audio(sound.path, sound.start, sound.end)


@lru_cache(maxsize=8)
def _tree(root: Path, meta: Path | None) -> "AudioTree":
    return AudioTree(root, meta)


@dataclass(frozen=True)
class Sound:
    """A file with the sound or the pictures of a track, and the track's part of it."""

    path: Path  # audio file, video, or folder of JPEGs
    start: float = 0.0  # seconds on the file's clock where the track starts
    end: float | None = None  # seconds where it ends; None: the file ends with it


class AudioTree:
    """A corpus folder, for many lookups; the names of the latest identities' files are kept.

    Raises:
        InputError: `root`, the folder of the corpus, or `meta` (see `audio_path`) is not a folder.
    """

    def __init__(self, root: Path, meta: Path | None = None) -> None:
        for folder in (root, meta or root):
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")
        self.root = root
        lists = lists_folder(meta, root)
        self._persons: dict[str, list[str]] = {}  # spellings of the name of each identity
        for name, identity in (read_names(lists) if (lists / META).is_file() else {}).items():
            self._persons.setdefault(identity, []).append(name)
        parts, between = ([n and f"{n}/" for n in names] for names in (PARTS, BETWEEN))
        prefixes = [f"{part}{folder}" for part in parts for folder in between]
        self._bases = [prefix for prefix in prefixes if (root / prefix).is_dir()]
        self._files = Files(root)
        self._index = lru_cache(MAX_KEPT)(self._read_index)
        self._stems = lru_cache(MAX_KEPT)(self._read_stems)

    def find(self, track_id: str) -> Path | None:
        """Return the first file with the track's names, by folder, then by ending, or None."""
        return self._first(self._named(_parse(track_id)))

    def locate(
        self,
        track_id: str,
        source: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> Sound | None:
        """Return the sound of a track of a dataset; None if it is missing.

        It is the first that exists: a sound file with the track's names; a sound file with the name
        of the source; the source; a video with the track's names.

        `source` is as in the table `tracks`; the track is its part from `start_ms` to `end_ms`, in
        milliseconds.

        Raises:
            InputError: the source is not a path below the root.
        """
        key = _parse(track_id)
        sources = [] if source is None else self._spelt(source, key)
        # Files beside the source are other recordings, whatever their numbers.
        beside = {name.rpartition("/")[0] for name in sources}
        named = list(self._named(key))
        sounds = (n for n in named if _rank(n) < VIDEO and n.rpartition("/")[0] not in beside)
        if sources and (path := self._first(sounds)):
            return Sound(path)
        if path := self._first(name for each in sources for name in self._sound_of(each)):
            return _part(path, start_ms, end_ms)
        return Sound(path) if (path := self._first(named)) else None

    def find_pictures(self, track_id: str, place: Place) -> Sound | None:
        """Return the video, or the folder of JPEGs, that shows a track.

        It is the source, or else a video with the track's names; None if both are missing. `place`
        has the source and the milliseconds of it where the track starts and ends.
        """
        key, (source, start_ms, end_ms) = _parse(track_id), place
        for name in [] if source is None else self._spelt(source, key):
            if safely((self.root / name).exists):
                return _part(self.root / name, start_ms, end_ms)
        path = self._first(name for name in self._named(key) if _rank(name) == VIDEO)
        return Sound(path) if path else None

    def missing(self, track_id: str) -> InputError:
        """Return the error for a missing track."""
        known = "" if self._persons else f"; a tree with names of persons needs {META}"
        places = ", ".join(BETWEEN[1:] + PARTS[1:])
        return InputError(
            f"{self.root}: no audio of {track_id}, in this folder or in {places}{known}"
        )

    def _first(self, names: Iterable[str]) -> Path | None:
        """Return the first name that is a file now: the kept names may be older."""
        paths = (self.root / name for name in names)
        return next((path for path in paths if safely(path.is_file)), None)

    def _named(self, key: TrackKey) -> Iterator[str]:
        """Yield the files with the names of a track, by folder, best ending first."""
        for base in self._bases:
            found = self._index(base, key.identity_id, None).get(key, [])
            for person in self._persons.get(key.identity_id, ()):
                found = found + self._index(base, person, key.identity_id).get(key, [])
            if key == TrackKey(key.identity_id, key.identity_id, 0):
                found = self._stems(base).get(key.identity_id, []) + found
            yield from sorted(found, key=_rank)

    def _read_index(
        self, base: str, folder: str, identity: str | None
    ) -> dict[TrackKey, list[str]]:
        """Return the media files below a folder by track; `identity` is that of a person's name."""
        found: dict[TrackKey, list[str]] = defaultdict(list)
        for entry in self._files.walk(f"{base}{folder}", lambda *_: None):
            if _rank(entry.name) > VIDEO:
                continue
            if identity is None:
                found[folder_key(entry.name.removeprefix(base))].append(entry.name)
            elif match := NUMBERED.fullmatch(PurePath(entry.name).stem):
                found[TrackKey(identity, match[1], int(match[2]))].append(entry.name)
        return {key: sorted(names) for key, names in found.items()}

    def _read_stems(self, folder: str) -> dict[str, list[str]]:
        """Return the media files of a folder by their name without ending."""
        found: dict[str, list[str]] = defaultdict(list)
        with contextlib.suppress(OSError):
            for path in sorted((self.root / folder).iterdir()):
                if _rank(path.name) <= VIDEO:
                    found[path.stem].append(f"{folder}{path.name}")
        return dict(found)

    def _spelt(self, source: str, key: TrackKey) -> list[str]:
        """Return the possible paths of a source, in which an id may replace a person's name."""
        parts = source.split("/")
        persons = self._persons.get(key.identity_id, [])
        names = ([who if p == key.identity_id else p for p in parts] for who in persons)
        spelt = list(dict.fromkeys([source, *map("/".join, names)]))
        if not all(map(is_below, spelt)):
            raise InputError(f"source {source!r} of {key.track_id}: not a path below the corpus")
        return spelt

    def _sound_of(self, source: str) -> list[str]:
        """Return the sound files with the name of a source, best ending first, and the source."""
        folder, slash, name = source.rpartition("/")
        same = self._stems(folder + slash).get(PurePath(name).stem, [])
        return [*sorted((n for n in same if _rank(n) < VIDEO), key=_rank), source]


def _part(path: Path, start_ms: int | None, end_ms: int | None) -> Sound:
    return Sound(path, (start_ms or 0) / 1000, None if end_ms is None else end_ms / 1000)


def _parse(track_id: str) -> TrackKey:
    key = parse_track_id(track_id)
    if key is None or not is_name(key.identity_id) or not is_name(key.video_id):
        raise InputError(f"{track_id!r} is not a track_id: <identity>/<video>/<number>")
    return key


def _rank(name: str) -> int:
    """Return the place of a file's ending in the order of preference; above `VIDEO` for others."""
    ending = ending_of(name)
    if ending in PREFERRED:
        return PREFERRED.index(ending)
    return VIDEO - 1 if ending in AUDIO_ENDINGS else VIDEO + (ending not in MEDIA_ENDINGS)
