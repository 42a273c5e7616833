"""Limits of the sizes that files claim, checked before anything of that size is made."""

# Pictures and sound
MAX_PIXELS = 8192 * 8192  # of a picture
MAX_TRACK_SECONDS = 10**6
MAX_FILE_SECONDS = 10**7  # of sound
MAX_SAMPLE_RATE = 1_000_000  # Hz
