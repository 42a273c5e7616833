"""Datasets of per-frame emotion logits from speaking-face video.

The public names below load nothing heavy until they are used.
"""

from typing import TYPE_CHECKING, Any

from emovox.emotions import EMOTIONS

if TYPE_CHECKING:
    from emovox.build.config import BuildConfig
    from emovox.build.result import BuildResult
    from emovox.build.run import build_dataset
    from emovox.corpus.audio import audio_path
    from emovox.dataset.reader import Dataset, load
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
    "BuildConfig": "emovox.build.config",
    "BuildResult": "emovox.build.result",
    "Dataset": "emovox.dataset.reader",
    "Student": "emovox.student",
    "Teacher": "emovox.teacher",
    "audio_path": "emovox.corpus.audio",
    "build_dataset": "emovox.build.run",
    "load": "emovox.dataset.reader",
    "load_student": "emovox.student",
    "load_teacher": "emovox.teacher",
    "spectrogram": "emovox.media.spectrogram",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emovox' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
