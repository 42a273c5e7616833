"""Datasets of per-frame emotion logits from speaking-face video.

Each command of the command line, except demo, card and schema, is a function::

    build_dataset(...)      label a corpus of talking faces
    embed(...)              add the teacher's embeddings to a dataset
    import_mat(...)         convert the published annotations to a dataset
    download(...)           download published annotations, splits, teachers and students
    check_corpus(...)       compare a copy of VoxCeleb with its official lists
    validate(...)           check a dataset against the contract
    show(...)               describe a dataset or one of its tracks
    select(...)             write some tracks of a dataset as a dataset
    export(...)             write labels beside their sound, for other libraries
    diff(...)               compare two datasets
    release(...)            make an immutable version of a dataset
    report(...)             show a dataset as a web page or as figures
    train_teacher(...)      train a teacher on labelled faces
    evaluate_teacher(...)   score a teacher on labelled faces
    train_student(...)      train a speech student on a dataset
    pack_sound(...)         store the sound of a dataset for its trainings
    evaluate(...)           score a student on a dataset
    probe(...)              test a network on a labelled speech corpus
    train_fusion(...)       train a network on face and sound over time
    evaluate_fusion(...)    score such networks on a dataset
    predict(...)            label audio and video files with emotions

They return a result with the method `to_pandas`. Their options are keyword arguments, or a config:
BuildConfig, EmbedConfig, DownloadConfig, ReportConfig, TeacherTrainConfig, TeacherEvaluateConfig,
StudentTrainConfig, EvaluateConfig, ProbeConfig, FusionTrainConfig, FusionEvaluateConfig,
PredictConfig, WriteConfig. Every path may be a
string.

To use datasets and networks directly::

    load(path)                      open a dataset: its tables, and the logits of any track
    write_dataset(out, tracks)      write labels and values of your own as a dataset
    audio_path(root, track_id)      find the sound file of a track
    read_audio(path)                read sound as 16 kHz mono, float32 [L]
    track_audio(dataset, id, root)  read the sound of a track, whatever the layout of the corpus
    spectrogram(samples)            compute the input of a student, float32 [512, T]
    SpeechSegments(...)             segments of sound with targets, as a Dataset of torch
    load_teacher(name)              load a network: face crops uint8 [N, S, S, 3] to logits [N, 8]
    load_student(name)              load a network: 16 kHz samples [L] to logits [N, 8]
    hash_identity(identity_id)      compute the line of a takedown list for an identity
    EMOTIONS                        names of the eight logits, in order
    EmovoxError                     base class of all errors that a user can fix
    __version__                     version of emovox

Importing emovox loads no heavy package. The functions for datasets work in the core installation;
the others need the extra `build`. With the dataset of `emovox demo`:

    >>> import emovox
    >>> emovox.load("emovox-demo/dataset")
    <Dataset emovox-demo 0.1.0: 96 tracks, 1,996 frames, train, heard_val, unheard_val>

`emovox --help` lists the commands; the folder `guide` of this package explains them.
"""

import os
import re
from pathlib import Path
from typing import Any

from emovox.emotions import EMOTIONS as EMOTIONS
from emovox.errors import EmovoxError as EmovoxError
from emovox.limits import MAX_PIXELS

__version__ = "0.1.0"  # pyproject.toml reads it

# OpenCV reads it when it is first imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

# Public names, and the module that is imported when one of them is first used.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: home for home, name in re.findall(r"from (\S+) import (\w+) as", _STUB)}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emovox' has no attribute {name!r}")
    import importlib

    from emovox.packages import explained

    with explained(f"emovox.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, so that pydoc and completion show those that are not loaded yet."""
    return __all__
