"""Location of a track's sound, in every tree that VoxCeleb is distributed as."""

import os
from functools import lru_cache
from pathlib import Path
from typing import overload

from emovox.corpus.listing import VIDEO_ENDINGS
from emovox.corpus.voxceleb import META, lists_folder, read_names
from emovox.errors import InputError
from emovox.ids import parse_track_id

ENDINGS = (".wav", ".flac", ".m4a", ".mp4")  # in order of preference
FILMS = (*ENDINGS, *sorted(VIDEO_ENDINGS - set(ENDINGS)))
FILM_ENDINGS = (*FILMS, *(ending.upper() for ending in FILMS))  # cameras write capitals

StrPath = str | os.PathLike[str]

# Folders between the root and the identities or persons.
BETWEEN = ("", "wav", "aac", "mp4", "voxceleb1_wav")
PARTS = ("", "dev", "test")


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
    `<person>/<video>_<0000001>` (earlier VoxCeleb1, with or without a folder for the set), below
    the root or its folders wav, aac, mp4, voxceleb1_wav, dev and test; and the files of the layout
    `folder`, which are one track each.

    Args:
        root: folder of the corpus.
        track_id: `<identity>/<video>/<number>`.
        meta: folder of vox1_meta.csv, for trees with names of persons; None: the root, or the
            files that `emovox download splits` fetched.
        missing_ok: return None instead of raising if the file is missing.

    Raises:
        InputError: the file is missing (the message lists the searched names), or `root` or `meta`
            is not a folder.

    Example:
        >>> audio_path("emovox-demo/corpus", "demo00/scene00x00/00001").as_posix()
        'emovox-demo/corpus/mp4/demo00/scene00x00/00001.mp4'
    """
    tree = _tree(Path(root), None if meta is None else Path(meta))
    path = tree.find(track_id)
    if path is None:
        _tree.cache_clear()  # a folder or the table may exist next time
        if not missing_ok:
            raise tree.missing(track_id)
    return path


@lru_cache(maxsize=8)
def _tree(root: Path, meta: Path | None) -> "AudioTree":
    return AudioTree(root, meta)


class AudioTree:
    """A corpus folder and the known folders in it, for many lookups.

    Args:
        root: folder of the corpus.
        meta: see `audio_path`.

    Raises:
        InputError: `root` or `meta` is not a folder.
    """

    def __init__(self, root: Path, meta: Path | None = None) -> None:
        for folder in (root, meta or root):
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")
        self.root = root
        self._persons = _persons(lists_folder(meta, root))
        prefixes = [f"{part}{folder}" for part in _prefixes(PARTS) for folder in _prefixes(BETWEEN)]
        self._folders = [root / prefix for prefix in prefixes if (root / prefix).is_dir()]

    def find(self, track_id: str) -> Path | None:
        """Return the first existing file, by folder, then by ending; None if the track has none."""
        names = [f"{stem}{ending}" for ending in ENDINGS for stem in self._stems(track_id)]
        names += [f"{stem}{ending}" for stem in _whole_files(track_id) for ending in FILM_ENDINGS]
        paths = (folder / name for folder in self._folders for name in names)
        return next((path for path in paths if path.is_file()), None)

    def missing(self, track_id: str) -> InputError:
        """Return the error for a missing track, which lists the searched names."""
        known = "" if self._persons else f"; a tree with names of persons needs {META}"
        stems = self._stems(track_id) + _whole_files(track_id)
        return InputError(
            f"{self.root}: no audio of {track_id}; searched for "
            f"{' and '.join(stems)} with {', '.join(ENDINGS)}, in this folder and "
            f"{', '.join(BETWEEN[1:] + PARTS[1:])}{known}"
        )

    def _stems(self, track_id: str) -> list[str]:
        key = parse_track_id(track_id)
        if key is None or ".." in track_id.split("/"):
            raise InputError(f"{track_id!r} is not a track_id: <identity>/<video>/<number>")
        video, number = key.video_id, key.track_num
        stems = [key.track_id]
        for person in self._persons.get(key.identity_id, ()):
            stems += [
                f"{person}/{folder}{video}_{number:07d}"
                for folder in _prefixes(("", "train", "val", "test"))
            ]
        return stems


def _whole_files(track_id: str) -> list[str]:
    """Return the possible names, without ending, of a track's file in the layout `folder`."""
    identity, video, number = track_id.split("/")
    if int(number):
        return []
    inner = f"{identity}/{video}", f"{identity}/{video.replace('+', '/')}"
    return list(dict.fromkeys([*inner, *([video] if video == identity else [])]))


def _persons(folder: Path) -> dict[str, list[str]]:
    """Return the spellings of each identity's name; empty if the folder has no vox1_meta.csv."""
    persons: dict[str, list[str]] = {}
    if (folder / META).is_file():
        for name, identity in read_names(folder).items():
            persons.setdefault(identity, []).append(name)
    return persons


def _prefixes(folders: tuple[str, ...]) -> list[str]:
    return [f"{folder}/" if folder else "" for folder in folders]
