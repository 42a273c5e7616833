"""Cache of downloaded and converted files."""

import contextlib
import getpass
import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return `$EMOVOX_CACHE`, or `emovox` in `$XDG_CACHE_HOME` or `~/.cache`; it may not exist.

    An account without a home, or with / as its home, as in containers, gets a folder of its own
    for temporary files.
    """
    with contextlib.suppress(RuntimeError):
        if chosen := os.environ.get("EMOVOX_CACHE"):
            return Path(chosen).expanduser()
        if chosen := os.environ.get("XDG_CACHE_HOME"):
            return Path(chosen) / "emovox"
        folder = Path.home() / ".cache/emovox"
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if existing == folder or os.access(existing, os.W_OK):
            return folder
    return Path(tempfile.gettempdir(), f"emovox_{user_name()}")


def set_compile_cache() -> None:
    """Set the folder of torch.compile, whose default needs the name of the user."""
    folder = Path(tempfile.gettempdir(), f"torchinductor_{user_name()}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def user_name() -> str:
    """Return the name of the user, or the number of an account without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())
