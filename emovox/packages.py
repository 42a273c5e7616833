"""Installed packages: their versions, and the extras that install missing ones.

The core of emovox reads, validates, compares, releases and reports datasets; everything else needs
an extra, see `[project.optional-dependencies]` in pyproject.toml.
"""

import contextlib
import importlib.util
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from emovox import __version__
from emovox.errors import MissingPackageError

if TYPE_CHECKING:
    import pandas as pd

DataFrame: TypeAlias = "pd.DataFrame"  # of the method `to_pandas` of results

OPENCV = "opencv-python-headless"
SAME_NAME = (
    *("av", "joblib", "loky", "pandas", "safetensors", "scipy", "soundfile"),
    *("torch", "torchvision"),
)
# Extra -> imported top-level modules -> their distributions.
EXTRAS: dict[str, dict[str, str]] = {
    "build": {name: name for name in SAME_NAME}
    | {"cv2": OPENCV, "facenet_pytorch": "facenet-pytorch", "sklearn": "scikit-learn"},
    "ffmpeg": {"ffmpeg": "ffmpeg-python"},
    "hf": {"huggingface_hub": "huggingface-hub"},
    "onnx": {"onnxruntime": "onnxruntime"},
    "opensmile": {"opensmile": "opensmile"},
    "ray": {"ray": "ray"},
    "remote": {"fsspec": "fsspec", "s3fs": "s3fs"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "transformers": {"huggingface_hub": "huggingface-hub", "transformers": "transformers"},
}


def require(extra: str, subject: str) -> None:
    """Check that every package of an extra is installed, without importing any.

    Raises:
        MissingPackageError: a package is missing; `subject`, a command or function, needs it.
    """
    with explained(subject):
        for module in EXTRAS[extra]:
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(name=module)


@contextlib.contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn a failed import of a package that `subject` needs into a `MissingPackageError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (missing := missing_package(error, subject)) is None:
            raise
        raise missing from error


def data_frame(rows: Any, columns: list[str] | None = None) -> DataFrame:
    """Return a DataFrame for the method `to_pandas` of a result; arguments as in pandas.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    with explained("to_pandas"):
        import pandas as pd
    return pd.DataFrame(rows, columns=columns)


def missing_package(error: ModuleNotFoundError, subject: str) -> MissingPackageError | None:
    """Return an error with the extra of a missing module; None if no extra has the module."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    if extra is None:
        return None
    fact = f"{EXTRAS[extra][module]} is not installed"
    return MissingPackageError(f"{subject}: {fact}; run: pip install 'emovox[{extra}]'")


def software(*distributions: str) -> dict[str, Any]:
    """Return the versions of emovox, Python and some distributions, and the date, for provenance.

    The version of a distribution without metadata is None.
    """
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "emovox": {"version": __version__, "commit": _commit()},
        "libraries": {"python": platform.python_version()}
        | {name: _version(name) for name in distributions},
    }


def _version(distribution: str) -> str | None:
    import importlib.metadata

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def _commit() -> str | None:
    """Return the commit of a source checkout of emovox; None for an installed package."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None
