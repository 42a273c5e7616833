"""Every error that emovox raises on purpose, and the exit code each one means.

::

    EmovoxError                    1
    ├── ConfigError (ValueError)   2   an option or a TOML key that makes no sense
    │   └── MissingPackageError    2   an optional package is not installed (ImportError)
    ├── InputError (ValueError)    2   a file or folder that is not what it should be
    ├── CheckError                 1   the data, or the run, failed a check
    ├── NetworkError               3   a server was not reached, or does not have the file
    └── TrackError                 -   one track gives no rows: it becomes a row of `dropped`

A message is one line that says what is wrong, where, and what to do about it.
"""


def first_line(error: BaseException | None) -> str:
    """Return the first line of an exception's text, or its class name when it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class EmovoxError(Exception):
    """Base of all errors that a user can do something about."""

    exit_code = 1


class ConfigError(EmovoxError, ValueError):
    """An option, a TOML key or a combination of them is not valid."""

    exit_code = 2


class MissingPackageError(ConfigError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


class InputError(EmovoxError, ValueError):
    """A file or folder is missing, unreadable or not of the form asked for."""

    exit_code = 2


class CheckError(EmovoxError):
    """The data or the run failed a check, for example an identity on both sides of a split."""


class NetworkError(EmovoxError):
    """A server was not reached, broke off again and again, or does not have the file."""

    exit_code = 3


class TrackError(EmovoxError):
    """One track cannot give rows. Never leaves a build: it becomes a row of `dropped`.

    Args:
        stage: where it failed: `plan`, `split`, `open`, `decode`, `boxes`, `faces` or `time`.
        error: short name of the reason, for counting (`FileNotFound`, `NoFrames`, ...).
        message: one line with the particulars, without absolute paths.
    """

    def __init__(self, stage: str, error: str, message: str) -> None:
        super().__init__(stage, error, message)
        self.stage = stage
        self.error = error
        self.message = message

    def __str__(self) -> str:
        return f"{self.stage}: {self.error}: {self.message}"
