"""The face network of Schoneveld et al., and the accuracy without contempt."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import emovox
from emovox.errors import EmovoxError
from emovox.teacher import find_teacher, load_teacher, teacher_checkpoint
from emovox.teacher.evaluation import score
from emovox.teacher.teacher_checkpoint import Inception

pytestmark = pytest.mark.usefixtures("one_thread")


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
def faces(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, level in (("neutral", 60), ("happiness", 180)):
            (tmp_path / "faces" / split / label).mkdir(parents=True)
            for k in range(4):
                image = rng.integers(level - 30, level + 30, (48, 48, 3)).astype(np.uint8)
                cv2.imwrite(str(tmp_path / "faces" / split / label / f"{k}.png"), image)
    return tmp_path / "faces"


RECIPE: dict[str, Any] = {"network": "inception", "epochs": 1, "batch_size": 4, "device": "cpu"}


def test_the_face_network_is_trained_and_run(faces: Path, tmp_path: Path) -> None:
    run = emovox.train_teacher(faces, tmp_path / "run", **RECIPE)
    teacher = load_teacher(run.best)
    assert (teacher.input_size, teacher.embedding_size) == (160, 128)
    crops = np.random.default_rng(0).integers(0, 255, (2, 160, 160, 3)).astype(np.uint8)
    assert teacher(crops).shape == (2, 2) and teacher.embed(crops).shape == (2, 128)
    found = emovox.evaluate_teacher(teacher, faces, part="public_test")
    assert "accuracy" in found.summary() and "contempt" not in found.summary()


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
