"""The eight emotions, in the order of FER+ and EmoVoxCeleb.

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
