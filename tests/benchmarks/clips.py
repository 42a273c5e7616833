"""Corpora of copies of real clips, for the benchmarks in this folder."""

import shutil
from pathlib import Path


def copy_clips(source: Path, root: Path, copies: int) -> list[Path]:
    """Copy each clip several times, each copy as another identity; return the paths."""
    paths = []
    for clip in sorted(source.glob("mp4/*/*/*.mp4")):
        for k in range(copies):
            identity, video, name = clip.relative_to(source / "mp4").parts
            target = root / "mp4" / f"{identity}c{k:03d}" / video / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip, target)
            paths.append(target)
    return paths
