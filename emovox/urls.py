"""URLs without their secrets: users, passwords, queries and fragments.

Nothing that emovox stores or prints contains them. Errors of emovox and `str` of a remote path
apply these functions, so that other code need not.
"""

import re

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
