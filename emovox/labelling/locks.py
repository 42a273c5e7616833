"""Locks that allow one run at a time in a folder of state, local or remote."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from emovox.errors import EmovoxError
from emovox.files import exclusive
from emovox.paths import RemotePath, is_remote

REFRESH_SECONDS = 5.0  # between two heartbeats of a remote lock
MISSED_HEARTBEATS = 4  # after which the owner of a remote lock counts as dead
EXIT_SECONDS = 10.0  # that the end of a run waits for a heartbeat in progress


@contextlib.contextmanager
def held(state: Path, out: Path) -> Iterator[Callable[[], None]]:
    """Hold `state` for a build of `out`; yield a function to call before anything final.

    EmovoxError if another run holds it. The function raises it once another run has taken over: a
    run that was suspended or cut off from the network counts as dead.
    """
    if is_remote(state):
        with Lease(state / "lock", out) as lease:
            yield lease.check
        return
    with exclusive(state / "lock", _busy(out)):
        yield lambda: None


def _busy(out: Path) -> str:
    return f"{out}: another run is building this dataset; wait for it"


class Lease:
    """Lock for stores without locks and without a common clock: an object that keeps changing.

    The owner writes its token and a counter that grows. Another run watches by its own clock
    whether the object changes, and takes over one that does not. Creating the object only if it is
    absent is not enough: the lock of a killed run would stay for ever. If two runs take over at the
    same time, the last write wins, and the other finds a foreign token. Messages name `out`.
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
        try:
            is_free = not self._read()  # not every file system refuses to replace a file
            if is_free:
                self._write(new=True)
        except FileExistsError:
            is_free = False
        if not is_free:
            before = self._read()
            for _ in range(MISSED_HEARTBEATS):  # until the owner counts as dead
                time.sleep(REFRESH_SECONDS)
                if (now := self._read()) and now != before:
                    raise EmovoxError(_busy(self._out))
            self._write()
            time.sleep(REFRESH_SECONDS)  # lets a simultaneous takeover finish
        if not self._is_ours():
            raise EmovoxError(_busy(self._out))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(EXIT_SECONDS)
        with contextlib.suppress(OSError):  # the next run then finds the lock dead
            if not self._lost and self._is_ours():
                self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `EmovoxError` if the lock is no longer ours."""
        if not self._lost and time.monotonic() - self._seen > 2 * REFRESH_SECONDS:
            self._lost = not self._is_ours()  # this process or the store was suspended
        if self._lost:
            raise EmovoxError(
                f"{self._out}: another run took over this build, because this one gave no sign of "
                "life; this one stops"
            )

    def _keep(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS) and not self._lost:
            with contextlib.suppress(OSError):  # the next attempt may be in time
                self._lost = not self._is_ours()
                if not self._lost:
                    self._count += 1
                    self._write()

    def _is_ours(self) -> bool:
        if ours := self._read().startswith(self._token):
            self._seen = time.monotonic()
        return ours

    def _read(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self._path.read_text()
        return ""

    def _write(self, *, new: bool = False) -> None:
        self._path.write_text(f"{self._token} {self._count}\n", new=new)
