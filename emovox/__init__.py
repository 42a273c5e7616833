"""Datasets of per-frame emotion logits from speaking-face video.

The public names::

    load(path) -> Dataset                       open a dataset: tables, the logits of any track
    audio_path(root, track_id) -> Path          the audio that belongs to a track
    build_dataset(BuildConfig) -> BuildResult   label a corpus of talking faces
    load_teacher(name) -> Teacher               face crops uint8 [N, S, S, 3] to logits [N, 8]
    load_student(checkpoint) -> Student         16 kHz samples [L] to logits [N, 8]
    spectrogram(samples)                        what a student hears, float32 [512, T]
    EMOTIONS                                    the order of the eight logits
    __version__                                 of emovox

None of them loads anything heavy until it is used. `load` and `audio_path` work in the core
installation; the others need the extra `build`. The dataset that `emovox demo` made:

    >>> import emovox
    >>> emovox.load("emovox-demo/dataset")
    <Dataset emovox-demo 0.1.0: 96 tracks, 1,996 frames, train, heard_val, unheard_val>

Errors are those of `emovox.errors`. The commands are listed by `emovox --help`, and pages on what
they are for are in the folder `guide` of this package.
"""

from typing import TYPE_CHECKING, Any

from emovox.emotions import EMOTIONS

__version__ = "0.1.0"  # pyproject.toml takes it from here

if TYPE_CHECKING:
    from emovox.corpus.sound_files import audio_path
    from emovox.dataset.reader import Dataset, load
    from emovox.labelling.build_config import BuildConfig
    from emovox.labelling.result import BuildResult
    from emovox.labelling.run import build_dataset
    from emovox.media.spectrogram import spectrogram
    from emovox.student import Student, load_student
    from emovox.teacher import Teacher, load_teacher

__all__ = [
    "EMOTIONS",
    "BuildConfig",
    "BuildResult",
    "Dataset",
    "Student",
    "Teacher",
    "audio_path",
    "build_dataset",
    "load",
    "load_student",
    "load_teacher",
    "spectrogram",
]

_HOMES = {
    "BuildConfig": "emovox.labelling.build_config",
    "BuildResult": "emovox.labelling.result",
    "Dataset": "emovox.dataset.reader",
    "Student": "emovox.student",
    "Teacher": "emovox.teacher",
    "audio_path": "emovox.corpus.sound_files",
    "build_dataset": "emovox.labelling.run",
    "load": "emovox.dataset.reader",
    "load_student": "emovox.student",
    "load_teacher": "emovox.teacher",
    "spectrogram": "emovox.media.spectrogram",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emovox' has no attribute {name!r}")
    import importlib

    from emovox.packages import explained

    with explained(f"emovox.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, so that pydoc and completion see those that are not loaded yet."""
    return __all__
