"""Options: a frozen dataclass for each command, filled from a recipe, keywords or the command line.

A field declares its default, choices and bounds with `option`, and its help in the `Attributes:`
section of the class; `check_options` checks a config, and the command line generates its options
from the same fields.
"""

import dataclasses
import inspect
import json
import os
import re
import sys
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from emovox.errors import ConfigError, check_choice, list_names
from emovox.files import read_text
from emovox.paths import as_path, is_remote

Config = TypeVar("Config")

RECIPES = Path(__file__).parent / "pipelines"
if not RECIPES.is_dir():  # in a checkout
    RECIPES = Path(__file__).parents[1] / "pipelines"


def option(
    default: Any = dataclasses.MISSING,
    *,
    choices: Collection[str] | None = None,
    least: float | None = None,
    most: float | None = None,
    shown: str | None = None,
    url: bool = False,
) -> Any:
    """Declare a field of a config: its default, choices, and smallest and largest number.

    A field without a default is required. Help pages show `shown` instead of the default. A path
    may be a URL only with `url`.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Walk:
        ...     steps: int = option(3, least=1)
        ...
        ...     def __post_init__(self) -> None:
        ...         check_options(self)
        >>> Walk(0)
        Traceback (most recent call last):
        emovox.errors.ConfigError: steps 0: must be at least 1
    """
    metadata = {"choices": choices, "least": least, "most": most, "shown": shown, "url": url}
    return dataclasses.field(default=default, metadata=metadata)


def check_options(config: Any) -> None:
    """Check the fields of a config; convert strings to paths, lists to tuples, integers to floats.

    Raises:
        ConfigError: a value is of the wrong type, not one of the choices or out of bounds.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if value is None and isinstance(hints[name], types.UnionType):
            continue
        value = _convert(value, hints[name], name)
        object.__setattr__(config, name, value)
        choices, least, most, url = map(field.metadata.get, ("choices", "least", "most", "url"))
        if is_remote(value) and not url:
            raise ConfigError(f"{name}: {value} is a URL; pass a local path")
        if choices is not None:
            check_choice(name, value, choices)
        if least is not None and not least <= value <= (most or sys.float_info.max):
            bounds = f"{least} to {most}" if most else f"at least {least}"
            raise ConfigError(f"{name} {value}: must be {bounds}")


class Options:
    """Base of the configs, which checks a new one with `check_options`."""

    def __post_init__(self) -> None:
        check_options(self)


def field_type(hint: Any) -> Any:
    """Return the type of a single value of a field: `Path` for `tuple[Path, ...]`."""
    options = [kind for kind in typing.get_args(hint) if kind not in (type(None), ...)]
    return options[0] if options else hint


def option_help(kind: type) -> dict[str, str]:
    """Return the text of each entry of a dataclass's `Attributes:` section, by field."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    for names, text in re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n      .*)*)", section, re.M):
        texts |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return texts


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """Find a recipe by its path, or by the name of one that is installed with emovox.

    Raises:
        ConfigError: neither exists; the message lists the names.
    """
    if (path := Path(name)).is_file():
        return path
    names = sorted(file.stem for file in RECIPES.glob("*.toml"))
    if (stem := str(name).removesuffix(".toml")) in names:
        return RECIPES / f"{stem}.toml"
    raise ConfigError(f"{name}: neither a recipe file nor one of {list_names(str(name), names)}")


def read_config(
    kind: type[Config],
    config: Config | str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Return a config with some of its fields replaced.

    `config` is a config; or a recipe: path or name of a TOML file whose top-level keys are fields
    (`-` and `_` are equivalent); or None for the defaults. `options` are new values, by name.

    Raises:
        ConfigError: the recipe is missing or unreadable, a key is unknown, a value is not valid, or
            a required key is missing.
    """
    if isinstance(config, kind):
        return dataclasses.replace(config, **options or {})  # type: ignore[type-var]
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    if config is not None:
        path = find_recipe(typing.cast("str | os.PathLike[str]", config))
        hints = typing.get_type_hints(kind)
        for key, value in _read_toml(path).items():
            if key not in fields:
                raise ConfigError(f"{path}: unknown key {key!r}; valid keys: {', '.join(fields)}")
            values[key] = _convert(value, hints[key], f"{path}: {key}")
    values |= options or {}
    required = [name for name, f in fields.items() if f.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        if options is None:
            raise ConfigError(f"{config}: missing keys: {', '.join(missing)}")
        names = (f"--{name.replace('_', '-')}" for name in missing)
        raise ConfigError(f"missing options: {', '.join(names)}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}" if options is None else str(error)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return {key.replace("-", "_"): value for key, value in content.items()}


def _convert(value: Any, hint: Any, subject: str) -> Any:
    """Check a value against a field's type; strings become paths, whole numbers floats."""
    kind = field_type(hint)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(item, kind, subject) for item in value)
        raise ConfigError(f"{subject}: expected a list, found {json.dumps(value, default=str)}")
    if kind is Path and (is_remote(value) or isinstance(value, str | os.PathLike)):
        return as_path(value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and not (kind is not bool and isinstance(value, bool)):
        return value
    found = json.dumps(value, default=str)
    raise ConfigError(f"{subject}: expected {kind.__name__}, found {found}")
