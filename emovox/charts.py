"""Charts on matplotlib: SVG text for a page, PNG and SVG files.

A chart is drawn into axes, so that a figure may hold several. The same data gives the same bytes:
settings of the user do not apply, and files have no date.
"""

import contextlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from emovox.emotions import EMOTIONS
from emovox.files import replace_file
from emovox.ids import printable
from emovox.scores import Curve, Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of emotions, on a light and on a dark background. Those of the published eight, in order,
# were optimised for the largest difference between any two, for normal vision and for protanopia,
# deuteranopia and tritanopia. Other names get the Tableau colours of matplotlib.
LIGHT = "#9e9a9c", "#db9d28", "#33b5f3", "#2e3a9b", "#e41909", "#248060", "#351750", "#51382c"
DARK = "#aba2a4", "#efb434", "#7dd1fe", "#7b8ef7", "#ec280b", "#2e8867", "#8351a7", "#f6dbb3"
COLOURS = dict(zip(EMOTIONS, LIGHT, strict=True))
COLOURS_ON_DARK = dict(zip(EMOTIONS, DARK, strict=True))
STYLES = ("-", "--", ":", "-.")  # of lines; colours alone are similar
PER_STYLE = 5  # emotions with the same line style

# Of an SVG file: elements with styles of the page, names of XML, and spaces between elements.
NOT_INLINE = re.compile(
    r"<(metadata|style).*?</\1>| xmlns(:\w+)?=\"[^\"]*\"|(?<= )xlink:(?=href=)|(?<=>)\s+(?=<)",
    re.DOTALL,
)
DPI = 150  # of PNG files
STYLE = Path(__file__).with_name("charts.mplstyle")  # all but colours
INK, SOFT, GRID, BAR = "#1d1f24", "#5d626c", "#ebe8e0", "#54679c"
SETTINGS: Any = {"text.color": INK, "grid.color": GRID}
SETTINGS |= {
    f"{name}color": SOFT for name in ("axes.edge", "axes.label", "xtick.label", "ytick.label")
}


def colours_of(emotions: Sequence[str], *, dark: bool = False) -> list[str]:
    """Return a colour `#rrggbb` for each emotion; further names do not change the first ones."""
    from matplotlib.colors import TABLEAU_COLORS

    known, free = COLOURS_ON_DARK if dark else COLOURS, cycle(map(str, TABLEAU_COLORS.values()))
    return [known.get(name) or next(free) for name in emotions]


def line_style(number: int) -> str:
    """Return the line style of the emotion with this number."""
    return STYLES[number // PER_STYLE % len(STYLES)]


@contextlib.contextmanager
def new_figure(width: float, height: float) -> Iterator["Figure"]:
    """Yield an empty figure to draw and save, with the settings of all charts; sizes in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS, STYLE):  # all others are matplotlib's
        yield Figure(figsize=(width, height), layout="constrained")


@contextlib.contextmanager
def chart_file(path: Path, title: str, width: float, height: float) -> Iterator[Any]:
    """Yield the axes of a figure of one chart, and save it to `path`; sizes are in inches."""
    with new_figure(width, height) as figure:
        axes = figure.subplots()
        axes.set_title(title)
        yield axes
        save(figure, path)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG or SVG, by the suffix of `path`."""
    form = path.suffix.removeprefix(".")
    metadata = {"Date": None} if form == "svg" else None
    with replace_file(path) as temporary:
        figure.savefig(temporary, format=form, dpi=DPI, metadata=metadata)


def inline_svg(figure: "Figure", key: str, alt: str, colours: Mapping[str, str]) -> str:
    """Return a figure as an SVG element for an HTML page, which may forbid inline styles.

    The font of the page applies, and `colours` replace those of the figure, by `#rrggbb`. `key`
    makes the ids unique in the page; screen readers read `alt`.
    """
    figure.set_frameon(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = ElementTree.fromstring(NOT_INLINE.sub("", buffer.getvalue()))
    for element in svg.iter():
        attributes = element.attrib
        for declaration in filter(None, map(str.strip, attributes.pop("style", "").split(";"))):
            name, _, value = declaration.partition(": ")
            if name == "font":  # in older versions of matplotlib
                name, value = "font-size", value.split()[0]
            attributes[name] = colours.get(value, value)
        attributes.pop("font-family", None)
        if "id" in attributes:
            attributes["id"] = f"{key}-{attributes['id']}"
        for name in attributes.keys() & {"href", "clip-path"}:
            attributes[name] = attributes[name].replace("#", f"#{key}-")
    shown = {"role": "img", "aria-label": alt, "stroke-linejoin": "round"}
    svg.attrib = {"viewBox": svg.attrib["viewBox"], **shown}
    return ElementTree.tostring(svg, encoding="unicode")


def emotion_rows(axes: Any, emotions: Sequence[str]) -> None:
    """Name the rows of a chart with one row per emotion, from the top."""
    axes.set_yticks(range(len(emotions)), emotions, color=INK)
    axes.set_ylim(len(emotions) - 0.5, -0.5)


def draw_roc(
    axes: Any, curves: Mapping[str, Curve], areas: Mapping[str, Interval], counts: Mapping[str, int]
) -> None:
    """Draw the ROC curve of each emotion against the rest (paper, Figure 5).

    `counts` has the number of examples of every emotion, in order. The legend shows the AUC from
    `areas`; `-` where it is missing.
    """
    axes.plot([0, 1], [0, 1], ":", color=SOFT, linewidth=1)
    for k, (emotion, colour) in enumerate(zip(counts, colours_of([*counts]), strict=True)):
        if curve := curves.get(emotion):
            area = areas.get(emotion, Interval(math.nan)).value
            score = "-" if math.isnan(area) else f"{area:.2f}"
            label = f"{emotion} {score} ({counts[emotion]:,})"
            axes.plot(*curve, line_style(k), color=colour, label=label)
    ticks = (0, 0.25, 0.5, 0.75, 1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xticks=ticks, yticks=ticks)
    if curves:
        axes.legend(loc="lower right", title="AUC (positives)", title_fontsize=9)


def draw_counts(
    axes: Any, emotions: Sequence[str], series: Sequence[tuple[str, np.ndarray]], unit: str
) -> None:
    """Draw the number of occurrences of each emotion, on a log axis (paper, Figure 4).

    `series` has one or two arrays `[E]` with their names: counts, or shares of 1 as float, or NaN.
    Each is a dot, as the length of a bar means nothing on a log axis; the second's are hollow.
    """
    from matplotlib.ticker import EngFormatter

    values = np.stack([row for _, row in series])
    is_share = values.dtype.kind == "f"
    show = percent if is_share else "{:,}".format
    known = values[values > 0]
    low = float(known.min(initial=0.1)) / 3 if is_share else 0.5
    high = max(float(known.max(initial=0)), 20 * low)
    high *= (high / low) ** 0.18  # room for the label of the longest bar
    for k, (name, row) in enumerate(series):
        places = np.arange(len(emotions)) + 0.7 / len(series) * (k - (len(series) - 1) / 2)
        drawn, colours = row > 0, np.array(colours_of(emotions))[row > 0]
        faces = "none" if k else colours
        style = {"facecolors": faces, "edgecolors": colours, "label": printable(name)}
        axes.scatter(row[drawn], places[drawn], 45, linewidths=1.5, zorder=3, **style)
        for value, place in zip(row.tolist(), places, strict=True):
            at, beside = (value if value > 0 else low, place), {"xytext": (7, 0), "va": "center"}
            axes.annotate(show(value), at, textcoords="offset points", fontsize=9, **beside)
    axes.set(xscale="log", xlim=(low, high), xlabel=unit)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(percent if is_share else EngFormatter(sep=""))
    emotion_rows(axes, emotions)
    if len(series) > 1:
        axes.figure.legend(loc="outside upper left")


def draw_cells(axes: Any, shares: np.ndarray, texts: np.ndarray) -> None:
    """Draw a table `[R, C]` of shares as colours, NaN as none, with the text of each cell."""
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), text in np.ndenumerate(texts):
        colour = "white" if shares[row, column] > 0.65 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.grid(visible=False)


def draw_confusion(
    axes: Any, counts: np.ndarray, classes: Sequence[str], rows: str, columns: str
) -> None:
    """Draw a confusion matrix `[C, C]`: percent of each row, with counts.

    `rows` and `columns` label the axes, `classes` their ticks.
    """
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    texts = np.full(counts.shape, "·", object)
    for cell in zip(*counts.nonzero(), strict=True):
        texts[cell] = f"{100 * shares[cell]:.1f}\n({counts[cell]:,})"
    draw_cells(axes, shares, texts)
    axes.set_xticks(range(len(classes)), classes, rotation=35, ha="right", rotation_mode="anchor")
    names = [f"{name} ({total:,})" for name, total in zip(classes, totals.tolist(), strict=True)]
    axes.set_yticks(range(len(classes)), names)
    axes.set(xlabel=columns, ylabel=rows)


def save_confusion(
    counts: np.ndarray, classes: Sequence[str], unit: str, title: str, path: Path
) -> None:
    """Write a confusion matrix `[C, C]` of labels (rows) and predictions as a PNG.

    `unit` names in the plural what is counted.
    """
    side = max(6, len(classes))  # inches
    with chart_file(path, f"{title}\n% of the label's {unit} (count)", side, side - 0.5) as axes:
        draw_confusion(axes, counts, classes, f"label ({unit})", "predicted")


def percent(share: float, _position: int = 0) -> str:
    """Return a share as percent in three digits; `-` for NaN. A formatter of matplotlib's ticks."""
    if math.isnan(share):
        return "-"
    value = 100 * share
    if 99.95 <= value < 100:
        return "99.9 %"  # not all of it
    return f"{value:.3g} %" if value >= 0.001 or not value else f"{value:.0e} %"
