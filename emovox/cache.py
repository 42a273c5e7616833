"""Cache of downloaded and converted files."""

import getpass
import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return `$EMOVOX_CACHE`, or `emovox` in `$XDG_CACHE_HOME` or `~/.cache`; it may not exist.

    An account without a home, as in containers, gets a folder of its own for temporary files.
    """
    try:
        if chosen := os.environ.get("EMOVOX_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emovox"
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"emovox_{user_name()}")


def user_name() -> str:
    """Return the name of the user, or the number of an account without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())
