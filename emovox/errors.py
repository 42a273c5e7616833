"""Errors that emovox raises on purpose, and their exit codes.

::

    EmovoxError                    1
    ├── ConfigError (ValueError)   2   an option or a TOML key is not valid
    │   └── MissingPackageError    2   an optional package is not installed (ImportError)
    ├── InputError (ValueError)    2   a file or folder is missing, unreadable or malformed
    ├── CheckError                 1   the data or the run failed a check
    ├── NetworkError               3   a server is unreachable or does not have the file
    └── TrackError                 -   a track gives no rows: it becomes a row of `dropped`

A message is one line: where, what is wrong, and what to do.
"""


def first_line(error: BaseException | None) -> str:
    """Return the reason of an exception in one line, or its class name when it has no text.

    The reason of an error of the system is without its number and path.
    """
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(text).splitlines()[0]


class EmovoxError(Exception):
    """Base of all errors that a user can fix."""

    exit_code = 1


class ConfigError(EmovoxError, ValueError):
    """An option, a TOML key or a combination of them is not valid."""

    exit_code = 2


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
        self.stage = stage
        self.error = error
        self.message = message

    def __str__(self) -> str:
        return f"{self.stage}: {self.error}: {self.message}"
