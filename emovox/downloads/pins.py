"""Pinned checksums: the first good copy of a file without a published checksum.

They are stored in `pins.json` in the cache.
"""

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from emovox.cache import cache_folder
from emovox.errors import InputError
from emovox.files import exclusive, write_text


@dataclass(frozen=True)
class Pin:
    """The first good copy of a file."""

    sha256: str
    source: str  # address or file
    date: str  # YYYY-MM-DD


def pins_file() -> Path:
    """Return the path of the pins, which may not exist."""
    return cache_folder() / "pins.json"


def read_pins() -> dict[str, Pin]:
    """Return every pin, by file name; InputError if the file of the pins is damaged."""
    path = pins_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: Pin(**pin) for name, pin in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not JSON with pinned checksums ({error}); fix it, or remove it to pin again"
        ) from error


def write_pin(name: str, sha256: str, source: str) -> None:
    """Pin a file; an earlier pin is replaced."""
    path = pins_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_suffix(".lock"), "", timeout=-1):
        pin = Pin(sha256, source, datetime.date.today().isoformat())
        pins = {n: asdict(p) for n, p in sorted((read_pins() | {name: pin}).items())}
        write_text(path, json.dumps(pins, indent=2) + "\n")
