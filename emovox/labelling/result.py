"""What a build did, in numbers and in the lines that it ends with."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emovox.corpus.tracks import Corpus
from emovox.dataset import schema
from emovox.labelling.build_config import BuildConfig
from emovox.labelling.shard import ShardReport, count_reasons


@dataclass
class BuildResult:
    """What a build did.

    Attributes:
        out: folder of the dataset.
        manifest: content of its manifest.json.
        reasons: dropped tracks by stage and error.
        notes: lines about things left aside.
        num_built: shards built by this run; the other `num_shards` were there already.
        seconds: how long the run took.
        totals: sums over all shards, whichever run built them: `tracks`, `frames`, `num_decoded`,
            `media_seconds`, `teacher_seconds`, `wait_seconds`.
        too_many_dropped: whether more were dropped than `max_dropped` allows.
        profile: lines of what was measured, if asked for.
    """

    out: Path
    manifest: dict[str, Any]
    reasons: Counter[str]
    notes: list[str]
    num_built: int
    num_shards: int
    seconds: float
    totals: Counter[str] = field(default_factory=Counter)
    too_many_dropped: bool = False
    profile: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """The lines a run ends with."""
        totals = self.manifest["totals"]
        lines = [
            f"dataset   {self.out}",
            f"tracks    {totals['tracks']:,} written, {totals['dropped']:,} dropped",
            f"frames    {totals['frames']:,}",
        ]
        for split in schema.SPLITS:
            counts = totals["by_split"].get(split)
            text = "empty"
            if counts:
                text = (
                    f"{counts['tracks']:,} tracks, {counts['frames']:,} frames, "
                    f"{counts['identities']:,} identities"
                )
            lines.append(f"  {split:<12}{text}")
        for reason, count in self.reasons.most_common():
            lines.append(f"dropped   {count:,} x {reason}")
        lines += [f"note      {note}" for note in self.notes]
        lines.append(
            f"shards    {self.num_built:,} built, {self.num_shards - self.num_built:,} reused, "
            f"in {self.seconds:.1f} s"
        )
        if self.num_built and self.totals["media_seconds"] and self.totals["frames"]:
            lines.append(self._bound())
        return "\n".join(lines + self.profile)

    def _bound(self) -> str:
        media, teacher, wait = (self.totals[f"{n}_seconds"] for n in ("media", "teacher", "wait"))
        num_tracks = self.totals["tracks"] + self.totals["dropped"]
        return (
            f"speed     media {1000 * media / num_tracks:.1f} ms per track, teacher "
            f"{self.totals['frames'] / max(teacher, 1e-9):,.0f} crops/s, per worker; "
            f"bound by {'media' if media > wait else 'the teacher'}"
        )


def summarize(
    config: BuildConfig,
    corpus: Corpus,
    reports: Iterable[ShardReport],
    manifest: dict[str, Any],
    num_built: int,
    seconds: float,
    profile: list[str],
) -> BuildResult:
    """The result of a build, from the reports of all its shards."""
    reports = list(reports)
    totals: Counter[str] = Counter()
    dropped = list(corpus.dropped)
    notes = list(corpus.notes)
    oddities: dict[str, list[Any]] = {}
    for report in reports:
        dropped += report.dropped
        totals["tracks"] += len(report.tracks)
        totals["dropped"] += len(report.dropped)
        totals["frames"] += report.num_frames
        for name in ("num_decoded", "media_seconds", "teacher_seconds", "wait_seconds"):
            totals[name] += getattr(report, name)
        for what, (count, example) in report.notes.items():
            oddities.setdefault(what, [0, example])[0] += count
    notes += [f"{count:,} {what}: {example}" for what, (count, example) in oddities.items()]
    num_planned = manifest["totals"]["tracks"] + manifest["totals"]["dropped"]
    return BuildResult(
        out=config.out,
        manifest=manifest,
        reasons=count_reasons(dropped),
        notes=notes,
        num_built=num_built,
        num_shards=len(reports),
        seconds=seconds,
        totals=totals,
        too_many_dropped=len(dropped) > config.max_dropped * num_planned,
        profile=profile,
    )
