"""The plain names and numbers of the contract, without pyarrow: `emovox --help` shows them."""

SPLITS = ("train", "heard_val", "unheard_val")
# One file per split each; `dropped` is a single file.
TABLES = ("frames", "tracks", "faces", "embeddings")
STEP_MS = 240  # milliseconds between grid points; the published dataset's step
POOLS = ("max", "mean", "peak")  # of the frames of a window, see `Dataset.target`
TIMINGS = ("grid", "legacy")
