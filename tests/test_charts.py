"""Charts: SVG for a page and files, which are deterministic, safe and readable."""

import re
from pathlib import Path
from xml.etree import ElementTree

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from emovox import charts
from emovox.emotions import EMOTIONS
from emovox.scores import Interval, emotion_curves

EVIL = "<b>$x &amp; </svg>"


def draw(name: str = "frames", counts: np.ndarray | None = None) -> str:
    counts = 10 ** np.arange(8) - 1 if counts is None else counts
    with charts.new_figure(5, 4) as figure:
        series = [(name, counts), (name, counts[::-1])]
        charts.draw_counts(figure.subplots(), EMOTIONS, series, name)
        return charts.inline_svg(figure, "key", name, {charts.INK: "var(--ink)"})


def test_inline_svg_has_text_and_neither_styles_nor_namespaces() -> None:
    svg = draw(EVIL)
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and root.attrib["role"] == "img" and root.attrib["aria-label"] == EVIL
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    assert EVIL in texts and set(EMOTIONS) <= set(texts) and {"1", "1k", "9,999,999"} <= set(texts)
    for element in root.iter():
        assert element.tag not in ("style", "metadata") and not {"style", "class"} & set(
            element.keys()
        )
    assert "var(--ink)" in svg and charts.INK not in svg and "http" not in svg
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(set(ids)) == len(ids) and all(name.startswith("key-") for name in ids)
    assert set(re.findall(r"url\(#([^)]*)\)", svg)) <= set(ids)


def test_charts_are_deterministic_and_ignore_the_settings_of_the_user() -> None:
    before = draw()
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert draw() == before
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize(
    "counts", [np.zeros(8, int), np.zeros(8), np.eye(8)[0], np.eye(8)[0] * 1e-6]
)
def test_counts_of_extremes(counts: np.ndarray) -> None:
    assert "contempt" in draw(counts=counts)


@pytest.mark.parametrize("factor", [1, 10.0**-9])
@pytest.mark.parametrize("num", [1, 2])
def test_counts_are_dots_with_labels_within_the_figure(factor: float, num: int) -> None:
    counts = np.array([123_456_789, 20_000_000, 5, 0, 1, 40, 300, 999_999]) * factor
    with charts.new_figure(5, 4) as figure:
        axes = figure.subplots()
        charts.draw_counts(axes, EMOTIONS, [("a", counts), ("b", counts[::-1])][:num], "frames")
        assert not axes.patches
        drawn = [np.asarray(row.get_offsets())[:, 0].tolist() for row in axes.collections]
        assert drawn == [[x for x in row if x] for row in (counts, counts[::-1])[:num]]
        figure.draw_without_rendering()
        for text in [*axes.texts, *axes.get_yticklabels(), axes.xaxis.label]:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_confusion_is_darkest_on_its_largest_cells(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    charts.save_confusion(
        np.roll(50 * np.eye(8, dtype=int), 1, axis=1), EMOTIONS, "faces", "a $b", path
    )
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert picture is not None and picture.shape[0] > 500
    rows, columns = np.nonzero(picture < 70)
    inside = columns > 0.35 * picture.shape[1]
    # The dark cells step down to the right.
    assert np.corrcoef(rows[inside], columns[inside])[0, 1] > 0.3


def test_files_are_deterministic(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 4, 50), rng.random((50, 8))
    areas = dict.fromkeys(EMOTIONS, Interval(0.5))
    for form in ("png", "svg"):
        for name in ("a", "b"):
            with charts.chart_file(tmp_path / f"{name}.{form}", EVIL, 4, 4) as axes:
                curves = emotion_curves(labels, scores, EMOTIONS)
                charts.draw_roc(axes, curves, areas, dict.fromkeys(EMOTIONS, 7))
        assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()
    assert "&lt;b&gt;$x" in (tmp_path / "a.svg").read_text()
