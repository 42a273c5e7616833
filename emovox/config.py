"""Configuration: a frozen dataclass, filled from a TOML file and from flags; a flag wins."""

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from emovox.errors import ConfigError
from emovox.paths import RemotePath, as_path, is_remote

Config = TypeVar("Config")


def read_config(
    kind: type[Config], toml: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Config:
    """Fill a config dataclass.

    Args:
        kind: the dataclass; its fields are the valid keys. Those named in its `URLS` take URLs.
        toml: file with those keys at its top level; `-` and `_` are the same.
        flags: values that win over the file's; those that are None count as not given.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or a required key is missing.
    """
    values = _read_toml(toml) if toml is not None else {}
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{toml}: unknown key {key!r}; valid keys: {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    filled = {key: _convert(value, hints[key], f"{toml}: {key}") for key, value in values.items()}
    for key, value in (flags or {}).items():
        if value is not None:
            filled[key] = _convert(value, hints[key], f"--{key.replace('_', '-')}")
    required = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    for key in filled.keys() - set(getattr(kind, "URLS", ())):
        if is_remote(filled[key]):
            raise ConfigError(f"{key}: {filled[key]} is a URL; here it has to be a local path")
    if missing := [f"--{name.replace('_', '-')}" for name in required if name not in filled]:
        raise ConfigError(f"missing {', '.join(missing)}, as a flag or as a key of the TOML file")
    return kind(**filled)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return {key.replace("-", "_"): value for key, value in content.items()}


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Check a value against a field's type; strings become paths, whole numbers floats."""
    if isinstance(hint, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return _convert(value, options[0], where)
    if typing.get_origin(hint) is tuple:
        [item, _] = typing.get_args(hint)
        if isinstance(value, list | tuple):
            return tuple(_convert(each, item, where) for each in value)
        raise ConfigError(f"{where}: expected a list, found {json.dumps(value, default=str)}")
    if hint is Path and isinstance(value, str | Path | RemotePath):
        return as_path(value) if isinstance(value, str) else value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: expected {hint.__name__}, found {json.dumps(value, default=str)}")
