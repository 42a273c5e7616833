"""The plan of a build: tracks in shards, each with a fingerprint of all that its rows depend on."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from emovox.corpus.listing import Files
from emovox.corpus.splits import fraction
from emovox.corpus.tracks import FaceSource, Track
from emovox.dataset.schema import SCHEMA_VERSION
from emovox.media.faces import DENSE_SCALE, VOXCELEB2_SCALE

ROWS_VERSION = 3  # raise when a change to the code changes rows
MAX_SHARD_GROWTH = 2  # a shard may hold this many times the tracks asked for


@dataclass(frozen=True)
class ShardSettings:
    """Everything except the tracks that decides what a shard's rows are.

    Attributes:
        step_ms: milliseconds between grid points.
        teacher_name: its registered name, or the name of its checkpoint.
        teacher_sha256: of its weights.
        device: type of the device it runs on, with an index where one was asked for.
        precision: `fp32` or `bf16`.
        compiled: whether it runs through torch.compile.
    """

    step_ms: int
    teacher_name: str
    teacher_sha256: str
    device: str
    precision: str
    compiled: bool


@dataclass(frozen=True)
class Shard:
    """A group of tracks that one worker turns into rows.

    Attributes:
        fingerprint: hash of settings, tracks and source files; also the name of its files.
        tracks: in the order of the dataset.
    """

    fingerprint: str
    tracks: tuple[Track, ...]


def plan_shards(
    files: Files, tracks: Iterable[Track], settings: ShardSettings, shard_tracks: int
) -> Iterator[Shard]:
    """Group sorted tracks into shards of about `shard_tracks`.

    Where a shard ends depends on the names of the tracks alone, so that a corpus that grows or
    shrinks changes only the shards with the tracks in question.
    """
    group: list[Track] = []
    for track in tracks:
        group.append(track)
        ends_here = fraction(f"shard {track.track_id}") < 1 / shard_tracks
        if ends_here or len(group) >= MAX_SHARD_GROWTH * shard_tracks:
            yield Shard(_fingerprint(files, group, settings), tuple(group))
            group = []
    if group:
        yield Shard(_fingerprint(files, group, settings), tuple(group))


def _fingerprint(files: Files, tracks: list[Track], settings: ShardSettings) -> str:
    whole = hashlib.sha256()
    geometry = [DENSE_SCALE, VOXCELEB2_SCALE]
    whole.update(json.dumps([SCHEMA_VERSION, ROWS_VERSION, geometry, asdict(settings)]).encode())
    for track in tracks:
        # The split is not part of it: rows do not depend on it.
        fields = (track.track_id, track.source, track.faces, track.boxes, track.start, track.end)
        state = files.folder_state if track.faces is FaceSource.DENSE else files.state
        states = [state(track.source), track.boxes and files.state(track.boxes)]
        whole.update(json.dumps([fields, states]).encode())
    return whole.hexdigest()
