"""Published files that emovox can use, and their addresses; published_files.toml lists them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from emovox.errors import ConfigError


@dataclass(frozen=True)
class PublishedFile:
    """One published file."""

    name: str  # on the server and locally
    mirrors: tuple[str, ...]  # addresses, in order of preference
    form: str  # a key of `content.FORMS`
    purpose: str  # a phrase for the user
    licence: str  # as stated by the publisher
    sha256: str | None = None  # None if no checksum was published
    size: int | None = None  # bytes
    alias: str | None = None  # another name for `--name`
    is_default: bool = True  # downloaded when its target is requested without a name


@dataclass(frozen=True)
class Target:
    """Files that are downloaded together, and their folder in the cache."""

    folder: str
    files: tuple[PublishedFile, ...]


_LIST = Path(__file__).with_name("published_files.toml").read_text(encoding="utf-8")
TARGETS = {
    name: Target(
        target["folder"],
        tuple(PublishedFile(**f | {"mirrors": tuple(f["mirrors"])}) for f in target["files"]),
    )
    for name, target in tomllib.loads(_LIST).items()
}


def find_files(target: str, name: str | None = None) -> tuple[PublishedFile, ...]:
    """Return the default files of a target, or the one with this name or alias.

    Raises:
        ConfigError: the name is unknown; the message lists the valid ones.
    """
    files = TARGETS[target].files
    if name is None:
        return tuple(file for file in files if file.is_default)
    if found := tuple(file for file in files if name in (file.name, file.alias)):
        return found
    names = ", ".join(n for file in files for n in (file.alias, file.name) if n)
    raise ConfigError(f"--name {name}: not a file of {target}; pass one of {names}")
