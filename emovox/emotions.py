"""The eight emotions, in the only order used anywhere (SPEC of FER+ and of EmoVoxCeleb)."""

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
