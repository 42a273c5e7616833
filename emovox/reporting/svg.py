"""Pieces of SVG as text: shapes by class, so that the page's colours apply, and a chart's axes.

All text is escaped here. Charts are drawn 460 units wide, about what a telephone shows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from emovox.emotions import EMOTIONS

WIDTH = 460.0
AXIS_ROOM = 40.0  # below a chart, for ticks and the name of the axis


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    at = f'x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}"'
    return f'<text {at} class="{escape(kind)}">{escape(content)}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    sides = (("x", x), ("y", y), ("width", max(width, 0)), ("height", max(height, 0)))
    shape = " ".join(f'{name}="{_number(value)}"' for name, value in sides)
    return f'<rect {shape} class="{escape(kind)}">{_title(title)}</rect>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    ends = (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))
    shape = " ".join(f'{name}="{_number(value)}"' for name, value in ends)
    return f'<line {shape} class="{escape(kind)}"/>'


def path(points: Iterable[tuple[float, float]], kind: str, title: str = "") -> str:
    """A line through points; one of the class `area` is filled."""
    steps = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    return f'<polyline points="{steps}" class="{escape(kind)}">{_title(title)}</polyline>'


@dataclass
class Plot:
    """A chart under way.

    Attributes:
        x_range, y_range: values at the ends of the axes.
        height: of its area.
        left, right, top: room around the area.
        parts: shapes drawn so far.
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    height: float
    left: float = 54.0
    right: float = 24.0
    top: float = 10.0
    parts: list[str] = field(default_factory=list)

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def end(self) -> float:
        return WIDTH - self.right

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (self.end - self.left) * (float(value) - low) / ((high - low) or 1.0)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - self.height * (float(value) - low) / ((high - low) or 1.0)

    def add(self, *shapes: str) -> None:
        self.parts.extend(shapes)

    def curve(self, points: Iterable[tuple[float, float]], kind: str, title: str = "") -> None:
        """A line through points given in values."""
        self.add(path([(self.x(x), self.y(y)) for x, y in points], kind, title))

    def across(self, ticks: Iterable[float], show: Callable[[float], str]) -> None:
        """Lines across the chart, with their values at its left."""
        for tick in ticks:
            y = self.y(tick)
            self.add(line(self.left, y, self.end, y, "grid"))
            self.add(text(self.left - 7, y + 4, show(tick), "", "end"))

    def upright(
        self, ticks: Iterable[float], show: Callable[[float], str], *, grid: bool = True
    ) -> None:
        """Values below the chart, with lines up from them."""
        for tick in ticks:
            x = self.x(tick)
            if grid:
                self.add(line(x, self.top, x, self.bottom, "grid"))
            self.add(text(x, self.bottom + 16, show(tick), "", "middle"))

    def key(self, entries: Sequence[tuple[str, str, str]], x: float, y: float, wide: float) -> None:
        """A legend: class, name and value of each line, one below the other."""
        for place, (kind, name, value) in enumerate(entries):
            row = y + 16 * place
            self.add(line(x, row - 4, x + 24, row - 4, kind), text(x + 31, row, name, "small"))
            if value:
                self.add(text(x + wide, row, value, "small number", "end"))

    def drawing(self, axis: str, alt: str) -> str:
        """The chart as one picture; `axis` names what goes to the right."""
        middle = (self.left + self.end) / 2
        name = text(middle, self.bottom + 34, axis, "axis", "middle")
        size = f"0 0 {_number(WIDTH)} {_number(self.bottom + AXIS_ROOM)}"
        head = f'<svg viewBox="{size}" role="img" aria-label="{escape(alt)}">'
        return f"{head}{''.join(self.parts)}{name}</svg>"


@dataclass
class EmotionRows(Plot):
    """A chart with one row for each emotion, their names at the left."""

    left: float = 82.0
    pitch: float = 34.0

    def __post_init__(self) -> None:
        for k, emotion in enumerate(EMOTIONS):
            self.add(text(self.left - 8, self.middle(k) + 4, emotion, "name", "end"))

    def middle(self, k: int) -> float:
        return self.top + (k + 0.5) * self.pitch


def emotion_rows(
    x_range: tuple[float, float], right: float = 24.0, top: float = 8.0
) -> EmotionRows:
    """An empty chart of a row for each emotion."""
    return EmotionRows(x_range, (0, 1), 34.0 * len(EMOTIONS), right=right, top=top)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two values, about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) + 0.0 for k in range(first, last + 1)]


def whole_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Those of `nice_ticks` that are whole numbers."""
    return [tick for tick in nice_ticks(low, high, count) if tick == int(tick)]


def decades(low: float, high: float) -> list[float]:
    """Exponents of the powers of ten between two positive values."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [float(k) for k in range(first, last + 1)]


def short(value: float) -> str:
    """A number in few characters: 1k, 250k, 5M, 0.25."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.6g}"


def _number(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def _title(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""
