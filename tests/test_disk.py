"""Full and read-only disks: a tmpfs of a few pages."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from emovox.cli import main
from emovox.dataset import schema
from emovox.testing import write_clip

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs needs Linux and root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def build_arguments(root: Path, out: Path) -> list[str]:
    for number in range(8):
        write_clip(root / f"mp4/a/x/{number}.mp4", 50)
    arguments = ["build-dataset", "--layout", "voxceleb2", "--root", str(root)]
    return [*arguments, "--out", str(out), "--jobs", "1", "--shard-tracks", "1"]


def test_full_disk_is_one_line_and_the_run_resumes_later(tiny_disk: Path, tmp_path: Path) -> None:
    arguments = build_arguments(tmp_path / "root", tiny_disk / "out")
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr and result.stderr.count("\n") == 1
    assert not (tiny_disk / "out" / schema.MANIFEST).exists()
    subprocess.run(["mount", "-o", "remount,size=10m", str(tiny_disk)], check=True)
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "8 written, 0 dropped" in result.stdout
    assert ", 0 reused" not in result.stdout


@pytest.mark.parametrize("is_begun", [False, True])
def test_read_only_disk_is_one_line_and_the_run_resumes_later(
    tiny_disk: Path, tmp_path: Path, is_begun: bool
) -> None:
    """Read-only from the start, or, as after a disk error, since an earlier run."""
    subprocess.run(["mount", "-o", "remount,size=10m", str(tiny_disk)], check=True)
    arguments = build_arguments(tmp_path / "root", tiny_disk / "out")
    if is_begun:
        (tiny_disk / "out/.emovox").mkdir(parents=True)
        (tiny_disk / "out/.emovox/lock").touch()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert "Read-only file system" in result.stderr and result.stderr.count("\n") == 1
    subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "8 written, 0 dropped" in result.stdout
