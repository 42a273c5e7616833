"""The plain names and numbers of the contract, without pyarrow: `emovox --help` shows them."""

import re

SPLITS = ("train", "heard_val", "unheard_val")
# One file per split each; `dropped` is a single file.
TABLES = ("frames", "tracks", "faces", "embeddings")
STEP_MS = 240  # milliseconds between grid points; the published dataset's step
POOLS = ("max", "mean", "peak")  # of the frames of a window, see `Dataset.target`
TIMINGS = ("grid", "legacy")
VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


def parse_version(version: str) -> tuple[int, ...] | None:
    """Return the numbers of MAJOR.MINOR.PATCH; None for another form."""
    match = VERSION.fullmatch(version)
    return tuple(map(int, match.groups())) if match else None
