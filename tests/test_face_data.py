"""Labelled faces: folders of emotions, AffectNet's folders, tables; the same faces as FERPlus."""

import contextlib
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_ferplus import write_ferplus
from test_training import QUICK, weights

from emovox.emotions import EMOTIONS, Outputs
from emovox.errors import ConfigError, InputError
from emovox.teacher import ferplus, load_teacher
from emovox.teacher.evaluation import evaluate_teacher, score
from emovox.teacher.face_data import TEST, TRAIN, VALIDATION, read_faces
from emovox.teacher.training import train_epochs, train_teacher
from emovox.testing import FakeTeacher

pytestmark = pytest.mark.usefixtures("one_thread")
PARTS = {TRAIN: "train", VALIDATION: "val", TEST: "Test"}


def write_image(path: Path, level: int = 100, shape: tuple[int, ...] = (48, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, level, np.uint8))
    return path


def as_folders(source: Path, root: Path) -> Path:
    """Copy the clean faces of FERPlus to one folder per emotion."""
    for part, folder in PARTS.items():
        faces = ferplus.read(source, part)
        for image, label, name in zip(
            faces.images, faces.targets.argmax(axis=1), faces.names, strict=True
        ):
            write_image(root / folder / EMOTIONS[label] / name)
            cv2.imwrite(str(root / folder / EMOTIONS[label] / name), image)
    return root


def by_name(faces: ferplus.Faces) -> dict[str, tuple[bytes, list[float]]]:
    images = zip(faces.names, faces.images, faces.targets, strict=True)
    return {Path(name).name: (image.tobytes(), row.tolist()) for name, image, row in images}


def test_a_folder_per_emotion_gives_the_faces_of_ferplus(tmp_path: Path) -> None:
    votes = {f"fer{k}.png": [10 * (k == j) for j in range(10)] for k in range(8)}
    data = write_ferplus(tmp_path / "ferplus", votes=votes)
    root = as_folders(data, tmp_path / "folders")
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        for path in root.rglob("*.png"):
            archive.write(path, Path("top") / path.relative_to(root))
    for source in (root, tmp_path / "f.zip"):
        for part in PARTS:
            expected, faces = ferplus.read(data, part), read_faces(source, part, 48)
            assert faces.outputs == expected.outputs
            assert by_name(faces) == by_name(expected)


def test_a_folder_per_emotion_trains_to_the_same_weights(tmp_path: Path) -> None:
    votes = {f"fer{k:07}.png": [10 * (k % 8 == j) for j in range(10)] for k in range(32)}
    data = write_ferplus(tmp_path / "ferplus", votes=votes)
    folders = as_folders(data, tmp_path / "folders")
    for source, out in ((data, "a"), (folders, "b")):
        list(train_epochs(source, tmp_path / out, replace(QUICK, stem=8, widths=(8,), depths=(1,))))
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_labels_get_their_usual_names(tmp_path: Path) -> None:
    for k, name in enumerate(("Happy", "sad", "boredom", "unlabelled")):
        write_image(tmp_path / "train" / name / f"{k}.png", k)
        write_image(tmp_path / "test" / name / "person" / f"{k}.png", k)
    faces = read_faces(tmp_path, TEST, 48)
    assert faces.outputs.emotions == ("happiness", "sadness", "boredom")
    assert faces.targets.argmax(axis=1).tolist() == [0, 1, 2]
    with_all = read_faces(tmp_path, TEST, 48, unlabelled=True)
    assert with_all.targets.sum(axis=1).tolist().count(0) == 1 and len(with_all) == 4


def _read_or_none(data: Path, part: str) -> ferplus.Faces | None:
    with contextlib.suppress(InputError):
        return read_faces(data, part, 48)
    return None


@pytest.mark.parametrize(
    ("numbers", "emotions"),
    [
        ((0, 3, 7, 9), ("neutral", "surprise", "contempt")),
        ((1, 5, 7), ("neutral", "surprise", "sadness")),
    ],
)
def test_numbers_are_those_of_affectnet_or_raf_db(
    tmp_path: Path, numbers: tuple[int, ...], emotions: tuple[str, ...]
) -> None:
    for number in numbers:
        write_image(tmp_path / str(number) / "a.jpg")
    write_image(tmp_path / "x.png")  # beside the folders
    found = {part: _read_or_none(tmp_path, part) for part in PARTS}
    assert {faces.outputs.emotions for faces in found.values() if faces} == {emotions}


def test_parts_that_the_data_lacks_are_drawn_by_path(tmp_path: Path) -> None:
    for k in range(400):
        write_image(tmp_path / "all" / ("happy", "sad")[k % 2] / f"{k}.png", shape=(2, 2))
        write_image(tmp_path / "two" / "train" / ("happy", "sad")[k % 2] / f"{k}.png", shape=(2, 2))
    write_image(tmp_path / "two" / "test" / "happy" / "1.png")
    counts = {part: len(read_faces(tmp_path / "all", part, 2)) for part in PARTS}
    assert sum(counts.values()) == 400 and all(20 < counts[p] < 60 for p in (VALIDATION, TEST))
    counts = {part: len(read_faces(tmp_path / "two", part, 2)) for part in PARTS}
    assert sum(counts.values()) == 401 and 20 < counts[VALIDATION] < 60 and counts[TEST] == 1


def write_affectnet(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, count in (("train_set", 32), ("val_set", 16)):
        for k in range(count):
            write_image(root / folder / "images" / f"{k}.jpg", 40 + 160 * (k % 2))
            values = (rng.uniform(-1, 1), 0.5) if k else (-2.0, -2.0)
            (root / folder / "annotations").mkdir(exist_ok=True)
            for name, value in zip(("exp", "val", "aro"), (k % 2, *values), strict=True):
                np.save(root / folder / "annotations" / f"{k}_{name}.npy", np.array(str(value)))
    return root


def test_affectnet_has_valence_and_arousal(tmp_path: Path) -> None:
    data = write_affectnet(tmp_path / "affectnet")
    faces = read_faces(data, VALIDATION, 48)
    assert faces.outputs.emotions == ("neutral", "happiness")
    assert faces.outputs.values == ("valence", "arousal")
    assert np.isnan(faces.targets[:, 2]).sum() == 1 and len(faces) == 16
    records = list(train_epochs(data, tmp_path / "out", QUICK))
    assert records[-1]["public_test_arousal_rmse"] < records[0]["public_test_arousal_rmse"]
    teacher = load_teacher(tmp_path / "out" / "best.safetensors", "cpu", "fp32")
    assert teacher.emotions == ("neutral", "happiness") and teacher.values == ("valence", "arousal")
    evaluation = evaluate_teacher(teacher, data, part=VALIDATION)
    logits = teacher(np.repeat(faces.images[..., None], 3, axis=3))
    known = faces.targets[:, 2] == faces.targets[:, 2]
    rmse = np.sqrt(np.mean((logits[known, 2] - faces.targets[known, 2]) ** 2))
    assert evaluation.plain.rmse["valence"] == pytest.approx(rmse, rel=1e-4)
    assert "rmse valence" in evaluation.summary()
    assert evaluation.as_json()["without_mirror_averaging"]["rmse"]["arousal"] > 0
    with pytest.raises(InputError, match="no labelled faces of private_test; found"):
        read_faces(data, TEST, 48)


def write_table(root: Path, rows: str) -> Path:
    for name in "abc":
        write_image(root / f"{name}.png")
    (root / "faces.csv").write_text(rows)
    return root / "faces.csv"


def test_a_table_has_labels_or_votes(tmp_path: Path) -> None:
    header = "path,vote_sad,vote_happy,value_valence,split\n"
    rows = "a.png,1,3,0.5,train\nb.png,,,,train\nc.png,2,0,-1,val\n"
    table = write_table(tmp_path, header + rows)
    faces = read_faces(table, TRAIN, 48, unlabelled=True)
    assert faces.outputs.emotions == ("happiness", "sadness")
    np.testing.assert_array_equal(faces.targets, [[0.75, 0.25, 0.5], [0, 0, np.nan]])
    assert len(read_faces(table, TRAIN, 48)) == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("path,label\na.png,happy\nb.png,happy\n", "expected 2 to 64 emotions, found 1"),
        ("path,label,split\na.png,happy,train\nb.png,sad,dev\n", "split 'dev' is not one of"),
        ("path,label,split\na.png,happy,x\nb.png,sad,x\n", "split 'x' is not one of"),
        ("path,label,split\na.png,happy,val\nb.png,sad,\n", "b.png: split '' is not one of"),
        ("path,labels\na.png,happy\nb.png,sad\n", "needs a column label, or else"),
        ("path,label,vote_sad\na.png,happy,1\nb.png,sad,1\n", "needs a column label, or else"),
        ("path,vote_happy,vote_sad\na.png,1,many\n", "Unable to parse string"),
        ("path,vote_happy,vote_sad\na.png,1,-1\n", "a number of votes is negative"),
        ("path,label\na.png,1\nb.png,9\n", "label 9 is not one of 1, 2, 3"),
        ("path,label\n,happy\nb.png,sad\n", "a row without a path"),
        ("path,label\n", "no images"),
        ("label\nhappy\n", "missing columns path"),
    ],
)
def test_a_table_that_is_not_valid_is_an_error(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_faces(write_table(tmp_path, rows), TRAIN, 48)


@pytest.mark.parametrize("name", ["../a.png", "/etc/hosts", "missing.png", "faces.csv"])
def test_an_image_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    table = write_table(tmp_path, f"path,label,split\n{name},happy,train\nb.png,sad,train\n")
    with pytest.raises(
        InputError, match=r"faces\.csv|relative path below|cannot be read|not an image"
    ):
        read_faces(table, TRAIN, 48)


def test_images_become_squares_of_one_size(tmp_path: Path) -> None:
    for k, name in enumerate(("happy", "sad")):
        write_image(tmp_path / "train" / name / "a.png", 90, (200, 100 + 60 * k, 3))
    assert read_faces(tmp_path, TRAIN, 224, grey=False).images.shape == (2, 200, 200, 3)
    grey = read_faces(tmp_path, TRAIN, 64).images
    assert grey.shape == (2, 64, 64) and (grey == 90).all()


def test_emotions_that_the_data_lacks_are_ruled_out(tmp_path: Path) -> None:
    for k, name in enumerate(("surprise", "fear")):  # rows of the fake teacher's bands 2 and 6
        image = np.zeros((48, 48), np.uint8)
        image[:6] = 255  # neutral is the largest logit of all eight
        image[12 + 24 * k : 18 + 24 * k] = 200
        cv2.imwrite(str(write_image(tmp_path / "test" / name / "a.png")), image)
    evaluation = evaluate_teacher(FakeTeacher(48), tmp_path)
    assert evaluation.plain.accuracy == 1 and evaluation.plain.emotions == ("surprise", "fear")
    write_image(tmp_path / "test" / "boredom" / "a.png")
    with pytest.raises(InputError, match="the data has boredom too"):
        evaluate_teacher(FakeTeacher(48), tmp_path)


def test_scores_of_unknown_values_are_left_out() -> None:
    targets = np.array([[1.0, 0.0, np.nan], [0.0, 1.0, 0.5]])
    found = score(np.array([[2.0, 0, 9], [0, 2.0, 0.1]]), targets, Outputs(("a", "b"), ("v",)))
    assert found.rmse == {"v": pytest.approx(0.4)} and found.accuracy == 1
    targets[:, 2] = np.nan
    assert not score(targets * 0, targets, Outputs(("a", "b"), ("v",))).rmse


@pytest.mark.real
def test_real_faces_as_folders_are_the_same(real_data: Path, tmp_path: Path) -> None:
    expected = ferplus.read(real_data / "ferplus.zip", TEST)
    labels = expected.targets.argmax(axis=1)
    for image, label, name in zip(expected.images, labels, expected.names, strict=True):
        path = tmp_path / "test" / EMOTIONS[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    faces = read_faces(tmp_path, TEST, 48)
    assert faces.outputs == expected.outputs and len(faces) == len(expected)
    one_hot = {n: (i, np.eye(8)[np.argmax(t)].tolist()) for n, (i, t) in by_name(expected).items()}
    assert by_name(faces) == one_hot


def test_a_small_first_image_leaves_the_others_large(tmp_path: Path) -> None:
    write_image(tmp_path / "train/happy/a.png", 90, (2, 2))
    for part in ("train", "val"):
        write_image(tmp_path / part / "sad/b.png", 90, (64, 60))
    assert read_faces(tmp_path, TRAIN, 48).images.shape[1:] == (48, 48)


def test_a_jpeg_that_ends_inside_the_picture_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    for part in ("train/happy", "train/sad", "val/sad"):
        write_image(tmp_path / part / "a.png")
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    (tmp_path / "train/sad/b.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"sad/b\.jpg: cannot be read \(ends inside the picture"):
        read_faces(tmp_path, TRAIN, 48)


def test_labels_of_tables_that_pandas_wrote(tmp_path: Path) -> None:
    """Numbers beside empty cells are written as 1.0."""
    rows = "path,label,split\na.png,1.0,train\nb.png,,train\nc.png,2.0,train\na.png,1,val\n"
    faces = read_faces(write_table(tmp_path, rows), TRAIN, 48, unlabelled=True)
    assert faces.outputs.emotions == ("surprise", "fear")
    assert faces.targets.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_either_spelling_of_unlabelled(tmp_path: Path) -> None:
    for name in ("happy", "sad", "unlabeled"):
        write_image(tmp_path / "train" / name / "a.png")
        write_image(tmp_path / "val" / name / "a.png")
    assert read_faces(tmp_path, TRAIN, 48).outputs.emotions == ("happiness", "sadness")


def test_recall_of_an_emotion_that_never_occurs_is_not_a_number(tmp_path: Path) -> None:
    for place in ("train/happy", "train/sad", "test/sad"):
        write_image(tmp_path / place / "a.png")
    summary = evaluate_teacher(FakeTeacher(), tmp_path).summary()
    assert "nan" not in summary and "recall happiness                     -         -" in summary


def test_options_of_distillation_need_a_teacher(tmp_path: Path) -> None:
    for options in ({"distill": "online"}, {"distill_weight": 0.9}):
        with pytest.raises(ConfigError, match="distill: no teacher to learn from"):
            train_teacher(tmp_path, tmp_path / "out", **options)
