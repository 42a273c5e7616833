"""Media of a shard as local files, fetched ahead of use."""

import errno
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from itertools import groupby
from pathlib import Path

from emovox.corpus.tracks import FaceSource, Track
from emovox.errors import TrackError
from emovox.paths import error_name, is_remote, local_copy

AHEAD = 2  # sources fetched before they are needed
OUR_OWN = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)  # faults of this machine


class Sources(AbstractContextManager["Sources"]):
    """Local paths of the media of tracks; ask for them in the order of the tracks.

    Local media stay where they are. A remote file is kept until a track needs the next one, so
    that a video with many tracks is fetched once.
    """

    def __init__(self, root: Path, tracks: Iterable[Track]) -> None:
        self._root = root
        self._next = iter([next(same) for _, same in groupby(tracks, lambda track: track.source)])
        self._fetched: deque[tuple[str, ExitStack, Future[Path]]] = deque()
        self._threads = ThreadPoolExecutor(AHEAD)

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while self._fetched:
            self._remove()

    def local(self, track: Track) -> Path:
        """Return the local path of a track's video or JPEGs; TrackError if it cannot be fetched."""
        root = self._root
        if not is_remote(self._root):
            return root / track.source
        while self._fetched and self._fetched[0][0] != track.source:
            self._remove()
        while len(self._fetched) <= AHEAD and (ahead := next(self._next, None)):
            copies, is_folder = ExitStack(), ahead.faces is FaceSource.DENSE
            copy = local_copy(root / ahead.source, is_folder=is_folder)
            copied = self._threads.submit(copies.enter_context, copy)
            self._fetched.append((ahead.source, copies, copied))
            if self._fetched[0][0] != track.source:  # the source of a track that was skipped
                self._remove()
        try:
            return self._fetched[0][2].result()
        except OSError as error:
            if error.errno in OUR_OWN:
                raise
            name = error_name(error, self._root)
            raise TrackError("open", name, error.strerror or "cannot be fetched") from error

    def _remove(self) -> None:
        _, copies, copied = self._fetched.popleft()
        if not copied.cancel():
            copied.exception()  # waits: a copy must not appear after its removal
        copies.close()
