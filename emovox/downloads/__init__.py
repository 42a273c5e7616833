"""Fetch what others published: the annotations, the lists of the splits, a teacher, the student.

A file appears under its name only when it is whole and is the one it should be.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from emovox.cache import cache_folder
from emovox.downloads.content import FORMS, find_fault
from emovox.downloads.mirrors import PublishedFile, find_files, find_target
from emovox.downloads.pins import pins_file, read_pins, write_pin
from emovox.downloads.transfer import Patience, check_space, discard, fetch
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError, NetworkError
from emovox.files import remove_leftovers, replace_file, sha256_file


def _say_nothing(line: str) -> None:
    pass


@dataclass(frozen=True)
class DownloadConfig:
    """What to fetch, from where, and where to.

    Attributes:
        target: a key of `mirrors.TARGETS`.
        name: one file of the target, by its name; None for those it needs.
        out: folder of the files; None for the target's folder in the cache.
        url: address of the file, or of a folder with the files if it ends in `/`; None for the
            mirrors that are known.
        copy: the file if it is here already, or a folder with the files, instead of the network.
        accept_new: take a file that differs from the pinned one, and pin it instead.
        patience: with servers.
        say: takes lines for the user.
    """

    target: str
    name: str | None = None
    out: Path | None = None
    url: str | None = None
    copy: Path | None = None
    accept_new: bool = False
    patience: Patience = field(default_factory=Patience)
    say: Callable[[str], None] = _say_nothing


def download_target(config: DownloadConfig) -> Iterator[Path]:
    """Fetch the files of a target one after the other; give the path of each when it is done.

    Raises:
        ConfigError: unknown target or name, or an address or copy that belongs to no file.
        Others: see `download`.
    """
    if config.url and config.copy:
        raise ConfigError("--url and --from: choose one of them")
    if config.url:
        _check_url(config.url)
    if config.copy is not None and not config.copy.exists():
        raise InputError(f"--from {config.copy}: no such file or folder")
    files = find_files(config.target, config.name)
    folder = config.out or cache_folder() / find_target(config.target).folder
    if config.copy is not None:
        is_folder, last = config.copy.is_dir(), config.copy.name
    else:
        url = config.url or "/"  # the mirrors have every file, as a folder has
        is_folder, last = url.endswith("/"), unquote(urlsplit(url).path).rpartition("/")[2]
    if not is_folder:
        files = _only_named(files, last, "--from" if config.copy else "--url")
    for file in files:
        yield download(file, folder, config)


def _check_url(url: str) -> None:
    """Raise ConfigError for what is no address, or has a password in it, which would be kept."""
    try:
        parts = urlsplit(url)
        labels = (parts.hostname or "").split(".")
        fits = parts.scheme in ("http", "https") and all(0 < len(x) < 64 for x in labels)
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"--url {url}: is no http or https address")
    if parts.username or parts.password:
        raise ConfigError("--url: give no user or password in the address; a .netrc file has them")


def _only_named(
    files: tuple[PublishedFile, ...], last: str, option: str
) -> tuple[PublishedFile, ...]:
    """The file that one address or one copy is meant for: the only one, or the one of its name."""
    if len(files) == 1:
        return files
    if found := tuple(file for file in files if file.name == last):
        return found
    names = ", ".join(file.name for file in files)
    raise ConfigError(f"{option}: {last} is none of {names}; say with --name which of them it is")


def download(file: PublishedFile, folder: Path, config: DownloadConfig) -> Path:
    """Fetch one file, unless it is there and whole.

    Args:
        file: what to fetch.
        folder: where to; made if it is not there.
        config: `url`, `copy`, `accept_new`, `patience` and `say` are used.

    Returns:
        Its path.

    Raises:
        NetworkError: no mirror gave it.
        InputError: what came, or the copy, is not a whole file of its form.
        CheckError: its sha256 is not the published or the pinned one.
        EmovoxError: the disk is full, or it is being downloaded already.
    """
    path = folder / file.name
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one_at_a_time(file):
        remove_leftovers(path)
        if config.copy is not None:
            _install_copy(file, path, config.copy, config)
        elif not _is_there(file, path, config):
            _fetch_from_mirrors(file, path, config)
    return path


@contextlib.contextmanager
def _only_one_at_a_time(file: PublishedFile) -> Iterator[None]:
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{file.name}.lock", timeout=0):
            yield
    except Timeout:
        raise EmovoxError(f"{file.name}: another download of it is running; wait for it") from None


def _is_there(file: PublishedFile, path: Path, config: DownloadConfig) -> bool:
    """Whether there is nothing to fetch. A good file that no checksum is known of is pinned."""
    if not path.is_file() or (config.accept_new and file.sha256 is None):
        return False
    expected = file.sha256 or _pinned(file)
    if expected:
        is_whole = sha256_file(path) == expected
    elif is_whole := find_fault(path, file.form) is None:
        _pin(file, sha256_file(path), str(path), config)
    what = "already there" if is_whole else f"is not the {file.name} expected; fetching that"
    config.say(f"{path}: {what}")
    return is_whole


def _install_copy(file: PublishedFile, path: Path, copy: Path, config: DownloadConfig) -> None:
    source = copy / file.name if copy.is_dir() else copy
    if not source.is_file():
        raise InputError(f"{source}: no such file; --from takes {file.name} or its folder")
    check_space(path.parent, source.stat().st_size)
    with replace_file(path) as temporary:
        shutil.copyfile(source, temporary)
        _accept(file, temporary, str(source), config)


def _fetch_from_mirrors(file: PublishedFile, path: Path, config: DownloadConfig) -> None:
    config.say(f"{file.name}: {file.purpose}; licence: {file.licence}")
    part = path.with_name(f"{path.name}.part")
    urls = file.mirrors
    if config.url is not None:
        urls = (config.url + file.name if config.url.endswith("/") else config.url,)
    failures: list[EmovoxError] = []
    for url in urls:
        try:
            _fetch_checked(file, part, url, config)
        except (NetworkError, InputError, CheckError) as error:
            if isinstance(error, CheckError) and file.sha256 is None:
                raise  # it differs from the pin: another mirror would have to be lucky
            failures.append(error)
        else:
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(path)
            discard(part)
            return
    raise _none_worked(file, failures)


def _fetch_checked(file: PublishedFile, part: Path, url: str, config: DownloadConfig) -> None:
    """Fetch from one address. What can never be right is thrown away.

    What merely differs from the pin stays, so that --accept-new need not fetch it again.
    """
    fetch(url, part, config.patience, config.say, file.size)
    try:
        _accept(file, part, url, config)
    except InputError:
        discard(part)
        raise
    except CheckError:
        if file.sha256:
            discard(part)
        raise


def _accept(file: PublishedFile, path: Path, source: str, config: DownloadConfig) -> None:
    """Look at what came from `source`; pin it if it is the first, or if the user wants it so.

    Raises:
        InputError: it is not a whole file of its form.
        CheckError: it is another file than the published or the pinned one.
    """
    if fault := find_fault(path, file.form):
        raise InputError(f"{source}: expected {FORMS[file.form].words}; found {fault}")
    digest = sha256_file(path)
    pinned = _pinned(file)
    if file.sha256:
        if digest != file.sha256:
            raise CheckError(f"{source}: its sha256 is {digest} instead of {file.sha256}")
    elif pinned is None or (config.accept_new and digest != pinned):
        _pin(file, digest, source, config)
    elif digest != pinned:
        raise CheckError(
            f"{source}: its sha256 is {digest}, but {pinned} is pinned in {pins_file()}; what is "
            "here stays. --accept-new takes the new file and pins it"
        )


def _pinned(file: PublishedFile) -> str | None:
    pin = read_pins().get(file.name)
    return pin.sha256 if pin else None


def _pin(file: PublishedFile, digest: str, source: str, config: DownloadConfig) -> None:
    write_pin(file.name, digest, source)
    config.say(
        f"{file.name}: no checksum was ever published; its sha256 {digest} is pinned in "
        f"{pins_file()}, and another file will be refused"
    )


def _none_worked(file: PublishedFile, failures: list[EmovoxError]) -> EmovoxError:
    """One error for all addresses, of the kind that says most."""
    kinds = (CheckError, InputError, NetworkError)
    kind = next(kind for kind in kinds if any(isinstance(f, kind) for f in failures))
    tried = "; ".join(str(failure) for failure in failures)
    return kind(
        f"{file.name}: nothing was fetched. Tried {tried}. If you know another address, give it "
        "with --url; if you have the file, with --from"
    )
