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
    root = Path(paths[0].resolve().anchor)
    track_ids = [f"video/{number:09d}/00000" for number in range(len(paths))]
    columns = {
        "track_id": track_ids,
        "video": [path.resolve().relative_to(root).as_posix() for path in paths],
        "identity": ["video"] * len(paths),
        "start": pa.nulls(len(paths), pa.float64()),
        "end": pa.nulls(len(paths), pa.float64()),
    }
    pq.write_table(pa.table(columns), folder / "tracks.parquet")
    config = BuildConfig(
        layout="table",
        root=root,
        table=folder / "tracks.parquet",
        out=folder / "dataset",
        teacher=teacher,
        device=device,
        precision=precision,
        jobs=num_jobs,
    )
    build_dataset(config)
    return load(config.out), track_ids
