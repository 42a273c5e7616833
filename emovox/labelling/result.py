"""Result of a build, and the summary that it prints."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emovox.dataset import schema
from emovox.dataset.rows import count_reasons
from emovox.labelling.plan import BuildPlan
from emovox.labelling.shard_report import ShardReport
from emovox.packages import DataFrame, data_frame

COUNTS = ("tracks", "frames", "identities")  # of each split


@dataclass(repr=False)
class BuildResult:
    """Result of a build."""

    out: Path  # folder of the dataset
    manifest: dict[str, Any]  # content of its manifest.json
    reasons: Counter[str]  # dropped tracks by stage and error
    notes: list[str]  # lines about things that were skipped
    num_built: int  # shards built by this run, out of `num_shards`
    num_shards: int  # shards of the whole build
    seconds: float  # duration of the run
    # sums over all shards, whichever run built them: `tracks`, `frames`, `num_decoded`,
    # `media_seconds`, `teacher_seconds`, `wait_seconds`
    totals: Counter[str] = field(default_factory=Counter)
    too_many_dropped: bool = False  # True if more tracks were dropped than `max_dropped` allows

    def __repr__(self) -> str:
        totals = self.manifest["totals"]
        return (
            f"<BuildResult {self.out}: {totals['tracks']:,} tracks, {totals['frames']:,} frames, "
            f"{totals['dropped']:,} dropped>"
        )

    def to_pandas(self) -> DataFrame:
        """Return one row per split, with its counts; MissingPackageError without pandas."""
        splits = self.manifest["totals"]["by_split"]
        rows = [{"split": split} | splits[split] for split in schema.SPLITS if split in splits]
        return data_frame(rows, ["split", *COUNTS])

    def summary(self) -> str:
        """Return the lines that a build ends with."""
        totals = self.manifest["totals"]
        lines = [
            f"dataset   {self.out}",
            f"tracks    {totals['tracks']:,} written, {totals['dropped']:,} dropped",
            f"frames    {totals['frames']:,}",
        ]
        for split in schema.SPLITS:
            counts = totals["by_split"].get(split, {})
            text = ", ".join(f"{counts[n]:,} {n}" for n in COUNTS if counts) or "empty"
            lines.append(f"  {split:<12}{text}")
        lines += [f"dropped   {count:,} x {why}" for why, count in self.reasons.most_common()]
        lines += [f"note      {note}" for note in self.notes]
        lines.append(
            f"shards    {self.num_built:,} built, {self.num_shards - self.num_built:,} reused, "
            f"in {self.seconds:.1f} s"
        )
        media, teacher, wait = (self.totals[f"{n}_seconds"] for n in ("media", "teacher", "wait"))
        if self.num_built and media and self.totals["frames"]:
            num_tracks = self.totals["tracks"] + self.totals["dropped"]
            lines.append(
                f"speed     media {1000 * media / num_tracks:.1f} ms per track, teacher "
                f"{self.totals['frames'] / max(teacher, 1e-9):,.0f} crops/s, per worker; "
                f"bound by {'media' if media > wait else 'the teacher'}"
            )
        return "\n".join(lines)


def summarize(
    plan: BuildPlan,
    reports: Collection[ShardReport],
    manifest: dict[str, Any],
    num_built: int,
    seconds: float,
) -> BuildResult:
    """Sum up the reports of all shards of a build; for the others see `BuildResult`."""
    totals: Counter[str] = Counter()
    dropped, notes = list(plan.corpus.dropped), list(plan.corpus.notes)
    repeated: dict[str, list[Any]] = {}
    for report in reports:
        dropped += report.dropped
        totals["tracks"] += len(report.tracks)
        totals["dropped"] += len(report.dropped)
        totals["frames"] += report.num_frames
        for name in ("num_decoded", "media_seconds", "teacher_seconds", "wait_seconds"):
            totals[name] += getattr(report, name)
        for what, (count, example) in report.notes.items():
            repeated.setdefault(what, [0, example])[0] += count
    notes += [f"{count:,} {what}: {example}" for what, (count, example) in repeated.items()]
    num_planned = manifest["totals"]["tracks"] + manifest["totals"]["dropped"]
    too_many = len(dropped) > plan.config.max_dropped * num_planned
    found = (plan.config.out, manifest, count_reasons(dropped), notes)
    return BuildResult(*found, num_built, len(reports), seconds, totals, too_many)
