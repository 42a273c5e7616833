"""Figures of the page: a chart and its numbers as a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from emovox import charts
from emovox.charts import COLOURS, colours_of, percent
from emovox.reporting.aggregates import QUANTILES, Aggregates
from emovox.reporting.run_results import SplitResult

WIDTH = 5.4  # inches of a chart; its text of 10 points is then as large as the text of the page
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
ROW_HEIGHT = 0.3625  # inches of a chart per emotion
RIDGE = 1.3  # height of the tallest histogram, in rows
ALT_ROWS = 10  # most rows of the table in the description of a chart
# Style and colour of lines that are not of an emotion.
LINES = (("-", charts.INK), ("--", COLOURS["surprise"]), (":", COLOURS["anger"]))
LOSSES = ("train_loss", "heard_val_loss", "unheard_val_loss")
# CSS colours of the page, which change with its theme.
NAMES = {"ink": charts.INK, "soft": charts.SOFT, "grid": charts.GRID, "bar": charts.BAR}
PAGE_COLOURS = {colour: f"var(--{name})" for name, colour in NAMES.items()}


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page."""

    key: str  # for links
    header: Sequence[str]  # of the table of its numbers
    rows: Sequence[Sequence[Any]]  # of that table; `cell` formats the values
    draw: Callable[[Any], None]  # into axes of matplotlib
    height: float = 3.5  # of the chart, in inches

    def picture(self, emotions: Sequence[str]) -> str:
        """Return the chart as SVG for a page with CSS colours of these emotions."""
        css = {colour: f"var(--e{k})" for k, colour in enumerate(colours_of(emotions))}
        numbers = (f"{row[0]} {cell(row[1])}" for row in self.rows[-ALT_ROWS:])
        with charts.new_figure(WIDTH, self.height) as figure:
            self.draw(figure.subplots())
            alt = f"Chart of {self.header[1]}: {'; '.join(numbers)}"
            return charts.inline_svg(figure, self.key, alt, css | PAGE_COLOURS)


def cell(value: Any) -> str:
    """Return a value of a table as text; `-` for None and NaN."""
    if isinstance(value, str):
        return value
    if value is None or np.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.3f}"


def emotions_figure(found: Aggregates, compared: Aggregates | None) -> PageFigure:
    """Show the frames by dominant emotion, or their shares in two datasets (paper, Figure 4)."""
    datasets = [each for each in (found, compared) if each]
    emotions = list(dict.fromkeys(name for each in datasets for name in each.emotions))
    header = ["emotion"]
    rows: list[list[Any]] = [[emotion] for emotion in emotions]
    for each in datasets:
        header += [f"frames, {each.title}", f"share, {each.title}"]
        for row, (count, share) in zip(rows, each.frames_of(emotions), strict=True):
            row += [count, None if count is None else round(share, 6)]

    def draw(axes: Any) -> None:
        if compared:
            shares = [(d.title, np.array(d.frames_of(emotions), float)[:, 1]) for d in datasets]
            charts.draw_counts(axes, emotions, shares, "share of frames")
        else:
            charts.draw_counts(axes, emotions, [(found.title, found.frames)], "frames")

    height = ROW_HEIGHT * len(emotions) * (1.45 if compared else 1) + 0.6
    return PageFigure("emotions", header, rows, draw, height=height)


def logits_figure(shown: Aggregates, compared: Aggregates | None) -> PageFigure:
    """Show the distribution of each emotion's logits as a ridge."""
    found, emotions = shown.logits, shown.emotions
    centres = (found.edges[1:] + found.edges[:-1]) / 2

    def draw(axes: Any) -> None:
        ridges = _as_densities(found.counts)
        others: dict[str, np.ndarray] = {}
        if compared:
            others |= zip(compared.emotions, _as_densities(compared.logits.counts), strict=True)
        scale = RIDGE / (max(float(np.max(each)) for each in (ridges, *others.values())) or 1.0)
        for k, (emotion, colour) in enumerate(zip(emotions, colours_of(emotions), strict=True)):
            line = k - scale * ridges[k]
            axes.fill([centres[0], *centres, centres[-1]], [k, *line, k], color=colour, alpha=0.88)
            if emotion in others:
                axes.plot(centres, k - scale * others[emotion], color=charts.INK, linewidth=1)
            median = found.quantiles[k, 2]
            axes.plot([median, median], [k - 0.16, k + 0.12], color=charts.INK)
        charts.emotion_rows(axes, emotions)
        axes.set(xlim=found.edges[[0, -1]], ylim=(len(emotions) - 0.6, -RIDGE), xlabel="logit")

    header = ["emotion", "mean", "deviation", *(f"{100 * q:g} %" for q in QUANTILES)]
    values = np.column_stack([found.mean, found.deviation, found.quantiles])
    rows = [(emotion, *row) for emotion, row in zip(emotions, values.tolist(), strict=True)]
    return PageFigure("logits", header, rows, draw, height=ROW_HEIGHT * len(emotions) + 1.1)


def coverage_figure(found: Aggregates) -> PageFigure:
    """Show the number of tracks by the share of their grid points that have a face."""
    filled, step = np.flatnonzero(found.coverage), 1 / len(found.coverage)
    heights = found.coverage[filled]

    def draw(axes: Any) -> None:
        from matplotlib.ticker import EngFormatter

        # One track among thousands stays visible.
        visible = np.maximum(heights, 0.01 * heights.max(initial=0))
        axes.bar(step * (filled + 0.06), visible, 0.88 * step, align="edge", color=charts.BAR)
        axes.grid(visible=False, axis="x")
        axes.set(xlim=(0, 1), xlabel="frames of those expected", ylabel="tracks", xticks=QUARTERS)
        axes.xaxis.set_major_formatter(percent)
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))  # 1, 250, 5k, 1.2M

    rows = []
    for k, count in zip(filled.tolist(), heights.tolist(), strict=True):
        name = f"{100 * k * step:g} to {100 * (k + 1) * step:g} %"
        rows.append((name, count, percent(count / found.num_tracks)))
    return PageFigure("coverage", ("coverage", "tracks", "share"), rows, draw, height=2.8)


def skew_figure(found: Aggregates) -> PageFigure:
    """Show the Lorenz curves of frames over identities and over videos."""
    groups = {"identities": found.identities, "videos": found.videos}

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], ":", color=charts.SOFT, linewidth=1)
        for (name, skew), (style, colour) in zip(groups.items(), LINES, strict=False):
            places = np.linspace(0, 1, len(skew.lorenz))
            axes.plot(places, skew.lorenz, style, color=colour, label=name, linewidth=2)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xticks=QUARTERS, yticks=QUARTERS)
        axes.set(xlabel="smallest identities or videos", ylabel="frames that they hold")
        axes.xaxis.set_major_formatter(percent)
        axes.yaxis.set_major_formatter(percent)
        axes.legend(loc="upper left")

    rows = [
        (name, skew.gini, percent(skew.largest), skew.num_groups) for name, skew in groups.items()
    ]
    return PageFigure("skew", ("", "Gini", "largest", "groups"), rows, draw)


def roc_figure(found: SplitResult) -> PageFigure:
    """Show the ROC curves of a student on one split (paper, Figure 5)."""
    rows = []
    for name, area in found.areas.items():
        interval = "-" if np.isnan(area.low) else f"{area.low:.3f} to {area.high:.3f}"
        rows.append((name, area.value, interval, found.positives.get(name, "")))
    header = ("emotion", "AUC", "95 % interval", "positives")
    drawn: Any = {"curves": found.curves, "areas": found.areas, "counts": found.positives}
    draw = partial(charts.draw_roc, **drawn)
    return PageFigure(f"roc-{found.split}", header, rows, draw, height=5.2)


def losses_figure(training: Sequence[Mapping[str, Any]], number: int) -> PageFigure:
    """Show the losses of each epoch of a training, the one with this number."""
    values = ([record.get(name) for name in LOSSES] for record in training)
    records = [[x if isinstance(x, int | float) else np.nan for x in row] for row in values]
    names, epochs = [name.removesuffix("_loss") for name in LOSSES], range(1, len(training) + 1)

    def draw(axes: Any) -> None:
        columns = zip(names, zip(*records, strict=True), LINES, strict=True)
        for name, losses, (style, colour) in columns:
            if not np.isnan(losses).all():
                axes.plot(epochs, losses, style, marker="o", ms=4, color=colour, label=name)
                axes.legend()
        axes.set(xlabel="epoch", ylabel="loss", xlim=(0.9, max(len(training), 2) + 0.1))
        axes.xaxis.get_major_locator().set_params(integer=True)

    rows = [(str(epoch), *record) for epoch, record in zip(epochs, records, strict=True)]
    return PageFigure(f"losses-{number}", ["epoch", *names], rows, draw)


def _as_densities(counts: np.ndarray) -> np.ndarray:
    """Return histograms `[E, B]` whose bins sum to 1 each, or to 0 without values."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
