"""Download of published files into a folder.

A file appears under its name only when it is complete and its checksum matches. Where none was
published, the checksum of the first good copy is pinned in `pins.json` in the cache.
"""

import datetime
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emovox import files
from emovox.config import read_config
from emovox.downloads.download_config import TARGETS, DownloadConfig, PublishedFile, find_files
from emovox.downloads.transfer import discard, fetch
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError, NetworkError, public_url
from emovox.files import replace_file, sha256_file, write_text
from emovox.matfile import VERSIONS, open_mat
from emovox.packages import DataFrame, data_frame

# Forms of files, and words for them.
FORMS = {
    "mat": "a complete MAT file",
    "onnx": "an ONNX network",
    "pth": "a complete file of PyTorch weights",
    "text": "text",
}

# First bytes of a protobuf message whose first field is the number of the IR version, and of
# torch.save before PyTorch 1.6, which wrote a pickle of its magic number.
STARTS = {"onnx": b"\x08", "pth": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."}


def find_fault(path: Path, form: str) -> str | None:
    """Return what a file is instead of a complete one of its form, in words; None if it is one."""
    kind = files.kind_of_file(path)
    if form == "mat" and kind in VERSIONS:
        try:
            with open_mat(path) as variables:
                for _ in variables:  # reads the headers only
                    pass
        except InputError as error:
            return f"a {str(error).removeprefix(f'{path}: ')}"
        return None
    if form == "pth" and kind == "a zip archive":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            return "a truncated or damaged zip archive"
        has_weights = any(name.endswith("data.pkl") for name in names)
        return None if has_weights else "a zip archive without weights"
    if start := STARTS.get(form):
        return None if files.read_start(path, len(start)) == start else kind
    return None if kind == form else kind


def pins_file() -> Path:
    """Return the path of the pins, which may not exist."""
    return files.cache_folder() / "pins.json"


def read_pins() -> dict[str, dict[str, str]]:
    """Return the pin of the first good copy of each file, by file name: `sha256`, `source`, `date`.

    InputError if the file of the pins is damaged.
    """
    path = pins_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: pin | {"sha256": str(pin["sha256"])} for name, pin in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"{path}: not JSON with pinned checksums ({error}); fix it, or remove it to pin again"
        ) from error


Say = Callable[[str], object]  # accepts a line for the user


@dataclass(frozen=True)
class DownloadedFile:
    """A complete file."""

    path: Path  # of the file
    bytes: int  # its size
    sha256: str  # its checksum
    source: str | None  # its address, or the copy that it was made from; None if the file existed


class Downloads(list[DownloadedFile]):
    """Files of a download, in the order of its target."""

    def __repr__(self) -> str:
        return f"<Downloads {', '.join(str(file.path) for file in self)}>"

    def to_pandas(self) -> DataFrame:
        """Return a DataFrame with one row per file: `path`, `bytes`, `sha256`, `source`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return data_frame([asdict(file) | {"path": str(file.path)} for file in self])


def download(target: str, *, say: Say = lambda line: None, **options: Any) -> Downloads:
    """Download published files; complete files are kept, incomplete ones are resumed.

    Args:
        target: `annotations`, `splits`, `teacher` or `student`.
        say: called with lines for the user.
        **options: fields of `DownloadConfig`: `name`, `out`, `url`, `copy`, `accept_new`.

    Raises:
        ConfigError: target or name is unknown, or an address or copy matches no file.
        NetworkError: no mirror sent the file.
        InputError: the file, or the copy, is not a complete file of its form.
        CheckError: its SHA-256 differs from the published or the pinned one.
        EmovoxError: the disk is full, or another download of the file is running.

    Example:
        >>> download("splits", name="vox1_meta.csv", out="lists")  # doctest: +SKIP
        <Downloads lists/vox1_meta.csv>
    """
    config = read_config(DownloadConfig, options={"target": target, **options})
    folder = config.out or files.cache_folder() / TARGETS[target].folder
    requested = find_files(config.target, config.name)
    is_copy = config.copy is not None and not config.copy.is_dir()
    is_address = config.url is not None and not config.url.endswith("/")
    if len(requested) > 1 and (is_copy or is_address):
        names = ", ".join(file.name for file in requested)
        raise ConfigError(f"{'--from' if is_copy else '--url'}: one file; pass its name of {names}")
    return Downloads(FileDownload(file, folder, config, say).run() for file in requested)


@dataclass(frozen=True)
class FileDownload:
    """Download of one published file."""

    file: PublishedFile
    folder: Path  # created if missing
    config: DownloadConfig  # `url`, `copy` and `accept_new` are used
    say: Say

    @property
    def path(self) -> Path:
        """Path of the complete file."""
        return self.folder / self.file.name

    def run(self) -> DownloadedFile:
        """Download the file unless it exists and is complete; for errors see `download`."""
        locks = files.cache_folder() / "locks"
        for folder in (self.folder, locks):
            folder.mkdir(parents=True, exist_ok=True)
        name = self.file.name
        busy = f"{name}: another download is running; wait for it"
        with files.exclusive(locks / f"{name}.lock", busy):
            files.remove_leftovers(self.path)
            if self.config.copy is not None:
                return self._install(self.config.copy)
            return self._existing() or self._fetch()

    def _existing(self) -> DownloadedFile | None:
        """Return the file if it exists and is complete; pin it if it has no known checksum."""
        path, file = self.path, self.file
        if not path.is_file() or (self.config.accept_new and file.sha256 is None):
            return None
        digest, expected = sha256_file(path), file.sha256 or self._pinned()
        if digest != expected if expected else find_fault(path, file.form):
            self.say(f"{path}: differs from the expected {file.name}; downloading it")
            return None
        if not expected:
            self._pin(digest, str(path))
        self.say(f"{path}: exists")
        return self._complete(digest, None)

    def _install(self, copy: Path) -> DownloadedFile:
        source = copy / self.file.name if copy.is_dir() else copy
        if not source.is_file():
            accepted = f"--from accepts {self.file.name} or its folder"
            raise InputError(f"{source}: no such file; {accepted}")
        with replace_file(self.path) as temporary:
            shutil.copyfile(source, temporary)
            digest = self._accept(temporary, str(source))
        return self._complete(digest, str(source))

    def _fetch(self) -> DownloadedFile:
        """Download the file from the first address that has it."""
        file, url = self.file, self.config.url
        self.say(f"{file.name}: {file.purpose}; licence: {file.licence}")
        part = self.path.with_name(f"{file.name}.part")
        urls = file.mirrors
        if url is not None:
            urls = (url + file.name if url.endswith("/") else url,)
        failures: list[EmovoxError] = []
        for url in urls:
            try:
                fetch(url, part, self.say)
                url = public_url(url)
                digest = self._accept(part, url)
            except (NetworkError, InputError, CheckError) as error:
                if isinstance(error, CheckError) and file.sha256 is None:
                    raise  # other mirrors differ from the pin too; --accept-new uses `part`
                if not isinstance(error, NetworkError):
                    discard(part)
                failures.append(error)
            else:
                with part.open("rb+") as written:
                    os.fsync(written.fileno())
                part.replace(self.path)
                discard(part)
                return self._complete(digest, url)
        raise type(failures[0])(
            f"{file.name}: download failed: {'; '.join(map(str, failures))}; pass another address "
            "as --url, or a copy of the file as --from"
        )

    def _accept(self, path: Path, source: str) -> str:
        """Check a file from `source`, pin one without a known checksum; return its SHA-256."""
        file = self.file
        if fault := find_fault(path, file.form):
            raise InputError(f"{source}: expected {FORMS[file.form]}; found {fault}")
        digest, expected = sha256_file(path), file.sha256 or self._pinned()
        if digest == expected:
            return digest
        if file.sha256:
            raise CheckError(f"{source}: SHA-256 {digest} differs from the published {expected}")
        if expected and not self.config.accept_new:
            raise CheckError(
                f"{source}: SHA-256 {digest} differs from {expected}, pinned in {pins_file()}; the "
                "existing file is kept; pass --accept-new to accept and pin the new one"
            )
        self._pin(digest, source)
        return digest

    def _pinned(self) -> str | None:
        return read_pins().get(self.file.name, {}).get("sha256")

    def _pin(self, digest: str, source: str) -> None:
        """Pin the file, in place of an earlier pin."""
        name, path = self.file.name, pins_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.exclusive(path.with_suffix(".lock"), "", timeout=-1):
            date = datetime.date.today().isoformat()
            pins = read_pins() | {name: {"sha256": digest, "source": source, "date": date}}
            write_text(path, json.dumps(dict(sorted(pins.items())), indent=2) + "\n")
        self.say(
            f"{name}: no checksum was published; SHA-256 {digest} is pinned in {path}, and a file "
            "that differs will be refused"
        )

    def _complete(self, digest: str, source: str | None) -> DownloadedFile:
        return DownloadedFile(self.path, self.path.stat().st_size, digest, source)
