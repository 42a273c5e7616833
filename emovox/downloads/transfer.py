"""One address into one `.part` file, over as many connections as it takes.

What has arrived stays in the `.part` file, and a note beside it says which version of which address
it is the beginning of. Only that same version is ever appended to.
"""

import datetime
import email.utils
import http.client
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from requests import Response, Session
from tqdm import tqdm

from emovox.errors import ConfigError, EmovoxError, NetworkError
from emovox.files import write_text

CHUNK = 1 << 16
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which asking again makes sense

NOT_AN_ADDRESS = (
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
)
# Certificates and endless redirects do not get better by asking again.
HOPELESS = (requests.exceptions.SSLError, requests.exceptions.TooManyRedirects)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to ask again.

    Attributes:
        connect_timeout: seconds until a server has to answer the call.
        read_timeout: seconds it may be silent after that.
        attempts: how many in a row may bring nothing new.
        first_wait: seconds before the second attempt; each further wait is twice as long.
        longest_wait: seconds; a server that asks for more is given up.
        sleep: how to wait.
    """

    connect_timeout: float = 20.0
    read_timeout: float = 60.0
    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 300.0
    sleep: Callable[[float], None] = time.sleep


class _TryAgainError(Exception):
    """An attempt failed for a reason that may pass.

    Args:
        reason: in a few words.
        wait: seconds that the server asked for; None if it did not.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Beginning:
    """What the bytes of a `.part` file are the beginning of.

    Attributes:
        url: where they came from.
        validator: the server's name of that version: an ETag, or the time of its last change.
        total: bytes of the whole file; None if the server did not say.
    """

    url: str
    validator: str
    total: int | None


def fetch(
    url: str, part: Path, patience: Patience, say: Callable[[str], None], size: int | None = None
) -> None:
    """Bring `part` to what lies at `url`, going on where an earlier attempt stopped.

    Args:
        url: an http or https address.
        part: grows, and is whole when this returns, as far as the server told its length.
        patience: with the server.
        say: takes a line for the user before each wait.
        size: in bytes, for the check of the disk where the server does not tell it.

    Raises:
        NetworkError: not reached, refused, broken off again and again, or answered by a web page
            where the rest of a file was asked for.
        ConfigError: the address is none.
        EmovoxError: the disk has no room for it.
    """
    most, failures = _size(part), 0
    with requests.Session() as session:
        while True:
            try:
                return _attempt(session, url, part, patience, size)
            except _TryAgainError as error:
                has_grown = _size(part) > most
                most, failures = max(most, _size(part)), 1 if has_grown else failures + 1
                wait = patience.first_wait * 2 ** (failures - 1)
                wait = wait if error.wait is None else error.wait
                if failures >= patience.attempts or wait > patience.longest_wait:
                    raise NetworkError(f"{url}: {error}") from error
                say(f"{url}: {error}; trying again in {wait:.0f} s")
                patience.sleep(wait)


def discard(part: Path) -> None:
    """Take a `.part` file away, with the note beside it."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what does not fit.

    Raises:
        EmovoxError: the disk of `folder` has fewer than `needed` bytes left.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EmovoxError(
            f"{folder}: {needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free; "
            "make room, or choose another disk with --out"
        )


def _attempt(session: Session, url: str, part: Path, patience: Patience, size: int | None) -> None:
    """Ask once for what is missing, and write down what comes."""
    beginning = _read_beginning(part, url)
    start = _size(part) if beginning else 0
    headers = {"Accept-Encoding": "identity"}  # the bytes as they lie there: lengths, ranges, hash
    if beginning and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": beginning.validator}
    timeout = (patience.connect_timeout, patience.read_timeout)
    try:
        with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if beginning and start and response.status_code in (206, 416):
                total = _check_range(response, part, beginning, start)
                if start == total:
                    return
            else:
                start, total = 0, _begin_anew(response, url, part, resuming=bool(start))
            check_space(part.parent, (total or size or 0) - start)
            _append(response, part, start, total)
    except NOT_AN_ADDRESS as error:
        raise ConfigError(f"{url}: cannot be fetched: {_reason(error)}") from error
    except HOPELESS as error:
        raise NetworkError(f"{url}: {_reason(error)}") from error
    except requests.RequestException as error:
        raise _TryAgainError(_reason(error)) from error


def _check_range(response: Response, part: Path, beginning: _Beginning, start: int) -> int | None:
    """Total length of a file whose rest is being sent; what does not fit is thrown away.

    A server may ignore If-Range, so that its version is looked at here as well.
    """
    versions = {response.headers.get(name) for name in ("ETag", "Last-Modified")} - {None}
    content_range = response.headers.get("Content-Range", "")
    pattern = rf"bytes {start}-\d+/(\d+|\*)" if response.status_code == 206 else r"bytes \*/(\d+)"
    match = re.fullmatch(pattern, content_range.strip())
    total = int(match[1]) if match and match[1] != "*" else beginning.total
    if (
        match is None
        or (versions and beginning.validator not in versions)
        or (beginning.total is not None and beginning.total != total)
        or (response.status_code == 416 and start != total)
    ):
        discard(part)
        raise _TryAgainError("what the server says of the rest does not fit the first part")
    return total


def _begin_anew(response: Response, url: str, part: Path, *, resuming: bool) -> int | None:
    """Prepare for a whole file: note what version it is, and give its length if that is told."""
    _check_status(response, url)
    if resuming and "text/html" in response.headers.get("Content-Type", ""):
        raise NetworkError(f"{url}: a web page came instead of the rest of the file")
    discard(part)  # before the new note: old bytes must never stand beside it
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None  # lengths are those of the encoded form
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    if validator:
        note = json.dumps(asdict(_Beginning(url, validator, total)))
        write_text(_note(part), note + "\n")
    return total


def _check_status(response: Response, url: str) -> None:
    status = f"{response.status_code} {response.reason}".strip()
    if response.status_code in BUSY:
        raise _TryAgainError(status, _retry_after(response.headers.get("Retry-After", "")))
    if response.status_code != 200:
        raise NetworkError(f"{url}: {status}")


def _retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms."""
    if value.isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    now = datetime.datetime.now(moment.tzinfo)
    return max(0.0, (moment - now).total_seconds())


def _append(response: Response, part: Path, start: int, total: int | None) -> None:
    try:
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    except requests.RequestException:
        raise  # they are OSErrors too
    except OSError as error:
        raise EmovoxError(f"{part}: cannot be written ({error.strerror})") from error
    if total is not None and _size(part) != total:
        raise _TryAgainError(f"the connection broke off after {_size(part)} of {total} bytes")


def _reason(error: BaseException) -> str:
    """The first cause of what requests reports, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | http.client.HTTPException):
            error = cause
        cause = cause.__context__
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_beginning(part: Path, url: str) -> _Beginning | None:
    """What the `.part` file is the beginning of, if it is one of `url` and can be gone on with."""
    try:
        beginning = _Beginning(**json.loads(_note(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return beginning if beginning.url == url and part.is_file() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
