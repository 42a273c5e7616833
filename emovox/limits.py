"""Limits of the sizes that files claim, checked before anything of that size is made."""

# Pictures and sound
MAX_BOXES = 10_000  # of an MP4, read before it is opened
MAX_PIXELS = 8192 * 8192  # of a picture
MAX_TRACK_SECONDS = 10**6
MAX_FILE_SECONDS = 10**7  # of sound
MAX_SAMPLE_RATE = 1_000_000  # Hz

# Datasets
MAX_HDF5_OBJECTS = 1000  # arrays and groups of a file; the contract has 10
