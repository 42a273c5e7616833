"""File systems without locks."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import h5py
import pytest

import emovox
from emovox.dataset import schema
from emovox.errors import EmovoxError


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Writing says what to do; reading works, also where the cache is on such a file system."""
    labels = {"track_id": ["ann/talk/1"], "label": ["anger"]}
    options: dict[str, Any] = {"emotions": ("anger", "fear"), "hdf5": True}
    emovox.write_dataset(tmp_path / "before", labels, **options)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EmovoxError, match="the file system has no locks; use a folder on another"):
        emovox.write_dataset(tmp_path / "after", labels, **options)
    for container in ("parquet", "hdf5"):
        track = emovox.load(tmp_path / "before", container)["ann/talk/00001"]
        assert track.logits.tolist() == [[6, 0]]


def test_hdf5_files_are_read_without_a_lock(tmp_path: Path) -> None:
    """By default HDF5 asks for a lock, which fails where another program holds one."""
    labels = {"track_id": ["ann/talk/1"], "label": ["anger"]}
    emovox.write_dataset(tmp_path / "own", labels, emotions=("anger", "fear"), hdf5=True)
    path = tmp_path / "own" / schema.hdf5_file(emovox.load(tmp_path / "own").splits[0])
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock"):
            h5py.File(path)
        assert emovox.validate(tmp_path / "own").valid
        assert len(emovox.load(tmp_path / "own", "hdf5").to_numpy("train")[0]) == 1
