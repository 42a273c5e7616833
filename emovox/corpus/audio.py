"""Which audio file belongs to which track, in any of the trees that VoxCeleb comes in."""

from functools import lru_cache
from pathlib import Path

from emovox.cache import cache_folder
from emovox.corpus.tables import TRACK_ID
from emovox.corpus.voxceleb import read_names
from emovox.errors import InputError

ENDINGS = (".wav", ".flac", ".m4a", ".mp4")  # the first that is there wins
# Folders that lie between the root and the identities or persons.
BETWEEN = ("", "wav", "aac", "mp4", "voxceleb1_wav")
PARTS = ("", "dev", "test")
META = "vox1_meta.csv"


def audio_path(root: str | Path, track_id: str, meta: str | Path | None = None) -> Path:
    """Find the audio, or the video with it, of a track.

    Knows `<identity>/<video>/<00001>` (VoxCeleb1 since 2019, and VoxCeleb2) and
    `<person>/<video>_<0000001>` (VoxCeleb1 before that, with or without a folder for the set in
    between), below the root itself or its folders wav, aac, mp4, voxceleb1_wav, dev and test.

    Args:
        root: folder of the corpus.
        track_id: `<identity>/<video>/<number>`.
        meta: folder of vox1_meta.csv, for trees with persons' names; the root or what
            `emovox download splits` fetched if None.

    Raises:
        InputError: there is no such file; says where it was looked for.
    """
    return _tree(Path(root), None if meta is None else Path(meta)).find(track_id)


@lru_cache(maxsize=8)
def _tree(root: Path, meta: Path | None) -> "_AudioTree":
    return _AudioTree(root, meta)


class _AudioTree:
    """A corpus folder that remembers in which form it named the last file."""

    def __init__(self, root: Path, meta: Path | None) -> None:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder")
        self.root = root
        self._persons = _persons([meta] if meta else [root, cache_folder() / "splits"])
        self._forms = [
            f"{part}{between}{{stem}}{ending}"
            for part in _prefixes(PARTS)
            for between in _prefixes(BETWEEN)
            for ending in ENDINGS
        ]

    def find(self, track_id: str) -> Path:
        stems = self._stems(track_id)
        for place, form in enumerate(self._forms):
            for stem in stems:
                path = self.root / form.format(stem=stem)
                if path.is_file():
                    self._forms.insert(0, self._forms.pop(place))
                    return path
        if not self._persons:
            _tree.cache_clear()  # the table may be there the next time
        known = "" if self._persons else f"; for a tree with persons' names, {META} is needed"
        raise InputError(
            f"{self.root}: no audio of {track_id}: looked for {' and '.join(stems)} with "
            f"{', '.join(ENDINGS)}, here and below {', '.join(BETWEEN[1:] + PARTS[1:])}{known}"
        )

    def _stems(self, track_id: str) -> list[str]:
        match = TRACK_ID.fullmatch(track_id)
        if match is None or ".." in track_id.split("/"):
            raise InputError(f"{track_id!r} is no track_id: <identity>/<video>/<number>")
        identity, video, number = match[1], match[2], int(match[3])
        stems = [f"{identity}/{video}/{number:05d}"]
        for person in self._persons.get(identity, ()):
            stems += [
                f"{person}/{folder}{video}_{number:07d}"
                for folder in _prefixes(("", "train", "val", "test"))
            ]
        return stems


def _persons(folders: list[Path]) -> dict[str, list[str]]:
    """The spellings of each identity's name; empty where no folder has the table."""
    persons: dict[str, list[str]] = {}
    for folder in folders:
        if (folder / META).is_file():
            for name, identity in read_names(folder).items():
                persons.setdefault(identity, []).append(name)
            break
    return persons


def _prefixes(folders: tuple[str, ...]) -> list[str]:
    return [f"{folder}/" if folder else "" for folder in folders]
