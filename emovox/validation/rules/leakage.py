"""Rules about splits: identities and videos that may not be in two of them."""

from collections.abc import Iterator
from typing import Any

from emovox.corpus.splits import official_split
from emovox.corpus.voxceleb import SETS_LIST, read_official_split
from emovox.dataset import schema
from emovox.ids import TrackKey
from emovox.validation.findings import Example, NotApplicableError
from emovox.validation.inspection import Inspection


def official_lists(dataset: Inspection) -> Iterator[Example]:
    known = _known_disagreements(dataset.json(schema.PROVENANCE))
    if dataset.meta is None:
        raise NotApplicableError("official lists not given; pass their folder with --meta")
    if not (dataset.meta / SETS_LIST).is_file():
        raise NotApplicableError(f"{SETS_LIST} is missing in the folder of --meta")
    lists = read_official_split(dataset.meta)
    columns = "split, identity_id, video_id, track_num, track_id"
    for split, identity, video, number, track_id in dataset.rows(f"select {columns} from tracks"):
        listed = official_split(TrackKey(identity, video, number), lists)
        if listed != split and track_id not in known:
            shown = f"is in {split}, but {listed or 'missing'} in the official lists"
            yield Example(schema.table_file("tracks", split), f"{track_id}: {shown}")


def _known_disagreements(provenance: Any) -> set[str]:
    """Return the tracks for which the published file and the lists give different splits."""
    content = provenance if isinstance(provenance, dict) else {}
    config = content.get("config")
    if isinstance(config, dict) and config.get("splits") == "official":
        return set()
    if not content.get("imported_from"):
        raise NotApplicableError(f"{schema.PROVENANCE} does not claim the official split")
    listed = content.get("split_disagreements")
    return {str(entry.get("track_id")) for entry in listed or [] if isinstance(entry, dict)}
