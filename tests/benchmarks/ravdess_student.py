"""A dataset of RAVDESS speech, with the acted emotion as teacher, to train a student on.

    python tests/benchmarks/ravdess_student.py RAVDESS OUT
    emovox train-student OUT/dataset pipelines/student-ravdess.toml --audio OUT/audio --out OUT/run
    emovox evaluate OUT/run/best.safetensors OUT/dataset --audio OUT/audio

RAVDESS is its folder or a zip file of it. Every frame of an utterance gets the logits of the acted
emotion; calm counts as neutral. Actors 21 to 24 are unheard_val; of the other actors, the second
repetition of the second statement at normal intensity is heard_val. OUT/untrained.safetensors is a
network with random weights and the width of the recipe, for comparison.
"""

import argparse
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch

from emovox.dataset import schema
from emovox.dataset.rows import Chunk, TrackRow
from emovox.dataset.writer import DatasetInfo, write_chunks
from emovox.emotions import EMOTIONS
from emovox.ids import TrackKey
from emovox.student import student_checkpoint
from emovox.student.vggvox import StudentConfig, VGGVox

ACTED = {
    "01": "neutral",
    "02": "neutral",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
ACTED_LOGIT = 6.0  # logit of the acted emotion; the others are 0
UNHEARD_ACTORS = {"21", "22", "23", "24"}


def split_of(fields: list[str]) -> str:
    if fields[6] in UNHEARD_ACTORS:
        return "unheard_val"
    return "heard_val" if fields[3:6] == ["01", "02", "02"] else "train"


def unpack(source: Path, audio: Path) -> dict[str, list[tuple[Path, list[str]]]]:
    """Copy the utterances to `<identity>/<video>/00001`; return them by split."""
    if source.is_file():
        with zipfile.ZipFile(source) as archive:
            archive.extractall(audio.parent / "unpacked")
        source = audio.parent / "unpacked"
    found = defaultdict(list)
    for path in sorted(source.rglob("03-01-*.*"), key=lambda path: path.stem[-2:] + path.stem):
        fields = path.stem.split("-")
        target = audio / f"actor{fields[6]}" / path.stem / f"00001{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        found[split_of(fields)].append((target, fields))
    return found


def chunks(found: dict[str, list[tuple[Path, list[str]]]]) -> Iterator[Chunk]:
    for split in schema.SPLITS:
        for path, fields in found[split]:
            duration = soundfile.info(path).duration
            num_rows = int(duration * 1000) // schema.STEP_MS + 1
            identity, video = path.parts[-3:-1]
            row = TrackRow(TrackKey(identity, video, 1), num_rows, num_rows, int(duration * 1e3))
            index = np.arange(num_rows)
            logits = np.zeros((len(EMOTIONS), num_rows), np.float32)
            logits[EMOTIONS.index(ACTED[fields[2]])] = ACTED_LOGIT
            columns = [
                pa.array([row.track_id] * num_rows),
                pa.array(index.astype(np.int16)),
                pa.array((index * schema.STEP_MS).astype(np.int32)),
                *map(pa.array, logits),
            ]
            yield Chunk(split, [row], pa.Table.from_arrays(columns, schema=schema.EIGHT.frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ravdess", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    found = unpack(arguments.ravdess, arguments.out / "audio")
    origin = "the acted emotions of RAVDESS; no teacher was run on faces"
    teacher = {"name": "intention", "sha256": None}
    info = DatasetInfo(
        "ravdess", "1.0.0", schema.STEP_MS, teacher, {"origin": origin}, ("frames", "tracks")
    )
    write_chunks(arguments.out / "dataset", chunks(found), [], info, hdf5=False)
    untrained = VGGVox(StudentConfig(width=0.25), torch.Generator().manual_seed(0)).eval()
    student_checkpoint.save(arguments.out / "untrained.safetensors", untrained, {})
    for split, utterances in found.items():
        print(f"{split:12} {len(utterances):5,} utterances")


if __name__ == "__main__":
    main()
