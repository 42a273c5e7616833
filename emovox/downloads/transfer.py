"""Download of one address into one `.part` file, over as many connections as necessary.

Received bytes stay in the `.part` file; a note beside it records their address and version. Only
bytes of the same version are appended.
"""

import contextlib
import http.client
import json
import re
from collections.abc import Callable
from pathlib import Path
from time import sleep

import requests
from requests import Response, Session
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from tqdm import tqdm
from urllib3.exceptions import LocationParseError

from emovox.errors import ConfigError, EmovoxError, NetworkError, first_line, public_url
from emovox.files import write_text
from emovox.limits import MAX_DOWNLOAD

CHUNK = 1 << 16
CONNECT_SECONDS, READ_SECONDS = 20.0, 60.0  # without an answer, and without data
ATTEMPTS = 4  # consecutive ones without new bytes
FIRST_WAIT = 1.0  # seconds before the second attempt; each further wait is twice as long
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses worth another attempt

NOT_AN_ADDRESS = (InvalidSchema, InvalidURL, LocationParseError, MissingSchema)


class _TryAgainError(Exception):
    """An attempt failed for a temporary reason."""


# The file that the bytes of a `.part` file belong to: an ETag or the time of its last change, and
# its number of bytes, if the server sent it.
_Beginning = tuple[str, int | None]


def fetch(url: str, part: Path, say: Callable[[str], object]) -> None:
    """Download `url` into `part`, resuming an earlier attempt.

    `part` is complete on return, as far as the server sends its length. `say` is called before each
    wait.

    Raises:
        NetworkError: the server cannot be reached, refuses, or keeps closing the connection.
        ConfigError: the address is not valid.
        EmovoxError: the disk is full.
    """
    most, failures = _size(part), 0
    with requests.Session() as session:
        while True:
            try:
                return _attempt(session, url, part)
            except _TryAgainError as error:
                has_grown = _size(part) > most
                most, failures = max(most, _size(part)), 1 if has_grown else failures + 1
                if failures >= ATTEMPTS:
                    raise NetworkError(f"{url}: {error}") from error
                wait = FIRST_WAIT * 2 ** (failures - 1)
                say(f"{public_url(url)}: {first_line(error)}; retrying in {wait:.0f} s")
                sleep(wait)


def discard(part: Path) -> None:
    """Remove a `.part` file and its note."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _attempt(session: Session, url: str, part: Path) -> None:
    """Request the missing bytes once, and append them."""
    beginning = _read_beginning(part, url)
    start = _size(part) if beginning else 0
    # Unencoded: lengths, ranges and hashes are those of the file.
    headers = {"Accept-Encoding": "identity"}
    if beginning and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": beginning[0]}
    timeout = (CONNECT_SECONDS, READ_SECONDS)
    try:
        with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if beginning and start and response.status_code in (206, 416):
                total = _check_range(response, part, beginning, start)
                if start == total:
                    return
            else:
                start, total = 0, _begin_anew(response, url, part)
            _append(response, part, start, total)
    except NOT_AN_ADDRESS as error:
        raise ConfigError(f"{url}: cannot download: {_reason(error)}") from error
    except requests.RequestException as error:
        raise _TryAgainError(_reason(error)) from error


def _check_range(response: Response, part: Path, beginning: _Beginning, start: int) -> int | None:
    """Return the size of a file whose rest is sent; discard `part` if it is of another version."""
    validator, expected = beginning
    # A server may ignore If-Range, so the version is checked here too.
    versions = {response.headers.get(name) for name in ("ETag", "Last-Modified")} - {None}
    content_range = response.headers.get("Content-Range", "")
    pattern = rf"bytes {start}-\d+/(\d+|\*)" if response.status_code == 206 else r"bytes \*/(\d+)"
    match = re.fullmatch(pattern, content_range.strip())
    total = int(match[1]) if match and match[1] != "*" else expected
    if (
        match is None
        or (versions and validator not in versions)
        or (expected is not None and expected != total)
        or (response.status_code == 416 and start != total)
    ):
        discard(part)
        raise _TryAgainError("the rest on the server does not match the first part")
    return total


def _begin_anew(response: Response, url: str, part: Path) -> int | None:
    """Start a file from its beginning: note its version, and return its length if it is sent."""
    status = f"{response.status_code} {response.reason}".strip()
    if response.status_code in BUSY:
        raise _TryAgainError(status)
    if response.status_code != 200:
        raise NetworkError(f"{url}: {status}")
    discard(part)  # before the new note, which must never describe old bytes
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None  # the length is that of the encoded form
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isascii() and length.isdecimal() else None
    if length and (total is None or total > MAX_DOWNLOAD):
        raise NetworkError(f"{url}: the server sent the length {length[:40]!r}")
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    if validator:
        write_text(_note(part), json.dumps([public_url(url), validator, total]) + "\n")
    return total


def _append(response: Response, part: Path, start: int, total: int | None) -> None:
    try:
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            received = start
            for chunk in response.iter_content(CHUNK):
                received += len(chunk)
                if received > (MAX_DOWNLOAD if total is None else total):
                    raise NetworkError(f"{part.name}: the server sent more bytes than it claims")
                file.write(chunk)
                bar.update(len(chunk))
    except requests.RequestException:
        raise  # a subclass of OSError
    except OSError as error:
        raise EmovoxError(f"{part}: cannot write: {error.strerror}; pass another --out") from error
    if total is not None and _size(part) != total:
        raise _TryAgainError(f"the connection closed after {_size(part)} of {total} bytes")


def _reason(error: BaseException) -> str:
    """Return the first cause of an error of requests, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | http.client.HTTPException):
            error = cause
        cause = cause.__context__
    return first_line(error)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_beginning(part: Path, url: str) -> _Beginning | None:
    """Return the note of a `.part` file; None unless it is of `url` and can be resumed."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        noted, validator, total = json.loads(_note(part).read_text(encoding="utf-8"))
        if noted == public_url(url) and part.is_file():  # a URL without its secrets
            return str(validator), total
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
