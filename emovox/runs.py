"""Folders of trainings: whose they are, their log, and the point from which one goes on."""

import contextlib
import io
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from emovox.errors import ConfigError, EmovoxError, InputError
from emovox.files import remove_leftovers, replace_file, write_text
from emovox.packages import explained

# What damaged resume points make of loading them.
DAMAGED = (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError, ValueError)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep `out` to this process; EmovoxError if another one trains there."""
    try:
        with FileLock(out / "lock", timeout=0):
            yield
    except Timeout:
        raise EmovoxError(f"{out}: another run is training there; wait for it") from None


def claim(out: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe into `out`, or make sure that the one already there is the same.

    Args:
        out: folder of the training.
        recipe: all that decides what the training gives; JSON values.

    Raises:
        ConfigError: the folder holds a training with another recipe.
    """
    text = json.dumps(recipe, indent=2) + "\n"
    path = out / "config.json"
    if path.exists() and path.read_bytes() != text.encode():
        raise ConfigError(
            f"{out}: holds a training with another recipe, data or teacher"
            f"{_differing(path, json.loads(text))}; choose another --out"
        )
    write_text(path, text)


def _differing(path: Path, recipe: dict[str, Any]) -> str:
    """Names in brackets of what is other in an earlier recipe; nothing where it is no recipe."""
    try:
        before = _flat(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError):
        return ""
    after = _flat(recipe)
    names = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return f" ({', '.join(names)})" if names else ""


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def trim_log(path: Path, num_epochs: int) -> None:
    """Keep the first epochs of a log: one written just before a kill will be written again."""
    if path.exists():
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines(keepends=True)
        write_text(path, "".join(lines[:num_epochs]))


def append_log(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line of JSON."""
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a resume point, whole or not at all."""
    import torch

    content = io.BytesIO()
    torch.save(dict(state), content)
    with replace_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


@contextlib.contextmanager
def saved_state(path: Path) -> Iterator[dict[str, Any] | None]:
    """The resume point to take over inside the block; None where there is none.

    Raises:
        InputError: it is damaged, or does not fit what takes it over.
    """
    import torch

    remove_leftovers(path)
    if not path.exists():
        yield None
        return
    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise InputError(
            f"{path}: damaged resume point ({type(error).__name__}); remove it to start over"
        ) from error


@contextlib.contextmanager
def board(folder: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What shows the numbers of an epoch's record in TensorBoard; nothing without a folder.

    Raises:
        MissingPackageError: tensorboard is not installed.
    """
    if folder is None:
        yield lambda record: None
        return
    with explained("--tensorboard"):
        import tensorboard  # noqa: F401  # torch reports its absence in words of its own
        from torch.utils.tensorboard import SummaryWriter
    with contextlib.ExitStack() as stack:
        writer = None

        def show(record: Mapping[str, Any]) -> None:
            nonlocal writer
            writer = writer or stack.enter_context(SummaryWriter(str(folder)))
            for name, value in record.items():
                if name != "epoch":
                    writer.add_scalar(name, value, record["epoch"])
            writer.flush()

        yield show
