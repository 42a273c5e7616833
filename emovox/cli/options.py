"""Options of commands, generated from the config dataclasses."""

import dataclasses
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from emovox.config import field_type, option_help
from emovox.paths import as_path, is_remote

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
FILE_OR_FOLDER = click.Path(path_type=Path)


class Url(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A local path, or a URL; click's own type would turn `//` into `/`."""

    name = "path or URL"

    def __init__(self, local: "click.Path[Path]") -> None:
        self.local = local

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        path = as_path(value) if isinstance(value, str) else value
        return path if is_remote(path) else self.local.convert(path, param, context)


def config_options(kind: type, only: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add an option to a command for each field of a config dataclass.

    Name, type, choices, default and help come from the field. An option that is not on the command
    line is None, see `given`, so that a recipe's value is kept.

    Args:
        kind: the dataclass; see `emovox.config.option`.
        only: fields to add; all if empty.
    """
    hints, texts = typing.get_type_hints(kind), option_help(kind)

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(kind)):
            if not only or field.name in only:
                command = _option(field, hints[field.name], texts[field.name])(command)
        return command

    return decorate


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _option(field: "dataclasses.Field[Any]", hint: Any, text: str) -> Callable[[Command], Command]:
    name = f"--{field.name.replace('_', '-')}"
    kind = field_type(hint)
    if kind is bool:
        name = f"{name}/--no-{name[2:]}"
    many = typing.get_origin(hint) is tuple
    return click.option(
        name,
        type=_parameter_type(kind, field.metadata),
        default=None,
        multiple=many,
        callback=(lambda context, parameter, values: values or None) if many else None,
        help=text.replace("`", "") + (" May be repeated." if many else "") + _default_text(field),
    )


def _parameter_type(kind: type, metadata: Mapping[str, Any]) -> Any:
    if choices := metadata.get("choices"):
        return click.Choice(list(choices))
    if kind is not Path:
        return kind
    path = FILE if metadata.get("file") else FOLDER
    return Url(path) if metadata.get("url") else path


def _default_text(field: "dataclasses.Field[Any]") -> str:
    if field.default is dataclasses.MISSING:
        return "  [required]"
    shown = field.metadata.get("shown") or field.default
    if shown is None or isinstance(shown, bool | tuple):
        return ""
    return f"  [default: {shown:g}]" if isinstance(shown, float) else f"  [default: {shown}]"
