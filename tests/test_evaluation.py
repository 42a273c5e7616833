"""Evaluation of a teacher on FERPlus, both ways of reading a face."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from test_distillation import LeftTeacher
from test_ferplus import write_ferplus

from emovox.cli import main
from emovox.emotions import EMOTIONS
from emovox.teacher.evaluation import evaluate, predict


def test_faces_are_resized_for_the_teacher() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 48, 48), dtype=np.uint8)
    plain, mirrored = predict(LeftTeacher(96), images)
    assert plain.shape == mirrored.shape == (300, 8)
    flipped, _ = predict(LeftTeacher(96), images[:, :, ::-1])
    np.testing.assert_array_equal(mirrored, flipped)
    assert not np.allclose(plain, mirrored)
    np.testing.assert_allclose(plain[:, 0], images[:, :6, :24].mean((1, 2)), atol=3)


def test_both_ways_are_named(tmp_path: Path) -> None:
    data = write_ferplus(tmp_path / "data")
    for i, name in enumerate(("fer0000000.png", "fer0000001.png")):
        lopsided = np.full((48, 48), 10, np.uint8)  # the left half says what the right one does not
        lopsided[12 * i : 12 * i + 6, :24] = 200
        lopsided[30:36, 24:] = 255
        cv2.imwrite(str(data / "FER2013Test" / name), lopsided)
    evaluation = evaluate(LeftTeacher(48), data, "private_test")
    assert evaluation.plain.accuracy == 0.5 and evaluation.mirrored.accuracy == 0
    text = evaluation.summary()
    assert "fake on private_test, 2 faces" in text
    assert "without      with  mirror averaging" in text
    assert "of 1" in text and text.count("never occurs") == len(EMOTIONS) - 2
    evaluation.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {"without_mirror_averaging", "with_mirror_averaging"} < content.keys()
    assert content["with_mirror_averaging"]["counts"]["neutral"] == 1
    for name in ("confusion.png", "confusion-mirror-averaged.png"):
        assert cv2.imread(str(tmp_path / "out" / name)) is not None


def test_command(tmp_path: Path) -> None:
    data = write_ferplus(tmp_path / "data")
    run = CliRunner().invoke(
        main, ["evaluate-teacher", "--data", str(data), "--out", str(tmp_path / "out")]
    )
    assert run.exit_code == 0 and "compact on private_test" in run.output
    assert (tmp_path / "out" / "evaluation.json").is_file()
    run = CliRunner().invoke(main, ["evaluate-teacher", "--data", str(tmp_path / "none")])
    assert run.exit_code == 2 and "neither a folder nor a zip" in run.output


@pytest.mark.real
def test_mirror_averaging_helps_the_embedded_teacher(real_data: Path) -> None:
    from emovox.teacher import load_teacher

    found = evaluate(
        load_teacher("compact", "cpu", "bf16"), real_data / "ferplus.zip", "public_test"
    )
    assert found.mirrored.cross_entropy < found.plain.cross_entropy
