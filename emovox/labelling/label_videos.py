"""Labelling of videos that belong to no corpus."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.dataset.reader import Dataset, load
from emovox.dataset.store import read_rows
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.run import build_dataset


def label_videos(
    paths: Sequence[Path], teacher: str, folder: Path, device: str, precision: str, num_jobs: int
) -> tuple[Dataset, list[str], dict[str, dict[str, Any]]]:
    """Build a dataset of whole videos in an empty folder, with the 0.24 s grid and MTCNN.

    Return it, the track id of each video, and the rows of the table `dropped` by track id.
    """
    names = [f"{number:09d}" for number in range(len(paths))]  # every table and decoder takes them
    for name, path in zip(names, paths, strict=True):
        (folder / name).symlink_to(path.resolve())
    rows = [f"video/{name}/00000,{name},video,,\n" for name in names]
    csv, out = folder / "tracks.csv", folder / "dataset"
    csv.write_text("".join(["track_id,video,identity,start,end\n", *rows]), encoding="utf-8")
    runtime: dict[str, Any] = {"device": device, "precision": precision, "jobs": num_jobs}
    build_dataset(BuildConfig("table", folder, out, teacher, table=csv, **runtime))
    dropped = read_rows(out / schema.DROPPED_FILE).to_pylist()
    track_ids = [f"video/{name}/00000" for name in names]
    return load(out), track_ids, {row["track_id"]: row for row in dropped}
