"""Downloads from a local server that fails in all the ways servers do."""

import contextlib
import hashlib
import io
import json
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import oracle

from emovox.cli import main
from emovox.corpus.voxceleb import LISTS, META2, read_official_split
from emovox.downloads import transfer
from emovox.downloads.download_config import (
    TARGETS,
    DownloadConfig,
    PublishedFile,
    Target,
    find_files,
)
from emovox.downloads.published_files import (
    FORMS,
    FileDownload,
    download,
    find_fault,
    pins_file,
    read_pins,
)
from emovox.errors import CheckError, ConfigError, EmovoxError, InputError, NetworkError
from emovox.student import RELEASED as STUDENTS
from emovox.teacher import RELEASED

scipy_io = oracle("scipy.io")

PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


def mat_bytes(seed: int) -> bytes:
    """Return a MAT 5 file of 300 kB of noise, written from the description of the format."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    noise = np.random.default_rng(seed).integers(0, 256, 300_000, np.uint8)
    array_of_uint8 = element(6, struct.pack("<II", 9, 0))
    shape, name = element(5, struct.pack("<ii", 1, len(noise))), element(1, b"wavLogits")
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    return header + element(14, array_of_uint8 + shape + name + element(2, noise.tobytes()))


MAT, OTHER_MAT = mat_bytes(0), mat_bytes(1)


class Handler(BaseHTTPRequestHandler):
    """Handler of one request, which runs the next answer of the server's script."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.seen.append({"path": self.path, **dict(self.headers.items())})
        answer = self.server.script.pop(0) if self.server.script else serve()
        with contextlib.suppress(ConnectionError):
            answer(self)

    def do_CONNECT(self) -> None:
        self.server.seen.append({"path": self.path})
        self.send_error(403, "Forbidden here")

    def log_message(self, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Local server: `files` by name, `script` of the next answers, requests `seen` so far."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.seen: list[dict[str, str]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *arguments: object) -> None:
        pass


Answer = Callable[[Handler], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def stay_silent(handler: Handler) -> None:
    handler.server.over.wait(20)


def serve(
    *,
    etag: str | None = '"1"',
    ranges: bool = True,
    if_range: bool = True,
    stop: int | None = None,
    stall: bool = False,
    lie: int = 0,
    changed: str | None = None,
) -> Answer:
    """Serve the requested file.

    Args:
        etag: its version; None to send none.
        ranges: respect Range.
        if_range: respect If-Range.
        stop: close the connection after this many bytes of the body.
        stall: stop sending instead of closing the connection.
        lie: added to the Content-Length.
        changed: the Last-Modified to send.
    """

    def answer(handler: Handler) -> None:
        body = handler.server.files.get(urlsplit(handler.path).path.rpartition("/")[2])
        if body is None:
            return status(404)(handler)
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range") in (etag, changed) or not if_range
        start = int(match[1]) if match and ranges and condition else 0
        versions = {"ETag": etag, "Last-Modified": changed}
        headers = {name: value for name, value in versions.items() if value}
        if start >= len(body):
            headers["Content-Range"] = f"bytes */{len(body)}"
            return status(416, b"", **headers)(handler)
        handler.send_response(206 if start else 200)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        headers["Content-Length"] = str(len(body) - start + lie)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[start:][:stop])
        if stall:
            handler.server.over.wait(20)
        return None

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    server = Server()
    server.files = {"x.mat": MAT}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return tmp_path / "cache"


def published(*urls: str, body: bytes | None = None, form: str = "mat") -> PublishedFile:
    """Return an entry of the registry; with the checksum of `body` if given."""
    digest = None if body is None else hashlib.sha256(body).hexdigest()
    return PublishedFile("x.mat", urls, form, "tests", "none", sha256=digest)


class Run:
    """Downloads of one user: the folder, the lines shown, and the seconds waited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.part = folder / "x.mat", folder / "x.mat.part"
        self.lines: list[str] = []
        self.waits: list[float] = []

    def __call__(
        self, file: PublishedFile, limits: Mapping[str, float] | None = None, **options: Any
    ) -> bytes:
        """Download a file; `limits` replace constants of the transfer."""
        config = DownloadConfig("student", **options)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"sleep": self.waits.append, **(limits or {})}.items():
                patch.setattr(transfer, name, value)
            done = FileDownload(file, self.folder, config, self.lines.append).run()
        content = self.path.read_bytes()
        assert (done.path, done.bytes) == (self.path, len(content))
        assert done.sha256 == hashlib.sha256(content).hexdigest()
        assert [p.name for p in self.folder.iterdir()] == ["x.mat"], "nothing else is left"
        return content


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "out")


def test_a_file_is_downloaded_and_pinned(server: Server, run: Run, cache: Path) -> None:
    assert run(published(server.url + "x.mat")) == MAT
    [pin] = read_pins().values()
    assert pin["sha256"] == hashlib.sha256(MAT).hexdigest()
    assert pin["source"] == server.url + "x.mat" and pins_file() == cache / "pins.json"
    assert "no checksum was published" in run.lines[-1] and pin["sha256"] in run.lines[-1]
    assert server.seen[0]["Accept-Encoding"] == "identity" and run.waits == []


def test_a_complete_file_is_not_downloaded_again(server: Server, run: Run) -> None:
    for file in (published(server.url + "x.mat"), published(server.url + "x.mat", body=MAT)):
        run(file)
        assert run(file) == MAT
        assert len(server.seen) == 1 and "exists" in run.lines[-1]


def test_a_damaged_file_is_downloaded_again(server: Server, run: Run) -> None:
    run(published(server.url + "x.mat"))
    run.path.write_bytes(MAT[:-1] + b"?")
    assert run(published(server.url + "x.mat")) == MAT
    assert any("differs from the expected x.mat" in line for line in run.lines)


def test_an_existing_complete_file_is_pinned(server: Server, run: Run) -> None:
    run.folder.mkdir()
    run.path.write_bytes(OTHER_MAT)
    assert run(published(server.url + "x.mat")) == OTHER_MAT
    assert not server.seen and len(read_pins()) == 1
    run.path.write_bytes(MAT[:1000])
    pins_file().unlink()
    assert run(published(server.url + "x.mat")) == MAT


def test_a_broken_connection_is_resumed(server: Server, run: Run) -> None:
    server.script = [serve(stop=100_000), serve(stop=100_000)]
    assert run(published(server.url + "x.mat", body=MAT)) == MAT
    starts = [int(seen.get("Range", "bytes=0-")[6:-1]) for seen in server.seen]
    assert starts[0] == 0 < starts[1] < starts[2]
    assert all(seen["If-Range"] == '"1"' for seen in server.seen[1:])
    assert run.waits == [1, 1], "attempts with new bytes do not count"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(MAT)), st.booleans()), max_size=5))
def test_bytes_are_correct_after_breaks_anywhere(breaks: list[tuple[int, bool]]) -> None:
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        server.script = [serve(stop=stop, ranges=ranges) for stop, ranges in breaks]
        run = Run(Path(folder) / "out")
        assert run(published(server.url + "x.mat", body=MAT), {"ATTEMPTS": 9}) == MAT


def test_last_modified_replaces_a_weak_etag(server: Server, run: Run) -> None:
    changed = "Wed, 21 Oct 2015 07:28:00 GMT"
    weak = serve(etag='W/"1"', changed=changed, stop=100_000)
    server.script = [weak, serve(etag='W/"1"', changed=changed)]
    assert run(published(server.url + "x.mat")) == MAT
    assert server.seen[1]["If-Range"] == changed and "Range" in server.seen[1]


def test_a_file_without_a_version_is_not_resumed(server: Server, run: Run) -> None:
    server.script = [serve(etag=None, stop=100_000), serve(etag=None)]
    assert run(published(server.url + "x.mat")) == MAT
    assert "Range" not in server.seen[1]


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changes_during_the_download_starts_over(
    server: Server, run: Run, if_range: bool
) -> None:
    def change(handler: Handler) -> None:
        handler.server.files["x.mat"] = OTHER_MAT
        handler.server.script = [answer] * 5
        answer(handler)

    answer = serve(etag='"2"', if_range=if_range)
    server.script = [serve(stop=100_000), change]
    assert run(published(server.url + "x.mat")) == OTHER_MAT
    assert len(server.seen) == (2 if if_range else 3)


def test_a_server_without_ranges_starts_over(server: Server, run: Run) -> None:
    server.script = [serve(stop=100_000), serve(ranges=False)]
    assert run(published(server.url + "x.mat", body=MAT)) == MAT
    assert "Range" in server.seen[1]


def test_bytes_of_another_range_are_not_appended(server: Server, run: Run) -> None:
    wrong = status(206, MAT[5:], ETag='"1"', Content_Range=f"bytes 5-{len(MAT) - 1}/{len(MAT)}")
    server.script = [serve(stop=100_000), wrong]
    assert run(published(server.url + "x.mat", body=MAT)) == MAT
    assert len(server.seen) == 3


def test_a_content_length_that_is_too_long_is_an_error(server: Server, run: Run) -> None:
    server.script = [serve(lie=50) for _ in range(9)]
    with pytest.raises(NetworkError):
        run(published(server.url + "x.mat", body=MAT))
    assert not run.path.exists() and len(server.script) > 0
    assert any("connection closed" in line or "IncompleteRead" in line for line in run.lines)


def test_a_content_length_that_is_too_short_is_detected(server: Server, run: Run) -> None:
    """HTTP cannot detect the missing bytes; the content and the checksum can."""
    server.script = [serve(lie=-50)]
    with pytest.raises(InputError, match="truncated"):
        run(published(server.url + "x.mat"))
    server.files["x.mat"] = 1000 * b"Some_Name 1\n"
    server.script = [serve(lie=-12)]
    with pytest.raises(CheckError, match=r"SHA-256 \w+ differs from the published"):
        run(published(server.url + "x.mat", body=server.files["x.mat"], form="text"))
    assert list(run.folder.iterdir()) == [] and not read_pins()


def test_not_found_lists_the_addresses_and_the_options(server: Server, run: Run) -> None:
    with pytest.raises(NetworkError) as caught:
        run(published(server.url + "a/y.mat", server.url + "b/y.mat"))
    message = str(caught.value)
    assert "a/y.mat: 404 Not Found; " in message and "b/y.mat: 404 Not Found" in message
    assert "--url" in message and "--from" in message and "\n" not in message
    assert run.waits == [] and list(run.folder.iterdir()) == []


def test_the_next_mirror_is_tried(server: Server, run: Run) -> None:
    server.files["bad.mat"] = OTHER_MAT
    server.files["page.mat"] = PAGE
    urls = (server.url + name for name in ("none.mat", "bad.mat", "page.mat", "x.mat"))
    assert run(published(*urls, body=MAT)) == MAT


def test_waits_double_until_the_last_attempt(server: Server, run: Run) -> None:
    server.script = [status(500)]
    assert run(published(server.url + "x.mat")) == MAT
    assert run.waits == [1]
    run.path.unlink()
    server.script = [status(429)] * 9
    with pytest.raises(NetworkError, match="429 Too Many Requests"):
        run(published(server.url + "x.mat"))
    assert run.waits[1:] == [1, 2, 4]
    run.waits.clear()
    server.script = [status(500)] * 9
    with pytest.raises(NetworkError, match="500 Internal Server Error"):
        run(published(server.url + "x.mat"), {"ATTEMPTS": 5})
    assert run.waits == [1, 2, 4, 8]


@pytest.mark.parametrize("stop", [0, 100_000])
def test_a_silent_server_is_retried_and_then_an_error(server: Server, run: Run, stop: int) -> None:
    hasty = {"READ_SECONDS": 0.2}
    server.script = [serve(stop=stop, stall=True)]
    assert run(published(server.url + "x.mat"), hasty) == MAT
    assert ("Range" in server.seen[1]) == bool(stop)
    run.path.unlink()
    server.script = [stay_silent] * 9
    with pytest.raises(NetworkError, match="timed out"):
        run(published(server.url + "x.mat"), hasty)


def test_a_refused_connection_is_one_line(server: Server, run: Run) -> None:
    server.server_close()
    with pytest.raises(NetworkError, match="Connection refused") as caught:
        run(published(server.url + "x.mat"))
    assert "\n" not in str(caught.value) and run.waits == [1, 2, 4]


@pytest.mark.parametrize("form", FORMS)
def test_a_web_page_is_not_accepted_as_a_file(server: Server, run: Run, form: str) -> None:
    server.files["x.mat"] = PAGE
    with pytest.raises(InputError, match="found an HTML page") as caught:
        run(published(server.url + "x.mat", form=form))
    assert caught.value.exit_code == 2
    assert not run.path.exists() and not run.part.exists() and not read_pins()


def test_a_file_without_its_published_checksum_is_refused(server: Server, run: Run) -> None:
    with pytest.raises(CheckError, match=r"SHA-256 \w+ differs from the published") as caught:
        run(published(server.url + "x.mat", body=OTHER_MAT))
    assert caught.value.exit_code == 1 and hashlib.sha256(MAT).hexdigest() in str(caught.value)
    assert list(run.folder.iterdir()) == []
    with pytest.raises(CheckError):
        run(published(server.url + "x.mat", body=OTHER_MAT), accept_new=True)


def test_a_file_that_differs_from_its_pin_needs_accept_new(
    server: Server, run: Run, tmp_path: Path
) -> None:
    file = published(server.url + "x.mat")
    run(file)
    server.files["x.mat"] = OTHER_MAT
    other = Run(tmp_path / "other")
    with pytest.raises(CheckError, match=r"pinned in .*--accept-new"):
        other(file)
    assert not other.path.exists()
    assert run(file) == MAT, "the existing file is kept"
    num_seen = len(server.seen)
    assert other(file, accept_new=True) == OTHER_MAT
    assert server.seen[num_seen]["Range"] == f"bytes={len(OTHER_MAT)}-", "no second transfer"
    assert read_pins()["x.mat"]["sha256"] == hashlib.sha256(OTHER_MAT).hexdigest()
    assert run(file, accept_new=True) == OTHER_MAT


def test_a_refused_file_does_not_replace_the_old_one(server: Server, run: Run) -> None:
    file = published(server.url + "x.mat")
    run(file)
    with pytest.raises(CheckError):
        run(file, copy=write(run.folder.parent / "new.mat", OTHER_MAT))
    assert run.path.read_bytes() == MAT


def test_a_refused_part_is_discarded_for_a_correct_file(server: Server, run: Run) -> None:
    file = published(server.url + "x.mat")
    run(file)
    run.path.unlink()
    server.files["x.mat"] = OTHER_MAT
    with pytest.raises(CheckError):
        run(file)
    server.files["x.mat"] = MAT
    server.script = [serve(etag='"2"')]
    assert run(file) == MAT


def test_damaged_pins_are_one_line(server: Server, run: Run) -> None:
    write(pins_file(), b'{"x.mat": {"sha": 3}}')
    with pytest.raises(InputError, match="not JSON with pinned checksums"):
        run(published(server.url + "x.mat"))


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_local_copy_is_installed(server: Server, run: Run, tmp_path: Path) -> None:
    file = published("http://published.invalid/x.mat")
    copy = write(tmp_path / "usb/from the web.mat", MAT)
    assert run(file, copy=copy) == MAT and copy.exists()
    assert run(file, copy=run.path) == MAT
    assert len(read_pins()) == 1
    for content, words in ((PAGE, "found an HTML page"), (MAT[:-1], "truncated")):
        with pytest.raises(InputError, match=words):
            run(file, copy=write(copy, content))
    with pytest.raises(InputError, match=r"none.mat: no such file"):
        run(file, copy=tmp_path / "none.mat")
    with pytest.raises(InputError, match=r"usb/x.mat: no such file; --from accepts x.mat"):
        run(file, copy=copy.parent)
    assert run.path.read_bytes() == MAT and len(list(run.folder.iterdir())) == 1


def test_url_replaces_the_mirrors(server: Server, run: Run) -> None:
    server.files["renamed"] = MAT
    file = published("http://published.invalid/x.mat")
    assert run(file, url=server.url + "renamed") == MAT
    run.path.unlink()
    assert run(file, url=server.url) == MAT
    for url in ("x.mat", "file:///etc/passwd", "http:///x.mat"):
        with pytest.raises(ConfigError, match="cannot download"):
            run(published("http://published.invalid/"), url=url, accept_new=True)
        with pytest.raises(ConfigError, match="cannot download"):
            run(published(url), accept_new=True)


def test_a_proxy_is_used(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is asked for an address that does not exist, so it was used as a proxy."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.script = [serve(stop=100_000)]
    assert run(published("http://published.invalid/folder/x.mat")) == MAT
    assert [s["path"] for s in server.seen] == ["http://published.invalid/folder/x.mat"] * 2
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    run.path.unlink()
    with pytest.raises(NetworkError, match="Forbidden here"):
        run(published("https://published.invalid/x.mat"))
    assert server.seen[-1]["path"] == "published.invalid:443"


def test_no_proxy_is_respected(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert run(published(server.url + "x.mat")) == MAT


def test_a_disk_that_fills_up_is_one_line(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is a Linux device")
    run.folder.mkdir()
    monkeypatch.setattr("emovox.downloads.transfer.discard", lambda part: None)
    run.part.symlink_to("/dev/full")
    with pytest.raises(EmovoxError, match=r"x.mat.part: cannot write: No space left"):
        run(published(server.url + "x.mat"))


def test_a_second_download_of_a_file_is_refused(server: Server, run: Run, cache: Path) -> None:
    (cache / "locks").mkdir(parents=True)
    with (
        FileLock(cache / "locks/x.mat.lock"),
        pytest.raises(EmovoxError, match="another download is running"),
    ):
        run(published(server.url + "x.mat"))


def test_a_response_without_a_length(server: Server, run: Run) -> None:
    def chunked(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        ended = len(handler.server.seen) > 1
        for chunk in (MAT[:200_000], MAT[200_000:])[: 2 if ended else 1]:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if ended:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    server.script = [chunked, chunked]
    assert run(published(server.url + "x.mat")) == MAT
    assert len(server.seen) == 2


def test_a_compressed_response_that_was_not_requested(server: Server, run: Run) -> None:
    import gzip

    packed = gzip.compress(MAT)
    server.script = [status(200, packed, Content_Encoding="gzip", ETag='"1"')]
    assert run(published(server.url + "x.mat", body=MAT)) == MAT


# Content of files


@pytest.mark.parametrize("packed", [True, False])
def test_complete_mat_5_files_have_no_fault(tmp_path: Path, packed: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8)
    scipy_io.savemat(tmp_path / "x.mat", {"x": noise, "n": 3.0}, do_compression=packed)
    assert find_fault(tmp_path / "x.mat", "mat") is None


def test_mat_5_files_with_other_elements(tmp_path: Path) -> None:
    empty = zlib.compress(np.array([14, 0], ">u4").tobytes(), level=0)
    assert len(empty) % 8, "padding would be visible"
    packed = np.array([15, len(empty)], ">u4").tobytes() + empty  # not padded
    bytes_ = np.array([2, 3], ">u4").tobytes() + b"abc" + bytes(5)
    small = np.array([4 << 16 | 1, 7], ">u4").tobytes()
    content = MAT[:124] + b"\1\0MI" + packed + bytes_ + small
    path = tmp_path / "x.mat"
    assert find_fault(write(path, content), "mat") is None
    faults = [
        (content[:-1], f"truncated at {len(content) - 1} bytes, inside a variable"),
        (content[:150], "truncated at 150 bytes, inside a variable"),
        (content[:158], "truncated at 158 bytes, inside a variable"),
        (content + bytes(8), f"no variable starts at byte {len(content)}"),
        (content[:126] + b"??" + content[128:], "the byte order mark is b'??'"),
        (content[:128], "truncated before its first variable"),
        (content[:100], "truncated before its first variable"),
    ]
    for damaged, fault in faults:
        assert find_fault(write(path, damaged), "mat") == f"a damaged MAT 5 file ({fault})"


def test_the_served_file_is_a_mat_file() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8)
    np.testing.assert_array_equal(scipy_io.loadmat(io.BytesIO(MAT))["wavLogits"], noise[None])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(MAT) - 1), st.booleans())
def test_truncated_or_extended_mat_5_files_have_a_fault(end: int, packed: bool) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, 1000, np.uint8)
    scipy_io.savemat(file, {"x": noise}, do_compression=packed)
    content = file.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "x.mat", content[: end % len(content)])
        assert find_fault(path, "mat") is not None
        assert find_fault(write(path, content + b"\0" * (end % 40 + 1)), "mat") is not None
        assert find_fault(write(path, content), "mat") is None


def test_complete_and_truncated_mat_73_files(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["wavLogits"] = np.arange(1000.0)
    content = b"MATLAB 7.3 MAT-file".ljust(512) + path.read_bytes()[512:]
    assert find_fault(write(path, content), "mat") is None
    for end in (len(content) - 1, len(content) // 2, 600):
        fault = find_fault(write(path, content[:end]), "mat")
        assert fault is not None and "truncated" in fault and "\n" not in fault


def test_complete_and_damaged_pytorch_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra build")
    path = tmp_path / "x.pth"
    for is_zip in (True, False):
        torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=is_zip)
        assert find_fault(path, "pth") is None
    torch.save({"a": torch.ones(1000)}, path)
    write(path, path.read_bytes()[:-30])
    assert find_fault(path, "pth") == "a truncated or damaged zip archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thesis.docx", "")
    assert find_fault(path, "pth") == "a zip archive without weights"
    assert find_fault(write(path, b"\x80\x02cos\nsystem\n."), "pth") == "a pickle"
    assert find_fault(write(path, b""), "pth") == "an empty file"


# The registry, the function and the command


def test_registry_is_consistent() -> None:
    names = [file.name for target in TARGETS.values() for file in target.files]
    assert len(names) == len(set(names)), "pins are stored by name"
    for target in TARGETS.values():
        assert any(file.is_default for file in target.files)
        for file in target.files:
            assert file.form in FORMS and file.purpose and file.licence
            assert all(url.startswith("http") for url in file.mirrors)
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert all(file.sha256 and file.size for file in TARGETS["splits"].files)


def test_teacher_files_have_the_names_that_teachers_are_loaded_by() -> None:
    assert TARGETS["teacher"].folder == "teachers"
    for teacher, names in RELEASED.items():
        assert find_files("teacher", teacher)[0].name == names[0]
        assert [find_files("teacher", name)[0].name for name in names] == list(names)
    assert [file.name for file in find_files("teacher")] == [RELEASED["senet50-ferplus"][0]]


def test_students_and_lists_have_the_names_that_they_are_loaded_by() -> None:
    assert TARGETS["student"].folder == "students"
    assert [file.name for file in TARGETS["student"].files] == list(STUDENTS["emovoxceleb"])
    assert {file.name for file in find_files("splits")} == set(LISTS)
    assert find_files("splits", META2)[0].form == "text"


def emovox(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_command_downloads_into_the_cache(server: Server, cache: Path) -> None:
    names = ["senet50-ferplus-logits.mat", "voxceleb-imdb.mat"]
    server.files = dict.fromkeys(names, MAT)
    result = emovox("download", "annotations", "--url", server.url)
    assert result.exit_code == 0
    assert result.stdout.split() == [str(cache / "annotations" / name) for name in names]
    assert "is pinned in" in result.stderr and "licence" in result.stderr
    assert emovox("download", "annotations").stdout == result.stdout
    assert len(server.seen) == 2


def test_a_downloaded_teacher_is_found(tmp_path: Path) -> None:
    from emovox.teacher import find_teacher

    torch = pytest.importorskip("torch", reason="needs the extra build")

    torch.save({"a": torch.ones(3)}, tmp_path / "weights")
    result = emovox("download", "teacher", "--from", tmp_path / "weights")
    assert result.exit_code == 0
    assert find_teacher("senet50-ferplus").path == Path(result.stdout.strip())
    arguments = ["--name", "resnet50-ferplus.mat", "--from", write(tmp_path / "y.mat", MAT)]
    result = emovox("download", "teacher", *arguments)
    assert find_teacher("resnet50-ferplus").path == Path(result.stdout.strip())


def test_an_address_or_copy_of_one_file_needs_its_name(server: Server, tmp_path: Path) -> None:
    copy = write(tmp_path / "copy.mat", MAT)
    server.files["copy.mat"] = MAT
    for option in (["--from", copy], ["--url", server.url + "copy.mat"]):
        arguments = ["download", "annotations", *option, "--out", tmp_path / "out"]
        result = emovox(*arguments)
        assert result.exit_code == 2 and f"{option[0]}: one file; pass its name" in result.stderr
        result = emovox(*arguments, "voxceleb-imdb.mat")
        assert result.stdout.split() == [str(tmp_path / "out/voxceleb-imdb.mat")]


def test_failures_and_their_exit_codes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = replace(published(server.url + "gone.mat"), name="emovoxceleb-student.mat")
    monkeypatch.setitem(TARGETS, "student", Target("students", (student,)))
    page, good = write(tmp_path / "page", PAGE), write(tmp_path / "good", MAT)
    new = write(tmp_path / "new", OTHER_MAT)
    cases: list[tuple[list[object], int, str]] = [
        (["student"], 3, "gone.mat: 404 Not Found; pass another address as --url"),
        (["student", "--from", page], 2, "found an HTML page"),
        (["student", "--from", tmp_path / "none"], 2, "no such file"),
        (["student", "--from", good], 0, "is pinned"),
        (["student", "--from", new], 1, "--accept-new"),
        (["student", "--from", new, "--accept-new"], 0, "is pinned"),
        (["student", "--from", new, "--url", server.url], 2, "pass only one of them"),
        (["lecturer"], 2, "'lecturer' is not one of 'annotations', 'splits', 'teacher', 'student'"),
        (["teacher", "--name", "x"], 2, "senet50-ferplus, senet50_ferplus_dag.pth, senet50-fer"),
        (["splits", "--from", good], 2, "--from: one file; pass its name of identity_splits.txt"),
        (["student", "--url", "nonsense", "--accept-new"], 2, "cannot download: Invalid URL"),
        (["student", "--out", good], 2, "good"),
    ]
    for arguments, code, words in cases:
        result = emovox("download", *arguments)
        assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
        assert bool(result.stdout) == (code == 0)
        errors = [line for line in result.stderr.splitlines() if "error:" in line]
        assert len(errors) == (code > 0) or "Usage:" in result.stderr


def test_networks_in_onnx(server: Server, tmp_path: Path) -> None:
    listed = emovox("download", "teacher", "--list")
    assert "enet_b2_8\n" in listed.stdout and "63.03 % on AffectNet" in listed.stdout
    server.files["enet_b2_8.onnx"] = b"<html>gone</html>"
    arguments = ["download", "teacher", "enet_b2_8", "--url", server.url, "--out", tmp_path]
    result = emovox(*arguments)
    assert result.exit_code != 0 and "an ONNX network" in result.stderr
    server.files["enet_b2_8.onnx"] = b"\x08\x07" + bytes(1000)
    result = emovox(*arguments)
    assert result.exit_code == 0, result.stderr
    assert Path(result.stdout.strip()).name == "enet_b2_8.onnx"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_is_resumed(
    server: Server, tmp_path: Path, number: signal.Signals
) -> None:
    server.files["emovoxceleb-student.mat"] = MAT
    server.script = [serve(stop=200_000, stall=True)]
    arguments = ["download", "student", "--url", server.url, "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "emovox", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part = tmp_path / "out/emovoxceleb-student.mat.part"
    while not part.exists() or part.stat().st_size < 100_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and output == "", errors
    assert "interrupted; rerun the same command" in errors and "Traceback" not in errors
    arrived = part.stat().st_size
    result = emovox(*arguments)
    assert result.exit_code == 0
    assert server.seen[-1]["Range"] == f"bytes={arrived}-"
    path = Path(result.stdout.strip())
    assert path.read_bytes() == MAT and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.real
def test_the_real_lists_have_the_registered_checksums(
    real_data: Path, server: Server, cache: Path
) -> None:
    folder = real_data / "voxceleb-meta"
    server.files = {file.name: (folder / file.name).read_bytes() for file in find_files("splits")}
    for file in find_files("splits"):
        assert file.size == len(server.files[file.name])
    [meta2] = find_files("splits", META2)
    assert hashlib.sha256((folder / META2).read_bytes()).hexdigest() == meta2.sha256
    assert (folder / META2).stat().st_size == meta2.size
    server.script = [serve(), serve(stop=1_000_000)]
    result = emovox("download", "splits", "--url", server.url)
    assert result.exit_code == 0 and not pins_file().exists()
    lists = read_official_split(cache / "splits")
    assert len(lists.unheard_identities) == 250 and len(lists.heard_tracks) == 4_505
    server.files["vox1_meta.csv"] = server.files["vox1_meta.csv"].replace(b"\n", b"\r\n")
    result = emovox("download", "splits", "--url", server.url, "--out", cache / "other")
    assert result.exit_code == 1 and not result.stdout
    result = emovox("download", "splits", "--from", folder, "--out", cache / "other")
    assert result.exit_code == 0 and len(result.stdout.split()) == 3


def test_pins_are_readable(server: Server, run: Run) -> None:
    run(published(server.url + "x.mat"))
    [(name, pin)] = json.loads(pins_file().read_text()).items()
    assert name == "x.mat" and set(pin) == {"sha256", "source", "date"}


def test_function_downloads_a_target(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="needs the extra build")
    server.files["emovoxceleb-student.mat"] = MAT
    lines: list[str] = []
    for source in (server.url + "emovoxceleb-student.mat", None):
        files = download("student", out=str(tmp_path), url=server.url, say=lines.append)
        [row] = files.to_pandas().to_dict("records")
        path = tmp_path / "emovoxceleb-student.mat"
        assert row == {
            "path": str(path),
            "bytes": len(MAT),
            "sha256": hashlib.sha256(MAT).hexdigest(),
            "source": source,
        }
        assert repr(files) == f"<Downloads {path}>"
    assert "the published student" in lines[0] and lines[-1].endswith(": exists")
    with pytest.raises(ConfigError, match="'lecturer' is not one of annotations, splits"):
        download("lecturer")


def test_a_target_ends_at_the_first_unavailable_file(server: Server, tmp_path: Path) -> None:
    server.files["senet50-ferplus-logits.mat"] = MAT
    with pytest.raises(NetworkError, match=r"voxceleb-imdb.mat: download failed"):
        download("annotations", out=tmp_path / "out", url=server.url)
    assert (tmp_path / "out/senet50-ferplus-logits.mat").read_bytes() == MAT


@pytest.mark.parametrize(
    "url", ["http://[bad/x.mat", "http://a..b/x.mat", f"http://{'a' * 70}.org/x", "ftp://a/x", "x"]
)
def test_an_invalid_address_is_refused(tmp_path: Path, url: str) -> None:
    run = CliRunner().invoke(main, ["download", "student", "--out", str(tmp_path), "--url", url])
    assert run.exit_code == 2 and f"{url}: cannot download: " in run.output


def test_an_address_with_a_password_is_refused_without_printing_it(tmp_path: Path) -> None:
    url = "http://user:secret@localhost/x.mat"
    run = CliRunner().invoke(main, ["download", "student", "--out", str(tmp_path), "--url", url])
    assert run.exit_code == 2 and "secret" not in run.output


def test_a_missing_copy_is_refused(tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["download", "splits", "--from", str(tmp_path / "none")])
    assert run.exit_code == 2 and "--from: one file; pass its name of" in run.output


@pytest.mark.parametrize("length", ["-5", "1e3", "0x10", "9" * 30, "5, 5", "+5"])
def test_an_odd_length_is_refused(server: Server, run: Run, length: str) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        handler.wfile.write(MAT)

    server.script = [answer] * 9
    with pytest.raises(NetworkError, match="length"):
        run(published(server.url + "x.mat"))


def test_a_download_has_an_end(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emovox.downloads.transfer.MAX_DOWNLOAD", 1000)

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(bytes(10**6))
        handler.close_connection = True

    server.script = [answer] * 9
    with pytest.raises(NetworkError, match="more bytes"):
        run(published(server.url + "x.mat"))
