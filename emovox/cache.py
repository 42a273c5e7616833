"""Where emovox keeps what it fetched or converted, so that it is done once."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$EMOVOX_CACHE`, else `emovox` in `$XDG_CACHE_HOME` or `~/.cache`; it need not exist."""
    if chosen := os.environ.get("EMOVOX_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emovox"
