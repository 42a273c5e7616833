"""One run at a time in a folder of state, local or remote."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from emovox.errors import EmovoxError
from emovox.paths import RemotePath, is_remote

REFRESH = 5.0  # seconds between signs of life of a run that holds a remote folder
PATIENCE = 4  # of those intervals without one, and the run counts as dead
LAST_WORD = 10.0  # seconds that the end of a run waits for a sign of life that is under way


@contextlib.contextmanager
def held(state: Path, out: Path) -> Iterator[Callable[[], None]]:
    """Hold `state` for a build of `out`; yield what to call before anything final.

    That call raises `EmovoxError` once another run has taken the folder over, which may happen to
    one that was suspended, or cut off from the network.

    Raises:
        EmovoxError: another run holds it.
    """
    if is_remote(state):
        with Lease(state / "lock", out) as lease:
            yield lease.check
        return
    lock = FileLock(state / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _busy(out) from None
    try:
        yield lambda: None
    finally:
        lock.release()


def _busy(out: Path) -> EmovoxError:
    return EmovoxError(f"{out}: another run is building this dataset; wait for it")


class Lease:
    """A lock for stores that know neither locks nor a common clock: an object that keeps changing.

    Its owner writes a token of its own and a number that grows. Whoever finds one watches whether
    it changes, by its own clock alone, and takes over what does not. Should two take over at the
    same time, the one who wrote last has it, and the other finds a strange token.
    """

    def __init__(self, path: RemotePath, out: Path) -> None:
        self._path, self._out = path, out
        self._token = secrets.token_hex(8)
        self._count = 0
        self._lost = False
        self._seen = time.monotonic()  # when the lock was last known to be ours
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "Lease":
        if not self._create():
            self._watch()
            self._write()
            time.sleep(REFRESH)  # for another that takes over just now
        if not self._is_ours():
            raise _busy(self._out)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(LAST_WORD)
        with contextlib.suppress(OSError):  # then the next run finds it dead
            if not self._lost and self._is_ours():
                self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `EmovoxError` if the lock is no longer ours."""
        if not self._lost and time.monotonic() - self._seen > 2 * REFRESH:
            self._lost = not self._is_ours()  # this process, or the store, was out for a while
        if self._lost:
            raise EmovoxError(
                f"{self._out}: another run has taken this build over, which had given no sign of "
                "life; this one stops"
            )

    def _create(self) -> bool:
        if self._read():  # not every file system refuses to replace a file
            return False
        try:
            self._write(new=True)
        except FileExistsError:
            return False
        return True

    def _watch(self) -> None:
        """Wait until the owner counts as dead; raise if it is alive."""
        before = self._read()
        for _ in range(PATIENCE):
            time.sleep(REFRESH)
            now = self._read()
            if now and now != before:
                raise _busy(self._out)

    def _keep(self) -> None:
        while not self._ended.wait(REFRESH) and not self._lost:
            with contextlib.suppress(OSError):  # the next try may come in time
                self._lost = not self._is_ours()
                if not self._lost:
                    self._count += 1
                    self._write()

    def _is_ours(self) -> bool:
        ours = self._read().startswith(self._token)
        if ours:
            self._seen = time.monotonic()
        return ours

    def _read(self) -> str:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""

    def _write(self, *, new: bool = False) -> None:
        self._path.write_text(f"{self._token} {self._count}\n", new=new)
