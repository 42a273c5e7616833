"""Training folders: lock, config, log, resume point and result."""

import contextlib
import functools
import io
import json
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from emovox.errors import ConfigError, InputError
from emovox.files import exclusive, read_object, remove_leftovers, replace_file, write_text
from emovox.packages import DataFrame, data_frame, explained
from emovox.registry import BEST_FILE

CONFIG_FILE = "config.json"
LOG_FILE = "log.jsonl"
RESUME_FILE = "last.pt"

# Errors of loading damaged resume points.
DAMAGED = (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, repr=False)
class TrainingResult:
    """A finished training."""

    folder: Path  # the training folder
    records: tuple[Mapping[str, Any], ...]  # one per epoch, as in `log.jsonl`

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.folder / BEST_FILE

    def to_pandas(self) -> DataFrame:
        """Return a table with one row per epoch; MissingPackageError without pandas."""
        return data_frame(self.records)

    def __repr__(self) -> str:
        last = self.records[-1] if self.records else {}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in last.items() if name != "epoch")
        return f"<TrainingResult {self.best}: {len(self.records)} epochs; last: {shown}>"


class Progress:
    """Base of trainers: what a resume point holds."""

    STATEFUL: ClassVar[tuple[str, ...]] = ("model", "optimizer")  # attributes with a state_dict
    epoch: int = 0  # completed epochs
    best: float = math.inf  # lowest loss on the validation part

    def state(self) -> dict[str, Any]:
        """Return the content of the resume point."""
        states = {name: getattr(self, name).state_dict() for name in self.STATEFUL}
        return states | {"epoch": self.epoch, "best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set what `state` returned."""
        for name in self.STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.epoch, self.best = state["epoch"], state["best"]


def read_result(out: Path) -> TrainingResult:
    """Return the result of the training in a folder, from its log."""
    lines = (out / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return TrainingResult(out, tuple(map(json.loads, lines)))


def locked(out: Path) -> contextlib.AbstractContextManager[None]:
    """Lock `out` for this process; EmovoxError if another process trains there."""
    return exclusive(out / "lock", f"{out}: another run is training there; wait for it to end")


def write_or_match_config(out: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe into `out`, or check that the existing one is the same.

    A recipe is everything that determines the result of the training, as JSON values. ConfigError
    if the folder holds a training with another one, InputError if its file is damaged.
    """
    text, path = json.dumps(recipe, indent=2) + "\n", out / CONFIG_FILE
    new = json.loads(text)
    old = read_object(path) if path.exists() else new
    if old != new:
        before, after = _flat(old), _flat(new)
        names = [k for k in {**before, **after} if before.get(k, ...) != after.get(k, ...)]
        raise ConfigError(
            f"{out}: holds a training with another recipe, data or teacher ({', '.join(names)}); "
            "choose another --out"
        )
    write_text(path, text)


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def save_epoch(out: Path, record: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Append the record of an epoch to the log, and write the resume point after it."""
    import torch

    with (out / LOG_FILE).open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")
    content = io.BytesIO()
    torch.save(dict(state), content)
    with replace_file(out / RESUME_FILE) as temporary:
        temporary.write_bytes(content.getbuffer())


def resume(out: Path, restore: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Pass the resume point to `restore`, and return it; None if there is none.

    Epochs that only the log has are removed from it, to be trained again. InputError if the resume
    point is damaged or does not fit the training.
    """
    import torch

    path, log = out / RESUME_FILE, out / LOG_FILE
    state: dict[str, Any] | None = None
    remove_leftovers(path)
    if path.exists():
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            restore(state)
        except DAMAGED as error:
            raise InputError(
                f"{path}: damaged resume point ({type(error).__name__}); remove it to start over"
            ) from error
    if log.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        write_text(log, "".join(lines[: state["epoch"] if state else 0]))
    return state


def tensorboard_writer(folder: Path) -> Callable[[Mapping[str, Any]], None]:
    """Return a function that shows the record of an epoch in TensorBoard.

    It makes the folder at the first record. MissingPackageError if tensorboard is not installed.
    """
    with explained("--tensorboard"):
        import tensorboard  # noqa: F401  # its absence changes the type of torch's error
        from torch.utils.tensorboard import SummaryWriter
    open_writer = functools.cache(SummaryWriter)

    def show(record: Mapping[str, Any]) -> None:
        writer = open_writer(str(folder))
        for name, value in record.items():
            if name != "epoch":
                writer.add_scalar(name, value, record["epoch"])
        writer.flush()

    return show
