"""Errors that emovox raises on purpose, and their exit codes.

::

    EmovoxError                    1
    ├── ConfigError (ValueError)   2   an option or a TOML key is not valid
    │   └── MissingPackageError    2   an optional package is not installed (ImportError)
    ├── InputError (ValueError)    2   a file or folder is missing, unreadable or malformed
    │   └── NoSoundError           2   it has no sound, or none in the requested part
    ├── CheckError                 1   the data or the run failed a check
    ├── NetworkError               3   a server is unreachable or does not have the file
    └── TrackError                 -   a track gives no rows: it becomes a row of `dropped`

A message is one line: where, what is wrong, and what to do; `without_secrets` of URLs.
"""

import errno
import re
from collections.abc import Iterable

_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,30}:/+[^\s'\"<>]+?(?=[:;,.)]{0,4}(?:[\s'\"<>]|$))")
# A password may contain slashes, but a number after the colon is a port.
_USER = re.compile(r"\A(?:[^/:]+:(?!\d+(?:/|$)).*|[^/]*)@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)
# In an object store, ? and # may belong to the name of an object.
_QUERY_OF_KEYS = re.compile(r"[?#][\w.~%+-]+=.*", re.DOTALL)
_REQUEST = re.compile(r"(\burl: /[^\s?]*)\?\S*")  # urllib3's messages, without the host

# Secrets outside of a URL too: signatures and tokens, and users with a password.
_SECRET = re.compile(
    r"(?i)[?&]?(?:\bX-(?:Amz|Goog)-[\w-]+|signature|token|password|secret|credential"
    r"|(?<![a-z])(?:sig|api[_-]?key|AWSAccessKeyId))=[^\s&'\"<>)]+|X-(?:Amz|Goog)-[\w-]*"
    r"|(?!mailto:)(?<![^\s'\"/(=])[^\s'\"/:@(=]+:[^\s'\"/@]+@(?=[\w\[]|$)"
)
_MARKS = ("=", "@", "X-", "x-")  # every secret has one; faster than the expression


def find_secrets(text: str) -> list[str]:
    """Return the signatures, tokens and users with passwords in a text."""
    return _SECRET.findall(text) if any(mark in text for mark in _MARKS) else []


def public_url(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    protocol, slashes, rest = url.partition("://")
    pattern = _QUERY if protocol.startswith(("http", "ftp", "webdav")) else _QUERY_OF_KEYS
    return f"{protocol}{slashes}{pattern.sub('', _USER.sub('', rest))}"


def without_secrets(text: str) -> str:
    """Return a text without the secrets of URLs in it, and without signatures and tokens.

    Example:
        >>> without_secrets("https://me:pass@example.org/t.csv?X-Amz-Signature=1f: no such file")
        'https://example.org/t.csv: no such file'
    """
    text = _REQUEST.sub(r"\1", _URL.sub(lambda match: public_url(match[0]), text))
    return _SECRET.sub("", text)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk
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
        raise ConfigError(f"{name} {value!r} is not one of {list_names(value, known)}")


def list_names(wrong: str, known: Iterable[str]) -> str:
    """Return the known names, and a question for the one that a wrong name resembles."""
    import difflib  # slow to import

    names = [*known]
    likely = difflib.get_close_matches(wrong, names, 1)
    return ", ".join(names) + (f"; did you mean {likely[0]}?" if likely else "")


class MissingPackageError(ConfigError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


class InputError(EmovoxError, ValueError):
    """A file or folder is missing, unreadable or malformed."""

    exit_code = 2


class NoSoundError(InputError):
    """A file has no sound, or none in the requested part."""


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
