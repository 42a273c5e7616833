"""A workplace in which the commands of the README and of the guide run as they stand there.

What a page takes for granted, such as the folder `VoxCeleb2`, is made small when it is first named.
"""

import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
import torch
from report_fixtures import evaluation
from student_fixtures import Utterance, utterances, write_audio, write_tables
from test_ferplus import CLEAR, write_ferplus, zipped
from test_matfile import write
from test_published import PERSONS, annotations
from test_published import utterance as published_utterance
from validation_fixtures import SPEC, build, write_valid

import emovox
from emovox import checkpoints
from emovox.dataset.rows import TrackRow
from emovox.dataset.takedown import hash_identity
from emovox.demo.demo_corpus import DemoConfig, plan_demo, write_track
from emovox.ids import TrackKey
from emovox.student.networks import StudentConfig, VGGVox
from emovox.teacher import find_teacher
from emovox.testing import coded_frame, write_clip

REPOSITORY = Path(__file__).parents[1]
PAGES = REPOSITORY / "emovox" / "guide"
TRACK = ("id10001", "Y8hIVOBuels", 1)  # of the pages
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str


def documents() -> list[Path]:
    """Return the README and the pages of the guide."""
    return [REPOSITORY / "README.md", *sorted(PAGES.glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(*match.groups()) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(block: Block) -> list[str]:
    """Return the commands of a shell block, one per line and side of `&&`."""
    lines = re.sub(r"\s*\\\n\s*", " ", block.text).splitlines()
    return [part for line in lines if line.strip() for part in line.strip().split(" && ")]


class Workplace:
    """A folder with the inputs that a command needs.

    Args:
        root: empty.
        page: whose commands are to run.
    """

    def __init__(self, root: Path, page: Path) -> None:
        self.root, self._page = root, page
        (root / "pipelines").symlink_to(REPOSITORY / "pipelines")

    def provide(self, words: Iterable[str]) -> None:
        """Create the inputs among the words of a command that do not exist."""
        for word in words:
            for name, make in GIVEN.items():
                path = self.root / name
                if (word == name or word.startswith(f"{name}/")) and not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    make(self, path)

    def table(self, path: Path) -> None:
        """Write the CSV of the page."""
        path.write_text(next(b.text for b in blocks(self._page) if b.language == "csv"))


class Named(Utterance):
    """The track of the pages."""

    @property
    def row(self) -> TrackRow:
        num_frames = super().row.n_frames
        return TrackRow(TrackKey(*TRACK), num_frames, num_frames, round(1000 * self.duration))


def _spoken() -> list[Utterance]:
    return [Named("train", TRACK[0], TRACK[2], "neutral", 0.9), *utterances()]


def _voxceleb1(work: Workplace, path: Path) -> None:
    """Write sound of the tracks of `emovoxceleb`, and videos and boxes of those of `lists`."""
    write_audio(path, utterances())
    write_audio(path / "wav", _spoken()[:1])
    header = "Identity  : \tx\n\nFRAME \tX \tY \tW \tH \n"
    rows = "".join(f"{frame:06d} \t60 \t40 \t100 \t100 \n" for frame in range(0, 30))
    for identity, video, number, _ in SPEC:
        write_clip(path / f"video/{video}.mp4", 40)
        boxes = path / f"txt/{identity}/{video}/{number:05d}.txt"
        boxes.parent.mkdir(parents=True, exist_ok=True)
        boxes.write_text(header + rows)


def _published(work: Workplace, path: Path) -> None:
    buckley, zander, *_ = PERSONS
    first = published_utterance(f"{buckley}/Y8hIVOBuels_0000001.wav", 6, 1, 1)
    second = published_utterance(f"{buckley}/Y8hIVOBuels_0000002.wav", 4, 2, 3)
    third = published_utterance(f"{zander}/another_0000001.wav", 5, 3, 2)
    variables = annotations([first, second, third])
    path.mkdir()
    write(path / "senet50-ferplus-logits.mat", "5", {"wavLogits": variables["wavLogits"]})
    write(path / "voxceleb-imdb.mat", "5", {"images": variables["images"]})
    rows = [f"{identity}\t{name}\tm\tIreland\tdev" for name, identity in PERSONS.items()]
    header = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
    (path / "vox1_meta.csv").write_text("\n".join([header, *rows, ""]))


def _talk(path: Path, seconds: float, seed: int = 0) -> None:
    """Write a synthetic talking face."""
    config = DemoConfig(1, 1, 1, seconds, seconds, seed)
    written = write_track(path.parent / f".{path.name}", plan_demo(config)[0])
    written.rename(path)


def _demo(work: Workplace, path: Path) -> None:
    """Write tracks of two people of the demo, of whom the hash puts the second in unheard_val."""
    for track in plan_demo(DemoConfig(6, 1, 2, 2.1, 2.5)):
        if track.key.identity_id in ("demo00", "demo05"):
            write_track(path, track)


def _recordings(work: Workplace, path: Path) -> None:
    rng = np.random.default_rng(0)
    for who in ("ann", "bob", "cat", "dan"):
        (path / who).mkdir(parents=True)
        soundfile.write(path / who / "monday.wav", rng.normal(0, 0.1, 14 * 16_000), 16_000)


def _talks(work: Workplace, path: Path) -> None:
    """Write a dataset of the recordings, with their sound as its source."""
    names, rng = ("ann", "bob", "cat", "dan"), np.random.default_rng(0)
    tracks: dict[str, Any] = {"track_id": [f"{name}/monday/1" for name in names]}
    tracks["split"] = ["train"] * 3 + ["unheard_val"]
    tracks["source"] = [f"{name}/monday.wav" for name in names]
    tracks |= {"start_ms": [0] * 4, "end_ms": [14_000] * 4}
    rows = [(track, place) for track in tracks["track_id"] for place in range(58)]
    frames: dict[str, Any] = {"track_id": [r[0] for r in rows], "frame_index": [r[1] for r in rows]}
    for name in ("calm", "angry"):
        frames[f"logit_{name}"] = rng.normal(size=len(rows))
    emovox.write_dataset(path, tracks, frames)


def _videos(work: Workplace, path: Path) -> None:
    for seed, name in enumerate(("ann", "ben")):
        (path / name).mkdir(parents=True)
        _talk(path / name / "talk.mp4", 4.0, seed)


def _clips(*names: str, frames: int = 30) -> Callable[[Workplace, Path], None]:
    def make(work: Workplace, path: Path) -> None:
        for name in names:
            write_clip(path / name, frames)

    return make


def _dense(work: Workplace, path: Path) -> None:
    for number in range(1, 4):
        image = path / f"A.J._Buckley/1.6/video0001/1/{number:02d}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), coded_frame(number, 160, 160))


def _valid(work: Workplace, path: Path) -> None:
    write_valid(path.parent / f".{path.name}").rename(path)


def _lists(work: Workplace, path: Path) -> None:
    folder = path.parent / f".{path.name}"
    write_valid(folder)
    (folder / "meta").rename(path)


def _student(work: Workplace, path: Path) -> None:
    net = VGGVox(StudentConfig(width=1 / 16), torch.Generator().manual_seed(0))
    evaluation().write(path)
    checkpoints.save(path / "best.safetensors", net, {"by": "nobody"})


def _ravdess(work: Workplace, path: Path) -> None:
    rng = np.random.default_rng(0)
    for actor in range(1, 5):
        for emotion in (3, 5):
            for repetition in (1, 2):
                name = f"03-01-{emotion:02d}-01-01-{repetition:02d}-{actor:02d}.wav"
                (path / f"Actor_{actor:02d}").mkdir(parents=True, exist_ok=True)
                sound = rng.normal(0, 0.03 * emotion, 20_000)
                soundfile.write(path / f"Actor_{actor:02d}" / name, sound, 16_000)


def _rml(work: Workplace, path: Path) -> None:
    for speaker in (1, 2):
        (path / f"s{speaker}").mkdir(parents=True)
        for name in ("an1", "an2", "ha1", "ha2"):
            _talk(path / f"s{speaker}/{name}.mp4", 0.5, speaker)


def _ferplus(work: Workplace, path: Path) -> None:
    folder = write_ferplus(path.parent / "ferplus", votes={f"fer{k}.png": CLEAR for k in range(3)})
    zipped(folder, path, with_folders=False)
    assert zipfile.is_zipfile(path)


def _takedown(work: Workplace, path: Path) -> None:
    path.write_text(hash_identity("id10001") + "\n")


# Writers of the inputs of the pages, by name.
GIVEN: dict[str, Callable[[Workplace, Path], object]] = {
    "VoxCeleb1": _voxceleb1,
    "VoxCeleb2": _clips("mp4/id00012/a/00001.mp4", "mp4/id00015/b/00001.mp4", "mp4/id17/c/1.mp4"),
    "unzippedFaces": _dense,
    "lists": _lists,
    "videos": _videos,
    "clips": _clips("ann_talk_1.mp4", "ben_talk_2.mp4", "odd.mp4"),
    "tracks.csv": lambda work, path: work.table(path),
    "utterances.csv": lambda work, path: work.table(path),
    "recordings": _recordings,
    "talks": _talks,
    "valence.csv": lambda work, path: work.table(path),
    "talk.mp4": lambda work, path: _talk(path, 4.5),
    "published": _published,
    "emovoxceleb": lambda work, path: write_tables(path, _spoken()),
    "dataset": _valid,
    "release": _valid,
    "datasets/voxceleb2": _valid,
    "datasets/changed": lambda work, path: build(path, SPEC[:-1]),
    "releases/1.0.0": _valid,
    "takedown.txt": _takedown,
    "runs/student": _student,
    "emovox-demo/corpus": _demo,
    "emovox-demo/student": _student,
    "runs/compact/best.safetensors": lambda work, path: shutil.copy(
        find_teacher("compact").path, path
    ),
    "RAVDESS": _ravdess,
    "RML": _rml,
    "EMOVO": _clips("f1/rab-f1-b1.mp4", "m2/sor-m2-l3.mp4"),
    "ferplus.zip": _ferplus,
}
