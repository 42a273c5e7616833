"""A small dataset whose sound encodes its emotions, for the tests of the student."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from emovox.dataset import schema
from emovox.dataset.reader import Dataset
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.ids import TrackKey
from emovox.media.audio import SAMPLE_RATE
from emovox.student.clips import Clip, Windows
from emovox.student.segments import SpeechSegments
from emovox.student.student_config import StudentTrainConfig

HEARD = EMOTIONS[:5]  # the emotions that occur: the paper's five
STEP = schema.STEP_MS / 1000

# Trains on the dataset below in seconds.
QUICK = StudentTrainConfig(
    width=1 / 16,
    seconds=1.0,
    epochs=2,
    epoch_share=1.0,
    batch_size=20,
    learning_rate=0.02,
    last_learning_rate=0.01,
    validation_share=1.0,
    device="cpu",
    precision="fp32",
    workers=0,
)


@dataclass(frozen=True)
class Utterance:
    """A track with one emotion, and `duration` seconds of sound."""

    split: str
    identity: str
    number: int
    emotion: str
    duration: float

    @property
    def row(self) -> TrackRow:
        count = int(self.duration / STEP) + 1
        return TrackRow(
            TrackKey(self.identity, "v", self.number), count, count, int(self.duration * 1000)
        )

    @property
    def track_id(self) -> str:
        return self.row.track_id


def utterances(splits: Iterable[str] = schema.SPLITS) -> list[Utterance]:
    """Three speakers of train and heard_val, and three of unheard_val."""
    found = []
    for split in splits:
        names = ("ida", "idb", "idc") if split == "unheard_val" else ("idd", "ide", "idf")
        first, count = (100, 5) if split == "heard_val" else (1, 20)
        for name in names:
            for number in range(first, first + count):
                emotion = HEARD[number % len(HEARD)]
                duration = 0.8 + (0.23 * number) % 1.4  # seconds
                found.append(Utterance(split, name, number, emotion, duration))
    return found


def voice(utterance: Utterance) -> np.ndarray:
    """Noise with bursts of a tone, whose pitch encodes the emotion, float32 `[L]`."""
    seed = [utterance.number, *utterance.identity.encode()]
    rng = np.random.default_rng(seed)
    time = np.arange(round(utterance.duration * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 600 + 1300 * HEARD.index(utterance.emotion) + rng.uniform(-80, 80)
    bursts = np.sin(2 * np.pi * (4 * time + rng.uniform())) > 0
    sound = rng.normal(0, 0.02, len(time)) + 0.2 * bursts * np.sin(2 * np.pi * pitch * time)
    return sound.astype(np.float32)


def logits_of(utterance: Utterance) -> np.ndarray:
    """Logits float32 `[n, 8]`: 5 for the emotion, plus noise."""
    rng = np.random.default_rng([utterance.number, *utterance.identity.encode()])
    logits = rng.normal(0, 0.5, (utterance.row.n_frames, len(EMOTIONS)))
    logits[:, EMOTIONS.index(utterance.emotion)] += 5
    return logits.astype(np.float32)


def write_audio(root: Path, found: Iterable[Utterance]) -> Path:
    """Write the sound of tracks as WAV files, in the layout of VoxCeleb1."""
    for utterance in found:
        path = root / f"{utterance.track_id}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, voice(utterance), SAMPLE_RATE)
    return root


def write_tables(
    out: Path, found: Iterable[Utterance], name: str = "tones", step_ms: int = schema.STEP_MS
) -> Path:
    """Write the dataset of tracks; `found` is sorted by track within each split."""
    teacher = {"name": "intention", "sha256": None}
    origin = {"origin": "tones with an assigned emotion"}
    info = DatasetInfo(name, "1.0.0", step_ms, teacher, origin, ("frames", "tracks"))
    write_chunks(out, _chunks(found, step_ms), [], info, hdf5=False)
    return out


def _chunks(found: Iterable[Utterance], step_ms: int) -> Iterator[Chunk]:
    for utterance in found:
        row, logits = utterance.row, logits_of(utterance)
        index = np.arange(row.n_frames)
        columns = [
            pa.array([row.track_id] * row.n_frames),
            pa.array(index.astype(np.int16)),
            pa.array((index * step_ms).astype(np.int32)),
            *map(pa.array, np.ascontiguousarray(logits.T)),
        ]
        yield Chunk(
            utterance.split, [row], pa.Table.from_arrays(columns, schema=schema.EIGHT.frames)
        )


def segments_of(
    data: Dataset,
    clips: Sequence[Clip],
    root: Path,
    config: StudentTrainConfig,
    is_random: bool = True,
    kind: type[SpeechSegments] = SpeechSegments,
) -> SpeechSegments:
    """Segments of clips that a test chose, without a scan."""
    segments = kind.__new__(kind)
    segments.dataset, segments.clips, segments.root = data, list(clips), root
    segments.config, segments.is_random = config, is_random
    segments.windows = Windows(config.seconds)
    return segments
