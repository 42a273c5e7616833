"""Limits of the sizes that files claim, checked before anything of that size is made."""

# Documents and tables
MAX_DOCUMENT = 16 << 20  # bytes of a JSON document, a card, a list or a recipe
MAX_FRONT_MATTER = 1 << 16  # bytes of the YAML of a card
MAX_NESTING = 50  # lists and objects inside each other
MAX_NAME = 4096  # characters of an identity or a video, which may be a path of folders
MAX_TEXT = 1 << 16  # bytes of one text of a table
MAX_TABLE = 1 << 32  # bytes of a table of a user, unpacked
MAX_ROW_GROUP_ROWS = 1 << 24
MAX_ROW_GROUP = 1 << 30  # bytes of a row group of a dataset, unpacked
MAX_EXPANSION = 1100  # unpacked bytes of a file per stored byte; zlib reaches 1,032
MIN_EXPANDED = 256 << 20  # unpacked bytes that need no such check
MAX_CHUNK = 64 << 20  # bytes of a chunk of HDF5

# Networks and MAT files
MAX_MAT_ARRAY = 1 << 30  # bytes
MAX_MAT_CONTENT = 1 << 32  # bytes of a MAT file that is read whole
MAT_NODE = 1 << 17  # bytes that a value without data counts for
MAX_CELLS = 1 << 22  # of a MAT 5 file

# Downloads
MAX_DOWNLOAD = 1 << 40  # bytes

# Pictures and sound
MAX_PIXELS = 8192 * 8192  # of a picture
MAX_PICTURE = 1 << 28  # bytes of its file
MAX_TRACK_SECONDS = 10**6
MAX_FILE_SECONDS = 10**7  # of sound
MAX_SAMPLE_RATE = 1_000_000  # Hz
MAX_CHANNELS = 64
MAX_SAMPLES_PER_BYTE = 8192  # of one channel in a file; FLAC stores silence in a few bytes
MAX_SOUND_BYTES = 1 << 32  # of samples that are read at once

# Datasets
MAX_HDF5_OBJECTS = 1000  # arrays and groups of a file; the contract has 10
