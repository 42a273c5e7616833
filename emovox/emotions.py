"""The eight emotions, in the only order used anywhere (that of FER+ and of EmoVoxCeleb).

>>> EMOTIONS.index("anger")
4
"""

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

# The eight colours of figures, by emotion, on light and on dark ground. They were searched for the
# largest difference between any two, to normal sight and under protanopia, deuteranopia and
# tritanopia (tests/test_report.py computes it); lines of rare emotions are dashed besides.
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
