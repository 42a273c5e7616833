"""Triplets of faces, and the face network that learns from them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import emovox
from emovox.errors import ConfigError, EmovoxError, InputError
from emovox.teacher import find_teacher, load_teacher, teacher_checkpoint
from emovox.teacher.evaluation import score
from emovox.teacher.face_data import read_face
from emovox.teacher.ferplus import FaceFiles
from emovox.teacher.teacher_checkpoint import Inception
from emovox.teacher.teacher_config import TeacherTrainConfig
from emovox.teacher.triplets import read_triplets, triplet_accuracy, triplet_loss
from emovox.testing import FakeTeacher

pytestmark = pytest.mark.usefixtures("one_thread")

BOX = (0.25, 0.75, 0.25, 0.75)


def line(names: list[str], votes: list[int], kind: str = "ONE_CLASS_TRIPLET") -> str:
    """A line of the CSV of Google's Facial Expression Comparison."""
    faces = [f"http://host/{k}/{name},{','.join(map(str, BOX))}" for k, name in enumerate(names)]
    return ",".join([*faces, kind, *(f"rater{k},{vote}" for k, vote in enumerate(votes))])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of 80 pixels; in the middle half of each a level of grey, around it white."""
    for name, level in {"a.jpg": 40, "b.jpg": 60, "c.jpg": 200, "d.jpg": 90}.items():
        image = np.full((80, 80, 3), 255, np.uint8)
        image[20:60, 20:60] = level
        cv2.imwrite(str(tmp_path / name), image)
    return tmp_path


def test_triplets_are_read_with_the_odd_face_last(folder: Path) -> None:
    (folder / "page.jpg").write_text("<html>moved</html>")  # as servers answer for dead links
    lines = [
        line(["a.jpg", "c.jpg", "b.jpg"], [2, 2]),  # fewer votes than later rows
        line(["c.jpg?size=o#x", "a.jpg", "b.jpg"], [1, 1, 1, 3, 2, 1], "TWO_CLASS_TRIPLET"),
        line(["a.jpg", "b.jpg", "gone.jpg"], [3]),  # a dead link
        line(["a.jpg", "b.jpg", "page.jpg"], [3]),
        line(["a.jpg", "b.jpg", "c.jpg"], [3, 1]),  # a tie
        line(["a.jpg", "b.jpg", "c.jpg"], []),
        line(["a.jpg", "b.jpg", "d.jpg"], [3], "FOUR_CLASS_TRIPLET"),
        line(["a.jpg", "b.jpg", "c.jpg"], [3]).replace("0.25", "1e9"),
        line(["a.jpg", "b.jpg", "c.jpg"], [3]).replace("0.25,0.75,0.25", "0.75,0.25,0.25"),
        line(["http://[", "b.jpg", "c.jpg"], [3]),
    ]
    (folder / "fec.csv").write_text("\n".join(lines) + "\n")
    found = read_triplets(folder / "fec.csv", 48)
    levels = found.images.mean(axis=(1, 2))[found.places]
    np.testing.assert_allclose(levels, [[40, 60, 200], [40, 60, 200]], atol=3)
    assert found.images.shape == (4, 48, 48) and found.images.dtype == np.uint8
    np.testing.assert_allclose(found.margins, [0.1, 0.2])
    assert found.note == (
        "fec.csv: 2 of 10 triplets; left out: 5 of another form or without a most frequent answer, "
        "2 without their pictures, 1 with damaged pictures"
    )


def test_quotes_spaces_and_commas_in_urls(folder: Path) -> None:
    text = line(["a.jpg", "c.jpg", "b.jpg"], [2]).replace(",", " , ")
    text = text.replace("http://host/0/a.jpg ", '"http://host/0,1/a.jpg"')
    (folder / "fec.csv").write_text("\ufeff" + text + "\r\n", encoding="utf-8")
    assert read_triplets(folder / "fec.csv", 48).note == "fec.csv: 1 of 1 triplets; left out: none"


def test_a_box_of_an_endless_picture_is_not_made_square(folder: Path) -> None:
    cv2.imwrite(str(folder / "long.png"), np.zeros((1, 60_000), np.uint8))
    (folder / "fec.csv").write_text(line(["long.png", "a.jpg", "b.jpg"], [1]))
    with pytest.raises(InputError, match=r"0 of 1 .*: 1 with damaged pictures"):
        read_triplets(folder / "fec.csv", 48)
    with pytest.raises(InputError, match=r"long\.png: too large, or too long for its height"):
        read_face(FaceFiles(folder), "long.png", side=48)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a file of triplets"),
        ("a,b,c\n1,2,3\n", r"not a file of triplets \(expected 18 or more columns, found 3\)"),
        ("\x1f\x8b\x08", "expected 18 or more columns, found 1"),
        (line(["a.jpg", "b.jpg", "c.jpg"], [1]).replace("0.25", "left"), "0 of 1 .* another form"),
        (line(["x.jpg", "y.jpg", "z.jpg"], [1]), "1 without their pictures; pictures are looked"),
        (line(["a.jpg", "b.jpg", "../fec.csv"], [3]), "0 of 1 .*: 1 with damaged pictures"),
    ],
)
def test_other_files_give_one_line(folder: Path, text: str, words: str) -> None:
    (folder / "fec.csv").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_triplets(folder / "fec.csv", 48)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"none\.csv: not a file of triplets \(No such file"):
        read_triplets(folder / "none.csv", 48)


def test_the_loss_is_that_of_both_similar_faces() -> None:
    rng = np.random.default_rng(0)
    rows, margins = rng.normal(size=(5, 3, 4)), np.array([0.1, 0.2, 0.1, 0.2, 0.2])
    expected = []
    for (a, b, odd), margin in zip(rows, margins, strict=True):
        a, b, odd = (x / np.linalg.norm(x) for x in (a, b, odd))
        near = ((a - b) ** 2).sum()
        far = [((x - odd) ** 2).sum() for x in (a, b)]
        expected.append(sum(max(0.0, near - each + margin) for each in far))
    found = triplet_loss(torch.from_numpy(rows), torch.from_numpy(margins))
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


class Grey(FakeTeacher):
    """Teacher whose embedding is an angle that grows with the level of grey."""

    triplet = None

    def embed(self, crops: np.ndarray) -> np.ndarray:
        angles = crops.mean(axis=(1, 2, 3)) / 255
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_accuracy_of_triplets(folder: Path) -> None:
    lines = [line(["a.jpg", "c.jpg", "b.jpg"], [2]), line(["a.jpg", "c.jpg", "b.jpg"], [1])]
    lines += [line(["d.jpg", "b.jpg", "c.jpg"], [3])]
    (folder / "fec.csv").write_text("\n".join(lines) + "\n")
    triplets = read_triplets(folder / "fec.csv", 48)
    assert triplet_accuracy(Grey(), triplets) == pytest.approx(2 / 3)
    teacher = Grey()
    teacher.embedding_size = 0
    with pytest.raises(ConfigError, match=r"triplets: teacher .* gives no embeddings"):
        triplet_accuracy(teacher, triplets)


def test_accuracy_without_contempt() -> None:
    logits, targets = np.zeros((4, 8)), np.eye(8)[[0, 1, 7, 2]]
    logits[0, 0], logits[1, 7], logits[1, 1], logits[2, 7], logits[3, 3] = 1, 2, 1, 1, 1
    found = score(logits, targets)
    assert found.accuracy == 0.5
    # The third face is left out; the second is right once contempt is ruled out.
    assert found.accuracy_without_contempt == pytest.approx(2 / 3)
    seven = score(logits[:, :7], targets[:, :7], emovox.emotions.Outputs(emovox.EMOTIONS[:7]))
    assert seven.accuracy_without_contempt is None


@pytest.fixture
def faces(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, level in (("neutral", 60), ("happiness", 180)):
            (folder / "faces" / split / label).mkdir(parents=True)
            for k in range(4):
                image = rng.integers(level - 30, level + 30, (48, 48, 3)).astype(np.uint8)
                cv2.imwrite(str(folder / "faces" / split / label / f"{k}.png"), image)
    rows = [line(["a.jpg", "c.jpg", "b.jpg"], [2]), line(["d.jpg", "b.jpg", "c.jpg"], [3])]
    (folder / "fec.csv").write_text("\n".join(rows) + "\n")
    return folder / "faces"


RECIPE: dict[str, Any] = {"network": "inception", "epochs": 1, "batch_size": 4, "device": "cpu"}


def test_the_face_network_learns_classes_and_triplets(faces: Path, tmp_path: Path) -> None:
    triplets = str(faces.parent / "fec.csv")
    said: list[str] = []
    options = RECIPE | {"triplets": triplets, "say": said.append}
    run = emovox.train_teacher(faces, tmp_path / "run", **options)
    assert said == ["fec.csv: 2 of 2 triplets; left out: none"]
    teacher = load_teacher(run.best)
    assert (teacher.input_size, teacher.embedding_size) == (160, 128)
    crops = np.random.default_rng(0).integers(0, 255, (2, 160, 160, 3)).astype(np.uint8)
    assert teacher(crops).shape == (2, 2) and teacher.embed(crops).shape == (2, 128)
    assert triplets not in (tmp_path / "run/config.json").read_text()
    found = emovox.evaluate_teacher(teacher, faces, part="public_test", triplets=triplets)
    assert found.triplet_accuracy in (0.0, 0.5, 1.0)
    assert "triplet accuracy" in found.summary() and found.as_json()["triplets"] == said[0]
    assert found.summary().endswith(said[0]) and "without contempt" not in found.summary()
    text = (faces.parent / "fec.csv").read_text().replace("ONE_CLASS", "TWO_CLASS")
    (faces.parent / "fec.csv").write_text(text)  # other margins
    with pytest.raises(ConfigError, match="another recipe, data or teacher"):
        emovox.train_teacher(faces, tmp_path / "run", triplets=triplets, **RECIPE)
    before = load_file(run.best)
    plain = emovox.train_teacher(faces, tmp_path / "plain", **RECIPE)
    assert not torch.equal(before["triplet.weight"], load_file(plain.best)["triplet.weight"])


def test_it_learns_from_its_own_kind(faces: Path, tmp_path: Path) -> None:
    run = emovox.train_teacher(faces, tmp_path / "run", **RECIPE)
    options = RECIPE | {"distill_from": (str(run.best),), "distill": "online"}
    assert emovox.train_teacher(faces, tmp_path / "self", **options).best.is_file()


def test_weights_of_vggface2_begin_the_network(faces: Path, tmp_path: Path) -> None:
    from facenet_pytorch import InceptionResnetV1

    released = InceptionResnetV1(classify=True, num_classes=8631)
    torch.save(released.state_dict(), tmp_path / "vggface2.pth")
    options = RECIPE | {"start_from": str(tmp_path / "vggface2.pth"), "learning_rate": 1e-9}
    run = emovox.train_teacher(faces, tmp_path / "run", **options)
    net = teacher_checkpoint.load_network(find_teacher(run.best))
    assert isinstance(net, Inception)
    own = net.backbone.conv2d_1a.conv.weight  # type: ignore[union-attr]
    torch.testing.assert_close(own, released.conv2d_1a.conv.weight, atol=1e-4, rtol=0)
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(EmovoxError, match=r"do not fit emovox.inception: no backbone"):
        emovox.train_teacher(
            faces, tmp_path / "no", **RECIPE | {"start_from": str(tmp_path / "other.pth")}
        )


def test_only_this_network_takes_triplets() -> None:
    with pytest.raises(ConfigError, match="triplets: only the network inception has a head"):
        TeacherTrainConfig(triplets="fec.csv")
