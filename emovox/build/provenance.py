"""Which software made a dataset."""

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "av", "numpy", "opencv-python-headless", "pyarrow", "facenet-pytorch")


def software(*libraries: str) -> dict[str, Any]:
    """Versions of emovox, of Python and of libraries: those that a build depends on by default."""
    return {
        "emovox": {"version": importlib.metadata.version("emovox"), "commit": _commit()},
        "libraries": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in libraries or LIBRARIES},
    }


def _commit() -> str | None:
    """Commit of a source checkout of emovox; None for an installed one."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None
