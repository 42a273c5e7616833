"""An engine without worker processes, for tests of other parts of a build."""

from collections.abc import Iterable, Iterator

from emovox.labelling.plan import ShardJob, ShardReport
from emovox.labelling.shard import build_shard
from emovox.labelling.worker import WorkerContext, feed_of, load_detector


class InProcess:
    """Replacement for `LokyEngine`: real decoder and teacher, in this process."""

    def __init__(self, *arguments: object, **options: object) -> None:
        """Accept and ignore the arguments of `LokyEngine`."""

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[ShardReport]:
        for job in jobs:
            feed = feed_of(
                job.settings, job.teacher_path, WorkerContext(job.state / "journal", "cpu")
            )
            yield build_shard(job, feed, lambda: load_detector("cpu"))
