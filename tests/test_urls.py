"""Secrets of URLs: users, passwords, queries and tokens that must never be stored or printed."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests
from click.testing import CliRunner

from emovox import release
from emovox.cli import main
from emovox.dataset.rows import Dropped
from emovox.downloads.transfer import fetch
from emovox.errors import (
    EmovoxError,
    NetworkError,
    TrackError,
    find_secrets,
    public_url,
    without_secrets,
)
from emovox.paths import as_path
from emovox.testing import write_clip

SECRET = "PASSpass"
TEXTS = {
    f"https://me:{SECRET}@h/t.csv?X-Amz-Signature=1f: missing": "https://h/t.csv: missing",
    f"s3://KEY:ab/c+{SECRET}@bucket/key": "s3://bucket/key",
    f"https://u:p@{SECRET}@h/x": "https://h/x",
    f"https://{SECRET}@h/x": "https://h/x",
    f"https:/me:{SECRET}@h/x?token={SECRET}": "https:/h/x",
    f"simplecache::https://u:{SECRET}@h/x?sig={SECRET}": "simplecache::https://h/x",
    f"zip://a.csv::https://u:{SECRET}@h/x.zip": "zip://h/x.zip",
    f"gs://b/x?GoogleAccessId=q&Signature={SECRET}": "gs://b/x",
    f"https://h/x?{SECRET}": "https://h/x",
    f"https://h/x#access_token={SECRET}": "https://h/x",
    f"http://[::1]:80/x?token={SECRET}": "http://[::1]:80/x",
    f"sftp://u:{SECRET}@h:22/x": "sftp://h:22/x",
    f"//user:{SECRET}@host/share": "//host/share",
    f"Max retries exceeded with url: /t.csv?sv=1&sig={SECRET} (x)": "(x)",
    f"url='http://h/t?X-Amz-Credential={SECRET}'": "url='http://h/t'",
    f'bucket name "me:{SECRET}@host"': 'bucket name "host"',
    f"hf_token={SECRET}, X-Goog-Signature={SECRET}": "hf_",
}
UNCHANGED = (
    *("s3://bucket/a@b#c?d%41.mp4", "http://h:8080/a@b", "C:/Users/a@b/x", "mailto:me@x.org"),
    *("RAY_AUTH_MODE=token", "id1/a/00001: 3 of 7", '"source":"x@y"', "x?k=v.mp4"),
)


def test_secrets_are_removed_from_texts() -> None:
    for text, expected in TEXTS.items():
        assert SECRET not in without_secrets(text) and expected in without_secrets(text)
        assert not find_secrets(without_secrets(text))
    for text in UNCHANGED:
        assert without_secrets(text) == text and not find_secrets(text)
    assert public_url(f"https://a b:x {SECRET}@h/p?q={SECRET} y") == "https://h/p"
    for hostile in ("a-", "a:", "X-Amz-", "http://", "url: /", "//", "?#=", ";@", "token"):
        without_secrets(hostile * 30_000)  # takes no quadratic time


def test_errors_and_dropped_rows_have_none() -> None:
    url = f"https://me:{SECRET}@h/t.csv?token={SECRET}"
    error = TrackError("open", "NotFetched", f"{url}: refused")
    assert SECRET not in f"{EmovoxError(url)} {error} {error.message} {error.args}"
    row = Dropped.of(f"a/{url}/1", url, error)
    assert SECRET not in str(row) and "https://h/t.csv" in row.source


def test_urls_of_web_servers_keep_their_query_for_requests() -> None:
    path: Any = as_path(f"http://me:{SECRET}@h/folder/?token={SECRET}") / "t.csv"
    assert str(path) == "http://h/folder/t.csv" and (path.name, path.suffix) == ("t.csv", ".csv")
    assert path._path == f"http://me:{SECRET}@h/folder/t.csv?token={SECRET}"
    assert SECRET not in repr(path) + repr([path])
    assert as_path(f"http://h/t.parquet?X-Amz-Signature={SECRET}").suffix == ".parquet"


def test_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, url: str, **options: Any) -> Any:
        raise requests.ConnectionError(f"Max retries exceeded with url: /t?sig={SECRET}")

    monkeypatch.setattr(requests.Session, "get", refuse)
    said: list[str] = []
    monkeypatch.setattr("emovox.downloads.transfer.sleep", lambda seconds: None)
    with pytest.raises(NetworkError) as error:
        fetch(f"https://h/t?token={SECRET}", tmp_path / "t.part", said.append)
    assert said and SECRET not in f"{error.value} {said}"


def everything(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files, and the values of those that compress them."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        text = io.StringIO()
        print(table.schema.metadata, table.to_pylist(), file=text)
        found[f"{path} values"] = text.getvalue().encode()
    return found


def test_a_release_of_a_build_with_signed_urls(
    store: Any, tmp_path: Path, in_process: None
) -> None:
    store.mkdir("signed")
    for number in range(5):
        clip = write_clip(tmp_path / f"{number}.mp4", 25)
        store.put_file(str(clip), f"signed/vox/{number}.mp4")
    boxes = "".join(f"{frame}\t40\t30\t100\t100\n" for frame in range(25))
    store.pipe_file("signed/vox/b.txt", f"Identity\nFRAME\tX\tY\tW\tH\n{boxes}".encode())
    rows = [f"p{n}/v/1,{n}.mp4,p{n},,,{'train' if n else 'unheard_val'},b.txt" for n in range(5)]
    rows += [f"q/v/1,https://me:{SECRET}@h/x.mp4?X-Amz-Signature={SECRET},q,,,train,"]
    rows += [f"q/v/2,x.mp4,q,token={SECRET},,train,"]
    header = "track_id,video,identity,start,end,split,boxes"
    store.pipe_file("signed/t.csv", "\n".join([header, *rows]).encode())
    store.pipe_file(
        "signed/s.csv",
        b"identity_id,split\n"
        + b"".join(f"p{n},{'train' if n else 'unheard_val'}\n".encode() for n in range(4)),
    )
    out, signature = tmp_path / "out", "X-Amz-Signature="
    table, splits = (
        store.sign(f"signed/{name}.csv").replace("AWSAccessKeyId", "X-Amz-Credential")
        for name in "ts"
    )
    table, splits = (f"{url}&{signature}{SECRET}" for url in (table, splits))
    table = table.replace("http://", f"http://me:{SECRET}@")
    secrets = [SECRET.encode(), b"X-Amz", b"nothing", b"Signature="]
    arguments = ["build-dataset", "--layout", "table", "--root", "s3://signed/vox", "--jobs", "1"]
    arguments += ["--table", table, "--splits", splits, "--out", str(out), "--version", "1.0.0"]
    arguments += ["--precision", "fp32", "--compile", "off", "--max-dropped", "1", "--name", "x"]
    texts = {}
    run = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert run.exit_code == 0 and "4 written, 3 dropped" in run.output, run.output
    texts["built"] = run.output.encode()
    release(out, tmp_path / "released")
    failing = (
        ("--table", f"{table}x"),
        ("--root", f"s3://me:{SECRET}@signed/vox"),
        ("--out", f"s3://me:{SECRET}@signed/o?X-Amz-Signature={SECRET}"),
        ("--table", table.replace("t.csv", "none.csv")),
        ("--splits", f"{splits}#x"),
        ("--meta", f"https://me:{SECRET}@127.0.0.1:1/m?token={SECRET}"),
        ("--table", f"nonsense://me:{SECRET}@h/x"),
        ("--state", f"ftp://me:{SECRET}@127.0.0.1:1/x"),
        ("--teacher", f"https://h/t.pth?token={SECRET}"),
    )
    for number, (option, value) in enumerate(failing):
        wrong = arguments.copy()
        if option in wrong:
            wrong[wrong.index(option) + 1] = value
        else:
            wrong += [option, value]
        if option != "--out":
            wrong[wrong.index("--out") + 1] = str(tmp_path / f"failed{number}")
        run = CliRunner().invoke(main, wrong)
        texts[f"{option} {value}"] = run.output.encode()
        assert run.exit_code in (0, 1, 2, 3) and isinstance(run.exception, SystemExit | None)
    files = everything(tmp_path) | texts
    assert len(files) >= 40
    found = {name: word for name, content in files.items() for word in secrets if word in content}
    assert not found
    dropped = pq.read_table(tmp_path / "released/dropped.parquet").to_pylist()
    assert {row["track_id"] for row in dropped} >= {"q/v/1", "q/v/2"}
