"""Evaluation of a teacher on FERPlus, without and with mirror averaging."""

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
from emovox.errors import ConfigError
from emovox.teacher import EMBEDDED
from emovox.teacher.evaluation import evaluate_teacher, predict


def test_faces_are_resized_for_the_teacher() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 48, 48), dtype=np.uint8)
    plain, mirrored = predict(LeftTeacher(96), images)
    assert plain.shape == mirrored.shape == (300, 8)
    flipped, _ = predict(LeftTeacher(96), images[:, :, ::-1])
    np.testing.assert_array_equal(mirrored, flipped)
    assert not np.allclose(plain, mirrored)
    np.testing.assert_allclose(plain[:, 0], images[:, :6, :24].mean((1, 2)), atol=3)


def test_summary_and_files_give_scores_without_and_with_mirror_averaging(tmp_path: Path) -> None:
    data = write_ferplus(tmp_path / "data")
    for i, name in enumerate(("fer0000000.png", "fer0000001.png")):
        lopsided = np.full((48, 48), 10, np.uint8)  # the label is in the left half only
        lopsided[12 * i : 12 * i + 6, :24] = 200
        lopsided[30:36, 24:] = 255
        cv2.imwrite(str(data / "FER2013Test" / name), lopsided)
    evaluation = evaluate_teacher(LeftTeacher(48), data, part="private_test")
    assert evaluation.plain.accuracy == 0.5 and evaluation.mirrored.accuracy == 0
    text = evaluation.summary()
    assert "fake on private_test, 2 faces" in text
    assert "without      with  mirror averaging" in text
    assert text.count("-         -") == len(EMOTIONS) - 2  # those that never occur
    assert repr(evaluation) == (
        "<TeacherEvaluation fake on private_test: accuracy 50.00%, 0.00% with mirror averaging>"
    )
    table = evaluation.to_pandas()
    assert table.columns.tolist() == ["score", "emotion", *map(_column, ("without", "with"))]
    recall = table[table["score"] == "recall"].set_index("emotion")
    assert recall.index.tolist() == list(EMOTIONS)
    np.testing.assert_array_equal(recall[_column("without")], evaluation.plain.recall)
    assert table.loc[table["score"] == "accuracy", _column("with")].tolist() == [0]
    evaluation.write(str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {"without_mirror_averaging", "with_mirror_averaging"} < content.keys()
    assert content["with_mirror_averaging"]["counts"]["neutral"] == 1
    assert cv2.imread(str(tmp_path / "out" / "confusion.png")) is not None


def _column(word: str) -> str:
    return f"{word}_mirror_averaging"


def test_a_teacher_is_given_by_name_or_path(tmp_path: Path) -> None:
    data = write_ferplus(tmp_path / "data")
    by_name = evaluate_teacher("compact", str(data), device="cpu")
    by_path = evaluate_teacher(EMBEDDED["compact"], data, device="cpu")
    assert repr(by_name.plain) == repr(by_path.plain)  # NaN does not equal itself
    assert by_name.part == "private_test"
    with pytest.raises(ConfigError, match="part 'test' is not one of train, public_test, private"):
        evaluate_teacher("compact", data, part="test")


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
    data = real_data / "ferplus.zip"
    found = evaluate_teacher("compact", data, part="public_test", device="cpu", precision="bf16")
    assert found.mirrored.cross_entropy < found.plain.cross_entropy
