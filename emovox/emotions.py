"""The eight emotions, in the order of FER+ and EmoVoxCeleb; the named outputs of a teacher.

>>> EMOTIONS.index("anger")
4
"""

import difflib
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

# Usual names of these emotions elsewhere.
SYNONYMS = {
    **{"happy": "happiness", "joy": "happiness", "sad": "sadness", "angry": "anger"},
    **{"disgusted": "disgust", "fearful": "fear", "scared": "fear", "afraid": "fear"},
    **{"surprised": "surprise", "contemptuous": "contempt", "natural": "neutral"},
}
# Labels of speech corpora that no emotion stands for.
OTHER_LABELS = ("bored", "boredom", "calm", "excited", "excitement", "frustrated", "frustration")
SIMILAR = 0.85  # of `difflib`; `unhappy` is not a misspelt `happy`, with 0.83

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
            found = f"found {len(self.emotions)}: {', '.join(self.emotions[:3])}"
            raise ConfigError(f"expected 2 to {MAX_EMOTIONS} emotions, {found}")

    def __len__(self) -> int:
        return len(self.emotions) + len(self.values)

    @classmethod
    def of(cls, emotions: Iterable[str], values: Iterable[str] = ()) -> "Outputs":
        """Return the outputs with these names, from any iterables."""
        return cls(tuple(emotions), tuple(values))


def standard_name(label: str) -> str:
    """Return the name of an emotion as emovox writes it."""
    name = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    return SYNONYMS.get(name, name)


def closest_emotion(label: str) -> str | None:
    """Return the emotion that a label misspells; None for a known label and for an unlike one."""
    name, known = standard_name(label), [*EMOTIONS, *SYNONYMS, *OTHER_LABELS]
    found = [] if name in known else difflib.get_close_matches(name, known, 1, SIMILAR)
    return standard_name(found[0]) if found else None


def in_order(names: Iterable[str]) -> list[str]:
    """Return the distinct names: those of `EMOTIONS` in their order, then the others by name.

    Example:
        >>> in_order(["calm", "sadness", "boredom", "neutral", "sadness"])
        ['neutral', 'sadness', 'boredom', 'calm']
    """
    found = set(names)
    return [e for e in EMOTIONS if e in found] + sorted(found.difference(EMOTIONS))


PUBLISHED = Outputs()  # those of EmoVoxCeleb
