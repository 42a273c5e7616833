"""Options of commands, generated from the config dataclasses."""

import dataclasses
import json
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from emovox.config import field_type, option_help
from emovox.ids import printable_text

Command = TypeVar("Command", bound=Callable[..., Any])


def echo(text: object, *, err: bool = False, nl: bool = True, has_commands: bool = False) -> None:
    """Print text that may contain data of others; see `printable_text`."""
    click.echo(printable_text(str(text), has_commands=has_commands), err=err, nl=nl)


FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
FILE_OR_FOLDER = click.Path(path_type=Path)
FORMATS = click.Choice(["text", "json", "csv"])
FORMAT = click.option("--format", "form", type=FORMATS, default="text", help="Format on stdout.")


def finish(result: Any, out: Path | None, form: str) -> None:
    """Write a result to a folder, if one is given, and print it."""
    if out is not None:
        result.write(out)
    if form == "csv":
        echo(result.to_pandas().to_csv(index=False), nl=False)
    else:
        echo(json.dumps(result.as_json()) if form == "json" else result.summary())


def config_options(kind: type, only: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add an option to a command for each field of a config dataclass.

    Name, type, choices, default and help come from the field. An option that is not on the command
    line is None or (); `given` leaves it out, so that it does not override a recipe. With `only`,
    other fields get no option.
    """
    hints, texts = typing.get_type_hints(kind), option_help(kind)

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(kind)):
            if not only or field.name in only:
                command = _option(field, hints[field.name], texts.get(field.name, ""))(command)
        return command

    return decorate


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are on the command line."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def _option(field: "dataclasses.Field[Any]", hint: Any, text: str) -> Callable[[Command], Command]:
    name, kind = f"--{field.name.replace('_', '-')}", field_type(hint)
    if kind is bool:
        name = f"{name}/--no-{name[2:]}"
    many = typing.get_origin(hint) is tuple
    is_url = field.metadata.get("url")
    metavar = "PATH OR URL" if is_url else None
    if choices := field.metadata.get("choices"):
        metavar = f"[{'|'.join(choices)}]"  # `check_options` checks it, and suggests a word
    elif kind is Path:
        kind = str if is_url else FOLDER  # click's own type would turn the `//` of a URL into `/`
    text = text.replace("`", "") + (" May be repeated." if many else "") + _default_text(field)
    return click.option(name, type=kind, metavar=metavar, default=None, multiple=many, help=text)


def _default_text(field: "dataclasses.Field[Any]") -> str:
    if field.default is dataclasses.MISSING:
        return "  [required]"
    shown = field.metadata.get("shown") or field.default
    if shown in (None, "") or isinstance(shown, bool | tuple):
        return ""
    return f"  [default: {shown:g}]" if isinstance(shown, float) else f"  [default: {shown}]"
