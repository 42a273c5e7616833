"""Cache of downloaded and converted files."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$EMOVOX_CACHE`, or `emovox` in `$XDG_CACHE_HOME` or `~/.cache`; it may not exist."""
    if chosen := os.environ.get("EMOVOX_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emovox"
