"""The eight emotions, in the order of FER+ and EmoVoxCeleb; the named outputs of a teacher.

>>> EMOTIONS.index("anger")
4
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from emovox.errors import ConfigError

EMOTIONS: tuple[str, ...] = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)

# Colours of figures on a light and on a dark background. They were optimised for the largest
# difference between any two, for normal vision and for protanopia, deuteranopia and tritanopia
# (tests/test_report.py computes it); rare emotions also have dashed lines.
COLOURS: dict[str, str] = {
    "neutral": "#9e9a9c",
    "happiness": "#db9d28",
    "surprise": "#33b5f3",
    "sadness": "#2e3a9b",
    "anger": "#e41909",
    "disgust": "#248060",
    "fear": "#351750",
    "contempt": "#51382c",
}
COLOURS_ON_DARK: dict[str, str] = {
    "neutral": "#aba2a4",
    "happiness": "#efb434",
    "surprise": "#7dd1fe",
    "sadness": "#7b8ef7",
    "anger": "#ec280b",
    "disgust": "#2e8867",
    "fear": "#8351a7",
    "contempt": "#f6dbb3",
}

MAX_EMOTIONS = 64
NAME = re.compile(r"[a-z][a-z0-9_]*")  # of an emotion or a value; it is part of a column's name


@dataclass(frozen=True)
class Outputs:
    """Names of the outputs of a teacher or a student, and of the columns of a dataset.

    Attributes:
        emotions: names of the logits, 2 to 64, in order.
        values: names of continuous outputs, such as valence; often none.

    Raises:
        ConfigError: a name is not valid, occurs twice, or there are too few or too many.

    Example:
        >>> Outputs(("neutral", "happiness"), ("valence",)).values
        ('valence',)
    """

    emotions: tuple[str, ...] = EMOTIONS
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = (*self.emotions, *self.values)
        if bad := [n for n in names if not (isinstance(n, str) and NAME.fullmatch(n))]:
            raise ConfigError(f"invalid name {bad[0]!r}; use lower-case letters, digits and _")
        if twice := [name for k, name in enumerate(names) if name in names[:k]]:
            raise ConfigError(f"the name {twice[0]!r} occurs twice")
        if not 2 <= len(self.emotions) <= MAX_EMOTIONS:
            raise ConfigError(f"{len(self.emotions)} emotions; use 2 to {MAX_EMOTIONS}")

    @classmethod
    def of(cls, emotions: Iterable[str], values: Iterable[str] = ()) -> "Outputs":
        """Return the outputs with these names, from any iterables."""
        return cls(tuple(emotions), tuple(values))


PUBLISHED = Outputs()  # those of EmoVoxCeleb
