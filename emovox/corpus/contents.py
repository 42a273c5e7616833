"""Files of a corpus that are not what their names promise: Git LFS pointers, and copies."""

from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from emovox.corpus.tracks import Corpus, FaceSource
from emovox.errors import TrackError
from emovox.files import LFS_HINT, is_lfs_pointer, sha256_file
from emovox.paths import is_remote, map_ahead

MAX_POINTER = 1024  # bytes of a Git LFS pointer
SAMPLE = 4096  # bytes in the middle of a file, which rule out most copies


def check_contents(corpus: Corpus) -> None:
    """Drop Git LFS pointers, and note files that occur under two identities or videos.

    Only files of equal size are compared. Files behind a URL, and folders of pictures, are not.
    """
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for track in [] if is_remote(corpus.root) else corpus.tracks:
        if track.faces is not FaceSource.DENSE:
            owners[track.source].add((track.key.identity_id, track.key.video_id))
    by_size: dict[object, list[str]] = defaultdict(list)
    pointers = set()
    for source in owners:
        size, *_ = corpus.files.state(source) or (0,)
        if size > MAX_POINTER:
            by_size[size].append(source)
        elif size and is_lfs_pointer(corpus.root / source):
            pointers.add(source)
    if pointers:
        error = TrackError("open", "GitLfsPointer", LFS_HINT)
        for track in corpus.tracks:
            if track.source in pointers:
                corpus.drop(track.track_id, track.shown(track.source), error)
        corpus.tracks = [track for track in corpus.tracks if track.source not in pointers]
        what = "media files: Git LFS pointers; run `git lfs pull` and rerun"
        corpus.note(f"{len(pointers):,} {what}")
    groups = list(by_size.values())
    for digest in (_sample, sha256_file):
        several = [g for g in groups if len(g) > 1 and len({o for n in g for o in owners[n]}) > 1]
        groups = _split(corpus.root, several, digest)
    if copies := [group for group in groups if len(group) > 1]:
        first, second, *_ = copies[0]
        corpus.note(
            f"{sum(map(len, copies)) - len(copies):,} files are copies of a file of another "
            f"identity or video, for example {second} of {first}; remove them, or they may leak "
            "between splits"
        )


def _split(
    root: Path, groups: list[list[str]], digest: Callable[[Path], object]
) -> list[list[str]]:
    def of(name: str) -> object:
        try:
            return digest(root / name)
        except OSError:
            return name  # the same as no other file

    names = list(chain.from_iterable(groups))
    digests = dict(zip(names, map_ahead(of, names), strict=True))
    split: list[list[str]] = []
    for group in groups:
        same: dict[object, list[str]] = defaultdict(list)
        for name in group:
            same[digests[name]].append(name)
        split += same.values()
    return split


def _sample(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(SAMPLE)
