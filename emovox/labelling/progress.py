"""Progress of a build on stderr: a bar on a terminal, elsewhere a line from time to time."""

import sys
import time
from collections.abc import Collection, Iterator

from tqdm import tqdm

from emovox.labelling.shard_report import ShardReport

LOG_SECONDS = 30.0  # between lines where stderr is not a terminal


def with_progress(
    running: Iterator[ShardReport], num_tracks: int, done: Collection[ShardReport], show: bool
) -> Iterator[ShardReport]:
    """Yield reports unchanged and show tracks, frames per second and time left.

    Args:
        running: reports of finished shards.
        num_tracks: tracks of the whole build.
        done: reports of shards that an earlier run built.
        show: False for no output at all.
    """
    num_seen = sum(report.num_tracks for report in done)
    num_frames, began = 0, time.perf_counter()
    logged = began
    with tqdm(
        total=num_tracks,
        initial=num_seen,
        unit="track",
        disable=None if show else True,
        dynamic_ncols=True,
    ) as bar:
        for report in running:
            num_frames += report.num_frames
            num_seen += report.num_tracks
            rate = num_frames / (time.perf_counter() - began)
            bar.set_postfix_str(f"{rate:,.0f} frames/s", refresh=False)
            bar.update(report.num_tracks)
            if bar.disable and show and time.perf_counter() - logged >= LOG_SECONDS:
                logged = time.perf_counter()
                line = f"{num_seen:,} of {num_tracks:,} tracks, {rate:,.0f} frames/s\n"
                sys.stderr.write(line)
            yield report
