"""Downloads of published files: annotations, lists of the splits, teachers, the student.

A file appears under its name only when it is complete and its checksum matches.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from emovox.cache import cache_folder
from emovox.downloads.content import FORMS, find_fault
from emovox.downloads.mirrors import PublishedFile, find_files, find_target
from emovox.downloads.pins import pins_file, read_pins, write_pin
from emovox.downloads.transfer import Patience, check_space, discard, fetch
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError, NetworkError
from emovox.files import remove_leftovers, replace_file, sha256_file
from emovox.packages import data_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DownloadConfig:
    """Options of a download.

    Attributes:
        target: a key of `mirrors.TARGETS`: `annotations`, `splits`, `teacher` or `student`.
        name: one file of the target; None for its default files.
        out: folder of the files; None for the target's folder in the cache.
        url: address of the file, or of a folder with the files if it ends in `/`; None for the
            published addresses.
        copy: a local copy of the file, or a folder with the files, used instead of the network.
        accept_new: accept and pin a file that differs from the pinned one.
        patience: timeouts and retries.
        say: called with lines for the user.
    """

    target: str
    name: str | None = None
    out: Path | None = None
    url: str | None = None
    copy: Path | None = None
    accept_new: bool = False
    patience: Patience = field(default_factory=Patience)
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, repr=False)
class Downloads:
    """Result of a download.

    Attributes:
        paths: of the files, in the order of the target.
    """

    paths: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"<Downloads {', '.join(map(str, self.paths))}>"

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a DataFrame with one row per file: `path`, `bytes`, `sha256`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        rows = [(str(path), path.stat().st_size, sha256_file(path)) for path in self.paths]
        return data_frame(rows, ["path", "bytes", "sha256"])


def download(target: str, **options: Any) -> Downloads:
    """Download published files; complete files are kept, incomplete ones are resumed.

    Args:
        target: `annotations`, `splits`, `teacher` or `student`.
        **options: the other fields of `DownloadConfig`; paths may be strings.

    Raises:
        ConfigError: the target or the name is unknown, or an address or copy matches no file.
        NetworkError: no mirror sent the file.
        InputError: the file, or the copy, is not a complete file of its form.
        CheckError: its SHA-256 differs from the published or the pinned one.
        EmovoxError: the disk is full, or another download of the file is running.

    Example:
        >>> download("splits", copy="lists", out="splits")  # doctest: +SKIP
        <Downloads splits/identity_splits.txt, splits/vox1_meta.csv>
    """
    for name in ("out", "copy"):
        if options.get(name) is not None:
            options[name] = Path(options[name])
    return Downloads(tuple(download_target(DownloadConfig(target, **options))))


def download_target(config: DownloadConfig) -> Iterator[Path]:
    """Download the files of a target one after the other; yield the path of each complete one.

    Raises:
        EmovoxError: see `download`.
    """
    if config.url and config.copy:
        raise ConfigError("--url and --from: pass only one of them")
    if config.url:
        _check_url(config.url)
    if config.copy is not None and not config.copy.exists():
        raise InputError(f"--from {config.copy}: no such file or folder")
    files = find_files(config.target, config.name)
    folder = config.out or cache_folder() / find_target(config.target).folder
    if config.copy is not None:
        is_folder, last = config.copy.is_dir(), config.copy.name
    else:
        url = config.url or "/"  # mirrors have every file, like a folder
        is_folder, last = url.endswith("/"), unquote(urlsplit(url).path).rpartition("/")[2]
    if not is_folder:
        files = _only_named(files, last, "--from" if config.copy else "--url")
    for file in files:
        yield download_file(file, folder, config)


def _check_url(url: str) -> None:
    """Raise `ConfigError` for an invalid address, or one with a password, which would be stored."""
    try:
        parts = urlsplit(url)
        labels = (parts.hostname or "").split(".")
        fits = parts.scheme in ("http", "https") and all(0 < len(x) < 64 for x in labels)
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"--url {url}: not an http or https address")
    if parts.username or parts.password:
        raise ConfigError("--url: contains a user or password; put them into a .netrc file")


def _only_named(
    files: tuple[PublishedFile, ...], last: str, option: str
) -> tuple[PublishedFile, ...]:
    """Return the file of an address or a copy: the only one, or the one of its name."""
    if len(files) == 1:
        return files
    if found := tuple(file for file in files if file.name == last):
        return found
    names = ", ".join(file.name for file in files)
    raise ConfigError(f"{option}: {last} is not one of {names}; pass --name")


def download_file(file: PublishedFile, folder: Path, config: DownloadConfig) -> Path:
    """Download one file unless it exists and is complete; return its path.

    Args:
        file: the file.
        folder: its folder; created if missing.
        config: `url`, `copy`, `accept_new`, `patience` and `say` are used.

    Raises:
        EmovoxError: see `download`.
    """
    path = folder / file.name
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one_at_a_time(file):
        remove_leftovers(path)
        if config.copy is not None:
            _install_copy(file, path, config.copy, config)
        elif not _exists(file, path, config):
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
        raise EmovoxError(f"{file.name}: another download is running; wait for it") from None


def _exists(file: PublishedFile, path: Path, config: DownloadConfig) -> bool:
    """Return True if a complete file exists; one without a published checksum is pinned."""
    if not path.is_file() or (config.accept_new and file.sha256 is None):
        return False
    expected = file.sha256 or _pinned(file)
    if expected:
        is_whole = sha256_file(path) == expected
    elif is_whole := find_fault(path, file.form) is None:
        _pin(file, sha256_file(path), str(path), config)
    what = "exists" if is_whole else f"differs from the expected {file.name}; downloading it"
    config.say(f"{path}: {what}")
    return is_whole


def _install_copy(file: PublishedFile, path: Path, copy: Path, config: DownloadConfig) -> None:
    source = copy / file.name if copy.is_dir() else copy
    if not source.is_file():
        raise InputError(f"{source}: no such file; --from accepts {file.name} or its folder")
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
                raise  # another mirror would differ from the pin too
            failures.append(error)
        else:
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(path)
            discard(part)
            return
    raise _none_worked(file, failures)


def _fetch_checked(file: PublishedFile, part: Path, url: str, config: DownloadConfig) -> None:
    """Download from one address, and discard a file that cannot be correct.

    A file that only differs from the pin is kept, so that --accept-new does not download it again.
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
    """Check a file from `source`; pin it if it is the first, or with `accept_new`.

    Raises:
        InputError: it is not a complete file of its form.
        CheckError: it differs from the published or the pinned file.
    """
    if fault := find_fault(path, file.form):
        raise InputError(f"{source}: expected {FORMS[file.form].words}; found {fault}")
    digest = sha256_file(path)
    pinned = _pinned(file)
    if file.sha256:
        if digest != file.sha256:
            raise CheckError(f"{source}: SHA-256 {digest} differs from the published {file.sha256}")
    elif pinned is None or (config.accept_new and digest != pinned):
        _pin(file, digest, source, config)
    elif digest != pinned:
        raise CheckError(
            f"{source}: SHA-256 {digest} differs from {pinned}, pinned in {pins_file()}; the "
            "existing file is kept; pass --accept-new to accept and pin the new one"
        )


def _pinned(file: PublishedFile) -> str | None:
    pin = read_pins().get(file.name)
    return pin.sha256 if pin else None


def _pin(file: PublishedFile, digest: str, source: str, config: DownloadConfig) -> None:
    write_pin(file.name, digest, source)
    config.say(
        f"{file.name}: no checksum was published; SHA-256 {digest} is pinned in {pins_file()}, and "
        "a file that differs will be refused"
    )


def _none_worked(file: PublishedFile, failures: list[EmovoxError]) -> EmovoxError:
    """Return one error for all addresses, of the most informative kind."""
    kinds = (CheckError, InputError, NetworkError)
    kind = next(kind for kind in kinds if any(isinstance(f, kind) for f in failures))
    tried = "; ".join(str(failure) for failure in failures)
    return kind(
        f"{file.name}: download failed: {tried}; pass another address as --url, or a copy of the "
        "file as --from"
    )
