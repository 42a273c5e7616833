"""Tests of paths that may be URLs."""

import copy
import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from emovox.corpus.tracks import Corpus, Entry
from emovox.errors import ConfigError, NetworkError
from emovox.files import cache_folder, user_name, write_text
from emovox.paths import (
    RemotePath,
    as_path,
    file_state,
    is_remote,
    local_copy,
    map_ahead,
)


@pytest.fixture
def folder() -> Iterator[Any]:
    """Yield a folder in memory with one hidden file."""
    name = uuid4().hex
    path = as_path(f"memory://{name}/vox")
    write_text(path / ".hidden", "")
    yield path
    fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def test_only_urls_are_remote(tmp_path: Path) -> None:
    for text in ("a/b", "/a/b", ".", "s3:/bucket", "C:\\a", "a b://c"):
        assert as_path(text) == Path(text) and isinstance(as_path(text), Path)
    assert as_path(f"file://{tmp_path}") == tmp_path
    remote: Any = as_path("memory://a/b")
    assert is_remote(remote) and not is_remote(tmp_path)
    assert as_path(remote) is remote and as_path(tmp_path) == tmp_path


def test_local_paths_import_no_fsspec(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from emovox.paths import as_path, local_copy;"
        "from emovox.corpus.tracks import Corpus;"
        f"list(Corpus(as_path('file://{tmp_path}')).files.walk('', print));"
        "assert 'fsspec' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parts_of_a_url() -> None:
    path = RemotePath("memory://bucket/vox/")
    assert str(path) == "memory://bucket/vox" and path.name == "vox"
    inner = path / "a b#c?d%41.mp4"
    assert str(inner) == "memory://bucket/vox/a b#c?d%41.mp4"
    assert (inner.name, inner.suffix) == ("a b#c?d%41.mp4", ".mp4")
    assert path / "" == path != inner
    assert RemotePath("memory://bucket/").name == RemotePath("memory://bucket").name == ""
    for same in (copy.deepcopy(path), pickle.loads(pickle.dumps(path))):  # noqa: S301  made right here
        assert same == path and str(same / "x") == str(path / "x")
    assert len({path, RemotePath("memory://bucket/vox")}) == 1


def test_url_that_no_installed_package_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Protocol not known: nonsense"):
        as_path("nonsense://a/b")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"install gcsfs .*emovox\[remote\]"):
        as_path("gs://a/b")


def test_url_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"pip install 'emovox\[remote\]'"):
        as_path("s3://bucket/vox")


def test_write_read_and_remove(folder: Any) -> None:
    file = folder / "a" / "b.txt"
    assert not file.exists() and not file.is_dir() and file.state() is None
    with pytest.raises(FileNotFoundError) as error:
        file.read_text()
    assert error.value.strerror == "No such file or directory"
    write_text(file, "äh\n")
    assert file.read_text() == "äh\n" and file.read_bytes() == "äh\n".encode()
    assert file.is_file() and not file.is_dir()
    assert (folder / "a").is_dir() and not (folder / "a").is_file()
    assert [path.name for path in folder.iterdir()] == [".hidden", "a"]
    assert list(folder.files()) == [".hidden", "a/b.txt"]
    assert folder.files()["a/b.txt"][0] == len("äh\n".encode())
    assert file.state() == file_state(folder / "a/b.txt")
    before = file.state()
    write_text(file, "changed")
    assert file.state() != before
    file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.unlink()


def test_local_copies_are_removed(folder: Any, tmp_path: Path) -> None:
    write_text(tmp_path / "x.csv", "1")
    with local_copy(tmp_path / "x.csv") as local:
        assert local == tmp_path / "x.csv"
    assert local.exists()
    for name in ("1.jpg", "2.jpg", "inner/3.jpg"):
        write_text(folder / name, name)
    with local_copy(folder / "1.jpg") as local:
        assert local.suffix == ".jpg" and local.read_text() == "1.jpg"
    assert not local.exists()
    with pytest.raises(FileNotFoundError), local_copy(folder / "none.jpg"):
        pass
    with local_copy(folder, is_folder=True) as local:
        names = sorted(path.name for path in local.iterdir())
    assert names == [".hidden", "1.jpg", "2.jpg"] and not local.exists()


class Failing:
    """A file system that raises an error for every request."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> None:
            if name != "invalidate_cache":
                raise self.error

        return call


class ServiceError(Exception):
    """An error of a client library."""


def failing(error: Exception) -> Any:
    return RemotePath("memory://secret/vox", (Failing(error), "/secret/vox"))


def test_errors_have_a_number_and_contain_no_host() -> None:
    cases = {
        PermissionError("secret"): (PermissionError, errno.EACCES),
        TimeoutError(): (TimeoutError, errno.ETIMEDOUT),
        ServiceError("https://secret:443/vox"): (OSError, errno.EIO),
    }
    for error, (kind, number) in cases.items():
        with pytest.raises(kind) as raised:
            failing(error).read_bytes()
        assert raised.value.errno == number and "secret" not in str(raised.value.strerror)
    with pytest.raises(TypeError):  # a bug is not converted
        failing(TypeError()).read_bytes()


def test_a_corpus_that_cannot_be_listed() -> None:
    with pytest.raises(NetworkError, match=r"cannot be listed.*https://secret"):
        Corpus(failing(ServiceError("https://secret:443"))).files.is_dir("")


def test_a_url_and_the_same_folder_have_the_same_listing(folder: Any, tmp_path: Path) -> None:
    names = ["b.mp4", "a.mp4", "x/2.mp4", "x/1.mp4", "x/y/.hidden", "x/y/z.txt", "w/1.mp4"]
    names += [".git/a.mp4", "film.mp4/1.mp4", "film.mp4/more/2.mp4", "é/1.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(tmp_path / name, name)
        write_text(folder / name, name)
    notes: list[tuple[str, str]] = []
    local, remote = Corpus(tmp_path).files, Corpus(folder).files
    for below in ("", "x"):
        expected = list(local.walk(below, lambda *left: notes.append(left)))
        assert list(remote.walk(below, lambda *left: notes.append(left))) == expected
        assert Entry("x/1.mp4", is_file=True) in expected
    assert notes == [("hidden files and folders", ".git")] * 2  # local and remote
    for name in ("", "x", "x/y", "film.mp4", "none", "a.mp4"):
        assert remote.is_dir(name) == local.is_dir(name)
        one, other = remote.folder_state(name), local.folder_state(name)
        if name not in ("", "a.mp4"):
            assert [each for each, _ in one or []] == [each for each, _ in other or []]
    size, _ = remote.state("x/1.mp4") or (0, "")
    assert size == len("x/1.mp4") and remote.state("none") is None


def test_map_ahead_keeps_the_order_and_stops_at_an_error() -> None:
    assert list(map_ahead(lambda n: n * n, range(100))) == [n * n for n in range(100)]
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(10_000):
            taken.append(n)
            yield n

    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda n: 1 // (5 - n), items()))
    assert len(taken) < 100


def test_an_account_without_home_and_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(*_: object) -> None:
        raise RuntimeError("Could not determine home directory.")

    def nameless() -> None:
        raise KeyError("getpwuid(): uid not found: 12345")

    for name in ("EMOVOX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path / "home")
    assert cache_folder() == tmp_path / "home/.cache/emovox"
    with monkeypatch.context() as patch:
        patch.setattr("os.getuid", lambda: 12345)
        patch.setattr("tempfile.tempdir", str(tmp_path))
        patch.setattr("os.access", lambda path, mode: False)
        assert cache_folder() == tmp_path / "emovox_12345"
        (tmp_path / "home/.cache/emovox").mkdir(parents=True)  # may hold files to read
        assert cache_folder() == tmp_path / "home/.cache/emovox"
    monkeypatch.setattr("pathlib.Path.home", absent)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / "emovox_12345"
    assert user_name() == "12345"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "emovox"
    monkeypatch.setattr("pathlib.Path.expanduser", absent)
    monkeypatch.setenv("EMOVOX_CACHE", "~/cache")
    assert cache_folder() == tmp_path / "emovox_12345"


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
def test_commands_of_an_account_without_home_and_name() -> None:
    """In a container, a user is often a number without an entry in /etc/passwd."""
    account = ["unshare", "--user", "--map-user=12345"]
    if subprocess.run([*account, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    names = {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "EMOVOX_CACHE"}
    environment = {key: value for key, value in os.environ.items() if key not in names}
    code = (
        "import runpy, sys; from emovox.files import cache_folder; print(cache_folder());"
        "sys.argv = ['emovox', 'demo', '--help']; runpy.run_module('emovox', run_name='__main__')"
    )
    command = [*account, sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "emovox_12345" in run.stdout and "Usage:" in run.stdout
