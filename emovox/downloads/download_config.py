"""Options of a download, and the published files; published_files.toml lists them."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from emovox.config import check_options, option
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


@dataclass(frozen=True)
class DownloadConfig:
    """Options of `emovox download`.

    Attributes:
        target: Files to download: annotations, splits, teacher or student.
        name: One file of the target, such as resnet50-ferplus.
        out: Folder of the files.
        url: Address of the file, or of a folder of files, which ends in /.
        copy: Local copy of the file, or a folder with it, used instead of the network.
        accept_new: Accept and pin a file that differs from the pin.
    """

    target: str = option(choices=TARGETS)
    name: str | None = None
    out: Path | None = option(None, shown="in the cache")
    url: str | None = None
    copy: Path | None = None
    accept_new: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        if self.url and self.copy:
            raise ConfigError("--url and --from: pass only one of them")
        if self.url and re.match(r"[^/]*//[^/?#]*@", self.url):  # which would be stored
            raise ConfigError("--url: contains a user or password; put them into a .netrc file")
