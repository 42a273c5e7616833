"""A dataset of RAVDESS speech, with the acted emotion as teacher, to train a student on.

    python tests/benchmarks/ravdess_student.py RAVDESS OUT
    emovox train-student OUT/dataset pipelines/student-ravdess.toml --audio OUT/audio --out OUT/run
    emovox evaluate OUT/run/best.safetensors OUT/dataset --audio OUT/audio

RAVDESS is its folder or a zip file of it. Every frame of an utterance gets the logits of the acted
emotion; calm counts as neutral, and contempt does not occur. Actors 21 to 24 are unheard_val; of
the other actors, the second repetition of the second statement at normal intensity is heard_val.
OUT/untrained.safetensors is a network with random weights and the width of the recipe, for
comparison.
"""

import argparse
import shutil
import zipfile
from pathlib import Path
from typing import Any

import soundfile
import torch

import emovox
from emovox import checkpoints
from emovox.emotions import Outputs
from emovox.student.networks import StudentConfig, VGGVox

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
UNHEARD_ACTORS = {"21", "22", "23", "24"}


def split_of(fields: list[str]) -> str:
    if fields[6] in UNHEARD_ACTORS:
        return "unheard_val"
    return "heard_val" if fields[3:6] == ["01", "02", "02"] else "train"


def unpack(source: Path, audio: Path) -> list[dict[str, Any]]:
    """Copy the utterances to `<identity>/<video>/00001`; return the rows of their tracks."""
    if source.is_file():
        with zipfile.ZipFile(source) as archive:
            archive.extractall(audio.parent / "unpacked")
        source = audio.parent / "unpacked"
    tracks = []
    for path in sorted(source.rglob("03-01-*.*"), key=lambda path: path.stem[-2:] + path.stem):
        fields = path.stem.split("-")
        name = f"actor{fields[6]}/{path.stem}/00001"
        target = audio / f"{name}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        tracks.append(
            {
                "track_id": name,
                "split": split_of(fields),
                "label": ACTED[fields[2]],
                "duration_ms": int(soundfile.info(path).duration * 1000),
            }
        )
    return tracks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ravdess", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    tracks = unpack(arguments.ravdess, arguments.out / "audio")
    columns = {name: [track[name] for track in tracks] for name in tracks[0]}
    dataset = emovox.write_dataset(
        arguments.out / "dataset",
        columns,
        name="ravdess",
        teacher="intention",
        origin="The acted emotions of RAVDESS; no teacher was run on faces.",
    )
    outputs = Outputs(dataset.emotions)
    net = VGGVox(StudentConfig(width=0.25), torch.Generator().manual_seed(0), outputs)
    untrained = net.eval()
    checkpoints.save(arguments.out / "untrained.safetensors", untrained, {})
    for split in dataset.splits:
        print(f"{split:12} {dataset.tracks[split].num_rows:5,} utterances")


if __name__ == "__main__":
    main()
