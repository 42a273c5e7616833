"""Errors that emovox raises on purpose, and their exit codes.

::

    EmovoxError                    1
    ├── ConfigError (ValueError)   2   an option or a TOML key is not valid
    │   └── MissingPackageError    2   an optional package is not installed (ImportError)
    ├── InputError (ValueError)    2   a file or folder is missing, unreadable or malformed
    ├── CheckError                 1   the data or the run failed a check
    ├── NetworkError               3   a server is unreachable or does not have the file
    └── TrackError                 -   a track gives no rows: it becomes a row of `dropped`

A message is one line: where, what is wrong, and what to do; `without_secrets` of URLs.
"""

import errno
import re
from collections.abc import Iterable

from emovox.urls import without_secrets

NO_MEMORY = re.compile("can(no|')t (allocate memory|start new thread)|map segment|bad_alloc", re.I)


def first_line(error: BaseException | None) -> str:
    """Return the reason of an exception in one line, or its class name when it has no text.

    The reason of an error of the system is without its number and path.
    """
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return without_secrets(str(text).splitlines()[0])


def lacks_memory(error: BaseException) -> bool:
    """Return True if the system refused memory, to Python or to a library that it loads."""
    is_full = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return is_full or NO_MEMORY.search(str(error)) is not None


class EmovoxError(Exception):
    """Base of all errors that a user can fix."""

    exit_code = 1

    def __init__(self, *texts: str) -> None:
        super().__init__(*map(without_secrets, texts))


class ConfigError(EmovoxError, ValueError):
    """An option, a TOML key or a combination of them is not valid."""

    exit_code = 2


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ConfigError unless an option has one of these values."""
    if value not in (known := tuple(choices)):
        raise ConfigError(f"{name} {value!r} is not one of {', '.join(known)}")


class MissingPackageError(ConfigError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


class InputError(EmovoxError, ValueError):
    """A file or folder is missing, unreadable or malformed."""

    exit_code = 2


class CheckError(EmovoxError):
    """The data or the run failed a check, for example an identity on both sides of a split."""


class NetworkError(EmovoxError):
    """A server is unreachable, keeps breaking off, or does not have the file."""

    exit_code = 3


class TrackError(EmovoxError):
    """A track gives no rows. A build catches it and writes a row of `dropped`.

    Args:
        stage: stage that failed: `plan`, `split`, `open`, `decode`, `boxes`, `faces` or `time`.
        error: short name of the reason, for counting (`FileNotFound`, `NoFrames`, ...).
        message: one line of details, without absolute paths.
    """

    def __init__(self, stage: str, error: str, message: str) -> None:
        super().__init__(stage, error, message)
        self.stage, self.error, self.message = self.args

    def __str__(self) -> str:
        return f"{self.stage}: {self.error}: {self.message}"
