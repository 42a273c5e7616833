"""What a teacher sees in videos that belong to no corpus: a dataset is built of them."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from emovox.labelling.build_config import BuildConfig
from emovox.labelling.run import build_dataset


def watch(
    paths: Sequence[Path],
    teacher: str,
    folder: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    num_jobs: int = 0,
) -> list[str]:
    """Build `folder/dataset` of whole videos: the 0.24 s grid, MTCNN, worker processes and all.

    Args:
        paths: videos, anywhere.
        teacher: a registered name or a checkpoint.
        folder: there, and empty.
        device, precision: as for `load_teacher`.
        num_jobs: worker processes; 0 for one per core.

    Returns:
        The track of each video. Those that gave no rows are in the table `dropped`.
    """
    root = Path(paths[0].resolve().anchor)
    track_ids = [f"video/{number:09d}/00000" for number in range(len(paths))]
    nothing = pa.nulls(len(paths), pa.float64())
    columns = {
        "track_id": track_ids,
        "video": [path.resolve().relative_to(root).as_posix() for path in paths],
        "identity": ["video"] * len(paths),
        "start": nothing,
        "end": nothing,
    }
    table = folder / "tracks.parquet"
    pq.write_table(pa.table(columns), table)
    build_dataset(
        BuildConfig(
            layout="table",
            root=root,
            table=table,
            out=folder / "dataset",
            teacher=teacher,
            device=device,
            precision=precision,
            jobs=num_jobs,
        )
    )
    return track_ids
