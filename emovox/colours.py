"""Colours and line styles of emotions in figures, on a light and on a dark background.

Those of the published eight were optimised for the largest difference between any two, for normal
vision and for protanopia, deuteranopia and tritanopia. Other names get, one after the other, the
colour that differs most from these, from the background and from the ones before it;
tests/test_report.py computes them.
"""

from collections.abc import Sequence
from itertools import cycle

from emovox.emotions import EMOTIONS

# In the order of `EMOTIONS`.
LIGHT = "#9e9a9c", "#db9d28", "#33b5f3", "#2e3a9b", "#e41909", "#248060", "#351750", "#51382c"
DARK = "#aba2a4", "#efb434", "#7dd1fe", "#7b8ef7", "#ec280b", "#2e8867", "#8351a7", "#f6dbb3"
COLOURS = dict(zip(EMOTIONS, LIGHT, strict=True))
COLOURS_ON_DARK = dict(zip(EMOTIONS, DARK, strict=True))
# Of other names, as rrggbb.
OTHERS = (
    "9b00f8 c9bca5 b958c7 941564 4f0b0b 488dff 001082 655d9b 6d9b5d 6800d1 a5b3c9 724110 06282d "
    "d97c1f d176c6 727210 348f9c c75882 ab3eba baa98d 7cd91f 6a553f 721059 5b4e82 ed81ed 3eba5d "
    "e33ce3 6a2a7f 2a00a9 c21fd9 5a2200 9c3468 b71a41 1fd97c 82824e 8f1ab7 173e44 4876ff 66c758 "
    "e85f81 344e9c 5d749b 44173e ac74ac 393022 9b655d a90000 829c34 8da9ba 4e6282 820041 651072 "
    "97beff beb1e5 005a22 0068d1 8dbaaf 0000f8 312061 6dba3e 00a97f 76d1ba 23260d b7551a"
)
OTHERS_ON_DARK = (
    "acff20 ac74ac 6fffff 815fe8 c9c0a5 d9931f 5fb5e8 5f7f2a 6d9b5d bed5d8 a5bcc9 9b5d93 d100d1 "
    "82ac74 d8ff97 8fed81 349c82 ff20c7 76d176 936fff d9d91f 9020ff 1ab741 d6e7d6 d1768d ff6fdb "
    "a376d1 5fa3e8 8dba8d 81ff6f beffe7 d91f65 1fd936 ba5d3e e5b1e5 ffbebe 9cdb93 ff97be 97e5ff "
    "ab3eba ba8daf ba7c3e 5f81e8 58c766 f7ebc6 d97c1f a497ff c9aea5 e597ff 3ce366 d91f93 4e824e "
    "b71aa3 ebceef d11a00 8258c7 589ec7 db93b7 a3e85f 00f89b 97b1ff f8007c 7474ac 5d9b9b"
)
STYLES = ("-", "--", ":", "-.")  # of lines; colours alone are similar
PER_STYLE = 5  # emotions with the same line style


def colours_of(emotions: Sequence[str], *, dark: bool = False) -> list[str]:
    """Return a colour `#rrggbb` for each emotion; further names do not change the first ones."""
    known, others = (COLOURS_ON_DARK, OTHERS_ON_DARK) if dark else (COLOURS, OTHERS)
    free = cycle(others.split())
    return [known.get(name) or f"#{next(free)}" for name in emotions]


def line_style(number: int) -> str:
    """Return the line style of the emotion with this number."""
    return STYLES[number // PER_STYLE % len(STYLES)]
