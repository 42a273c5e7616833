"""Predictions of a student for the tracks of a split, from their sound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from emovox.dataset.reader import Dataset
from emovox.dataset.rows import Dropped
from emovox.errors import InputError
from emovox.media.audio import read_audio
from emovox.scores import softmax
from emovox.student import Student
from emovox.student.clips import Clip, Scan, find_clips, read_ahead, unusable
from emovox.student.student_config import LEGACY, EvaluateConfig
from emovox.student.windows import CENTRE, choose_part

EMPTY = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class SplitPredictions:
    """A student's predictions for the tracks of one split."""

    split: str  # name of the split
    track_ids: np.ndarray  # tracks, `[N]`
    identities: np.ndarray  # identity of each track, `[N]`
    labels: np.ndarray  # index of the teacher's emotion, int64 `[N]`
    scores: np.ndarray  # probabilities of the student, float32 `[N, E]`
    dropped: list[Dropped]  # tracks without usable audio
    # means of the teacher's values over each track, float32 `[N]` by name; not scored
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    # probabilities from the centre bucket of each utterance, float32 `[N, E]`; maybe empty
    centre_scores: np.ndarray = field(default_factory=EMPTY.copy)

    def to_arrow(self, emotions: Sequence[str]) -> pa.Table:
        """Return a table with one row per track: labels, scores and values."""
        texts = {
            "track_id": self.track_ids.tolist(),
            "split": [self.split] * len(self.labels),
            "label": [emotions[k] for k in self.labels],
        }
        scores = {f"score_{name}": self.scores[:, k] for k, name in enumerate(emotions)}
        return pa.table(texts | scores | {f"value_{name}": v for name, v in self.values.items()})


def read_utterance(
    path: Path, protocol: str = "standard", start: float = 0.0, end: float | None = None
) -> np.ndarray:
    """Read the samples of a file or a part under a protocol; InputError if this is not possible."""
    if protocol == LEGACY:
        return read_audio(path, start, end, channels="left", resample=False)
    return read_audio(path, start, end)


def predict_split(
    student: Student, data: Dataset, split: str, root: Path, config: EvaluateConfig
) -> SplitPredictions:
    """Run a student on the tracks of a split; CheckError if too many have no usable audio.

    The sound of a track ends with its last row: what follows has no label. The legacy protocol
    hears it, because its seconds are not those of the rows.
    """
    scan = find_clips(data, data.tracks[split]["track_id"].to_pylist(), root)
    scores, centre_scores = [EMPTY.reshape(0, len(data.emotions))], []
    failures: dict[str, Dropped] = {}
    part = choose_part(config, student.windows)

    def read(clip: Clip) -> np.ndarray | Dropped:
        end = clip.end if config.protocol == LEGACY else clip.start + clip.duration
        try:
            return read_utterance(clip.path, config.protocol, clip.start, end)
        except InputError as error:
            return unusable(clip.track_id, clip.path, root, error)

    for chunk in read_ahead(scan.clips, read, split):
        heard = [item for item in chunk if not isinstance(item, Dropped)]
        failures |= {item.track_id: item for item in chunk if isinstance(item, Dropped)}
        if heard:
            scores.append(softmax(student(heard, part)))
            centre_scores.append(softmax(student(heard, CENTRE)))
    clips = [clip for clip in scan.clips if clip.track_id not in failures]
    scan = Scan(clips, [*scan.dropped, *failures.values()])
    scan.check(root, config.max_dropped)
    tracks = [data[clip.track_id] for clip in clips]
    legacy = config.timing == LEGACY
    targets = [
        data.target(clip.track_id, 0.0, clip.duration if legacy else np.inf, timing=config.timing)
        for clip in clips
    ]
    return SplitPredictions(
        split,
        np.array([track.track_id for track in tracks]),
        np.array([track.identity_id for track in tracks]),
        np.stack(targets).argmax(axis=1),
        np.concatenate(scores),
        scan.dropped,
        {
            name: np.array([track.values[:, k].mean() for track in tracks])
            for k, name in enumerate(data.values)
        },
        np.concatenate([*scores[:1], *centre_scores]),
    )
