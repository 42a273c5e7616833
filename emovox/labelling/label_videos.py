"""Labelling of videos that belong to no corpus."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.dataset.reader import Dataset, load
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.run import build_dataset


def label_videos(
    paths: Sequence[Path],
    teacher: str,
    folder: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    num_jobs: int = 0,
) -> tuple[Dataset, list[str]]:
    """Build a dataset of whole videos in `folder`, with the 0.24 s grid and MTCNN.

    Args:
        paths: video files, in any folders.
        teacher: a registered name or a checkpoint.
        folder: an empty folder.
        device: as for `load_teacher`.
        precision: as for `load_teacher`.
        num_jobs: worker processes; 0 for one per core.

    Returns:
        The dataset and the track id of each video. Videos without rows are in its table `dropped`.
    """
    # Links have names that every table and decoder takes.
    links = [folder / f"{number:09d}" for number in range(len(paths))]
    for link, path in zip(links, paths, strict=True):
        link.symlink_to(path.resolve())
    track_ids = [f"video/{link.name}/00000" for link in links]
    columns = {
        "track_id": track_ids,
        "video": [link.name for link in links],
        "identity": ["video"] * len(paths),
        "start": pa.nulls(len(paths), pa.float64()),
        "end": pa.nulls(len(paths), pa.float64()),
    }
    pq.write_table(pa.table(columns), folder / "tracks.parquet")
    config = BuildConfig(
        layout="table",
        root=folder,
        table=folder / "tracks.parquet",
        out=folder / "dataset",
        teacher=teacher,
        device=device,
        precision=precision,
        jobs=num_jobs,
    )
    build_dataset(config)
    return load(config.out), track_ids
