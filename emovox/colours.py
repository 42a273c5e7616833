"""Colours and line styles of emotions in figures, on a light and on a dark background.

Those of the published eight were optimised for the largest difference between any two, for normal
vision and for protanopia, deuteranopia and tritanopia (tests/test_report.py computes it). Other
names get the colours that differ most from these and from each other.
"""

from collections.abc import Iterable, Sequence
from colorsys import hls_to_rgb
from functools import lru_cache
from itertools import product

import numpy as np

from emovox.emotions import EMOTIONS

# In the order of `EMOTIONS`.
LIGHT = "#9e9a9c", "#db9d28", "#33b5f3", "#2e3a9b", "#e41909", "#248060", "#351750", "#51382c"
DARK = "#aba2a4", "#efb434", "#7dd1fe", "#7b8ef7", "#ec280b", "#2e8867", "#8351a7", "#f6dbb3"
COLOURS = dict(zip(EMOTIONS, LIGHT, strict=True))
COLOURS_ON_DARK = dict(zip(EMOTIONS, DARK, strict=True))
STYLES = ("-", "--", ":", "-.")  # of lines; colours alone are similar
PER_STYLE = 5  # emotions with the same line style

GROUNDS = ("#ffffff", "#1d2026")  # light and dark
LIGHTNESS = ((0.25, 0.8), (0.54, 0.95))  # in OKLab, of colours that stand out from these
# Rows of matrices: linear RGB to OKLab in two steps (Ottosson, 2020), and linear RGB as seen with
# normal vision, protanopia, deuteranopia and tritanopia (Machado et al., 2009).
TO_LMS = (0.4122, 0.5363, 0.0514, 0.2119, 0.6807, 0.1074, 0.0883, 0.2817, 0.6300)
TO_LAB = (0.2105, 0.7936, -0.0041, 1.9780, -2.4286, 0.4506, 0.0259, 0.7828, -0.8087)
SIGHTS = (
    (1, 0, 0, 0, 1, 0, 0, 0, 1),
    (0.1523, 1.0526, -0.2049, 0.1145, 0.7863, 0.0992, -0.0039, -0.0481, 1.0520),
    (0.3673, 0.8606, -0.2280, 0.2801, 0.6725, 0.0474, -0.0118, 0.0429, 0.9689),
    (1.2555, -0.0767, -0.1788, -0.0784, 0.9308, 0.1476, 0.0047, 0.6914, 0.3039),
)


def colours_of(emotions: Sequence[str], *, dark: bool = False) -> list[str]:
    """Return a colour `#rrggbb` for each emotion; further names do not change the first ones."""
    return list(_colours_of(tuple(emotions), dark))


def line_style(number: int) -> str:
    """Return the line style of the emotion with this number."""
    return STYLES[number // PER_STYLE % len(STYLES)]


@lru_cache
def _colours_of(emotions: tuple[str, ...], dark: bool) -> list[str]:
    known = COLOURS_ON_DARK if dark else COLOURS
    found = {name: known[name] for name in emotions if name in known}
    axes = range(48), np.linspace(0.1, 0.95, 12), (0.25, 0.5, 0.75, 1.0)
    rgb = [hls_to_rgb(hue / 48, light, vivid) for hue, light, vivid in product(*axes)]
    codes = [[round(255 * value) for value in colour] for colour in rgb]
    candidates = np.array([f"#{bytes(code).hex()}" for code in codes])
    low, high = LIGHTNESS[dark]
    lightness = _seen(candidates)[0, :, 0]
    candidates = candidates[(lightness > low) & (lightness < high)]
    seen = _seen(candidates)
    nearest = np.full(len(candidates), np.inf)
    for colour in (*known.values(), GROUNDS[dark]):
        nearest = np.minimum(nearest, _difference(seen, _seen([colour])))
    for name in emotions:
        if name not in found:
            best = int(nearest.argmax())
            found[name] = str(candidates[best])
            nearest = np.minimum(nearest, _difference(seen, seen[:, best : best + 1]))
    return [found[name] for name in emotions]


def _seen(colours: Iterable[str]) -> np.ndarray:
    """Return colours `#rrggbb` in OKLab as each of `SIGHTS` sees them, `[S, N, 3]`."""
    rgb = np.array([list(bytes.fromhex(colour[1:])) for colour in colours]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    sights, to_lms, to_lab = (np.reshape(m, (-1, 3, 3)) for m in (SIGHTS, TO_LMS, TO_LAB))
    seen = np.clip(linear @ sights.transpose(0, 2, 1), 0, 1)
    return np.asarray(np.cbrt(seen @ to_lms[0].T) @ to_lab[0].T)


def _difference(seen: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Return the least difference of colours `[S, N, 3]` from one `[S, 1, 3]` over all sights."""
    return np.asarray(np.linalg.norm(seen - one, axis=2).min(axis=0))
