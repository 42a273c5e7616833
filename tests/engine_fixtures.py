"""An engine for builds whose processes are not what is tested."""

from collections.abc import Iterable, Iterator

from emovox.labelling.shard import ShardJob, ShardReport, build_shard
from emovox.labelling.worker import Place, feed_of, load_detector


class InProcess:
    """Stands in for `LokyEngine`: the same shards, real decoder and teacher, in this process."""

    def __init__(self, *arguments: object, **options: object) -> None:
        """Workers and devices mean nothing here."""

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        for job in jobs:
            feed = feed_of(job.settings, job.teacher_path, Place(job.state / "journal", "cpu"))
            yield build_shard(job, feed, lambda: load_detector("cpu"))
