"""Rules about splits: who and what may be on which side."""

from collections.abc import Iterator
from typing import Any

from emovox.corpus.splits import official_split
from emovox.corpus.voxceleb import SETS_LIST, read_official_split
from emovox.dataset import schema
from emovox.ids import TrackKey
from emovox.validation.inspection import Inspection
from emovox.validation.rule import ERROR, WARNING, Example, Family, NotApplicableError, file_of

RULES = Family("splits")

RULES.query(
    "identities-disjoint",
    ERROR,
    "No identity of unheard_val is in train or heard_val.",
    needs="tracks",
    sql="""select 'unheard_val' as split, identity_id || ': in ' ||
            string_agg(distinct split, ', ' order by split) as text
        from tracks group by identity_id
        having bool_or(split = 'unheard_val') and bool_or(split <> 'unheard_val')""",
)
RULES.query(
    "heard-in-train",
    WARNING,
    "Every identity of heard_val is in train.",
    needs="tracks",
    sql="""select 'heard_val' as split, identity_id || ': ' || count(*) || ' tracks' as text
        from tracks group by identity_id
        having bool_or(split = 'heard_val') and not bool_or(split = 'train')""",
)
RULES.query(
    "videos-in-one-split",
    WARNING,
    "All tracks of a video are in one split.",
    needs="tracks",
    sql="""select max(split) as split, video_id || ': ' ||
            string_agg(distinct split, ', ' order by split) as text
        from tracks group by video_id having count(distinct split) > 1""",
)


@RULES.check(
    "official-lists", ERROR, "Tracks are in the split of the official lists, if they claim to be."
)
def official_lists(dataset: Inspection) -> Iterator[Example]:
    known = _known_disagreements(dataset.provenance())
    if dataset.options.meta is None:
        raise NotApplicableError("the official lists were not given; --meta names their folder")
    if not (dataset.options.meta / SETS_LIST).is_file():
        raise NotApplicableError("the folder of --meta does not have the official lists")
    lists = read_official_split(dataset.options.meta)
    columns = "split, identity_id, video_id, track_num, track_id"
    for split, identity, video, number, track_id in dataset.rows(
        f"select {columns} from tracks", ["tracks"]
    ):
        listed = official_split(TrackKey(identity, video, number), lists)
        if listed != split and track_id not in known:
            shown = f"is {split} here, {listed or 'missing'} in the official lists"
            yield Example(file_of("tracks", split), f"{track_id}: {shown}")


def _known_disagreements(provenance: Any) -> set[str]:
    """Tracks that the import of the published file found in another split than the lists have.

    Raises:
        NotApplicableError: the dataset does not claim the official split.
    """
    content = provenance if isinstance(provenance, dict) else {}
    config = content.get("config")
    if isinstance(config, dict) and config.get("splits") == "official":
        return set()
    if not content.get("imported_from"):
        raise NotApplicableError(f"{schema.PROVENANCE} does not claim the official split")
    named = content.get("split_disagreements")
    return {str(d.get("track_id")) for d in named or [] if isinstance(d, dict)}
